"""Networks with weights: training, scoring, surgery, export, predictions, weights of other projects."""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Group, RenderableType

from archsearch.api.given import Clip, Network, Place, heard, recipe_of, set_fields, spec_of
from archsearch.api.shown import Drawn, Shown, facts_table, lines_text
from archsearch.errors import SurgeryError, WeightsError

if TYPE_CHECKING:
    from archsearch.training.recipe import Recipe

Inflate = Literal["centre", "mean"]
Split = Literal["train", "val", "test"]


def make_demo(folder: Place, *, seed: int = 0, progress: bool = True) -> Path:
    """Makes the demo clips, 384 videos of 16 frames of 72 x 72 in six classes, and gives their folder.

    A complete set of the seed is left as it is. Raises DataError for a folder that holds something else.

    >>> archsearch.make_demo("clips", progress=False)
    PosixPath('clips')
    """
    from archsearch.video.demo import make_demo

    with heard(progress) as report:
        make_demo(Path(folder), seed, lambda done, total: report("making clips", done, total, ""))
    return Path(folder)


def train(
    network: Network,
    data: Place,
    *,
    out: Place,
    recipe: "Recipe | Mapping[str, Any] | Place | None" = None,
    start: Place | None = None,
    clip: Clip | None = None,
    seed: int | None = None,
    progress: bool = True,
) -> Shown:
    """Trains a network on a data set into the folder `out`; the same call goes on after an interruption.

    `start` is the folder of a network whose weights it begins with, `clip` as in `load_spec`, `seed` instead of the
    recipe's. `data["metrics"]` is of the split `val`: `top1` from 0 to 1, `loss` in nats. Raises SpecError,
    RecipeError, DataError, TrainingError, and RunError for a folder of another training.

    >>> archsearch.train("mc3_18", "clips", out="mc3", clip=(3, 8, 56, 56), recipe={"epochs": 8})["metrics"]["top1"]
    """
    from archsearch.training.single import train_single

    spec, made = spec_of(network, clip), recipe_of(recipe, seed)
    with heard(progress) as report:
        begin = None if start is None else str(start)
        result = train_single(spec, Path(data), str(out), made, report, _said, begin)
    return Shown(result, partial(facts_table, result, str(out)))


def evaluate(
    run: Place,
    data: Place,
    *,
    split: Split = "val",
    views: int | None = None,
    crops: int = 1,
    frames: int | None = None,
    reverse: bool = False,
    scores: Place | None = None,
    progress: bool = True,
) -> Drawn:
    """Scores the trained network of a folder on a split; `plot` draws which class is taken for which.

    Every video is seen by `views` clips (the recipe's number by default) at 1 or 3 `crops` of `frames` each (the
    network's); `reverse` plays them backwards. `data` has `top1`, `top5`, `top1_interval` (95 %), `classes`
    (class to top-1), `confusion` (classes, classes). `scores` is a file, .npz or .json, that keeps the
    probabilities. Raises RunError, DataError, SpecError.

    >>> archsearch.evaluate("mc3", "clips", split="test", reverse=True)["top1"]
    """
    from archsearch.report.evaluation import evaluation_table
    from archsearch.report.evaluation_figures import confusion_figure
    from archsearch.training.single import evaluate_single

    keep = None if scores is None else Path(scores)
    with heard(progress) as report:
        found = evaluate_single(
            str(run), Path(data), split, views, reverse, crops=crops, frames=frames, keep=keep, report=report
        )
    return Drawn(found, partial(evaluation_table, found), partial(confusion_figure, found))


def surgery(
    source: Place,
    to: Network | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    out: Place | None = None,
    data: Place | None = None,
    inflate: Inflate = "centre",
    rename: Mapping[str, str | None] | None = None,
    progress: bool = True,
) -> Shown:
    """Turns the trained network of a folder into another one of its family, and keeps what it learned.

    The new one is `to`, or the old one with `settings`, as {"res*.conv": "2d"}. Without `out` it is only planned;
    with it the new network is written there. `data` are clips that approximated sites are fitted on; labels are not
    read. `rename` says which old block a new one is, None for a new one; `inflate` what 2D kernels become in 3D.
    `data` of the result has `edits` (a `verdict` for each site), `exact`, `macs` and `params` before and after.
    Raises SurgeryError for networks with too little in common, SpecError, RunError for a folder in use.

    >>> archsearch.surgery("mc3", settings={"res2.conv": "2d"})["macs"]
    """
    from archsearch.nets.surgery.plan import plan
    from archsearch.report.surgery import plan_table
    from archsearch.training.operation import describe, operate, target_of

    if inflate not in ("centre", "mean"):
        raise SurgeryError(f"inflate {inflate}: should be centre or mean")
    if (to is None) == (not settings):
        raise SurgeryError("surgery: give either a network or settings")
    wanted = set_fields(spec_of(source), settings or {}) if to is None else spec_of(to)
    old, new = target_of(str(source), wanted)
    if out is None:
        facts = describe(old, new, plan(old, new, rename, inflate))
    else:
        clips = None if data is None else Path(data)
        with heard(progress) as report:
            facts = operate(str(source), new, str(out), data=clips, rename=rename, inflate=inflate, report=report)
    return Shown(facts, partial(plan_table, facts))


def export(
    run: Place,
    *,
    out: Place | None = None,
    data: Place | None = None,
    int8: bool = False,
    openvino: bool = False,
    opset: int | None = None,
    progress: bool = True,
) -> Shown:
    """Writes a model folder of a trained network: ONNX, a torch.export program, a card; compared with torch.

    `out` is by default the run's name and `_model`, here. With `data` files are compared on clips and scored on
    `val`; `int8` needs it for ranges. `data["folder"]` is where the result lies, `files`, `checks`, `latency` and
    `accuracy` are as in model.json. Raises RunError for a folder in use, DataError, MissingExtra.

    >>> archsearch.export("mc3", out="model", data="clips")["files"]["model.onnx"]["bytes"]
    """
    from archsearch.report.model import card, model_lines
    from archsearch.training.exporting import Wish, export_network

    folder = f"{Path(run).absolute().name}_model" if out is None else str(out)
    options = {"out": folder, "data": None if data is None else str(data), "int8": int8, "openvino": openvino}
    given = "".join(f", {name}={value!r}" for name, value in {**options, "opset": opset}.items() if value)
    command = f"archsearch.export({str(run)!r}{given})"
    clips, wish = None if data is None else Path(data), Wish(int8, openvino, opset)
    with heard(progress) as report:
        model = export_network(str(run), folder, wish, (command,), card, clips, report, _said)
    facts = model.model_dump(mode="json") | {"folder": folder}
    return Shown(facts, lambda: lines_text(model_lines(model, folder)))


def predict(
    model: Place,
    videos: Place | Sequence[Place],
    *,
    top: int = 5,
    every: float | None = None,
    seconds: float | None = None,
    runtime: Literal["torch", "onnx", "openvino"] | None = None,
    progress: bool = True,
) -> Shown:
    """What a network says of videos, files or folders of them, as wholes or in windows along them.

    `every` seconds a window begins, `seconds` long (2 by default, where its frames are spread). `runtime` is torch,
    or onnx or openvino, which need model.onnx. `data["videos"]` has for each video its `scores`, the `top` labels with
    probabilities; or its `windows` and `segments` from `begin` to `end` in seconds. What cannot be read is in
    `data["failed"]` with its `reason`. Raises RunError for a folder without a network, DataError, MissingExtra.

    >>> archsearch.predict("model", "film.mp4", every=0.5)["videos"][0]["segments"]
    """
    from archsearch.api.predicting import EVERY, find_all, open_model, score_all
    from archsearch.report.predict import predictions_json, videos_table, windows_table

    net, step = open_model(str(model), runtime), every or (None if seconds is None else EVERY)
    names = [videos] if isinstance(videos, str | PathLike) else videos
    failed: list[dict[str, str]] = []

    def tell(video: str, reason: str) -> None:
        failed.append({"video": video, "reason": reason})

    with heard(progress) as report:
        paths = find_all(map(str, names), tell)
        found = [each for each in score_all(net, paths, step, seconds, report, tell) if each.parts]
    rows = predictions_json(found, net.labels, top, step, net.binary)

    def table() -> RenderableType:
        faults = [facts_table({each["video"]: each["reason"]}, "could not be read") for each in failed]
        if step is None:
            return Group(videos_table(found, net.labels, top), *faults)
        return Group(*(windows_table(each, net.labels, top, step, net.binary) for each in found), *faults)

    return Shown({"model": str(model), "videos": rows, "failed": failed}, table)


def import_weights(
    file: Place,
    network: Network,
    *,
    out: Place | None = None,
    dialect: str | None = None,
    classes: int | None = None,
    partial: bool = False,
    inflate: Inflate | None = None,
) -> Shown:
    """Reads weights of another project into a network's folder, every tensor placed by name and shape.

    `file` is a state dict, .safetensors, .pt or .pth, `out` by default its name without the ending. `dialect` says
    whose layout it is where that cannot be told, `partial` takes what fits and leaves the rest fresh, `inflate` is for
    2D kernels of image networks. `data` has `placed` and `fresh` tensors, `preprocessing`, `remarks`, `folder`.
    Raises WeightsError, SpecError, RunError for a folder in use.

    >>> archsearch.import_weights("r3d_18.pth", "r3d_18")["placed"]
    """
    from archsearch.training.exchange import import_network

    if inflate not in (None, "centre", "mean"):
        raise WeightsError(f"inflate {inflate}: should be centre or mean")
    file = Path(file)
    if out is None and not file.suffix:
        raise WeightsError(f"{file}: its name has no ending to leave off; give out, a folder")
    folder = str(file.with_suffix("") if out is None else out)
    spec = spec_of(network)
    facts = import_network(file, spec, folder, dialect=dialect, classes=classes, partial=partial, inflate=inflate) | {
        "folder": folder
    }
    return Shown(facts, lambda: facts_table(facts))


def _said(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
