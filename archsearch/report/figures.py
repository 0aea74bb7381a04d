"""Pictures of a run and of a space, as PNG or SVG: the front, and how large the networks of a space are.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; shapes say the same as colours. The same
input gives the same SVG, byte for byte.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

from archsearch.errors import ArchsearchError
from archsearch.front.dominance import Floats, front
from archsearch.front.results import Candidate, Results
from archsearch.report.labels import Room, Spot, arrange, best_spot, dense, occupy

SUFFIXES = (".png", ".svg")
FRONT, PUBLISHED, REST, INK = "#0072B2", "#D55E00", "#B8B8B8", "#333333"
MARKERS = "s^DvPX<>ph*8"  # one for each published design, in the order of their names
TOLERATED = 22.0  # penalty; an id in a worse place is left out
BINS = 40
DPI = 100  # of the layout
AXES: Mapping[str, tuple[str, float]] = {  # what an axis says of a metric, and the unit that it counts in
    "top1": ("top-1 on val", 1.0),
    "clip_top1": ("clip top-1 on val", 1.0),
    "loss": ("loss on val", 1.0),
    "gmacs": ("gmacs (multiply-adds, 1e9; batch 1)", 1.0),
    "params": ("parameters (millions)", 1e6),
    "activations": ("activations (millions of elements; batch 1)", 1e6),
    "memory_mb": ("feature maps of one forward (MB)", 1.0),
}
STYLE: Any = {  # typed by matplotlib as a literal of all its parameters' names
    "svg.hashsalt": "archsearch",
    "svg.fonttype": "none",  # names stay text, so that a page with the figure can be searched
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib
    "font.size": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
}


@dataclass(frozen=True)
class _Panel:
    """One plot of complete candidates: their points (n, 2) in the units of the axes."""

    axes: Axes
    candidates: tuple[Candidate, ...]
    points: Floats
    on_front: NDArray[np.bool_]
    steps: Floats  # corners (k, 2) of the line under which everything is dominated


@dataclass(frozen=True)
class _Flag:
    """A named mark of a histogram."""

    pole: Line2D
    text: Text


def front_figure(results: Results, path: Path, title: str | None = None) -> None:
    """Draws every complete candidate, the front and the published designs, and writes `path` whole.

    The first objective is drawn against each other one (a single objective against the number of the trial). A
    cost that spans more than a factor of ten gets a logarithmic axis. Published designs carry their names and
    are hollow where dominated; other points of the front carry their ids where there is room. Raises
    ArchsearchError for a suffix other than .png or .svg.
    """
    others: list[str | None] = [*list(results.objectives)[1:]] or [None]
    columns = min(len(others), 3)
    rows = -(-len(others) // columns)
    size = (6.8 if columns == 1 else 4.6 * columns, 4.6 * rows)
    with _figure_file(path, size, title) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for spare in grid[len(others) :]:
            spare.remove()
        panels = [_draw_front(axes, results, other) for axes, other in zip(grid, others, strict=False)]
        for axes in grid[::columns]:
            axes.set_ylabel(_axis(next(iter(results.objectives)))[0])
        panels[0].axes.legend(loc="best", frameon=False, fontsize=8, handletextpad=0.4)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # a label is placed for good
        for panel in panels:
            _label_front(panel)


def _draw_front(axes: Axes, results: Results, other: str | None) -> _Panel:
    """Points and front of the first objective over another one (over the trial's number if None)."""
    name = next(iter(results.objectives))
    candidates = tuple(c for c in results.complete() if np.isfinite(results.values([c])).all())
    members = {candidate.id for candidate in results.front()}
    x_label, x_unit = _axis(other) if other else ("trial", 1.0)
    x = [(c.metrics[other] if other else c.id) / x_unit for c in candidates]
    y = [c.metrics[name] / _axis(name)[1] for c in candidates]
    points = np.array([x, y], dtype=np.float64).T.reshape(-1, 2)
    on_front = np.array([candidate.id in members for candidate in candidates], dtype=bool)
    directions = [other is not None and results.objectives[other] == "maximize", results.maximize[0]]
    panel = _Panel(axes, candidates, points, on_front, _steps(points, directions))
    axes.set_xlabel(x_label)
    axes.margins(0.06, 0.1)  # labels need room
    if other and not directions[0]:
        _log_if_wide(axes, points[:, 0])
    _draw_points(panel)
    if not candidates:
        axes.text(0.5, 0.5, "no complete candidate yet", transform=axes.transAxes, ha="center")
    return panel


def _draw_points(panel: _Panel) -> None:
    """Grey for all, blue for the front, a vermilion marker of its own for each published design."""
    axes, points = panel.axes, panel.points
    published = np.array([candidate.published is not None for candidate in panel.candidates], dtype=bool)
    rest, plain = ~panel.on_front & ~published, panel.on_front & ~published
    axes.plot(*panel.steps.T, "-", color=FRONT, lw=1.2, zorder=2)
    axes.plot(*points[plain].T, "o", color=FRONT, ms=5.5, mec="white", mew=0.6, zorder=3)
    axes.plot([], [], "-o", color=FRONT, lw=1.2, ms=5.5, mec="white", mew=0.6, label="front")
    axes.plot(*points[rest].T, "o", color=REST, ms=4, mew=0, label="dominated", zorder=1)
    names = sorted({candidate.published for candidate in panel.candidates if candidate.published})
    for index in np.flatnonzero(published):
        marker = MARKERS[names.index(panel.candidates[index].published or "") % len(MARKERS)]
        face = PUBLISHED if panel.on_front[index] else "white"
        axes.plot(*points[index], marker, color=face, mec=PUBLISHED, ms=6.5, mew=1.2, zorder=4)
    if names:
        axes.plot([], [], MARKERS[0], color=PUBLISHED, ms=6.5, label="published design (hollow: dominated)")


def _steps(points: Floats, maximize: Sequence[bool]) -> Floats:
    """Corners (k, 2) of the line between what the points dominate and what nobody has reached."""
    best = points[front(points, maximize)]
    x, y = np.repeat(best[np.argsort(best[:, 0], kind="stable")], 2, axis=0).T
    return np.column_stack([x[:-1], y[1:]] if maximize[0] else [x[1:], y[:-1]])


def _axis(metric: str) -> tuple[str, float]:
    """Label and unit of an axis; metrics nobody foresaw stand there by name."""
    return AXES.get(metric, (metric, 1.0))


def _log_if_wide(axes: Axes, values: Floats) -> None:
    """A logarithmic x axis with plain numbers, where positive values span more than a factor of ten."""
    if not len(values) or values.min() <= 0 or values.max() <= 10 * values.min():
        return
    decades = np.log10(values.max() / values.min())
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,), numticks=20))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _label_front(panel: _Panel) -> None:
    """Names of the published designs wherever they fit best, then ids of the front where they fit well."""
    axes, candidates = panel.axes, panel.candidates
    anchors = axes.transData.transform(panel.points)
    line = dense(axes.transData.transform(panel.steps))
    room = Room(np.array(axes.get_window_extent().extents), anchors, line, _legend_box(axes))
    named = [index for index, candidate in enumerate(candidates) if candidate.published]
    names = [_label(axes, panel.points[i], candidates[i].published or "", 8, PUBLISHED) for i in named]
    room, spots = arrange(room, anchors[named], np.array([_half(name) for name in names]))
    for name, spot in zip(names, spots, strict=True):
        _move(axes, name, spot)
    for index in np.flatnonzero(panel.on_front):
        if candidates[index].published:
            continue
        label = _label(axes, panel.points[index], str(candidates[index].id), 7, FRONT)
        spot = best_spot(room, anchors[index], _half(label))
        if spot.penalty > TOLERATED:
            label.remove()
            continue
        _move(axes, label, spot)
        room = occupy(room, anchors[index], _half(label), spot)


def _half(label: Text) -> Floats:
    """Half the width and height of a text in pixels: (2)."""
    extent = label.get_window_extent()
    return np.array([extent.width, extent.height]) / 2


def _legend_box(axes: Axes) -> Floats:
    """The box (0 or 1, 4) in pixels of the legend, if this plot has one."""
    legend = axes.get_legend()
    return np.empty((0, 4)) if legend is None else np.array([legend.get_window_extent().extents])


def _label(axes: Axes, point: Floats, text: str, size: float, color: str) -> Annotation:
    """A text still on top of its point."""
    return axes.annotate(
        text,
        (point[0], point[1]),
        xytext=(0, 0),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=size,
        color=color,
        annotation_clip=False,
        zorder=5,
    )


def _move(axes: Axes, label: Annotation, spot: Spot) -> None:
    """Puts a label into its place, with a thin leader from afar. Pixels become points, which every format keeps."""
    middle, edge = spot.middle * 72 / DPI, spot.edge * 72 / DPI
    label.set_position((middle[0], middle[1]))
    if spot.needs_leader:
        line = {"arrowstyle": "-", "lw": 0.6, "color": label.get_color(), "shrinkA": 0, "shrinkB": 3}
        axes.annotate("", label.xy, xytext=(edge[0], edge[1]), textcoords="offset points", arrowprops=line)


def distribution_figure(
    macs: ArrayLike, params: ArrayLike, path: Path, title: str, marks: Mapping[str, tuple[float, float]]
) -> None:
    """How many networks of a space have which cost, as two histograms; writes `path` whole.

    `macs` (networks) multiply-adds at batch 1, `params` (networks); `marks` says (macs, params) of named designs.
    Raises ArchsearchError for a suffix other than .png or .svg.
    """
    gmacs = {name: cost[0] / 1e9 for name, cost in marks.items()}
    millions = {name: cost[1] / 1e6 for name, cost in marks.items()}
    with _figure_file(path, (6.8, 5.6), title) as figure:
        upper, lower = figure.subplots(2, 1)
        flags = [
            _draw_distribution(upper, "gmacs", np.asarray(macs, dtype=np.float64) / 1e9, gmacs),
            _draw_distribution(lower, "params", np.asarray(params, dtype=np.float64) / 1e6, millions),
        ]
        for _ in range(2):  # names take room, which moves the marks, which may move the names
            figure.draw_without_rendering()
            for own in flags:
                _raise_flags(own)


def _draw_distribution(axes: Axes, metric: str, values: Floats, marks: Mapping[str, float]) -> list[_Flag]:
    """A histogram of costs, on a logarithmic axis where they span more than a factor of ten, and its flags."""
    axes.set_xlabel(_axis(metric)[0])
    axes.set_ylabel("networks")
    everything = np.array([*values.ravel(), *marks.values()])
    _log_if_wide(axes, everything)
    if values.size:
        low, high = values.min(), values.max()
        spaced = np.geomspace if axes.get_xscale() == "log" else np.linspace
        edges = spaced(low, high, BINS + 1) if high > low else np.array([low * 0.95, low * 1.05])
        axes.hist(values.ravel(), bins=edges.tolist(), color=FRONT, alpha=0.75, edgecolor="white", linewidth=0.3)
    return [_flag(axes, x, name) for name, x in sorted(marks.items(), key=lambda mark: mark[1])]


def _flag(axes: Axes, x: float, name: str) -> _Flag:
    """A mark on an axis with its name above the plot."""
    over = axes.get_xaxis_transform()
    (pole,) = axes.plot([x, x], [0, 1], color=PUBLISHED, lw=0.9, transform=over, clip_on=False)
    text = axes.text(x, 1, f" {name}", color=PUBLISHED, fontsize=8, transform=over, va="center", ha="left")
    return _Flag(pole, text)


def _raise_flags(flags: Sequence[_Flag]) -> None:
    """Gives each flag, sorted from left to right, the lowest row in which no pole crosses its name."""
    rows: list[int] = []
    boxes = [flag.text.get_window_extent() for flag in flags]
    for index in reversed(range(len(flags))):
        right = zip(boxes[index + 1 :], rows[::-1], strict=True)
        rows.append(1 + max((row for box, row in right if box.x0 < boxes[index].x1), default=-1))
    for flag, row in zip(flags, rows[::-1], strict=True):
        assert flag.text.axes is not None
        height = max(box.height for box in boxes) / flag.text.axes.get_window_extent().height
        top = 1 + (row + 1) * height
        flag.pole.set_ydata([0, top])
        flag.text.set_y(top - height / 4)


@contextmanager
def _figure_file(path: Path, size: tuple[float, float], title: str | None) -> Iterator[Figure]:
    """An empty figure, `size` in inches, that is written when the block ends: under another name, then renamed."""
    if path.suffix.lower() not in SUFFIXES:
        raise ArchsearchError(f"{path}: a figure ends in {' or '.join(SUFFIXES)}, not '{path.suffix}'")
    kind = path.suffix.lower()[1:]
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        if title:
            figure.suptitle(title, fontsize=11)
        yield figure
        path.parent.mkdir(parents=True, exist_ok=True)
        try:  # no date, no version: the same figure is the same file
            figure.savefig(unfinished, format=kind, dpi=200, metadata={"Date" if kind == "svg" else "Software": None})
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
