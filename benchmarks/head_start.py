"""What a start from other weights is worth: inflated from 2D, and from another data set; on `test`, over seeds.

    python benchmarks/head_start.py inflate DATA --work FOLDER [--from FOLDER] [--seeds 3]
    python benchmarks/head_start.py across DATA --from FOLDER --work FOLDER [--seeds 3]

Networks, recipe and folders are those of cut_and_keep.py. `inflate`: a trained 2D network (f-R2D) becomes the 3D one,
trained for half the epochs; a 2D network of the data set itself, and of another one (its folder in --from). `across`:
the 3D network trained on another set (its folder in --from) is fine-tuned on DATA by the whole recipe: its head only,
res5 and head, everything. Whatever is finished is kept in FOLDER.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from cut_and_keep import PARENT, Facts, hits, interval, network, quiet, scratch

from archsearch.nets.build import build
from archsearch.nets.surgery.transfer import State, transfer
from archsearch.spec.spec import Spec, with_classes
from archsearch.store import open_store
from archsearch.training.checkpoint import START, read_weights, save_state
from archsearch.training.loop import train
from archsearch.training.recipe import Recipe, read_recipe
from archsearch.training.single import open_clips, read_network, start_state, train_single

ROOT = Path(__file__).parent.parent
HALF = 15  # of the recipe's 30 epochs
PARTS: dict[str, tuple[str, ...]] = {"head": ("head",), "res5 + head": ("res5", "head"), "everything": ()}


def scored(folder: Path, data: Path) -> list[int]:
    """Which test videos a trained network's folder gets right."""
    spec, recipe, labels = read_network(open_store(str(folder)))
    net = build(spec)
    net.load_state_dict(read_weights(open_store(str(folder))))
    return hits(net, spec, recipe, labels, open_clips(spec, recipe, data))


STARTS: dict[str, dict[str, Any]] = {
    "centre": {},
    "mean": {"rule": "mean"},
    "centre, fresh head": {"head": False},
    "mean, fresh head": {"rule": "mean", "head": False},
    "centre, half fresh": {"share": 0.5},
    "centre, half fresh, of the other set": {"share": 0.5, "other": True},
}


def begun(start: dict[str, Any], flat: Path, seed: int, new: Spec, folder: Path) -> State:
    """What a 3D network begins with: the 2D network of a folder inflated, some of it fresh."""
    store = open_store(str(flat))
    old, _, _ = read_network(store)
    whole = with_classes(network(PARENT), old.classes)
    inflated, _ = transfer(old, read_weights(store), whole, inflate=start.get("rule", "centre"), seed=seed)
    save_state(open_store(str(folder / "inflated")), inflated)
    state = start_state(new, open_store(str(folder / "inflated")), seed, share=float(start.get("share", 1.0)))
    fresh = build(new, seed=seed).state_dict()
    return {key: fresh[key] if not start.get("head", True) and key.startswith("head.") else state[key] for key in state}


def inflate(seed: int, source: Path | None, data: Path, work: Path, found: Facts) -> Facts:
    """Ways to begin with a 2D network's weights, each trained for half the epochs."""
    flat = scratch("fr2d", seed, data, work)
    old, recipe, labels = read_network(open_store(str(flat)))
    new = with_classes(network(PARENT), old.classes)
    pack = open_clips(new, recipe, data)
    short = recipe.model_copy(update={"epochs": HALF})
    found = {"2D": scored(flat, data), "scratch": scored(scratch(PARENT, seed, data, work), data)} | found
    for name in ("scratch, half", *STARTS):
        folder = work / f"inflate_{name.replace(', ', '_').replace(' ', '_')}_{seed}"
        start = STARTS.get(name, {})
        if name in found or (start.get("other") and source is None):
            continue
        if name in STARTS:
            other = flat if source is None or not start.get("other") else source / f"fr2d_{seed}"
            save_state(open_store(str(folder)), begun(start, other, seed, new, folder), START)
        train(new, short, pack, open_store(str(folder)))
        net = build(new)
        net.load_state_dict(read_weights(open_store(str(folder))))
        found[name] = hits(net, new, recipe, labels, pack)
    return found


def across(seed: int, source: Path, data: Path, work: Path, found: Facts) -> Facts:
    """A network of another data set, of which more and more is trained; and from scratch."""
    base = read_recipe(ROOT / "recipes" / "small.yaml").model_copy(update={"seed": seed})
    found = {"scratch": scored(scratch(PARENT, seed, data, work), data)} | found
    for name, stages in PARTS.items():
        folder = work / f"across_{name.replace(' + ', '_')}_{seed}"
        if name in found:
            continue
        recipe: Recipe = base.model_copy(update={"train_only": stages})
        train_single(network(PARENT), data, str(folder), recipe, quiet, start=str(source / f"{PARENT}_{seed}"))
        found[name] = scored(folder, data)
    return found


def table(study: str, work: Path) -> str:
    """What is finished, as Markdown: means, and differences to training from scratch."""
    facts = [json.loads(path.read_text()) for path in sorted(work.glob(f"{study}_[0-9].json"))]
    lines = ["| start | seeds | top-1 | less from scratch |", "|---|---|---|---|"]
    for name in facts[0] if facts else ():
        columns = np.array([fact[name] for fact in facts])
        mean, low, high = interval(columns - np.array([fact["scratch"] for fact in facts]))
        lines.append(f"| {name} | {len(facts)} | {columns.mean():.3f} | {mean:+.3f} [{low:+.3f}, {high:+.3f}] |")
    return "\n".join(lines)


def main() -> None:
    """Trains and scores what is missing; prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", choices=["inflate", "across"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--from", dest="source", type=Path, help="the work folder of the other data set")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    for seed in range(given.seeds):
        path = given.work / f"{given.study}_{seed}.json"
        known: Facts = json.loads(path.read_text()) if path.exists() else {}
        if given.study == "inflate":
            found = inflate(seed, given.source, given.data, given.work, known)
        else:
            found = across(seed, given.source, given.data, given.work, known)
        path.write_text(json.dumps(found))
        print(seed, {name: round(float(np.mean(right)), 3) for name, right in found.items()}, flush=True)
    print(table(given.study, given.work))


if __name__ == "__main__":
    main()
