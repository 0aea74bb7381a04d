"""Folders and lists of labelled videos; docs/data.md shows every layout that is read, `layouts` in which order."""

import hashlib
import re
import stat
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from archsearch.errors import DataError
from archsearch.files import is_line, shorten
from archsearch.video.layouts import LAYOUTS
from archsearch.video.layouts.listing import SPLITS, Choice, Listing, Row
from archsearch.video.names import frame_files

__all__ = ["SPLITS", "Dataset", "Video", "digest", "read_dataset"]

HASHING_THREADS = 8
BLOCK = 1 << 20  # bytes read at once
FOLD = re.compile(r"(?P<folder>.+)#(?P<fold>\d+)")


@dataclass(frozen=True)
class Video:
    """One labelled clip: a video file, a folder of frames, a stretch of a file, or a file inside a tar file.

    `name` is its own within its split, mostly its path relative to the root; `label` is an index into the classes,
    the first of `labels`, which stays empty in a data set of one label a video. `span` is (start, end) in seconds
    from the first frame, end excluded; `member` is (offset, size) of the video's bytes within `path`.
    """

    path: Path
    name: str
    label: int
    labels: tuple[int, ...] = ()
    span: tuple[float, float] | None = None
    member: tuple[int, int] | None = None


@dataclass(frozen=True)
class Dataset:
    """Labelled videos in splits: train, and perhaps val and test. `notes` are sentences for the user."""

    root: Path
    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[Video, ...]]
    notes: tuple[str, ...]
    multi_label: bool = False


def read_dataset(path: Path, seed: int = 0, fold: int | None = None) -> Dataset:
    """Read the lists or folders of a data set, no video; `seed` draws splits that are not given.

    `fold` is the number of one of several official splits (UCF101, HMDB51); `folder#2` means it too. A listed file
    that does not exist is no fault here: it is a broken video, which packing counts.
    Raises DataError with one line for each fault found.
    """
    root, fold = _folder_and_fold(Path(path), fold)
    if not root.is_dir():
        rule = "a file, not a folder" if root.exists() else "no such folder"
        raise DataError(f"{root}: {rule}; give a folder with train.csv or with class folders")
    try:
        listing = _list(root, seed, fold)
    except OSError as fault:
        raise DataError(f"{fault.filename}: cannot be read ({fault.strerror}); correct its permissions") from None
    faults = [*listing.faults, *(_odd(root, name) for name in listing.classes if not is_line(name))]
    if faults:
        raise DataError(*faults)
    rows = {split: listed for split, listed in listing.rows.items() if listed}
    several = any(len(row.labels) > 1 for listed in rows.values() for row in listed)
    number = {name: label for label, name in enumerate(listing.classes)}
    splits = {
        split: tuple(_video(root, row, [number[name] for name in row.labels], several) for row in listed)
        for split, listed in rows.items()
    }
    notes = (*listing.notes, *_overlaps(splits))
    return Dataset(root, root.resolve().name, listing.classes, splits, notes, several)


def _odd(root: Path, name: str) -> str:
    return f"{root}: class {shorten(name)} is not a line of UTF-8 text, as labels.txt has one for each; rename it"


def _folder_and_fold(path: Path, fold: int | None) -> tuple[Path, int | None]:
    match = None if path.exists() else FOLD.fullmatch(str(path))
    return (path, fold) if match is None else (Path(match["folder"]), int(match["fold"]))


def _list(root: Path, seed: int, fold: int | None) -> Listing:
    layout = next(layout for layout in LAYOUTS if layout.fits(root))
    if fold is not None and not layout.folds:
        raise DataError(f"{root}: read as {layout.name}, which have no split number {fold}; leave it out")
    return layout.read(root, Choice(seed, fold))


def _video(root: Path, row: Row, labels: list[int], several: bool) -> Video:
    path = root / (row.file or row.name)
    return Video(path, row.name, labels[0], tuple(labels) if several else (), row.span, row.member)


def _overlaps(splits: Mapping[str, tuple[Video, ...]]) -> Iterable[str]:
    """One note for each pair of splits that share files."""
    names = {
        split: {video.name if video.span is None else str(video.path) for video in videos}
        for split, videos in splits.items()
    }
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = sorted(names.get(first, set()) & names.get(second, set()))
        if shared:
            count, both = len(shared), f"both {first} and {second}"
            yield f"videos in {both}: {count}, such as {shared[0]}; scores on them will flatter"


def digest(dataset: Dataset) -> str:
    """16 hexadecimal characters that change with any class, split, name, label, span or content of a file."""
    sources = list(dict.fromkeys((video.path, video.member) for videos in dataset.splits.values() for video in videos))
    with ThreadPoolExecutor(HASHING_THREADS) as threads:
        content = dict(zip(sources, threads.map(lambda source: _content_hash(*source), sources), strict=True))
    total = hashlib.sha256(repr(dataset.classes).encode())
    for split, videos in sorted(dataset.splits.items()):
        for video in videos:
            source = content[video.path, video.member]
            total.update(repr((split, video.name, video.label, source)).encode())
            if video.labels or video.span:
                total.update(repr((video.labels, video.span)).encode())
    return total.hexdigest()[:16]


def _content_hash(path: Path, member: tuple[int, int] | None) -> str:
    """What a file, a part of it or a folder of frames holds; whatever cannot be read has no content."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode) and (frames := frame_files(path)):
            total = hashlib.sha256()
            for frame in frames:
                total.update(repr((frame.name, _content_hash(frame, None))).encode())
            return total.hexdigest()
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            return "unreadable: no file"  # opening a pipe waits for its writer
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() if member is None else _part_hash(file, *member)
    except OSError as fault:
        return f"unreadable: {type(fault).__name__}"


def _part_hash(file: BinaryIO, offset: int, size: int) -> str:
    total = hashlib.sha256()
    file.seek(offset)
    while size > 0 and (block := file.read(min(size, BLOCK))):
        total.update(block)
        size -= len(block)
    return total.hexdigest()
