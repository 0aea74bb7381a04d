"""A data set looked at as a whole: every clip is read once, and what is wrong or odd about it is told."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from archsearch.errors import DataError, VideoError
from archsearch.files import write_whole
from archsearch.video.children import facts_of_all
from archsearch.video.dataset import Dataset, Video
from archsearch.video.facts import Facts
from archsearch.video.layouts.lists import parse_line
from archsearch.video.sources import Source, part_of, source_of

MIN_FRAMES = 8
FEW = 10  # videos of a class in train
EXTREME_ASPECT = 4.0
TINY_SIDE = 32  # pixels
KEPT_FIRST = ("test", "val", "train")  # of equal videos; what is scored on stays as it is


@dataclass(frozen=True)
class Read:
    """One clip of a split: its facts, or the reason why it is broken."""

    split: str
    video: Video
    facts: Facts | None
    reason: str = ""


@dataclass(frozen=True)
class Leak:
    """Clips of several splits that have something in common, as `why` says."""

    why: str
    reads: tuple[Read, ...]


@dataclass(frozen=True)
class Check:
    """What reading every clip of a data set gave; each property is one kind of finding, in the order of the data."""

    dataset: Dataset
    reads: tuple[Read, ...]
    min_frames: int

    @cached_property
    def broken(self) -> tuple[Read, ...]:
        """Cannot be read, for a reason."""
        return tuple(read for read in self.reads if read.facts is None)

    @cached_property
    def short(self) -> tuple[Read, ...]:
        """Fewer frames than `min_frames`."""
        return self._where(lambda facts: facts.frames < self.min_frames)

    @cached_property
    def usable(self) -> tuple[Read, ...]:
        """Neither broken nor short."""
        return self._where(lambda facts: facts.frames >= self.min_frames)

    @cached_property
    def odd(self) -> tuple[Read, ...]:
        """A long side more than four times the short one, or a short side below 32 pixels."""
        return self._where(_is_odd)

    @cached_property
    def rotated(self) -> tuple[Read, ...]:
        """A turn is stored beside the pixels; it is applied when they are read."""
        return self._where(lambda facts: facts.turns != 0)

    @cached_property
    def variable(self) -> tuple[Read, ...]:
        """Frames come at uneven times."""
        return self._where(lambda facts: facts.variable)

    @cached_property
    def duplicates(self) -> tuple[tuple[Read, ...], ...]:
        """Clips of one split with equal frames."""
        groups = _grouped((read.split, read.facts.content) for read in self.reads if read.facts)
        readable = [read for read in self.reads if read.facts]
        return tuple(tuple(readable[i] for i in group) for group in groups if len(group) > 1)

    @cached_property
    def leaks(self) -> tuple[Leak, ...]:
        """Clips of several splits with equal frames, of one file, or with one name that is no number alone."""
        kinds: tuple[tuple[str, Callable[[Read], object]], ...] = (
            ("same content", lambda read: read.facts and read.facts.content),
            ("same file", lambda read: _origin(read.video) if read.video.member is None else None),
            ("same name", lambda read: _telling_stem(read.video)),
        )
        found: list[Leak] = []
        told: set[frozenset[int]] = set()
        for why, key in kinds:
            for group in _grouped(key(read) for read in self.reads):
                clips = frozenset(group)
                if len({self.reads[i].split for i in group}) > 1 and not any(clips <= known for known in told):
                    told.add(clips)
                    found.append(Leak(why, tuple(self.reads[i] for i in group)))
        return tuple(found)

    @cached_property
    def balance(self) -> Mapping[str, Mapping[str, int]]:
        """Usable videos by class and split; a video with several labels counts for each."""
        counted = {name: dict.fromkeys(self.dataset.splits, 0) for name in self.dataset.classes}
        for read in self.usable:
            for label in read.video.labels or (read.video.label,):
                counted[self.dataset.classes[label]][read.split] += 1
        return counted

    @cached_property
    def few(self) -> tuple[str, ...]:
        """Classes with fewer than 10 usable videos in train."""
        return tuple(name for name, counts in self.balance.items() if counts.get("train", 0) < FEW)

    def _where(self, holds: Callable[[Facts], bool]) -> tuple[Read, ...]:
        return tuple(read for read in self.reads if read.facts is not None and holds(read.facts))


def check_dataset(
    dataset: Dataset, min_frames: int = MIN_FRAMES, report: Callable[[int, int], None] | None = None
) -> Check:
    """Read every clip once, in as many processes as there are cores; `report(done, total)` counts clips.

    Raises DataError where no clip is usable.
    """
    listed = [(split, video) for split, videos in dataset.splits.items() for video in videos]
    sources: dict[tuple[object, ...], Source] = {_key(video): source_of(video) for _, video in listed}
    found: dict[tuple[object, ...], Facts | VideoError] = {}
    with closing(facts_of_all(list(sources.values()))) as reading:
        for done, (key, answer) in enumerate(zip(sources, reading, strict=True), start=1):
            found[key] = answer if isinstance(answer, VideoError) else Facts(**answer)
            if report is not None:
                report(done, len(sources))
    check = Check(dataset, tuple(_read(split, video, found[_key(video)]) for split, video in listed), min_frames)
    if not check.usable:
        reasons = " | ".join(read.reason for read in check.broken[:3]) or f"all have less than {min_frames} frames"
        raise DataError(f"{dataset.root}: none of {len(check.reads)} videos is usable: {reasons}")
    return check


def write_clean(check: Check, out: Path) -> tuple[str, ...]:
    """Write train.csv, val.csv, test.csv and classes.txt of the usable videos to a new folder; gives remarks.

    Of videos with equal frames one stays, that of test before val before train; classes without a video in train
    go. Paths are absolute. Raises DataError for a folder that holds something, and where train gets empty.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: exists and is not empty; name a new folder")
    kept = _without_repeats(check.usable)
    names = check.dataset.classes
    trained = {label for read in kept if read.split == "train" for label in _labels(read.video)}
    classes = [label for label in range(len(names)) if label in trained]
    if not classes:
        raise DataError(f"{out}: train has no usable video, so there is no list; add videos to it")
    number = {label: place for place, label in enumerate(classes)}
    lines: dict[str, list[str]] = {split: [] for split in check.dataset.splits}
    unwritten = 0
    for read in kept:
        line = _line(read.video, number, out)
        lines[read.split] += [] if line is None else [line]
        unwritten += line is None
    for split, listed in lines.items():
        if listed:
            write_whole(out / f"{split}.csv", "\n".join([*listed, ""]))
    write_whole(out / "classes.txt", "\n".join([*(names[label] for label in classes), ""]))
    left = len(check.reads) - sum(map(len, lines.values()))
    remarks = [f"{out}: {sum(map(len, lines.values()))} videos are listed, {left} are left out"]
    if unwritten:
        remarks.append(f"{out}: {unwritten} of those have no class left in train, or a name that no list can hold")
    return tuple(remarks)


def _without_repeats(usable: Iterable[Read]) -> list[Read]:
    """The first of each content, by split in the order of `KEPT_FIRST`; in the order of the data."""
    reads = list(usable)
    first: dict[str, Read] = {}
    for read in sorted(reads, key=lambda read: KEPT_FIRST.index(read.split)):
        assert read.facts is not None
        first.setdefault(read.facts.content, read)
    return [read for read in reads if read.facts and first[read.facts.content] is read]


def _line(video: Video, number: Mapping[int, int], out: Path) -> str | None:
    """A line that reads back as this video and its labels, or None."""
    labels = ",".join(str(number[label]) for label in _labels(video) if label in number)
    path = os.path.abspath(video.path) + part_of(video)
    return f"{path} {labels}" if labels and parse_line(f"{path} {labels}", out) == (path, labels) else None


def _read(split: str, video: Video, found: Facts | VideoError) -> Read:
    return Read(split, video, None, found.lines[0]) if isinstance(found, VideoError) else Read(split, video, found)


def _labels(video: Video) -> tuple[int, ...]:
    return video.labels or (video.label,)


def _key(video: Video) -> tuple[object, ...]:
    return video.path, video.span, video.member


def _origin(video: Video) -> str:
    return os.path.realpath(video.path)


def _telling_stem(video: Video) -> str | None:
    """The file's name without folders and suffix; None for a number, as numbering starts anew everywhere."""
    name = part_of(video)[1:] if video.member is not None else video.path.name
    stem = PurePosixPath(name).stem
    return stem.lower() if any(letter.isalpha() for letter in stem) else None


def _grouped(keys: Iterable[object]) -> list[list[int]]:
    """The places of each key that comes more than once; None is no key."""
    places: defaultdict[object, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        if key is not None:
            places[key].append(place)
    return [group for group in places.values() if len(group) > 1]


def _is_odd(facts: Facts) -> bool:
    sides = sorted((facts.height, facts.width))
    return sides[0] < TINY_SIDE or sides[1] > EXTREME_ASPECT * sides[0]


def sizes_of(check: Check) -> Counter[tuple[int, int]]:
    """Readable videos by upright (width, height)."""
    return Counter((read.facts.width, read.facts.height) for read in check.reads if read.facts)
