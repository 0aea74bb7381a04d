"""Pictures of a scoring: which class is taken for which."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from archsearch.errors import ArchsearchError
from archsearch.report.analysis_figures import shortened
from archsearch.report.drawing import INK, figure_file

LARGEST, SMALLEST, SIDE = 0.6, 0.14, 14.0  # inches of a cell, and of all cells at most
LEGIBLE = 3.5  # points; what would be smaller is left out
WIDE = 0.55  # of a letter or digit, in its size
GAMMA = 0.6  # of colours
UNSEEN = "#EFEFEF"  # rows of classes without videos


def confusion_figure(data: Mapping[str, Any], path: Path | None) -> Figure:
    """Rows are classes, columns what they are taken for; blue is right, orange wrong; `data` of `evaluation_json`.

    The colour is the share of a class's videos, the number in a cell their count, where it fits; more than about 250
    classes go by their numbers, not by names. Writes `path`, if any, whole. Raises ArchsearchError for a suffix other
    than .png or .svg and for several labels a video.
    """
    if "confusion" not in data:
        where = path or data["network"]
        raise ArchsearchError(f"{where}: videos have several labels, so none is taken for another: nothing to draw")
    counts = np.array(data["confusion"])
    cell = min(max(7 / len(counts), SMALLEST), LARGEST, SIDE / len(counts))
    rows = [f"{shortened(name)} ({videos})" for name, videos in zip(data["class_names"], counts.sum(1), strict=True)]
    size = min(9.0, 0.72 * cell * 72)
    named = size >= LEGIBLE
    columns = [shortened(name) for name in data["class_names"]]
    aside, below = (max(map(len, names)) * WIDE * size / 72 if named else 0.4 for names in (rows, columns))
    width, height = max(len(counts) * cell + aside + 0.4, 4.6), len(counts) * cell + below + 1.2
    title = f"{data['network']} on {data['split']}: top-1 {data['top1']:.3f}"
    with figure_file(path, (width, height), title) as figure:
        axes = figure.subplots()
        _draw_shares(axes, counts)
        if cell >= SMALLEST:
            edges = np.arange(len(counts) - 1) + 0.5
            axes.hlines(edges, -0.5, len(counts) - 0.5, color=UNSEEN, lw=0.5)
            axes.vlines(edges, -0.5, len(counts) - 0.5, color=UNSEEN, lw=0.5)
        _draw_counts(axes, counts, cell)
        axes.set(xlabel="taken for", ylabel="class (its videos)" if named else "class, by number")
        if named:
            _name(axes, rows, columns, size)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(12, integer=True))
        figure.supxlabel("colour: share of the class's videos; blue is right, orange wrong", fontsize=8)
    return figure


def _draw_shares(axes: Axes, counts: NDArray[np.int64]) -> None:
    """White where nothing is, grey rows for classes without videos; small shares are raised, to be seen at all."""
    videos = counts.sum(1, keepdims=True)
    shares = counts / np.maximum(videos, 1)
    right = np.eye(len(counts), dtype=bool)
    for wanted, colours in ((right, "Blues"), (~right, "Oranges")):
        shown = np.ma.masked_array(shares, ~wanted | (counts == 0))
        axes.imshow(shown, cmap=colours, norm=PowerNorm(GAMMA, 0, 1), interpolation="none")
    for row in np.flatnonzero(videos == 0):
        axes.axhspan(row - 0.5, row + 0.5, color=UNSEEN, lw=0)
    axes.spines[:].set_visible(True)


def _draw_counts(axes: Axes, counts: NDArray[np.int64], cell: float) -> None:
    """Counts above 0, as large as the longest one allows, if that can be read."""
    size = min(8.0, cell * 72 / (WIDE * len(str(counts.max())) + 0.4))
    if size < LEGIBLE:
        return
    videos = counts.sum(1)
    for row, column in np.argwhere(counts):
        color = "white" if counts[row, column] > 0.4 * videos[row] else INK
        axes.text(column, row, str(counts[row, column]), ha="center", va="center_baseline", fontsize=size, color=color)


def _name(axes: Axes, rows: Sequence[str], columns: Sequence[str], size: float) -> None:
    places = range(len(rows))
    axes.set_yticks(places, rows, fontsize=size)
    axes.set_xticks(places, columns, fontsize=size, rotation=90)
    axes.tick_params(length=0)
