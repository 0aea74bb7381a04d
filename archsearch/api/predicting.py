"""What a network says of many videos, as wholes or in windows; a video that fails is told, and the others go on."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from archsearch.api.given import Report
from archsearch.errors import ArchsearchError, VideoError
from archsearch.files import plain
from archsearch.report.predict import Found
from archsearch.training.predict import MODELS, Model, Scored, score_videos, score_windows
from archsearch.video.children import Children, decoders, seconds_of
from archsearch.video.sources import Source
from archsearch.video.stream import find_videos

EVERY = 1.0  # seconds from a window to the next, where windows are wanted and no more is said
Tell = Callable[[str, str], None]  # a video, and why it cannot be used; called at once


def open_model(place: str, runtime: str | None = None) -> Model:
    """The network of a folder, run by torch, onnx or openvino; an .onnx file by onnx, unless it is said.

    Raises ArchsearchError for another runtime, RunError, MissingExtra.
    """
    kind = runtime or ("onnx" if place.endswith(".onnx") else "torch")
    if kind not in MODELS:
        raise ArchsearchError(f"runtime {kind}: should be one of {', '.join(MODELS)}")
    return MODELS[kind](place)


@contextmanager
def telling(video: str, tell: Tell) -> Iterator[None]:
    """What is wrong with a video is told, and the next one goes on."""
    try:
        yield
    except VideoError as fault:
        tell(video, fault.lines[0])


def find_all(names: Iterable[str], tell: Tell) -> list[Path]:
    """Every file once, of files and folders of them."""
    paths: dict[Path, None] = {}
    for name in names:
        with telling(name, tell):
            paths |= dict.fromkeys(find_videos(Path(name)))
    return list(paths)


def score_all(
    model: Model, paths: Sequence[Path], every: float | None, seconds: float | None, report: Report, tell: Tell
) -> list[Found]:
    """What is said of each video as a whole, or in windows that begin `every` so many seconds (see `score_windows`).

    Of one that breaks off there is what was before, perhaps nothing: then it has no parts. Raises DataError for
    `seconds` of a network whose frames are a fixed number apart.
    """
    if every is None:
        return _wholes(model, paths, report, tell)
    with decoders() as children:
        return [_along(model, children, path, every, seconds, report, tell) for path in paths]


def _wholes(model: Model, paths: Sequence[Path], report: Report, tell: Tell) -> list[Found]:
    found: list[Found] = []
    for path, answer in zip(paths, score_videos(model, [source_of(path) for path in paths]), strict=True):
        if isinstance(answer, VideoError):
            tell(str(path), answer.lines[0])
        found.append(Found(str(path), () if isinstance(answer, VideoError) else (answer,)))
        report("scoring", len(found), len(paths), plain(path.name))
    return found


def _along(
    model: Model, children: Children, path: Path, every: float, seconds: float | None, report: Report, tell: Tell
) -> Found:
    source = source_of(path)
    parts: list[Scored] = []
    with telling(str(path), tell):
        advance = pace(report, "scoring", plain(path.name), seconds_of(children, source))
        for part in score_windows(model, source, every, seconds, children=children):
            parts.append(part)  # one by one, for those before a fault
            advance(part.end)
    return Found(str(path), tuple(parts))


def pace(report: Report, what: str, name: str, total: float) -> Callable[[float], None]:
    """Progress along a video, and how many times as fast as it plays; its last second is not waited for."""
    started, latest = time.monotonic(), 0

    def advance(seconds: float) -> None:
        nonlocal latest
        done = min(int(seconds), int(total))
        if done > latest:
            latest = done
            times = seconds / max(time.monotonic() - started, 1e-3)
            report(f"{what} seconds", done, int(total), f"{name} {times:.1f} x real time")

    return advance


def source_of(path: Path) -> Source:
    """A file under the name it was given by."""
    return Source(path, str(path))
