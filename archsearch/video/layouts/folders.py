"""Folders of classes, with folders of splits above them or without; videos are files or folders of frames."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from archsearch.video.layouts.listing import (
    SPLITS,
    Choice,
    Layout,
    Listing,
    Row,
    Rows,
    folders_in,
    lot,
    missing_splits,
    near,
)
from archsearch.video.names import ending, frame_files, is_video


def _has_split_folders(root: Path) -> bool:
    """A class may be called `train`: a split folder holds folders, and those are no folders of frames alone."""
    splits = [root / split for split in SPLITS if (root / split).is_dir()]
    return any(path.is_dir() and not _only_frames(path) for split in splits for path in split.iterdir())


def list_split_folders(root: Path, choice: Choice) -> Listing:
    """train/, val/ and test/, each with one folder a class."""
    faults: list[str] = []
    rows = {split: tuple(_folder_rows(root, root / split, faults)) for split in SPLITS if (root / split).is_dir()}
    if not any(rows.values()):
        return Listing((), {}, (*faults, f"{root}: no videos in {ending()}; put them into class folders"))
    if not rows.get("train"):
        faults.append(f"{root}: no train split; put class folders of videos into {root / 'train'}")
        return Listing((), {}, tuple(faults))
    check_trained(root, rows, faults)
    ignored = [folder.name for folder in folders_in(root) if folder.name not in SPLITS]
    notes = [f"{root / name}: not read, it is none of the folders train, val, test" for name in ignored]
    classes = tuple(sorted({row.label for row in rows["train"]}))
    return Listing(classes, rows, tuple(faults), (*notes, *missing_splits(root, rows)))


def list_class_folders(root: Path, choice: Choice) -> Listing:
    """One folder a class; 60/20/20 percent of each class go to train, val and test, drawn by seed."""
    faults: list[str] = []
    found = tuple(_folder_rows(root, root, faults))
    if not found:
        return Listing((), {}, (f"{root}: no videos ({ending()}); put them into one folder a class",))
    classes = tuple(sorted({row.label for row in found}))
    rows, note = drawn_splits(root, found, classes, choice.seed)
    return Listing(classes, rows, tuple(faults), (note,))


def drawn_splits(root: Path, found: Rows, classes: tuple[str, ...], seed: int) -> tuple[dict[str, Rows], str]:
    """Rows by split, 60/20/20 percent of each class, and the note that says so."""
    rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for label in classes:
        drawn = sorted((row for row in found if row.label == label), key=lambda row: lot(seed, row.name))
        fifth = round(len(drawn) / 5)
        for split, part in (("val", drawn[:fifth]), ("test", drawn[fifth : 2 * fifth]), ("train", drawn[2 * fifth :])):
            rows[split] += sorted(part, key=lambda row: row.name)
    counts = ", ".join(f"{split} {len(rows[split])}" for split in SPLITS)
    note = (
        f"{root}: split 60/20/20 inside each class with seed {seed} ({counts} videos); clips of one person "
        "or scene may fall into several splits, write train.csv val.csv test.csv to decide yourself"
    )
    return {split: tuple(rows[split]) for split in SPLITS}, note


def check_trained(root: Path, rows: Mapping[str, Rows], faults: list[str]) -> None:
    """A fault for each class that val or test has and train has not."""
    trained = sorted({label for row in rows["train"] for label in row.labels})
    for split in ("val", "test"):
        for label in sorted({label for row in rows.get(split, ()) for label in row.labels} - set(trained)):
            if (root / "train" / label).is_dir():
                continue  # its folder is there and empty, which is said already
            faults.append(f"{root}: class {label!r} is in {split} but not in train{near(label, trained)}")


def _folder_rows(root: Path, folder: Path, faults: list[str]) -> Iterator[Row]:
    """A row for every video below the class folders of `folder`, sorted."""
    for class_folder in folders_in(folder):
        videos = [path for path in sorted(class_folder.rglob("*")) if is_video(path)] or _frame_folders(class_folder)
        if not videos:
            faults.append(f"{class_folder}: class folder without videos ({ending()}); fill or remove it")
        for path in videos:
            yield Row(path.relative_to(root).as_posix(), (class_folder.name,))


def _frame_folders(class_folder: Path) -> list[Path]:
    """Folders of frames below a class folder that has no video files."""
    return [path for path in sorted(class_folder.rglob("*")) if path.is_dir() and _only_frames(path)]


def _only_frames(folder: Path) -> bool:
    """Whether pictures lie in a folder, and neither folders nor videos."""
    with os.scandir(folder) as entries:
        if any(entry.is_dir() or is_video(Path(entry.path)) for entry in entries):
            return False
    return bool(frame_files(folder))


SPLIT_FOLDERS = Layout("split folders", _has_split_folders, list_split_folders)
CLASS_FOLDERS = Layout("class folders", lambda root: True, list_class_folders)
