"""Decoding and encoding, on real files that are whole, damaged, or no videos at all."""

import os
import subprocess
import sys
import tarfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from archsearch.errors import VideoError
from archsearch.video import pictures, sources
from archsearch.video.dataset import Video
from archsearch.video.decode import decode, decode_frames, decode_video, encode, fitted_size

HEIGHT, WIDTH = 48, 64


def waves(count: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Smooth frames (t, h, w, 3) that all differ."""
    t, y, x = np.mgrid[:count, :height, :width]
    channels = [np.sin(x / 9 + t / 3), np.cos(y / 7 - t / 5), np.sin((x + y) / 11 + t / 4)]
    return (127 + 100 * np.stack(channels, axis=-1)).astype(np.uint8)


def write_with_av(path: Path, frames: np.ndarray, codec: str, rotation: int = 0, **options: str) -> None:
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=15)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode(None))


def write_at(path: Path, times_ms: np.ndarray, codec: str = "libx264", **options: str) -> Path:
    """A video whose frames are shown at `times_ms`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1000, options=options)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for pixels, time in zip(waves(len(times_ms)), times_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = int(time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def stretch(path: Path, start: float, end: float) -> np.ndarray:
    return decode_video(Video(path, f"{path.name}#t={start:g},{end:g}", 0, span=(start, end)))


def fault_of(path: Path) -> str:
    with pytest.raises(VideoError) as caught:
        decode(path)
    (line,) = caught.value.lines
    assert "\n" not in line
    assert line.startswith(f"{path}: ")
    return line


def test_decode_gives_back_what_was_encoded(tmp_path):
    frames = waves(6)
    encode(tmp_path / "a.mp4", frames, qp=10)
    decoded = decode(tmp_path / "a.mp4")
    assert decoded.shape == frames.shape
    assert decoded.dtype == np.uint8
    # 3.2 is the loss of chroma at half resolution; neighbouring frames differ by more than 10.
    assert np.abs(decoded.astype(int) - frames).mean() < 5
    assert np.abs(decoded[1:].astype(int) - frames[:-1]).mean() > 10


def test_a_colon_in_a_name_is_no_protocol(tmp_path):
    (tmp_path / "12:30 h").mkdir()
    encode(tmp_path / "12:30 h" / "13:05.mp4", waves(2))
    assert len(decode(tmp_path / "12:30 h" / "13:05.mp4")) == 2


def test_max_frames_are_the_first_ones(tmp_path):
    encode(tmp_path / "a.mp4", waves(6))
    np.testing.assert_array_equal(decode(tmp_path / "a.mp4", max_frames=2), decode(tmp_path / "a.mp4")[:2])


def test_the_same_frames_give_the_same_bytes_and_no_part_files(tmp_path):
    encode(tmp_path / "a.mp4", waves(6))
    encode(tmp_path / "b.mp4", waves(6))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_intra_only_is_blind_to_the_direction_of_time(tmp_path):
    for intra_only, equal in ((True, True), (False, False)):
        encode(tmp_path / "a.mp4", waves(8), intra_only=intra_only)
        encode(tmp_path / "b.mp4", waves(8)[::-1], intra_only=intra_only)
        assert np.array_equal(decode(tmp_path / "a.mp4"), decode(tmp_path / "b.mp4")[::-1]) is equal


@pytest.mark.parametrize(
    ("height", "width", "short_side", "expected"),
    [
        (240, 320, None, (240, 320)),
        (240, 320, 64, (64, 86)),
        (320, 240, 64, (86, 64)),
        (240, 320, 63, (64, 86)),
        (100, 101, 50, (50, 50)),
        (32, 32, 64, (64, 64)),
    ],
)
def test_fitted_size(height, width, short_side, expected):
    assert fitted_size(height, width, short_side) == expected


def test_decode_resizes_to_the_short_side(tmp_path):
    encode(tmp_path / "a.mp4", waves(2))
    small = decode(tmp_path / "a.mp4", short_side=24)
    assert small.shape == (2, 24, 32, 3)
    averaged = decode(tmp_path / "a.mp4").reshape(2, 24, 2, 32, 2, 3).mean(axis=(2, 4))
    # The scaler's wider window blurs a little more than a mean of four; one pixel aside, twice as much.
    assert np.abs(small - averaged).mean() < 5
    assert np.abs(small[:, :, 1:] - averaged[:, :, :-1]).mean() > 8


@pytest.mark.parametrize(("rotation", "row", "column"), [(90, -1, 0), (-90, 0, -1), (180, -1, -1)])
def test_stored_rotation_is_applied(tmp_path, rotation, row, column):
    """A white patch in the upper left corner goes where a counterclockwise turn puts it."""
    frames = np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)
    frames[:, :16, :16] = 255
    write_with_av(tmp_path / "a.mp4", frames, "libx264", rotation)
    decoded = decode(tmp_path / "a.mp4", short_side=24)
    assert decoded.shape == ((2, 24, 32, 3) if rotation == 180 else (2, 32, 24, 3))
    corners = decoded[0][np.ix_([2, -3], [2, -3])].mean(axis=-1)
    assert corners[row, column] > 240
    assert np.sort(corners.ravel())[2] < 15


def test_frames_of_another_size_are_resized_to_the_first(tmp_path):
    for name, scale in (("a", 1), ("b", 2)):
        write_with_av(tmp_path / f"{name}.ts", waves(5, HEIGHT * scale, WIDTH * scale), "mpeg2video")
    joined = (tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes()
    (tmp_path / "both.ts").write_bytes(joined)
    decoded = decode(tmp_path / "both.ts")
    assert decoded.shape[1:] == (HEIGHT, WIDTH, 3)
    assert len(decoded) > 6


CONSTANT = np.arange(60) * 40
VARIABLE = np.cumsum(np.random.default_rng(0).integers(10, 90, 60)) + 300
X264 = {"x264-params": "keyint=12:min-keyint=12:bframes=3:b-adapt=0"}
FILES = {
    "closed.mp4": X264,
    "open.mp4": {"x264-params": "keyint=12:min-keyint=12:bframes=3:b-adapt=0:open-gop=1"},
    "refresh.mp4": {"x264-params": "keyint=30:intra-refresh=1:bframes=0"},
    "one_key.mov": {"x264-params": "keyint=500:bframes=3"},
    "closed.mkv": X264,
    "open.mkv": {"x264-params": "keyint=12:min-keyint=12:bframes=3:b-adapt=0:open-gop=1"},
    "closed.ts": X264,
    "closed.flv": X264,
}


@pytest.mark.parametrize("times_ms", [CONSTANT, VARIABLE], ids=["constant", "variable"])
@pytest.mark.parametrize("name", FILES)
def test_a_stretch_has_exactly_the_frames_of_full_decoding(tmp_path, name, times_ms):
    path = write_at(tmp_path / name, times_ms, **FILES[name])
    whole, shown = decode(path), (times_ms - times_ms[0]) / 1000
    assert len(whole) == len(shown)
    starts = [0, 0.001, 0.2, *shown[[1, 11, 12, 13, 23, 24, 25, 36, 57, 59]], *(shown[[12, 30, 47]] + 0.001)]
    for start in starts:
        for length in (0.05, 0.5):
            start, end = round(float(start), 3), round(float(start) + length, 3)
            expected = whole[(shown >= start) & (shown < end)]
            if len(expected) and end <= shown[-1]:
                np.testing.assert_array_equal(stretch(path, start, end), expected, str((start, end)))
    for first, last in ((0, 1), (0, 60), (1, 14), (11, 13), (12, 13), (35, 50), (59, 60), (50, 99)):
        np.testing.assert_array_equal(decode_frames(path, first, last), whole[first:last], str((first, last)))


@pytest.mark.parametrize(
    ("name", "codec"), [("a.webm", "libvpx-vp9"), ("a.avi", "mpeg4"), ("b.avi", "libx264"), ("a.mpg", "mpeg2video")]
)
def test_a_stretch_of_other_codecs(tmp_path, name, codec):
    path = tmp_path / name
    write_with_av(path, waves(60), codec, bf="2", g="12")
    whole = decode(path)
    shown = np.arange(60) / 15 if name != "a.webm" else np.rint(np.arange(60) / 15 * 1000) / 1000
    for start, end in ((0.0, 1.0), (0.81, 1.5), (2.0, 3.01)):
        np.testing.assert_array_equal(stretch(path, start, end), whole[(shown >= start) & (shown < end)])
    np.testing.assert_array_equal(decode_frames(path, 13, 30), whole[13:30])


@pytest.mark.parametrize("name", ["closed.mp4", "open.mp4", "closed.mkv"])
def test_a_late_stretch_is_not_read_from_the_start(tmp_path, name, monkeypatch):
    path = write_at(tmp_path / name, np.arange(240) * 40, **FILES[name])
    seen: list[float] = []

    def spy(source, frames, span):
        for frame, seconds in frames:
            seen.append(float(seconds))
            if span[0] <= seconds < span[1]:
                yield frame, seconds

    monkeypatch.setattr(pictures, "_between", spy)
    monkeypatch.setattr(pictures, "_from_start", None)
    assert len(stretch(path, 8.0, 8.4)) == 10
    assert min(seen) >= 7.0


def test_a_stretch_that_is_not_there(tmp_path):
    path = write_at(tmp_path / "a.mp4", CONSTANT)
    for span, rule in (
        ((5.0, 6.0), "no frame in that stretch"),
        ((2.0, 4.0), "frames end at 2.4 seconds, less than half"),
    ):
        with pytest.raises(VideoError, match=rule) as caught:
            stretch(path, *span)
        assert caught.value.lines[0].startswith(f"{path}#t={span[0]:g},{span[1]:g}: ")
    assert len(stretch(path, 1.6, 3.0)) == 20
    with pytest.raises(VideoError, match="no frames 60 to 70, it has 60"):
        decode_frames(path, 60, 70)


def pictures_of(folder: Path, frames: np.ndarray, pattern: str) -> None:
    folder.mkdir()
    for number, frame in enumerate(frames, start=1):
        file = folder / pattern.format(number)
        codec = "png" if file.suffix == ".png" else "mjpeg"
        context = av.CodecContext.create(codec, "w")
        context.height, context.width, context.time_base = frame.shape[0], frame.shape[1], Fraction(1, 25)
        context.pix_fmt = "rgb24" if codec == "png" else "yuvj444p"
        (packet,) = context.encode(av.VideoFrame.from_ndarray(frame, "rgb24").reformat(format=context.pix_fmt))
        file.write_bytes(bytes(packet))


@pytest.mark.parametrize(("pattern", "loss"), [("{}.png", 0), ("img_{:05d}.jpg", 6), ("%d{}.JPG", 6)])
def test_a_folder_of_frames_in_natural_order(tmp_path, pattern, loss):
    frames = waves(12)
    pictures_of(tmp_path / "v", frames, pattern)
    (tmp_path / "v" / "notes.txt").touch()
    decoded = decode(tmp_path / "v")
    assert decoded.shape == frames.shape
    assert np.abs(decoded.astype(int) - frames).mean() <= loss
    assert decode(tmp_path / "v", short_side=24, max_frames=3).shape == (3, 24, 32, 3)
    np.testing.assert_array_equal(decode_frames(tmp_path / "v", 2, 5), decoded[2:5])
    with pytest.raises(VideoError, match="a folder of frames has no times"):
        stretch(tmp_path / "v", 0, 1)
    (tmp_path / "v" / pattern.format(7)).write_bytes(b"no picture")
    assert f"frame {pattern.format(7)} cannot be read" in fault_of(tmp_path / "v")


def test_a_video_inside_a_tar_file(tmp_path):
    for name in ("a.mp4", "b.mkv"):
        write_with_av(tmp_path / name, waves(30) if name == "a.mp4" else waves(20), "libx264")
    with tarfile.open(tmp_path / "s,1.tar", "w") as archive:
        for name in ("a.mp4", "b.mkv"):
            archive.add(tmp_path / name, name)
    with tarfile.open(tmp_path / "s,1.tar") as archive:
        places = [(member.offset_data, member.size) for member in archive.getmembers()]
    for name, place in zip(("a.mp4", "b.mkv"), places, strict=True):
        video = Video(tmp_path / "s,1.tar", f"s,1.tar#{name}", 0, member=place)
        np.testing.assert_array_equal(decode_video(video), decode(tmp_path / name))
        cut = Video(tmp_path / "s,1.tar", f"s,1.tar#{name}", 0, member=(place[0], place[1] // 4))
        with pytest.raises(VideoError, match=rf"s,1\.tar#{name}: "):
            decode_video(cut)


def test_what_would_not_fit_into_memory_is_refused_by_its_header(tmp_path, monkeypatch):
    write_with_av(tmp_path / "a.mp4", waves(60), "libx264")
    monkeypatch.setattr(sources, "MAX_BYTES", 60 * 24 * 32 * 3)
    assert len(decode(tmp_path / "a.mp4", short_side=24)) == 60
    monkeypatch.setattr(pictures, "_from_start", None)  # nothing is decoded
    assert "60 frames of 48 x 64 pixels are 0.0 GiB, the limit" in fault_of(tmp_path / "a.mp4")
    monkeypatch.setattr(sources, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    assert "frames of 48 x 64 pixels, the limit is" in fault_of(tmp_path / "a.mp4")


def test_a_pipe_is_no_video(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    assert "a pipe or a device" in fault_of(tmp_path / "a.mp4")


def test_a_playlist_called_mp4_opens_nothing(tmp_path):
    encode(tmp_path / "b.mp4", waves(4))
    (tmp_path / "a.mp4").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://localhost:9/b.ts\n#EXT-X-ENDLIST\n"
    )
    assert fault_of(tmp_path / "a.mp4")


def test_a_missing_file(tmp_path):
    assert "no such file" in fault_of(tmp_path / "a.mp4")


def test_a_folder(tmp_path):
    assert "a folder" in fault_of(tmp_path)


def test_an_empty_file(tmp_path):
    (tmp_path / "a.mp4").touch()
    assert "empty file (0 bytes)" in fault_of(tmp_path / "a.mp4")


def test_a_text_file(tmp_path):
    (tmp_path / "a.mp4").write_text("this is no video\n" * 100)
    assert "not a video" in fault_of(tmp_path / "a.mp4")


def test_sound_alone(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    assert "no video stream, only audio" in fault_of(path)


def test_a_truncated_mp4_whose_header_is_lost(tmp_path):
    encode(tmp_path / "a.mp4", waves(10))
    content = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(content[: len(content) // 2])
    assert "not a video" in fault_of(tmp_path / "a.mp4")


@pytest.mark.parametrize("share", [0.9, 0.3])
def test_a_truncated_mp4_whose_header_comes_first(tmp_path, share):
    path = tmp_path / "a.mp4"
    write_with_av(path, waves(60), "libx264", movflags="faststart", x264opts="keyint=5")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    line = fault_of(path)
    assert "breaks off after" in line
    assert "of 60 frames" in line


@pytest.mark.parametrize(
    ("name", "codec", "rule"),
    [("a.mkv", "libx264", "of 8.0 seconds"), ("a.avi", "mpeg4", "of 120 frames decode, less than half")],
)
def test_containers_that_end_silently_are_held_to_their_claims(tmp_path, name, codec, rule):
    path = tmp_path / name
    write_with_av(path, waves(120), codec)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.8)])
    assert 60 < len(decode(path)) < 120
    path.write_bytes(content[: int(len(content) * 0.4)])
    assert rule in fault_of(path)


def test_bytes_turned_over_give_frames_or_one_line(tmp_path):
    """Whatever is wrong inside a file, nothing but VideoError comes out."""
    encode(tmp_path / "a.mp4", waves(10))
    content = np.frombuffer((tmp_path / "a.mp4").read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    lines: list[str] = []
    for _ in range(40):
        damaged = content.copy()
        damaged[rng.integers(0, len(content), 60)] = rng.integers(0, 256, 60)
        (tmp_path / "b.mp4").write_bytes(damaged.tobytes())
        try:
            assert decode(tmp_path / "b.mp4").ndim == 4
        except VideoError as fault:
            lines += fault.lines
    assert 0 < len(lines) <= 40
    assert all(line.startswith(f"{tmp_path / 'b.mp4'}: ") for line in lines)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 15, 16, 3), np.uint8),
        np.zeros((0, 16, 16, 3), np.uint8),
        np.zeros((2, 16, 16), np.uint8),
        np.zeros((2, 16, 16, 3), np.float32),
    ],
)
def test_frames_that_cannot_be_encoded(tmp_path, frames):
    with pytest.raises(VideoError, match=r"a\.mp4: frames"):
        encode(tmp_path / "a.mp4", frames)
    assert list(tmp_path.iterdir()) == []


def test_encoding_to_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(VideoError, match="cannot be written"):
        encode(tmp_path / "none" / "a.mp4", waves(2))


def test_decoding_needs_no_torch():
    code = "import sys, archsearch.video.clips, archsearch.video.demo; print('torch' in sys.modules)"
    root = Path(__file__).parents[1]
    printed = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert printed.stdout == "False\n"
