"""Progress of something long on stderr: a live bar in a terminal, a plain line now and then in a log."""

import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class Row:
    """A part that is under way: how far it is, and what else is known of it."""

    name: str
    done: int
    total: int
    status: str


class Advance(Protocol):
    """Says that `n` more are done; `status` is shown as it is, other fields with their names.

    `rows` are the parts under way: bars below the bar in a terminal, `name done/total` in a log.
    """

    def __call__(self, n: int = 1, rows: Sequence[Row] = (), **fields: object) -> None: ...


@contextmanager
def track(total: int | None, description: str) -> Generator[Advance, None, None]:
    """Shows how far `total` pieces of work are; None where nobody knows how many there will be.

    with track(len(clips), "packing") as advance:
        for clip in clips:
            pack(clip)
            advance(status=clip.name)      # or advance(top1=0.81)
    """
    shown = _bar if sys.stderr.isatty() else _lines
    with shown(total, description) as advance:
        yield advance


@contextmanager
def _bar(total: int | None, description: str) -> Generator[Advance, None, None]:
    """A live bar; the console is made here, when stderr is what the caller wants it to be."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(escape(description), total=total, status="")
        tasks: dict[str, TaskID] = {}

        def advance(n: int = 1, rows: Sequence[Row] = (), **fields: object) -> None:
            if fields:
                progress.update(task, status=escape(_status(fields)))
            progress.advance(task, n)
            for name in tasks.keys() - {row.name for row in rows}:
                progress.remove_task(tasks.pop(name))
            for row in rows:
                if row.name not in tasks:
                    tasks[row.name] = progress.add_task(escape(row.name), status="")
                progress.update(tasks[row.name], completed=row.done, total=row.total, status=escape(row.status))

        yield advance


@contextmanager
def _lines(total: int | None, description: str) -> Generator[Advance, None, None]:
    """A line at most every 10 seconds, and one at the end, also when the work was cut short."""
    start = latest = time.monotonic()
    done, status = 0, ""

    def advance(n: int = 1, rows: Sequence[Row] = (), **fields: object) -> None:
        nonlocal done, status, latest
        done += n
        if fields or rows:
            status = " ".join([_status(fields), *(f"{row.name} {row.done}/{row.total}" for row in rows)]).strip()
        if time.monotonic() - latest >= SECONDS_BETWEEN_LINES:
            latest = time.monotonic()
            print(_line(description, done, total, latest - start, status), file=sys.stderr, flush=True)

    try:
        yield advance
    finally:
        seconds = time.monotonic() - start
        print(_line(description, done, total, seconds, status), file=sys.stderr, flush=True)


def _line(description: str, done: int, total: int | None, seconds: float, status: str) -> str:
    """`packing: 120/500, 0:00:31 elapsed, 0:01:38 left, walk_03.mp4`"""
    parts = [f"{description}: {done}" + (f"/{total}" if total is not None else "")]
    parts.append(f"{_clock(seconds)} elapsed")
    if total is not None and 0 < done < total:
        parts.append(f"{_clock(seconds * (total - done) / done)} left")
    return ", ".join([*parts, status] if status else parts)


def _clock(seconds: float) -> str:
    """`1:02:03`, as the bar shows it."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _status(fields: dict[str, object]) -> str:
    """`status` as it is, every other field behind its name."""
    texts = {name: f"{value:.3g}" if isinstance(value, float) else str(value) for name, value in fields.items()}
    return " ".join(text if name == "status" else f"{name} {text}" for name, text in texts.items())


@contextmanager
def reporting() -> Generator[Callable[[str, int, int, str], None], None, None]:
    """Bars that appear with their first report of (what, done, total, status) and end with their last."""
    bars: dict[str, tuple[ExitStack, Advance, int]] = {}

    def report(what: str, done: int, total: int, status: str = "") -> None:
        if what not in bars:
            shown = ExitStack()
            bars[what] = shown, shown.enter_context(track(total, what)), 0
        shown, advance, before = bars[what]
        bars[what] = shown, advance, done
        advance(done - before, status=status)
        if done >= total:
            bars.pop(what)[0].close()

    try:
        yield report
    finally:
        for shown, _, _ in bars.values():
            shown.close()
