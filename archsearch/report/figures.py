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
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

from archsearch.errors import ArchsearchError
from archsearch.front.dominance import Floats, front
from archsearch.front.results import Candidate, Results
from archsearch.report.labels import Room, Spot, arrange, best_spot, dense, occupy
from archsearch.space.space import Limit

SUFFIXES = (".png", ".svg")
FRONT, PUBLISHED, REST, INK = "#0072B2", "#D55E00", "#B8B8B8", "#333333"
MARKERS = "s^DvPX<>ph*8"  # one for each published design, in the order of their names
TOLERATED = 22.0  # penalty; an id in a worse place is left out
BINS = 80  # cells along each axis
CELL_PIXELS = 12.0  # between the places that labels try to leave free
DENSITY = LinearSegmentedColormap.from_list("density", ["#A9CFE8", FRONT, "#00243B"])  # light where few networks are
MARGIN = 0.04  # of an axis, on each side of what it shows
HALO = withStroke(linewidth=2.5, foreground="white", alpha=0.8)  # so that a line can be seen on dark cells
CUT: Any = {"color": INK, "lw": 1.0, "ls": "--", "zorder": 3, "path_effects": [HALO]}
SHADE: Any = {"color": INK, "alpha": 0.1, "lw": 0, "zorder": 2}
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


def _log_if_wide(axes: Axes, values: Floats, which: str = "x") -> None:
    """A logarithmic axis (x or y) with plain numbers, where positive values span more than a factor of ten."""
    if not len(values) or values.min() <= 0 or values.max() <= 10 * values.min():
        return
    decades = np.log10(values.max() / values.min())
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,), numticks=20))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


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
    macs: ArrayLike,
    params: ArrayLike,
    path: Path,
    title: str,
    marks: Mapping[str, tuple[float, float]],
    limits: Mapping[str, Limit] | None = None,
) -> None:
    """How many networks of a space have which cost, of up to millions; writes `path` whole.

    `macs` (networks) multiply-adds at batch 1, `params` (networks); `marks` says (macs, params) of named designs.
    Limits of gmacs and params that leave something out are lines, with what they leave out in the shade. Raises
    ArchsearchError for a suffix other than .png or .svg.
    """
    units = 1e9, _axis("params")[1]
    points = np.array([macs, params], dtype=np.float64).T / units
    named = np.array([cost for _, cost in sorted(marks.items())]).reshape(-1, 2) / units
    bounds = _cuts(limits or {}, points)
    with _figure_file(path, (6.8, 6.2), title) as figure:
        grid = figure.subplots(2, 2, sharex="col", sharey="row", width_ratios=(4, 1), height_ratios=(1, 4))
        axes, corner = grid[1, 0], grid[0, 1]
        corner.set_axis_off()
        for column, metric in enumerate(("gmacs", "params")):
            _frame(axes, metric, "xy"[column], np.concatenate([points[:, column], named[:, column]]), bounds[column])
        middles = _draw_density(grid, points) if len(points) else points
        for index, point in enumerate(named):
            marker = MARKERS[index % len(MARKERS)]
            axes.plot(*point, marker, color=PUBLISHED, mec="white", ms=7, mew=0.8, zorder=6)
        _draw_cuts(grid, bounds)
        _explain(corner, bool(len(named)), any(bounds))
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # a label is placed for good
        _label_marks(axes, named, sorted(marks), middles)


def _cuts(limits: Mapping[str, Limit], points: Floats) -> list[list[tuple[float, int]]]:
    """Of gmacs and of params, the bounds that leave some of the networks (n, 2) out: where, and -1 below or 1 above."""
    found: list[list[tuple[float, int]]] = []
    for metric, unit, values in zip(("gmacs", "params"), (1.0, _axis("params")[1]), points.T, strict=True):
        limit = limits.get(metric)
        pairs = [(limit.min, -1), (limit.max, 1)] if limit else []
        places = [(bound / unit, way) for bound, way in pairs if bound]
        found.append([(at, way) for at, way in places if (values * way > at * way).any()])
    return found


def _frame(axes: Axes, metric: str, which: str, values: Floats, bounds: Sequence[tuple[float, int]]) -> None:
    """Label, scale and ends of the x or y axis, for values (n) and bounds with some room around them."""
    axes.set(**{f"{which}label": _axis(metric)[0]})
    if not len(values):
        return
    ends = np.array([values.min(), values.max(), *(at for at, _ in bounds)])
    _log_if_wide(axes, ends, which)
    log = (axes.get_xscale() if which == "x" else axes.get_yscale()) == "log"
    scaled = np.log10(ends) if log else ends
    low, high = scaled.min(), scaled.max()
    room = MARGIN * (high - low) or 0.05 * abs(low) or 1.0
    sides = [10.0**side if log else side for side in (low - room, high + room)]
    axes.set(**{f"{which}lim": sides})


def _draw_density(grid: NDArray[Any], points: Floats) -> Floats:
    """Counts of networks (n, 2) in the cells of a plot and, as bars, beside it; returns the middles (k, 2) of cells."""
    axes = grid[1, 0]
    x_edges, x_cells = _cells(points[:, 0], axes.get_xscale())
    y_edges, y_cells = _cells(points[:, 1], axes.get_yscale())
    counts = np.bincount(x_cells * BINS + y_cells, minlength=BINS * BINS).reshape(BINS, BINS)
    shown = np.ma.masked_equal(counts.T, 0)
    norm = LogNorm(1, max(int(counts.max()), 10))
    mesh = axes.pcolormesh(x_edges, y_edges, shown, norm=norm, cmap=DENSITY, rasterized=True, zorder=1)
    bars: Any = {"fill": True, "color": FRONT, "alpha": 0.75, "lw": 0}
    grid[0, 0].stairs(counts.sum(axis=1), x_edges, **bars)
    grid[1, 1].stairs(counts.sum(axis=0), y_edges, orientation="horizontal", **bars)
    for axis in (grid[0, 0].yaxis, grid[1, 1].xaxis):
        axis.set_major_locator(MaxNLocator(3, integer=True))
        axis.set_major_formatter(EngFormatter(sep=""))
        axis.set_label_text("networks")
    scale = grid[0, 1].inset_axes([0.0, 0.72, 1.0, 0.12])
    axes.figure.colorbar(mesh, cax=scale, orientation="horizontal", format=EngFormatter(sep=""))
    scale.set_title("networks in a cell", fontsize=8)
    x, y = np.nonzero(counts)
    return np.column_stack([(x_edges[x] + x_edges[x + 1]) / 2, (y_edges[y] + y_edges[y + 1]) / 2])


def _cells(values: Floats, scale: str) -> tuple[Floats, NDArray[np.intp]]:
    """Edges (BINS + 1) of cells that are equally wide on this scale, and each value's cell (n)."""
    low, high = values.min(), values.max()
    low, high = (low, high) if high > low else (low * 0.95 - 1e-9, low * 1.05 + 1e-9)
    log = scale == "log"
    edges = (np.geomspace if log else np.linspace)(low, high, BINS + 1)
    share = np.log(values / low) / np.log(high / low) if log else (values - low) / (high - low)
    return edges, np.clip(share * BINS, 0, BINS - 1).astype(np.intp)


def _draw_cuts(grid: NDArray[Any], bounds: Sequence[Sequence[tuple[float, int]]]) -> None:
    """Lines at bounds, and shade over what they leave out; in the plot and in the bars beside it."""
    for axes in grid[:, 0]:
        for at, way in bounds[0]:
            axes.axvline(at, **CUT)
            axes.axvspan(at, axes.get_xlim()[way > 0], **SHADE)
    for axes in grid[1]:
        for at, way in bounds[1]:
            axes.axhline(at, **CUT)
            axes.axhspan(at, axes.get_ylim()[way > 0], **SHADE)


def _explain(corner: Axes, marked: bool, cut: bool) -> None:
    """A legend of what is in the plot, in its empty corner."""
    if marked:
        corner.plot([], [], MARKERS[0], color=PUBLISHED, mec="white", ms=7, label="published")
    if cut:
        corner.plot([], [], **{**CUT, "path_effects": []}, label="limit")
    if marked or cut:
        corner.legend(loc="lower left", bbox_to_anchor=(-0.1, -0.1), frameon=False, fontsize=8, handletextpad=0.4)


def _label_marks(axes: Axes, points: Floats, names: Sequence[str], middles: Floats) -> None:
    """Names of marks (n, 2) wherever they fit best, if possible off the cells with these middles (k, 2)."""
    anchors, cells = axes.transData.transform(points), axes.transData.transform(middles)
    thinned = np.unique(np.round(cells / CELL_PIXELS), axis=0) * CELL_PIXELS
    room = Room(np.array(axes.get_window_extent().extents), anchors, thinned, np.empty((0, 4)))
    labels = [_label(axes, point, name, 8, PUBLISHED) for point, name in zip(points, names, strict=True)]
    for label in labels:
        label.set_bbox({"fc": "white", "ec": "none", "alpha": 0.9, "pad": 0.5})
    _, spots = arrange(room, anchors, np.array([_half(label) for label in labels]).reshape(-1, 2))
    for label, spot in zip(labels, spots, strict=True):
        _move(axes, label, spot)


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
