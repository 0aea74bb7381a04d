"""Measured latency as a table, JSON and a figure; and what a calibration found."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Group
from rich.text import Text

from archsearch.nets.latency import Report, measure, peak_memory_bytes
from archsearch.nets.runners import machine
from archsearch.report.drawing import FRONT, PUBLISHED, REST, figure_file, log_if_wide
from archsearch.report.front import quantity
from archsearch.report.networks import empty_table
from archsearch.spec.cost import total_cost
from archsearch.spec.latency import Setting, Table
from archsearch.spec.spec import Spec, lower

Row = dict[str, Any]
COLOURS = (FRONT, PUBLISHED, "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # of settings (Okabe and Ito)


def bench_json(
    specs: Mapping[str, Spec], settings: Sequence[Setting], rounds: int, timed: Report, weighed: Report
) -> dict[str, Any]:
    """What `archsearch bench --json` prints: a row for each network under each setting, of one device.

    `timed` hears of runs, `weighed` of networks whose memory is known.
    """
    processor, software = machine(settings[0])
    rows: list[Row] = []
    for number, setting in enumerate(settings):
        found = measure(specs, setting, rounds, _part(timed, number, len(settings)))
        rows += [_row(name, spec, setting) | asdict(found[name]) for name, spec in specs.items()]
    pairs = [(spec, setting) for setting in settings for spec in specs.values()]
    for number, (row, (spec, setting)) in enumerate(zip(rows, pairs, strict=True)):
        row["peak_memory_bytes"] = peak_memory_bytes(spec, setting)
        weighed(number + 1, len(rows))
    return {"processor": processor, "software": software, "rounds": rounds, "networks": rows}


def _part(report: Report, number: int, count: int) -> Report:
    """Reports one of so many equal parts."""
    return lambda done, total: report(number * total + done, count * total)


def _row(name: str, spec: Spec, setting: Setting) -> Row:
    cost = total_cost(lower(spec))
    clip = spec.model_dump(mode="json")["clip"]
    return {"name": name, "clip": clip, "params": cost.params, "macs": cost.macs, **setting.model_dump()}


def bench_table(data: Mapping[str, Any]) -> Group:
    """Networks side by side, settings below each other."""
    rows: list[Row] = data["networks"]
    table = empty_table()
    table.add_column("network", overflow="fold")
    for column in ("precision", "batch", "gmacs", "params", "ms", "p95", "clips/s", "memory MB"):
        table.add_column(column, justify="right")
    for place, row in enumerate(rows):
        last = place + 1 < len(rows) and rows[place + 1]["name"] == rows[0]["name"]
        cost = quantity("gmacs", row["macs"] / 1e9), quantity("params", row["params"])
        numbers = *cost, _ms(row["median_ms"]), _ms(row["p95_ms"])
        memory = f"{row['peak_memory_bytes'] / 1e6:,.0f}"
        cells = (row["precision"], str(row["batch"]), *numbers, quantity("clips", row["throughput"]), memory)
        table.add_row(Text(row["name"]), *cells, end_section=last)
    return Group(table, Text(_caption(data)))


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _caption(data: Mapping[str, Any]) -> str:
    first = data["networks"][0]
    load = max(row["load"] for row in data["networks"])
    spread = max(row["spread"] for row in data["networks"])
    compiled = ", compiled" if first["compiled"] else ""
    threads = "" if first["device"] == "cuda" else f", threads {first['threads']}"
    return (
        f"{first['device']}{compiled}{threads}: {data['processor']}, {data['software']}\n"
        f"ms: median of {data['rounds']} runs of a batch, in turn; middle half within {spread:.0%}; "
        f"load average {load:g}"
    )


def bench_figure(data: Mapping[str, Any], path: Path | None) -> Figure:
    """Bars of each network's median, a colour for each setting, with a line up to the 95th percentile.

    Writes `path`, if any. Raises ArchsearchError for a suffix other than .png or .svg.
    """
    rows: list[Row] = data["networks"]
    names = list(dict.fromkeys(row["name"] for row in rows))
    settings = list(dict.fromkeys((row["precision"], row["batch"]) for row in rows))
    with figure_file(path, (7, 1.2 + 0.28 * len(rows)), f"{data['processor']}, {data['software']}") as figure:
        axes = figure.subplots()
        height = 0.8 / len(settings)
        for number, (precision, batch) in enumerate(settings):
            own = [row for row in rows if (row["precision"], row["batch"]) == (precision, batch)]
            places = np.arange(len(names)) + (number - (len(settings) - 1) / 2) * height
            medians = np.array([row["median_ms"] for row in own])
            over = np.array([np.zeros(len(own)), [row["p95_ms"] for row in own] - medians])
            colour = COLOURS[number] if number < len(COLOURS) else REST
            label = f"{precision}, batch {batch}"
            axes.barh(places, medians, 0.9 * height, color=colour, xerr=over, ecolor="#333333", label=label)
        axes.set_yticks(np.arange(len(names)), names)
        axes.invert_yaxis()
        log_if_wide(axes, np.array([row["median_ms"] for row in rows]))
        axes.set_xlabel("ms of one forward of a batch: median, 95th percentile")
        axes.legend(frameon=False, fontsize=8)
    return figure


def calibration_json(table: Table) -> dict[str, Any]:
    """What `archsearch latency calibrate --json` prints: the table without its sites."""
    return table.model_dump(mode="json", exclude={"sites"}) | {"sites": len(table.sites)}


def calibration_text(table: Table) -> str:
    """What a calibration found, in a few lines."""
    errors = table.held_out
    assert errors is not None
    return (
        f"{table.space}: {len(table.sites)} sites, fastest of {table.rounds} runs each\n"
        f"{table.setting}: {table.processor}, {table.software}, load average {table.load:g}\n"
        f"latency_ms = {table.constant_ms:.3g} + {table.scale:.3f} x the sum of the sites\n"
        f"off by {errors.median:.1%} (median), {errors.max:.1%} (most) on {errors.networks} other networks"
    )
