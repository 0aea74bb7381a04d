"""What a network is shown of a video: the clips of its views, or of windows along it.

Clips are uint8 (t, h, w, c), cropped in the centre of frames of one short side. A fault of a file is one line of
`VideoError`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from archsearch.errors import VideoError
from archsearch.video.clips import RGB, Stride, frame_indices, inputs_of, pick
from archsearch.video.decode import fitted_size
from archsearch.video.flow import Method, default_bound, fields
from archsearch.video.reading import Tick, chosen, film, unheard
from archsearch.video.sources import Source
from archsearch.video.stream import Opening, Rhythm, windows

Place = tuple[np.ndarray, Sequence[np.ndarray]]  # of a clip: the frame, and those that its flow is computed of
Timed = tuple[float, float, np.ndarray]  # a clip, after its begin and end in seconds


@dataclass(frozen=True)
class Cut:
    """How clips are cut: `frames` frames of `height` x `width` pixels, of `channels` (see `Sampling`).

    `bound` is in pixels of frames at the short side, None for the usual one (see `flow`).
    """

    frames: int
    height: int
    width: int
    stride: Stride
    channels: tuple[int, ...]
    short_side: int
    method: Method = "farneback"
    bound: float | None = None

    @property
    def depth(self) -> int:
        """The fields of optical flow that a place of a clip has, 0 of a network that reads pixels alone."""
        return max((count // 2 for count in self.channels if count != RGB), default=0)


def view_clips(
    source: Source, cut: Cut, views: int, threads: int = 0, tick: Tick = unheard
) -> tuple[float, np.ndarray]:
    """The length of a video in seconds, and clips (views, t, h, w, c) at the places that evaluation takes.

    Raises VideoError, also for frames smaller than a clip.
    """
    read = chosen(
        source,
        lambda count: {number for view in _numbers(cut, count, views) for place, of in view for number in (place, *of)},
        partial(fitted_size, short_side=cut.short_side),
        threads,
        tick,
    )
    places = (
        [(read.frames[place], [read.frames[number] for number in of]) for place, of in view]
        for view in _numbers(cut, read.count, views)
    )
    return read.seconds, np.stack([_clip(source, cut, each, tick) for each in places])


def clips_along(source: Source, cut: Cut, rhythm: Rhythm, tick: Tick = unheard) -> Iterator[Timed]:
    """The clips of windows along a video; one shorter than a window is a clip as a whole.

    Raises VideoError, perhaps after some clips.
    """
    some = False
    for timed in window_clips(source, cut, rhythm, film, tick):
        some = True
        yield timed
    if not some:
        seconds, clips = view_clips(source, cut, 1, 0, tick)
        yield 0.0, seconds, clips[0]


def window_clips(source: Source, cut: Cut, rhythm: Rhythm, opening: Opening, tick: Tick = unheard) -> Iterator[Timed]:
    """The clips of windows that end within what `opening` opens. Raises VideoError, perhaps after some clips."""
    for window in windows(source, rhythm, partial(fitted_size, short_side=cut.short_side), opening, tick):
        yield window.begin, window.end, _clip(source, cut, [(stack[0], stack) for stack in window.stacks], tick)


def _numbers(cut: Cut, count: int, views: int) -> list[list[tuple[int, range]]]:
    """By view and place of a video of `count` frames: a frame's number, and those that its flow is computed of.

    The last frame's flow is that of the one before.
    """
    last = count - 1
    found = []
    for view in range(views):
        places = frame_indices(count, cut.frames, cut.stride, (view + 0.5) / views).tolist()
        flows = (range(max(min(place, last - 1), 0), min(place + cut.depth, last) + 1) for place in places)
        found.append([(place, of if cut.depth else range(0)) for place, of in zip(places, flows, strict=True)])
    return found


def _clip(source: Source, cut: Cut, places: Sequence[Place], tick: Tick) -> np.ndarray:
    """A clip (t, h, w, c) out of frames. Raises VideoError for frames smaller than that."""
    height, width = places[0][0].shape[:2]
    if height < cut.height or width < cut.width:
        size = f"{cut.height} x {cut.width}"
        raise VideoError(f"{source.place}: frames of {height} x {width} pixels are smaller than the clip's {size}")
    top, left = pick(0.5, height - cut.height), pick(0.5, width - cut.width)
    crop = slice(top, top + cut.height), slice(left, left + cut.width)
    clip = np.empty((cut.frames, cut.height, cut.width, sum(cut.channels)), np.uint8)
    for first, count in inputs_of(cut.channels):
        for target, (frame, of) in zip(clip[..., first : first + count], places, strict=True):
            target[...] = frame[crop] if count == RGB else _flow(source, cut, of, count // 2)[crop]
            tick()
    return clip


def _flow(source: Source, cut: Cut, frames: Sequence[np.ndarray], depth: int) -> np.ndarray:
    """The fields (h, w, 2 depth) from a frame on; the last one stands for those behind it."""
    bound = default_bound(min(frames[0].shape[:2])) if cut.bound is None else cut.bound
    try:
        found = list(fields(np.stack(frames[: depth + 1]), cut.method, bound))
    except VideoError as fault:
        raise VideoError(f"{source.place}: {fault.lines[0]}") from None
    return np.concatenate([found[min(number, len(found) - 1)] for number in range(depth)], axis=-1)
