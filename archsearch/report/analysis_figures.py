"""Pictures of analyses of a trained network: kernels over time, clips played backwards, features."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from archsearch.nets.taps import Taps, by_stage
from archsearch.report.drawing import FRONT, INK, MARKERS, PUBLISHED, REST, figure_file

LIGHT = "#A9CFE8"
COLOURS = (FRONT, PUBLISHED, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)  # Okabe and Ito's, without yellow
LOOKS = tuple((colour, marker) for marker, colour in product("o" + MARKERS, COLOURS))  # of classes; then again
COLUMN, LEGEND = 32, 16  # classes below each other, at most: in the plot of classes, in a legend
NAME = 28  # letters of a class
EQUAL: Any = {"color": INK, "lw": 0.9, "ls": "--"}
MEANS: Any = {"color": INK, "marker": "o", "ms": 3, "mec": "white", "mew": 0.4, "ls": "none"}
FORWARDS: Any = {"color": FRONT, "marker": "o", "ms": 4.5, "ls": "none"}
BACKWARDS: Any = {"mfc": "white", "mec": PUBLISHED, "marker": "D", "ms": 7, "mew": 1.2, "ls": "none"}


def kernels_figure(taps: Sequence[Taps], path: Path, title: str) -> None:
    """Boxes of the shares of weight at each temporal offset, a panel a stage, with each convolution's means as dots.

    Writes `path` whole. Raises ArchsearchError for a suffix other than .png or .svg.
    """
    stages = by_stage(taps)
    columns = _columns(len(stages), 5)
    size = (max(1.7 * columns + 0.6, 5.6), 2.3 * -(-len(stages) // columns) + 0.9)
    with figure_file(path, size, title) as figure:
        panels = _panels(figure, len(stages), columns, sharey=True)
        for axes, stage in zip(panels, stages, strict=True):
            _draw_stage(axes, stage, [each for each in taps if each.stage == stage.stage])
        panels[0].set_ylim(bottom=0)  # of all: how unlike frames are, not how unlike they look
        for axes in panels[-columns:]:
            axes.set_xlabel("frames from the middle", fontsize=8)
        figure.supylabel("share of a filter's sum |w|", fontsize=9)
        shown = (
            Patch(fc=LIGHT, ec=FRONT, label="filters: quartiles, 5 to 95 %"),
            Line2D([], [], **MEANS, label="mean of a convolution"),
            Line2D([], [], **EQUAL, label="all frames alike"),
        )
        figure.legend(handles=shown, loc="outside lower center", ncols=3, frameon=False, fontsize=8)


def _draw_stage(axes: Axes, stage: Taps, members: Sequence[Taps]) -> None:
    """Boxes over a stage's filters, dots for its convolutions side by side."""
    several = f", {len(members)} convolutions" if len(members) > 1 else ""
    axes.set_title(f"{stage.stage}\n{len(stage.offsets)} frames{several}", fontsize=8)
    axes.axhline(1 / len(stage.offsets), **EQUAL, zorder=1)
    axes.boxplot(
        list(stage.shares.T),
        positions=stage.offsets,
        widths=0.7,
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"fc": LIGHT, "ec": FRONT},
        whiskerprops={"color": FRONT},
        capprops={"color": FRONT},
        medianprops={"color": FRONT, "lw": 1.6},
    )
    for member, aside in zip(members, np.linspace(-0.25, 0.25, len(members) + 2)[1:-1], strict=True):
        if len(member.shares):
            axes.plot(np.array(member.offsets) + aside, member.shares.mean(0), **MEANS, zorder=4)
    axes.set(xlim=(stage.offsets[0] - 0.7, stage.offsets[-1] + 0.7))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def time_figure(data: dict[str, Any], path: Path) -> None:
    """Top-1 of each class forwards and backwards, what falls most at the top; `data` as `time_single` gives it.

    Writes `path` whole. Raises ArchsearchError for a suffix other than .png or .svg.
    """
    classes = list(data["classes"].items())
    columns = -(-len(classes) // COLUMN)
    rows = -(-len(classes) // columns)
    title = f"top-1 on {data['split']}: forwards {data['forwards']:.3f}, backwards {data['backwards']:.3f}"
    with figure_file(path, (5.2 * columns, 0.21 * rows + 1.4), title) as figure:
        for number, axes in enumerate(_panels(figure, columns, columns)):
            _draw_classes(axes, classes[number * rows : (number + 1) * rows], rows)
        shown = (Line2D([], [], **FORWARDS, label="forwards"), Line2D([], [], **BACKWARDS, label="backwards"))
        figure.legend(handles=shown, loc="outside lower center", ncols=2, frameon=False, fontsize=8)


def _draw_classes(axes: Axes, classes: Sequence[tuple[str, dict[str, Any]]], rows: int) -> None:
    """One line a class from top to bottom, in room for `rows`."""
    forwards, backwards = ([row[way] for _, row in classes] for way in ("forwards", "backwards"))
    places = np.arange(len(classes))
    axes.hlines(places, 0, 1, color=REST, lw=0.4, zorder=1)
    axes.hlines(places, forwards, backwards, color=REST, lw=2.5, zorder=2)
    axes.plot(backwards, places, **BACKWARDS, zorder=3, clip_on=False)
    axes.plot(forwards, places, **FORWARDS, zorder=4, clip_on=False)
    axes.set(xlim=(-0.03, 1.03), ylim=(rows - 0.4, -0.6), xlabel="top-1")
    axes.set_yticks(places, [f"{_shortened(name)} ({row['videos']})" for name, row in classes], fontsize=8)
    axes.tick_params(axis="y", length=0)


def features_figure(data: dict[str, Any], path: Path) -> None:
    """Videos where t-SNE puts them, a panel a stage, classes by colour and shape; `data` as of `features_json`.

    With more than 77 classes looks occur again. Writes `path` whole. Raises ArchsearchError for a suffix other than
    .png or .svg.
    """
    stages, labels = data["stages"], np.array(data["labels"])
    classes = sorted(set(data["labels"]))
    columns = _columns(len(stages), 3)
    entry = 0.4 + 0.052 * max(len(_shortened(name)) for name in classes)  # inches of a name in the legend
    width = max(3.2 * columns, 4.8, entry * -(-len(classes) // LEGEND))
    entries = int(width / entry)
    size = (width, 0.95 * width / columns * -(-len(stages) // columns) + 0.16 * -(-len(classes) // entries) + 0.6)
    looks = [LOOKS[number % len(LOOKS)] for number in range(len(classes))]
    with figure_file(path, size, f"t-SNE of the features of {len(labels)} videos of {data['split']}") as figure:
        for axes, (name, stage) in zip(_panels(figure, len(stages), columns), stages.items(), strict=True):
            points = np.array(stage["points"])
            for label, (colour, marker) in zip(classes, looks, strict=True):
                axes.plot(*points[labels == label].T, marker, color=colour, ms=5, mec="white", mew=0.4)
            axes.set(xticks=[], yticks=[])  # t-SNE's units mean nothing
            axes.set_title(f"{name}: {data['neighbours']}-nearest top-1 {stage['knn_top1']:.3f}", fontsize=9)
            axes.spines[:].set_visible(True)
        shown = [
            Line2D([], [], color=colour, marker=marker, ls="none", ms=5, mec="white", mew=0.4, label=_shortened(label))
            for label, (colour, marker) in zip(classes, looks, strict=True)
        ]
        figure.legend(
            handles=shown, loc="outside lower center", ncols=entries, frameon=False, fontsize=7, handletextpad=0.1
        )


def _columns(count: int, most: int) -> int:
    """How many columns leave rows of `count` plots full, of `most` at most."""
    return -(-count // -(-count // most))


def _panels(figure: Figure, count: int, columns: int, sharey: bool = False) -> list[Axes]:
    """`count` plots in rows of `columns`."""
    grid = figure.subplots(-(-count // columns), columns, squeeze=False, sharey=sharey).ravel()
    for spare in grid[count:]:
        spare.remove()
    return list(grid[:count])


def _shortened(name: str) -> str:
    short = name if len(name) <= NAME else f"{name[: NAME - 1]}…"
    return short.replace("$", r"\$")  # no formula
