"""What figures share: colours, axes, labels, and files that are the same byte for byte for the same input."""

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.ticker import LogLocator, NullFormatter

from archsearch.errors import ArchsearchError
from archsearch.front.dominance import Floats
from archsearch.report.labels import Spot

SUFFIXES = (".png", ".svg")
FRONT, PUBLISHED, REST, INK = "#0072B2", "#D55E00", "#B8B8B8", "#333333"
MARKERS = "s^DvPX<>ph*8"  # one for each published design, in the order of their names
TOLERATED = 22.0  # penalty; an id in a worse place is left out
MARGIN = 0.04  # of an axis, on each side of what it shows
DPI = 100  # of the layout
AXES: Mapping[str, tuple[str, float]] = {  # what an axis says of a metric, and the unit that it counts in
    "top1": ("top-1 on val", 1.0),
    "clip_top1": ("clip top-1 on val", 1.0),
    "map": ("mean average precision on val", 1.0),
    "loss": ("loss on val", 1.0),
    "gmacs": ("gmacs (multiply-adds, 1e9; batch 1)", 1.0),
    "params": ("parameters (millions)", 1e6),
    "activations": ("activations (millions of elements; batch 1)", 1e6),
    "latency_ms": ("latency (ms)", 1.0),
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


def axis_of(metric: str) -> tuple[str, float]:
    """Label and unit of an axis; metrics nobody foresaw stand there by name."""
    return AXES.get(metric, (metric, 1.0))


def log_if_wide(axes: Axes, values: Floats, which: str = "x") -> None:
    """A logarithmic axis (x or y) with plain numbers, where positive values span more than a factor of ten."""
    if not len(values) or values.min() <= 0 or values.max() <= 10 * values.min():
        return
    decades = np.log10(values.max() / values.min())
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,), numticks=20))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def half_size(label: Text) -> Floats:
    """Half the width and height of a text in pixels: (2)."""
    extent = label.get_window_extent()
    return np.array([extent.width, extent.height]) / 2


def place_label(axes: Axes, point: Floats, text: str, size: float, color: str) -> Annotation:
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


def move_label(axes: Axes, label: Annotation, spot: Spot) -> None:
    """Puts a label into its place, with a thin leader from afar. Pixels become points, which every format keeps."""
    middle, edge = spot.middle * 72 / DPI, spot.edge * 72 / DPI
    label.set_position((middle[0], middle[1]))
    if spot.needs_leader:
        line = {"arrowstyle": "-", "lw": 0.6, "color": label.get_color(), "shrinkA": 0, "shrinkB": 3}
        axes.annotate("", label.xy, xytext=(edge[0], edge[1]), textcoords="offset points", arrowprops=line)


class Drawing(Figure):
    """A figure that notebooks show without pyplot, which would keep every figure in memory."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


@contextmanager
def figure_file(path: Path | None, size: tuple[float, float], title: str | None) -> Iterator[Figure]:
    """An empty figure, `size` in inches, that is written when the block ends, whole; without a path it is not."""
    if path is not None and path.suffix.lower() not in SUFFIXES:
        raise ArchsearchError(f"{path}: a figure ends in {' or '.join(SUFFIXES)}, not '{path.suffix}'")
    with matplotlib.rc_context(STYLE):
        figure = Drawing(figsize=size, dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        if title:
            figure.suptitle(title, fontsize=11)
        yield figure
        if path is not None:
            _write(figure, path)


def _write(figure: Figure, path: Path) -> None:
    """Under another name, then renamed. No date, no version: the same figure is the same file."""
    kind = path.suffix.lower()[1:]
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(unfinished, format=kind, dpi=200, metadata={"Date" if kind == "svg" else "Software": None})
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
