"""Which files are videos and pictures, by their names."""

import re
from pathlib import Path

SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".flv")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def is_video(path: Path) -> bool:
    """Whether a file is named like a video."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def is_picture_name(name: str) -> bool:
    """Whether a name is one of a picture."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def frame_files(folder: Path) -> list[Path]:
    """The pictures directly in `folder` in natural order: 2.jpg before 10.jpg."""
    return sorted((path for path in folder.iterdir() if is_picture_name(path.name)), key=_naturally)


def _naturally(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Numbers by value, then the name itself, for 1.jpg and 01.jpg."""
    parts = re.findall(r"\d+|\D+", path.stem)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def ending() -> str:
    """What counts as a video."""
    return f"files ending in {' '.join(SUFFIXES)}"
