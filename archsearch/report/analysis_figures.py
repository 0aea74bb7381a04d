"""Pictures of analyses of a trained network: kernels, clips backwards or longer, curves, features."""

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
from archsearch.report.analysis import run_names
from archsearch.report.drawing import FRONT, INK, MARKERS, PUBLISHED, REST, figure_file

LIGHT = "#A9CFE8"
COLOURS = (FRONT, PUBLISHED, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)  # Okabe and Ito's, without yellow
LOOKS = tuple((colour, marker) for marker, colour in product("o" + MARKERS, COLOURS))  # of classes; then again
COLUMN, LEGEND = 32, 16  # classes below each other, at most: in the plot of classes, in a legend
NAME = 28  # letters of a class
EQUAL: Any = {"color": INK, "lw": 0.9, "ls": "--"}
MEANS: Any = {"color": INK, "marker": "o", "ms": 3, "mec": "white", "mew": 0.4, "ls": "none"}
FORWARDS: Any = {"color": FRONT, "marker": "o", "ms": 4.5, "ls": "none"}
TRAINED: Any = {"color": REST, "lw": 1.0, "ls": "--"}
TRAIN: Any = {"color": FRONT, "lw": 1.2, "ls": "--"}
VAL: Any = {"color": PUBLISHED, "lw": 1.4}
BEST: Any = {"color": PUBLISHED, "marker": "o", "ms": 5, "mec": "white", "mew": 0.6, "ls": "none"}
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
    axes.set_yticks(places, [f"{shortened(name)} ({row['videos']})" for name, row in classes], fontsize=8)
    axes.tick_params(axis="y", length=0)


def frames_figure(data: dict[str, Any], path: Path) -> None:
    """Top-1 at several lengths of the clip, with its 95 % interval; `data` as `frames_single` gives it.

    Writes `path` whole. Raises ArchsearchError for a suffix other than .png or .svg.
    """
    rows = data["lengths"]
    frames = np.array([row["frames"] for row in rows])
    top1 = np.array([row["top1"] for row in rows])
    low, high = np.array([row["top1_interval"] for row in rows]).T
    title = f"{data['network']} on {data['split']}, clips of several lengths"
    with figure_file(path, (max(4.8, 0.9 * len(rows) + 1.6), 3.6), title) as figure:
        axes = figure.subplots()
        axes.axvline(data["trained"], **TRAINED, label=f"as trained, {data['trained']} frames")
        axes.fill_between(frames, low, high, color=LIGHT, alpha=0.6, lw=0, label="95 %, bootstrap over videos")
        axes.plot(frames, [row["clip_top1"] for row in rows], "o--", color=PUBLISHED, ms=4, lw=1, label="clip top-1")
        views = f"{data['views']} view{'s' if data['views'] > 1 else ''}"
        axes.plot(frames, top1, "o-", color=FRONT, ms=5, label=f"video top-1, {views}")
        axes.set_xscale("log", base=2)
        axes.minorticks_off()
        axes.set_xticks(frames, [f"{row['frames']}\n{row['gmacs']:.3g}" for row in rows])
        axes.set(xlabel="frames of a clip, and its gmacs", ylabel=f"top-1 on {data['split']}")
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)


def curve_figure(data: dict[str, Any], path: Path) -> None:
    """Loss (above) and top-1 (below) of training and validation, a column a training, the gap between them shaded.

    `data` as `curve_single` gives it. Writes `path` whole. Raises ArchsearchError for a suffix other than .png or
    .svg.
    """
    runs, names = data["runs"], run_names(data)
    columns = _columns(len(runs), 4)
    bands = -(-len(runs) // columns)
    top, cut = _loss_limit(runs)
    with figure_file(path, (max(2.7 * columns + 0.5, 4.4), 4.0 * bands + 0.6), None) as figure:
        grid = figure.subplots(2 * bands, columns, squeeze=False, sharex=True).reshape(bands, 2, columns)
        pairs = grid.transpose(0, 2, 1).reshape(-1, 2)
        for spare in pairs[len(runs) :].ravel():
            spare.remove()
        for (losses, top1s), run, name in zip(pairs, runs, names, strict=False):
            _draw_gap(losses, run, "loss")
            _draw_gap(top1s, run, "top1")
            losses.set(ylim=(0, top))
            losses.set_title(shortened(name), fontsize=9)
            top1s.set(ylim=(0, 1.02), xlabel="epoch")
            top1s.tick_params(labelbottom=True)
        for losses, top1s in grid[:, :, 0]:
            losses.set_ylabel("loss (nats; peaks are cut)" if cut else "loss (nats)")
            top1s.set_ylabel("top-1")
        shown = pairs[0, 0].get_legend_handles_labels()
        figure.legend(*shown, loc="outside lower center", ncols=2 if columns < 3 else 4, frameon=False, fontsize=8)


def _loss_limit(runs: Sequence[dict[str, Any]]) -> tuple[float, bool]:
    """The top of the losses' axis, and whether some lie above it: a few early peaks would flatten all the rest."""
    train, val = ([epoch[name] for run in runs for epoch in run["epochs"]] for name in ("train_loss", "val_loss"))
    shown = [run[at]["val_loss"] for run in runs for at in ("best", "last")]
    top = 1.1 * max(*train, *shown, float(np.quantile(val, 0.85)))
    return top, max(val) > top


def _draw_gap(axes: Axes, run: dict[str, Any], metric: str) -> None:
    """Training and validation over the epochs of one training, and its best epoch."""
    epochs = [row["epoch"] for row in run["epochs"]]
    train, val = ([row[f"{split}_{metric}"] for row in run["epochs"]] for split in ("train", "val"))
    axes.fill_between(epochs, train, val, color=REST, alpha=0.35, lw=0, label="the gap")
    axes.plot(epochs, train, **TRAIN, label="training")
    axes.plot(epochs, val, **VAL, label="validation")
    axes.plot(run["best"]["epoch"], run["best"][f"val_{metric}"], **BEST, label="highest val top-1")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def features_figure(data: dict[str, Any], path: Path) -> None:
    """Videos where t-SNE puts them, a panel a stage, classes by colour and shape; `data` as of `features_json`.

    With more than 77 classes looks occur again. Writes `path` whole. Raises ArchsearchError for a suffix other than
    .png or .svg.
    """
    stages, labels = data["stages"], np.array(data["labels"])
    classes = sorted(set(data["labels"]))
    columns = _columns(len(stages), 3)
    entry = 0.4 + 0.052 * max(len(shortened(name)) for name in classes)  # inches of a name in the legend
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
            Line2D([], [], color=colour, marker=marker, ls="none", ms=5, mec="white", mew=0.4, label=shortened(label))
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


def shortened(name: str) -> str:
    """A name as figures show it, of 28 letters at most."""
    short = name if len(name) <= NAME else f"{name[: NAME - 1]}…"
    return short.replace("$", r"\$")  # no formula
