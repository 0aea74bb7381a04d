"""Model folders of finalised networks: models/<id or published name>/ of a run, from the seed in the middle.

Of the trainings of a network the one with the median validation loss stands for all: the best one would flatter.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from archsearch.errors import ArchsearchError, RunError
from archsearch.front.results import SAME
from archsearch.search.finalize import FOLDER
from archsearch.search.folder import RunFolder
from archsearch.store import Store, open_store, read_json
from archsearch.training.checkpoint import WEIGHTS
from archsearch.training.exporting import Card, Known, Wish, write_model
from archsearch.training.loop import RESULT
from archsearch.training.model_json import MODEL

MODELS = "models"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")  # of a spec; anything else is no folder's name
Report = Callable[[str, int, int, str], None]


def write_models(
    run: str,
    found: Mapping[str, Any],
    hashes: Sequence[tuple[str, str]],
    card: Card,
    commands: Sequence[str] = (),
    wish: Wish | None = None,
    report: Report = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, str]:
    """Writes the model folder of each network in `found`, final.json, whose (hash, start) is among `hashes`.

    One that says the same already is left as it is. Gives the folders by name. A network that cannot be exported is
    said, and stops no other.
    """
    folder, places = RunFolder(open_store(run)), dict[str, str]()
    for row in found["candidates"]:
        start = row.get("start", "scratch")
        if (row["hash"], start) not in hashes or not row["trained"]:
            continue
        name = model_name(row)
        target = folder.store.at(f"{MODELS}/{name}")
        source, known = _known(folder, row, start, commands)
        if not _is_current(target, source, known):
            try:
                write_model(source, target, wish or Wish(), known, card, None, report, say)
            except ArchsearchError as error:
                say(f"{name}: no model folder: {'; '.join(error.lines)}")
                continue
        places[name] = target.url
    return places


def model_name(row: Mapping[str, Any]) -> str:
    """The folder of a network's model: its published name, else its number."""
    published = str(row["published"] or "").split(SAME)[0]
    name = published if NAME.fullmatch(published) else str(int(row["id"]))
    return f"{name}_inherited" if row.get("start") == "inherited" else name


def middle(losses: Mapping[int, float]) -> int:
    """The seed with the median loss; of an even number the worse of the two in the middle."""
    ranked = sorted(losses, key=lambda seed: (losses[seed], seed))
    return ranked[len(ranked) // 2]


def _known(folder: RunFolder, row: Mapping[str, Any], start: str, commands: Sequence[str]) -> tuple[Store, Known]:
    """The training that stands for a network, and what all of them say of it."""
    stores, losses = dict[int, Store](), dict[int, float]()
    for seed in row["seeds"]:
        store = folder.store.at(f"{FOLDER}/{row['hash']}/{seed}{'_inherited' if start == 'inherited' else ''}")
        result = read_json(store, RESULT)
        if result is not None:
            stores[seed], losses[seed] = store, result["metrics"]["loss"]
    if not losses:
        raise RunError(f"{folder.store.url}/{FOLDER}/{row['hash']}: has no finished training")
    seed = middle(losses)
    return stores[seed], Known(
        _accuracy(row, stores[seed], losses),
        _training(folder, row, start, seed),
        _limits(row, seed, losses),
        tuple(commands),
    )


def _accuracy(row: Mapping[str, Any], store: Store, losses: Mapping[int, float]) -> dict[str, Any]:
    """Means over the seeds, and `val` of the training whose weights these are."""
    own, tested = read_json(store, RESULT)["metrics"], read_json(store, "test.json") or {}
    spread = row.get("spread", {})
    test = {"top1": row["test_top1"], "top1_interval": row["test_interval"], "seeds": len(losses)}
    test |= {"videos": len(tested.get("hits", ()))}
    found = {"test": test, "val": {name: value for name, value in own.items() if name != "train_loss"}}
    if "top1" in spread:
        mean = {"top1": row["metrics"]["top1"], "spread": spread["top1"], "seeds": len(losses)}
        found["val, mean of the seeds"] = mean | ({"loss": row["metrics"]["loss"]} if "loss" in row["metrics"] else {})
    if tested.get("hits"):
        found["test, these weights"] = {"top1": tested["top1"], "videos": len(tested["hits"]), "seeds": 1}
    return found


def _training(folder: RunFolder, row: Mapping[str, Any], start: str, seed: int) -> dict[str, Any]:
    identity = folder.identity() or {}
    data = identity.get("data_name") or identity.get("data", {}).get("name")
    found = {"run": identity.get("name"), "candidate": row["id"], "hash": row["hash"], "start": start, "seed": seed}
    return found | ({"data": data} if data else {})


def _limits(row: Mapping[str, Any], seed: int, losses: Mapping[int, float]) -> tuple[str, ...]:
    listed = ", ".join(f"{each}: {loss:.4f}" for each, loss in sorted(losses.items()))
    lines = [
        f"The weights are those of seed {seed}, with the median validation loss of {len(losses)} trainings ({listed}): "
        "what to expect of one, not the best.",
        "The network was selected on val, which therefore flatters it; test was scored once for each seed.",
    ]
    if row.get("start") == "inherited":
        lines.append("The trainings began with the weights of the search's candidate, and not from scratch.")
    if row["failed"]:
        lines.append(f"{len(row['failed'])} more trainings failed.")
    return tuple(lines)


def _is_current(target: Store, source: Store, known: Known) -> bool:
    """Whether a model folder has these weights and says the same of them."""
    facts = read_json(target, MODEL)
    if not isinstance(facts, dict):
        return False
    sums = facts.get("files", {}).get(WEIGHTS, {})
    same = json.loads(json.dumps([known.accuracy, known.training, known.limits]))
    told = [facts.get("accuracy"), facts.get("training"), facts.get("limits")]
    return same == told and bool(sums.get("sha256") == hashlib.sha256(source.read(WEIGHTS) or b"").hexdigest())
