"""The best network with temporal kernels against the best time-blind one, on `test`, forwards and backwards.

    python benchmarks/time_matters.py $UTD_MHAD/utd_mhad_depth runs/utd_mhad_depth runs/utd_mhad_depth_2d --out DIR

The runs' candidates were trained on `train` and are selected on `val` (video top-1, ties by loss), each side by
itself. The two winners are trained again from scratch with several seeds by the runs' recipe, and scored on `test`
once. Intervals: 95 %, paired bootstrap over videos and seeds.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archsearch.errors import RecipeError
from archsearch.files import read_record, read_yaml
from archsearch.front.results import Candidate
from archsearch.search.results import read_results
from archsearch.spec.graph import Conv, parts
from archsearch.spec.spec import Spec, lower, read_spec
from archsearch.training.recipe import Recipe
from archsearch.training.single import score_single, train_single

RESAMPLES = 10_000


@dataclass(frozen=True)
class Entrant:
    """A candidate of a run and its network."""

    run: Path
    candidate: Candidate
    spec: Spec

    @property
    def sees_time(self) -> bool:
        """Whether any convolution has a temporal kernel."""
        graph = lower(self.spec)
        plain = [
            part
            for node in graph.nodes.values()
            if isinstance(node.op, Conv)
            for part in parts(node.op, graph.input_sizes(node)[0].c)
        ]
        return any(part.kernel[0] > 1 for part in plain)


def entrants(runs: list[Path]) -> list[Entrant]:
    """Every complete candidate of the runs, best on `val` first."""
    found = [
        Entrant(run, candidate, read_spec(run / "candidates" / candidate.hash / "spec.yaml"))
        for run in runs
        for candidate in read_results(str(run)).complete()
    ]
    return sorted(found, key=lambda e: (-e.candidate.metrics["top1"], e.candidate.metrics["loss"]))


def recipe_of(run: Path, seed: int) -> Recipe:
    """A run's recipe with another seed."""
    faults: list[str] = []
    path = run / "recipe.yaml"
    recipe = read_record(Recipe, read_yaml(path, RecipeError) | {"seed": seed}, str(path), faults)
    if recipe is None:
        raise RecipeError(*faults)
    return recipe


def hits(entrant: Entrant, data: Path, out: Path, seeds: range) -> dict[str, np.ndarray]:
    """Whether each video of `test` was right, (seeds, videos), forwards and backwards."""
    rows: dict[str, list[np.ndarray]] = {"forwards": [], "backwards": []}
    for seed in seeds:
        folder = out / f"{entrant.candidate.hash}-seed{seed}"
        train_single(entrant.spec, data, str(folder), recipe_of(entrant.run, seed), _say)
        for direction, row in rows.items():
            scores, _ = score_single(str(folder), data, "test", reverse=direction == "backwards")
            row.append(scores.probabilities.mean(1).argmax(1) == scores.labels)
    return {direction: np.stack(row) for direction, row in rows.items()}


def interval(right: np.ndarray, other: np.ndarray | None = None) -> tuple[float, float, float]:
    """Mean of `right` (seeds, videos), or of its difference to `other`, with a 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    values = right.astype(float) - (0.0 if other is None else other.astype(float))
    seeds, videos = values.shape
    means = [
        values[np.ix_(rng.integers(seeds, size=seeds), rng.integers(videos, size=videos))].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def _say(what: str, done: int, total: int, status: str) -> None:
    if done == total:
        print(f"{what}: {done}/{total} {status}", file=sys.stderr, flush=True)


def main() -> None:
    """Prints a Markdown table and, as JSON, everything in it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    found = entrants(options.runs)
    sides = {
        "with temporal kernels": next(e for e in found if e.sees_time),
        "time-blind": next(e for e in found if not e.sees_time),
    }
    right = {
        name: hits(entrant, options.data, options.out, range(1, options.seeds + 1)) for name, entrant in sides.items()
    }
    table: dict[str, Any] = {}
    for name, entrant in sides.items():
        forwards, backwards = (interval(right[name][direction]) for direction in ("forwards", "backwards"))
        choices = " ".join(f"{path}={value}" for path, value in entrant.candidate.choices.items())
        table[name] = {
            "run": entrant.run.name,
            "candidate": entrant.candidate.hash,
            "choices": choices,
            "gmacs": entrant.candidate.metrics["gmacs"],
            "val_top1": entrant.candidate.metrics["top1"],
            "test_top1": forwards,
            "test_top1_backwards": backwards,
            "test_top1_by_seed": right[name]["forwards"].mean(1).tolist(),
        }
    blind = right["time-blind"]["forwards"]
    table["difference"] = interval(right["with temporal kernels"]["forwards"], blind)
    print("| network | gmacs | val | test, forwards | test, backwards |\n|---|---|---|---|---|")
    for name in sides:
        row = table[name]
        cells = ["{:.3f} [{:.3f}, {:.3f}]".format(*row[key]) for key in ("test_top1", "test_top1_backwards")]
        print(f"| {name} | {row['gmacs']:.3f} | {row['val_top1']:.3f} | {' | '.join(cells)} |")
    print("\ndifference, forwards: {:.3f} [{:.3f}, {:.3f}]\n".format(*table["difference"]))
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
