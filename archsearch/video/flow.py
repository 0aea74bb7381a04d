"""Dense optical flow between the frames of a video, as bytes.

A field holds u (to the right) and v (down), in pixels of the frame, for each pixel of the earlier of two frames.
Bytes are 128 + rint(127 clip(d / bound, -1, 1)): nothing moves at 128, and 256 - x is the opposite of x.
OpenCV is loaded by the functions that compute; whoever only reads fields does not need it.
"""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from archsearch.errors import MissingExtra, VideoError

Method = Literal["farneback", "tvl1", "dis"]
ZERO, STEPS = 128, 127  # the byte of no motion, and how many there are to the bound
BOUND, AT_SIDE = 20.0, 256  # pixels at a short side of as many (Carreira & Zisserman 2017 truncate there)
Compute = Callable[[np.ndarray, np.ndarray], np.ndarray]


def default_bound(short_side: int) -> float:
    """The displacement in pixels that 127 steps stand for in frames of that short side: 20 at 256."""
    return BOUND * short_side / AT_SIDE


def need_opencv() -> None:
    """Raises MissingExtra where OpenCV is not installed."""
    if find_spec("cv2") is None:
        raise MissingExtra("optical flow needs OpenCV: pip install 'archsearch[flow]'")


def fields(frames: np.ndarray, method: Method, bound: float) -> Iterator[np.ndarray]:
    """The flow of frames (t, h, w, 3), a field (h, w, 2) of uint8 for each frame: from it to the next one.

    The last frame has the field before it once more; a single frame has no motion. `bound` is in pixels. Raises
    VideoError for frames too small for the method, or an OpenCV without it.
    """
    field = np.full((*frames.shape[1:3], 2), ZERO, np.uint8)
    if len(frames) > 1:
        cv2 = _opencv()
        compute = _computing(cv2, method)
        grey = (cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in frames)
        for earlier, later in pairwise(grey):
            field = as_bytes(compute(earlier, later), bound)
            yield field
    yield field


def as_bytes(displacement: np.ndarray, bound: float) -> np.ndarray:
    """Pixels as bytes; what is farther than the bound counts as the bound, what is not a number as no motion."""
    share = np.nan_to_num(displacement / bound, nan=0.0).clip(-1, 1)
    found: np.ndarray = (ZERO + np.rint(STEPS * share)).astype(np.uint8)
    return found


def _opencv() -> Any:
    """OpenCV, which takes one core: many videos are computed side by side."""
    try:
        import cv2
    except ImportError as fault:
        raise VideoError(f"OpenCV cannot be loaded ({fault}): pip install 'archsearch[flow]'") from None
    cv2.setNumThreads(1)
    return cv2


def _computing(cv2: Any, method: Method) -> Compute:
    """What gives the field (h, w, 2) in pixels from one grey frame to another; a fault of OpenCV is one line."""

    def compute(earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(calc(earlier, later))
        except cv2.error as fault:
            size, reason = f"{earlier.shape[0]} x {earlier.shape[1]}", fault.err or str(fault)
            rule = f"{method} cannot take frames of {size} pixels ({reason}); take another method or larger frames"
            raise VideoError(rule) from None

    calc = _methods(cv2)[method]()
    return compute


def _methods(cv2: Any) -> dict[Method, Callable[[], Compute]]:
    """Farneback 2003 as OpenCV's examples set it; TV-L1 (Zach et al. 2007) and DIS (Kroeger et al. 2016) as it does."""

    def farneback() -> Compute:
        return lambda a, b: cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 3, 15, 3, 5, 1.2, 0)

    def tvl1() -> Compute:
        if not hasattr(cv2, "optflow"):
            raise VideoError("this OpenCV has no tvl1: pip install opencv-contrib-python-headless, or take dis")
        method = cv2.optflow.createOptFlow_DualTVL1()
        return lambda a, b: method.calc(a, b, None)

    def dis() -> Compute:
        method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        return lambda a, b: method.calc(a, b, None)

    return {"farneback": farneback, "tvl1": tvl1, "dis": dis}
