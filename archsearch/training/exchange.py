"""Networks from and for other projects: a weight file becomes a folder like a trained network's, and back.

What has to travel with weights does: norm rule and padding in spec.yaml, mean and std of the pixels in recipe.json,
where the file came from and how it was placed in origin.json.
"""

import hashlib
from pathlib import Path
from typing import Any

from archsearch.errors import RunError
from archsearch.nets.build import build
from archsearch.nets.images import Inflate
from archsearch.nets.weights import Imported, export_layout, export_weights, import_weights, write_state
from archsearch.spec.spec import Spec, digest, lower, spec_yaml
from archsearch.store import Store, open_store, read_json, write_json
from archsearch.training.checkpoint import WEIGHTS, load_weights, save_state
from archsearch.training.recipe import Recipe
from archsearch.training.single import Say, read_network
from archsearch.video.clips import RGB
from archsearch.video.flow import Method

FOREIGN = "origin.json"


def import_network(
    file: Path,
    spec: Spec,
    out: str,
    *,
    dialect: str | None = None,
    classes: int | None = None,
    partial: bool = False,
    inflate: Inflate | None = None,
) -> dict[str, Any]:
    """Writes the folder `out` with the weights of a file and all that goes with them; returns what was done.

    Class names are numbers until labels.txt is replaced. The same import again adds what is missing, and nothing else.
    Raises WeightsError, and RunError for a folder in use.
    """
    store = open_store(out)
    _check_free(store, read_json(store, FOREIGN))
    found = import_weights(file, spec, dialect=dialect, classes=classes, partial=partial, inflate=inflate)
    facts = _facts(file, found)
    _check_free(store, known := read_json(store, FOREIGN), facts)
    if known is None:
        write_json(store, FOREIGN, facts)
    if store.read("spec.yaml") is None:
        store.write("spec.yaml", spec_yaml(found.spec))
    if store.read("recipe.json") is None:
        write_json(store, "recipe.json", _recipe(found).model_dump(mode="json"))
    if store.read("labels.txt") is None:
        store.write("labels.txt", "".join(f"{number}\n" for number in range(found.spec.classes)))
    if store.read(WEIGHTS) is None:
        save_state(store, found.state)
    return facts


def _check_free(store: Store, known: Any, facts: dict[str, Any] | None = None) -> None:
    """Raises RunError for a folder that holds another network than the one of `facts`."""
    taken = ("network.json", "run.json", "checkpoint.pt", *(() if known else ("spec.yaml", WEIGHTS)))
    if any(store.read(name) is not None for name in taken):
        raise RunError(f"{store.url}: holds a training or a search; give --out a new folder")
    if known is None or facts is None:
        return
    if not isinstance(known, dict) or {**known, "file": ""} != {**facts, "file": ""}:
        held = f"{known.get('network')} from {known.get('file')}" if isinstance(known, dict) else "something else"
        raise RunError(f"{store.url}: holds another import, {held}; give --out a new folder")


def _recipe(found: Imported) -> Recipe:
    """The default recipe, with frames as the weights know them; flow is TV-L1 in all published ones (Carreira 2017)."""
    pixels, size = found.dialect.preprocessing, next(iter(found.spec.inputs.values()))
    short = pixels.short_side if pixels.short_side and pixels.short_side >= max(size.h, size.w) else None
    flow: Method = "farneback" if size.c == RGB else "tvl1"
    return Recipe(mean=pixels.mean, std=pixels.std, short_side=short, stride=pixels.stride or "spread", flow=flow)


def _facts(file: Path, found: Imported) -> dict[str, Any]:
    """What was done, and what a user of the weights has to know."""
    pixels, channels = found.dialect.preprocessing, next(iter(found.spec.inputs.values())).c
    return {
        "network": found.spec.name,
        "classes": found.spec.classes,
        "digest": digest(lower(found.spec)),
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "dialect": found.dialect.name,
        "about": found.dialect.about,
        "placed": found.placed,
        "fresh": found.fresh,
        "preprocessing": {
            "channels": "rgb" if channels == 3 else "flow",
            "range": [0, 1],
            "mean": list(pixels.mean[:channels]),
            "std": list(pixels.std[:channels]),
            "short_side": pixels.short_side,
            "stride": pixels.stride,
            "source": pixels.source,
        },
        "remarks": list(found.remarks),
        **_inflation(found),
    }


def _inflation(found: Imported) -> dict[str, Any]:
    """Of an image network's weights: the rule, how many sites have each verdict, and what was not as it was."""
    if found.inflation is None:
        return {}
    changed = {edit.site: edit.how for edit in found.inflation.edits if edit.verdict != "kept"}
    return {"inflation": {"rule": found.inflation.rule, "sites": found.inflation.verdicts, "changed": changed}}


def export_network(run: str, dialect: str, out: Path | None, say: Say = lambda _: None) -> Path:
    """Writes the weights of a network's folder under another project's names; returns the file.

    `say` hears what does not travel with them: a norm rule or padding that differs from theirs.
    """
    store = open_store(run)
    spec, _, _ = read_network(store)
    net = build(spec, seed=0)
    load_weights(store, net)
    path = out or Path(f"{run.rstrip('/')}_{dialect}.safetensors")
    layout = export_layout(spec, dialect)
    for what, ours, theirs in (
        ("norm's eps", spec.norm.eps, layout.spec.norm.eps),
        ("padding", spec.padding, layout.spec.padding),
    ):
        if ours != theirs:
            say(f"{run}: its {what} is {ours}, theirs {theirs}; there the same weights give other scores")
    write_state(path, export_weights(spec, net.state_dict(), dialect))
    return path
