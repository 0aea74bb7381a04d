"""Building a pack: make frames, append, keep a journal, rename. What was interrupted goes on where it was.

While it grows, a pack is a hidden folder with frames.u8 and journal.jsonl, a line for each video that is finished, in
the order of the data set. A line is written after the frames, so whatever it tells lies in the file.
"""

import json
import os
import platform
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from archsearch.errors import VideoError
from archsearch.video.dataset import Dataset

FRAMES, INDEX, JOURNAL = "frames.u8", "index.json", "journal.jsonl"
Index = dict[str, Any]
Finished = dict[str, Any]  # {"split", "name"} and {"size": [t, h, w]} or {"fault": reason}


def read_index(folder: Path) -> Index | None:
    """The index of a whole pack, or None."""
    try:
        index: Index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        whole = (folder / FRAMES).stat().st_size == index["bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return index if whole else None


@dataclass(frozen=True)
class Work:
    """What a pack is made of.

    `videos` are (split, name), in order. `make(first)` gives uint8 (t, h, w, channels), or a fault, of each of them
    from number `first` on; it may raise. `index` is what index.json says of what is finished.
    """

    videos: Sequence[tuple[str, str]]
    channels: int
    make: Callable[[int], Generator[np.ndarray | VideoError, None, None]]
    index: Callable[[Sequence[Finished]], Index]


def build(work: Work, folder: Path, report: Callable[[int, int], None] | None) -> Index:
    """Make everything in a hidden folder and rename it to `folder`.

    An interruption or a fault of `make` leaves the hidden folder, and the next build goes on in it; a disk that fails
    removes it. Raises OSError and what `make` raises.
    """
    temporary = _taken_over(folder)
    try:
        with (temporary / FRAMES).open("ab") as file, (temporary / JOURNAL).open("ab") as journal:
            finished = _append_frames(work, file, journal, report)
            _sync(file)
        index = work.index(finished)
        with (temporary / INDEX).open("wb") as file:
            file.write(json.dumps(index).encode())
            _sync(file)
        _rename(temporary, folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(temporary, ignore_errors=True)  # it is still there where another machine was first
    (folder / JOURNAL).unlink(missing_ok=True)
    return index


def _taken_over(folder: Path) -> Path:
    """This process's hidden folder: what a killed one of this machine left behind, or a new one.

    The caller holds the lock, so nobody writes there any more.
    """
    prefix = f".{folder.name}.{platform.node()}."
    temporary = folder.with_name(f"{prefix}{os.getpid()}")
    left = sorted(folder.parent.glob(f"{prefix}*"), key=lambda path: _length(path / FRAMES))
    if left:
        farthest = left.pop()
        if farthest != temporary:
            shutil.rmtree(temporary, ignore_errors=True)
            farthest.rename(temporary)
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    temporary.mkdir(exist_ok=True)
    return temporary


def _append_frames(
    work: Work, file: BinaryIO, journal: BinaryIO, report: Callable[[int, int], None] | None
) -> list[Finished]:
    """Append the frames of all videos that the journal lacks, in order."""
    finished = _resume(work, file, journal)
    rest = work.videos[len(finished) :]
    with closing(work.make(len(finished))) as making:
        for (split, name), frames in zip(rest, making, strict=True):
            entry: Finished = {"split": split, "name": name}
            if isinstance(frames, VideoError):
                entry["fault"] = frames.lines[0]
            else:
                entry["size"] = list(frames.shape[:3])
                file.write(frames.data)
                file.flush()
            journal.write(json.dumps(entry).encode() + b"\n")
            journal.flush()
            finished.append(entry)
            if report is not None:
                report(len(finished), len(work.videos))
    return finished


def _resume(work: Work, file: BinaryIO, journal: BinaryIO) -> list[Finished]:
    """What the journal tells and the file of frames holds; both are cut to it."""
    finished: list[Finished] = []
    frames_end, journal_end = 0, 0
    length = _length(Path(file.name))
    for video, (entry, end) in zip(work.videos, _journal(Path(journal.name)), strict=False):
        after = frames_end + bytes_of(entry, work.channels)
        if (entry.get("split"), entry.get("name")) != video or after > length:
            break
        finished.append(entry)
        frames_end, journal_end = after, end
    file.truncate(frames_end)
    journal.truncate(journal_end)
    return finished


def _journal(path: Path) -> Iterator[tuple[Finished, int]]:
    """(entry, end of its line in bytes) of each whole line."""
    end = 0
    for line in path.read_bytes().splitlines(keepends=True):
        end += len(line)
        try:
            entry = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            return
        if not isinstance(entry, dict):
            return
        yield entry, end


def bytes_of(entry: Finished, channels: int = 3) -> int:
    """What a finished video takes in the file of frames."""
    t, h, w = entry.get("size", (0, 0, 0))
    return int(t * h * w * channels)


def index_of(dataset: Dataset, content: str, finished: Sequence[Finished]) -> Index:
    """What index.json says; the frames lie in the order of `finished`."""
    columns = ["names", "labels", "sizes", "offsets", *(["label_sets"] if dataset.multi_label else [])]
    splits: dict[str, dict[str, list[Any]]] = {split: {name: [] for name in columns} for split in dataset.splits}
    index: Index = {"classes": list(dataset.classes), "digest": content, "splits": splits, "broken": [], "bytes": 0}
    videos = (video for members in dataset.splits.values() for video in members)
    for video, entry in zip(videos, finished, strict=True):
        if "fault" in entry:
            index["broken"].append([video.name, entry["fault"]])
            continue
        row = (video.name, video.label, entry["size"], index["bytes"], list(video.labels))
        for name, value in zip(columns, row, strict=False):
            splits[entry["split"]][name].append(value)
        index["bytes"] += bytes_of(entry)
    return index


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sync(file: BinaryIO) -> None:
    """Reach the disk before the rename does, or a power cut could leave a whole name with holes inside."""
    file.flush()
    os.fsync(file.fileno())


def _rename(temporary: Path, folder: Path) -> None:
    """Give a finished pack its name, in place of a damaged one; another machine's whole one stays."""
    if folder.exists() and read_index(folder) is None:
        shutil.rmtree(folder)
    try:
        temporary.rename(folder)
    except OSError:
        if read_index(folder) is None:
            raise
