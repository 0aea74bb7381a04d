"""What a trained network says of videos: of a whole one as `evaluate` scores it, or of windows along it.

Nothing here loads torch but the functions for it; a network in ONNX runs without it.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from archsearch.errors import DataError, RunError, VideoError
from archsearch.video.clips import RGB, Sampling, Stride, frame_indices, inputs_of, pick
from archsearch.video.decode import fitted_size
from archsearch.video.flow import Method, default_bound, fields, need_opencv
from archsearch.video.reading import chosen, cores, film
from archsearch.video.sources import Source
from archsearch.video.stream import Opening, Rhythm, Window, ahead, windows

if TYPE_CHECKING:
    from archsearch.spec.spec import Spec
    from archsearch.store import Store
    from archsearch.training.recipe import Recipe

SECONDS = 2.0  # of a window of a network whose frames are spread over a clip
AHEAD = 2  # batches that are decoded while the network runs
Score = Callable[[np.ndarray], np.ndarray]
Place = tuple[np.ndarray, Sequence[np.ndarray]]  # of a clip: the frame, and those that its flow is computed of


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
    def depth(self) -> int:
        """The fields of optical flow that a place of a clip has, 0 of a network that reads pixels alone."""
        return max((count // 2 for count in self.sampling.channels if count != RGB), default=0)


@dataclass(frozen=True, eq=False)
class Scored:
    """Probabilities (classes) of a stretch of a video, in seconds."""

    begin: float
    end: float
    scores: np.ndarray


def torch_model(place: str) -> Model:
    """The network of a trained network's folder, as `evaluate` runs it. Raises RunError, RecipeError, SpecError."""
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
    from archsearch.training.checkpoint import load_weights
    from archsearch.training.clips import as_clip

    net = build(spec, seed=recipe.seed).to(recipe.device)
    load_weights(store, net)
    net = net.to(memory_format=torch.channels_last_3d) if recipe.channels_last else net  # type: ignore[call-overload]
    net.eval()

    def score(clips: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits = net(as_clip(clips, recipe, sampling.channels)).double()
            found = logits.sigmoid() if recipe.loss == "binary" else logits.softmax(1)
            probabilities: np.ndarray = found.cpu().numpy()
            return probabilities

    return score


def onnx_model(place: str) -> Model:
    """The network of a model folder or of a .onnx file in it. Raises RunError and MissingExtra."""
    from archsearch.training.onnx_model import read_onnx

    found = read_onnx(place)
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


MODELS: dict[str, Callable[[str], Model]] = {"torch": torch_model, "onnx": onnx_model}


def score_video(model: Model, source: Source, threads: int = 0) -> Scored:
    """The mean probabilities over the views of a whole video, which are those of `evaluate`; end is its length.

    Raises VideoError, also for frames smaller than a clip, and MissingExtra where flow needs OpenCV.
    """
    clips, seconds = _view_clips(model, source, model.views, threads)
    found = [model.score(clips[first : first + model.batch]) for first in range(0, len(clips), model.batch)]
    return Scored(0.0, seconds, _finite(source, np.concatenate(found)).mean(0))


def score_videos(model: Model, sources: Sequence[Source]) -> Generator[Scored | VideoError, None, None]:
    """What `score_video` gives of each video, or its fault, in order; as many at a time as there are cores."""
    workers = max(1, min(cores(), len(sources)))
    waiting = iter(sources)
    coming: deque[Future[Scored]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            while True:
                for source in islice(waiting, 2 * workers - len(coming)):
                    coming.append(pool.submit(score_video, model, source, max(1, cores() // workers)))
                if not coming:
                    return
                try:
                    yield coming.popleft().result()
                except VideoError as fault:
                    yield fault
        finally:
            pool.shutdown(cancel_futures=True)


def score_windows(
    model: Model, source: Source, every: float, seconds: float | None, opening: Opening = film, live: bool = False
) -> Generator[Scored, None, None]:
    """Probabilities of windows along a video (see `Rhythm`); a video shorter than a window is scored as one clip.

    `seconds` is the length of windows of a network whose frames are spread, by default 2. Some are decoded ahead and
    scored together, but when `live`. Raises VideoError, perhaps after some windows, and DataError for `seconds` of a
    network whose frames are a fixed number apart.
    """
    rhythm = rhythm_of(model, every, seconds)
    if model.depth:
        need_opencv()
    count = 1 if live else model.batch
    read = windows(source, rhythm, partial(fitted_size, short_side=model.short_side), opening)
    batches = _batches(model, source, read, count)
    some = False
    for times, clips in batches if live else ahead(batches, AHEAD):
        some = True
        for (begin, end), scores in zip(times, _finite(source, model.score(clips)), strict=True):
            yield Scored(begin, end, scores)
    if not some and not live:
        clip, length = _view_clips(model, source, 1, 0)
        yield Scored(0.0, length, _finite(source, model.score(clip))[0])


def rhythm_of(model: Model, every: float, seconds: float | None) -> Rhythm:
    """Which frames windows have. Raises DataError for `seconds` of a network whose frames are a fixed number apart."""
    stride: Stride = model.sampling.stride
    if stride != "spread" and seconds is not None:
        frames = f"{model.sampling.frames} frames, {stride} apart"
        raise DataError(
            f"--seconds {seconds:g}: this network reads {frames}, so the video's rate says how long; drop it"
        )
    return Rhythm(model.sampling.frames, stride, every, SECONDS if seconds is None else seconds, model.depth)


def _batches(
    model: Model, source: Source, read: Iterator[Window], count: int
) -> Generator[tuple[list[tuple[float, float]], np.ndarray], None, None]:
    """The times and the clips (n, t, h, w, c) of up to `count` windows; those before a fault come before it."""
    fault: VideoError | None = None
    while fault is None:
        times: list[tuple[float, float]] = []
        clips: list[np.ndarray] = []
        try:
            for window in islice(read, count):
                clips.append(_clip(model, source, [(stack[0], stack) for stack in window.stacks]))
                times.append((window.begin, window.end))
        except VideoError as error:
            fault = error
        if clips:
            yield times, np.stack(clips)
        elif fault is None:
            return
    raise fault


def _view_clips(model: Model, source: Source, views: int, threads: int) -> tuple[np.ndarray, float]:
    """Clips (views, t, h, w, c) at the places that evaluation takes, and the length of the video in seconds."""
    if model.depth:
        need_opencv()
    read = chosen(
        source,
        lambda count: {
            number for view in _numbers(model, count, views) for place, of in view for number in (place, *of)
        },
        partial(fitted_size, short_side=model.short_side),
        threads,
    )
    places = (
        [(read.frames[place], [read.frames[number] for number in of]) for place, of in view]
        for view in _numbers(model, read.count, views)
    )
    return np.stack([_clip(model, source, each) for each in places]), read.seconds


def _numbers(model: Model, count: int, views: int) -> list[list[tuple[int, range]]]:
    """By view and place of a video of `count` frames: a frame's number, and those that its flow is computed of.

    The last frame's flow is that of the one before.
    """
    sampling, last = model.sampling, count - 1
    found = []
    for view in range(views):
        places = frame_indices(count, sampling.frames, sampling.stride, (view + 0.5) / views).tolist()
        flows = (range(max(min(place, last - 1), 0), min(place + model.depth, last) + 1) for place in places)
        found.append([(place, of if model.depth else range(0)) for place, of in zip(places, flows, strict=True)])
    return found


def _clip(model: Model, source: Source, places: Sequence[Place]) -> np.ndarray:
    """A clip (t, h, w, c) out of frames, cropped in the centre. Raises VideoError for frames smaller than that."""
    sampling = model.sampling
    height, width = places[0][0].shape[:2]
    if height < sampling.height or width < sampling.width:
        size = f"{sampling.height} x {sampling.width}"
        raise VideoError(f"{source.place}: frames of {height} x {width} pixels are smaller than the clip's {size}")
    top, left = pick(0.5, height - sampling.height), pick(0.5, width - sampling.width)
    crop = slice(top, top + sampling.height), slice(left, left + sampling.width)
    clip = np.empty((sampling.frames, sampling.height, sampling.width, sum(sampling.channels)), np.uint8)
    for first, count in inputs_of(sampling.channels):
        for target, (frame, of) in zip(clip[..., first : first + count], places, strict=True):
            target[...] = frame[crop] if count == RGB else _flow(model, source, of, count // 2)[crop]
    return clip


def _flow(model: Model, source: Source, frames: Sequence[np.ndarray], depth: int) -> np.ndarray:
    """The fields (h, w, 2 depth) from a frame on; the last one stands for those behind it."""
    bound = default_bound(min(frames[0].shape[:2])) if model.bound is None else model.bound
    try:
        found = list(fields(np.stack(frames[: depth + 1]), model.method, bound))
    except VideoError as fault:
        raise VideoError(f"{source.place}: {fault.lines[0]}") from None
    return np.concatenate([found[min(number, len(found) - 1)] for number in range(depth)], axis=-1)


def _finite(source: Source, scores: np.ndarray) -> np.ndarray:
    if not np.isfinite(scores).all():
        raise VideoError(f"{source.place}: what the network says of it is not finite")
    return scores
