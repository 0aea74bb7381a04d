"""Scores of a network, and of several fused, as tables."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from archsearch.report.analysis import between
from archsearch.report.networks import empty_table


def evaluation_table(data: Mapping[str, Any]) -> Group:
    """A network's scores on a split, by class, and its most frequent mistakes; `data` as of `evaluate_single`."""
    crops = f" x {data['crops']} crops" if data["crops"] > 1 else ""
    views = f"{data['views']} view{'s' if data['views'] > 1 else ''}{crops} of {data['frames']} frames"
    backwards = ", played backwards" if data["reverse"] else ""
    numbers = empty_table(f"{data['network']} on {data['split']}: {data['videos']} videos, {views}{backwards}")
    numbers.add_column("score")
    numbers.add_column("value", justify="right")
    numbers.add_column("")
    for name, value, remark in _numbers(data):
        numbers.add_row(name, f"{value:.4f}", remark)
    return Group(numbers, _class_table(data), *([_confused_table(data)] if data.get("confused") else []))


def _numbers(data: Mapping[str, Any]) -> list[tuple[str, float, str]]:
    rows = [
        ("top-1", "top1", f"95 %: {between(data['top1_interval'])}, bootstrap over videos"),
        ("top-5", "top5", f"of {len(data['class_names'])} classes"),
        ("mean average precision", "map", "every class counts the same"),
        ("mean class top-1", "mean_class_top1", "every class counts the same"),
        ("clip top-1", "clip_top1", "every view on its own"),
        ("loss", "loss", "nats, of the mean probabilities"),
        ("calibration error", "ece", "between confidence and top-1, 15 bins"),
    ]
    return [(title, data[name], remark) for title, name, remark in rows if name in data]


def _class_table(data: Mapping[str, Any]) -> Table:
    table = empty_table()
    table.add_column("class", overflow="fold")
    score, by_class = ("top-1", data["classes"]) if "classes" in data else ("average precision", data["class_ap"])
    for name in ("videos", score):
        table.add_column(name, justify="right")
    for name, value in by_class.items():
        table.add_row(escape(name), str(data["class_videos"][name]), f"{value:.3f}")
    return table


def _confused_table(data: Mapping[str, Any]) -> Table:
    table = empty_table("confused most")
    for name in ("class", "taken for"):
        table.add_column(name, overflow="fold")
    for name in ("videos", "of the class"):
        table.add_column(name, justify="right")
    for pair in data["confused"]:
        table.add_row(escape(pair["class"]), escape(pair["said"]), str(pair["videos"]), f"{pair['share']:.3f}")
    return table


def fusion_table(data: Mapping[str, Any]) -> Group:
    """Each file of scores alone and all fused; `data` as of `fuse_files`."""
    table = empty_table(f"scores of {data['videos']} videos, alone and fused")
    table.add_column("scores", overflow="fold")
    names = ("weight", "top-1", "95 %", "top-5", *(("mAP",) if "map" in data["fused"] else ()))
    for name in (*names, "fusion gains", "95 %"):
        table.add_column(name, justify="right")
    for number, row in enumerate(data["alone"], start=1):
        gain = (f"{row['gain']:+.3f}", "{:+.3f} to {:+.3f}".format(*row["gain_interval"]))
        cells = (f"{row['weight']:g}", *_brief(row), *gain)
        table.add_row(escape(row["scores"]), *cells, end_section=number == len(data["alone"]))
    table.add_row("fused", "", *_brief(data["fused"]))
    caption = "95 %: bootstrap over videos; a gain's is paired, so of the same videos for both"
    return Group(table, Text(caption))


def _brief(row: Mapping[str, Any]) -> tuple[str, ...]:
    precision = (f"{row['map']:.3f}",) if "map" in row else ()
    return f"{row['top1']:.3f}", between(row["top1_interval"]), f"{row['top5']:.3f}", *precision
