"""Videos read in a stream: which frames windows have, what is not decoded, faults, children, and memory."""

import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from archsearch.errors import VideoError
from archsearch.video import children, reading
from archsearch.video.children import clips_along, decoders, views_of_all
from archsearch.video.clips import frame_indices
from archsearch.video.decode import decode, fitted_size
from archsearch.video.reading import chosen, seconds_of
from archsearch.video.sources import Source
from archsearch.video.stream import Rhythm, ahead, find_videos, windows
from archsearch.video.views import Cut, view_clips
from archsearch.video.views import clips_along as clips_here

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


# --- children

CUT = Cut(8, 24, 28, "spread", (3,), 32)
SECOND = Rhythm(8, "spread", 1.0, 1.0)
HOSTILE = """
import os, signal, time
from archsearch.video import serving


def hostile(real):
    def stream(source, argument, tick):
        if "slow" in source.path.name:
            for _ in range(40):
                time.sleep(0.1)
                tick()
        for number, answer in enumerate(real(source, argument, tick)):
            if "crash" in source.path.name and number == (3 if "late" in source.path.name else 0):
                os.kill(os.getpid(), signal.SIGSEGV)
            if "hang" in source.path.name and number == (3 if "late" in source.path.name else 0):
                time.sleep(600)
            yield answer

    return stream


serving.STREAMS = {name: hostile(real) for name, real in serving.STREAMS.items()}
serving.serve()
"""


@pytest.fixture
def hostile(monkeypatch):
    """Children that crash on a file by its name, hang, or take longer than the limit while they work."""
    monkeypatch.setattr(children, "COMMAND", (sys.executable, "-c", HOSTILE))
    monkeypatch.setattr(children, "SECONDS", 2.0)


def named(film, folder, *names):
    for name in names:
        (folder / name).symlink_to(film)
    return [source_of(folder / name) for name in names]


def processes():
    """What this process has started and not waited for."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


def ended(pids):
    """Whether processes are gone, or will be in a moment."""
    deadline = time.monotonic() + 20
    while (alive := [pid for pid in pids if Path(f"/proc/{pid}").exists()]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive


def test_children_give_the_clips_that_this_process_would(film):
    source, strided = source_of(film), Cut(4, 24, 24, 3, (3,), 32)
    for cut, rhythm in ((CUT, SECOND), (strided, Rhythm(4, 3, 0.4, 2.0)), (CUT, Rhythm(8, "spread", 1.0, 60.0))):
        with decoders() as reader:
            assert children.seconds_of(reader, source) == pytest.approx(6)
            got = list(clips_along(reader, source, cut, rhythm))
        here = list(clips_here(source, cut, rhythm))
        assert [each[:2] for each in got] == [each[:2] for each in here]
        assert np.array_equal([each[2] for each in got], [each[2] for each in here])
        (whole,) = views_of_all([source], cut, 3, 1, lambda _, seconds, clips: (seconds, clips))
        seconds, clips = view_clips(source, cut, 3)
        assert whole[0] == seconds
        assert np.array_equal(whole[1], clips)


def test_a_video_on_which_the_decoder_crashes_or_hangs_is_a_fault_of_its_own(film, tmp_path, hostile):
    before = processes()
    sources = named(film, tmp_path, "a.mp4", "crash.mp4", "b.mp4", "hang.mp4", "slow.mp4")
    found = list(views_of_all(sources, CUT, 2, 1, lambda _, seconds, clips: clips))
    for place in (0, 2, 4):
        assert np.array_equal(found[place], view_clips(sources[0], CUT, 2)[1])
    assert str(found[1]) == f"{sources[1].place}: decoding crashed (SIGSEGV); encode it again or leave it out"
    assert str(found[3]).startswith(f"{sources[3].place}: decoding takes longer than 2 seconds")
    assert processes() == before


@pytest.mark.parametrize(("name", "rule"), [("crash", r"crashed \(SIGSEGV\)"), ("hang", "longer than 2 seconds")])
def test_what_a_child_gave_before_it_was_lost_is_kept(film, tmp_path, hostile, name, rule):
    whole, late = named(film, tmp_path, "whole.mp4", f"{name}-late.mp4")
    with decoders() as reader:
        got = []
        with pytest.raises(VideoError, match=rule):
            got.extend(each[0] for each in clips_along(reader, late, CUT, SECOND))
        assert got == [0, 1, 2]
        assert [each[0] for each in clips_along(reader, whole, CUT, SECOND)] == [0, 1, 2, 3, 4, 5]


def test_whoever_stops_early_leaves_no_child(film):
    before = processes()
    with decoders() as reader:
        coming = ahead(clips_along(reader, source_of(film), CUT, SECOND), 2, reader.interrupt)
        assert next(coming)[0] == 0
        (child,) = processes() - before
        coming.close()
        assert ended([child])
        assert len(list(clips_along(reader, source_of(film), CUT, SECOND))) == 6  # by another one
        (other,) = processes() - before
        assert len(list(clips_along(reader, source_of(film), CUT, SECOND))) == 6
        assert processes() - before == {other}  # the same one
    assert processes() == before


def test_to_stop_does_not_wait_for_a_decoder_that_hangs(film, tmp_path, hostile, monkeypatch):
    monkeypatch.setattr(children, "SECONDS", 300.0)
    before = processes()
    (source,) = named(film, tmp_path, "hang-late.mp4")
    with decoders() as reader:
        coming = ahead(clips_along(reader, source, CUT, SECOND), 5, reader.interrupt)
        assert [next(coming)[0] for _ in range(3)] == [0, 1, 2]
        began = time.monotonic()
        coming.close()
        assert time.monotonic() - began < 20
    assert processes() == before


STOPPED = """
import sys
from pathlib import Path
from archsearch.video.children import clips_along, decoders
from archsearch.video.sources import Source
from archsearch.video.stream import Rhythm, ahead
from archsearch.video.views import Cut

source = Source(Path(sys.argv[1]), sys.argv[1])
with decoders() as reader:
    read = clips_along(reader, source, Cut(8, 24, 28, "spread", (3,), 32), Rhythm(8, "spread", 0.002, 1.0))
    for begin, _, _ in ahead(read, 2, reader.interrupt):
        if begin == 0:
            (child,) = reader.alive
            print(child.pid, flush=True)
            sys.stdin.readline()
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_no_child_outlives_its_parent(film, sent):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    parent = subprocess.Popen([sys.executable, "-c", STOPPED, str(film)], **pipes, text=True)
    child = int(parent.stdout.readline())
    assert Path(f"/proc/{child}").exists()
    os.kill(parent.pid, sent)
    _, told = parent.communicate(timeout=60)
    assert parent.returncode == -sent
    assert told.count("Traceback") <= (sent == signal.SIGINT)  # no word of the child
    assert ended([child])


# --- memory

GROWTH = """
import json, sys
from pathlib import Path
from archsearch.video.children import clips_along, decoders
from archsearch.video.sources import Source
from archsearch.video.stream import Rhythm, ahead
from archsearch.video.views import Cut

def peak(pid):
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024

path = Path(sys.argv[1])
with decoders() as reader:
    cut, rhythm = Cut(16, 64, 64, "spread", (3,), 64), Rhythm(16, "spread", 1.0, 4.0)
    coming = ahead(clips_along(reader, Source(path, str(path)), cut, rhythm), 16, reader.interrupt)
    for _ in range(40):
        next(coming)
    (child,) = reader.alive
    before = peak("self"), peak(child.pid)
    count = 40 + sum(1 for _ in coming)
    after = peak("self"), peak(child.pid)
print(json.dumps({"windows": count, "before": before, "after": after}))
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
@pytest.mark.timeout(600)
def test_memory_does_not_grow_with_the_length(tmp_path):
    """Two hours; all its frames at that size are 1300 MB."""
    film = repeat(write_video(tmp_path / "part.mp4", 150), tmp_path / "long.mp4", 720)
    assert seconds_of(source_of(film)) == pytest.approx(7200, abs=1)
    done = subprocess.run([sys.executable, "-c", GROWTH, str(film)], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert 7190 <= told["windows"] <= 7200
    assert sum(told["after"]) - sum(told["before"]) < 50
    assert sum(told["after"]) < 300
