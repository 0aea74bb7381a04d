"""A trained network as a function of pixels: read from its folder, compared with its exported files, scored, timed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from torch import fx

from archsearch.errors import RunError
from archsearch.nets.build import build
from archsearch.nets.export import (
    Call,
    Clips,
    Difference,
    Kind,
    Scaling,
    checked,
    difference,
    random_clips,
    runtime_call,
    served,
    torch_call,
)
from archsearch.nets.latency import Latency, interleaved, load, peak_memory_bytes, summary
from archsearch.nets.runners import Run, machine, runner, runtime_runner, threads
from archsearch.nets.runtimes import load_onnxruntime, load_openvino
from archsearch.spec.graph import Size
from archsearch.spec.latency import Setting
from archsearch.spec.spec import Spec
from archsearch.store import Store
from archsearch.training.checkpoint import load_weights
from archsearch.training.clips import as_pixels, channels_of, sampling_for, split_of
from archsearch.training.evaluate import Scores
from archsearch.training.model import check_labels, read_model
from archsearch.training.model_json import INT8, MODEL, ONNX, PROGRAM, Check, Speed
from archsearch.training.recipe import Recipe
from archsearch.training.single import read_network
from archsearch.video.clips import RGB, inputs_of, view_batch
from archsearch.video.flow import STEPS, ZERO
from archsearch.video.pack import Pack, PackedSplit

BATCHES = (1, 3)  # of random clips that every file is checked on
REAL = 16  # clips of val that every file is checked on, too
PART = 8  # clips at once


@dataclass(frozen=True)
class Network:
    """A trained network's folder, read whole; `module` takes pixels and gives scores."""

    spec: Spec
    recipe: Recipe
    labels: tuple[str, ...]
    module: fx.GraphModule

    @property
    def sizes(self) -> list[Size]:
        """Of the inputs."""
        return [*self.spec.inputs.values()]

    @property
    def kind(self) -> Kind:
        """What the scores are."""
        return "sigmoid" if self.recipe.loss == "binary" else "softmax"


def read_served(source: Store) -> Network:
    """The network of a folder as a function of pixels. Raises RunError for files that do not belong together."""
    if source.read(MODEL) is not None:
        read_model(source.url)  # its files are as they were written
    spec, recipe, labels = read_network(source)
    check_labels(source.url, spec, labels)
    channels_of(spec)
    net = build(spec, seed=0)
    load_weights(source, net)
    kind: Kind = "sigmoid" if recipe.loss == "binary" else "softmax"
    return Network(spec, recipe, labels, served(net, scalings(spec, recipe), kind))


def scalings(spec: Spec, recipe: Recipe) -> dict[str, Scaling]:
    """How each input is normalised, from 0 ... 255: pixels by the recipe, flow to -1 ... 1."""
    mean, std = (tuple(torch.tensor(values).mul(255).tolist()) for values in (recipe.mean, recipe.std))
    return {
        name: Scaling(mean, std) if size.c == RGB else Scaling((float(ZERO),) * size.c, (float(STEPS),) * size.c)
        for name, size in spec.inputs.items()
    }


def _calls(network: Network, files: Mapping[str, bytes]) -> dict[str, Call]:
    """The files of a folder as functions of clips, by name; 8 bits are not among them."""
    with torch.no_grad():
        module = torch.export.load(BytesIO(files[PROGRAM])).module()
    calls = {PROGRAM: torch_call(module)}
    if ONNX in files:
        calls[ONNX] = runtime_call(load_onnxruntime(files[ONNX], network.recipe.threads))
    if "model.xml" in files:
        calls["model.xml"] = runtime_call(load_openvino(files["model.xml"], 0, files["model.bin"]))
    return calls


def checks(network: Network, files: Mapping[str, bytes], pack: Pack | None) -> tuple[Check, ...]:
    """Every file compared with torch. Raises ArchsearchError where one differs; 8 bits may, and it is said how far."""
    wanted = torch_call(network.module)
    kinds = {"random, batches of 1 and 3": [random_clips(network.sizes, batch, batch) for batch in BATCHES]}
    if pack is not None:
        split = split_of(pack, "val")
        real = decoded_batches(network, split, REAL)
        kinds[f"{sum(len(clips[0]) for clips in real)} of val"] = real
    found = []
    for name, call in _calls(network, files).items():
        for clips, batches in kinds.items():
            found.append(_check(name, clips, checked(name, wanted, call, batches)))
    if INT8 in files:
        call = runtime_call(load_onnxruntime(files[INT8], network.recipe.threads))
        clips, batches = list(kinds.items())[-1]
        worst = max((difference(wanted(b), call(b)) for b in batches), key=lambda each: each.absolute)
        if not np.isfinite(worst.absolute):
            raise RunError(f"{INT8}: its scores are not finite")
        found.append(_check(INT8, clips, worst))
    return tuple(found)


def _check(file: str, clips: str, worst: Difference) -> Check:
    return Check(file=file, clips=clips, difference=worst.absolute, relative=worst.relative)


def decoded_batches(network: Network, split: PackedSplit, most: int) -> list[Clips]:
    """The middle clips of at most so many videos, evenly through a split, as they were decoded."""
    videos = np.unique(np.linspace(0, len(split) - 1, min(most, len(split))).astype(int))
    sampling = sampling_for(network.spec, network.recipe, network.labels)
    parts = np.array_split(videos, -(-len(videos) // PART))
    return [_as_inputs(view_batch(split, part, sampling, 0, 1), network) for part in parts]


def _as_inputs(batch_NTHWC: np.ndarray, network: Network) -> Clips:
    """uint8 clips as batches of each input: float32 (N, C, T, H, W), 0 ... 255."""
    here = network.recipe.model_copy(update={"device": "cpu"})
    pixels = as_pixels(batch_NTHWC, here)
    channels = channels_of(network.spec)
    return tuple(pixels[:, first : first + count].contiguous() for first, count in inputs_of(channels))


def score_served(call: Call, network: Network, split: PackedSplit, report: Callable[[int, int], None]) -> Scores:
    """What a file says of every video of a split, by the recipe's views."""
    sampling = sampling_for(network.spec, network.recipe, network.labels)
    views, total, found = network.recipe.views, len(split), []
    for view in range(views):
        parts = []
        for start in range(0, total, PART):
            indices = np.arange(start, min(start + PART, total))
            parts.append(call(_as_inputs(view_batch(split, indices, sampling, view, views), network)))
            report(view * total + int(indices[-1]) + 1, views * total)
        found.append(np.concatenate(parts).astype(np.float64))
    labels = np.asarray(split.labels)
    if split.label_sets:
        own = [split.labels_of(video) for video in range(total)]
        labels = np.array([[label in each for label in range(len(network.labels))] for each in own], np.uint8)
    return Scores(np.stack(found, 1), labels, split.names, network.recipe.loss == "binary")


def speeds(
    network: Network, files: Mapping[str, bytes], rounds: int, report: Callable[[int, int], None]
) -> tuple[Speed, ...]:
    """Latency of one clip on one thread of this machine's CPU, in turn, and the memory that a forward needs."""
    if not rounds:
        return ()
    cpu, onnx = Setting(), Setting(device="onnxruntime")
    with threads(1):
        runs: dict[str, Run] = {PROGRAM: runner(network.module, network.sizes, cpu)}
        for name in (ONNX, INT8):
            if name in files:
                runs[name] = runtime_runner(files[name], network.sizes, onnx)
        times = interleaved(runs, rounds, report)
    return tuple(_speed(name, summary(ms, 1, load()), network.spec) for name, ms in times.items())


def _speed(name: str, timed: Latency, spec: Spec) -> Speed:
    """A file's latency as it is kept; memory is torch's alone."""
    setting = Setting() if name == PROGRAM else Setting(device="onnxruntime")
    processor, software = machine(setting)
    return Speed(
        file=name,
        device=setting.device,
        processor=processor,
        software=software,
        batch=setting.batch,
        threads=setting.threads,
        median_ms=timed.median_ms,
        p95_ms=timed.p95_ms,
        best_ms=timed.best_ms,
        load=timed.load,
        memory_bytes=peak_memory_bytes(spec, setting) if name == PROGRAM else None,
    )
