"""Training clips that vary more than in place and mirroring: scale, aspect, pace, direction of time.

Crops are cut at their own size, so that the device they train on does the resizing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from archsearch.errors import DataError
from archsearch.video.clips import Crop, Sampling, frame_indices, gather, mirror, pick
from archsearch.video.pack import PackedSplit

PLACES = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))  # top, left: four corners and the centre
ASPECT = 4 / 3  # of a resized crop's width to its height, at most, or the reverse


@dataclass(frozen=True)
class Variation:
    """How training clips vary; the default adds nothing.

    `scales`: crops of these shares of the short side, at one of five places (`corners`, Hara et al. 2018) or anywhere.
    `area`: crops of such a share of the frame, 3:4 to 4:3 (Szegedy et al. 2015), anywhere. `strides`: from low to
    high. `jitter`: the share of its room in time that each frame moves on its own. `reverse`: the probability that
    frames go backwards. `mirrored` and `reversed` say which label a mirrored or reversed clip has, where another one.
    """

    scales: tuple[float, ...] = ()
    corners: bool = False
    area: tuple[float, float] | None = None
    strides: tuple[int, int] | None = None
    jitter: float = 0.0
    reverse: float = 0.0
    mirrored: Mapping[int, int] = field(default_factory=dict)
    reversed: Mapping[int, int] = field(default_factory=dict)

    @property
    def resizes(self) -> bool:
        """Whether crops come in other sizes than the clip's."""
        return bool(self.scales) or self.area is not None


def varied_clips(
    split: PackedSplit, indices: np.ndarray, sampling: Sampling, variation: Variation, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[tuple[int, ...]]]:
    """Clips of the videos `indices`, each uint8 (frames, h, w, c) of its own size, and the labels of each.

    Every clip draws as many numbers whatever the variation. Raises DataError for a video smaller than the crop.
    """
    clips, sets = [], []
    for video in indices:
        draws = rng.random(8)
        moves = rng.random(sampling.frames)
        labels = split.labels_of(int(video))
        rows, columns = _crop(split, int(video), sampling, variation, draws[:4])
        places = _places(int(split.sizes[video, 0]), sampling, variation, draws[4:6], moves)
        reverse = bool(draws[6] < variation.reverse)
        labels = _moved(labels, variation.reversed) if reverse else labels
        sides = rows.stop - rows.start, columns.stop - columns.start
        clip = np.empty((sampling.frames, *sides, sum(sampling.channels)), np.uint8)
        gather(clip, split, int(video), (rows, columns), places, sampling, reverse)
        if sampling.flip and draws[7] < 0.5 and sampling.no_flip_labels.isdisjoint(labels):
            mirror(clip, sampling)
            labels = _moved(labels, variation.mirrored)
        clips.append(clip)
        sets.append(labels)
    return clips, sets


def _moved(labels: tuple[int, ...], to: Mapping[int, int]) -> tuple[int, ...]:
    return tuple(to.get(label, label) for label in labels)


def _places(
    video_frames: int, sampling: Sampling, variation: Variation, draws: np.ndarray, moves: np.ndarray
) -> np.ndarray:
    """Which video frames a clip has; never decreasing."""
    stride = sampling.stride
    if variation.strides is not None:
        low, high = variation.strides
        stride = low + pick(float(draws[1]), high - low)
    places = frame_indices(video_frames, sampling.frames, stride, float(draws[0]))
    if not variation.jitter:
        return places
    room = video_frames / sampling.frames if stride == "spread" else float(stride)
    moved = places + np.rint((moves - 0.5) * variation.jitter * room).astype(np.int64)
    return np.maximum.accumulate(moved.clip(0, video_frames - 1))


def _crop(split: PackedSplit, video: int, sampling: Sampling, variation: Variation, draws: np.ndarray) -> Crop:
    """The rows and columns of a window."""
    _, height, width = (int(side) for side in split.sizes[video])
    rows, columns = _sides(height, width, sampling, variation, draws[:2])
    if rows > height or columns > width:
        raise DataError(
            f"{split.names[video]}: frames of {height} x {width} pixels are smaller than a crop of {rows} x {columns}; "
            "pack with a larger short side or take smaller clips"
        )
    place = (float(draws[2]), float(draws[3]))
    top, left = PLACES[pick(place[0], len(PLACES) - 1)] if variation.corners else place
    y, x = pick(top, height - rows), pick(left, width - columns)
    return slice(y, y + rows), slice(x, x + columns)


def _sides(height: int, width: int, sampling: Sampling, variation: Variation, draws: np.ndarray) -> tuple[int, int]:
    """Rows and columns of a crop."""
    if variation.area is not None:
        low, high = variation.area
        area = (low + float(draws[0]) * (high - low)) * height * width
        aspect = ASPECT ** (2 * float(draws[1]) - 1)
        return min(height, max(1, round((area / aspect) ** 0.5))), min(width, max(1, round((area * aspect) ** 0.5)))
    if variation.scales:
        scale = variation.scales[pick(float(draws[0]), len(variation.scales) - 1)]
        side = scale * min(height / sampling.height, width / sampling.width)
        return max(1, int(side * sampling.height)), max(1, int(side * sampling.width))
    return sampling.height, sampling.width
