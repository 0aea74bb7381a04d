"""Pictures of a run and of a space, as PNG or SVG: the front, and how large the networks of a space are.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; shapes say the same as colours. The same
input gives the same SVG, byte for byte.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from archsearch.front.dominance import Floats, front
from archsearch.front.results import Candidate, Results
from archsearch.report.drawing import (
    FRONT,
    MARKERS,
    PUBLISHED,
    REST,
    TOLERATED,
    axis_of,
    figure_file,
    half_size,
    log_if_wide,
    move_label,
    place_label,
)
from archsearch.report.labels import Room, arrange, best_spot, dense, occupy


@dataclass(frozen=True)
class _Panel:
    """One plot of complete candidates: their points (n, 2) in the units of the axes."""

    axes: Axes
    candidates: tuple[Candidate, ...]
    points: Floats
    on_front: NDArray[np.bool_]
    steps: Floats  # corners (k, 2) of the line under which everything is dominated


def front_figure(results: Results, path: Path | None, title: str | None = None) -> Figure:
    """Draws every complete candidate, the front and the published designs, and writes `path`, if any, whole.

    The first objective is drawn against each other one (a single objective against the number of the trial). A
    cost that spans more than a factor of ten gets a logarithmic axis. Published designs carry their names and
    are hollow where dominated; other points of the front carry their ids where there is room. Raises
    ArchsearchError for a suffix other than .png or .svg.
    """
    others: list[str | None] = [*list(results.objectives)[1:]] or [None]
    columns = min(len(others), 3)
    rows = -(-len(others) // columns)
    size = (6.8 if columns == 1 else 4.6 * columns, 4.6 * rows)
    with figure_file(path, size, title) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for spare in grid[len(others) :]:
            spare.remove()
        panels = [_draw_front(axes, results, other) for axes, other in zip(grid, others, strict=False)]
        for axes in grid[::columns]:
            axes.set_ylabel(axis_of(next(iter(results.objectives)))[0])
        panels[0].axes.legend(loc="best", frameon=False, fontsize=8, handletextpad=0.4)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # a label is placed for good
        for panel in panels:
            _label_front(panel)
    return figure


def _draw_front(axes: Axes, results: Results, other: str | None) -> _Panel:
    """Points and front of the first objective over another one (over the trial's number if None)."""
    name = next(iter(results.objectives))
    candidates = tuple(c for c in results.complete() if np.isfinite(results.values([c])).all())
    members = {candidate.id for candidate in results.front()}
    x_label, x_unit = axis_of(other) if other else ("trial", 1.0)
    x = [(c.metrics[other] if other else c.id) / x_unit for c in candidates]
    y = [c.metrics[name] / axis_of(name)[1] for c in candidates]
    points = np.array([x, y], dtype=np.float64).T.reshape(-1, 2)
    on_front = np.array([candidate.id in members for candidate in candidates], dtype=bool)
    directions = [other is not None and results.objectives[other] == "maximize", results.maximize[0]]
    panel = _Panel(axes, candidates, points, on_front, _steps(points, directions))
    axes.set_xlabel(x_label)
    axes.margins(0.06, 0.1)  # labels need room
    if other and not directions[0]:
        log_if_wide(axes, points[:, 0])
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


def _label_front(panel: _Panel) -> None:
    """Names of the published designs wherever they fit best, then ids of the front where they fit well."""
    axes, candidates = panel.axes, panel.candidates
    anchors = axes.transData.transform(panel.points)
    line = dense(axes.transData.transform(panel.steps))
    room = Room(np.array(axes.get_window_extent().extents), anchors, line, _legend_box(axes))
    named = [index for index, candidate in enumerate(candidates) if candidate.published]
    names = [place_label(axes, panel.points[i], candidates[i].published or "", 8, PUBLISHED) for i in named]
    room, spots = arrange(room, anchors[named], np.array([half_size(name) for name in names]))
    for name, spot in zip(names, spots, strict=True):
        move_label(axes, name, spot)
    for index in np.flatnonzero(panel.on_front):
        if candidates[index].published:
            continue
        label = place_label(axes, panel.points[index], str(candidates[index].id), 7, FRONT)
        spot = best_spot(room, anchors[index], half_size(label))
        if spot.penalty > TOLERATED:
            label.remove()
            continue
        move_label(axes, label, spot)
        room = occupy(room, anchors[index], half_size(label), spot)


def _legend_box(axes: Axes) -> Floats:
    """The box (0 or 1, 4) in pixels of the legend, if this plot has one."""
    legend = axes.get_legend()
    return np.empty((0, 4)) if legend is None else np.array([legend.get_window_extent().extents])
