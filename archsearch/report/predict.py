"""Predictions as tables, CSV and JSON. Names of files and labels may hold anything, and never reach a terminal raw."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from archsearch.files import plain
from archsearch.report.networks import empty_table
from archsearch.training.predict import Scored
from archsearch.video.label import Caption

SHOWN = 30  # windows of a video in a table; a longer one is told by its segments
HALF = 0.5  # from here on a class of its own is said of a window
NEAR = 1.5  # windows are neighbours if they begin so many times `every` apart, or less

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Found:
    """What was found in a video: one stretch, or windows. `video` is its name as it was given."""

    video: str
    parts: tuple[Scored, ...]


def best(labels: Sequence[str], scores: np.ndarray, top: int) -> list[Row]:
    """The `top` labels of the highest scores, best first."""
    order = np.argsort(-scores, kind="stable")[:top]
    return [{"label": labels[place], "score": float(scores[place])} for place in order]


def tiles(parts: Sequence[Scored], every: float) -> list[tuple[float, float]]:
    """The time each window stands for: up to the middle between its centre and the next one's, without overlap."""
    borders = [(part.begin, part.end) for part in parts]
    centres = [(begin + end) / 2 for begin, end in borders]
    for place, (one, other) in enumerate(pairwise(parts)):
        if other.begin - one.begin <= NEAR * every:
            border = (centres[place] + centres[place + 1]) / 2
            borders[place] = (borders[place][0], border)
            borders[place + 1] = (border, borders[place + 1][1])
    return borders


def segments(parts: Sequence[Scored], labels: Sequence[str], binary: bool, every: float) -> list[Row]:
    """Neighbouring windows of one label as one stretch with their mean score, in order of time.

    A window has the label of its highest score; with `binary` each one of 0.5 or more, so stretches may overlap.
    """
    found: list[Row] = []
    latest: dict[int, Row] = {}
    for part, (begin, end) in zip(parts, tiles(parts, every), strict=True):
        said = np.flatnonzero(part.scores >= HALF).tolist() if binary else [int(part.scores.argmax())]
        latest = {label: row for label, row in latest.items() if label in said and row["end"] == begin}
        for label in said:
            if label not in latest:
                latest[label] = {"label": labels[label], "begin": begin, "end": begin, "score": 0.0, "windows": 0}
                found.append(latest[label])
            row = latest[label]
            total = row["score"] * row["windows"] + float(part.scores[label])
            row.update(end=end, windows=row["windows"] + 1, score=total / (row["windows"] + 1))
    return found


def captions(parts: Sequence[Scored], labels: Sequence[str], every: float) -> list[Caption]:
    """What a labelled copy says until when."""
    return [(end, _caption(part, labels)) for part, (_, end) in zip(parts, tiles(parts, every), strict=True)]


def _caption(part: Scored, labels: Sequence[str]) -> str:
    (first,) = best(labels, part.scores, 1)
    return f"{plain(first['label'])}  {first['score']:.2f}"


def part_json(part: Scored, labels: Sequence[str], top: int) -> Row:
    """A stretch and its best labels."""
    return {"begin": part.begin, "end": part.end, "scores": best(labels, part.scores, top)}


def predictions_json(
    found: Sequence[Found], labels: Sequence[str], top: int, every: float | None, binary: bool
) -> list[Row]:
    """What `archsearch predict --json` says of each video; `every` is None where whole videos were scored."""
    if every is None:
        return [{"video": each.video, "scores": best(labels, each.parts[0].scores, top)} for each in found]
    return [
        {
            "video": each.video,
            "windows": [part_json(part, labels, top) for part in each.parts],
            "segments": segments(each.parts, labels, binary, every),
        }
        for each in found
    ]


def predictions_csv(found: Sequence[Found], labels: Sequence[str], top: int, timed: bool) -> str:
    """A line for each label of a video, or of a window of it."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["video", *(["begin", "end"] if timed else []), "rank", "label", "score"])
    for each in found:
        for part in each.parts:
            times = [f"{part.begin:.3f}", f"{part.end:.3f}"] if timed else []
            for rank, row in enumerate(best(labels, part.scores, top), start=1):
                lines.writerow([each.video, *times, rank, row["label"], f"{row['score']:.6f}"])
    return text.getvalue().encode("utf-8", "backslashreplace").decode()


def videos_table(found: Sequence[Found], labels: Sequence[str], top: int) -> Table:
    """Whole videos and their best labels."""
    table = empty_table()
    table.add_column("video", overflow="fold")
    table.add_column("label", overflow="fold")
    table.add_column("score", justify="right")
    for each in found:
        rows = best(labels, each.parts[0].scores, top)
        for number, row in enumerate(rows):
            name = escape(plain(each.video)) if number == 0 else ""
            score = f"{row['score']:.3f}"
            table.add_row(name, escape(plain(row["label"])), score, end_section=number == len(rows) - 1)
    return table


def windows_table(each: Found, labels: Sequence[str], top: int, every: float, binary: bool) -> Group:
    """The windows of one video, where they are few, and its segments."""
    parts: list[Table | Text] = []
    if len(each.parts) <= SHOWN:
        table = _timed(plain(each.video))
        table.add_column("labels and scores", overflow="fold")
        for part in each.parts:
            rows = best(labels, part.scores, top)
            told = "  ".join(f"{escape(plain(row['label']))} {row['score']:.2f}" for row in rows)
            table.add_row(clock(part.begin), clock(part.end), told)
        parts.append(table)
    table = _timed(f"{plain(each.video)}: segments")
    table.add_column("label", overflow="fold")
    table.add_column("mean score", justify="right")
    table.add_column("windows", justify="right")
    for row in segments(each.parts, labels, binary, every):
        told = escape(plain(row["label"]))
        table.add_row(clock(row["begin"]), clock(row["end"]), told, f"{row['score']:.3f}", str(row["windows"]))
    parts.append(table)
    if len(each.parts) > SHOWN:
        parts.append(Text(f"{len(each.parts)} windows; --csv or --json has each of them"))
    return Group(*parts)


def _timed(title: str) -> Table:
    table = empty_table(title)
    table.add_column("from", justify="right", no_wrap=True)
    table.add_column("to", justify="right", no_wrap=True)
    return table


def live_line(part: Scored, labels: Sequence[str], top: int) -> str:
    """One window of a camera as a line."""
    told = "  ".join(f"{plain(row['label'])} {row['score']:.2f}" for row in best(labels, part.scores, top))
    return f"{clock(part.begin)} to {clock(part.end)}  {told}"


def clock(seconds: float) -> str:
    """`1:02:03.4`"""
    tenths = round(10 * seconds)
    minutes, rest = divmod(tenths, 600)
    return f"{minutes // 60}:{minutes % 60:02}:{rest // 10:02}.{rest % 10}"
