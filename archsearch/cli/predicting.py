"""What a trained network says of new videos: predict."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archsearch.cli.shared import Json, print_json, print_line, print_table, reporting, say
from archsearch.errors import DataError, VideoError
from archsearch.files import write_whole

if TYPE_CHECKING:
    from archsearch.report.predict import Found
    from archsearch.training.predict import Model, Scored
    from archsearch.video.sources import Source

TOP = 5  # labels, where each video has one
EVERY = 1.0  # seconds
Report = Callable[[str, int, int, str], None]


def predict(
    model: Annotated[str, typer.Argument(help="a trained network's folder, or an .onnx file of a model folder")],
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO...", help="files, folders of them, or a camera as 0")],
    top: Annotated[
        int | None, typer.Option(min=1, help="labels to tell; by default 5, or all where videos have several")
    ] = None,
    windows: Annotated[bool, typer.Option("--windows", help="along each video, not of it as a whole")] = False,
    every: Annotated[
        float | None, typer.Option(min=0.01, help="seconds from a window to the next, 1 by default; means --windows")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.05, help="of a window, 2 by default, where its frames are spread")
    ] = None,
    runtime: Annotated[str | None, typer.Option(help="torch or onnx, which needs model.onnx")] = None,
    label: Annotated[Path | None, typer.Option(help="labelled copies: an .mp4 file, or a folder for several")] = None,
    csv: Annotated[Path | None, typer.Option(help="a new file of all labels, scores and times")] = None,
    as_json: Json = False,
) -> None:
    """Tell what is seen in videos, as a whole, in windows along them, or before a camera."""
    cameras = [int(name) for name in videos if name.isascii() and name.isdigit()]
    if cameras and (len(videos) > 1 or label is not None or csv is not None):
        rule = "a camera comes alone, without --label and --csv; redirect its lines"
        raise typer.BadParameter(rule, param_hint="VIDEO")
    if csv is not None and csv.exists():
        raise DataError(f"{csv}: exists; name a new file")
    net = _opened(model, runtime)
    top = top or (len(net.labels) if net.binary else TOP)
    step = (every or EVERY) if windows or every is not None or seconds is not None else None
    if cameras:
        _watch(net, cameras[0], top, step or EVERY, seconds, as_json)
    else:
        _predict(net, model, videos, Wish(top, step, seconds, label, csv, as_json))


def _opened(model: str, runtime: str | None) -> "Model":
    from archsearch.training.predict import MODELS

    kind = runtime or ("onnx" if model.endswith(".onnx") else "torch")
    if kind not in MODELS:
        raise typer.BadParameter(f"{kind} is not one of {', '.join(MODELS)}", param_hint="--runtime")
    net = MODELS[kind](model)
    if net.remark:
        say(net.remark)
    return net


@dataclass(frozen=True)
class Wish:
    """How predictions are wanted; `every` is None for whole videos."""

    top: int
    every: float | None
    seconds: float | None
    label: Path | None
    csv: Path | None
    as_json: bool


def _predict(net: "Model", model: str, videos: Sequence[str], wish: Wish) -> None:
    """Scores files, and tells; a video that fails is told on stderr, and the exit code is 1 at the end."""
    failed: list[dict[str, str]] = []
    paths = _found(videos, failed)
    copies = _copies(paths, wish.label)
    with reporting() as report:
        scored = _windows(net, paths, wish, report, failed) if wish.every else _whole(net, paths, report, failed)
        for path, found in zip(paths, scored, strict=True):
            if found.parts and wish.label is not None:
                with _telling(found.video, failed):
                    _copy(net, found, path, copies[path], wish, report)
    _tell(net, model, [found for found in scored if found.parts], wish, failed)
    if failed:
        raise typer.Exit(1)


@contextmanager
def _telling(video: str, failed: list[dict[str, str]]) -> Iterator[None]:
    """What is wrong with a video is said and kept, and the next one goes on."""
    try:
        yield
    except VideoError as fault:
        _fail(video, fault, failed)


def _fail(video: str, fault: VideoError, failed: list[dict[str, str]]) -> None:
    from archsearch.report.predict import plain

    failed.append({"video": video, "reason": fault.lines[0]})
    say(plain(fault.lines[0]))


def _found(videos: Sequence[str], failed: list[dict[str, str]]) -> list[Path]:
    """Every file once."""
    from archsearch.video.stream import find_videos

    paths: dict[Path, None] = {}
    for name in videos:
        with _telling(name, failed):
            paths |= dict.fromkeys(find_videos(Path(name)))
    return list(paths)


def _source(path: Path) -> "Source":
    from archsearch.video.sources import Source

    return Source(path, str(path))


def _whole(net: "Model", paths: Sequence[Path], report: Report, failed: list[dict[str, str]]) -> list["Found"]:
    """What is said of each video as a whole; of a failed one nothing."""
    from archsearch.report.predict import Found, plain
    from archsearch.training.predict import score_videos

    scored = []
    for path, answer in zip(paths, score_videos(net, [_source(path) for path in paths]), strict=True):
        if isinstance(answer, VideoError):
            _fail(str(path), answer, failed)
        scored.append(Found(str(path), () if isinstance(answer, VideoError) else (answer,)))
        report("scoring", len(scored), len(paths), plain(path.name))
    return scored


def _windows(
    net: "Model", paths: Sequence[Path], wish: Wish, report: Report, failed: list[dict[str, str]]
) -> list["Found"]:
    """What is said along each video; of one that breaks off, what was before."""
    from archsearch.report.predict import Found, plain
    from archsearch.training.predict import score_windows
    from archsearch.video.reading import seconds_of

    scored = []
    for path in paths:
        parts: list[Scored] = []
        with _telling(str(path), failed):
            advance = _along(report, "scoring", plain(path.name), seconds_of(_source(path)))
            for part in score_windows(net, _source(path), wish.every or EVERY, wish.seconds):
                parts.append(part)
                advance(part.end)
        scored.append(Found(str(path), tuple(parts)))
    return scored


def _along(report: Report, what: str, name: str, total: float) -> Callable[[float], None]:
    """Progress along a video, and how many times as fast as it plays; its last second is not waited for."""
    started, latest = time.monotonic(), 0

    def advance(seconds: float) -> None:
        nonlocal latest
        done = min(int(seconds), int(total))
        if done > latest:
            latest = done
            pace = seconds / max(time.monotonic() - started, 1e-3)
            report(f"{what} seconds", done, int(total), f"{name} {pace:.1f} x real time")

    return advance


def _copies(paths: Sequence[Path], label: Path | None) -> dict[Path, Path]:
    """Where the labelled copy of each video goes: the file, or files of their own names in the folder.

    Raises DataError for one that exists, and BadParameter where several videos would share a file.
    """
    from archsearch.report.predict import plain

    copies: dict[Path, Path] = {}
    if label is None:
        return copies
    if label.suffix.lower() == ".mp4" and not label.is_dir():
        if len(paths) > 1:
            raise typer.BadParameter(
                f"{label} is one file; name a folder for {len(paths)} videos", param_hint="--label"
            )
        copies = dict.fromkeys(paths, label)
    else:
        for path in paths:
            stem = plain((path if path.stem.strip(".") else path.resolve()).stem).replace("\\", "_") or "video"
            names = (f"{stem}.mp4", *(f"{stem}-{number}.mp4" for number in range(2, len(paths) + 1)))
            copies[path] = next(label / name for name in names if label / name not in copies.values())
    there = [str(out) for out in copies.values() if out.exists()]
    if there:
        raise DataError(*(f"{plain(out)}: exists; name another file or folder" for out in there))
    return copies


def _copy(net: "Model", found: "Found", path: Path, out: Path, wish: Wish, report: Report) -> None:
    from archsearch.report.predict import captions, plain
    from archsearch.video.label import label_copy

    source = _source(path)
    texts = captions(found.parts, net.labels, wish.every or EVERY)
    label_copy(source, out, texts, _along(report, "labelling", plain(out.name), found.parts[-1].end))


def _tell(net: "Model", model: str, found: Sequence["Found"], wish: Wish, failed: list[dict[str, str]]) -> None:
    """The results, on stdout and in the file that was asked for."""
    from archsearch.report.predict import predictions_csv, predictions_json, videos_table, windows_table

    if wish.csv is not None:
        write_whole(wish.csv, predictions_csv(found, net.labels, wish.top, wish.every is not None))
    if wish.as_json:
        rows = predictions_json(found, net.labels, wish.top, wish.every, net.binary)
        print_json({"model": model, "videos": rows, "failed": failed})
    elif wish.every is None:
        if found:
            print_table(videos_table(found, net.labels, wish.top))
    else:
        for each in found:
            print_table(windows_table(each, net.labels, wish.top, wish.every, net.binary))


def _watch(net: "Model", number: int, top: int, every: float, seconds: float | None, as_json: bool) -> None:
    """A line for each window before a camera, until Ctrl-C or until it ends."""
    from archsearch.report.predict import live_line, part_json
    from archsearch.training.predict import score_windows
    from archsearch.video.reading import camera, camera_source

    parts = score_windows(net, camera_source(number), every, seconds, lambda _: camera(number), live=True)
    try:
        for part in parts:
            if as_json:
                print_line(json.dumps(part_json(part, net.labels, top)))
            else:
                print_line(live_line(part, net.labels, top))
    except KeyboardInterrupt:
        say(f"camera {number}: ended")
