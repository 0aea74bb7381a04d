"""What `archsearch data check` and `data pack` print."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from archsearch.files import plain
from archsearch.report.networks import empty_table
from archsearch.video.check import FEW, Check, Read, sizes_of
from archsearch.video.facts import Facts
from archsearch.video.pack import Pack

SHOWN = 5  # examples of a finding, and sizes
CLASSES_SHOWN = 20


def check_json(check: Check) -> dict[str, Any]:
    """What `archsearch data check DATA --json` prints; sizes are width x height, lengths in seconds."""
    return {
        "data": str(check.dataset.root),
        "videos": len(check.reads),
        "usable": len(check.usable),
        "multi_label": check.dataset.multi_label,
        "broken": [{**_named(read), "reason": read.reason} for read in check.broken],
        **{name: [_named(read) for read in reads] for name, reads in _findings(check).items()},
        "duplicates": [[_named(read) for read in group] for group in check.duplicates],
        "leaks": [{"why": leak.why, "videos": [_named(read) for read in leak.reads]} for leak in check.leaks],
        "classes": {name: dict(counts) for name, counts in check.balance.items()},
        "few": list(check.few),
        "sizes": {f"{w}x{h}": count for (w, h), count in sizes_of(check).most_common()},
        "frames": _spread(check, lambda facts: facts.frames),
        "rate": _spread(check, lambda facts: facts.rate),
        "seconds": _spread(check, lambda facts: facts.seconds),
    }


def check_table(check: Check) -> Group:
    """What was found, what the videos are like, and how many each class has."""
    summary, sizes = _summary_table(check)
    balance, remarks = _balance_table(check)
    return Group(_findings_table(check), summary, sizes, balance, *remarks)


def pack_json(pack: Pack) -> dict[str, Any]:
    """What `archsearch data pack DATA --json` prints."""
    source, flow = next((split.source, split.flow) for split in pack.splits.values())
    return {
        **_file(source),
        **({} if flow is None else {"flow": _file(flow)}),
        "digest": pack.digest,
        "clips": {split: len(packed) for split, packed in pack.splits.items()},
        "broken": [{"name": name, "reason": reason} for name, reason in pack.broken],
    }


def pack_lines(pack: Pack) -> list[str]:
    """Where a pack is, how large, and how many clips it has."""
    facts = pack_json(pack)
    clips = ", ".join(f"{split} {count}" for split, count in facts["clips"].items())
    flow = facts.get("flow")
    return [
        facts["folder"],
        f"size: {_size(facts['bytes'])}",
        f"clips: {sum(facts['clips'].values())} ({clips})",
        *([] if flow is None else [f"flow: {Path(flow['folder']).name}, {_size(flow['bytes'])}"]),
    ]


def _file(path: Path) -> dict[str, Any]:
    return {"folder": str(path.parent), "bytes": path.stat().st_size}


def _findings(check: Check) -> dict[str, Sequence[Read]]:
    return {"short": check.short, "odd": check.odd, "rotated": check.rotated, "variable": check.variable}


def _findings_table(check: Check) -> Table:
    """A row for each kind of finding, with examples."""
    table = empty_table(f"{len(check.usable)} of {len(check.reads)} videos are usable")
    table.add_column("finding", no_wrap=True)
    table.add_column("videos", justify="right")
    table.add_column("such as", overflow="fold")
    short = f"fewer than {check.min_frames} frames"
    names = {"short": short, "odd": "extreme or tiny size", "rotated": "stored rotated", "variable": "variable rate"}
    _add(table, "broken", len(check.broken), (read.reason for read in check.broken))
    for kind, reads in _findings(check).items():
        _add(table, names[kind], len(reads), (_with_facts(kind, read) for read in reads))
    groups = (" = ".join(_where(read) for read in group) for group in check.duplicates)
    _add(table, "duplicates", sum(len(group) - 1 for group in check.duplicates), groups)
    for why in ("same content", "same file", "same name"):
        leaks = [leak for leak in check.leaks if leak.why == why]
        shown = (" = ".join(_where(read) for read in leak.reads[:3]) for leak in leaks)
        _add(table, f"{why} in splits", sum(len(leak.reads) for leak in leaks), shown)
    return table


def _add(table: Table, name: str, count: int, examples: Iterable[str]) -> None:
    shown = [example for _, example in zip(range(SHOWN), examples, strict=False)]
    more = "\n..." if count > len(shown) > 0 and len(shown) == SHOWN else ""
    table.add_row(name, str(count), escape("\n".join(map(plain, shown)) + more))


def _summary_table(check: Check) -> tuple[Table, Text]:
    """Frames, rates and lengths, and a line about sizes."""
    table = empty_table("readable videos")
    for name in ("", "least", "median", "most", "total"):
        table.add_column(name, justify="left" if not name else "right")
    rows = (
        ("frames", _spread(check, lambda facts: facts.frames)),
        ("frames a second", _spread(check, lambda facts: facts.rate)),
        ("seconds", _spread(check, lambda facts: facts.seconds)),
    )
    for name, spread in rows:
        if spread:
            total = f"{spread['total']:.10g}" if name == "frames" else f"{spread['total']:.1f}"
            cells = (f"{spread[key]:.4g}" for key in ("least", "median", "most"))
            table.add_row(name, *cells, "" if name == "frames a second" else total)
    sizes = sizes_of(check)
    shown = ", ".join(f"{w} x {h}: {count}" for (w, h), count in sizes.most_common(SHOWN))
    more = f", {len(sizes) - SHOWN} more" if len(sizes) > SHOWN else ""
    return table, Text(f"width x height: {shown}{more}")


def _balance_table(check: Check) -> tuple[Table, list[Text]]:
    """Usable videos by class and split, the classes with the fewest in train where there are many; and remarks."""
    table = empty_table("usable videos by class")
    table.min_width = 26  # of its title
    table.add_column("class", overflow="fold")
    for split in check.dataset.splits:
        table.add_column(split, justify="right")
    rows = list(check.balance.items())
    if len(rows) > CLASSES_SHOWN:
        rows = sorted(rows, key=lambda row: row[1].get("train", 0))[:CLASSES_SHOWN]
    for name, counts in rows:
        table.add_row(escape(plain(name)), *(str(count) for count in counts.values()))
    hidden = len(check.balance) - len(rows)
    remarks = [f"{hidden} classes with more are not shown"] if hidden else []
    remarks += [f"{len(check.few)} classes have fewer than {FEW} videos in train"] if check.few else []
    return table, [Text(remark) for remark in remarks]


def _spread(check: Check, value: Callable[[Facts], float | None]) -> dict[str, float]:
    """Least, median, most and total of what readable videos have; empty where none has any."""
    values = [known for read in check.reads if read.facts and (known := value(read.facts)) is not None]
    if not values:
        return {}
    return {"least": min(values), "median": median(values), "most": max(values), "total": sum(values)}


def _with_facts(kind: str, read: Read) -> str:
    """A clip and what is said about it."""
    facts = read.facts
    assert facts is not None
    said = {
        "short": f"{facts.frames} frame{'s' if facts.frames > 1 else ''}",
        "odd": f"{facts.width} x {facts.height}",
        "rotated": f"{90 * facts.turns} degrees",
        "variable": f"about {facts.rate or 0:.3g} a second",
    }
    return f"{_where(read)}: {said[kind]}"


def _where(read: Read) -> str:
    """The clip's name, with its split where the name does not begin with it."""
    name = read.video.name
    return name if name.startswith(f"{read.split}/") else f"{read.split}: {name}"


def _named(read: Read) -> dict[str, Any]:
    return {"split": read.split, "name": read.video.name}


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
