"""How training-free scores rank a table's networks, beside plain macs and params: Kendall's tau, as Markdown.

    python benchmarks/scores.py TABLE SPACE [--batch 16] [--seeds 3] [--only naswot ...]

TABLE has networks of SPACE trained (`archsearch tabulate`). Each network's validation loss and top-1 at the end of the
longest training are averaged over the table's seeds, its scores over seeds of weights and clips of noise. Tau with the
loss is that of a lower loss. The last line is how one seed of training ranks what the others' mean does.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optuna.trial import FixedTrial

from archsearch.front.compare import kendall_tau
from archsearch.nets.scores import SCORES
from archsearch.search.table import Table, read_table
from archsearch.space.file import read_space
from archsearch.space.space import Space
from archsearch.spec.cost import total_cost
from archsearch.spec.spec import Spec, lower

GOALS = {"loss": -1, "top1": 1}  # what is read of a training, and whether more of it is better


@dataclass(frozen=True)
class Trained:
    """A network of a table, and its final values, seed by seed."""

    spec: Spec
    finals: Mapping[str, Sequence[float]]


def trained_networks(table: Table, space: Space) -> list[Trained]:
    """The networks of the table's longest training, in its order."""
    rows: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for (network, _, epochs), row in sorted(table.rows.items(), key=lambda item: item[0][1]):
        if epochs == table.recipe.epochs:
            rows[network].append(row)
    return [
        Trained(
            space.draw(FixedTrial(dict(own[0]["choices"]))),
            {goal: [sign * row["metrics"][goal] for row in own] for goal, sign in GOALS.items()},
        )
        for own in rows.values()
    ]


def tau(values: Sequence[float], networks: Sequence[Trained], goal: str) -> float:
    """Kendall's tau-b with what training found, averaged over seeds."""
    return kendall_tau(np.array(values), np.array([np.mean(each.finals[goal]) for each in networks]))


def another_seed(networks: Sequence[Trained], goal: str) -> float:
    """The mean tau of one seed with the mean of the others: what a measurement by training reaches."""
    finals = np.array([each.finals[goal] for each in networks])
    if finals.shape[1] < 2:
        return float("nan")
    others = [np.delete(finals, seed, axis=1).mean(1) for seed in range(finals.shape[1])]
    return float(np.mean([kendall_tau(finals[:, seed], rest) for seed, rest in enumerate(others)]))


def line(name: str, taus: Sequence[float], seconds: float) -> str:
    """A row of the table."""
    return f"| {name} | {' | '.join(f'{value:+.2f}' for value in taus)} | {seconds:.2g} |"


def main() -> None:
    """Prints a row for each score as it is done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("space", type=Path)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3, help="of weights and clips")
    parser.add_argument("--only", nargs="*", choices=list(SCORES), default=list(SCORES))
    options = parser.parse_args()
    table = read_table(options.table)
    torch.set_num_threads(table.recipe.threads)
    space = read_space(options.space).for_classes(len(table.data["classes"]))
    networks = trained_networks(table, space)
    print(f"| {len(networks)} networks | tau with loss | tau with top-1 | seconds a network |\n|---|---|---|---|")
    costs = [total_cost(lower(each.spec)) for each in networks]
    for name in ("macs", "params"):
        values = [getattr(cost, name) for cost in costs]
        print(line(name, [tau(values, networks, goal) for goal in GOALS], 0.0), flush=True)
    for name in options.only:
        started, seeds = time.perf_counter(), 1 if name == "entropy" else options.seeds
        draws = [[SCORES[name](each.spec, seed, options.batch, None) for each in networks] for seed in range(seeds)]
        seconds = (time.perf_counter() - started) / seeds / len(networks)
        taus = [float(np.mean([tau(values, networks, goal) for values in draws])) for goal in GOALS]
        print(line(name, taus, seconds), flush=True)
    each_seed = np.mean([row["seconds"] for (_, _, epochs), row in table.rows.items() if epochs == table.recipe.epochs])
    print(line("another seed", [another_seed(networks, goal) for goal in GOALS], float(each_seed)))


if __name__ == "__main__":
    main()
