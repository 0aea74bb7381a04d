"""Packs: what they hold, who builds them, and what interrupted or broken work leaves."""

import json
import multiprocessing
import os
import pickle
import resource
import signal
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from archsearch.errors import DataError
from archsearch.video import children
from archsearch.video.dataset import Dataset, read_dataset
from archsearch.video.decode import decode, decode_frames, encode
from archsearch.video.pack import PackedSplit, cache_folder, open_pack

DATA = Path(__file__).parents[2] / "shared" / "data"
SPAWN = multiprocessing.get_context("spawn")
SIDE = 16


def small_dataset(root: Path, train: int = 4) -> Dataset:
    """Two classes; videos of 2, 3, ... frames of random pixels."""
    rng = np.random.default_rng(0)
    length = 2
    for split, count in (("train", train), ("val", 1)):
        for name in ("jump", "run"):
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                frames = rng.integers(0, 256, (length, 32, 48, 3), np.uint8)
                encode(root / split / name / f"{number}.mp4", frames)
                length += 1
    return read_dataset(root)


@pytest.fixture
def dataset(tmp_path):
    return small_dataset(tmp_path / "data")


def packs(cache: Path) -> list[Path]:
    """Folders that look like whole packs."""
    folder = cache / "packs"
    return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]


def unfinished(cache: Path) -> list[Path]:
    return [path for path in (cache / "packs").iterdir() if path.name.startswith(".")]


def test_a_pack_holds_every_frame_in_order(dataset, tmp_path):
    seen: list[tuple[int, int]] = []
    pack = open_pack(dataset, SIDE, tmp_path / "cache", report=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 10) for done in range(1, 11)]
    assert pack.classes == ("jump", "run")
    assert pack.broken == ()
    for split, videos in dataset.splits.items():
        packed = pack.splits[split]
        assert packed.names == tuple(video.name for video in videos)
        assert packed.labels.dtype == np.int64
        np.testing.assert_array_equal(packed.labels, [video.label for video in videos])
        assert len(packed) == len(videos)
        for i, video in enumerate(videos):
            np.testing.assert_array_equal(packed.frames(i), decode(video.path, SIDE))
            assert not packed.frames(i).flags.writeable


def test_an_existing_pack_is_opened_and_not_built(dataset, tmp_path):
    open_pack(dataset, SIDE, tmp_path)
    seen: list[int] = []
    again = open_pack(dataset, SIDE, tmp_path, report=lambda done, total: seen.append(done))
    assert seen == []
    assert len(again.splits["train"]) == 8
    assert len(packs(tmp_path)) == 1


def test_another_size_or_content_is_another_pack(dataset, tmp_path):
    first = open_pack(dataset, SIDE, tmp_path)
    assert open_pack(dataset, SIDE + 2, tmp_path).splits["train"].frames(0).shape == (2, 18, 28, 3)
    encode(dataset.splits["train"][0].path, np.zeros((9, 32, 48, 3), np.uint8))
    changed = open_pack(dataset, SIDE, tmp_path)
    assert changed.digest != first.digest
    assert len(changed.splits["train"].frames(0)) == 9
    assert len(packs(tmp_path)) == 3


def test_a_copy_of_the_data_elsewhere_shares_the_pack(dataset, tmp_path):
    open_pack(dataset, SIDE, tmp_path / "cache")
    open_pack(small_dataset(tmp_path / "copy"), SIDE, tmp_path / "cache")
    assert len(packs(tmp_path / "cache")) == 1


def test_a_damaged_pack_is_built_again(dataset, tmp_path):
    open_pack(dataset, SIDE, tmp_path)
    (folder,) = packs(tmp_path)
    for name, content in (("frames.u8", b"short"), ("index.json", b"{"), ("index.json", b"[]")):
        whole = (folder / name).read_bytes()
        # A new file, as frames.u8 is still mapped.
        (folder / name).unlink()
        (folder / name).write_bytes(content)
        open_pack(dataset, SIDE, tmp_path)
        assert (folder / name).read_bytes() == whole


def test_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("ARCHSEARCH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "archsearch"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "archsearch"
    monkeypatch.setenv("ARCHSEARCH_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    assert cache_folder(tmp_path) == tmp_path


def test_broken_videos_are_left_out_and_named(tmp_path):
    dataset = small_dataset(tmp_path / "data", train=6)
    victim = dataset.splits["train"][1]
    victim.path.write_bytes(b"")
    pack = open_pack(dataset, SIDE, tmp_path)
    assert pack.broken == ((victim.name, f"{victim.path}: empty file (0 bytes); copy it again or leave it out"),)
    assert victim.name not in pack.splits["train"].names
    assert len(pack.splits["train"]) == 11
    third = dataset.splits["train"][2]
    np.testing.assert_array_equal(pack.splits["train"].frames(1), decode(third.path, SIDE))
    with pytest.raises(DataError, match="1 of 14 videos are broken"):
        open_pack(dataset, SIDE, tmp_path, max_broken=0.05)


def test_too_many_broken_videos_are_an_error_and_decoded_once(dataset, tmp_path):
    for video in dataset.splits["train"][:2]:
        video.path.unlink()
    decoded: list[int] = []
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            open_pack(dataset, SIDE, tmp_path / "cache", report=lambda done, total: decoded.append(done))
    (line,) = caught.value.lines
    assert line.startswith(f"{dataset.root}: 2 of 10 videos are broken (20%, the limit is 10%): ")
    assert line.count("no such file") == 2
    assert len(open_pack(dataset, SIDE, tmp_path / "cache", max_broken=0.2).splits["train"]) == 6
    assert decoded == list(range(1, 11))


def test_a_class_without_usable_training_videos(dataset, tmp_path):
    for video in dataset.splits["train"]:
        if video.label == 1:
            video.path.write_text("no video")
    with pytest.raises(DataError, match="class 'run' has no usable training video"):
        open_pack(dataset, SIDE, tmp_path / "cache", max_broken=0.9)


def test_a_split_without_usable_videos(dataset, tmp_path):
    for video in dataset.splits["val"]:
        video.path.write_text("no video")
    with pytest.raises(DataError, match="split val has no usable video"):
        open_pack(dataset, SIDE, tmp_path / "cache", max_broken=0.9)


def test_a_cache_that_cannot_be_written(dataset, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="the pack cannot be written"):
        open_pack(dataset, SIDE, tmp_path / "file")


def build(root: Path, cache: Path, start, results) -> None:
    """In a process of its own: open the pack and tell how many videos this process decoded."""
    dataset = read_dataset(root)
    decoded: list[int] = []
    start.wait(60)
    pack = open_pack(dataset, SIDE, cache, report=lambda done, total: decoded.append(done))
    results.put((len(decoded), int(pack.splits["train"].frames(7).sum())))


def test_several_processes_build_one_pack_once(dataset, tmp_path):
    start, results = SPAWN.Barrier(3), SPAWN.Queue()
    arguments = (dataset.root, tmp_path / "cache", start, results)
    workers = [SPAWN.Process(target=build, args=arguments) for _ in range(3)]
    for worker in workers:
        worker.start()
    answers = sorted(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(60)
    total = int(decode(dataset.splits["train"][7].path, SIDE).sum())
    assert answers == [(0, total), (0, total), (10, total)]


def build_and_hang(root: Path, cache: Path, started) -> None:
    """In a process of its own: stop for good once three videos are in the pack."""

    def hang(done: int, total: int) -> None:
        if done == 3:
            started.set()
            time.sleep(600)

    open_pack(read_dataset(root), SIDE, cache, report=hang)


def kill_a_build(dataset: Dataset, cache: Path) -> Path:
    """Kill a process that has packed three videos; gives the hidden folder that it leaves."""
    started = SPAWN.Event()
    worker = SPAWN.Process(target=build_and_hang, args=(dataset.root, cache, started))
    worker.start()
    assert started.wait(60)
    tasks = Path(f"/proc/{worker.pid}/task").iterdir()
    pids = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(60)
    assert pids
    deadline = time.monotonic() + 20
    while any(running(pid) for pid in pids):
        assert time.monotonic() < deadline, "decoding processes outlive their parent"
        time.sleep(0.05)
    assert packs_before(cache) == ([], 1)
    return unfinished(cache)[0]


def running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_a_killed_process_leaves_nothing_that_looks_whole_and_the_next_one_goes_on(dataset, tmp_path):
    open_pack(dataset, SIDE, tmp_path / "whole")
    left = kill_a_build(dataset, tmp_path / "cache")
    assert len((left / "journal.jsonl").read_text().splitlines()) == 3
    done: list[int] = []
    pack = open_pack(dataset, SIDE, tmp_path / "cache", report=lambda number, total: done.append(number))
    assert done == [4, 5, 6, 7, 8, 9, 10]
    assert len(pack.splits["train"]) == 8
    assert (len(packs(tmp_path / "cache")), len(unfinished(tmp_path / "cache"))) == (1, 0)
    same_packs(tmp_path / "whole", tmp_path / "cache")


def same_packs(one: Path, other: Path) -> None:
    (first,), (second,) = packs(one), packs(other)
    assert sorted(path.name for path in second.iterdir()) == ["frames.u8", "index.json"]
    for name in ("frames.u8", "index.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize("damage", ["frames", "journal line", "journal", "other videos"])
def test_what_is_left_counts_as_far_as_its_frames_go(dataset, tmp_path, damage):
    open_pack(dataset, SIDE, tmp_path / "whole")
    (whole,) = packs(tmp_path / "whole")
    left = tmp_path / "cache" / "packs" / f".{whole.name}.{os.uname().nodename}.1"
    left.mkdir(parents=True)
    sizes = [2 * 16 * 24 * 3, 3 * 16 * 24 * 3, 4 * 16 * 24 * 3]
    frames = (whole / "frames.u8").read_bytes()[: sum(sizes)]
    names = dataset.splits["train"]
    lines = [
        json.dumps({"split": "train", "name": video.name, "size": [size // 1152, 16, 24]}) + "\n"
        for video, size in zip(names, sizes, strict=False)
    ]
    expected = 3
    if damage == "frames":
        frames, expected = frames[:-1], 2
    elif damage == "journal line":
        lines[2], expected = lines[2][:-5], 2
    elif damage == "journal":
        lines, expected = ["[]\n"], 0
    else:
        lines[1], expected = lines[1].replace("1.mp4", "7.mp4"), 1
    (left / "frames.u8").write_bytes(frames)
    (left / "journal.jsonl").write_text("".join(lines))
    done: list[int] = []
    open_pack(dataset, SIDE, tmp_path / "cache", report=lambda number, total: done.append(number))
    assert done == list(range(expected + 1, 11))
    same_packs(tmp_path / "whole", tmp_path / "cache")


HOSTILE = """
import os, signal, time
from archsearch.video import serving

decode = serving.TASKS["decode"]


def hostile(source, short_side):
    if source.path.match("train/jump/1.mp4"):
        os._exit(7)
    if source.path.match("train/run/2.mp4"):
        os.kill(os.getpid(), signal.SIGKILL)
    if source.path.match("train/jump/3.mp4"):
        time.sleep(600)
    return decode(source, short_side)


serving.TASKS["decode"] = hostile
serving.serve()
"""


def test_a_decoder_that_crashes_or_hangs_breaks_one_video(tmp_path, monkeypatch):
    dataset = small_dataset(tmp_path / "data", train=6)
    monkeypatch.setattr(children, "COMMAND", (sys.executable, "-c", HOSTILE))
    monkeypatch.setattr(children, "SECONDS", 2.0)
    pack = open_pack(dataset, SIDE, tmp_path, max_broken=0.3)
    root = dataset.root / "train"
    assert dict(pack.broken) == {
        "train/jump/1.mp4": f"{root}/jump/1.mp4: decoding crashed (exit code 7); encode it again or leave it out",
        "train/run/2.mp4": f"{root}/run/2.mp4: decoding crashed (SIGKILL); encode it again or leave it out",
        "train/jump/3.mp4": f"{root}/jump/3.mp4: decoding takes longer than 2 seconds; encode it again or leave it out",
    }
    assert len(pack.splits["train"]) == 9
    np.testing.assert_array_equal(pack.splits["train"].frames(1), decode(root / "jump/2.mp4", SIDE))


ONCE = """
import os, pathlib, time
from archsearch.video import serving

decode = serving.TASKS["decode"]


def crowded(source, short_side):
    lost = pathlib.Path(os.environ["LOST"]) / "-".join(source.path.parts[-3:])
    if source.path.match("jump/*") and not lost.exists():
        lost.touch()
        if source.path.match("1.mp4"):
            time.sleep(600)
        os.kill(os.getpid(), 9)
    return decode(source, short_side)


serving.TASKS["decode"] = crowded
serving.serve()
"""


def test_a_video_whose_decoder_is_lost_is_tried_once_more_alone(dataset, tmp_path, monkeypatch):
    under_way: list[str] = []
    asked: dict[str, list[int]] = {}

    def counted(self, task, source, argument):
        under_way.append(source.place)
        asked.setdefault(source.place, []).append(len(under_way))
        answer = ask(self, task, source, argument)
        under_way.remove(source.place)
        return answer

    ask = children.Children.ask
    monkeypatch.setattr(children.Children, "ask", counted)
    monkeypatch.setattr(children, "COMMAND", (sys.executable, "-c", ONCE))
    monkeypatch.setattr(children, "SECONDS", 3.0)
    monkeypatch.setenv("LOST", str(tmp_path))
    pack = open_pack(dataset, SIDE, tmp_path / "cache")
    assert pack.broken == ()
    again = [counts[1:] for counts in asked.values() if len(counts) > 1]
    assert again == [[1]] * 5
    for split, videos in dataset.splits.items():
        for number, video in enumerate(videos):
            np.testing.assert_array_equal(pack.splits[split].frames(number), decode(video.path, SIDE))


def test_no_decoder_at_all_is_no_fault_of_the_videos(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(children, "COMMAND", (sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(DataError, match=r"cannot be started \(exit code 3\)"):
        open_pack(dataset, SIDE, tmp_path / "cache")
    monkeypatch.undo()
    assert open_pack(dataset, SIDE, tmp_path / "cache").broken == ()


def test_stretches_folders_and_members_are_packed(tmp_path):
    root = tmp_path / "data"
    dataset = small_dataset(root)
    long = root / "long.mp4"
    encode(long, np.random.default_rng(1).integers(0, 256, (30, 32, 48, 3), np.uint8), fps=10)
    with tarfile.open(root / "a.tar", "w") as archive:
        archive.add(root / "train/run/0.mp4", "k.mp4")
    (root / "classes.txt").write_text("jump\nrun\n")
    (root / "val.csv").write_text("train/jump/1.mp4 0\n")
    lines = ["long.mp4#t=0.5,1.2 0", "long.mp4#t=1.2,3 1", "a.tar#k.mp4 0,1"]
    (root / "train.csv").write_text("\n".join(lines))
    dataset = read_dataset(root)
    with pytest.raises(DataError, match="videos have several labels: set `loss: binary` in the recipe"):
        open_pack(dataset, SIDE, tmp_path)
    pack = open_pack(dataset, SIDE, tmp_path, multi_label=True)
    train = pack.splits["train"]
    assert train.names == tuple(line.split()[0] for line in lines)
    assert train.label_sets == ((0,), (1,), (0, 1))
    assert train.labels.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(train.frames(0), decode_frames(long, 5, 12, SIDE))
    np.testing.assert_array_equal(train.frames(1), decode_frames(long, 12, 30, SIDE))
    np.testing.assert_array_equal(train.frames(2), decode(root / "train/run/0.mp4", SIDE))
    digests = {pack.digest}
    for line in ("long.mp4#t=0.5,1.3 0", "long.mp4#t=0.5,1.2 0,1"):
        (root / "train.csv").write_text("\n".join([line, *lines[1:]]))
        digests.add(open_pack(read_dataset(root), SIDE, tmp_path, multi_label=True).digest)
    assert len(digests) == 3


def packs_before(cache: Path) -> tuple[list[Path], int]:
    return packs(cache), len(unfinished(cache))


def test_ctrl_c_is_an_interruption_like_a_kill(dataset, tmp_path):
    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_pack(dataset, SIDE, tmp_path, report=stop)
    assert packs_before(tmp_path) == ([], 1)
    done: list[int] = []
    open_pack(dataset, SIDE, tmp_path, report=lambda number, total: done.append(number))
    assert done == [6, 7, 8, 9, 10]


def build_on_a_full_disk(root: Path, cache: Path, results) -> None:
    """In a process of its own: files cannot grow beyond 5 kB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    try:
        open_pack(read_dataset(root), SIDE, cache)
    except DataError as fault:
        results.put(fault.lines)


def test_a_full_disk_is_one_line_and_leaves_nothing(dataset, tmp_path):
    results = SPAWN.Queue()
    worker = SPAWN.Process(target=build_on_a_full_disk, args=(dataset.root, tmp_path, results))
    worker.start()
    (line,) = results.get(timeout=60)
    worker.join(60)
    assert "the pack cannot be written (File too large)" in line
    assert packs(tmp_path) == unfinished(tmp_path) == []
    assert len(open_pack(dataset, SIDE, tmp_path).splits["train"]) == 8


def total_of(split: PackedSplit, results) -> None:
    results.put(int(split.frames(3).sum()))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_split_travels_to_other_processes(dataset, tmp_path, method):
    split = open_pack(dataset, SIDE, tmp_path).splits["train"]
    total = int(split.frames(3).sum())
    assert len(pickle.dumps(split)) < 2000
    context = multiprocessing.get_context(method)
    results = context.Queue()
    worker = context.Process(target=total_of, args=(split, results))
    worker.start()
    assert results.get(timeout=60) == total
    worker.join(60)


def test_the_index_is_readable_by_others(dataset, tmp_path):
    open_pack(dataset, SIDE, tmp_path)
    (folder,) = packs(tmp_path)
    index = json.loads((folder / "index.json").read_text())
    assert index["splits"]["train"]["sizes"][0] == [2, 16, 24]
    assert index["bytes"] == (folder / "frames.u8").stat().st_size
    assert oct(folder.stat().st_mode & 0o777) == oct(0o777 & ~umask())


def umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the UTD-MHAD clips in ../shared/data")
def test_real_clips(tmp_path):
    dataset = read_dataset(DATA / "utd_mhad_rgb")
    pack = open_pack(dataset, 32, tmp_path)
    assert pack.broken == ()
    assert {split: len(packed) for split, packed in pack.splits.items()} == {
        "train": 80,
        "val": 40,
        "test": 40,
    }
    assert all(packed.frames(0).shape[1:] == (32, 32, 3) for packed in pack.splits.values())
    assert pack.splits["train"].frames(0).std() > 10
