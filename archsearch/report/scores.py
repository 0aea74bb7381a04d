"""Training-free scores of networks, beside what they cost."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table

from archsearch.nets.scores import SCORES
from archsearch.report.front import quantity
from archsearch.report.networks import empty_table
from archsearch.spec.cost import total_cost
from archsearch.spec.spec import Spec, lower


def scores_json(
    specs: Sequence[Spec], names: Sequence[str], seed: int, batch: int, report: Callable[[int, int], None]
) -> list[dict[str, Any]]:
    """What `archsearch score SPEC... --json` prints: cost, scores, and the seconds each took."""
    found = []
    for spec in specs:
        cost = total_cost(lower(spec))
        row: dict[str, Any] = {"name": spec.name, "macs": cost.macs, "params": cost.params, "scores": {}, "seconds": {}}
        for name in names:
            started = time.perf_counter()
            row["scores"][name] = SCORES[name](spec, seed, batch, None)
            row["seconds"][name] = round(time.perf_counter() - started, 3)
        found.append(row)
        report(len(found), len(specs))
    return found


def scores_table(rows: Sequence[dict[str, Any]]) -> Table:
    """A line for each network."""
    table = empty_table()
    table.add_column("network")
    names = list(rows[0]["scores"])
    for column in ("params", "gmacs", *names, "seconds"):
        table.add_column(column, justify="right")
    for row in rows:
        scores = [f"{row['scores'][name]:.2f}" for name in names]
        cost = quantity("params", row["params"]), quantity("gmacs", row["macs"] / 1e9)
        table.add_row(row["name"], *cost, *scores, f"{sum(row['seconds'].values()):.1f}")
    return table
