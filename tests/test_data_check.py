"""Checks of data sets, on files as bad as they come, and the commands `data check` and `data pack`."""

import gzip
import json
import os
import shutil
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from archsearch.errors import DataError
from archsearch.report.data import check_json
from archsearch.video.check import Check, check_dataset, write_clean
from archsearch.video.dataset import read_dataset
from archsearch.video.decode import decode, encode

GOOD = 200
FRAMES = 10
GIGABYTE = 10**9


def noise(seed: int, frames: int = FRAMES, height: int = 32, width: int = 48) -> np.ndarray:
    """Coarse random frames, which are quick to code."""
    blocks = np.random.default_rng(seed).integers(0, 256, (frames, height // 8, width // 8, 3), np.uint8)
    return blocks.repeat(8, 1).repeat(8, 2)


def write(path: Path, frames: np.ndarray, times_ms: np.ndarray | None = None, rotation: int = 0) -> None:
    """An h264 mp4 whose header comes first."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=1000, options={"threads": "1"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        shown = np.arange(len(frames)) * 40 if times_ms is None else times_ms
        for pixels, time_ms in zip(frames, shown, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
            frame.pts, frame.time_base = int(time_ms), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))


def sparse(path: Path, head: bytes = b"") -> None:
    path.write_bytes(head)
    os.truncate(path, 10 * GIGABYTE)


def add_hostile(folder: Path) -> set[str]:
    """Forty files that are broken or strange; gives the names of those that cannot be used at all."""
    folder.mkdir()
    write(folder / "first.mp4", noise(1000, 30))
    encode(folder / "last.mp4", noise(1001, 30))
    first, last = (folder / "first.mp4").read_bytes(), (folder / "last.mp4").read_bytes()
    broken: dict[str, bytes] = {f"cut_first_{n}.mp4": first[: len(first) * n // 10] for n in range(1, 10)}
    broken |= {f"cut_last_{n}.mp4": last[: len(last) * n // 10] for n in range(1, 10)}
    broken |= {
        "empty.mp4": b"",
        "text.mp4": b"this is no video\n" * 1000,
        "text.avi": b"nor is this\n",
        "random.mkv": np.random.default_rng(0).bytes(100_000),
        "zeros.webm": bytes(100_000),
        "playlist.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://localhost:9/b.ts\n#EXT-X-ENDLIST\n",
        "head_alone.mp4": first[:8],
        "packed.mp4": gzip.compress(first),
    }
    for name, content in broken.items():
        (folder / name).write_bytes(content)
    write_sound(folder / "sound.mp4")
    sparse(folder / "sparse.mp4")
    sparse(folder / "sparse_head.mp4", last[:200])
    (folder / "folder.mp4").mkdir()
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (folder / "dangling.mp4").symlink_to("nowhere.mp4")
    os.mkfifo(folder / "pipe.mp4")
    write(folder / "one_frame.mp4", noise(1002, 1))
    write(folder / "wide.mp4", np.zeros((FRAMES, 2, 16000, 3), np.uint8))
    write(folder / "turned.mp4", noise(1003), rotation=90)
    write(folder / "upside_down.mp4", noise(1004), rotation=180)
    write(folder / "variable.mp4", noise(1005), times_ms=np.cumsum([0, 10, 90, 30, 40, 200, 10, 20, 70, 40]))
    special = {"sound.mp4", "sparse.mp4", "sparse_head.mp4", "folder.mp4", "loop.mp4", "dangling.mp4", "pipe.mp4"}
    return set(broken) | special


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> tuple[Path, set[str]]:
    """200 good clips and 40 others in lists, with one copy in the same split and one in another."""
    root = tmp_path_factory.mktemp("data")
    broken = add_hostile(root / "bad")
    for number in range(GOOD):
        encode(root / f"good_{number:03d}.mp4", noise(number))
    shutil.copy(root / "good_000.mp4", root / "again.mp4")
    shutil.copy(root / "good_001.mp4", root / "leaked.mp4")
    good = [f"good_{number:03d}.mp4 {number % 3}" for number in range(GOOD)]
    bad = [f"bad/{path.name} 0" for path in sorted((root / "bad").iterdir())]
    (root / "classes.txt").write_text("walk\nrun\njump\n")
    (root / "train.csv").write_text("\n".join([*good[:160], "again.mp4 0", *bad]))
    (root / "val.csv").write_text("\n".join([*good[160:], "leaked.mp4 1"]))
    assert len(bad) == 40
    return root, broken


@pytest.fixture(scope="module")
def check(hostile) -> Check:
    started = time.monotonic()
    found = check_dataset(read_dataset(hostile[0]))
    assert time.monotonic() - started < 120  # ten seconds at most on an idle machine
    return found


def names(reads) -> set[str]:
    return {Path(read.video.name).name for read in reads}


def test_what_is_broken_is_found_and_nothing_else(hostile, check):
    assert names(check.broken) == hostile[1]
    assert all(read.reason.startswith(f"{read.video.path}: ") for read in check.broken)
    assert not any("crashed" in read.reason or "longer than" in read.reason for read in check.broken)
    assert names(check.short) == {"one_frame.mp4"}
    assert names(check.odd) == {"wide.mp4"}
    assert names(check.rotated) == {"turned.mp4", "upside_down.mp4"}
    assert names(check.variable) == {"variable.mp4"}
    assert len(check.usable) == len(check.reads) - len(hostile[1]) - 1


def test_facts_are_those_of_the_files(check):
    facts = {Path(read.video.name).name: read.facts for read in check.reads}
    good, turned, variable = facts["good_007.mp4"], facts["turned.mp4"], facts["variable.mp4"]
    assert (good.frames, good.width, good.height, good.turns, good.rate) == (FRAMES, 48, 32, 0, 15)
    assert good.seconds == pytest.approx(FRAMES / 15)
    assert (turned.width, turned.height) == (32, 48)
    assert (facts["wide.mp4"].width, facts["wide.mp4"].height) == (16000, 2)
    assert 0.51 <= variable.seconds < 0.6


def test_copies_are_found_in_one_split_and_in_several(check):
    assert [[read.video.name for read in group] for group in check.duplicates] == [["good_000.mp4", "again.mp4"]]
    (leak,) = check.leaks
    assert leak.why == "same content"
    assert [(read.split, read.video.name) for read in leak.reads] == [("train", "good_001.mp4"), ("val", "leaked.mp4")]


def test_clean_lists_read_back_and_pack(check, tmp_path, cli):
    remarks = write_clean(check, tmp_path / "clean")
    dataset = read_dataset(tmp_path / "clean")
    listed = {split: {Path(video.name).name for video in videos} for split, videos in dataset.splits.items()}
    assert "leaked.mp4" in listed["val"]
    assert "good_001.mp4" not in listed["train"]
    assert len({"again.mp4", "good_000.mp4"} & listed["train"]) == 1
    assert len(listed["train"]) + len(listed["val"]) == len(check.usable) - 2
    assert dataset.classes == ("walk", "run", "jump")
    assert remarks[0].startswith(f"{tmp_path / 'clean'}: {len(check.usable) - 2} videos are listed")
    with pytest.raises(DataError, match="not empty"):
        write_clean(check, tmp_path / "clean")
    code, out, _ = cli("data", "pack", tmp_path / "clean", "--short-side", "16", "--cache", tmp_path, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["broken"] == []
    assert facts["clips"] == {split: len(found) for split, found in listed.items()}
    assert Path(facts["folder"]).parent == tmp_path / "packs"
    assert facts["bytes"] == (Path(facts["folder"]) / "frames.u8").stat().st_size


def test_balance_counts_usable_videos(check):
    assert check.balance["run"] == {"train": 53, "val": 15}
    assert sum(counts["train"] + counts["val"] for counts in check.balance.values()) == len(check.usable)
    assert check.few == ()


def small(root: Path) -> Path:
    for number, name in enumerate(("train/run/a.mp4", "train/jump/b_x.mp4", "val/run/a.mp4", "val/jump/1.mp4")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        encode(root / name, noise(number))
    return root


def test_the_commands_print_tables_and_json(tmp_path, cli):
    root = small(tmp_path / "data")
    (root / "train/run/empty.mp4").touch()
    code, out, err = cli("data", "check", root, "--out", tmp_path / "clean")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    assert "4 of 5 videos are usable" in out
    assert "2 classes have fewer than 10 videos in train" in " ".join(out.split())
    assert any("4 videos are listed, 1 are left out" in line for line in err)
    assert read_dataset(tmp_path / "clean").classes == ("jump", "run")
    code, out, _ = cli("data", "check", root, "--json", "--min-frames", "11")
    assert code == 1  # all are short
    code, out, _ = cli("data", "check", root, "--json")
    facts = json.loads(out)
    assert (facts["videos"], facts["usable"]) == (5, 4)
    assert facts["broken"][0]["name"] == "train/run/empty.mp4"
    assert "empty file" in facts["broken"][0]["reason"]
    (leak,) = facts["leaks"]
    assert (leak["why"], [video["name"] for video in leak["videos"]]) == (
        "same name",
        ["train/run/a.mp4", "val/run/a.mp4"],
    )
    assert facts["classes"] == {"jump": {"train": 1, "val": 1}, "run": {"train": 1, "val": 1}}
    assert facts["sizes"] == {"48x32": 4}
    assert facts["frames"] == {"least": 10, "median": 10, "most": 10, "total": 40}


def test_pack_says_where_and_how_large(tmp_path, cli):
    root = small(tmp_path / "data")
    code, out, _ = cli("data", "pack", root, "--short-side", "16", "--cache", tmp_path / "cache")
    folder, size, clips = out.splitlines()
    assert code == 0
    assert Path(folder).is_dir()
    assert (size, clips) == ("size: 0.0 MB", "clips: 4 (train 2, val 2)")


def test_no_usable_video_is_exit_code_1(tmp_path, cli):
    for name in ("run/a.mp4", "run/b.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no video")
    code, _, err = cli("data", "check", tmp_path)
    assert code == 1
    assert "none of 2 videos is usable" in err[-1]


def test_stretches_members_and_labels_survive_a_clean_list(tmp_path):
    root = small(tmp_path / "data")
    write(root / "long.mp4", noise(9, 60))
    shutil.copytree(root / "train", root / "more")
    (root / "classes.txt").write_text("walk\nrun\njump\n")
    lines = ["long.mp4#t=0,1 1", "long.mp4#t=1,2.4 2,1", "train/run/a.mp4 1", "more/run/a.mp4 1"]
    (root / "train.csv").write_text("\n".join(lines))
    (root / "val.csv").write_text("val/run/a.mp4 2\n")
    check = check_dataset(read_dataset(root))
    assert [read.facts.frames for read in check.reads] == [25, 35, 10, 10, 10]
    write_clean(check, tmp_path / "clean")
    clean = read_dataset(tmp_path / "clean")
    assert clean.classes == ("run", "jump")
    assert [(video.path, video.span, video.labels) for video in clean.splits["train"]] == [
        (root / "long.mp4", (0.0, 1.0), (0,)),
        (root / "long.mp4", (1.0, 2.4), (1, 0)),
        (root / "train/run/a.mp4", None, (0,)),
    ]
    assert check_json(check)["multi_label"] is True


def test_one_file_in_two_splits_leaks(tmp_path):
    write(tmp_path / "long.mp4", noise(9, 60))
    (tmp_path / "train.csv").write_text("long.mp4#t=0,1 x\n")
    (tmp_path / "val.csv").write_text("long.mp4#t=1,2.4 x\n")
    assert [leak.why for leak in check_dataset(read_dataset(tmp_path)).leaks] == ["same file"]


def test_the_same_pictures_in_another_container_are_the_same(tmp_path):
    encode(tmp_path / "a.mp4", noise(1))
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(tmp_path / "b.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    np.testing.assert_array_equal(decode(tmp_path / "a.mp4"), decode(tmp_path / "b.mkv"))
    (tmp_path / "train.csv").write_text("a.mp4 x\nb.mkv x\n")
    assert len(check_dataset(read_dataset(tmp_path)).duplicates) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    root = small(tmp_path)
    (root / "train/run/a.mp4").chmod(0)
    (read,) = check_dataset(read_dataset(root)).broken
    assert "Permission denied" in read.reason


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def processes() -> set[str]:
    """The processes that this one has started and not waited for."""
    tasks = Path("/proc/self/task").iterdir()
    return {pid for task in tasks for pid in (task / "children").read_text().split()}


@pytest.mark.slow
def test_memory_does_not_grow_over_ten_passes(hostile):
    dataset, before = read_dataset(hostile[0]), processes()
    sizes = []
    for _ in range(10):
        check_dataset(dataset)
        sizes.append(resident_bytes())
    assert sizes[-1] - sizes[1] < 8e6, sizes
    assert processes() == before
