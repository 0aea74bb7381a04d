"""Figures of a search beside its front: how the hypervolume grew, and what each choice does. PNG or SVG."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archsearch.report.analysis_figures import shortened
from archsearch.report.drawing import FRONT, INK, REST, figure_file

SHOWN = 20  # choices of a figure, the first the most important


def growth_figure(data: Mapping[str, Any], path: Path) -> None:
    """Hypervolume against epochs and against worker seconds, of some `page_data`; writes `path` whole."""
    grown = data["growth"]
    with figure_file(path, (8.4, 3.4), None) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (name, label) in zip(
            panels, (("epochs", "epochs trained"), ("seconds", "worker seconds")), strict=True
        ):
            axes.step(grown[name], grown["volume"], where="post", color=FRONT, lw=1.4)
            axes.set(xlabel=label, ylim=(0, 1.03))
        panels[0].set_ylabel("hypervolume (share of the box)")


def choices_figure(data: Mapping[str, Any], path: Path) -> None:
    """The share of variance that each choice explains, a panel an objective; writes `path` whole."""
    entries = [entry for entry in data["importance"]["metrics"] if entry["metric"] in data["objectives"]]
    rows = max((min(SHOWN, len(entry["effects"])) for entry in entries), default=1)
    with figure_file(path, (4.4 * max(1, len(entries)), 1.1 + 0.28 * rows), None) as figure:
        for axes, entry in zip(figure.subplots(1, max(1, len(entries)), squeeze=False)[0], entries, strict=False):
            effects = [effect for effect in entry["effects"][:SHOWN] if effect["share"] is not None]
            places = range(len(effects))
            axes.barh(places, [effect["share"] for effect in effects], color=FRONT, height=0.62)
            for place, effect in zip(places, effects, strict=True):
                if effect["interval"]:
                    axes.plot(effect["interval"], [place, place], color=INK, lw=1.2)
            axes.set_yticks(places, [shortened(effect["choice"]) for effect in effects])
            axes.invert_yaxis()
            axes.set_xlim(left=0)
            axes.set_xlabel(f"share of the variance of {entry['metric']}")
            if not effects:
                axes.text(0.5, 0.5, "too few networks", transform=axes.transAxes, ha="center", color=REST)
