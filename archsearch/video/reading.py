"""Frames out of files and cameras, decoded only where they are needed, and chosen ones by their number.

Times are seconds of presentation, counted from the first frame. A fault of a file is one line of `VideoError`.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from archsearch.errors import VideoError
from archsearch.video.names import frame_files
from archsearch.video.pictures import INTERPOLATION, UNTIMED, pictures
from archsearch.video.sources import (
    FAULTS,
    Fit,
    Size,
    Source,
    broken_off,
    check_bytes,
    check_claims,
    check_file,
    opened,
    reason_of,
)

GROUP_PACKETS, GROUP_BYTES = 300, 16 << 20  # held back at most until it is known whether they are needed
CAMERAS: dict[str, tuple[str | None, str]] = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}"),
}  # format of FFmpeg and address of a camera

Needed = Callable[[float, float], bool]
Tick = Callable[[], None]  # called again and again while work goes on


def unheard() -> None:
    """A tick that nobody waits for."""


@contextmanager
def film(source: Source, threads: int = 0) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A file that is decoded by so many threads, 0 for one a core. Raises VideoError."""
    check_file(source)
    with opened(source) as (container, stream):
        stream.thread_count = threads
        stream.thread_type = "AUTO"
        yield container, stream


def camera_source(number: int) -> Source:
    """The camera of a number. Raises VideoError where this system's cameras are not known."""
    _, place = _camera(number)
    return Source(Path(place), f"camera {number} ({place})")


@contextmanager
def camera(number: int) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A camera of this machine. Raises VideoError where it is not there."""
    kind, place = _camera(number)
    try:
        container = av.open(place, format=kind)
    except FAULTS as fault:
        raise VideoError(f"camera {number}: {place} cannot be opened ({reason_of(fault)}); connect one") from None
    with container:
        if not container.streams.video:
            raise VideoError(f"camera {number}: {place} gives no pictures; name another")
        yield container, container.streams.video[0]


def _camera(number: int) -> tuple[str | None, str]:
    if sys.platform not in CAMERAS:
        raise VideoError(f"camera {number}: cameras are read on Linux and macOS; give a file")
    kind, place = CAMERAS[sys.platform]
    return kind, place.format(number)


@dataclass(frozen=True, eq=False)
class Chosen:
    """Some frames (h, w, 3) of a video by their number, how many it has, and its length in seconds."""

    frames: dict[int, np.ndarray]
    count: int
    seconds: float


def length_of(frame: VideoFrame, stream: VideoStream) -> float:
    known = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
    return known or 1 / rate_of(stream)


@dataclass(eq=False)
class Counter:
    """Frames and their times; `frames` says how many there have been, those passed over too."""

    tick: Tick = unheard
    frames: int = 0
    zero: float | None = None

    def timed(
        self, container: InputContainer, stream: VideoStream, needed: Needed | None = None
    ) -> Iterator[tuple[VideoFrame, float]]:
        """Frames in display order; of those that are not `needed` most are never decoded."""
        untimed = any(kind in UNTIMED for kind in container.format.name.split(","))
        base = float(stream.time_base or 0)
        if untimed or not base or stream.start_time is None:
            needed = None
        begin = float((stream.start_time or 0) * base)
        for packet in self._worth(container.demux(stream), begin, base, needed):
            self.tick()
            if needed is not None:
                stream.codec_context.skip_frame = "DEFAULT" if _may_show(packet, begin, base, needed) else "NONREF"
                self.frames += packet.pts is not None
            for frame in packet.decode():
                self.frames += needed is None
                if frame.pts is None or not base or untimed:
                    yield frame, (self.frames - 1) / rate_of(stream)
                    continue
                self.zero = frame.pts * base if self.zero is None else self.zero
                yield frame, frame.pts * base - self.zero

    def _worth(
        self, packets: "Iterator[Packet[VideoStream]]", begin: float, base: float, needed: Needed | None
    ) -> "Iterator[Packet[VideoStream]]":
        """Packets without the groups, from a key frame to the next, in which nothing is needed."""
        group: list[Packet[VideoStream]] = []
        size = 0
        for packet in packets:
            self.tick()
            ends = packet.is_keyframe or packet.pts is None
            if needed is None or ends or len(group) > GROUP_PACKETS or size > GROUP_BYTES:
                idle = needed is not None and ends and not _any_shown(group, begin, base, needed)
                self.frames += len(group) if idle else 0
                yield from () if idle else group
                group, size = [], 0
            if needed is None or packet.pts is None:
                yield packet
                continue
            group.append(packet)
            size += packet.size
        yield from group


def _any_shown(group: "list[Packet[VideoStream]]", begin: float, base: float, needed: Needed) -> bool:
    """Whether something of a group may be needed; what begins with no key frame belongs to something that was."""
    return bool(group) and (not group[0].is_keyframe or any(_may_show(each, begin, base, needed) for each in group))


def _may_show(packet: "Packet[VideoStream]", begin: float, base: float, needed: Needed) -> bool:
    """Whether the frame of a packet, or one beside it, is needed; so is one of unknown time or length."""
    if packet.pts is None or not packet.duration:
        return True
    seconds, length = packet.pts * base - begin, packet.duration * base
    return needed(seconds - length, seconds + 2 * length)


class Resizing:
    """Upright pixels of one size, that of the first frame as `fit` has it."""

    def __init__(self, source: Source, fit: Fit) -> None:
        self.source, self.fit = source, fit
        self.size: Size | None = None
        self.reformatter = VideoReformatter()

    def later(self, frame: VideoFrame) -> Callable[[], np.ndarray]:
        """What gives the pixels (h, w, 3) of a frame, made once."""
        made: list[np.ndarray] = []

        def pixels() -> np.ndarray:
            if not made:
                made.append(self.now(frame))
            return made[0]

        return pixels

    def now(self, frame: VideoFrame) -> np.ndarray:
        """The pixels (h, w, 3) of a frame. Raises VideoError for a size that is refused."""
        turns = round(frame.rotation / 90) % 4
        upright = (frame.height, frame.width) if turns % 2 == 0 else (frame.width, frame.height)
        if self.size is None:
            self.size = self.fit(*upright)
            check_bytes(self.source, 1, upright, self.size)
        height, width = self.size if turns % 2 == 0 else self.size[::-1]
        scaled = self.reformatter.reformat(frame, width, height, "rgb24", interpolation=INTERPOLATION, threads=1)
        pixels: np.ndarray = scaled.to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def rate_of(stream: VideoStream) -> float:
    """Frames a second, 25 where nothing tells."""
    return float(stream.average_rate or stream.guessed_rate or 25)


def seconds_of(source: Source) -> float:
    """The length of a video as its header says, 0 where it says nothing. Raises VideoError."""
    check_file(source)
    if source.path.is_dir():
        return float(len(frame_files(source.path)))
    with opened(source) as (container, _):
        return (container.duration or 0) / av.time_base


def chosen(
    source: Source, wanted: Callable[[int], set[int]], fit: Fit, threads: int = 0, tick: Tick = unheard
) -> Chosen:
    """The frames `wanted(count)` of a video, whose number of frames is known when it is decoded.

    Frames are those of `decode`. Raises VideoError as `pictures` does, but for the size of all frames.
    """
    check_file(source)
    if source.path.is_dir():
        guess = len(frame_files(source.path))
        return Chosen(_of_folder(source, wanted(guess), fit, tick), guess, float(guess))
    with film(source, threads) as (container, stream):
        guess = _packets(source, container, stream, tick)
    choice = _choose(source, wanted(guess), fit, threads, tick)
    if choice.count != guess:  # headers and packets may hide frames, or promise more
        choice = _choose(source, wanted(choice.count), fit, threads, tick)
    return choice


def _of_folder(source: Source, numbers: set[int], fit: Fit, tick: Tick) -> dict[int, np.ndarray]:
    found: dict[int, np.ndarray] = {}
    for number, picture in enumerate(pictures(source, fit)):
        tick()
        if number in numbers:
            found[number] = picture.pixels
    return found


def _packets(source: Source, container: InputContainer, stream: VideoStream, tick: Tick) -> int:
    count = 0
    try:
        for packet in container.demux(stream):
            tick()
            count += packet.pts is not None and not packet.is_discard
        return max(1, count)
    except FAULTS as fault:
        raise broken_off(source, 0, stream.frames, fault) from None


def _choose(source: Source, numbers: set[int], fit: Fit, threads: int, tick: Tick) -> Chosen:
    with film(source, threads) as (container, stream):
        counter, resize = Counter(tick), Resizing(source, fit)
        found: dict[int, np.ndarray] = {}
        end = 0.0
        try:
            for number, (frame, seconds) in enumerate(counter.timed(container, stream)):
                if number in numbers:
                    found[number] = resize.now(frame)
                end = max(end, seconds + length_of(frame, stream))
        except FAULTS as fault:
            raise broken_off(source, counter.frames, stream.frames, fault) from None
        check_claims(source, container, stream, counter.frames, end)
        return Chosen(found, counter.frames, end)


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
