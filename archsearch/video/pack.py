"""Pack once, train many: a data set decoded into one file of raw frames that processes share by memory map.

    packs/<digest>-<short side>-v1/frames.u8     the frames of all videos, uint8 (t, h, w, 3), one after another
    packs/<digest>-<short side>-v1/index.json    names, labels and sizes, by split; the videos that are broken
    packs/.../flow-<method>-<bound>/frames.u8    optical flow, uint8 (t, h, w, 2), of the same videos in the same order

A folder is built beside under a hidden name and renamed, so a folder of that name is whole (see `packing`). Flow lies
inside the pack that it is made of, and goes with it.
"""

import contextlib
import fcntl
import math
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from archsearch.errors import DataError, VideoError
from archsearch.files import plain
from archsearch.video.children import decode_all, flow_of_all
from archsearch.video.dataset import Dataset, digest
from archsearch.video.flow import Method, default_bound, need_opencv
from archsearch.video.packing import FRAMES, Finished, Index, Work, build, bytes_of, index_of, read_index
from archsearch.video.sources import Source, source_of

FORMAT = "v1"


@dataclass(frozen=True, eq=False)
class PackedSplit:
    """The usable videos of one split.

    `names[i]`, `labels[i]` (int64), `sizes[i]` = (t, h, w) and `offsets[i]`, in bytes, describe video i.
    `source` is the file of frames; it is mapped on first use, in each process anew, so a split pickles small.
    `label_sets[i]` has all labels of video i, the first first; it is empty in a data set of one label a video.
    `flow` is the file of optical flow, where the pack was opened with it.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    sizes: np.ndarray
    offsets: np.ndarray
    source: Path
    label_sets: tuple[tuple[int, ...], ...] = ()
    flow: Path | None = None

    def __len__(self) -> int:
        return len(self.names)

    def labels_of(self, i: int) -> tuple[int, ...]:
        """Every label of video i."""
        return self.label_sets[i] if self.label_sets else (int(self.labels[i]),)

    def frames(self, i: int) -> np.ndarray:
        """Video i as a read-only uint8 view (t, h, w, 3) of the file; nothing is read until it is touched."""
        return self._read(self.source, i, 3)

    def fields(self, i: int) -> np.ndarray:
        """The optical flow of video i, a view (t, h, w, 2): u and v from each frame to the next (see `flow`).

        Raises DataError where the pack was opened without.
        """
        if self.flow is None:
            raise DataError(f"{self.names[i]}: the pack was opened without optical flow; see open_flow")
        return self._read(self.flow, i, 2)

    def _read(self, file: Path, i: int, channels: int) -> np.ndarray:
        t, h, w = self.sizes[i].tolist()
        start = int(self.offsets[i]) // 3 * channels
        return _mapped(file)[start : start + t * h * w * channels].reshape(t, h, w, channels)


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
    multi_label: bool = False,
) -> Pack:
    """The pack of `dataset` with frames of `short_side` pixels; built where the cache has none.

    `cache` is a folder, else $ARCHSEARCH_CACHE, $XDG_CACHE_HOME/archsearch or ~/.cache/archsearch. Of several
    processes one builds and the others wait. `report(done, total)` is called after each video while building.
    Broken videos are left out up to a share of `max_broken`, another share needs no other pack. An interrupted build
    goes on with the next call.
    `multi_label` says that the caller knows what to do with several labels a video.

    Raises DataError for too many broken videos, a class or split without a usable one, a disk that fails, and
    several labels a video where the caller expects one.
    """
    if dataset.multi_label and not multi_label:
        raise DataError(
            f"{dataset.root}: videos have several labels: set `loss: binary` in the recipe, or list one label a video"
        )
    content = digest(dataset)
    folder = _pack_folder(content, short_side, cache)
    index = read_index(folder)
    if index is None:
        work = _decoding(dataset, content, short_side)
        index = _built(folder, lambda: build(work, folder, report))
    _check_usable(dataset, index, max_broken)
    return _as_pack(folder, index)


def _decoding(dataset: Dataset, content: str, short_side: int) -> Work:
    videos = [(split, video) for split, members in dataset.splits.items() for video in members]
    sources = [source_of(video) for _, video in videos]

    named = [(split, video.name) for split, video in videos]
    index = partial(index_of, dataset, content)
    return Work(named, 3, lambda first: decode_all(sources[first:], short_side), index)


def open_flow(
    pack: Pack, method: Method, bound: float | None = None, report: Callable[[int, int], None] | None = None
) -> Pack:
    """The same pack with the optical flow of every video, computed where the pack's folder has none.

    `bound` is the displacement in packed pixels that fills a byte; by default 20 at a short side of 256, in
    proportion. It is built as a pack is: once, by one of several processes, and from where an interruption left it.
    Raises MissingExtra without OpenCV, DataError for a disk that fails, VideoError for a video whose flow fails; the
    next call goes on there.
    """
    splits = pack.splits.values()
    side = min(int(split.sizes[:, 1:].min()) for split in splits if len(split))
    bound = default_bound(side) if bound is None else bound
    folder = next(iter(splits)).source.parent / f"flow-{method}-{bound:.9g}"
    if read_index(folder) is None:
        need_opencv()
        work = _flowing(pack, method, bound)
        _built(folder, lambda: build(work, folder, report))
    with_flow = {name: replace(split, flow=folder / FRAMES) for name, split in pack.splits.items()}
    return replace(pack, splits=with_flow)


def _flowing(pack: Pack, method: Method, bound: float) -> Work:
    videos = [(name, number) for name, split in pack.splits.items() for number in range(len(split))]

    def request(name: str, number: int) -> tuple[Source, Any]:
        split = pack.splits[name]
        size = [*split.sizes[number].tolist(), 3]
        part = int(split.offsets[number]), math.prod(size)
        return Source(split.source, split.names[number], member=part), (size, method, bound)

    def make(first: int) -> Generator[np.ndarray, None, None]:
        with closing(flow_of_all([request(*video) for video in videos[first:]])) as answers:
            for answer in answers:
                if isinstance(answer, VideoError):
                    raise answer
                yield answer

    def index(finished: Sequence[Finished]) -> Index:
        return {"method": method, "bound": bound, "bytes": sum(bytes_of(entry, 2) for entry in finished)}

    return Work([(name, pack.splits[name].names[number]) for name, number in videos], 2, make, index)


def _built(folder: Path, build: Callable[[], Index]) -> Index:
    """The index of a pack that this process builds, or waits for. Raises DataError for a disk that fails."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(folder.name + ".lock")):
            return read_index(folder) or build()
    except OSError as fault:
        reason = fault.strerror or str(fault)
        raise DataError(
            f"{folder}: the pack cannot be written ({reason}); free some space there or set "
            "ARCHSEARCH_CACHE to another folder"
        ) from None


def remarks(dataset: Dataset, pack: Pack) -> tuple[str, ...]:
    """What to tell the user: how the data set was read, and which videos are broken and left out."""
    if not pack.broken:
        return tuple(map(plain, dataset.notes))
    total = sum(len(videos) for videos in dataset.splits.values())
    count = f"{dataset.root}: {len(pack.broken)} of {total} videos are broken and left out"
    return (*map(plain, dataset.notes), plain(count), *(plain(f"left out: {reason}") for _, reason in pack.broken))


def kept_pack(content: str, short_side: int, cache: Path | None = None) -> Pack | None:
    """This machine's pack of the data set whose digest is `content`, or None; its files are not looked at."""
    folder = _pack_folder(content, short_side, cache)
    index = read_index(folder)
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
    train = index["splits"].get("train", {"labels": ()})
    trained = {*train["labels"], *(label for labels in train.get("label_sets", ()) for label in labels)}
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
            source=folder / FRAMES,
            label_sets=tuple(tuple(labels) for labels in entry.get("label_sets", ())),
        )
        for split, entry in index["splits"].items()
    }
    broken = tuple((name, reason) for name, reason in index["broken"])
    return Pack(tuple(index["classes"]), index["digest"], splits, broken)


@lru_cache(maxsize=16)
def _mapped(path: Path) -> np.ndarray:
    """The file as one uint8 array, mapped once a process; a plain array, as slicing a memmap object is slow."""
    return np.asarray(np.memmap(path, np.uint8, mode="r"))
