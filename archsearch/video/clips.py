"""Clips out of packed videos: which frames, which crop, as uint8 batches (n, t, h, w, 3)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from archsearch.errors import DataError
from archsearch.video.pack import PackedSplit

Stride = int | Literal["spread"]


@dataclass(frozen=True)
class Sampling:
    """How a clip is cut: `frames` frames of `height` x `width` pixels, `stride` video frames apart or "spread".

    `flip` lets training mirror clips left to right, except for the labels in `no_flip_labels` (a mirrored swipe
    to the left is a swipe to the right). Raises DataError for a size or stride below 1.
    """

    frames: int
    height: int
    width: int
    stride: Stride = "spread"
    flip: bool = True
    no_flip_labels: frozenset[int] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        if min(self.frames, self.height, self.width) < 1:
            raise DataError(f"clip of {self.frames} x {self.height} x {self.width}: every side must be 1 or more")
        if self.stride != "spread" and (not isinstance(self.stride, int) or self.stride < 1):
            raise DataError(f"clip stride {self.stride!r}: must be 'spread' or a whole number of 1 or more")


def frame_indices(video_frames: int, frames: int, stride: Stride, place: float) -> np.ndarray:
    """The video frames of one clip, int64 (frames,), never decreasing; f is taken, x is passed over.

    A whole number as stride: a window of (frames - 1) * stride + 1 video frames, which `place` in [0, 1] moves
    from the first possible start to the last. Twelve video frames, frames=4, stride=2:

        place 0      fxfxfxfxxxxx
        place 0.5    xxxfxfxfxfxx
        place 1      xxxxxfxfxfxf

    A video shorter than the window has its frames spread over its whole length, repeated where it must be:

        6 frames     fxffxf            frames=4, stride=2: the middles of four equal parts

    "spread": the video is cut into `frames` equal segments, and `place` is the position inside each of them.
    It is the same in all segments, so that motion stays uniform:

        place 0      fxxfxxfxxfxx
        place 0.5    xfxxfxxfxxfx
        place 1      xxfxxfxxfxxf
    """
    steps = np.arange(frames, dtype=np.int64)
    if stride == "spread":
        inside = min(max(place, 0.0), 1.0 - 1e-9)
        return np.minimum(((steps + inside) * video_frames / frames).astype(np.int64), video_frames - 1)
    last_start = video_frames - ((frames - 1) * stride + 1)
    if last_start < 0:
        return (2 * steps + 1) * video_frames // (2 * frames)
    return pick(place, last_start) + stride * steps


def training_batch(split: PackedSplit, indices: np.ndarray, sampling: Sampling, rng: np.random.Generator) -> np.ndarray:
    """Clips of the videos `indices`, uint8 (n, frames, height, width, 3), at a random place, crop and mirroring.

    Every clip draws four numbers whatever the sampling, so a batch is a function of the generator's state.
    Raises DataError for a video smaller than the crop.
    """
    draws = rng.random((len(indices), 4))
    batch = _empty_batch(len(indices), sampling)
    for clip, video, (place, top, left, turn) in zip(batch, indices, draws, strict=True):
        frames = _cropped(split, int(video), sampling, top, left)
        _gather(clip, frames, frame_indices(len(frames), sampling.frames, sampling.stride, place))
        if sampling.flip and turn < 0.5 and int(split.labels[video]) not in sampling.no_flip_labels:
            mirror(clip)
    return batch


def view_batch(
    split: PackedSplit,
    indices: np.ndarray,
    sampling: Sampling,
    view: int,
    views: int,
    reverse: bool = False,
    crop: float = 0.5,
) -> np.ndarray:
    """Clips of the videos `indices`, uint8 (n, frames, height, width, 3), never mirrored.

    View `view` of `views` is taken at place (view + 0.5) / views. `reverse` plays its frames backwards. `crop` in
    [0, 1] places the crop along the frames' longer side, from left (or top) to right (or bottom); across it, and by
    default, the crop is in the centre. Raises DataError for a video smaller than the crop.
    """
    if not 0 <= view < views:
        raise DataError(f"view {view} of {views}: must be from 0 to {views - 1}")
    batch = _empty_batch(len(indices), sampling)
    for clip, video in zip(batch, indices, strict=True):
        _, height, width = split.sizes[video]
        top, left = (crop, 0.5) if height > width else (0.5, crop)
        frames = _cropped(split, int(video), sampling, top, left)
        places = frame_indices(len(frames), sampling.frames, sampling.stride, (view + 0.5) / views)
        _gather(clip, frames, places[::-1] if reverse else places)
    return batch


def _empty_batch(clips: int, sampling: Sampling) -> np.ndarray:
    return np.empty((clips, sampling.frames, sampling.height, sampling.width, 3), np.uint8)


def _cropped(split: PackedSplit, video: int, sampling: Sampling, top: float, left: float) -> np.ndarray:
    """The crop of a whole video as a view (t, height, width, 3); `top` and `left` in [0, 1] place it."""
    frames = split.frames(video)
    _, height, width, _ = frames.shape
    if height < sampling.height or width < sampling.width:
        raise DataError(
            f"{split.names[video]}: frames of {height} x {width} pixels are smaller than the clip's "
            f"{sampling.height} x {sampling.width}; pack with a larger short side or take smaller clips"
        )
    y = pick(top, height - sampling.height)
    x = pick(left, width - sampling.width)
    return frames[:, y : y + sampling.height, x : x + sampling.width]


def _gather(clip: np.ndarray, frames: np.ndarray, places: Iterable[int]) -> None:
    """Copy the chosen frames, one copy straight from the memory map; a fancy index would read whole frames."""
    for target, place in zip(clip, places, strict=True):
        target[...] = frames[place]


def mirror(clip: np.ndarray) -> None:
    """Swap left and right in place; channel by channel, six times as fast as by whole pixels."""
    straight = clip.copy()
    for channel in range(clip.shape[3]):
        clip[..., channel] = straight[:, :, ::-1, channel]


def pick(place: float, last: int) -> int:
    """A whole number from 0 to `last`, each for an equal part of `place` in [0, 1]."""
    return min(int(place * (last + 1)), last)
