"""Videos read in a stream: which frames windows have, what is not decoded, faults, and memory."""

import json
import subprocess
import sys
from fractions import Fraction
from functools import partial

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from archsearch.errors import VideoError
from archsearch.video import reading
from archsearch.video.clips import frame_indices
from archsearch.video.decode import decode, fitted_size
from archsearch.video.reading import chosen, seconds_of
from archsearch.video.sources import Source
from archsearch.video.stream import Rhythm, ahead, find_videos, windows

FIT = partial(fitted_size, short_side=32)


def write_video(path, frames, fps=15, options=None, times=None):
    """Noise that changes from frame to frame, with B-frames that no other frame needs; `times` in seconds."""
    rng = np.random.default_rng(frames)
    base = rng.integers(0, 255, (8, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"bf": "3", "g": "30", **(options or {})})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            picture = np.roll(base, (3 * number, number), (0, 1)) // 2 + (number % 60) * 2
            frame = VideoFrame.from_ndarray(picture.astype(np.uint8), "rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(1000 * times[number]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def source_of(path):
    return Source(path, str(path))


def found(path, rhythm):
    return list(windows(source_of(path), rhythm, FIT))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """90 frames, 6 seconds."""
    return write_video(tmp_path_factory.mktemp("film") / "film.mp4", 90)


@pytest.fixture(scope="module")
def frames(film):
    return decode(film, 32)


# --- windows


@pytest.mark.parametrize("every", [1.0, 0.4, 3.0])
def test_spread_windows_have_the_frames_that_evaluation_would_pick(film, frames, every):
    rhythm = Rhythm(8, "spread", every, 2.0)
    got = found(film, rhythm)
    assert [(each.begin, each.end) for each in got] == [
        pytest.approx((begin, begin + 2)) for begin in np.arange(0, 4 + 1e-9, every)
    ]
    for window in got:
        places = round(15 * window.begin) + frame_indices(30, 8, "spread", 0.5)
        assert np.array_equal([stack[0] for stack in window.stacks], frames[places])


def test_strided_windows_have_frames_that_are_as_far_apart(film, frames):
    got = found(film, Rhythm(4, 3, 1.0, 2.0))
    assert [each.begin for each in got] == [0, 1, 2, 3, 4, 5]  # ten frames each, the last to 5.67 s
    for window in got:
        assert window.end == pytest.approx(window.begin + 10 / 15)
        assert np.array_equal(
            [stack[0] for stack in window.stacks], frames[round(15 * window.begin) + np.arange(4) * 3]
        )


def test_the_frames_behind_each_come_along(film, frames):
    for window in found(film, Rhythm(3, "spread", 1.0, 1.0, after=2)):
        places = round(15 * window.begin) + frame_indices(15, 3, "spread", 0.5)
        for place, stack in zip(places, window.stacks, strict=True):
            assert np.array_equal(stack, frames[place : place + 3])


def test_frames_that_no_window_needs_are_not_decoded(film, monkeypatch):
    decoded = []
    real = reading.Counter.timed

    def timed(self, *args):
        for each in real(self, *args):
            decoded.append(each)
            yield each

    monkeypatch.setattr(reading.Counter, "timed", timed)
    assert len(found(film, Rhythm(2, "spread", 4.0, 1.0))) == 2
    assert len(decoded) < 60  # of 90: neither the 30 from 2 s to 4 s, nor B-frames in between


def test_a_video_shorter_than_a_window_has_none(film):
    assert found(film, Rhythm(8, "spread", 1.0, 6.5)) == []
    assert len(found(film, Rhythm(8, "spread", 1.0, 6.0))) == 1


def test_a_clock_that_jumps_starts_anew(tmp_path):
    times = [number / 10 for number in range(30)] + [1e6 + number / 10 for number in range(30)]
    path = write_video(tmp_path / "jump.mkv", 60, 10, times=times)
    begins = [window.begin for window in found(path, Rhythm(4, 5, 1.0, 2.0))]
    assert 0 < len(begins) < 200
    assert begins[0] == 0
    assert all(begin < 100 or begin >= 1e6 for begin in begins)
    assert max(begins) >= 1e6


def test_uneven_times_give_the_frame_that_is_shown(tmp_path):
    times = [0.0, 0.1, 0.2, 0.3, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0]
    path = write_video(tmp_path / "uneven.mkv", 10, 10, {"bf": "0"}, times)
    frames = decode(path, 32)
    (window,) = found(path, Rhythm(4, "spread", 5.0, 2.0))  # at 0.25, 0.75, 1.25, 1.75 seconds
    assert np.array_equal([stack[0] for stack in window.stacks], frames[[2, 3, 3, 6]])


def test_folders_of_frames_have_one_a_second(tmp_path):
    from PIL import Image

    for number in range(6):
        Image.new("RGB", (40, 40), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
    got = found(tmp_path, Rhythm(2, 1, 2.0, 2.0))
    assert [[round(int(stack[0][0, 0, 0]) / 40) for stack in window.stacks] for window in got] == [
        [0, 1],
        [2, 3],
        [4, 5],
    ]
    assert seconds_of(source_of(tmp_path)) == 6


# --- chosen frames


def test_chosen_frames_are_those_of_decode(film, frames):
    got = chosen(source_of(film), lambda count: {0, 7, count - 1}, FIT)
    assert got.count == 90
    assert got.seconds == pytest.approx(6)
    assert {number: frame.tolist() for number, frame in got.frames.items()} == {
        number: frames[number].tolist() for number in (0, 7, 89)
    }


# --- faults


def test_a_cut_video_is_a_fault_after_what_it_has(tmp_path):
    whole = write_video(tmp_path / "whole.mkv", 300, 15)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
    got = []
    with pytest.raises(VideoError, match=r"cut\.mkv: .*less than half"):
        got.extend(each.begin for each in windows(source_of(cut), Rhythm(4, "spread", 1.0, 1.0), FIT))
    assert len(got) > 2


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
def test_what_is_no_video_is_a_fault(tmp_path, content):
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"bad\.mp4"):
        found(path, Rhythm(4, "spread", 1.0, 1.0))
    with pytest.raises(VideoError, match=r"bad\.mp4"):
        chosen(source_of(path), lambda count: {0}, FIT)


def test_videos_are_found_in_folders(tmp_path):
    for name in ("b/2.mp4", "a.webm", ".hidden.mp4", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_videos(tmp_path) == [tmp_path / "a.webm", tmp_path / "b" / "2.mp4"]
    assert find_videos(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match="without videos"):
        find_videos(tmp_path / "empty")


def test_what_is_made_ahead_comes_in_order_and_so_does_its_fault():
    def items():
        yield from range(5)
        raise VideoError("broken")

    got = []
    with pytest.raises(VideoError, match="broken"):
        got.extend(ahead(items(), 2))
    assert got == [0, 1, 2, 3, 4]
    ended = []

    def endless():
        try:
            while True:
                yield 1
        finally:
            ended.append(True)

    reader = ahead(endless(), 3)
    next(reader)
    reader.close()
    assert ended


# --- memory

GROWTH = """
import json, resource, sys
from functools import partial
from pathlib import Path
from archsearch.video.decode import fitted_size
from archsearch.video.sources import Source
from archsearch.video.stream import Rhythm, windows

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

path = Path(sys.argv[1])
reader = windows(Source(path, str(path)), Rhythm(16, "spread", 1.0, 4.0), partial(fitted_size, short_side=64))
for _ in range(20):
    next(reader)
before = peak()
count = 20 + sum(1 for _ in reader)
print(json.dumps({"windows": count, "growth": peak() - before}))
"""


def repeat(path, out, times):
    """The packets of a video again and again, without encoding them anew."""
    with av.open(str(out), "w") as target:
        stream, shift = None, 0
        for _ in range(times):
            with av.open(str(path)) as container:
                given = container.streams.video[0]
                stream = stream or target.add_stream_from_template(given)
                length = given.duration
                for packet in container.demux(given):
                    if packet.dts is not None:
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = stream
                        target.mux(packet)
            shift += length
    return out


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path):
    """Ten minutes; all its frames at that size are 110 MB."""
    film = repeat(write_video(tmp_path / "part.mp4", 150), tmp_path / "long.mp4", 60)
    assert seconds_of(source_of(film)) == pytest.approx(600, abs=1)
    done = subprocess.run([sys.executable, "-c", GROWTH, str(film)], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert 590 <= told["windows"] <= 600
    assert told["growth"] < 50
