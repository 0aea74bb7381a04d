"""A space as a picture: how large its networks are, as a density with bars beside both axes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from archsearch.front.dominance import Floats
from archsearch.report.drawing import (
    FRONT,
    INK,
    MARGIN,
    MARKERS,
    PUBLISHED,
    axis_of,
    figure_file,
    half_size,
    log_if_wide,
    move_label,
    place_label,
)
from archsearch.report.labels import Room, arrange
from archsearch.space.space import Limit

HALO = withStroke(linewidth=2.5, foreground="white", alpha=0.8)  # so that a line can be seen on dark cells
BINS = 80  # cells along each axis
CELL_PIXELS = 12.0  # between the places that labels try to leave free
DENSITY = LinearSegmentedColormap.from_list("density", ["#A9CFE8", FRONT, "#00243B"])  # light where few networks are
CUT: Any = {"color": INK, "lw": 1.0, "ls": "--", "zorder": 3, "path_effects": [HALO]}
SHADE: Any = {"color": INK, "alpha": 0.1, "lw": 0, "zorder": 2}


def distribution_figure(
    macs: ArrayLike,
    params: ArrayLike,
    path: Path | None,
    title: str,
    marks: Mapping[str, tuple[float, float]],
    limits: Mapping[str, Limit] | None = None,
) -> Figure:
    """How many networks of a space have which cost, of up to millions; writes `path`, if any, whole.

    `macs` (networks) multiply-adds at batch 1, `params` (networks); `marks` says (macs, params) of named designs.
    Limits of gmacs and params that leave something out are lines, with what they leave out in the shade. Raises
    ArchsearchError for a suffix other than .png or .svg.
    """
    units = 1e9, axis_of("params")[1]
    points = np.array([macs, params], dtype=np.float64).T / units
    named = np.array([cost for _, cost in sorted(marks.items())]).reshape(-1, 2) / units
    bounds = _cuts(limits or {}, points)
    with figure_file(path, (6.8, 6.2), title) as figure:
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
    return figure


def _cuts(limits: Mapping[str, Limit], points: Floats) -> list[list[tuple[float, int]]]:
    """Of gmacs and of params, the bounds that leave some of the networks (n, 2) out: where, and -1 below or 1 above."""
    found: list[list[tuple[float, int]]] = []
    for metric, unit, values in zip(("gmacs", "params"), (1.0, axis_of("params")[1]), points.T, strict=True):
        limit = limits.get(metric)
        pairs = [(limit.min, -1), (limit.max, 1)] if limit else []
        places = [(bound / unit, way) for bound, way in pairs if bound]
        found.append([(at, way) for at, way in places if (values * way > at * way).any()])
    return found


def _frame(axes: Axes, metric: str, which: str, values: Floats, bounds: Sequence[tuple[float, int]]) -> None:
    """Label, scale and ends of the x or y axis, for values (n) and bounds with some room around them."""
    axes.set(**{f"{which}label": axis_of(metric)[0]})
    if not len(values):
        return
    ends = np.array([values.min(), values.max(), *(at for at, _ in bounds)])
    log_if_wide(axes, ends, which)
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
    labels = [place_label(axes, point, name, 8, PUBLISHED) for point, name in zip(points, names, strict=True)]
    for label in labels:
        label.set_bbox({"fc": "white", "ec": "none", "alpha": 0.9, "pad": 0.5})
    _, spots = arrange(room, anchors, np.array([half_size(label) for label in labels]).reshape(-1, 2))
    for label, spot in zip(labels, spots, strict=True):
        move_label(axes, label, spot)
