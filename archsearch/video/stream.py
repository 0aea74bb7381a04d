"""A video read once, in order, in memory that does not grow with its length: windows of frames, and chosen frames.

Times are seconds of presentation, counted from the first frame. A fault of a file is one line of `VideoError`.
"""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from archsearch.errors import VideoError
from archsearch.video.names import frame_files, is_video
from archsearch.video.pictures import pictures
from archsearch.video.reading import Counter, Needed, Resizing, Tick, film, length_of, rate_of, unheard
from archsearch.video.sources import FAULTS, Fit, Source, broken_off, check_claims

if TYPE_CHECKING:
    from archsearch.video.clips import Stride

GAP_SECONDS = 60.0  # between frames; a clock that jumps farther starts windows anew, and none lie in between
CLOSE = 1e-6  # seconds; times of frames are rounded

T = TypeVar("T")
Opening = Callable[[Source], AbstractContextManager[tuple[InputContainer, VideoStream]]]
Shown = tuple[Callable[[], np.ndarray], float, float]  # what gives the pixels, and from and until when


@dataclass(frozen=True)
class Rhythm:
    """Which frames windows have: `frames` each, a window every `every` seconds; each frame is the one shown at a time.

    A whole number as stride: that many frames of the video apart, at its mean rate. "spread": the middles of as many
    equal parts of `seconds`. At a constant rate both are the frames that `frame_indices` picks. `after` frames that
    follow each come with it, for optical flow.
    """

    frames: int
    stride: "Stride"
    every: float
    seconds: float
    after: int = 0

    def length(self, rate: float) -> float:
        """Seconds from the begin of a window to its end, at a rate in frames a second."""
        return self.seconds if self.stride == "spread" else ((self.frames - 1) * self.stride + 1) / rate

    def offsets(self, rate: float) -> np.ndarray:
        """The times of its frames, in seconds from the begin of a window."""
        if self.stride == "spread":
            return CLOSE + (np.arange(self.frames) + 0.5) * (self.seconds / self.frames)
        # The middle of a frame, so that rounding of times does not matter.
        return (np.arange(self.frames) * self.stride + 0.5) / rate


@dataclass(frozen=True, eq=False)
class Window:
    """Frames uint8 (h, w, 3) of a stretch of a video: for each place the frame, and those `after` it."""

    begin: float
    end: float
    stacks: tuple[tuple[np.ndarray, ...], ...]


@dataclass(eq=False)
class _Open:
    """A window that is not full yet; a frame is taken for every target in [its time, the next one's)."""

    begin: float
    end: float
    targets: np.ndarray
    stacks: list[list[np.ndarray]] = field(default_factory=list)

    def take(self, pixels: Callable[[], np.ndarray], until: float, after: int) -> None:
        """A frame that is shown until then; `pixels` is called where it is needed."""
        for stack in self.stacks:
            if len(stack) <= after:
                stack.append(pixels())
        while len(self.stacks) < len(self.targets) and self.targets[len(self.stacks)] < until:
            self.stacks.append([pixels()])

    def full(self, until: float, after: int) -> bool:
        return until >= self.end and len(self.stacks) == len(self.targets) and len(self.stacks[-1]) > after


def find_videos(path: Path) -> list[Path]:
    """A file as it is; of a folder the videos in it, or folders of frames where it has none. Raises VideoError."""
    try:
        if not path.is_dir():
            return [path]
    except (OSError, ValueError):  # a name that no file can have is told where it is read
        return [path]
    files = sorted(file for file in path.rglob("*") if is_video(file))
    if files:
        return files
    folders = [folder for folder in sorted([path, *path.rglob("*")]) if folder.is_dir() and frame_files(folder)]
    if not folders:
        raise VideoError(f"{path}: a folder without videos; name one that has some")
    return folders


def windows(
    source: Source, rhythm: Rhythm, fit: Fit, opening: Opening = film, tick: Tick = unheard
) -> Generator[Window, None, None]:
    """The windows of a video in order of time, of frames resized to `fit(h, w)` of the first one's upright size.

    A window ends within the video, so one shorter than a window has none. What is held is the windows that are not
    full yet. Raises VideoError, perhaps after some windows, as `pictures` does.
    """
    if source.path.is_dir():
        yield from _filled(_shown_pictures(source, fit, tick), rhythm, 1.0)
        return
    with opening(source) as (container, stream):
        rate, resize, counter = rate_of(stream), Resizing(source, fit), Counter(tick)
        yield from _filled(_shown(container, stream, resize, counter, _needed(rhythm, rate)), rhythm, rate)


def _filled(shown: Iterable[Shown], rhythm: Rhythm, rate: float) -> Iterator[Window]:
    """Windows out of frames, each with the time it is shown from and until."""
    offsets, length, slack = rhythm.offsets(rate), rhythm.length(rate), 0.5 / rate
    number, last = 0, 0.0
    unfilled: deque[_Open] = deque()
    for pixels, seconds, until in shown:
        if seconds > last + CLOSE:  # what was longer than a gap has been cut to it
            unfilled.clear()
            number = max(number, math.ceil(seconds / rhythm.every))
        last = until
        while (begin := number * rhythm.every) < until:
            unfilled.append(_Open(begin, begin + length - slack, begin + offsets))
            number += 1
        for each in unfilled:
            each.take(pixels, until, rhythm.after)
        while unfilled and unfilled[0].full(until, rhythm.after):
            done = unfilled.popleft()
            yield Window(done.begin, done.begin + length, tuple(tuple(stack) for stack in done.stacks))


def _needed(rhythm: Rhythm, rate: float) -> Needed | None:
    """Whether a window has a frame with from <= time < to; None where each frame may be needed."""
    if rhythm.after:
        return None
    offsets = rhythm.offsets(rate)

    def needed(begin: float, end: float) -> bool:
        steps = np.maximum(np.ceil((begin - offsets) / rhythm.every), 0)
        return bool((steps * rhythm.every + offsets < end).any())

    return needed


def _shown_pictures(source: Source, fit: Fit, tick: Tick) -> Iterator[Shown]:
    """The frames of a folder, one a second."""
    for picture in pictures(source, fit):
        tick()
        yield (lambda pixels=picture.pixels: pixels), picture.seconds, picture.seconds + 1  # type: ignore[misc]


def _shown(
    container: InputContainer, stream: VideoStream, resize: Resizing, counter: Counter, needed: Needed | None
) -> Iterator[Shown]:
    """Frames with the times they are shown from and until; what gives their pixels resizes them once.

    Frames that are not `needed` may be missing.
    """
    source = resize.source
    held: tuple[VideoFrame, float] | None = None
    try:
        for frame, seconds in counter.timed(container, stream, needed):
            if held is not None:
                yield resize.later(held[0]), held[1], min(seconds, held[1] + GAP_SECONDS)
            held = frame, max(seconds, held[1] if held else 0.0)
        if held is not None:
            yield resize.later(held[0]), held[1], held[1] + length_of(held[0], stream)
    except FAULTS as fault:
        raise broken_off(source, counter.frames, stream.frames, fault) from None
    reached = 0.0 if held is None else held[1] + length_of(held[0], stream)
    check_claims(source, container, stream, 0 if held is None else counter.frames, reached)


def ahead(
    items: Generator[T, None, None], depth: int, stop: Callable[[], None] = lambda: None
) -> Generator[T, None, None]:
    """The same items, made in a thread of their own up to `depth` before they are asked for.

    Whoever wants no more of them closes this; `stop` is called then, to interrupt the making of the next one.
    """
    end, coming = object(), deque[Future[Any]]()
    with ThreadPoolExecutor(1) as thread:
        try:
            coming.extend(thread.submit(next, items, end) for _ in range(depth))
            while (item := coming.popleft().result()) is not end:
                coming.append(thread.submit(next, items, end))
                yield item
        except (GeneratorExit, KeyboardInterrupt):
            stop()
            raise
        finally:
            for future in coming:
                future.cancel()
    items.close()
