"""train.csv, val.csv and test.csv with one `path label` a line, and perhaps classes.txt."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from archsearch.video.layouts.folders import check_trained
from archsearch.video.layouts.listing import (
    SPLITS,
    Choice,
    Layout,
    Listing,
    Row,
    missing_splits,
    near,
    numbers_first,
    read_class_names,
    text_lines,
)
from archsearch.video.layouts.shards import find_member
from archsearch.video.names import SUFFIXES

SUFFIX_PATTERN = "|".join(suffix[1:] for suffix in SUFFIXES)
SPAN = r"#t=(?P<start>\d+(?:\.\d+)?),(?P<end>\d+(?:\.\d+)?)"
# The path ends at the last video suffix, so both may contain spaces: `my clip.mp4, playing guitar`.
LINE = re.compile(
    rf"""^"?(?P<path>.+\.(?:{SUFFIX_PATTERN})(?:{SPAN})?)"?(?:\s*[,;]\s*|\s+)"?(?P<label>[^"]+?)"?$""", re.I
)
# Any other file name with a suffix, then one word.
OTHER_LINE = re.compile(r"^(?P<path>.*\.\w+)\s*(?:,\s*|\s)(?P<label>[^\s,]+)$")
BETWEEN = re.compile(r"\s*[,;]\s*|\s+")

Entry = tuple[int, str, str]


def list_files(root: Path, choice: Choice) -> Listing:
    """train.csv, val.csv and test.csv, one `path label` a line; `label` is a class name or a number.

    Numbers count the lines of classes.txt from 0 where that file exists, and are class names otherwise. With
    classes.txt a label may be several with commas between. A path may be a folder of frames, a stretch of a video
    in seconds (`a.mp4#t=1.5,9`), or a member of a tar file (`a.tar#member.mp4`).
    """
    faults: list[str] = []
    lines = {
        split: tuple(_read_lines(root / f"{split}.csv", faults))
        for split in SPLITS
        if (root / f"{split}.csv").is_file()
    }
    named = read_class_names(root / "classes.txt", faults)
    trained = {label for _, _, label in lines.get("train", ())}
    if not trained:
        faults.append(f"{root}: no train split; write train.csv with one `path label` a line")
        return Listing((), {}, tuple(faults))
    known = named or sorted(trained)
    rows = {
        split: tuple(_named_rows(root / f"{split}.csv", entries, known, bool(named), faults))
        for split, entries in lines.items()
    }
    if named:
        check_trained(root, rows, faults)
    classes = tuple(named) or tuple(sorted(trained, key=numbers_first))
    return Listing(classes, rows, tuple(faults), tuple(missing_splits(root, rows)))


def parse_line(line: str, root: Path) -> tuple[str, str] | None:
    """(path, label) of a line of a list, or None."""
    match = LINE.match(line) or OTHER_LINE.match(line)
    if match is not None:
        return Path(match["path"].strip().replace("\\", "/")).as_posix(), match["label"].strip()
    for gap in reversed(tuple(BETWEEN.finditer(line))):
        path, label = line[: gap.start()].strip('"'), line[gap.end() :].strip('"')
        if path and label and (root / path).is_dir():
            return Path(path).as_posix(), label
    return None


def _read_lines(path: Path, faults: list[str]) -> Iterator[Entry]:
    """(line number, path, label) of every line that has both; the others become faults."""
    for number, line in enumerate(text_lines(path, faults), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = parse_line(line.strip(), path.parent)
        if found is None:
            faults.append(f"{path}, line {number}: {line.strip()!r} is no `path label`; write a file and its class")
        else:
            yield number, *found


def _named_rows(
    path: Path, entries: tuple[Entry, ...], known: list[str], numbered: bool, faults: list[str]
) -> Iterator[Row]:
    """A row for each entry; a label that is no known class becomes a fault."""
    where = "classes.txt" if numbered else "train.csv"
    for number, name, label in entries:
        labels = [_class_name(label, known, numbered)]
        if labels == [None] and numbered and "," in label:
            labels = [_class_name(part.strip(), known, numbered) for part in label.split(",")]
        if None in labels:
            faults.append(f"{path}, line {number}: label {label!r} is not in {where}{near(label, known)}")
        else:
            yield _place(path.parent, Row(name, tuple(dict.fromkeys(label for label in labels if label is not None))))


def _class_name(label: str, known: list[str], numbered: bool) -> str | None:
    if label in known:
        return label
    return known[int(label)] if numbered and label.isdecimal() and int(label) < len(known) else None


def _place(root: Path, row: Row) -> Row:
    """The row with its stretch of seconds or its place in a tar file, where the name has one."""
    stretch = re.fullmatch(f"(?P<file>.+){SPAN}", row.name)
    if stretch is not None and not (root / row.name).exists():
        return replace(row, file=stretch["file"], span=(float(stretch["start"]), float(stretch["end"])))
    archive, mark, member = row.name.partition(".tar#")
    if mark and not (root / row.name).exists():
        return replace(row, file=f"{archive}.tar", member=find_member(root / f"{archive}.tar", member))
    return row


LISTS = Layout("lists", lambda root: any((root / f"{split}.csv").is_file() for split in SPLITS), list_files)
