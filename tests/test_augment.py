"""Augmentation: every variation against the definition it has, seeded, and nothing where nothing is asked for."""

import numpy as np
import pytest
import torch

from archsearch.errors import DataError, RecipeError
from archsearch.store import open_store, read_json
from archsearch.training.augment import augment, erase, jitter_colours, mix
from archsearch.training.checkpoint import read_weights
from archsearch.training.clips import epoch_batches, normalised, resized, sampling_for, split_of, variation_for
from archsearch.training.loop import train
from archsearch.training.recipe import Recipe, read_recipe
from archsearch.video.clips import Sampling
from archsearch.video.variation import Variation, varied_clips

SAMPLING = Sampling(4, 32, 32, "spread", False)
EVERY = {
    "crop": "resized",
    "jitter": 0.5,
    "reverse": 0.5,
    "colour": 0.3,
    "mixup": 0.2,
    "cutmix": 1.0,
    "erasing": 0.5,
    "stride": (1, 2),
}


def rng(seed=0):
    return np.random.default_rng(seed)


def recipe(**changes):
    return Recipe(**{"epochs": 2, "batch": 8, "warmup_epochs": 0, "views": 1, "flip": False, **changes})


def clips_of(split, variation, sampling=SAMPLING, seed=0, times=1):
    found = [varied_clips(split, np.arange(len(split)), sampling, variation, rng(seed + n)) for n in range(times)]
    return [clip for clips, _ in found for clip in clips], np.array([label for _, sets in found for (label,) in sets])


# --- what is cut


def test_without_any_variation_a_clip_is_a_window_of_its_frames(pack):
    split = pack.splits["train"]
    clips, labels = clips_of(split, Variation())
    assert labels.tolist() == split.labels.tolist()
    for video, clip in enumerate(clips):
        windows = np.lib.stride_tricks.sliding_window_view(split.frames(video), (32, 32), axis=(1, 2))
        wanted = np.moveaxis(clip, 3, 1)  # (4, 3, 32, 32), as windows (t, y, x, 3, 32, 32)
        found = [(windows == frame).all((3, 4, 5)).any(0) for frame in wanted]
        assert np.logical_and.reduce(found).any(), "all frames are cut at one place"


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.25])
def test_scales_are_shares_of_the_short_side(pack, scale):
    split = pack.splits["train"]
    short = min(split.sizes[0][1:])
    clips, _ = clips_of(split, Variation(scales=(scale,)))
    assert {clip.shape for clip in clips} == {(4, int(scale * short), int(scale * short), 3)}


def test_corner_crops_have_five_places_and_take_each(pack):
    split = pack.splits["train"]
    frames = split.frames(0)
    height, width = frames.shape[1:3]
    side = int(0.5 * min(height, width))
    tops, lefts = {0, height - side, (height - side) // 2}, {0, width - side, (width - side) // 2}
    seen = set()
    for seed in range(60):
        (clip,), _ = varied_clips(split, np.array([0]), SAMPLING, Variation(scales=(0.5,), corners=True), rng(seed))
        places = [
            (top, left)
            for top in range(height - side + 1)
            for left in range(width - side + 1)
            if any((clip[0] == frames[t, top : top + side, left : left + side]).all() for t in range(len(frames)))
        ]
        seen |= set(places[:1])
        assert places
    assert len(seen) == 5
    assert {top for top, _ in seen} <= tops | {tops_ + 1 for tops_ in tops}
    assert {left for _, left in seen} <= lefts | {left + 1 for left in lefts}


def test_resized_crops_keep_to_their_area_and_aspect(pack):
    split = pack.splits["train"]
    height, width = split.sizes[0][1:]
    clips, _ = clips_of(split, Variation(area=(0.2, 0.6)), times=10)
    areas = np.array([clip.shape[1] * clip.shape[2] / (height * width) for clip in clips])
    aspects = np.array([clip.shape[2] / clip.shape[1] for clip in clips])
    assert 0.17 < areas.min() < 0.25 < 0.5 < areas.max() < 0.65
    assert 0.7 < aspects.min() < 0.85 < 1.15 < aspects.max() < 1.45


def test_a_range_of_strides_gives_each_of_them(pack):
    split = pack.splits["train"]
    frames = split.frames(0)
    sampling = Sampling(3, *frames.shape[1:3], 2, False)
    steps = set()
    for seed in range(40):
        (clip,), _ = varied_clips(split, np.array([0]), sampling, Variation(strides=(1, 3)), rng(seed))
        places = [int(np.flatnonzero((frames == frame).all((1, 2, 3)))[0]) for frame in clip]
        steps.add(places[1] - places[0])
        assert places[2] - places[1] == places[1] - places[0]
    assert steps == {1, 2, 3}


def test_jitter_moves_frames_and_never_back_in_time(pack):
    split = pack.splits["train"]
    frames = split.frames(0)
    sampling = Sampling(3, *frames.shape[1:3], "spread", False)
    found = set()
    for seed in range(20):
        (clip,), _ = varied_clips(split, np.array([0]), sampling, Variation(jitter=1.0), rng(seed))
        places = [int(np.flatnonzero((frames == frame).all((1, 2, 3)))[0]) for frame in clip]
        assert places == sorted(places)
        found.add(tuple(places))
    assert len(found) > 3


def test_reversed_and_mirrored_clips_have_the_label_of_their_counterpart(pack):
    split = pack.splits["train"]
    whole = Sampling(4, *split.sizes[0][1:], "spread", True)
    one, other = 0, 1
    variation = Variation(reverse=1.0, reversed={one: other, other: one})
    clips, labels = clips_of(split, variation, Sampling(4, *split.sizes[0][1:], "spread", False))
    plain, before = clips_of(split, Variation(), Sampling(4, *split.sizes[0][1:], "spread", False))
    for clip, straight, label, was in zip(clips, plain, labels, before, strict=True):
        assert (clip == straight[::-1]).all()
        assert label == {one: other, other: one}.get(was, was)
    mirrored, swapped = clips_of(split, Variation(mirrored={one: other, other: one}), whole, times=3)
    straight, was = clips_of(split, Variation(), Sampling(4, *split.sizes[0][1:], "spread", False), times=3)
    turned = [not (a == b).all() for a, b in zip(mirrored, straight, strict=True)]
    assert 0.2 < np.mean(turned) < 0.8
    for clip, plain_clip, label, before_label, turn in zip(mirrored, straight, swapped, was, turned, strict=True):
        assert (clip == (plain_clip[:, :, ::-1] if turn else plain_clip)).all()
        assert label == ({one: other, other: one}.get(before_label, before_label) if turn else before_label)


def test_a_video_smaller_than_the_crop_is_one_line(pack):
    with pytest.raises(DataError, match="smaller than a crop of 64 x 64"):
        clips_of(pack.splits["train"], Variation(jitter=0.5), Sampling(4, 64, 64, "spread", False))


# --- what the device does


def test_resizing_keeps_a_flat_picture_flat_and_its_mean():
    clip = torch.rand(2, 3, 4, 1, 1).expand(2, 3, 4, 48, 64)
    assert torch.allclose(resized(clip, SAMPLING), clip[..., :32, :32], atol=1e-6)
    noise = torch.rand(1, 3, 2, 64, 64)
    assert torch.allclose(resized(noise, SAMPLING).mean((-1, -2)), noise.mean((-1, -2)), atol=0.01)


def test_colours_change_by_one_factor_a_clip_and_stay_in_range():
    clip = torch.rand(6, 3, 4, 8, 8) * 0.5 + 0.2
    found = jitter_colours(clip, 0.3, rng())
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert len({round(float(each), 4) for each in (found / clip).mean((1, 2, 3, 4))}) == 6
    grey = torch.full((4, 3, 2, 4, 4), 0.5)
    changed = jitter_colours(grey, 0.2, rng(1))
    assert torch.allclose(changed, changed[:, :1, :1, :1, :1].expand_as(changed), atol=1e-6), "grey stays grey and flat"
    assert float(changed.min()) >= 0.4
    assert float(changed.max()) <= 0.6
    assert jitter_colours(torch.rand(2, 2, 4, 8, 8), 0.3, rng()).shape == (2, 2, 4, 8, 8)


def test_erasing_fills_one_box_in_all_frames_of_some_clips():
    clip = torch.rand(200, 3, 2, 32, 32)
    found = erase(clip, 0.5, rng())
    changed = (found != clip).all(1).all(1)
    shares = changed.float().mean((1, 2))
    assert 0.35 < float((shares > 0).float().mean()) < 0.65
    assert float(shares.max()) < 0.36
    for one, mask in zip(found[shares > 0][:20], changed[shares > 0], strict=False):
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        assert mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
        (colour,) = one[:, :, mask].flatten(1).unique(dim=1).unbind(1)
        assert len(set(colour.tolist())) == 3
    assert torch.equal(erase(clip, 0.0, rng()), clip)


def test_flow_stands_still_in_an_erased_box():
    clip = torch.rand(20, 7, 2, 32, 32)
    found, _ = augment(clip, torch.zeros(20), recipe(erasing=1.0), rng(), (2, 3, 2))
    changed = (found != clip).all(1)
    assert changed.flatten(1).any(1).all()
    flow = normalised(found * 255, recipe(), (2, 3, 2)).movedim(1, -1)[changed]
    assert (flow[:, [0, 1, 5, 6]] == 0).all()
    assert len({tuple(colour) for colour in flow[:, 2:5].tolist()}) == 20


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_targets_are_mixed_as_pixels_are(mixup, cutmix):
    target = torch.eye(8)
    clip = target.argmax(1).float().view(8, 1, 1, 1, 1).expand(8, 3, 2, 32, 32).contiguous()  # each of its own value
    for seed in range(10):
        found, targets = mix(clip, target, mixup, cutmix, rng(seed))
        assert torch.allclose(targets.sum(1), torch.ones(8))
        expected = (targets * torch.arange(8.0)).sum(1)
        assert torch.allclose(found.mean((1, 2, 3, 4)), expected, atol=1e-4)


# --- in a training


def test_every_augmentation_together_is_a_function_of_seed_and_epoch(pack, spec):
    split, sampling = split_of(pack, "train"), sampling_for(spec, recipe(), pack.classes)

    def epoch(number, **changes):
        return list(epoch_batches(split, sampling, recipe(**EVERY, **changes), number, pack.classes))

    for (first, targets), (again, same) in zip(epoch(3), epoch(3), strict=True):
        assert torch.equal(first, again)
        assert torch.equal(targets, same)
        assert first.shape[1:] == (3, 4, 32, 32)
        assert targets.shape[1:] == (4,)
    assert not torch.equal(epoch(3)[0][0], epoch(4)[0][0])
    assert not torch.equal(epoch(3)[0][0], epoch(3, seed=1)[0][0])


def test_nothing_asked_for_is_nothing_changed(pack, spec):
    split, sampling = split_of(pack, "train"), sampling_for(spec, recipe(), pack.classes)
    known, plain = (
        epoch_batches(split, sampling, recipe(), 0, pack.classes),
        epoch_batches(split, sampling, recipe(), 0),
    )
    assert all(torch.equal(a, b) and torch.equal(x, y) for (a, x), (b, y) in zip(known, plain, strict=True))
    clip = torch.rand(2, 3, 4, 8, 8)
    assert augment(clip, torch.eye(2), recipe(), rng())[0] is clip


@pytest.mark.usefixtures("one_thread")
def test_an_augmented_training_resumes_bit_for_bit(pack, spec, tmp_path):
    whole, parts = open_store(str(tmp_path / "whole")), open_store(str(tmp_path / "parts"))
    train(spec, recipe(**EVERY), pack, whole)

    def stop(epoch):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        train(spec, recipe(**EVERY), pack, parts, stop)
    train(spec, recipe(**EVERY), pack, parts)
    assert all(torch.equal(tensor, read_weights(parts)[name]) for name, tensor in read_weights(whole).items())
    assert all(0 <= epoch["train_top1"] <= 1 for epoch in read_json(whole, "curve.json"))


def test_classes_that_are_each_others_image_are_named_once(pack):
    variation = variation_for(recipe(flip_map={pack.classes[0]: pack.classes[1]}), pack.classes)
    assert variation.mirrored == {0: 1, 1: 0}


@pytest.mark.parametrize("field", ["flip_map", "reverse_map"])
def test_a_map_with_an_unknown_class_is_one_line(pack, spec, field):
    with pytest.raises(DataError, match=f"recipe, {field}: there is no class 'lefd'"):
        sampling_for(spec, recipe(**{field: {pack.classes[0]: "lefd"}}), pack.classes)


@pytest.mark.parametrize(
    "text",
    ["stride: [3, 1]", "area: [0.9, 0.2]", "colour: 1.5", "erasing: 2", "crop: middle", "scales: []", "jitter: -0.1"],
)
def test_a_wrong_field_is_one_line(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as error:
        read_recipe(path)
    assert len(error.value.lines) == 1
    assert text.partition(":")[0] in error.value.lines[0]
