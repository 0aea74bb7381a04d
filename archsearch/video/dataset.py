"""Folders and lists of labelled videos.

Three layouts are read, the first that fits:

    root/train.csv val.csv test.csv     one `path label` a line, and perhaps classes.txt
    root/train/jump/a.mp4               train, val and test hold one folder a class
    root/jump/a.mp4                     one folder a class; split 60/20/20 by seed, as `notes` says
"""

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from archsearch.errors import DataError
from archsearch.video.layouts import SPLITS, Listing, list_class_folders, list_files, list_split_folders

__all__ = ["SPLITS", "Dataset", "Video", "digest", "read_dataset"]

HASHING_THREADS = 8


@dataclass(frozen=True)
class Video:
    """One labelled video file; `name` is its path relative to the root, `label` an index into the classes."""

    path: Path
    name: str
    label: int


@dataclass(frozen=True)
class Dataset:
    """Labelled videos in splits: train, and perhaps val and test. `notes` are sentences for the user."""

    root: Path
    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[Video, ...]]
    notes: tuple[str, ...]


def read_dataset(path: Path, seed: int = 0) -> Dataset:
    """Read the lists or folders of a data set, no video; `seed` splits class folders that have no splits.

    A listed file that does not exist is no fault here: it is a broken video, which packing counts.
    Raises DataError with one line for each fault found.
    """
    root = Path(path)
    if not root.is_dir():
        rule = "a file, not a folder" if root.exists() else "no such folder"
        raise DataError(f"{root}: {rule}; give a folder with train.csv or with class folders")
    try:
        listing = _list(root, seed)
    except OSError as fault:
        raise DataError(f"{fault.filename}: cannot be read ({fault.strerror}); correct its permissions") from None
    if listing.faults:
        raise DataError(*listing.faults)
    number = {name: label for label, name in enumerate(listing.classes)}
    splits = {
        split: tuple(Video(root / name, name, number[label]) for name, label in rows)
        for split, rows in listing.rows.items()
        if rows
    }
    notes = (*listing.notes, *_overlaps(splits))
    return Dataset(root, root.resolve().name, listing.classes, splits, notes)


def _list(root: Path, seed: int) -> Listing:
    if any((root / f"{split}.csv").is_file() for split in SPLITS):
        return list_files(root)
    # A class may be called `train`: a split folder holds folders.
    if any((root / split).is_dir() and any(p.is_dir() for p in (root / split).iterdir()) for split in SPLITS):
        return list_split_folders(root)
    return list_class_folders(root, seed)


def _overlaps(splits: Mapping[str, tuple[Video, ...]]) -> Iterable[str]:
    """One note for each pair of splits that share files."""
    names = {split: {video.name for video in videos} for split, videos in splits.items()}
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = sorted(names.get(first, set()) & names.get(second, set()))
        if shared:
            count, both = len(shared), f"both {first} and {second}"
            yield f"videos in {both}: {count}, such as {shared[0]}; scores on them will flatter"


def digest(dataset: Dataset) -> str:
    """16 hexadecimal characters that change with any class, split, name, label or content of a file."""
    paths = list(dict.fromkeys(video.path for videos in dataset.splits.values() for video in videos))
    with ThreadPoolExecutor(HASHING_THREADS) as threads:
        content = dict(zip(paths, threads.map(_content_hash, paths), strict=True))
    total = hashlib.sha256(repr(dataset.classes).encode())
    for split, videos in sorted(dataset.splits.items()):
        for video in videos:
            total.update(repr((split, video.name, video.label, content[video.path])).encode())
    return total.hexdigest()[:16]


def _content_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as fault:
        return f"unreadable: {type(fault).__name__}"
