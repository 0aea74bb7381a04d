"""What surgery keeps: a trained R3D cut to six others, on `test`, over seeds, beside training from scratch.

    python benchmarks/cut_and_keep.py DATA --work FOLDER [--seeds 3] [--only NAME ...]
    python benchmarks/cut_and_keep.py DATA --work FOLDER --table

Networks are R3D-18's shape with one block a group, a quarter of the width, 8 frames of 56 x 56 (as small.yaml has it).
Each network is trained from scratch by recipes/small.yaml with every seed; then the parent of the same seed is cut:
transfer alone, fitted without labels, then fine-tuned for 1 and 3 epochs. Whatever is finished is kept in FOLDER.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from archsearch.nets.build import build
from archsearch.nets.surgery.calibrate import refit
from archsearch.nets.surgery.transfer import transfer, weighed_steps
from archsearch.space.choices import assign
from archsearch.space.file import read_space
from archsearch.spec.spec import Spec, with_classes
from archsearch.store import open_store
from archsearch.training.checkpoint import START, read_weights, save_state
from archsearch.training.clips import sampling_for, split_of
from archsearch.training.evaluate import score
from archsearch.training.loop import train
from archsearch.training.operation import calibration_clips
from archsearch.training.recipe import Recipe, read_recipe
from archsearch.training.single import open_clips, read_network, train_single

ROOT = Path(__file__).parent.parent
GROUPS = ("stem", "res2", "res3", "res4", "res5")
PARENT = "r3d"
KINDS = {
    PARENT: ["3d"] * 5,
    "mc4": ["3d"] * 3 + ["2d"] * 2,
    "mc3": ["3d"] * 2 + ["2d"] * 3,
    "rmc3": ["2d"] * 2 + ["3d"] * 3,
    "fr2d": ["2d"] * 5,
    "r2plus1d": ["2+1d"] * 5,
    "separable": ["separable"] * 5,
}
STEPS = ("transfer", "fitted", "1 epoch", "3 epochs")
TUNING = {"lr": 2e-4, "warmup_epochs": 0.0}  # a tenth of the recipe: what is there should stay
Facts = dict[str, Any]


def network(name: str) -> Spec:
    """One of the seven."""
    base = read_space(ROOT / "search_spaces" / "small.yaml").base
    return assign(base, {(group, "conv"): kind for group, kind in zip(GROUPS, KINDS[name], strict=True)}, name)


def quiet(*_: object) -> None:
    """No progress."""


def hits(net: torch.nn.Module, spec: Spec, recipe: Recipe, labels: tuple[str, ...], pack: Any) -> list[int]:
    """Which test videos are right."""
    scores = score(net.eval(), split_of(pack, "test"), sampling_for(spec, recipe, labels), recipe)
    return [int(hit) for hit in scores.probabilities.mean(1).argmax(1) == scores.labels]


def scratch(name: str, seed: int, data: Path, work: Path) -> Path:
    """A network trained by the full recipe."""
    folder = work / f"{name}_{seed}"
    recipe = read_recipe(ROOT / "recipes" / "small.yaml").model_copy(update={"seed": seed})
    train_single(network(name), data, str(folder), recipe, quiet)
    return folder


def cut(name: str, seed: int, data: Path, work: Path) -> Facts:
    """The parent cut to a network, step by step: the test videos that are right after each."""
    torch.set_num_threads(1)
    store = open_store(str(scratch(PARENT, seed, data, work)))
    old, recipe, labels = read_network(store)
    new = with_classes(network(name), old.classes)
    pack = open_clips(old, recipe, data)
    state, edits = transfer(old, read_weights(store), new, seed=seed)
    found: Facts = {"exact": all(edit.exact for edit in edits)}
    before, after = build(old), build(new)
    before.load_state_dict(read_weights(store))
    after.load_state_dict(state)
    found["parent"] = hits(before, old, recipe, labels, pack)
    found["transfer"] = hits(after, new, recipe, labels, pack)
    refit(before, after, weighed_steps(old, read_weights(store), new), calibration_clips(old, recipe, pack))
    found["fitted"] = hits(after, new, recipe, labels, pack)
    for epochs in (1, 3):
        tuning = recipe.model_copy(update={**TUNING, "epochs": epochs})
        folder = open_store(str(work / f"{name}_{seed}_after_{epochs}"))
        save_state(folder, after.state_dict(), START)
        train(new, tuning, pack, folder)
        tuned = build(new)
        tuned.load_state_dict(read_weights(folder))
        found[f"{epochs} epoch{'s' * (epochs > 1)}"] = hits(tuned, new, recipe, labels, pack)
    alone, full = build(new), open_store(str(scratch(name, seed, data, work)))
    alone.load_state_dict(read_weights(full))
    found["scratch"] = hits(alone, new, recipe, labels, pack)
    return found


def interval(columns: np.ndarray, draws: int = 4000) -> tuple[float, float, float]:
    """The mean of (seeds, videos) and its 95 % interval, seeds and videos resampled."""
    rng = np.random.default_rng(0)
    seeds, videos = columns.shape
    means = [
        columns[rng.integers(seeds, size=seeds)][:, rng.integers(videos, size=videos)].mean() for _ in range(draws)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(columns.mean()), float(low), float(high)


def table(work: Path) -> str:
    """What is finished, as Markdown."""
    columns = ["cut to", "seeds", "parent", *STEPS, "from scratch", "fitted - parent", "3 epochs - scratch"]
    lines = ["| " + " | ".join(columns) + " |"]
    lines.append("|" + "---|" * len(columns))
    for name in KINDS:
        facts = [json.loads(path.read_text()) for path in sorted(work.glob(f"cut_{name}_*.json"))]
        if not facts:
            continue
        arrays = {step: np.array([fact[step] for fact in facts]) for step in ("parent", *STEPS, "scratch")}
        cells = [f"{arrays[step].mean():.3f}" for step in ("parent", *STEPS, "scratch")]
        for left, right in (("fitted", "parent"), ("3 epochs", "scratch")):
            mean, low, high = interval(arrays[left] - arrays[right])
            cells.append(f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]")
        lines.append(f"| {name} | {len(facts)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Trains, cuts and scores what is missing; prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[name for name in KINDS if name != PARENT])
    parser.add_argument("--table", action="store_true", help="print what is finished")
    options = parser.parse_args()
    if not options.table:
        for seed, name in ((seed, name) for seed in range(options.seeds) for name in options.only):
            path = options.work / f"cut_{name}_{seed}.json"
            if not path.exists():
                facts = cut(name, seed, options.data, options.work)
                path.write_text(json.dumps(facts))
                means = {step: math.fsum(facts[step]) / len(facts[step]) for step in ("parent", *STEPS, "scratch")}
                print(name, seed, {step: round(mean, 3) for step, mean in means.items()}, flush=True)
    print(table(options.work))


if __name__ == "__main__":
    main()
