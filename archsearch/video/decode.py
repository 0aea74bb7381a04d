"""Video files to frames and back.

Frames are uint8 arrays (t, h, w, 3), RGB, in display order. A fault of a file is one line of `VideoError`.
"""

import os
import tempfile
from collections.abc import Generator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.frame import VideoFrame

from archsearch.errors import VideoError
from archsearch.video.pictures import pictures
from archsearch.video.sources import FAULTS, MAX_BYTES, Source, reason_of, source_of

if TYPE_CHECKING:
    from archsearch.video.dataset import Video

CONSTANT_QUALITY = "aq-mode=0:mbtree=0:ipratio=1.0:pbratio=1.0"


def decode(path: Path, short_side: int | None = None, max_frames: int | None = None) -> np.ndarray:
    """All frames of a video or of a folder of frames, or the first `max_frames`, as uint8 (t, h, w, 3).

    With `short_side` every frame is resized so that its short side is `short_side` pixels (rounded up to an
    even number); the long side keeps the aspect and is even too. Otherwise frames have the size of the first.
    Rotation stored beside the pixels is applied.

    Raises VideoError for a file that is missing, empty, a folder without frames, without a video stream, damaged,
    that holds less than half of what its header claims, or more than 4 GiB of frames.
    """
    return _stacked(Source(Path(path), str(path)), short_side, max_frames)


def decode_video(video: "Video", short_side: int | None = None) -> np.ndarray:
    """The frames of a video of a data set, whole or a stretch of it, as `decode` gives those of a file.

    A stretch has the frames with start <= time < end, times of presentation counted from the first frame, whatever
    the frame rate. Decoding begins at the key frame before it (mp4, mov, mkv, webm; others are read from the start).
    """
    return _stacked(source_of(video), short_side)


def decode_frames(path: Path, first: int, last: int, short_side: int | None = None) -> np.ndarray:
    """The frames `first` to `last`, the last excluded, counted from 0; otherwise as `decode`."""
    return _stacked(Source(Path(path), str(path), frames=(first, last)), short_side)


def decoded(source: Source, short_side: int | None) -> Generator[np.ndarray, None, None]:
    """The frames of a source one after another, each (h, w, 3). Raises VideoError where they get too many."""
    total = 0
    for picture in pictures(source, partial(fitted_size, short_side=short_side)):
        total += picture.pixels.nbytes
        if total > MAX_BYTES:
            raise VideoError(f"{source.place}: more than {MAX_BYTES >> 30} GiB of frames; cut it or list stretches")
        yield picture.pixels


def _stacked(source: Source, short_side: int | None, max_frames: int | None = None) -> np.ndarray:
    frames: list[np.ndarray] = []
    with closing(decoded(source, short_side)) as decoding:
        for picture in decoding:
            frames.append(picture)
            if len(frames) == max_frames:
                break
    return np.stack(frames)


def fitted_size(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """(h, w) with the short side at `short_side`, both sides even and the aspect kept; unchanged for None."""
    if short_side is None:
        return height, width
    side = short_side + short_side % 2
    scale = side / min(height, width)
    return max(side, 2 * round(height * scale / 2)), max(side, 2 * round(width * scale / 2))


def encode(path: Path, frames: np.ndarray, fps: int = 15, qp: int = 26, intra_only: bool = True) -> None:
    """Write uint8 frames (t, h, w, 3) as an h264 mp4 of constant quantiser, whole or not at all.

    `intra_only` makes every frame a key frame coded without a look at the others, so that compression tells
    nothing about the direction of time. The same frames give the same bytes.

    Raises VideoError for frames of another shape, odd sides, or a folder that cannot be written.
    """
    path = Path(path)
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or len(frames) == 0:
        raise VideoError(f"{path}: frames are {frames.dtype} {frames.shape}; give uint8 (t, h, w, 3) with t above 0")
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise VideoError(f"{path}: frames of {_size(frames)} pixels; h264 needs even sides, crop one pixel")
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(descriptor)
        _write_mp4(Path(temporary), frames, fps, qp, intra_only)
        os.replace(temporary, path)
    except FAULTS as fault:
        raise VideoError(f"{path}: cannot be written ({reason_of(fault)}); choose another folder") from None
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def _write_mp4(path: Path, frames: np.ndarray, fps: int, qp: int, intra_only: bool) -> None:
    parameters = f"{CONSTANT_QUALITY}:keyint=1:scenecut=0:rc-lookahead=0" if intra_only else CONSTANT_QUALITY
    options = {"qp": str(qp), "threads": "1", "x264-params": parameters}
    with av.open(f"file:{path}", "w", format="mp4", options={"fflags": "bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for picture in frames:
            container.mux(stream.encode(VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")))
        container.mux(stream.encode(None))


def _size(frames: np.ndarray) -> str:
    return f"{frames.shape[1]} x {frames.shape[2]}"
