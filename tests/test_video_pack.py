"""Packs: what they hold, who builds them, and what interrupted or broken work leaves."""

import json
import multiprocessing
import os
import pickle
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from archsearch.errors import DataError
from archsearch.video.dataset import Dataset, read_dataset
from archsearch.video.decode import decode, encode
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


def test_too_many_broken_videos_are_an_error_that_leaves_nothing(dataset, tmp_path):
    for video in dataset.splits["train"][:2]:
        video.path.unlink()
    with pytest.raises(DataError) as caught:
        open_pack(dataset, SIDE, tmp_path / "cache")
    (line,) = caught.value.lines
    assert line.startswith(f"{dataset.root}: 2 of 10 videos are broken (20%, the limit is 10%): ")
    assert line.count("no such file") == 2
    assert packs(tmp_path / "cache") == unfinished(tmp_path / "cache") == []
    assert len(open_pack(dataset, SIDE, tmp_path / "cache", max_broken=0.2).splits["train"]) == 6


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


def test_a_killed_process_leaves_nothing_that_looks_whole(dataset, tmp_path):
    started = SPAWN.Event()
    worker = SPAWN.Process(target=build_and_hang, args=(dataset.root, tmp_path, started))
    worker.start()
    assert started.wait(60)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(60)
    assert packs_before(tmp_path) == ([], 1)
    pack = open_pack(dataset, SIDE, tmp_path)
    assert len(pack.splits["train"]) == 8
    assert (len(packs(tmp_path)), len(unfinished(tmp_path))) == (1, 0)


def packs_before(cache: Path) -> tuple[list[Path], int]:
    return packs(cache), len(unfinished(cache))


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
