"""The front of a run as a table for people and as CSV for spreadsheets."""

import csv
import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from archsearch.front.results import Candidate, Results

WIDTH = 100  # columns of a terminal that the table fits in
GAP = 2  # between columns
NOTE_WIDTH = 16
SHORT = {"separable": "sep"}  # in columns that would not fit otherwise
CHOICES_WIDTH, CHOICES_LINES = 24, 2  # of the text that replaces columns: at least, at most

Column = tuple[str, list[str]]  # a header, and a cell for each row


def front_table(results: Results, all_candidates: bool = False) -> Table:
    """The front, cheapest first; below a line the published designs off it, or all other candidates.

    `dominated by` names the cheapest candidate of the front that does it, `note` says why one has no place. What is
    the same in every row stands in the caption; choices are columns where these fit in 100, else a shortened text.
    """
    members = results.front()
    shown = [*members, *_below(results, all_candidates)]
    names = _names([candidate.choices for candidate in shown])
    same = [name for name in names if len({_cell(candidate.choices, name) for candidate in shown}) == 1]
    varied = [name for name in names if name not in same]
    columns = _columns(results, shown)
    chosen = [(name.replace(".", "\n"), [_cell(c.choices, name) for c in shown]) for name in varied]
    shorter = [(name, [SHORT.get(cell, cell) for cell in cells]) for name, cells in chosen]
    table = _table([*columns, *chosen], len(members))
    told = shorter != chosen and _width(table) > WIDTH
    if told:
        table = _table([*columns, *shorter], len(members))
    if _width(table) > WIDTH:
        room = max(WIDTH - _width(_table(columns, 0)) - GAP, CHOICES_WIDTH)
        texts = [_shortened(candidate.choices, varied, room) for candidate in shown]
        table = _table([*columns, ("choices", texts)], len(members))
        table.width = min(WIDTH, _width(table))
        told = False
    table.title = Text(f"{results.run}: {len(members)} on the front")
    lines = [f"{short}: {long}" for long, short in SHORT.items() if told] + _constants(shown, same)
    table.caption = Text("\n".join(lines)) if lines else None
    return table


def _constants(shown: Sequence[Candidate], same: Sequence[str]) -> list[str]:
    """A line of what is the same in every row, if anything is."""
    epochs = {candidate.epochs for candidate in shown}
    texts = [f"epochs={epochs.pop()}"] if len(epochs) == 1 else []
    texts += [choices_text(shown[0].choices, same)] if same else []
    return ["the same in all rows: " + " ".join(texts)] if texts else []


def _below(results: Results, all_candidates: bool) -> list[Candidate]:
    """The candidates to show below the line."""
    on_front = {candidate.id for candidate in results.front()}
    published = set(results.published().values())
    rest = [candidate for candidate in results.candidates if candidate.id not in on_front]
    return [candidate for candidate in rest if all_candidates or candidate.id in published]


def _columns(results: Results, shown: Sequence[Candidate]) -> list[Column]:
    """All columns but the choices; texts and a number of epochs only where they say something."""
    numbers = list(dict.fromkeys([*results.objectives, "params"]))
    notes = _notes(results)
    columns = [("id", [str(candidate.id) for candidate in shown])]
    for name in numbers:
        columns.append((name, [quantity(name, c.metrics.get(name, math.nan)) for c in shown]))
    if len({candidate.epochs for candidate in shown}) > 1:
        columns.append(("epochs", [str(candidate.epochs) for candidate in shown]))
    dominators = results.dominators()
    texts = [
        ("design", [candidate.published or "" for candidate in shown]),
        ("dominated\nby", [str(dominators.get(candidate.id, "")) for candidate in shown]),
        ("note", [notes.get(candidate.id, "") for candidate in shown]),
    ]
    return columns + [(name, cells) for name, cells in texts if any(cells)]


def _table(columns: Sequence[Column], members: int) -> Table:
    """A table of columns, with a line below the first `members` rows."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption_justify="left")
    for name, cells in columns:
        number = all(cell[:1] in "0123456789-" for cell in cells)
        width = NOTE_WIDTH if name == "note" else None
        table.add_column(Text(name), justify="right" if number else "left", max_width=width, overflow="fold")
    for index, row in enumerate(zip(*(cells for _, cells in columns), strict=True)):
        table.add_row(*map(Text, row), end_section=index == members - 1)
    return table


def _width(table: Table) -> int:
    """Columns of a terminal that a table takes when it may."""
    console = Console(width=10_000)
    return Measurement.get(console, console.options, table).maximum


def _notes(results: Results) -> dict[int, str]:
    """Why a candidate is not on the front, by its id."""
    return {
        candidate.id: candidate.state + (f": {candidate.reason}" if candidate.reason else "")
        for candidate in results.candidates
        if candidate.state != "complete"
    }


def quantity(name: str, value: float) -> str:
    """A metric as short text: accuracies `0.812`, all else as `40.7` or `1.23M`; `-` if unknown."""
    if not math.isfinite(value):
        return "-"
    if "top" in name:
        return f"{value:.3f}"
    value = float(f"{value:.3g}")  # rounded first: 999.9k is 1.00M
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:#.3g}".rstrip(".") + suffix
    return f"{value:#.3g}".rstrip(".")


def choices_text(choices: Mapping[str, Any], names: Sequence[str]) -> str:
    """`res3.conv=2d res4.width=64`; without the choices this candidate never met."""
    return " ".join(f"{name}={_cell(choices, name)}" for name in names if name in choices)


def _shortened(choices: Mapping[str, Any], names: Sequence[str], width: int) -> str:
    """The text of the choices in a few short lines."""
    text = choices_text(choices, names)
    return "\n".join(textwrap.wrap(text, width, max_lines=CHOICES_LINES, placeholder=" ..."))


def _cell(choices: Mapping[str, Any], name: str) -> str:
    """A choice as YAML writes its simple values; empty where a candidate never met it."""
    value = choices.get(name, "")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _names(mappings: Sequence[Mapping[str, Any]]) -> list[str]:
    """All keys in the order in which they first occur: that of the space."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def front_csv(results: Results) -> str:
    """All candidates, a row each: id, hash, state, on_front, published, epochs, metrics, choices.

    The objectives come first among the metrics.
    """
    on_front = {candidate.id for candidate in results.front()}
    measured = _names([candidate.metrics for candidate in results.candidates])
    metrics = list(dict.fromkeys([*results.objectives, *measured]))
    choices = _names([candidate.choices for candidate in results.candidates])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "hash", "state", "on_front", "published", "epochs", *metrics, *choices])
    for candidate in results.candidates:
        own = [candidate.id, candidate.hash, candidate.state, str(candidate.id in on_front).lower()]
        own += [candidate.published or "", candidate.epochs]
        numbers = [candidate.metrics.get(name, "") for name in metrics]
        writer.writerow([*own, *numbers, *(_cell(candidate.choices, name) for name in choices)])
    return text.getvalue()
