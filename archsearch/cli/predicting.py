"""What a trained network says of new videos: predict."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archsearch.cli.shared import Json, print_json, print_line, print_table, reporting, say
from archsearch.errors import DataError

if TYPE_CHECKING:
    from archsearch.report.predict import Found
    from archsearch.training.predict import Model

TOP = 5  # labels, where each video has one
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
    runtime: Annotated[str | None, typer.Option(help="torch; onnx or openvino, which need model.onnx")] = None,
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
    from archsearch.api.predicting import EVERY

    net = _opened(model, runtime)
    top = top or (len(net.labels) if net.binary else TOP)
    step = every or (EVERY if windows or seconds is not None else None)
    if cameras:
        _watch(net, cameras[0], top, step or EVERY, seconds, as_json)
    else:
        _predict(net, model, videos, Wish(top, step, seconds, label, csv, as_json))


def _opened(model: str, runtime: str | None) -> "Model":
    from archsearch.api.predicting import open_model
    from archsearch.training.predict import MODELS

    if runtime and runtime not in MODELS:
        raise typer.BadParameter(f"{runtime} is not one of {', '.join(MODELS)}", param_hint="--runtime")
    net = open_model(model, runtime)
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
    from archsearch.api.predicting import find_all, score_all, telling
    from archsearch.files import plain

    failed: list[dict[str, str]] = []

    def tell(video: str, reason: str) -> None:
        failed.append({"video": video, "reason": reason})
        say(plain(reason))

    paths = find_all(videos, tell)
    copies = _copies(paths, wish.label)
    with reporting() as report:
        scored = score_all(net, paths, wish.every, wish.seconds, report, tell)
        broken = {each["video"] for each in failed}
        for path, found in zip(paths, scored, strict=True):
            if found.parts and found.video not in broken and wish.label is not None:
                with telling(found.video, tell):
                    _copy(net, found, path, copies[path], wish, report)
    _tell(net, model, [found for found in scored if found.parts], wish, failed)
    if failed:
        raise typer.Exit(1)


def _copies(paths: Sequence[Path], label: Path | None) -> dict[Path, Path]:
    """Where the labelled copy of each video goes: the file, or files of their own names in the folder.

    Raises DataError for one that exists, and BadParameter where several videos would share a file.
    """
    from archsearch.files import plain

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
    from archsearch.api.predicting import EVERY, pace, source_of
    from archsearch.files import plain
    from archsearch.report.predict import captions
    from archsearch.video.label import label_copy

    texts = captions(found.parts, net.labels, wish.every or EVERY)
    label_copy(source_of(path), out, texts, pace(report, "labelling", plain(out.name), found.parts[-1].end))


def _tell(net: "Model", model: str, found: Sequence["Found"], wish: Wish, failed: list[dict[str, str]]) -> None:
    """The results, on stdout and in the file that was asked for."""
    from archsearch.files import write_whole
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
