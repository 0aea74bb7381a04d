"""Pack once, train many: a data set decoded into one file of raw frames that processes share by memory map.

    packs/<digest>-<short side>-v1/frames.u8     the frames of all videos, uint8 (t, h, w, 3), one after another
    packs/<digest>-<short side>-v1/index.json    names, labels and sizes, by split; the videos that are broken

The folder is built beside under a temporary name and renamed, so a folder of that name is whole.
"""

import contextlib
import fcntl
import json
import os
import platform
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from archsearch.errors import DataError, VideoError
from archsearch.video.dataset import Dataset, Video, digest
from archsearch.video.decode import decode

FORMAT = "v1"
Index = dict[str, Any]


@dataclass(frozen=True, eq=False)
class PackedSplit:
    """The usable videos of one split.

    `names[i]`, `labels[i]` (int64), `sizes[i]` = (t, h, w) and `offsets[i]`, in bytes, describe video i.
    `source` is the file of frames; it is mapped on first use, in each process anew, so a split pickles small.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    sizes: np.ndarray
    offsets: np.ndarray
    source: Path

    def __len__(self) -> int:
        return len(self.names)

    def frames(self, i: int) -> np.ndarray:
        """Video i as a read-only uint8 view (t, h, w, 3) of the file; nothing is read until it is touched."""
        t, h, w = (int(side) for side in self.sizes[i])
        start = int(self.offsets[i])
        return _mapped(self.source)[start : start + t * h * w * 3].reshape(t, h, w, 3)


@dataclass(frozen=True, eq=False)
class Pack:
    """A packed data set. `broken` holds (name, reason) of each video that was left out."""

    classes: tuple[str, ...]
    digest: str
    splits: Mapping[str, PackedSplit]
    broken: tuple[tuple[str, str], ...]


def open_pack(
    dataset: Dataset,
    short_side: int,
    cache: Path | None = None,
    max_broken: float = 0.1,
    report: Callable[[int, int], None] | None = None,
) -> Pack:
    """The pack of `dataset` with frames of `short_side` pixels; built where the cache has none.

    `cache` is a folder, else $ARCHSEARCH_CACHE, $XDG_CACHE_HOME/archsearch or ~/.cache/archsearch. Of several
    processes one builds and the others wait. `report(done, total)` is called after each video while building.
    Broken videos are left out up to a share of `max_broken`.

    Raises DataError for too many broken videos, a class or split without a usable one, and a disk that fails.
    """
    content = digest(dataset)
    folder = _pack_folder(content, short_side, cache)
    index = _read_index(folder)
    if index is None:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _locked(folder.with_name(folder.name + ".lock")):
                index = _read_index(folder)
                if index is None:
                    index = _build(dataset, content, short_side, folder, max_broken, report)
        except OSError as fault:
            reason = fault.strerror or str(fault)
            raise DataError(
                f"{folder}: the pack cannot be written ({reason}); free some space there or set "
                "ARCHSEARCH_CACHE to another folder"
            ) from None
    _check_usable(dataset, index, max_broken)
    return _as_pack(folder, index)


def remarks(dataset: Dataset, pack: Pack) -> tuple[str, ...]:
    """What to tell the user: how the data set was read, and which videos are broken and left out."""
    if not pack.broken:
        return dataset.notes
    total = sum(len(videos) for videos in dataset.splits.values())
    count = f"{dataset.root}: {len(pack.broken)} of {total} videos are broken and left out"
    return (*dataset.notes, count, *(f"left out: {reason}" for _, reason in pack.broken))


def kept_pack(content: str, short_side: int, cache: Path | None = None) -> Pack | None:
    """This machine's pack of the data set whose digest is `content`, or None; its files are not looked at."""
    folder = _pack_folder(content, short_side, cache)
    index = _read_index(folder)
    return None if index is None else _as_pack(folder, index)


def _pack_folder(content: str, short_side: int, cache: Path | None) -> Path:
    return cache_folder(cache) / "packs" / f"{content}-{short_side}-{FORMAT}"


def cache_folder(cache: Path | None = None) -> Path:
    """Where packs are kept: `cache`, or what the environment says, or ~/.cache/archsearch."""
    if cache is not None:
        return Path(cache)
    if os.environ.get("ARCHSEARCH_CACHE"):
        return Path(os.environ["ARCHSEARCH_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "archsearch"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock `path` against other processes; the system frees it when its holder dies."""
    with path.open("w") as file:
        # A file system without locks costs double work at worst: the rename decides who wins.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read_index(folder: Path) -> Index | None:
    """The index of a whole pack, or None."""
    try:
        index: Index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        whole = (folder / "frames.u8").stat().st_size == index["bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return index if whole else None


def _build(
    dataset: Dataset,
    content: str,
    short_side: int,
    folder: Path,
    max_broken: float,
    report: Callable[[int, int], None] | None,
) -> Index:
    """Decode everything into a temporary folder, check it, and rename it to `folder`."""
    # Left behind by a killed process of this machine: we hold the lock, so nobody writes there any more.
    prefix = f".{folder.name}.{platform.node()}."
    for left in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    temporary = folder.with_name(f"{prefix}{os.getpid()}")
    temporary.mkdir()
    try:
        with (temporary / "frames.u8").open("wb") as file:
            index = _write_frames(dataset, content, short_side, file, report)
            _sync(file)
        _check_usable(dataset, index, max_broken)
        with (temporary / "index.json").open("wb") as file:
            file.write(json.dumps(index).encode())
            _sync(file)
        _rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return index


def _write_frames(
    dataset: Dataset,
    content: str,
    short_side: int,
    file: BinaryIO,
    report: Callable[[int, int], None] | None,
) -> Index:
    """Append the frames of all videos in the order of the data set; the index describes them."""
    index: Index = {
        "classes": list(dataset.classes),
        "digest": content,
        "splits": {},
        "broken": [],
        "bytes": 0,
    }
    videos = [(split, video) for split, members in dataset.splits.items() for video in members]
    for split in dataset.splits:
        index["splits"][split] = {"names": [], "labels": [], "sizes": [], "offsets": []}
    pictures = _decode_in_order([video for _, video in videos], short_side)
    for done, ((split, video), frames) in enumerate(zip(videos, pictures, strict=True), start=1):
        if isinstance(frames, VideoError):
            index["broken"].append([video.name, frames.lines[0]])
        else:
            entry = index["splits"][split]
            entry["names"].append(video.name)
            entry["labels"].append(video.label)
            entry["sizes"].append(list(frames.shape[:3]))
            entry["offsets"].append(index["bytes"])
            file.write(frames.data)
            index["bytes"] += frames.nbytes
        if report is not None:
            report(done, len(videos))
    return index


def _decode_in_order(videos: Sequence[Video], short_side: int) -> Iterator[np.ndarray | VideoError]:
    """Frames or the fault of each video, in order; decoded by threads a few videos ahead, never all at once."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = ThreadPoolExecutor(cores)
    ahead: deque[Future[np.ndarray | VideoError]] = deque()
    try:
        for video in videos:
            ahead.append(threads.submit(_decode_or_fault, video.path, short_side))
            if len(ahead) > 2 * cores:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def _decode_or_fault(path: Path, short_side: int) -> np.ndarray | VideoError:
    try:
        return decode(path, short_side)
    except VideoError as fault:
        return fault


def _sync(file: BinaryIO) -> None:
    """Reach the disk before the rename does, or a power cut could leave a whole name with holes inside."""
    file.flush()
    os.fsync(file.fileno())


def _rename(temporary: Path, folder: Path) -> None:
    """Give a finished pack its name, in place of a damaged one; another machine's whole one stays."""
    if folder.exists() and _read_index(folder) is None:
        shutil.rmtree(folder)
    try:
        temporary.rename(folder)
    except OSError:
        if _read_index(folder) is None:
            raise


def _check_usable(dataset: Dataset, index: Index, max_broken: float) -> None:
    """Raise DataError where too much of the data set is broken."""
    broken: list[list[str]] = index["broken"]
    total = sum(len(videos) for videos in dataset.splits.values())
    if len(broken) > max_broken * total:
        reasons = " | ".join(reason for _, reason in broken[:3])
        raise DataError(
            f"{dataset.root}: {len(broken)} of {total} videos are broken ({len(broken) / total:.0%}, the limit is "
            f"{max_broken:.0%}): {reasons}"
        )
    trained = set(index["splits"].get("train", {"labels": ()})["labels"])
    lines = [
        f"{dataset.root}: class {name!r} has no usable training video; add videos of it or remove the class"
        for label, name in enumerate(index["classes"])
        if label not in trained
    ]
    lines += [
        f"{dataset.root}: split {split} has no usable video; add videos or remove the split"
        for split, entry in index["splits"].items()
        if not entry["names"] and split != "train"
    ]
    if lines:
        raise DataError(*lines)


def _as_pack(folder: Path, index: Index) -> Pack:
    splits = {
        split: PackedSplit(
            names=tuple(entry["names"]),
            labels=np.array(entry["labels"], np.int64),
            sizes=np.array(entry["sizes"], np.int64).reshape(-1, 3),
            offsets=np.array(entry["offsets"], np.int64),
            source=folder / "frames.u8",
        )
        for split, entry in index["splits"].items()
    }
    broken = tuple((name, reason) for name, reason in index["broken"])
    return Pack(tuple(index["classes"]), index["digest"], splits, broken)


@lru_cache(maxsize=16)
def _mapped(path: Path) -> np.ndarray:
    """The file as one uint8 array, mapped once a process; a plain array, as slicing a memmap object is slow."""
    return np.asarray(np.memmap(path, np.uint8, mode="r"))
