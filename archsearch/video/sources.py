"""Where clips lie, how they are opened, and what is refused before anything is decoded."""

import math
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from archsearch.errors import VideoError
from archsearch.video.names import frame_files

if TYPE_CHECKING:
    from archsearch.video.dataset import Video

FAULTS = (av.FFmpegError, OSError, ValueError, MemoryError)
# A playlist that is called .mp4 must not fetch what it names.
SAFE = {"protocol_whitelist": "file,subfile"}
MAX_BYTES = 4 << 30  # of the decoded frames of one clip
MAX_PIXELS = 1 << 26  # of one stored frame: 8192 x 8192

Size = tuple[int, int]
Fit = Callable[[int, int], Size]
Span = tuple[Fraction, Fraction]


@dataclass(frozen=True)
class Source:
    """Where a clip's frames are; `place` is how faults call it.

    `span` is (start, end) in seconds: the frames with start <= time < end. `frames` is (first, last) in frames, last
    excluded. `member` is (offset, size) in bytes within `path`.
    """

    path: Path
    place: str
    span: tuple[float, float] | None = None
    member: tuple[int, int] | None = None
    frames: tuple[int, int] | None = None


def source_of(video: "Video") -> Source:
    """Where a video of a data set is."""
    return Source(video.path, f"{video.path}{part_of(video)}", video.span, video.member)


def part_of(video: "Video") -> str:
    """What stands behind the file's path in a list: `#t=1.5,9`, `#member.mp4`, or nothing for a whole file."""
    if video.span is not None:
        return "#t=" + video.name.rpartition("#t=")[2]
    return "#" + video.name.partition(".tar#")[2] if video.member is not None else ""


@contextmanager
def opened(source: Source) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its video stream. Raises VideoError."""
    try:
        container = av.open(address(source.path, source.member), options=SAFE)
    except FAULTS as fault:
        rule = f"not a video that can be read ({reason_of(fault)}); encode it again or leave it out"
        raise VideoError(f"{source.place}: {rule}") from None
    with container:
        if not container.streams.video:
            kinds = sorted({stream.type for stream in container.streams})
            raise VideoError(f"{source.place}: no video stream, only {', '.join(kinds) or 'nothing'}; leave it out")
        stream = container.streams.video[0]
        # Many videos are decoded side by side; threads of the codec would multiply with those.
        stream.thread_count = 1
        yield container, stream


def address(path: Path, member: tuple[int, int] | None = None) -> str:
    """The path as FFmpeg takes it; a bare `12:30.mp4` would be a protocol named 12."""
    if member is None:
        return f"file:{path}"
    return f"subfile,,start,{member[0]},end,{member[0] + member[1]},,:file:{path}"


def check_file(source: Source) -> None:
    """Raise VideoError for what is no file with something in it, and no folder of frames."""
    try:
        known = source.path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise VideoError(f"{source.place}: no such file; correct its name or leave it out") from None
    except (OSError, ValueError) as fault:
        rule = f"not a video that can be read ({reason_of(fault)}); encode it again or leave it out"
        raise VideoError(f"{source.place}: {rule}") from None
    if stat.S_ISDIR(known.st_mode):
        if not frame_files(source.path):
            raise VideoError(f"{source.place}: a folder, not a video file; name the files in it")
    elif not stat.S_ISREG(known.st_mode):
        raise VideoError(f"{source.place}: a pipe or a device, not a video file; leave it out")
    elif known.st_size == 0 or (source.member is not None and source.member[1] == 0):
        raise VideoError(f"{source.place}: empty file (0 bytes); copy it again or leave it out")


def check_size(source: Source, container: InputContainer, stream: VideoStream, fit: Fit, span: Span | None) -> None:
    """Raise VideoError for more frames than memory should hold, going by the header, before any is decoded."""
    stored = getattr(stream, "height", 0), getattr(stream, "width", 0)  # none of an unknown codec
    if min(stored) < 1:
        return
    rate = float(stream.average_rate or 0)
    seconds = (container.duration or 0) / av.time_base
    frames = stream.frames or int(seconds * rate)
    if span is not None:
        frames = min(frames, math.ceil(float(span[1] - span[0]) * rate))
    # A quarter turn swaps the sides, which may change what fits by a pixel.
    check_bytes(source, frames, stored, fit(*stored))


def check_bytes(source: Source, frames: int, stored: Size, fitted: Size) -> None:
    """Raise VideoError for frames too large to decode, or too many of a size to hold."""
    size = frames * fitted[0] * fitted[1] * 3
    if stored[0] * stored[1] > MAX_PIXELS:
        raise VideoError(
            f"{source.place}: frames of {stored[0]} x {stored[1]} pixels, the limit is {MAX_PIXELS >> 20} million; "
            "encode it smaller or leave it out"
        )
    if size > MAX_BYTES:
        raise VideoError(
            f"{source.place}: {frames} frames of {fitted[0]} x {fitted[1]} pixels are {size / 2**30:.1f} GiB, the "
            f"limit of one clip is {MAX_BYTES >> 30}; cut it or list stretches of it"
        )


def check_claims(source: Source, container: InputContainer, stream: VideoStream, frames: int, reached: float) -> None:
    """Raise VideoError where far less decoded than the header claims, by frames or else by duration.

    Half is the limit, as edit lists may honestly hide up to half of the frames of a file.
    """
    if frames == 0:
        raise VideoError(f"{source.place}: no frame can be decoded; encode it again or leave it out")
    if stream.frames:
        if 2 * frames < stream.frames:
            rule = f"only {frames} of {stream.frames} frames decode, less than half; copy it again or leave it out"
            raise VideoError(f"{source.place}: {rule}")
        return
    claimed_seconds = (container.duration or 0) / av.time_base
    if reached > 0 and 2 * reached < claimed_seconds:
        raise VideoError(
            f"{source.place}: frames end at {reached:.1f} of {claimed_seconds:.1f} seconds, less than half; "
            "copy it again or leave it out"
        )


def broken_off(source: Source, frames: int, claimed: int, fault: BaseException) -> VideoError:
    """The fault of a video that ended after `frames` of the `claimed` ones, 0 for not known."""
    if isinstance(fault, VideoError):
        return fault
    claim = f" of {claimed}" if claimed else ""
    rule = f"breaks off after {frames}{claim} frames ({reason_of(fault)}); copy it again or leave it out"
    return VideoError(f"{source.place}: {rule}")


def reason_of(fault: BaseException) -> str:
    """The cause in a few words, on one line and without the file's name (the caller states it)."""
    text = getattr(fault, "strerror", None) or str(fault) or type(fault).__name__
    return " ".join(str(text).split())
