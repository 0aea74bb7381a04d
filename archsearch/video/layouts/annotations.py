"""JSON of annotations: Something-Something (Goyal et al. 2017) and ActivityNet (Caba Heilbron et al. 2015)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from archsearch.video.layouts.listing import (
    SPLIT_WORDS,
    Choice,
    Layout,
    Listing,
    Row,
    absent,
    clip_row,
    finish,
    listed_in,
    split_of,
    videos_of,
)

HEAD_BYTES = 1 << 20  # where ActivityNet's files say what they are


def list_something(root: Path, choice: Choice) -> Listing:
    """train.json, validation.json and labels.json; a class is a template without the brackets of its placeholders."""
    faults: list[str] = []
    classes = _something_classes(_something_labels(root)[0], faults)
    if faults:
        return Listing((), {}, tuple(faults))
    videos, missing, rows, counted, unlabelled = videos_of(root), list[str](), dict[str, list[Row]](), 0, 0
    for path in listed_in(root, "*.json"):
        split = split_of(path.stem)
        for entry in _entries(path, faults) if split else ():
            label = _plain(str(entry.get("template") or entry.get("label") or ""))
            counted += bool(label)
            unlabelled += not label
            name = videos.find(str(entry.get("id")))
            if label and label not in classes:
                faults.append(f"{path}: id {entry.get('id')!r}: class {label!r} is not in labels.json")
            elif label and name is None:
                missing.append(str(entry.get("id")))
            elif label and name is not None and split is not None:
                rows.setdefault(split, []).append(clip_row(videos, root, name, (label,)))
    if faults:
        return Listing((), {}, tuple(faults))
    notes = absent(root, missing, counted)
    if unlabelled:
        notes.append(f"{root}: {unlabelled} entries have no label and are left out")
    return finish(root, "read as Something-Something lists", rows, tuple(classes), notes)


def _something_classes(path: Path, faults: list[str]) -> dict[str, int]:
    """{class: number} in the order of the numbers."""
    content = _read_json(path, faults)
    try:
        numbers = {_plain(name): int(number) for name, number in content.items()}
    except (AttributeError, TypeError, ValueError):
        faults.append(f"{path}: no record of class names and their numbers")
        return {}
    return dict(sorted(numbers.items(), key=lambda item: item[1]))


def _plain(template: str) -> str:
    return template.replace("[", "").replace("]", "")


def list_activitynet(root: Path, choice: Choice) -> Listing:
    """{"database": {id: {"subset", "annotations": [{"label", "segment": [start, end]}]}}}, one clip a segment."""
    faults: list[str] = []
    videos, missing, rows, counted = videos_of(root), list[str](), dict[str, list[Row]](), 0
    for path in _activitynet_lists(root):
        for key, record in _read_json(path, faults)["database"].items():
            segments = list(_segments(path, key, record, faults))
            name = videos.find(key) or videos.find(f"v_{key}")
            counted += bool(segments)
            if segments and name is None:
                missing.append(key)
            elif name is not None:
                split = SPLIT_WORDS.get(record["subset"]) if segments else None
                rows.setdefault(split or "", []).extend(
                    clip_row(videos, root, name, (label,), (start, end)) for label, start, end in segments
                )
    if faults:
        return Listing((), {}, tuple(faults))
    return finish(root, "read as ActivityNet annotations", rows, (), absent(root, missing, counted))


def _segments(path: Path, key: str, record: Any, faults: list[str]) -> Iterator[tuple[str, float, float]]:
    """(class, start, end) of every annotation, in seconds; what is no segment becomes a fault."""
    try:
        if record["annotations"] and record["subset"] not in SPLIT_WORDS:
            rule = "is none of training, validation, testing"
            faults.append(f"{path}: video {key!r}: subset {record['subset']!r} {rule}")
        for annotation in record["annotations"]:
            start, end = (float(second) for second in annotation["segment"])
            if not 0 <= start < end < float("inf"):
                faults.append(f"{path}: video {key!r}: segment [{start:g}, {end:g}] ends before it starts")
            else:
                yield str(annotation["label"]), start, end
    except (KeyError, TypeError, ValueError) as fault:
        faults.append(f"{path}: video {key!r}: no `subset` and `annotations` of label and segment ({fault})")


def _entries(path: Path, faults: list[str]) -> list[dict[str, Any]]:
    content = _read_json(path, faults)
    if isinstance(content, list) and all(isinstance(entry, dict) for entry in content):
        return content
    faults.append(f"{path}: no list of entries with `id` and `template`")
    return []


def _read_json(path: Path, faults: list[str]) -> Any:
    """The content; an empty record, and a fault, where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as fault:
        faults.append(f"{path}: not JSON that can be read ({fault})")
        return {}


def _something_labels(root: Path) -> list[Path]:
    """labels.json, or something-something-v2-labels.json, where lists lie beside it."""
    labels = listed_in(root, "labels.json", "*-labels.json")
    return labels if labels and any(split_of(path.stem) for path in labels[0].parent.glob("*.json")) else []


def _activitynet_lists(root: Path) -> list[Path]:
    return [path for path in listed_in(root, "*.json") if _has_database(path)]


def _has_database(path: Path) -> bool:
    with path.open("rb") as file:
        if b'"database"' not in file.read(HEAD_BYTES):
            return False  # some other JSON, perhaps a large one
    content = _read_json(path, [])
    return isinstance(content, dict) and isinstance(content.get("database"), dict)


SOMETHING = Layout("Something-Something lists", lambda root: bool(_something_labels(root)), list_something)
ACTIVITYNET = Layout("ActivityNet annotations", lambda root: bool(_activitynet_lists(root)), list_activitynet)
