"""Results as objects: data for programs, a table for people, in a terminal and in a notebook."""

import html
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from archsearch.files import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 100  # columns of a terminal
CELL = "padding:2px 10px 2px 0;white-space:pre-wrap"


@dataclass(frozen=True, eq=False, repr=False)
class Shown:
    """A result. `data` is what the command prints with `--json`; `result["name"]` is `result.data["name"]`.

    It shows itself as the command's table: as text of 100 columns, and as HTML in a notebook. Names from
    files are spelled out where they do not print, and escaped in HTML.
    """

    data: Mapping[str, Any]
    _table: Callable[[], RenderableType]

    def __getitem__(self, name: str) -> Any:
        return self.data[name]

    def __repr__(self) -> str:
        return as_text(self._table())

    def _repr_html_(self) -> str:
        return as_html(self._table())


@dataclass(frozen=True, eq=False, repr=False)
class Drawn(Shown):
    """A result that can be drawn, too."""

    _draw: Callable[[Path | None], "Figure"]

    def plot(self, path: str | Path | None = None) -> "Figure":
        """The matplotlib Figure; with a `path`, .png or .svg, it is written as well, whole.

        Raises ArchsearchError for another suffix, and where there is nothing to draw.
        """
        return self._draw(None if path is None else Path(path))


def as_text(shown: RenderableType) -> str:
    """A table or text as lines."""
    file = io.StringIO()
    Console(file=file, width=WIDTH, color_system=None, legacy_windows=False).print(shown, crop=False)
    return "\n".join(plain(line.rstrip()) for line in file.getvalue().split("\n")).rstrip("\n")


def as_html(shown: RenderableType) -> str:
    """The same as HTML: real tables, every text escaped."""
    if isinstance(shown, Group):
        return "\n".join(as_html(part) for part in shown.renderables)
    return _html_table(shown) if isinstance(shown, Table) else f"<pre>{html.escape(as_text(shown))}</pre>"


def _html_table(table: Table) -> str:
    aligned = [f"text-align:{'right' if column.justify == 'right' else 'left'};{CELL}" for column in table.columns]
    head = "".join(_cell("th", style, column.header) for style, column in zip(aligned, table.columns, strict=True))
    cells = zip(*(list(column.cells) for column in table.columns), strict=True)
    ends = [";border-bottom:1px solid" if row.end_section else "" for row in table.rows]
    rows = [
        "<tr>" + "".join(_cell("td", style + end, cell) for style, cell in zip(aligned, row, strict=True)) + "</tr>"
        for end, row in zip(ends, cells, strict=True)
    ]
    title = "" if table.title is None else f"<caption>{_escaped(table.title)}</caption>"
    below = "" if table.caption is None else f"\n<p>{_escaped(table.caption)}</p>"
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{below}"


def _cell(kind: str, style: str, cell: RenderableType) -> str:
    return f'<{kind} style="{style}">{_escaped(cell)}</{kind}>'


def _escaped(cell: RenderableType) -> str:
    """A cell's text, markup read as the terminal reads it."""
    text = cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell)).plain
    return html.escape("\n".join(plain(line) for line in text.split("\n")))


def facts_table(facts: Mapping[str, Any], title: str = "") -> RenderableType:
    """Facts below each other; those inside a fact as `fact.name`."""
    from archsearch.report.networks import empty_table

    table = empty_table()
    table.show_header = False
    table.add_column("fact", no_wrap=True)
    table.add_column("value", overflow="fold")
    for name, value in facts.items():
        for key, each in value.items() if isinstance(value, Mapping) else [("", value)]:
            text = f"{each:.4f}" if isinstance(each, float) else str(each)
            table.add_row(Text(f"{name}.{key}" if key else name), Text(text))
    return Group(lines_text([title]), table) if title else table


def lines_text(lines: list[str]) -> Text:
    """Lines as they are, however long: names of files are copied from them."""
    return Text("\n".join(lines), no_wrap=True, overflow="ignore")
