"""The three ways a data set may lie on disk, each read into one `Listing` of names and class names."""

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "val", "test")
SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".flv")
SUFFIX_PATTERN = "|".join(suffix[1:] for suffix in SUFFIXES)
# The path ends at the last video suffix, so both may contain spaces: `my clip.mp4, playing guitar`.
LINE = re.compile(rf"""^"?(?P<path>.+\.(?:{SUFFIX_PATTERN}))"?(?:\s*[,;]\s*|\s+)"?(?P<label>[^"]+?)"?$""", re.I)
# Any other file name with a suffix, then one word.
OTHER_LINE = re.compile(r"^(?P<path>.*\.\w+)\s*(?:,\s*|\s)(?P<label>[^\s,]+)$")

Rows = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Listing:
    """What a layout says: rows of (name, class name) by split, its faults, and notes for the user."""

    classes: tuple[str, ...]
    rows: Mapping[str, Rows]
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def list_files(root: Path) -> Listing:
    """train.csv, val.csv and test.csv, one `path label` a line; `label` is a class name or a number.

    Numbers count the lines of classes.txt from 0 where that file exists, and are class names otherwise.
    """
    faults: list[str] = []
    lines = {
        split: tuple(_read_lines(root / f"{split}.csv", faults))
        for split in SPLITS
        if (root / f"{split}.csv").is_file()
    }
    named = _read_class_names(root / "classes.txt", faults)
    trained = {label for _, _, label in lines.get("train", ())}
    if not trained:
        faults.append(f"{root}: no train split; write train.csv with one `path label` a line")
        return Listing((), {}, tuple(faults))
    rows: dict[str, Rows] = {}
    for split, entries in lines.items():
        known = named or sorted(trained)
        rows[split] = tuple(_named_rows(root / f"{split}.csv", entries, known, bool(named), faults))
    if named:
        _check_trained(root, rows, faults)
    classes = tuple(named) or tuple(sorted(trained, key=_numbers_first))
    return Listing(classes, rows, tuple(faults), tuple(_missing_splits(root, rows)))


def list_split_folders(root: Path) -> Listing:
    """train/, val/ and test/, each with one folder a class."""
    faults: list[str] = []
    rows = {split: tuple(_folder_rows(root, root / split, faults)) for split in SPLITS if (root / split).is_dir()}
    if not any(rows.values()):
        return Listing((), {}, (*faults, f"{root}: no videos in {_ending()}; put them into class folders"))
    if not rows.get("train"):
        faults.append(f"{root}: no train split; put class folders of videos into {root / 'train'}")
        return Listing((), {}, tuple(faults))
    _check_trained(root, rows, faults)
    ignored = [folder.name for folder in _folders(root) if folder.name not in SPLITS]
    notes = [f"{root / name}: not read, it is none of the folders train, val, test" for name in ignored]
    classes = tuple(sorted({label for _, label in rows["train"]}))
    return Listing(classes, rows, tuple(faults), (*notes, *_missing_splits(root, rows)))


def list_class_folders(root: Path, seed: int) -> Listing:
    """One folder a class; 60/20/20 percent of each class go to train, val and test, drawn by `seed`."""
    faults: list[str] = []
    found = tuple(_folder_rows(root, root, faults))
    if not found:
        return Listing((), {}, (f"{root}: no videos ({_ending()}); put them into one folder a class",))
    classes = tuple(sorted({label for _, label in found}))
    rows: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
    for label in classes:
        drawn = sorted((row for row in found if row[1] == label), key=lambda row: _lot(seed, row[0]))
        fifth = round(len(drawn) / 5)
        rows["val"] += sorted(drawn[:fifth])
        rows["test"] += sorted(drawn[fifth : 2 * fifth])
        rows["train"] += sorted(drawn[2 * fifth :])
    counts = ", ".join(f"{split} {len(rows[split])}" for split in SPLITS)
    note = (
        f"{root}: split 60/20/20 inside each class with seed {seed} ({counts} videos); clips of one person "
        "or scene may fall into several splits, write train.csv val.csv test.csv to decide yourself"
    )
    return Listing(classes, {split: tuple(rows[split]) for split in SPLITS}, tuple(faults), (note,))


def _read_lines(path: Path, faults: list[str]) -> Iterator[tuple[int, str, str]]:
    """(line number, path, label) of every line that has both; the others become faults."""
    for number, line in enumerate(_text_lines(path, faults), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = LINE.match(line.strip()) or OTHER_LINE.match(line.strip())
        if match is None:
            faults.append(f"{path}, line {number}: {line.strip()!r} is no `path label`; write a file and its class")
        else:
            yield number, Path(match["path"].strip().replace("\\", "/")).as_posix(), match["label"].strip()


def _text_lines(path: Path, faults: list[str]) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        faults.append(f"{path}: not UTF-8 text; save it again as UTF-8")
    except OSError as fault:
        faults.append(f"{path}: cannot be read ({fault.strerror}); correct its permissions")
    return []


def _read_class_names(path: Path, faults: list[str]) -> list[str]:
    names = [line.strip() for line in _text_lines(path, faults) if line.strip()] if path.is_file() else []
    repeated = sorted({name for name in names if names.count(name) > 1})
    faults += [f"{path}: class {name!r} is listed twice; keep one line" for name in repeated]
    return names


def _named_rows(
    path: Path, entries: tuple[tuple[int, str, str], ...], known: list[str], numbered: bool, faults: list[str]
) -> Iterator[tuple[str, str]]:
    """(name, class name) of each entry; a label that is no known class becomes a fault."""
    where = "classes.txt" if numbered else "train.csv"
    for number, name, label in entries:
        if label in known:
            yield name, label
        elif numbered and label.isdecimal() and int(label) < len(known):
            yield name, known[int(label)]
        else:
            faults.append(f"{path}, line {number}: label {label!r} is not in {where}{_near(label, known)}")


def _folder_rows(root: Path, folder: Path, faults: list[str]) -> Iterator[tuple[str, str]]:
    """(name relative to root, class name) of every video below the class folders of `folder`, sorted."""
    for class_folder in _folders(folder):
        videos = [path for path in sorted(class_folder.rglob("*")) if _is_video(path)]
        if not videos:
            faults.append(f"{class_folder}: class folder without videos ({_ending()}); fill or remove it")
        yield from ((path.relative_to(root).as_posix(), class_folder.name) for path in videos)


def _check_trained(root: Path, rows: Mapping[str, Rows], faults: list[str]) -> None:
    """A fault for each class that val or test has and train has not."""
    trained = sorted({label for _, label in rows["train"]})
    for split in ("val", "test"):
        for label in sorted({label for _, label in rows.get(split, ())} - set(trained)):
            if (root / "train" / label).is_dir():
                continue  # its folder is there and empty, which is said already
            faults.append(f"{root}: class {label!r} is in {split} but not in train{_near(label, trained)}")


def _missing_splits(root: Path, rows: Mapping[str, Rows]) -> Iterator[str]:
    for split, use in (("val", "a search selects on it"), ("test", "final scores are taken on it")):
        if not rows.get(split):
            yield f"{root}: no {split} split; {use}"


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known[:10])}"


def _lot(seed: int, name: str) -> str:
    """A video's lot depends on its own name only, so that adding a video moves few of the others."""
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()


def _numbers_first(label: str) -> tuple[bool, int, str]:
    """Numbers in the order of numbers, then names."""
    return not label.isdecimal(), int(label) if label.isdecimal() else 0, label


def _ending() -> str:
    return f"files ending in {' '.join(SUFFIXES)}"
