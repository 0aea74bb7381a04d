"""Video files to frames and back.

Frames are uint8 arrays (t, h, w, 3), RGB, in display order. A fault of a file is one line of `VideoError`.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from archsearch.errors import VideoError

# The exact flags make the pixels independent of the processor, and cost nothing that can be measured.
INTERPOLATION = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
FAULTS = (av.FFmpegError, OSError, ValueError, MemoryError)
CONSTANT_QUALITY = "aq-mode=0:mbtree=0:ipratio=1.0:pbratio=1.0"


def decode(path: Path, short_side: int | None = None, max_frames: int | None = None) -> np.ndarray:
    """All frames of a video, or the first `max_frames`, as uint8 (t, h, w, 3).

    With `short_side` every frame is resized so that its short side is `short_side` pixels (rounded up to an
    even number); the long side keeps the aspect and is even too. Otherwise frames have the size of the first.
    Rotation stored beside the pixels is applied.

    Raises VideoError for a file that is missing, empty, a folder, without a video stream, damaged, or that
    holds less than half of what its header claims.
    """
    path = Path(path)
    try:
        _check_file(path)
        container = av.open(_address(path))
    except FAULTS as fault:
        raise VideoError(
            f"{path}: not a video that can be read ({_reason(fault)}); encode it again or leave it out"
        ) from None
    with container:
        if not container.streams.video:
            kinds = sorted({stream.type for stream in container.streams})
            raise VideoError(f"{path}: no video stream, only {', '.join(kinds) or 'nothing'}; leave it out")
        return _decode_stream(path, container, short_side, max_frames)


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
        raise VideoError(f"{path}: cannot be written ({_reason(fault)}); choose another folder") from None
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise VideoError(f"{path}: a folder, not a video file; name the files in it")
    if not path.exists():
        raise VideoError(f"{path}: no such file; correct its name or leave it out")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: empty file (0 bytes); copy it again or leave it out")


def _address(path: Path) -> str:
    """The path as FFmpeg takes it; a bare `12:30.mp4` would be a protocol named 12."""
    return f"file:{path}"


def _decode_stream(path: Path, container: InputContainer, short_side: int | None, max_frames: int | None) -> np.ndarray:
    stream = container.streams.video[0]
    # Many videos are decoded side by side; threads of the codec would multiply with those.
    stream.thread_count = 1
    pictures: list[np.ndarray] = []
    reached_seconds = 0.0
    try:
        for picture, end_seconds in _pictures(container, stream, short_side):
            pictures.append(picture)
            reached_seconds = max(reached_seconds, end_seconds)
            if len(pictures) == max_frames:
                return np.stack(pictures)
    except FAULTS as fault:
        claim = f" of {stream.frames}" if stream.frames else ""
        raise VideoError(
            f"{path}: breaks off after {len(pictures)}{claim} frames ({_reason(fault)}); copy it again or leave it out"
        ) from None
    _check_claims(path, container, stream, len(pictures), reached_seconds)
    return np.stack(pictures)


def _pictures(
    container: InputContainer, stream: VideoStream, short_side: int | None
) -> Iterator[tuple[np.ndarray, float]]:
    """(picture (h, w, 3), end of the frame in seconds from the first one) of every frame in display order."""
    reformatter = VideoReformatter()
    size: tuple[int, int] | None = None
    first_seconds: float | None = None
    for frame in container.decode(stream):
        turns = round(frame.rotation / 90) % 4
        upright = (frame.height, frame.width) if turns % 2 == 0 else (frame.width, frame.height)
        size = size or fitted_size(*upright, short_side)
        height, width = size if turns % 2 == 0 else size[::-1]
        picture = reformatter.reformat(
            frame, width, height, "rgb24", interpolation=INTERPOLATION, threads=1
        ).to_ndarray()
        start_seconds = _start_seconds(frame)
        if first_seconds is None:
            first_seconds = start_seconds
        end_seconds = start_seconds - first_seconds + _duration_seconds(frame)
        yield np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture, end_seconds


def _start_seconds(frame: VideoFrame) -> float:
    return 0.0 if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)


def _duration_seconds(frame: VideoFrame) -> float:
    return float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0


def _check_claims(
    path: Path, container: InputContainer, stream: VideoStream, frames: int, reached_seconds: float
) -> None:
    """Raise VideoError where far less decoded than the header claims, by frames or else by duration.

    Half is the limit, as edit lists may honestly hide up to half of the frames of a file.
    """
    if frames == 0:
        raise VideoError(f"{path}: no frame can be decoded; encode it again or leave it out")
    if stream.frames:
        if 2 * frames < stream.frames:
            raise VideoError(
                f"{path}: only {frames} of {stream.frames} frames decode, less than half; copy it again or leave it out"
            )
        return
    claimed_seconds = (container.duration or 0) / av.time_base
    if reached_seconds > 0 and 2 * reached_seconds < claimed_seconds:
        raise VideoError(
            f"{path}: frames end at {reached_seconds:.1f} of {claimed_seconds:.1f} seconds, less than half; "
            "copy it again or leave it out"
        )


def _write_mp4(path: Path, frames: np.ndarray, fps: int, qp: int, intra_only: bool) -> None:
    parameters = f"{CONSTANT_QUALITY}:keyint=1:scenecut=0:rc-lookahead=0" if intra_only else CONSTANT_QUALITY
    options = {"qp": str(qp), "threads": "1", "x264-params": parameters}
    with av.open(_address(path), "w", format="mp4", options={"fflags": "bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for picture in frames:
            container.mux(stream.encode(VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")))
        container.mux(stream.encode(None))


def _size(frames: np.ndarray) -> str:
    return f"{frames.shape[1]} x {frames.shape[2]}"


def _reason(fault: BaseException) -> str:
    """The cause in a few words, on one line and without the file's name (the caller states it)."""
    text = getattr(fault, "strerror", None) or str(fault) or type(fault).__name__
    return " ".join(str(text).split())
