"""What one reading of a video tells about it: frames, sizes, times and a fingerprint of its pixels."""

import hashlib
from dataclasses import dataclass

import numpy as np

from archsearch.video.pictures import pictures
from archsearch.video.sources import Source

SAMPLE = (64, 64)  # pixels of the pictures that are compared, whatever the aspect
EVEN = 0.1  # relative difference of steps from frame to frame that containers with coarse clocks have


@dataclass(frozen=True)
class Facts:
    """`height` and `width` are upright, `turns` quarter turns stored beside the pixels, `rate` frames a second.

    `seconds` is the length; it and `rate` are None for a folder of frames, `rate` for one frame, too. `variable` says
    that frames come at uneven times. `content` is equal for equal frames, in whatever file and container they are.
    """

    frames: int
    height: int
    width: int
    turns: int
    variable: bool
    seconds: float | None
    rate: float | None
    content: str


def facts(source: Source) -> Facts:
    """The facts of a clip, from decoding all of it; memory does not grow with its length. Raises VideoError."""
    total = hashlib.sha256()
    times: list[float] = []
    stored, turns, end = (0, 0), 0, 0.0
    for picture in pictures(source, lambda h, w: SAMPLE):
        total.update(np.ascontiguousarray(picture.pixels).data)
        stored, turns = picture.stored, picture.turns
        times.append(picture.seconds)
        end = picture.end_seconds
    height, width = stored if turns % 2 == 0 else stored[::-1]
    steps = np.diff(times)
    timed = not source.path.is_dir()
    length = max(end - times[0], float(steps.sum()))
    return Facts(
        frames=len(times),
        height=height,
        width=width,
        turns=turns,
        variable=bool(timed and len(steps) > 1 and np.abs(steps / np.median(steps) - 1).max() > EVEN),
        seconds=length if timed else None,
        rate=len(times) / length if timed and length > 0 and len(times) > 1 else None,
        content=total.hexdigest()[:32],
    )
