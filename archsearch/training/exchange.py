"""Networks from and for other projects: a weight file becomes a folder like a trained network's, and back.

What has to travel with weights does: norm rule and padding in spec.yaml, mean and std of the pixels in recipe.json,
where the file came from and how it was placed in origin.json.
"""

import hashlib
from pathlib import Path
from typing import Any

from archsearch.errors import RunError
from archsearch.nets.build import build
from archsearch.nets.weights import export_weights, import_weights, write_state
from archsearch.spec.spec import Spec, digest, lower, spec_yaml
from archsearch.store import open_store, write_json
from archsearch.training.checkpoint import load_weights, save_state
from archsearch.training.recipe import Recipe
from archsearch.training.single import read_network

FOREIGN = "origin.json"


def import_network(
    file: Path,
    spec: Spec,
    out: str,
    *,
    dialect: str | None = None,
    classes: int | None = None,
    partial: bool = False,
) -> dict[str, Any]:
    """Writes the folder `out` with the weights of a file and all that goes with them; returns what was done.

    Class names are numbers until labels.txt is replaced. Raises WeightsError, and RunError for a folder in use.
    """
    store = open_store(out)
    if any(store.read(name) is not None for name in ("network.json", "run.json", "checkpoint.pt")):
        raise RunError(f"{out}: holds a training or a search; give --out a new folder")
    found = import_weights(file, spec, dialect=dialect, classes=classes, partial=partial)
    pixels = found.dialect.preprocessing
    side = next(iter(found.spec.inputs.values()))
    short = pixels.short_side if pixels.short_side and pixels.short_side >= max(side.h, side.w) else None
    recipe = Recipe(mean=pixels.mean, std=pixels.std, short_side=short, stride=pixels.stride or "spread")
    facts = {
        "network": found.spec.name,
        "classes": found.spec.classes,
        "digest": digest(lower(found.spec)),
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "dialect": found.dialect.name,
        "about": found.dialect.about,
        "placed": found.placed,
        "fresh": len(found.state) - found.placed,
        "preprocessing": {
            "channels": "rgb",
            "range": [0, 1],
            "mean": list(pixels.mean),
            "std": list(pixels.std),
            "short_side": pixels.short_side,
            "stride": pixels.stride,
            "source": pixels.source,
        },
        "remarks": list(found.remarks),
    }
    store.write("spec.yaml", spec_yaml(found.spec))
    write_json(store, "recipe.json", recipe.model_dump(mode="json"))
    store.write("labels.txt", "".join(f"{number}\n" for number in range(found.spec.classes)))
    write_json(store, FOREIGN, facts)
    save_state(store, found.state)
    return facts


def export_network(run: str, dialect: str, out: Path | None) -> Path:
    """Writes the weights of a network's folder under another project's names; returns the file."""
    store = open_store(run)
    spec, _, _ = read_network(store)
    net = build(spec, seed=0)
    load_weights(store, net)
    path = out or Path(f"{run.rstrip('/')}_{dialect}.safetensors")
    write_state(path, export_weights(spec, net.state_dict(), dialect))
    return path
