"""The frames of a video one after another, from wherever they lie: files, folders of frames, parts of files.

Times are seconds of presentation, counted from the first frame. A fault of a file is one line of `VideoError`.
"""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from archsearch.errors import VideoError
from archsearch.video.names import frame_files
from archsearch.video.sources import (
    FAULTS,
    SAFE,
    Fit,
    Size,
    Source,
    Span,
    address,
    broken_off,
    check_bytes,
    check_claims,
    check_file,
    check_size,
    opened,
    reason_of,
)

# The exact flags make the pixels independent of the processor, and cost nothing that can be measured.
INTERPOLATION = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
SEEKABLE = ("mov", "matroska")  # containers whose index is by time of presentation; others are read from the start
UNTIMED = ("avi",)  # no times of presentation: B-frames come with those of decoding
STEPS_BACK = (0, 1, 2, 4, 8, 16)  # seconds

Timed = tuple[VideoFrame, Fraction]


@dataclass(frozen=True, eq=False)
class Picture:
    """One frame, upright: uint8 (h, w, 3), RGB. `stored` is its (h, w) in the file, `turns` quarter turns applied."""

    pixels: np.ndarray
    seconds: float
    end_seconds: float
    stored: Size
    turns: int


def pictures(source: Source, fit: Fit) -> Generator[Picture, None, None]:
    """Every frame in display order, resized to `fit(h, w)` of the first one's upright size.

    Raises VideoError, perhaps after some frames: missing, empty, no regular file, without a video stream, damaged,
    less than half of what its header or its span claims, more than 4 GiB of frames.
    """
    check_file(source)
    if source.path.is_dir():
        yield from _folder_pictures(source, fit)
    elif source.span is None and source.frames is None:
        yield from _whole(source, fit)
    else:
        yield from _part(source, fit)


def _whole(source: Source, fit: Fit) -> Iterator[Picture]:
    with opened(source) as (container, stream):
        check_size(source, container, stream, fit, None)
        count, reached = 0, 0.0
        try:
            for picture in _resized(_from_start(container, stream), fit):
                count, reached = count + 1, max(reached, picture.end_seconds)
                yield picture
        except FAULTS as fault:
            raise broken_off(source, count, stream.frames, fault) from None
        check_claims(source, container, stream, count, reached)


def _part(source: Source, fit: Fit) -> Iterator[Picture]:
    """The frames of a span of seconds or of frames."""
    count = 0
    try:
        for picture in _stretch(source, fit):
            count += 1
            yield picture
    except FAULTS as fault:
        raise broken_off(source, count, 0, fault) from None
    if count == 0:
        raise VideoError(f"{source.place}: no frame in that stretch; correct its times or leave it out")


def _stretch(source: Source, fit: Fit) -> Iterator[Picture]:
    """Frames with start <= time < end, from the key frame before `start` where the container can be trusted so far."""
    with opened(source) as (container, stream):
        span, zero = _exact_span(source, container, stream)
        check_size(source, container, stream, fit, span)
        if _is(container, SEEKABLE) and span[0] > 0:
            sought = _sought(container, stream, span[0], zero)
            if sought is not None:
                yield from _resized(_between(source, sought, span), fit)
                return
    with opened(source) as (container, stream):
        yield from _resized(_between(source, _from_start(container, stream), span), fit)


def _exact_span(source: Source, container: InputContainer, stream: VideoStream) -> tuple[Span, int | None]:
    """(start, end) in seconds, and when the first frame is shown, in ticks, where that is known.

    Written decimals are meant, so 0.2 is a fifth. Frames are looked up, not decoded.
    """
    if source.span is not None:
        return (Fraction(str(source.span[0])), Fraction(str(source.span[1]))), None
    first, last = source.frames or (0, 0)
    if _is(container, UNTIMED):
        rate = _rate(stream)
        return (first / rate, last / rate), None
    packets = container.demux(stream)
    times = sorted({packet.pts for packet in packets if packet.pts is not None and not packet.is_discard})
    base = Fraction(stream.time_base or 1)
    if first >= min(last, len(times)):
        raise VideoError(f"{source.place}: no frames {first} to {last}, it has {len(times)}; correct the range")
    end = times[last] if last < len(times) else times[-1] + 1
    return ((times[first] - times[0]) * base, (end - times[0]) * base), times[0]


def _between(source: Source, frames: Iterator[Timed], span: Span) -> Iterator[Timed]:
    """Frames with start <= time < end. Raises VideoError where a file ends before half of a stretch in seconds."""
    reached = Fraction(0)
    for frame, seconds in frames:
        if seconds >= span[1]:
            return
        reached = seconds + (frame.duration or 0) * (frame.time_base or 0)
        if seconds >= span[0]:
            yield frame, seconds
    if source.span is not None and span[0] < reached < (span[0] + span[1]) / 2:
        rule = f"frames end at {float(reached):.1f} seconds, less than half of it; leave it out"
        raise VideoError(f"{source.place}: {rule}")


def _sought(
    container: InputContainer, stream: VideoStream, start: Fraction, zero: int | None
) -> Iterator[Timed] | None:
    """Frames from a key frame on that is shown at or before `start`, or None; the first of all is shown at `zero`.

    An index by time of decoding can lead to a key frame that is shown later than `start`, and frames before it
    would be missing: then the search steps back.
    """
    if zero is None:
        first = next(container.decode(stream), None)
        zero = None if first is None else first.pts
    if zero is None or not stream.time_base:
        return None
    base = stream.time_base
    for seconds in STEPS_BACK:
        target = zero + math.floor((start - seconds) / base)
        if target <= zero:
            return None
        container.seek(target, stream=stream)
        frames = container.decode(stream)
        head = next(frames, None)
        if head is not None and head.key_frame and head.pts is not None and (head.pts - zero) * base <= start:
            return ((each, (each.pts - zero) * base) for each in chain([head], frames) if each.pts is not None)
    return None


def _from_start(container: InputContainer, stream: VideoStream) -> Iterator[Timed]:
    """All frames and their times from the first one, by number and rate where the container knows no times."""
    zero: Fraction | None = None
    for number, frame in enumerate(container.decode(stream)):
        seconds = number / _rate(stream)
        if frame.pts is not None and frame.time_base and not _is(container, UNTIMED):
            zero = frame.pts * frame.time_base if zero is None else zero
            seconds = frame.pts * frame.time_base - zero
        yield frame, seconds


def _resized(frames: Iterator[Timed], fit: Fit) -> Iterator[Picture]:
    """Upright pictures of one size."""
    reformatter = VideoReformatter()
    size: Size | None = None
    for frame, seconds in frames:
        turns = round(frame.rotation / 90) % 4
        upright = (frame.height, frame.width) if turns % 2 == 0 else (frame.width, frame.height)
        size = size or fit(*upright)
        height, width = size if turns % 2 == 0 else size[::-1]
        scaled = reformatter.reformat(frame, width, height, "rgb24", interpolation=INTERPOLATION, threads=1)
        pixels: np.ndarray = scaled.to_ndarray()
        if turns:
            pixels = np.ascontiguousarray(np.rot90(pixels, turns))
        length = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
        yield Picture(pixels, float(seconds), float(seconds) + length, (frame.height, frame.width), turns)


def _folder_pictures(source: Source, fit: Fit) -> Iterator[Picture]:
    """Numbered .jpg or .png files in natural order, one a second as nothing tells their rate."""
    if source.span is not None:
        raise VideoError(f"{source.place}: a folder of frames has no times; name the frames of that stretch alone")
    files = frame_files(source.path)[slice(*(source.frames or (0, None)))]
    size: Size | None = None
    for number, file in enumerate(files):
        kind = "png_pipe" if file.suffix.lower() == ".png" else "jpeg_pipe"
        try:
            with av.open(address(file), format=kind, options=SAFE) as container:
                frame = next(container.decode(container.streams.video[0]))
                fitted = size or fit(frame.height, frame.width)
                if size is None:
                    check_bytes(source, len(files), (frame.height, frame.width), fitted)
                size = fitted
                (picture,) = _resized(iter([(frame, Fraction(number))]), lambda *_, fitted=fitted: fitted)
        except (*FAULTS, StopIteration, IndexError) as fault:
            reason = f"frame {file.name} cannot be read ({reason_of(fault)}); copy it again or leave it out"
            raise VideoError(f"{source.place}: {reason}") from None
        yield picture


def _is(container: InputContainer, kinds: tuple[str, ...]) -> bool:
    return any(kind in container.format.name.split(",") for kind in kinds)


def _rate(stream: VideoStream) -> Fraction:
    return Fraction(stream.average_rate or stream.guessed_rate or 25)
