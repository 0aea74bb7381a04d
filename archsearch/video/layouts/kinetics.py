"""Kinetics (Kay et al. 2017): csv files of label, youtube_id, time_start, time_end, split."""

import csv
from collections.abc import Iterator
from pathlib import Path

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
    read_class_names,
    split_of,
    unlisted,
    videos_of,
)

COLUMNS = {"label", "youtube_id", "time_start", "time_end"}


def list_kinetics(root: Path, choice: Choice) -> Listing:
    """Rows of the csv files whose video is there, as `<id>_<start>_<end>` of six digits, else a stretch of `<id>`.

    The column `split` beats the name of the file. Rows without a label, as of a test split, are counted. Where there is
    a classes.txt, every class that is trained stands in it.
    """
    videos, faults = videos_of(root), list[str]()
    rows: dict[str, list[Row]] = {}
    trained: dict[str, str] = {}
    missing, unlabelled, listed = list[str](), 0, 0
    for path in _lists(root):
        for number, record in _records(path, faults):
            split = split_of(record.get("split") or "") or split_of(path.stem)
            if split is None:
                faults.append(f"{path}, line {number}: split {record.get('split')!r} is none of train, val, test")
            elif not (record.get("label") or "").strip():
                unlabelled += 1
            else:
                listed += 1
                row = _row(root, videos, record, split, f"{path}, line {number}", faults)
                rows.setdefault(split, []).extend([row] if row else [])
                missing += [] if row else [record["youtube_id"]]
                if row and split == "train":
                    trained.setdefault(row.label, f"{path}, line {number}")
    classes = read_class_names(root / "classes.txt", faults)
    faults += unlisted(trained, classes, "classes.txt")
    notes = absent(root, missing, listed)
    if unlabelled:
        notes.append(f"{root}: {unlabelled} rows have no label and are left out")
    return Listing((), {}, tuple(faults)) if faults else finish(root, "read as Kinetics lists", rows, classes, notes)


def _lists(root: Path) -> list[Path]:
    return [path for path in listed_in(root, "*.csv") if set(_head(path)) >= COLUMNS]


def _head(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [name.strip() for name in next(csv.reader([file.readline(1000)]), [])]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _records(path: Path, faults: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, columns) of every row that has all of them."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            for record in reader:
                if any(record.get(name) is None for name in COLUMNS):
                    faults.append(f"{path}, line {reader.line_num}: {len(record)} columns; a row has {_columns()}")
                else:
                    yield reader.line_num, record
    except (UnicodeDecodeError, csv.Error) as fault:
        faults.append(f"{path}: not a csv file in UTF-8 ({fault}); save it again")


def _row(root: Path, videos: Videos, record: dict[str, str], split: str, place: str, faults: list[str]) -> Row | None:
    """The row of a record whose video is there; times that are none become a fault."""
    label, name = record["label"].strip(), record["youtube_id"].strip()
    try:
        start, end = float(record["time_start"]), float(record["time_end"])
        if not 0 <= start < end < float("inf"):
            raise ValueError
    except ValueError:
        faults.append(f"{place}: {record['time_start']!r} to {record['time_end']!r} is no range of seconds")
        return None
    folders = (label, label.replace(" ", "_"), split)
    cut = videos.find(f"{name}_{int(start):06d}_{int(end):06d}", *folders)
    if cut is not None:
        return clip_row(videos, root, cut, (label,))
    whole = videos.find(name, *folders)
    return None if whole is None else clip_row(videos, root, whole, (label,), (start, end))


def _columns() -> str:
    return ", ".join(("label", "youtube_id", "time_start", "time_end", "split"))


KINETICS = Layout("Kinetics lists", lambda root: bool(_lists(root)), list_kinetics)
