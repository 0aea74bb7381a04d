"""Two runs side by side: rank correlation, the fronts in each other's eyes, what each choice does."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from archsearch.report.front import choices_text, quantity
from archsearch.report.networks import empty_table


def compare_runs_table(data: Mapping[str, Any]) -> Group:
    """`data` as of `front.compare.compare_runs`."""
    left, right = data["runs"]
    said = [f"{name}: Kendall's tau {_tau(found)}" for name, found in data["tau"].items()]
    counts = f"{data['common']} networks in both ({data['networks'][0]} in {left}, {data['networks'][1]} in {right})"
    head = Text("\n".join([counts, *said]))
    fronts = [_front(data, side) for side in (0, 1)]
    return Group(head, *fronts, *([_choices(data)] if data["choices"] else []))


def _tau(found: Mapping[str, Any]) -> str:
    """`0.61 (0.33 to 0.82)`"""
    if found["tau"] is None:
        return "-, since one of them has the same for all"
    low, high = found["interval"]
    return f"{found['tau']:.2f} ({low:.2f} to {high:.2f})"


def _front(data: Mapping[str, Any], side: int) -> Table:
    here, there = data["runs"][side], data["runs"][1 - side]
    table = empty_table(f"the front of {here}")
    members = data["fronts"][side]
    names = list(members[0]["metrics"]) if members else []
    table.add_column("id", justify="right")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column(f"{names[0] if names else ''}\nin {there}", justify="right")
    table.add_column("rank\nthere", justify="right")
    table.add_column("choices", overflow="fold")
    for row in members:
        known = row["there"] is not None
        cells = [str(row["id"]), *(quantity(name, row["metrics"][name]) for name in names)]
        cells += [quantity(names[0], row["there"][names[0]]) if known else "-", str(row["rank"]) if known else "-"]
        table.add_row(*map(Text, (*cells, choices_text(row["choices"], list(row["choices"])))))
    table.caption = Text("rank 0: on the front there, too; -: not trained there")
    return table


def _choices(data: Mapping[str, Any]) -> Table:
    table = empty_table(f"mean {data['objective']} of the networks in both, by choice")
    for name in ("choice", "option"):
        table.add_column(name, overflow="fold")
    for run in data["runs"]:
        table.add_column(Text(run), justify="right")
    for choice, options in data["choices"].items():
        for place, (option, means) in enumerate(options.items()):
            cells = (quantity(data["objective"], mean) for mean in means)
            named = (Text(choice if place == 0 else ""), Text(option))
            table.add_row(*named, *cells, end_section=place == len(options) - 1)
    return table
