"""Clips out of packed videos: which frames, which crop, as uint8 batches (n, t, h, w, c)."""

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

import numpy as np

from archsearch.errors import DataError

if TYPE_CHECKING:  # which a process that only decodes need not load
    from archsearch.video.pack import PackedSplit

RGB = 3  # channels; an even number of channels is optical flow

Stride = int | Literal["spread"]
Crop = tuple[slice, slice]  # rows and columns


@dataclass(frozen=True)
class Sampling:
    """How a clip is cut: `frames` frames of `height` x `width` pixels, `stride` video frames apart or "spread".

    `flip` lets training mirror clips left to right, but none that has a label in `no_flip_labels` (a mirrored swipe
    to the left is a swipe to the right). `channels` are those of each input, which lie behind each other in a clip:
    3 for pixels, 2 k for optical flow, that is u and v of the field at a frame and of the k - 1 fields after it (the
    last field of a video stands for those behind it). Raises DataError for a size or stride below 1 or other channels.
    """

    frames: int
    height: int
    width: int
    stride: Stride = "spread"
    flip: bool = True
    no_flip_labels: frozenset[int] = field(default_factory=frozenset)
    channels: tuple[int, ...] = (RGB,)

    def __post_init__(self) -> None:
        if not self.channels or any(count != RGB and (count < 2 or count % 2) for count in self.channels):
            given = ", ".join(map(str, self.channels))
            raise DataError(
                f"inputs of {given} channels: should be 3 (pixels) or an even number (u, v of optical flow)"
            )
        if min(self.frames, self.height, self.width) < 1:
            raise DataError(f"clip of {self.frames} x {self.height} x {self.width}: every side must be 1 or more")
        if self.stride != "spread" and (not isinstance(self.stride, int) or self.stride < 1):
            raise DataError(f"clip stride {self.stride!r}: must be 'spread' or a whole number of 1 or more")


def frame_indices(video_frames: int | np.ndarray, frames: int, stride: Stride, place: float | np.ndarray) -> np.ndarray:
    """The video frames of one clip, int64 (frames,), never decreasing; f is taken, x is passed over.

    Of several clips, given as arrays (n,): (n, frames).

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
    found: np.ndarray
    steps, length, inside = np.arange(frames), np.asarray(video_frames)[..., None], np.asarray(place)[..., None]
    if stride == "spread":
        inside = np.clip(inside, 0.0, 1.0 - 1e-9)
        found = np.minimum(((steps + inside) * length / frames).astype(np.int64), length - 1)
        return found
    last = length - ((frames - 1) * stride + 1)
    start = np.minimum((inside * (last + 1)).astype(np.int64), last)
    found = np.where(last < 0, (2 * steps + 1) * length // (2 * frames), start + stride * steps)
    return found


def training_batch(
    split: "PackedSplit", indices: np.ndarray, sampling: Sampling, rng: np.random.Generator
) -> np.ndarray:
    """Clips of the videos `indices`, uint8 (n, frames, height, width, c), at a random place, crop and mirroring.

    Every clip draws four numbers whatever the sampling, so a batch is a function of the generator's state.
    Raises DataError for a video smaller than the crop.
    """
    draws = rng.random((len(indices), 4))
    batch = _empty_batch(len(indices), sampling)
    windows = frame_indices(split.sizes[indices, 0], sampling.frames, sampling.stride, draws[:, 0])
    crops = _crops(split, indices, sampling, draws[:, 1:3])
    turned = (draws[:, 3] < 0.5).tolist()
    for clip, video, crop, places, turn in zip(batch, indices.tolist(), crops, windows, turned, strict=True):
        gather(clip, split, video, crop, places, sampling)
        if sampling.flip and turn and sampling.no_flip_labels.isdisjoint(split.labels_of(video)):
            mirror(clip, sampling)
    return batch


def view_batch(
    split: "PackedSplit",
    indices: np.ndarray,
    sampling: Sampling,
    view: int,
    views: int,
    reverse: bool = False,
    crop: float = 0.5,
) -> np.ndarray:
    """Clips of the videos `indices`, uint8 (n, frames, height, width, c), never mirrored.

    View `view` of `views` is taken at place (view + 0.5) / views. `reverse` plays its frames backwards. `crop` in
    [0, 1] places the crop along the frames' longer side, from left (or top) to right (or bottom); across it, and by
    default, the crop is in the centre. Raises DataError for a video smaller than the crop.
    """
    if not 0 <= view < views:
        raise DataError(f"view {view} of {views}: must be from 0 to {views - 1}")
    batch = _empty_batch(len(indices), sampling)
    lengths, heights, widths = split.sizes[indices].T
    windows = frame_indices(lengths, sampling.frames, sampling.stride, (view + 0.5) / views)
    crops = _crops(split, indices, sampling, np.where((heights > widths)[:, None], (crop, 0.5), (0.5, crop)))
    for clip, video, window, places in zip(batch, indices.tolist(), crops, windows, strict=True):
        gather(clip, split, video, window, places, sampling, reverse)
    return batch


def _empty_batch(clips: int, sampling: Sampling) -> np.ndarray:
    return np.empty((clips, sampling.frames, sampling.height, sampling.width, sum(sampling.channels)), np.uint8)


def _crops(split: "PackedSplit", indices: np.ndarray, sampling: Sampling, corners: np.ndarray) -> list[Crop]:
    """The clip's rows and columns of the frames of each video; `corners` (n, 2) in [0, 1] are its top and left."""
    room = split.sizes[indices, 1:] - (sampling.height, sampling.width)
    small = indices[(room < 0).any(1)].tolist()
    if small:
        _, height, width = split.sizes[small[0]]
        raise DataError(
            f"{split.names[small[0]]}: frames of {height} x {width} pixels are smaller than the clip's "
            f"{sampling.height} x {sampling.width}; pack with a larger short side or take smaller clips"
        )
    places = np.minimum((corners * (room + 1)).astype(np.int64), room).tolist()
    return [(slice(y, y + sampling.height), slice(x, x + sampling.width)) for y, x in places]


def gather(
    clip: np.ndarray,
    split: "PackedSplit",
    video: int,
    crop: Crop,
    places: np.ndarray,
    sampling: Sampling,
    reverse: bool = False,
) -> None:
    """Copy the frames and fields at `places`, in the opposite order for `reverse`, into a clip (t, h, w, c)."""
    places = places[::-1] if reverse else places
    for first, count in inputs_of(sampling.channels):
        target = clip[..., first : first + count]
        if count == RGB:
            _copy(target, split.frames(video)[:, *crop], places)
        else:
            _copy_flow(target, split.fields(video)[:, *crop], places, reverse)


@lru_cache
def inputs_of(channels: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """The first channel of each input in a clip, and how many it has."""
    return tuple((end - count, count) for end, count in zip(accumulate(channels), channels, strict=True))


def _copy(clip: np.ndarray, frames: np.ndarray, places: np.ndarray) -> None:
    """Some frames, into a clip or some of its channels; the latter one by one, thrice as fast as by whole pixels."""
    chosen = frames[places]
    if clip.flags.c_contiguous:
        clip[...] = chosen
        return
    for channel in range(clip.shape[3]):
        clip[..., channel] = chosen[..., channel]


def _copy_flow(clip: np.ndarray, fields: np.ndarray, places: np.ndarray, reverse: bool) -> None:
    """Stacks of fields from each place on: (t, h, w, 2 k).

    Backwards, what leads from a frame to the one before it is the opposite of the field that leads there. Flow that
    is computed of reversed frames lies at the pixels of the other frame, so this comes close to it and no more.
    """
    for depth in range(clip.shape[3] // 2):
        part = clip[..., 2 * depth : 2 * depth + 2]
        if reverse:
            _copy(part, fields, np.maximum(places - 1 - depth, 0))
            np.negative(part, out=part)
        else:
            _copy(part, fields, np.minimum(places + depth, len(fields) - 1))


def mirror(clip: np.ndarray, sampling: Sampling) -> None:
    """Swap left and right in place, also in what u says; channel by channel, six times as fast as by whole pixels."""
    straight = clip.copy()
    for channel in range(clip.shape[3]):
        clip[..., channel] = straight[:, :, ::-1, channel]
    for first, count in inputs_of(sampling.channels):
        if count != RGB:
            np.negative(clip[..., first : first + count : 2], out=clip[..., first : first + count : 2])


def pick(place: float, last: int) -> int:
    """A whole number from 0 to `last`, each for an equal part of `place` in [0, 1]."""
    return min(int(place * (last + 1)), last)
