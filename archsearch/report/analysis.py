"""Analyses of a trained network as tables and as JSON."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Group
from rich.markup import escape
from rich.text import Text

from archsearch.nets.taps import Taps, by_stage
from archsearch.report.networks import empty_table

FARTHEST = 4  # offset with a column of its own; shares of farther ones are added to it


def kernels_json(network: str, taps: Sequence[Taps]) -> dict[str, Any]:
    """What `archsearch analyse kernels` prints: shares of sum |w| by temporal offset, by convolution and by stage."""
    layers = [{"site": each.site, **_shares(each)} for each in taps]
    return {"network": network, "layers": layers, "stages": [_shares(each) for each in by_stage(taps)]}


def _shares(taps: Taps) -> dict[str, Any]:
    """Mean and quartiles (25, 50, 75 %) over filters for each offset; none where no filter has any weight."""
    shares = taps.shares
    some = len(shares) > 0
    return {
        "stage": taps.stage,
        "filters": len(shares),
        "offsets": list(taps.offsets),
        "mean": shares.mean(0).tolist() if some else [],
        "quartiles": np.quantile(shares, (0.25, 0.5, 0.75), axis=0).T.tolist() if some else [],
    }


def kernels_table(data: dict[str, Any]) -> Group:
    """Mean shares, a row a convolution; a stage of several has one more for all its filters."""
    rows = [(layer["site"], layer) for layer in data["layers"]]
    reach = [min(max(offset, -FARTHEST), FARTHEST) for _, row in rows for offset in row["offsets"]]
    columns = range(min(reach), max(reach) + 1)
    table = empty_table(f"{data['network']}: weight over time")
    table.add_column("convolution")
    for name in ("filters", *(f"{column:+d}" if column else "0" for column in columns)):
        table.add_column(name, justify="right")
    for stage in data["stages"]:
        inside = [(site, layer) for site, layer in rows if layer["stage"] == stage["stage"]]
        for name, row in [*inside, (f"all of {stage['stage']}", stage)] if len(inside) > 1 else inside:
            table.add_row(name, str(row["filters"]), *_cells(row, columns))
    caption = "mean over filters of the share of sum |w| at each frame, counted from the kernel's middle"
    if any(abs(offset) > FARTHEST for _, row in rows for offset in row["offsets"]):
        caption += f"\nframes farther than {FARTHEST} are added to those at {FARTHEST}"
    return Group(table, Text(caption))


def _cells(row: dict[str, Any], columns: range) -> list[str]:
    shares: defaultdict[int, float] = defaultdict(float)
    for offset, share in zip(row["offsets"], row["mean"], strict=False):  # none without any weight
        shares[min(max(offset, columns[0]), columns[-1])] += share
    return [f"{shares[column]:.3f}" if column in shares else "" for column in columns]


def time_table(data: dict[str, Any]) -> Group:
    """Top-1 forwards and backwards, class by class and of all videos."""
    table = empty_table(f"top-1 on {data['split']}, clips played forwards and backwards")
    table.add_column("class", overflow="fold")
    for name in ("videos", "forwards", "backwards", "difference"):
        table.add_column(name, justify="right")
    classes = data["classes"]
    for number, (name, row) in enumerate([*classes.items(), ("all", data)], start=1):
        cells = (f"{row['forwards']:.3f}", f"{row['backwards']:.3f}", f"{row['difference']:+.3f}")
        table.add_row(escape(name), str(row["videos"]), *cells, end_section=number == len(classes))
    views = f"{data['views']} view{'s' if data['views'] > 1 else ''} a video"
    return Group(table, Text(f"{views}; {data['same']:.1%} of the videos get the same class both ways"))


def frames_table(data: dict[str, Any]) -> Group:
    """Scores at several lengths of the clip."""
    table = empty_table(f"{data['network']} on {data['split']}, clips of several lengths")
    for name in ("frames", "gmacs", "top-1", "95 %", "top-5", "clip top-1", "loss"):
        table.add_column(name, justify="right")
    for row in data["lengths"]:
        scores = (f"{row[name]:.3f}" for name in ("top5", "clip_top1", "loss"))
        table.add_row(
            str(row["frames"]), f"{row['gmacs']:.3g}", f"{row['top1']:.3f}", between(row["top1_interval"]), *scores
        )
    caption = (
        f"{data['videos']} videos, {data['views']} view{'s' if data['views'] > 1 else ''} a video; the network has "
        f"{data['trained']} frames\n95 %: bootstrap over videos; gmacs are of one clip"
    )
    return Group(table, Text(caption))


def between(interval: Sequence[float]) -> str:
    """An interval as tables say it."""
    low, high = interval
    return f"{low:.3f} to {high:.3f}"


def curve_table(data: dict[str, Any]) -> Group:
    """How far training is ahead of validation, at the best and the last epoch of several trainings."""
    table = empty_table("the gap between training and validation")
    table.add_column("training", overflow="fold")
    table.add_column("at")
    for name in ("epoch", "train loss", "val loss", "gap", "train top-1", "val top-1", "gap"):
        table.add_column(name, justify="right")
    for name, run in zip(run_names(data), data["runs"], strict=True):
        for at in ("best", "last"):
            row = run[at]
            losses = [f"{row['train_loss']:.3f}", f"{row['val_loss']:.3f}", f"{row['loss_gap']:+.3f}"]
            top1 = [f"{row['train_top1']:.3f}", f"{row['val_top1']:.3f}", f"{row['top1_gap']:+.3f}"]
            shown = escape(name) if at == "best" else ""
            table.add_row(shown, at, str(row["epoch"]), *losses, *top1, end_section=at == "last")
    caption = (
        "best: the epoch of the highest val top-1. Training counts while the network changes, with dropout,\n"
        "augmentation and label smoothing; validation is one view of each video, without them"
    )
    return Group(table, Text(caption))


def run_names(data: dict[str, Any]) -> list[str]:
    """The trainings' folders by their last name, or by their whole path where two would be called the same."""
    paths = [run["run"].rstrip("/") for run in data["runs"]]
    names = [path.rpartition("/")[2] for path in paths]
    return names if len(set(names)) == len(names) else paths


def features_table(data: dict[str, Any]) -> Group:
    """How far the features after each stage tell the classes apart."""
    table = empty_table(f"features of {data['split']}")
    table.add_column("stage")
    for name in ("channels", f"{data['neighbours']}-nearest top-1"):
        table.add_column(name, justify="right")
    for name, stage in data["stages"].items():
        table.add_row(name, str(stage["channels"]), f"{stage['knn_top1']:.3f}")
    classes = len(set(data["labels"]))
    caption = (
        f"a video's class by a vote of the {data['neighbours']} nearest of {len(data['videos']) - 1} others\n"
        f"the largest of {classes} classes has {data['largest_class']:.3f} of the videos"
    )
    return Group(table, Text(caption))
