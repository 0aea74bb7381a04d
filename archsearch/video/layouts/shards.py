"""Tar files of pairs `key.mp4` and `key.cls`, `key.txt` or `key.json`, as webdataset writes them.

A tar file is read in place: a member is its offset and size. Its path is a name and never a place on the disk;
links, devices and sparse members are passed over.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from archsearch.video.layouts.folders import drawn_splits
from archsearch.video.layouts.listing import (
    Choice,
    Layout,
    Listing,
    Row,
    finish,
    folders_in,
    numbers_first,
    read_class_names,
    split_of,
    walk,
)
from archsearch.video.names import SUFFIXES

LABEL_SUFFIXES = (".cls", ".txt", ".json")  # the first that is there
LABEL_BYTES = 65536
LABEL_FIELDS = ("label", "labels", "class", "cls")


@dataclass(frozen=True)
class Member:
    """A file inside a tar file; `offset` and `size` in bytes."""

    name: str
    offset: int
    size: int


def list_shards(root: Path, choice: Choice) -> Listing:
    """Shards by split, as train-000.tar or train/000.tar; without any split in their names 60/20/20 by seed."""
    faults: list[str] = []
    names = read_class_names(root / "classes.txt", faults)
    rows: dict[str, list[Row]] = {}
    notes: list[str] = []
    for path in _shards(root):
        split = split_of(path.stem) or split_of(path.parent.name if path.parent != root else "") or ""
        rows.setdefault(split, []).extend(_shard_rows(root, path, names, faults, notes))
    if faults:
        return Listing((), {}, tuple(faults))
    if set(rows) == {""}:
        found = tuple(rows[""])
        classes = tuple(sorted({row.label for row in found}, key=numbers_first))
        drawn, note = drawn_splits(root, found, classes, choice.seed)
        return finish(root, "read as tar shards", drawn, names, [*notes, note])
    notes += [f"{root}: {len(rows[''])} videos are in shards of no split and are left out"] if "" in rows else []
    return finish(root, "read as tar shards", rows, names, notes)


def find_member(path: Path, name: str) -> tuple[int, int] | None:
    """(offset, size) of the member called `name`, or None: then the name is no video either."""
    member = members(path).get(name)
    return None if member is None else (member.offset, member.size)


def members(path: Path) -> dict[str, Member]:
    """The plain files of a tar file by name, the first of each; none of what is no tar file."""
    known = path.stat() if path.is_file() else None
    return {} if known is None else _members(path, known.st_size, known.st_mtime_ns)


@lru_cache(maxsize=8)
def _members(path: Path, size: int, changed_ns: int) -> dict[str, Member]:
    found: dict[str, Member] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                inside = info.offset_data + info.size <= size
                if info.isreg() and not info.issparse() and inside:
                    found.setdefault(info.name, Member(info.name, info.offset_data, info.size))
    except (tarfile.TarError, ValueError, EOFError):
        pass  # a cut file: what came before is whole
    return found


def _shard_rows(root: Path, path: Path, names: list[str], faults: list[str], notes: list[str]) -> Iterator[Row]:
    """A row for each video with a label beside it; one note for those without."""
    inside = members(path)
    shard = path.relative_to(root).as_posix()
    if not inside:
        faults.append(f"{path}: no tar file that can be read, or an empty one; write it again or remove it")
    unlabelled = 0
    for name, member in inside.items():
        if PurePosixPath(name).suffix.lower() not in SUFFIXES:
            continue
        labels = _labels(path, inside, name)
        unlabelled += not labels
        if unknown := [label for label in labels if names and _named(label, names) is None]:
            faults.append(f"{path}, {name}: label {unknown[0]!r} is not in classes.txt")
        elif labels:
            known = tuple(_named(label, names) or label for label in labels)
            yield Row(f"{shard}#{name}", known, shard, member=(member.offset, member.size))
    if unlabelled:
        notes.append(f"{path}: {unlabelled} videos have no label beside them and are left out")


def _named(label: str, names: list[str]) -> str | None:
    if label in names:
        return label
    return names[int(label)] if label.isdecimal() and int(label) < len(names) else None


def _labels(path: Path, inside: dict[str, Member], name: str) -> list[str]:
    """The labels beside a video, in the order of its file; none where there is no such file."""
    for suffix in LABEL_SUFFIXES:
        member = inside.get(str(PurePosixPath(name).with_suffix(suffix)))
        if member is not None and member.size <= LABEL_BYTES:
            with path.open("rb") as file:
                file.seek(member.offset)
                text = file.read(member.size).decode("utf-8", "replace").strip()
            found = _json_labels(text) if suffix == ".json" else [text]
            return list(dict.fromkeys(str(label).strip() for label in found if str(label).strip()))
    return []


def _json_labels(text: str) -> list[Any]:
    """A number, a name, a list of them, or a record with one of the usual fields."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return []
    if isinstance(content, dict):
        content = next((content[field] for field in LABEL_FIELDS if field in content), [])
    return content if isinstance(content, list) else [content]


def _shards(root: Path) -> list[Path]:
    """Tar files in the root and in folders of splits."""
    places = [root, *(folder for folder in folders_in(root) if split_of(folder.name))]
    return [path for place in places for path in sorted(place.glob("*.tar")) if path.is_file()]


def _fits(root: Path) -> bool:
    """Tar files, and no folder with videos: those are the data set then."""
    return bool(_shards(root)) and not any("/" in name for name in walk(root))


SHARDS = Layout("tar shards", _fits, list_shards)
