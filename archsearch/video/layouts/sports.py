"""Sports-1M (Karpathy et al. 2014): lists of `url label[,label...]`, several labels for one video."""

import re
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, urlsplit

from archsearch.video.layouts.listing import (
    Choice,
    Layout,
    Listing,
    Row,
    absent,
    clip_row,
    finish,
    listed_in,
    lot,
    read_class_names,
    split_of,
    take_val,
    text_lines,
    videos_of,
)

LINE = re.compile(r"(?P<url>\w+://\S+)\s+(?P<labels>\d+(?:,\d+)*)")


def list_sports(root: Path, choice: Choice) -> Listing:
    """train_partition.txt and test_partition.txt; numbers count the lines of labels.txt from 0 where it exists."""
    faults: list[str] = []
    paths = _lists(root)
    names = read_class_names(paths[0].parent / "labels.txt", faults)
    videos, missing, rows, listed = videos_of(root), list[str](), dict[str, list[Row]](), 0
    for path in paths:
        for number, line in enumerate(text_lines(path, faults), start=1):
            match = LINE.fullmatch(line.strip())
            labels = () if match is None else tuple(_class_names(match["labels"], names))
            if match is None or not labels:
                faults += [f"{path}, line {number}: {line!r} is no `url label,label`"] if line.strip() else []
                continue
            listed += 1
            name = videos.find(_video_id(match["url"]))
            if name is None:
                missing.append(_video_id(match["url"]))
            else:
                rows.setdefault(split_of(path.stem) or "", []).append(clip_row(videos, root, name, labels))
    if faults:
        return Listing((), {}, tuple(faults))
    notes = absent(root, missing, listed)
    if "val" not in rows:
        rows["train"], rows["val"], _ = take_val(
            rows.get("train", ()), lambda row: lot(choice.seed, row.name)[:4], choice.seed
        )
        notes.append(f"{root}: it has no val; {len(rows['val'])} videos of train became val (seed {choice.seed})")
    return finish(root, "read as Sports-1M lists", rows, names, notes)


def _class_names(numbers: str, names: list[str]) -> list[str]:
    """The names of numbers; none where one is beyond the list."""
    found = [names[int(number)] if int(number) < len(names) else "" for number in numbers.split(",")]
    return [] if "" in found and names else (found if names else numbers.split(","))


def _video_id(url: str) -> str:
    """`watch?v=ID`, or the last part of the path without its suffix."""
    parts = urlsplit(url)
    return parse_qs(parts.query).get("v", [PurePosixPath(parts.path).stem])[0]


def _lists(root: Path) -> list[Path]:
    return [path for path in listed_in(root, "*.txt") if split_of(path.stem) and _starts_with_url(path)]


def _starts_with_url(path: Path) -> bool:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return LINE.fullmatch(file.readline(2000).strip()) is not None


SPORTS1M = Layout("Sports-1M lists", lambda root: bool(_lists(root)), list_sports)
