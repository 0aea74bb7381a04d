"""UCF101 (Soomro et al. 2012) and HMDB51 (Kuehne et al. 2011): three official splits of train and test each."""

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from archsearch.video.layouts.listing import (
    Choice,
    Layout,
    Listing,
    Row,
    Videos,
    absent,
    clip_row,
    finish,
    listed_in,
    take_val,
    text_lines,
    unlisted,
    videos_of,
)

UCF_GROUP = re.compile(r"_g(\d+)_c\d+", re.I)
HMDB_LIST = re.compile(r"(?P<label>.+)_test_split(?P<fold>\d+)\.txt")
HMDB_SPLITS = {"1": "train", "2": "test"}  # 0 is in neither


def list_ucf(root: Path, choice: Choice) -> Listing:
    """trainlist01.txt and testlist01.txt, or of another split; val is taken out of train by groups g01 to g25.

    A group is one person or scene, so none is in both. A class is a folder, and those of train stand in classInd.txt.
    """
    fold, faults, folder = choice.fold or 1, list[str](), _beside(root, "classInd.txt")
    labelled: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    trained: dict[str, str] = {}
    for split, pairs in labelled.items():
        path = folder / f"{split}list{fold:02d}.txt"
        for number, line in _lines(path, faults):
            file = line.rsplit(maxsplit=1)[0] if split == "train" else line
            pairs.append((PurePosixPath(file).parent.name, file))
            if split == "train":
                trained.setdefault(pairs[-1][0], f"{path}, line {number}")
    order = [line.split(maxsplit=1)[-1] for _, line in _lines(folder / "classInd.txt", faults)]
    faults += unlisted(trained, order, "classInd.txt")
    if faults:
        return Listing((), {}, tuple(faults))
    return _finish(root, f"UCF101 split {fold}", labelled, order, _ucf_group, choice.seed)


def list_hmdb(root: Path, choice: Choice) -> Listing:
    """`<class>_test_split1.txt`, or of another split: 1 is train, 2 is test, 0 is neither.

    Val is taken out of train by films, the part of a name before its class.
    """
    fold, faults = choice.fold or 1, list[str]()
    labelled: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    for path in listed_in(root, f"*_test_split{fold}.txt"):
        match = HMDB_LIST.fullmatch(path.name)
        for number, line in _lines(path, faults):
            name, _, mark = line.rpartition(" ")
            if match is None or not name or mark not in ("0", "1", "2"):
                faults.append(f"{path}, line {number}: {line!r} is no `name 0`, `name 1` or `name 2`")
            elif mark in HMDB_SPLITS:
                labelled[HMDB_SPLITS[mark]].append((match["label"], name.strip()))
    if faults or not any(labelled.values()):
        return Listing((), {}, tuple(faults) or (f"{root}: no list *_test_split{fold}.txt; give another split",))
    return _finish(root, f"HMDB51 split {fold}", labelled, (), _hmdb_group, choice.seed)


def _finish(
    root: Path,
    name: str,
    labelled: dict[str, list[tuple[str, str]]],
    classes: list[str] | tuple[()],
    group: Callable[[Row], str],
    seed: int,
) -> Listing:
    """The listing of (class, file) pairs of train and test, with a val out of train."""
    videos, missing = videos_of(root), list[str]()
    rows: dict[str, list[Row]] = {split: [] for split in labelled}
    for split, pairs in labelled.items():
        for label, file in pairs:
            row = _row(root, videos, label, file)
            rows[split] += [] if row is None else [row]
            missing += [file] if row is None else []
    rows["train"], rows["val"], groups = take_val(rows["train"], group, seed)
    notes = absent(root, missing, sum(map(len, labelled.values())))
    if groups:
        some = ", ".join(groups[:6]) + (" ..." if len(groups) > 6 else "")
        notes.append(
            f"{root}: it has no val; {len(rows['val'])} videos of train became val, whole groups so that none is in "
            f"both (seed {seed}: {some})"
        )
    return finish(root, f"read as {name}", rows, classes, notes)


def _row(root: Path, videos: Videos, label: str, file: str) -> Row | None:
    path = PurePosixPath(file)
    name = videos.find(path.stem, label, path.parent.name)
    return None if name is None else clip_row(videos, root, name, (label,))


def _ucf_group(row: Row) -> str:
    match = UCF_GROUP.search(row.name)
    return f"g{match[1]}" if match else row.name


def _hmdb_group(row: Row) -> str:
    return PurePosixPath(row.name).stem.split(f"_{row.label}_")[0]


def _lines(path: Path, faults: list[str]) -> list[tuple[int, str]]:
    """(number, line) of every line that is not empty."""
    lines = enumerate(text_lines(path, faults), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def _beside(root: Path, name: str) -> Path:
    """The folder of lists in which a file lies."""
    return next((path.parent for path in listed_in(root, name)), root)


UCF101 = Layout(
    "UCF101 lists",
    lambda root: bool(listed_in(root, "classInd.txt")) and bool(listed_in(root, "trainlist*.txt")),
    list_ucf,
    folds=True,
)
HMDB51 = Layout("HMDB51 lists", lambda root: bool(listed_in(root, "*_test_split[0-9]*.txt")), list_hmdb, folds=True)
