"""A search as Markdown with figures beside it: for a paper, a README, a review."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from archsearch.files import plain, write_whole
from archsearch.report.figures import front_figure
from archsearch.report.front import quantity
from archsearch.report.page_data import page_data
from archsearch.report.page_figures import choices_figure, growth_figure
from archsearch.search.results import read_results

CHOICES = 12  # of a network in a row
NOTICES = {
    "shared": "The values are read off shared weights: they rank networks, and are no results of trainings.",
    "table": "The values come from a table of earlier trainings.",
}


def write_markdown(run: str, path: Path) -> list[Path]:
    """Writes a run as Markdown, and `<name>-front`, `-growth` and `-choices` as .png and .svg beside it.

    Gives every file that was written. Raises RunError as `page_data` does.
    """
    data, results = page_data(run), read_results(run)
    written: list[Path] = []
    for suffix in (".svg", ".png"):
        places = {part: path.with_name(f"{path.stem}-{part}{suffix}") for part in ("front", "growth", "choices")}
        front_figure(results, places["front"])
        growth_figure(data, places["growth"])
        choices_figure(data, places["choices"])
        written += places.values()
    write_whole(path, markdown(data, path.stem))
    return [path, *written]


def markdown(data: Mapping[str, Any], stem: str) -> str:
    """Some `page_data` as Markdown, whose figures are named by `stem`."""
    counts = ", ".join(f"{count} {state}" for state, count in data["counts"]["states"].items() if count)
    aims = ", ".join(f"{inert(name)} ({direction})" for name, direction in data["objectives"].items())
    notice = NOTICES.get(data["values"] or "")
    parts = [
        f"# {inert(data['name'])}",
        f"{aims}; {counts or 'no trials yet'}; {data['counts']['epochs']} epochs, "
        f"{data['counts']['seconds']:.0f} worker seconds.",
        *([f"**{notice}**"] if notice else []),
        "## The front",
        f"![The front]({_link(stem)}-front.png)",
        _networks(data, data["networks"]["front"]),
        *_published(data),
        *_final(data),
        "## What the training bought",
        f"![Hypervolume against training]({_link(stem)}-growth.png)",
        "## What each choice does",
        f"![Shares of variance]({_link(stem)}-choices.png)",
        *(_effects(entry) for entry in data["importance"]["metrics"]),
        f"{data['importance']['method'].capitalize()}.",
        *_reproduce(data),
    ]
    return "\n\n".join(parts) + "\n"


def inert(value: Any) -> str:
    """A name as Markdown shows it and nothing more: no markup, no link, no line of its own."""
    return re.sub(r"([\\`*\[\]<>|&#~!])", r"\\\1", plain(re.sub(r"\s+", " ", str(value))))


def _link(stem: str) -> str:
    from urllib.parse import quote

    return quote(stem)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _networks(data: Mapping[str, Any], places: Sequence[int]) -> str:
    if not places:
        return "No network was trained to the end yet."
    nets = data["networks"]
    names = [n for n in dict.fromkeys([*data["objectives"], "params"]) if n in nets["metrics"]]
    rows = []
    for place in places:
        numbers = [_number(name, nets["metrics"][name][place]) for name in names]
        rows.append([f"#{nets['id'][place]}", *numbers, inert(nets["published"].get(place, "")), _choices(nets, place)])
    return _table(["network", *map(inert, names), "design", "choices"], rows)


def _number(name: str, value: float | None) -> str:
    return "-" if value is None else quantity(name, value)


def _choices(nets: Mapping[str, Any], place: int) -> str:
    met = [
        f"{inert(name)}={inert(column['options'][column['values'][place]])}"
        for name, column in nets["choices"].items()
        if column["values"][place] >= 0
    ]
    return " ".join(met[:CHOICES]) + (f" and {len(met) - CHOICES} more" if len(met) > CHOICES else "")


def _published(data: Mapping[str, Any]) -> list[str]:
    nets = data["networks"]
    places = [place for place in nets["published"] if place not in nets["front"]]
    return ["Published designs off the front:", _networks(data, places)] if places else []


def _final(data: Mapping[str, Any]) -> list[str]:
    final = data["final"]
    if not final:
        return []
    names = list(final.get("objectives", data["objectives"]))
    members = final.get("front", [])
    rows = []
    for row in final["candidates"]:
        means = [
            _number(name, row["metrics"].get(name))
            + (f" ± {row['spread'][name]:.3f}" if name in row.get("spread", ()) else "")
            for name in names
        ]
        interval = [f"{end:.3f}" for end in row.get("test_interval", [])]
        tested = [f"{row['test_top1']:.3f}", " to ".join(interval)] if "test_top1" in row else ["-", "-"]
        marks = [inert(row.get("published") or ""), "yes" if row["id"] in members else ""]
        rows.append([f"#{row['id']}", *marks, *means, *tested, str(row["trained"])])
    heads = ["network", "design", "on the front", *map(inert, names), "test top-1", "95 %", "trainings"]
    return ["## Final results", _table(heads, rows)]


def _effects(entry: Mapping[str, Any]) -> str:
    """One metric's table: share, interval, and the mean at each option."""
    rows = []
    for effect in entry["effects"]:
        low, high = effect["interval"] or (None, None)
        share = "-" if effect["share"] is None else f"{effect['share']:.3f}"
        between = "-" if low is None or high is None else f"{low:.3f} to {high:.3f}"
        means = [f"{inert(o['label'])} {_number(entry['metric'], o['mean'])}" for o in effect["options"][:CHOICES]]
        rows.append([inert(effect["choice"]), share, between, ", ".join(means)])
    name = inert(entry["metric"])
    return _table([f"choice, for {name}", "share", "95 %", f"mean {name} by option"], rows)


def _reproduce(data: Mapping[str, Any]) -> list[str]:
    again = data["reproduce"]
    versions = ", ".join(f"{name} {text}" for name, text in again["versions"].items())
    known = f"Data set {inert(data['data']['name'])}, digest {inert(data['data']['digest'])}; written with {versions}."
    files = [part for name, text in again["files"].items() for part in (f"`{name}`:", _fenced(text, "yaml"))]
    return ["## The same again", known, _fenced("\n".join(again["commands"]), "bash"), *files]


def _fenced(text: str, kind: str) -> str:
    """A block of code, whatever is in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{kind}\n{text.rstrip()}\n{fence}"
