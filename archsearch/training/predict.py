"""What a trained network says of videos: of a whole one as `evaluate` scores it, or of windows along it.

Nothing here loads torch but the functions for it; a network in ONNX runs without it.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from archsearch.errors import DataError, RunError, VideoError
from archsearch.video.children import Children, clips_along, decoders, views_of_all
from archsearch.video.clips import Sampling, Stride
from archsearch.video.flow import Method, need_opencv
from archsearch.video.reading import cores, film
from archsearch.video.sources import Source
from archsearch.video.stream import Opening, Rhythm, ahead
from archsearch.video.views import Cut, Timed, window_clips

if TYPE_CHECKING:
    from archsearch.spec.spec import Spec
    from archsearch.store import Store
    from archsearch.training.recipe import Recipe

SECONDS = 2.0  # of a window of a network whose frames are spread over a clip
AHEAD = 2  # batches that are decoded while the network runs
Score = Callable[[np.ndarray], np.ndarray]
Batch = tuple[list[tuple[float, float]], np.ndarray]  # times, and clips (n, t, h, w, c)


@dataclass(frozen=True, eq=False)
class Model:
    """A network as videos are shown to it.

    `score` takes uint8 clips (n, t, h, w, c) and gives probabilities (n, classes), each for itself with `binary`.
    `bound` is in pixels of frames at the short side (see `flow`). `remark` is a sentence for the user, or empty.
    """

    labels: tuple[str, ...]
    sampling: Sampling
    short_side: int
    views: int
    batch: int
    binary: bool
    score: Score
    method: Method = "farneback"
    bound: float | None = None
    remark: str = ""

    @property
    def cut(self) -> Cut:
        """How its clips are cut out of a video."""
        of = self.sampling
        size = of.frames, of.height, of.width
        return Cut(*size, of.stride, of.channels, self.short_side, self.method, self.bound)

    @property
    def depth(self) -> int:
        return self.cut.depth


@dataclass(frozen=True, eq=False)
class Scored:
    """Probabilities (classes) of a stretch of a video, in seconds."""

    begin: float
    end: float
    scores: np.ndarray


def torch_model(place: str) -> Model:
    """The network of a trained network's folder, with its norms folded. Raises RunError, RecipeError, SpecError."""
    import torch

    from archsearch.store import open_store
    from archsearch.training.clips import pack_side, sampling_for
    from archsearch.training.single import on_device_here, read_network

    store = open_store(place)
    spec, recipe, labels = read_network(store)
    if len(labels) != spec.classes:
        raise RunError(f"{place}/labels.txt: has {len(labels)} names; {spec.name} tells {spec.classes} classes apart")
    recipe, remark = on_device_here(recipe)
    torch.set_num_threads(recipe.threads)
    sampling = sampling_for(spec, recipe, labels)
    return Model(
        labels=labels,
        sampling=sampling,
        short_side=pack_side(spec, recipe),
        views=recipe.views,
        batch=recipe.batch,
        binary=recipe.loss == "binary",
        score=_torch_score(store, spec, recipe, sampling),
        method=recipe.flow,
        bound=recipe.flow_bound,
        remark=remark,
    )


def _torch_score(store: "Store", spec: "Spec", recipe: "Recipe", sampling: Sampling) -> Score:
    import torch

    from archsearch.nets.build import build
    from archsearch.nets.fold import folded
    from archsearch.training.checkpoint import load_weights
    from archsearch.training.clips import as_clip

    net = build(spec, seed=recipe.seed)
    load_weights(store, net)
    net = folded(net).to(recipe.device)
    net = net.to(memory_format=torch.channels_last_3d) if recipe.channels_last else net  # type: ignore[call-overload]

    def score(clips: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits = net(as_clip(clips, recipe, sampling.channels)).double()
            found = logits.sigmoid() if recipe.loss == "binary" else logits.softmax(1)
            probabilities: np.ndarray = found.cpu().numpy()
            return probabilities

    return score


def onnx_model(place: str, runtime: str = "onnxruntime") -> Model:
    """The network of a model folder or of a .onnx file in it. Raises RunError and MissingExtra."""
    from archsearch.training.onnx_model import read_onnx

    found = read_onnx(place, runtime)
    facts, cut = found.facts, found.facts.sampling
    _, frames, height, width = facts.inputs[0].shape
    return Model(
        labels=facts.labels,
        sampling=Sampling(frames, height, width, cut.stride, flip=False, channels=found.channels),
        short_side=cut.short_side,
        views=cut.views,
        batch=8,
        binary=facts.output.kind == "sigmoid",
        score=found.scores,
        method=cut.flow or "farneback",
        bound=cut.flow_bound,
    )


MODELS: dict[str, Callable[[str], Model]] = {
    "torch": torch_model,
    "onnx": onnx_model,
    "openvino": partial(onnx_model, runtime="openvino"),
}


def score_videos(model: Model, sources: Sequence[Source]) -> Generator[Scored | VideoError, None, None]:
    """The mean probabilities over the views of each whole video, or its fault, in order; end is a video's length.

    They are those of `evaluate`. Children decode, as many as there are cores, while the network runs. Raises
    MissingExtra where flow needs OpenCV.
    """
    if model.depth:
        need_opencv()
    threads = max(1, cores() // max(1, len(sources)))
    return views_of_all(sources, model.cut, model.views, threads, partial(_score_views, model))


def _score_views(model: Model, source: Source, seconds: float, clips: np.ndarray) -> Scored | VideoError:
    found = [model.score(clips[first : first + model.batch]) for first in range(0, len(clips), model.batch)]
    try:
        return Scored(0.0, seconds, _finite(source, np.concatenate(found)).mean(0))
    except VideoError as fault:
        return fault


def score_windows(
    model: Model,
    source: Source,
    every: float,
    seconds: float | None,
    opening: Opening = film,
    live: bool = False,
    children: Children | None = None,
) -> Generator[Scored, None, None]:
    """Probabilities of windows along a video (see `Rhythm`); a video shorter than a window is scored as one clip.

    `seconds` is the length of windows of a network whose frames are spread, by default 2. One of `children`, or one
    of its own, decodes ahead, and some are scored together; but what is `live` is read here by `opening`, one by one.
    Raises VideoError, perhaps after some windows, and DataError for `seconds` of a network whose frames are a fixed
    number apart.
    """
    rhythm = rhythm_of(model, every, seconds)
    if model.depth:
        need_opencv()
    if live:
        yield from _scored(model, source, _batches(window_clips(source, model.cut, rhythm, opening), 1))
        return
    with nullcontext(children) if children else decoders() as reader:
        batches = _batches(clips_along(reader, source, model.cut, rhythm), model.batch)
        with closing(ahead(batches, AHEAD, reader.interrupt)) as coming:
            yield from _scored(model, source, coming)


def _scored(model: Model, source: Source, batches: Iterable[Batch]) -> Iterator[Scored]:
    for times, clips in batches:
        for (begin, end), scores in zip(times, _finite(source, model.score(clips)), strict=True):
            yield Scored(begin, end, scores)


def rhythm_of(model: Model, every: float, seconds: float | None) -> Rhythm:
    """Which frames windows have. Raises DataError for `seconds` of a network whose frames are a fixed number apart."""
    stride: Stride = model.sampling.stride
    if stride != "spread" and seconds is not None:
        frames = f"{model.sampling.frames} frames, {stride} apart"
        raise DataError(
            f"--seconds {seconds:g}: this network reads {frames}, so the video's rate says how long; drop it"
        )
    return Rhythm(model.sampling.frames, stride, every, SECONDS if seconds is None else seconds, model.depth)


def _batches(read: Iterator[Timed], count: int) -> Generator[Batch, None, None]:
    """The times and the clips (n, t, h, w, c) of up to `count` windows; those before a fault come before it."""
    fault: VideoError | None = None
    while fault is None:
        times: list[tuple[float, float]] = []
        clips: list[np.ndarray] = []
        try:
            for begin, end, clip in islice(read, count):
                clips.append(clip)
                times.append((begin, end))
        except VideoError as error:
            fault = error
        if clips:
            yield times, np.stack(clips)
        elif fault is None:
            return
    raise fault


def _finite(source: Source, scores: np.ndarray) -> np.ndarray:
    if not np.isfinite(scores).all():
        raise VideoError(f"{source.place}: what the network says of it is not finite")
    return scores
