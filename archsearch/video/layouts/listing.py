"""What every layout shares: rows of clips by split, where video files lie, and class names."""

import difflib
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from archsearch.video.names import SUFFIXES, is_picture_name, is_video

SPLITS = ("train", "val", "test")
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
SPLIT_WORD = re.compile(rf"(?<![a-z])({'|'.join(sorted(SPLIT_WORDS, key=len, reverse=True))})(?![a-z])", re.I)
# Where published data sets keep their lists, below or beside the videos.
LIST_FOLDERS = (".", "ucfTrainTestlist", "testTrainMulti_7030_splits", "splits", "annotations", "labels", "original")
DEPTH_BESIDE = 4  # folders that are entered below the parent of a folder of lists

Rows = tuple["Row", ...]
Span = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """One clip: its name and class names; `file` is its path where the name is none, from the root or absolute.

    `span` is (start, end) in seconds from the first frame, `member` is (offset, size) in bytes inside the file.
    """

    name: str
    labels: tuple[str, ...]
    file: str = ""
    span: Span | None = None
    member: tuple[int, int] | None = None

    @property
    def label(self) -> str:
        """The first of them."""
        return self.labels[0]


@dataclass(frozen=True)
class Listing:
    """What a layout says: rows by split, its faults, and notes for the user."""

    classes: tuple[str, ...]
    rows: Mapping[str, Rows]
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """What the user decides: the seed of splits that are drawn, and which of several official splits is read."""

    seed: int = 0
    fold: int | None = None


@dataclass(frozen=True)
class Layout:
    """A way to lay a data set out; `fits` looks at names alone and at the heads of lists."""

    name: str
    fits: Callable[[Path], bool]
    read: Callable[[Path, Choice], Listing]
    folds: bool = False


@dataclass(frozen=True)
class Videos:
    """The videos and folders of frames below `base`, as paths from there in POSIX form, sorted."""

    base: Path
    names: tuple[str, ...]

    @cached_property
    def by_stem(self) -> Mapping[str, tuple[str, ...]]:
        """Names by file name without folders and suffix."""
        found: dict[str, list[str]] = {}
        for name in self.names:
            found.setdefault(_stem(name), []).append(name)
        return {stem: tuple(names) for stem, names in found.items()}

    def find(self, stem: str, *near: str) -> str | None:
        """The video with this stem; of several, the one with the most folders named in `near`, then the first."""
        names = self.by_stem.get(stem, ())
        return max(names, key=lambda name: len(set(near) & set(PurePosixPath(name).parts[:-1])), default=None)


def videos_of(root: Path) -> Videos:
    """The videos below `root`; where it holds lists alone, those beside it."""
    for base, depth in ((root, None), (root.resolve().parent, DEPTH_BESIDE)):
        names = tuple(sorted(walk(base, depth)))
        if names:
            return Videos(base, names)
    return Videos(root, ())


def walk(base: Path, depth: int | None = None) -> Iterator[str]:
    """The names of videos and folders of frames below `base`, `depth` folders deep; linked folders are entered once."""
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(base, followlinks=True):
        here = Path(place)
        known = here.stat()
        level = len(here.relative_to(base).parts)
        if (known.st_dev, known.st_ino) in seen or (depth is not None and level > depth):
            folders.clear()
            continue
        seen.add((known.st_dev, known.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        videos = [name for name in files if is_video(here / name)]
        yield from ((here / name).relative_to(base).as_posix() for name in videos)
        if level and not videos and any(is_picture_name(name) for name in files):
            yield here.relative_to(base).as_posix()


def clip_row(videos: Videos, root: Path, name: str, labels: Sequence[str], span: Span | None = None) -> Row:
    """The row of a video of `videos`, or of a stretch of it in seconds; `a.mp4#t=1.5,9` names a stretch.

    The name follows Media Fragments URI 1.0 (W3C 2012), section 4.2.1.
    """
    file = name if videos.base == root else str(videos.base / name)
    return Row(name if span is None else f"{name}#t={span[0]:g},{span[1]:g}", tuple(labels), file, span)


def finish(
    root: Path, said: str, rows: Mapping[str, Iterable[Row]], classes: Sequence[str] = (), notes: Iterable[str] = ()
) -> Listing:
    """The listing of rows as published lists have them.

    A clip with several rows has the labels of all. Without `classes` those of train are taken, sorted. Videos of
    classes that train lacks are left out, as such a list cannot be corrected; a note says so, and `said` which
    layout was read.
    """
    merged = {split: _merged(rows.get(split, ())) for split in SPLITS}
    trained = {label for row in merged["train"] for label in row.labels}
    if not trained:
        return Listing((), {}, (f"{root}: {said}, but none of their training videos is there; put them beside",))
    kept = {split: tuple(_known(listed, trained)) for split, listed in merged.items()}
    lost = sum(len(merged[split]) - len(kept[split]) for split in SPLITS)
    untrained = sorted({label for listed in merged.values() for row in listed for label in row.labels} - trained)
    remarks = [f"{root}: {said}", *notes]
    if untrained:
        some = f"{len(untrained)} classes have no training video, such as {untrained[0]!r}"
        remarks.append(f"{root}: {some}; {lost} videos of them alone are left out")
    ordered = tuple(name for name in classes if name in trained) or tuple(sorted(trained, key=numbers_first))
    return Listing(ordered, kept, (), (*remarks, *missing_splits(root, kept)))


def _merged(rows: Iterable[Row]) -> list[Row]:
    """One row for each name, with the labels of all rows of it in their order."""
    merged: dict[str, Row] = {}
    for row in rows:
        before = merged.get(row.name)
        labels = row.labels if before is None else tuple(dict.fromkeys((*before.labels, *row.labels)))
        merged[row.name] = replace(row, labels=labels)
    return list(merged.values())


def _known(rows: Iterable[Row], trained: set[str]) -> Iterator[Row]:
    for row in rows:
        labels = tuple(label for label in row.labels if label in trained)
        if labels:
            yield row if labels == row.labels else replace(row, labels=labels)


def absent(root: Path, missing: Sequence[str], listed: int) -> list[str]:
    """One note for all videos that are listed and not there."""
    if not missing:
        return []
    return [f"{root}: {len(missing)} of {listed} listed videos are not there, such as {missing[0]}"]


def take_val(rows: Iterable[Row], group: Callable[[Row], str], seed: int) -> tuple[list[Row], list[Row], list[str]]:
    """(train, val, groups of val): groups by lot until val has a fifth of the rows, no group in both."""
    train = list(rows)
    size: dict[str, int] = {}
    for row in train:
        size[group(row)] = size.get(group(row), 0) + 1
    drawn: list[str] = []
    for name in sorted(size, key=lambda name: lot(seed, name))[:-1]:
        if sum(size[chosen] for chosen in drawn) + size[name] / 2 <= len(train) / 5:
            drawn.append(name)
    chosen = set(drawn)
    val = [row for row in train if group(row) in chosen]
    return [row for row in train if group(row) not in chosen], val, sorted(drawn)


def listed_in(root: Path, *patterns: str) -> list[Path]:
    """The files of any of the glob patterns in the first usual place of lists that has some, sorted."""
    for name in LIST_FOLDERS:
        found = sorted({path for pattern in patterns for path in (root / name).glob(pattern) if path.is_file()})
        if found:
            return found
    return []


def split_of(name: str) -> str | None:
    """The split that a name speaks of, as `kinetics_validate.csv` of val; the last word counts."""
    words = SPLIT_WORD.findall(name)
    return SPLIT_WORDS[words[-1].lower()] if words else None


def text_lines(path: Path, faults: list[str]) -> list[str]:
    """The lines of a UTF-8 file; none, and a fault, where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        faults.append(f"{path}: not UTF-8 text; save it again as UTF-8")
    except OSError as fault:
        faults.append(f"{path}: cannot be read ({fault.strerror}); correct its permissions")
    return []


def read_class_names(path: Path, faults: list[str]) -> list[str]:
    """One class name a line; none where there is no such file, a fault for each that is listed twice."""
    names = [line.strip() for line in text_lines(path, faults) if line.strip()] if path.is_file() else []
    repeated = sorted({name for name in names if names.count(name) > 1})
    faults += [f"{path}: class {name!r} is listed twice; keep one line" for name in repeated]
    return names


def unlisted(places: Mapping[str, str], classes: Sequence[str], file: str) -> list[str]:
    """A fault for each class of a list, at the place where it stands first, that a file of classes with lines lacks."""
    return [
        f"{place}: class {label!r} is not in {file}{near(label, classes)}"
        for label, place in places.items()
        if classes and label not in classes
    ]


def missing_splits(root: Path, rows: Mapping[str, Rows]) -> Iterator[str]:
    """A note for each of val and test that has no rows."""
    for split, use in (("val", "a search selects on it"), ("test", "final scores are taken on it")):
        if not rows.get(split):
            yield f"{root}: no {split} split; {use}"


def folders_in(folder: Path) -> list[Path]:
    """Folders directly in `folder`, sorted, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def near(name: str, known: Sequence[str]) -> str:
    """The end of a fault about an unknown name: the nearest known one, or what is known."""
    closest = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {closest[0]!r}?" if closest else f"; known are {', '.join(known[:10])}"


def lot(seed: int, name: str) -> str:
    """A video's lot depends on its own name only, so that adding a video moves few of the others."""
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()


def numbers_first(label: str) -> tuple[bool, int, str]:
    """Numbers in the order of numbers, then names."""
    return not label.isdecimal(), int(label) if label.isdecimal() else 0, label


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in SUFFIXES else path.name
