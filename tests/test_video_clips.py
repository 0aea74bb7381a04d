"""Which frames and which pixels a clip takes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsearch.errors import DataError
from archsearch.video.clips import Sampling, frame_indices, training_batch, view_batch
from archsearch.video.pack import PackedSplit

SIZES = [(20, 12, 16), (3, 16, 12), (9, 12, 12)]
places = st.floats(0, 1)
lengths = st.integers(1, 400)
counts = st.integers(1, 64)


@pytest.fixture
def split(tmp_path: Path) -> PackedSplit:
    """Three videos whose pixels tell their place: channels are the frame, the row and the column."""
    offsets, parts = [], []
    for t, h, w in SIZES:
        offsets.append(sum(part.size for part in parts))
        parts.append(np.stack(np.mgrid[:t, :h, :w], axis=-1).astype(np.uint8))
    (tmp_path / "frames.u8").write_bytes(b"".join(part.tobytes() for part in parts))
    names, labels = ("a.mp4", "b.mp4", "c.mp4"), np.array([0, 1, 2])
    return PackedSplit(names, labels, np.array(SIZES), np.array(offsets), tmp_path / "frames.u8")


def picture(indices: np.ndarray, length: int) -> str:
    return "".join("f" if place in indices else "x" for place in range(length))


@pytest.mark.parametrize(
    ("length", "stride", "place", "drawing"),
    [
        (12, 2, 0, "fxfxfxfxxxxx"),
        (12, 2, 0.5, "xxxfxfxfxfxx"),
        (12, 2, 1, "xxxxxfxfxfxf"),
        (6, 2, 0.3, "fxffxf"),
        (12, "spread", 0, "fxxfxxfxxfxx"),
        (12, "spread", 0.5, "xfxxfxxfxxfx"),
        (12, "spread", 1, "xxfxxfxxfxxf"),
    ],
)
def test_the_drawings_of_the_docstring(length, stride, place, drawing):
    assert picture(frame_indices(length, 4, stride, place), length) == drawing
    assert drawing in str(frame_indices.__doc__)


@given(lengths, counts, st.one_of(st.integers(1, 8), st.just("spread")), places)
def test_indices_are_frames_of_the_video_in_order(length, frames, stride, place):
    indices = frame_indices(length, frames, stride, place)
    assert indices.dtype == np.int64
    assert indices.shape == (frames,)
    assert indices.min() >= 0
    assert indices.max() < length
    assert (np.diff(indices) >= 0).all()


@given(lengths, counts, st.integers(1, 8), places)
def test_a_window_that_fits_keeps_its_stride_and_reaches_both_ends(length, frames, stride, place):
    span = (frames - 1) * stride + 1
    if length >= span:
        assert (np.diff(frame_indices(length, frames, stride, place)) == stride).all()
        assert frame_indices(length, frames, stride, 0.0)[0] == 0
        assert frame_indices(length, frames, stride, 1.0)[-1] == length - 1


@given(lengths, counts, st.integers(1, 8), places)
def test_a_short_video_is_used_evenly_over_its_whole_length(length, frames, stride, place):
    if length < (frames - 1) * stride + 1:
        indices = frame_indices(length, frames, stride, place)
        steps = np.diff(indices)
        assert steps.size == 0 or steps.max() - steps.min() <= 1
        assert abs(indices[0] - (length - 1 - indices[-1])) <= 1
        if frames >= length:
            assert set(indices) == set(range(length))


@given(lengths, counts, places)
def test_spread_takes_one_frame_of_each_segment(length, frames, place):
    indices = frame_indices(length, frames, "spread", place)
    edges = np.arange(frames + 1) * length / frames
    assert (indices >= np.floor(edges[:-1])).all()
    assert (indices < np.maximum(edges[1:], np.floor(edges[:-1]) + 1)).all()


@given(lengths, counts, st.one_of(st.integers(1, 8), st.just("spread")), places, places)
def test_a_later_place_never_gives_an_earlier_frame(length, frames, stride, one, other):
    earlier = frame_indices(length, frames, stride, min(one, other))
    assert (earlier <= frame_indices(length, frames, stride, max(one, other))).all()


def test_training_batches_are_crops_of_the_videos(split):
    sampling = Sampling(4, 10, 8, stride=2, flip=False)
    batch = training_batch(split, np.array([0, 2, 2]), sampling, np.random.default_rng(0))
    assert batch.shape == (3, 4, 10, 8, 3)
    assert batch.dtype == np.uint8
    for clip, video in zip(batch, (0, 2, 2), strict=True):
        t, y, x = (int(number) for number in clip[0, 0, 0])
        np.testing.assert_array_equal(clip, split.frames(video)[t : t + 7 : 2, y : y + 10, x : x + 8])


def test_training_reaches_every_place_and_crop(split):
    sampling = Sampling(4, 10, 8, stride=2, flip=False)
    batch = training_batch(split, np.zeros(2000, int), sampling, np.random.default_rng(0))
    first = batch[:, 0, 0, 0].astype(int)
    for axis, possible in enumerate((14, 3, 9)):
        counted = np.bincount(first[:, axis], minlength=possible)
        assert len(counted) == possible
        # Uniform: five standard deviations of a binomial at most.
        share = 1 / possible
        assert np.abs(counted - 2000 * share).max() < 5 * np.sqrt(2000 * share * (1 - share))


def test_training_batches_repeat_with_the_generator(split):
    indices = np.array([0, 1, 2, 1])
    sampling = Sampling(4, 10, 8)
    first = training_batch(split, indices, sampling, np.random.default_rng(5))
    np.testing.assert_array_equal(first, training_batch(split, indices, sampling, np.random.default_rng(5)))
    assert not np.array_equal(first, training_batch(split, indices, sampling, np.random.default_rng(6)))


def test_every_clip_draws_the_same_amount_whatever_the_sampling(split):
    states = []
    for sampling in (Sampling(4, 10, 8), Sampling(2, 12, 12, 3, flip=False), Sampling(1, 1, 1, 1)):
        rng = np.random.default_rng(0)
        training_batch(split, np.array([0, 1]), sampling, rng)
        states.append(rng.random())
    assert states == [np.random.default_rng(0).random(9)[8]] * 3


def test_mirroring_spares_the_labels_that_have_sides(split):
    sampling = Sampling(4, 12, 12, flip=True, no_flip_labels=frozenset({1}))
    batch = training_batch(split, np.repeat([0, 1, 2], 200), sampling, np.random.default_rng(0))
    mirrored = batch[:, 0, 0, 0, 2] > batch[:, 0, 0, -1, 2]
    by_label = mirrored.reshape(3, 200).sum(axis=1)
    assert by_label[1] == 0
    assert 60 < by_label[0] < 140
    assert 60 < by_label[2] < 140


def test_a_mirrored_clip_is_the_clip_mirrored(split):
    indices = np.arange(3).repeat(10)
    plain = training_batch(split, indices, Sampling(4, 10, 8, flip=False), np.random.default_rng(1))
    mixed = training_batch(split, indices, Sampling(4, 10, 8, flip=True), np.random.default_rng(1))
    kinds = set()
    for one, other in zip(plain, mixed, strict=True):
        mirrored = not np.array_equal(one, other)
        np.testing.assert_array_equal(one[:, :, ::-1] if mirrored else one, other)
        kinds.add(mirrored)
    assert kinds == {True, False}


def test_views_are_centred_and_evenly_placed(split):
    sampling = Sampling(4, 10, 8, stride=2)
    starts = []
    for view in range(3):
        (clip,) = view_batch(split, np.array([0]), sampling, view, 3)
        t, y, x = (int(number) for number in clip[0, 0, 0])
        np.testing.assert_array_equal(clip, split.frames(0)[t : t + 7 : 2, 1:11, 4:12])
        assert (y, x) == (1, 4)
        starts.append(t)
    assert starts == [2, 7, 11]


def test_reverse_plays_the_same_frames_backwards(split):
    sampling = Sampling(4, 10, 8, stride=2)
    forward = view_batch(split, np.array([0, 1, 2]), sampling, 0, 1)
    backward = view_batch(split, np.array([0, 1, 2]), sampling, 0, 1, reverse=True)
    np.testing.assert_array_equal(forward[:, ::-1], backward)
    assert not np.array_equal(forward, backward)


def test_a_frame_smaller_than_the_crop(split):
    for batch in (
        lambda sampling: training_batch(split, np.array([1]), sampling, np.random.default_rng(0)),
        lambda sampling: view_batch(split, np.array([1]), sampling, 0, 1),
    ):
        with pytest.raises(DataError, match=r"b\.mp4: frames of 16 x 12 pixels .* 14 x 14"):
            batch(Sampling(4, 14, 14))


@pytest.mark.parametrize("arguments", [(0, 8, 8, 1), (4, 0, 8, 1), (4, 8, -1, 1), (4, 8, 8, 0), (4, 8, 8, "even")])
def test_samplings_that_cannot_be(arguments):
    with pytest.raises(DataError, match="must be"):
        Sampling(*arguments)


def test_a_view_that_is_not_there(split):
    with pytest.raises(DataError, match="view 3 of 3"):
        view_batch(split, np.array([0]), Sampling(4, 8, 8), 3, 3)
