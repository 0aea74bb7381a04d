"""Labelled copies of videos: a line of text at the foot of every frame, as h264 without sound."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from archsearch.errors import VideoError
from archsearch.video.decode import fitted_size
from archsearch.video.pictures import pictures
from archsearch.video.reading import Counter, Resizing, film, length_of, rate_of
from archsearch.video.sources import FAULTS, Source, broken_off, reason_of

CLOCK = 90_000  # ticks a second of the copy
SHARE, LEAST = 1 / 20, 10  # of the text's height: of the frame's, and pixels
SHADE = 0.35  # of the picture's brightness behind the text
OPTIONS: dict[str, object] = {"preset": "veryfast", "crf": "23"}

Caption = tuple[float, str]  # until when, in seconds, and what is said


def label_copy(
    source: Source, out: Path, captions: Sequence[Caption], report: Callable[[float], None] = lambda _: None
) -> None:
    """Writes a copy of a video with what `captions` say of each time, whole or not at all; sound is left out.

    Captions are in order of time; behind the last one the last one stays. `report(seconds)` hears how far it is.
    Raises VideoError where the video cannot be read, or `out` cannot be written or exists.
    """
    if out.exists():
        raise VideoError(f"{out}: exists; name another file")
    temporary = ""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".label.", suffix=".part", dir=out.parent)
        os.close(descriptor)
        _write(Path(temporary), _frames(source), captions, report)
        os.chmod(temporary, 0o644)
        os.replace(temporary, out)
    except FAULTS as fault:
        raise VideoError(f"{out}: cannot be written ({reason_of(fault)}); choose another folder") from None
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)


def _frames(source: Source) -> Iterator[tuple[np.ndarray, float, float]]:
    """Upright frames (h, w, 3) of one size, with the time they begin and how long they last."""

    def fit(height: int, width: int) -> tuple[int, int]:
        return fitted_size(height, width, None)

    if source.path.is_dir():
        yield from ((picture.pixels, picture.seconds, 1.0) for picture in pictures(source, fit))
        return
    with film(source) as (container, stream):
        counter, resize = Counter(), Resizing(source, fit)
        try:
            for frame, seconds in counter.timed(container, stream):
                yield resize.now(frame), seconds, length_of(frame, stream) or 1 / rate_of(stream)
        except FAULTS as fault:
            raise broken_off(source, counter.frames, stream.frames, fault) from None


def _write(
    path: Path,
    frames: Iterator[tuple[np.ndarray, float, float]],
    captions: Sequence[Caption],
    report: Callable[[float], None],
) -> None:
    place, latest = 0, -1
    with av.open(f"file:{path}", "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream: VideoStream | None = None
        for pixels, seconds, length in frames:
            tick = round(seconds * CLOCK)
            if tick <= latest:  # a player shows one of two frames of one time
                continue
            latest = tick
            pixels = pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]  # as h264 wants it
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(1 / length).limit_denominator(1001))
                stream.options = dict(OPTIONS)
                stream.height, stream.width, stream.pix_fmt = pixels.shape[0], pixels.shape[1], "yuv420p"
                stream.codec_context.time_base = Fraction(1, CLOCK)
            while place + 1 < len(captions) and captions[place][0] <= seconds:
                place += 1
            text = captions[place][1] if captions else ""
            frame = VideoFrame.from_ndarray(draw(pixels, text), "rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, CLOCK)
            container.mux(stream.encode(frame))
            report(seconds)
        if stream is not None:
            container.mux(stream.encode(None))


def draw(frame: np.ndarray, text: str) -> np.ndarray:
    """A copy of a frame (h, w, 3) with a line of white text on a darker band at its foot."""
    copy = np.ascontiguousarray(frame).copy()
    if not text:
        return copy
    mask = _mask(text, *frame.shape[:2])
    foot = copy[-mask.shape[0] :]
    foot[...] = (SHADE * foot * (1 - mask[..., None]) + 255 * mask[..., None]).astype(np.uint8)
    return copy


@lru_cache(maxsize=8)
def _mask(text: str, height: int, width: int) -> np.ndarray:
    """How much of each pixel of the band is text, 0 to 1: (rows, width). What is too wide is cut."""
    from matplotlib import get_data_path
    from PIL import Image, ImageDraw, ImageFont

    size = max(LEAST, round(height * SHARE))
    font = ImageFont.truetype(str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)
    shown = text
    while len(shown) > 1 and font.getlength(shown) > width - size:
        shown = shown[:-2].rstrip("…") + "…"
    band = Image.new("L", (width, min(height, round(1.6 * size))))
    ImageDraw.Draw(band).text((size / 2, band.height / 2), shown, fill=255, font=font, anchor="lm")
    mask: np.ndarray = np.asarray(band, np.float32) / 255
    return mask
