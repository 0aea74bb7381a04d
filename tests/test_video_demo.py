"""The demo data set: exact reversals, the same bytes for a seed, small, whole or absent."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from archsearch.errors import DataError
from archsearch.video import demo as drawing
from archsearch.video.dataset import read_dataset
from archsearch.video.decode import decode
from archsearch.video.demo import CLIPS, FRAMES, PAIRS, SIDE, draw_clip, make_demo


def contents(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_it_is_a_data_set_of_six_classes(demo):
    dataset = read_dataset(demo)
    assert set(dataset.classes) == {name for pair in PAIRS for name in pair}
    assert dataset.notes == ()
    for split, clips in CLIPS.items():
        labels = [video.label for video in dataset.splits[split]]
        assert np.bincount(labels).tolist() == [clips] * 6


def test_it_is_small(demo):
    assert sum(path.stat().st_size for path in demo.rglob("*")) < 5_000_000


@pytest.mark.parametrize("split", ["val", "test"])
def test_each_clip_reversed_is_a_clip_of_the_partner_class(demo, split):
    for forward, backward in PAIRS:
        one = [decode(path) for path in sorted((demo / split / forward).iterdir())]
        other = [decode(path) for path in sorted((demo / split / backward).iterdir())]
        assert all(clip.shape == (FRAMES, SIDE, SIDE, 3) for clip in one)
        reversals = sorted(clip[::-1].tobytes() for clip in other)
        assert sorted(clip.tobytes() for clip in one) == reversals
        assert len(set(reversals)) == CLIPS[split]
        assert not {clip.tobytes() for clip in one} & {clip.tobytes() for clip in other}


def test_file_sizes_do_not_tell_the_direction(demo):
    for forward, backward in PAIRS:
        sizes = [
            sorted(path.stat().st_size for path in (demo / "test" / name).iterdir()) for name in (forward, backward)
        ]
        # Equal pictures; a few bytes of difference come from frame numbers in headers.
        assert np.abs(np.subtract(*sizes)).max() <= 0.01 * max(sizes[0])


def centre_and_area(clip: np.ndarray, still: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Horizontal centre on the torus, in pixels, and area of what differs from the still background."""
    mask = np.abs(clip.astype(float) - still).max(axis=-1) > 12
    angle = np.arange(SIDE) * 2 * np.pi / SIDE
    column = mask.sum(axis=1)
    centre = np.angle((column * np.exp(1j * angle)).sum(axis=1)) * SIDE / (2 * np.pi)
    return centre, mask.sum(axis=(1, 2))


def test_right_moves_to_the_right_and_grow_grows():
    moved, grown = [], []
    for number in range(10):
        clip = draw_clip(np.random.default_rng(number), "right")
        centre, _ = centre_and_area(clip, np.median(clip, axis=0))
        moved.append(np.median((np.diff(centre) + SIDE / 2) % SIDE - SIDE / 2))
        clip = draw_clip(np.random.default_rng(number), "grow")
        _, area = centre_and_area(clip, clip[0])
        grown.append(area[-1] > area[4])
    assert np.median(moved) > 1.2
    assert all(grown)


def around_centre(clip: np.ndarray) -> np.ndarray:
    """Pixels on rings around what moves, (t, rings, 72 angles, 3), angles growing clockwise on the screen."""
    change = clip.std(axis=0).mean(axis=-1)
    change[change < change.max() / 4] = 0
    y, x = ((change * axis).sum() / change.sum() for axis in np.mgrid[:SIDE, :SIDE])
    # Rows count downwards, so growing angles are clockwise.
    angle, radius = np.arange(72) * 2 * np.pi / 72, np.arange(4, 16, 2)[:, None]
    rings = np.rint(y + radius * np.sin(angle)).astype(int), np.rint(x + radius * np.cos(angle)).astype(int)
    return clip[:, rings[0], rings[1]]


def test_clockwise_turns_clockwise():
    """The turn, in steps of 5 degrees, that makes each frame most like the next one."""
    turned = []
    for number in range(10):
        rings = around_centre(draw_clip(np.random.default_rng(number), "clockwise").astype(float))
        turns = np.arange(-5, 6)
        unlike = [np.abs(np.roll(rings[:-1], turn, axis=2) - rings[1:]).sum(axis=(1, 2, 3)) for turn in turns]
        turned.append(turns[np.argmin(unlike, axis=0)].sum() * 5)
    # Each clip turns by 110 to 190 degrees.
    assert min(turned) > 60
    assert max(turned) < 240


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "CLIPS", {"train": 2, "val": 1})
    seen: list[tuple[int, int]] = []
    make_demo(tmp_path / "a", seed=3, report=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 18) for done in range(2, 19, 2)]
    (tmp_path / "b").mkdir()
    make_demo(tmp_path / "b", seed=3)
    make_demo(tmp_path / "c", seed=4)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert not set(contents(tmp_path / "a").values()) & set(contents(tmp_path / "c").values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_a_complete_set_is_left_as_it_is(demo):
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    make_demo(demo)
    assert before == {path: path.stat().st_mtime_ns for path in demo.rglob("*")}


def test_it_never_writes_over_something_else(demo, tmp_path):
    with pytest.raises(DataError, match="is no demo set of seed 1"):
        make_demo(demo, seed=1)
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="name a new or an empty folder"):
        make_demo(tmp_path)
    with pytest.raises(DataError, match="name a new or an empty folder"):
        make_demo(tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_interrupted_work_leaves_nothing(tmp_path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path / "clips", report=stop)
    assert list(tmp_path.iterdir()) == []
