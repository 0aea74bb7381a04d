"""MODEL.md: a model folder's facts for people, as plain Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from archsearch.report.network_data import spec_json
from archsearch.spec.spec import Spec
from archsearch.training.model_json import CARD, INT8, MODEL, ONNX, PROGRAM, Cut, Model

SHOWN = 60  # labels; labels.txt has all
WHERE = {
    "val": "val, when it was trained",
    "test": "test",
    "val_onnx": f"val, {ONNX}",
    "val_torch": "val, torch",
    "val_int8": f"val, {INT8}",
}
WHAT = {
    "spec.yaml": "the network: `archsearch show` prints it",
    "recipe.json": "how it was trained, every field",
    "labels.txt": "a class a line, in the order of the scores",
    "weights.safetensors": "weights and norm statistics, for archsearch",
    PROGRAM: "a torch.export program",
    ONNX: "the same function in ONNX",
    INT8: "the same in 8-bit whole numbers (QDQ)",
    "model.xml": "the same for OpenVINO",
    "model.bin": "weights of model.xml",
}


def card(model: Model, spec: Spec) -> str:
    """The text of MODEL.md. Names from files are escaped: they may hold anything."""
    sections = (
        _head(model, spec),
        _stages(spec),
        _labels(model),
        _feeding(model),
        _accuracy(model),
        _latency(model),
        _checks(model),
        _files(model),
        _limits(model),
        _made(model),
    )
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def escaped(text: object) -> str:
    """A text in which Markdown and HTML see nothing to act on, on one line."""
    line = " ".join(str(text).split())
    for sign in "\\`*_[]|#~":
        line = line.replace(sign, f"\\{sign}")
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(text: str) -> str:
    """A text as it is, on one line, in as many backticks as it needs."""
    line = " ".join(text.split())
    fence = "`"
    while fence in line:
        fence += "`"
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def _table(names: Sequence[str], rows: Sequence[Sequence[object]], right: int = 1) -> list[str]:
    """A table whose columns from `right` on are numbers."""
    lines = ["---" if place < right else "---:" for place in range(len(names))]
    cells = [names, lines, *rows]
    return [f"| {' | '.join(str(cell) for cell in row)} |" for row in cells]


def _head(model: Model, spec: Spec) -> list[str]:
    reads = " and ".join(
        f"`{each.name}` ({each.shape[1]} frames of {each.shape[2]} x {each.shape[3]}, {each.holds})"
        for each in model.inputs
    )
    costs = model.cost
    return [
        f"# {escaped(model.name)}",
        "",
        f"A video classifier of {len(model.labels)} classes that reads {reads}: "
        f"{costs['gmacs']:.4g} gmacs (1e9 multiply-adds of one clip), {int(costs['params']):,} parameters, "
        f"{costs['maps_bytes'] / 1e6:.4g} MB of maps in a forward.",
    ]


def _stages(spec: Spec) -> list[str]:
    data = spec_json(spec)
    rows = [
        (
            escaped(stage["name"]),
            stage["kind"],
            stage["conv"] or "",
            " x ".join(map(str, stage["output"])),
            f"{stage['params']:,}",
            f"{stage['macs'] / 1e9:.4g}",
        )
        for stage in data["stages"]
    ]
    return _table(("stage", "kind", "conv", "output c x t x h x w", "params", "gmacs"), rows, 3)


def _labels(model: Model) -> list[str]:
    shown = ", ".join(escaped(label) for label in model.labels[:SHOWN])
    rest = f", and {len(model.labels) - SHOWN} more in labels.txt" if len(model.labels) > SHOWN else ""
    return ["## Labels", "", f"{shown}{rest}."]


def _feeding(model: Model) -> list[str]:
    """Preprocessing, step by step."""
    cut = model.sampling
    _, t, h, w = model.inputs[0].shape
    frames = _frames(cut, t)
    kind = "softmax" if model.output.kind == "softmax" else "sigmoid, each class for itself"
    lines = [
        "## How to feed it",
        "",
        f"1. Decode frames as RGB bytes and resize them so that the shorter side has {cut.short_side} pixels.",
        f"2. {frames}.",
        f"3. Cut {h} x {w} pixels from the centre.",
    ]
    steps = [
        f"Give float32 (batch, {each.shape[0]}, {t}, {h}, {w}) as `{each.name}`: {_holds(model, each.holds)}."
        for each in model.inputs
    ]
    steps.append(
        f"`{model.output.name}` is (batch, {len(model.labels)}), after {kind}; the mean over the clips is the video's."
    )
    lines += [f"{place}. {step}" for place, step in enumerate(steps, 4)]
    return lines + _example(model)


def _frames(cut: Cut, t: int) -> str:
    """Which of a video's frames make a clip (see `archsearch.video.clips.frame_indices`)."""
    place = f"p = (v + 0.5) / {cut.views} for clip v (from 0) of a video's {cut.views}"
    if cut.stride == "spread":
        return f"Of n frames take those numbered floor((i + p) n / {t}) for i = 0 ... {t - 1}, where {place}"
    long = (t - 1) * cut.stride + 1
    return (
        f"Take {t} frames, each {cut.stride} after the one before; of the n - {long - 1} first frames there can be "
        f"it is the one numbered floor(p (n - {long - 1})), where {place}; a video of fewer than {long} frames has "
        f"those numbered floor((2 i + 1) n / {2 * t})"
    )


def _example(model: Model) -> list[str]:
    """How it is called from Python."""
    if ONNX not in model.files:
        return ["", f'Normalisation is inside: `torch.export.load("{PROGRAM}").module()` takes these batches.']
    feeds = ", ".join(f'"{each.name}": {each.name}' for each in model.inputs)
    return [
        "",
        "Normalisation is inside. With ONNX Runtime:",
        "",
        "```python",
        f'session = onnxruntime.InferenceSession("{ONNX}")',
        f"scores, = session.run(None, {{{feeds}}})",
        "```",
    ]


def _holds(model: Model, what: str) -> str:
    if what == "rgb":
        return "pixels 0 to 255 in the order R, G, B, not normalised"
    cut = model.sampling
    return (
        f"optical flow ({cut.flow}), u and v from each frame to the next as 128 + 127 d / {cut.flow_bound:g}, "
        "cut to 1 to 255; further pairs are the fields after it"
    )


def _accuracy(model: Model) -> list[str]:
    rows = []
    for name, found in model.accuracy.items():
        if isinstance(found, Mapping) and "top1" in found:
            rows.append(
                (
                    escaped(
                        WHERE.get(name, name) + (", mean of the seeds" if name == "test" and _several(found) else "")
                    ),
                    _number(found.get("top1")) + (f" ± {_number(found['spread'])}" if "spread" in found else ""),
                    _interval(found.get("top1_interval")),
                    _number(found.get("loss")),
                    found.get("videos", ""),
                    found.get("seeds", ""),
                )
            )
    if not rows:
        return ["## Accuracy", "", "Not known: nothing was scored. `archsearch export --data` or `evaluate` does it."]
    names = ("split", "top-1", "95 %", "loss", "videos", "seeds")
    note = [
        "",
        "Intervals are bootstraps over videos, and over seeds where there are several; ± is the standard deviation "
        "over seeds.",
    ]
    return ["## Accuracy", "", *_table(names, rows), *note]


def _several(found: Mapping[str, Any]) -> bool:
    """Whether a number is of trainings with several seeds."""
    return int(found.get("seeds", 1)) > 1


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else ""


def _interval(pair: Any) -> str:
    return f"{pair[0]:.3f} to {pair[1]:.3f}" if isinstance(pair, list | tuple) and len(pair) == 2 else ""


def _latency(model: Model) -> list[str]:
    if not model.latency:
        return ["## Latency", "", "Not measured."]
    rows = [
        (
            each.file,
            escaped(each.software),
            f"{each.median_ms:.2f}",
            f"{each.p95_ms:.2f}",
            f"{each.best_ms:.2f}",
            f"{each.load:.2f}",
            "" if each.memory_bytes is None else f"{each.memory_bytes / 1e6:.1f}",
        )
        for each in model.latency
    ]
    first = model.latency[0]
    names = ("file", "by", "median ms", "95 % ms", "best ms", "load", "peak MB")
    about = (
        f"Milliseconds of one forward of {first.batch} clip on {first.threads} thread of {escaped(first.processor)}, "
        "with the machine's load average then (1: nothing else ran); peak MB is what torch needs beyond itself."
    )
    return ["## Latency", "", about, "", *_table(names, rows, 2)]


def _checks(model: Model) -> list[str]:
    rows = [(each.file, escaped(each.clips), f"{each.difference:.2g}", f"{each.relative:.2g}") for each in model.checks]
    about = "The largest difference of scores from torch's: alone, and as a share of the largest score."
    return ["## Checks", "", about, "", *_table(("file", "clips", "difference", "relative"), rows, 2)]


def _files(model: Model) -> list[str]:
    rows = [(name, WHAT.get(name, ""), f"{each.bytes:,}") for name, each in model.files.items()]
    note = f"{MODEL} has their sha256; {CARD} is this."
    return ["## Files", "", *_table(("file", "what", "bytes"), rows, 2), "", note]


def _limits(model: Model) -> list[str]:
    return ["## Limits", "", *(f"- {line}" for line in limits(model))]


def limits(model: Model) -> Iterator[str]:
    """What a user should not take for more than it is, escaped."""
    known = model.training
    if "data" in known:
        videos = f", {known['videos']} training videos" if known.get("videos") else ""
        yield f"Trained on {escaped(known['data'])}{videos}; of other videos nothing is known."
    else:
        yield "What it was trained on is not recorded here; of other videos nothing is known."
    if "clips" in known and known["clips"] != known.get("data"):
        yield f"Its files were compared and scored on {escaped(known['clips'])}."
    if "weights_from" in known:
        yield f"Its weights are from {escaped(known['weights_from'])}."
    if model.accuracy.get("test", {}).get("seeds", 1) == 1:
        yield "One training with one seed: another seed would give another accuracy."
    if "test" not in model.accuracy:
        yield "No accuracy on `test`: what was selected by `val` looks better there than it is."
    yield from (escaped(line) for line in model.limits)


def _made(model: Model) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in model.versions.items())
    commands = [f"- {code(command)}" for command in model.commands]
    return ["## Made by", "", *commands, *([""] if commands else []), f"With {escaped(versions)}."]


def model_lines(model: Model, out: str) -> list[str]:
    """What `archsearch export` prints: the folder, each file, each check, what was scored and timed."""
    lines = [f"{out}: {model.name}, {len(model.labels)} classes"]
    lines += [f"  {name:<20} {each.bytes:>13,} bytes" for name, each in model.files.items()]
    for check in model.checks:
        lines.append(f"  {check.file} differs by {check.difference:.2g}, relative {check.relative:.2g}: {check.clips}")
    for name, found in model.accuracy.items():
        if isinstance(found, Mapping) and "top1" in found:
            lines.append(f"  top-1 {found['top1']:.4f}: {WHERE.get(name, name)}")
    for each in model.latency:
        lines.append(f"  {each.median_ms:.2f} ms by {each.software} ({each.file}, load {each.load:.2f})")
    return lines
