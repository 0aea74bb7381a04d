"""How well what a rung reads ranks networks, and what it costs: short schedules, trunks, averaged weights.

    python benchmarks/rungs.py TABLE [OTHER ...] [--json]

TABLE has networks trained to the end, with two seeds or more, and by shorter complete schedules; each OTHER has some of
its networks by another recipe (`schedule: trapezoid` is a trunk of constant rate with a cool-down at its end,
`schedule: constant` with `ema` are averaged weights of a trunk). Kendall's tau is between what one seed reads and what
another seed has at the end (the same, where a table has one), so that the noise of training is in it; the ceiling is
that of two whole trainings. Spent is what a rung costs of a whole training, lost is the part that a network which goes
on cannot use.
"""

import itertools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from claims import claim, parser, print_claims

from archsearch.front.compare import kendall_tau
from archsearch.search.table import Table, read_table

METRICS = ("top1", "loss")
DRAWS = 200  # of networks, with repetition, for the middle half of a tau
Values = Mapping[tuple[str, int], Mapping[str, float]]  # (network, seed) -> what stands for each metric
Rows = Mapping[tuple[str, int], Mapping[str, Any]]  # (network, seed) -> a row of a table


@dataclass(frozen=True)
class Way:
    """A way to read a rung: its name, the epochs trained, those of them that are lost, and what was read."""

    name: str
    epochs: float
    lost: float
    values: Values


def ways(table: Table, others: list[Table]) -> list[Way]:
    """Every way that the tables have, the whole training last."""
    found = []
    whole = table.recipe.epochs
    for epochs, rows in _lengths(table):
        name = f"complete schedule, {epochs} epochs"
        found.append(Way(name, epochs, epochs if epochs < whole else 0, _ends(rows)))
        if epochs < whole:
            found.append(Way(f"its training loss, {epochs} epochs", epochs, epochs, _losses(rows, epochs)))
            longest = dict(_lengths(table))[whole]
            found.append(Way(f"middle of the whole schedule, {epochs} epochs", epochs, 0, _middle(longest, epochs)))
            found.append(Way(f"its training loss, after {epochs} epochs", epochs, 0, _losses(longest, epochs)))
    for other in others:
        for epochs, rows in _lengths(other):
            lost = epochs * other.recipe.cooldown if other.recipe.schedule == "trapezoid" else 0
            average = f", weights averaged by {other.recipe.ema}" if other.recipe.ema else " and cool-down"
            found.append(Way(f"trunk{average}, {epochs} epochs", epochs, lost, _ends(rows)))
    return sorted(found, key=lambda way: way.epochs)


def _lengths(table: Table) -> list[tuple[int, Rows]]:
    lengths = sorted({epochs for _, _, epochs in table.rows})
    return [
        (length, {(net, seed): row for (net, seed, epochs), row in table.rows.items() if epochs == length})
        for length in lengths
    ]


def _ends(rows: Rows) -> Values:
    return {key: row["metrics"] for key, row in rows.items()}


def _middle(rows: Rows, epochs: int) -> Values:
    return {
        key: {"top1": row["curve"]["val_top1"][epochs - 1], "loss": row["curve"]["val_loss"][epochs - 1]}
        for key, row in rows.items()
    }


def _losses(rows: Rows, epochs: int) -> Values:
    """The training loss of an epoch, for both metrics."""
    losses = {key: row["curve"]["train_loss"][epochs - 1] for key, row in rows.items()}
    return {key: {"top1": -loss, "loss": loss} for key, loss in losses.items()}


def taus(way: Way, whole: Values, networks: list[str], metric: str) -> list[float]:
    """Tau with the end of another seed, over draws of the networks, all pairs of seeds together."""
    seeds = sorted({seed for _, seed in whole})
    several = itertools.permutations(seeds, 2) if len(seeds) > 1 else [(seeds[0], seeds[0])]
    pairs = [(a, b) for a, b in several if (networks[0], a) in way.values]
    rng = np.random.default_rng(0)
    read = {a: np.array([way.values[net, a][metric] for net in networks]) for a, _ in pairs}
    end = {b: np.array([whole[net, b][metric] for net in networks]) for _, b in pairs}
    drawn = [np.arange(len(networks)), *(rng.integers(len(networks), size=len(networks)) for _ in range(DRAWS))]
    found = [[kendall_tau(read[a][place], end[b][place]) for a, b in pairs] for place in drawn]
    values: list[float] = np.nanmean(found, axis=1).tolist()
    return values


def main() -> None:
    """Prints a line for each way; with --json a claim for each: tau over the ceiling."""
    options = parser(__doc__)
    options.add_argument("tables", type=Path, nargs="+", metavar="TABLE")
    given = options.parse_args()
    table, *others = [read_table(path) for path in given.tables]
    every = ways(table, others)
    whole = max(every, key=lambda way: way.epochs)
    networks = sorted(set.intersection(*({net for net, _ in way.values} for way in every)))
    rows: dict[str, dict[str, Any]] = defaultdict(dict)
    for way, metric in itertools.product(every, METRICS):
        rows[way.name][metric] = taus(way, whole.values, networks, metric)
    if not given.json:
        print(f"{len(networks)} networks; tau with the end of another seed (middle half over draws of networks)")
        print(f"{'':44} {'spent':>6} {'lost':>6}  {'top1':22} loss")
        for way in every:
            texts = [_text(rows[way.name][metric]) for metric in METRICS]
            share = [f"{part / whole.epochs:6.0%}" for part in (way.epochs, way.lost)]
            print(f"{way.name:44} {share[0]} {share[1]}  {texts[0]:22} {texts[1]}")
    ceiling = rows[whole.name]["loss"][0]
    claims = [
        claim(
            f"{way.name}: tau of the loss over another seed's", [t / ceiling for t in rows[way.name]["loss"][1:]], 1.0
        )
        for way in every
        if way is not whole
    ]
    if given.json:
        print_claims(claims, True)


def _text(values: list[float]) -> str:
    low, high = np.nanquantile(values[1:], [0.25, 0.75])
    return f"{values[0]:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
