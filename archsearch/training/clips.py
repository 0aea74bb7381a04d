"""Batches as the network reads them: from packed uint8 clips to normalised tensors."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from archsearch.errors import DataError, SpecError
from archsearch.files import near_or_all
from archsearch.spec.basic import AverageStage, HeadStage
from archsearch.spec.spec import Spec
from archsearch.training.augment import augment, augments
from archsearch.training.processes import own_part
from archsearch.training.recipe import Recipe, Rgb, short_side
from archsearch.video.clips import RGB, Sampling, training_batch, view_batch
from archsearch.video.dataset import Dataset
from archsearch.video.flow import STEPS, ZERO
from archsearch.video.pack import Pack, PackedSplit, open_flow, open_pack
from archsearch.video.variation import Variation, varied_clips

PackReport = Callable[[str, int, int, str], None]  # what, done, of how many, status


def sampling_for(spec: Spec, recipe: Recipe, classes: tuple[str, ...]) -> Sampling:
    """How clips are cut for a network. Raises DataError for inputs that no clip has, or an unknown class."""
    heads = {stage.name for stage in spec.stages if isinstance(stage, HeadStage)}
    last = spec.stages[-1]
    if not heads.issuperset(last.from_ if isinstance(last, AverageStage) else (last.name,)):
        raise SpecError(f"{spec.name}: its last stage is {spec.stages[-1].name}; training needs a head there")
    channels = channels_of(spec)
    clip = next(iter(spec.inputs.values()))
    for field, names in (
        ("flip_except", recipe.flip_except),
        ("flip_map", (*recipe.flip_map, *recipe.flip_map.values())),
        ("reverse_map", (*recipe.reverse_map, *recipe.reverse_map.values())),
    ):
        for name in names:
            if name not in classes:
                raise DataError(f"recipe, {field}: there is no class '{name}'{near_or_all(name, classes)}")
    kept = frozenset(classes.index(name) for name in recipe.flip_except)
    stride = sum(recipe.stride) // 2 if isinstance(recipe.stride, tuple) else recipe.stride
    return Sampling(clip.t, clip.h, clip.w, stride, recipe.flip, kept, channels)


def channels_of(spec: Spec) -> tuple[int, ...]:
    """The channels of each input: 3 of pixels, an even number of optical flow.

    Raises DataError for others, and for inputs of several lengths or sides, which one clip does not have.
    """
    sizes = spec.inputs
    reads = ", ".join(f"{name} {size}" for name, size in sizes.items())
    if any(size.c != RGB and size.c % 2 for size in sizes.values()):
        raise DataError(
            f"{spec.name}: reads {reads}; an input has 3 channels (pixels) or an even number (optical flow)"
        )
    if len({tuple(size)[1:] for size in sizes.values()}) > 1:
        raise DataError(f"{spec.name}: reads {reads}; inputs cut from one clip have the same frames, height and width")
    return tuple(size.c for size in sizes.values())


def packed(dataset: Dataset, spec: Spec, recipe: Recipe, report: PackReport = lambda *_: None) -> Pack:
    """The pack a network's clips are cut from, with optical flow where it reads any. Raises what opening them does."""
    channels_of(spec)  # before anything long
    pack = open_pack(
        dataset,
        pack_side(spec, recipe),
        max_broken=recipe.max_broken,
        report=lambda done, total: report("packing", done, total, ""),
        multi_label=recipe.loss == "binary",
    )
    return with_flow(pack, spec, recipe, report)


def pack_side(spec: Spec, recipe: Recipe) -> int:
    """The short side in pixels of the frames that a network's clips are cut from."""
    clip = next(iter(spec.inputs.values()))
    return short_side(recipe, clip.h, clip.w)


def with_flow(pack: Pack, spec: Spec, recipe: Recipe, report: PackReport = lambda *_: None) -> Pack:
    """The pack, with optical flow where the network reads any; computed where there is none. Raises what that does."""
    if set(channels_of(spec)) == {RGB}:
        return pack
    return open_flow(pack, recipe.flow, recipe.flow_bound, lambda done, total: report("flow", done, total, ""))


def variation_for(recipe: Recipe, classes: tuple[str, ...]) -> Variation:
    """How a recipe's training clips vary; classes that are each other's mirror image need to be named once."""
    return Variation(
        scales=recipe.scales if recipe.crop in ("scales", "corners") else (),
        corners=recipe.crop == "corners",
        area=recipe.area if recipe.crop == "resized" else None,
        strides=recipe.stride if isinstance(recipe.stride, tuple) else None,
        jitter=recipe.jitter,
        reverse=recipe.reverse,
        mirrored=_both_ways(recipe.flip_map, classes),
        reversed=_both_ways(recipe.reverse_map, classes),
    )


def _both_ways(pairs: Mapping[str, str], classes: tuple[str, ...]) -> dict[int, int]:
    numbers = [(classes.index(one), classes.index(other)) for one, other in pairs.items()]
    return {other: one for one, other in numbers} | dict(numbers)


def split_of(pack: Pack, name: str) -> PackedSplit:
    """A split of the data set. Raises DataError where it is missing or empty."""
    if name not in pack.splits or not len(pack.splits[name]):
        raise DataError(f"the data set has no '{name}' split{near_or_all(name, pack.splits)}")
    return pack.splits[name]


def epoch_batches(
    split: PackedSplit, sampling: Sampling, recipe: Recipe, epoch: int, classes: tuple[str, ...] = ()
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every clip of an epoch once: (clip_NCTHW, label_N). A function of (seed, epoch), whatever came before.

    The clips are dealt into ceil(n / batch) batches of almost equal size, so that no batch is nearly empty. With the
    `classes` clips vary as the recipe says; where it mixes them, or videos have several labels, targets are shares or
    0 and 1 (N, classes). Of several processes each draws the same batch and gives its own part of it.
    """
    rng = np.random.default_rng([recipe.seed, epoch])
    variation = variation_for(recipe, classes) if classes else Variation()
    order = rng.permutation(len(split))
    for indices in np.array_split(order, steps_per_epoch(split, recipe)):
        own = own_part(len(indices))
        pixels: np.ndarray | list[np.ndarray]
        if variation == Variation():
            pixels = training_batch(split, indices, sampling, rng)
            labels = [split.labels_of(int(video)) for video in indices]
        else:
            pixels, labels = varied_clips(split, indices, sampling, variation, rng)
        label = _targets(labels, len(classes) if split.label_sets else 0).to(recipe.device)
        if classes and augments(recipe):  # clips of the whole batch, since they may be mixed
            clip = _on_device(pixels, sampling, recipe)
            if (recipe.mixup or recipe.cutmix) and label.ndim == 1:
                label = F.one_hot(label, len(classes)).float()
            clip, label = augment(clip / 255, label, recipe, rng, sampling.channels)
            clip = clip[own] * 255
        else:
            clip = _on_device(pixels[own], sampling, recipe)
        yield normalised(clip, recipe, sampling.channels), label[own]


def _targets(labels: Sequence[tuple[int, ...]], classes: int) -> Tensor:
    """0 or 1 for each class, float32 (N, classes); for `classes` 0 the first label of each clip, int64 (N)."""
    if not classes:
        return torch.tensor([own[0] for own in labels])
    rows = torch.zeros(len(labels), classes)
    for row, own in zip(rows, labels, strict=True):
        row[list(own)] = 1
    return rows


def _on_device(clips: np.ndarray | list[np.ndarray], sampling: Sampling, recipe: Recipe) -> Tensor:
    """uint8 clips (T, H, W, C) of any size -> float32 pixels 0 ... 255 (N, C, T, H, W) of the size that is sampled."""
    if isinstance(clips, np.ndarray) or all(clip.shape == clips[0].shape for clip in clips):
        batches = [np.asarray(clips)]
    else:
        batches = [clip[None] for clip in clips]
    return torch.cat([resized(as_pixels(batch, recipe), sampling) for batch in batches])


def steps_per_epoch(split: PackedSplit, recipe: Recipe) -> int:
    """How many batches an epoch has."""
    return -(-len(split) // recipe.batch)


def batch_sizes(split: PackedSplit, recipe: Recipe) -> list[int]:
    """The clips of each batch of an epoch, over all processes."""
    each, more = divmod(len(split), steps_per_epoch(split, recipe))
    return [each + (step < more) for step in range(steps_per_epoch(split, recipe))]


def view_batches(
    split: PackedSplit, sampling: Sampling, recipe: Recipe, view: int, *, reverse: bool = False, crop: float = 0.5
) -> Iterator[Tensor]:
    """One view of every video, in order, at one place of the crop: clip_NCTHW."""
    for start in range(0, len(split), recipe.batch):
        indices = np.arange(start, min(start + recipe.batch, len(split)))
        batch = view_batch(split, indices, sampling, view, recipe.views, reverse, crop)
        yield as_clip(batch, recipe, sampling.channels)


def as_clip(batch_NTHWC: np.ndarray, recipe: Recipe, channels: Sequence[int] = (RGB,)) -> Tensor:
    """uint8 (N, T, H, W, C) -> normalised float32 (N, C, T, H, W), in the recipe's memory format."""
    return normalised(as_pixels(batch_NTHWC, recipe), recipe, channels)


def as_pixels(batch_NTHWC: np.ndarray, recipe: Recipe) -> Tensor:
    """uint8 (N, T, H, W, C) -> float32 pixels 0 ... 255 (N, C, T, H, W) on the recipe's device."""
    return torch.from_numpy(batch_NTHWC).to(recipe.device).permute(0, 4, 1, 2, 3).float()


def resized(clip_NCTHW: Tensor, sampling: Sampling) -> Tensor:
    """Clips of another size at the size that is sampled: bilinear, smoothed where they become smaller."""
    sides = (sampling.height, sampling.width)
    if clip_NCTHW.shape[-2:] == sides:
        return clip_NCTHW
    frames = clip_NCTHW.transpose(1, 2).flatten(0, 1)
    found = F.interpolate(frames, sides, mode="bilinear", antialias=True, align_corners=False)
    return found.view(len(clip_NCTHW), -1, *found.shape[1:]).transpose(1, 2)


def normalised(clip_NCTHW: Tensor, recipe: Recipe, channels: Sequence[int] = (RGB,)) -> Tensor:
    """Pixels 0 ... 255 less the recipe's mean, over its standard deviation; flow as -1 ... 1; in its memory format."""
    mean, scale = _by_channel(recipe.mean, ZERO, channels), _by_channel(recipe.std, STEPS, channels)
    mean, scale = mean.to(clip_NCTHW.device), scale.to(clip_NCTHW.device)
    clip = (clip_NCTHW - mean) / scale
    if recipe.channels_last:
        return clip.contiguous(memory_format=torch.channels_last_3d)
    return clip.contiguous()


def _by_channel(pixels: Rgb, flow: float, channels: Sequence[int]) -> Tensor:
    """255 times what is said of pixels, and what is said of flow, as they lie in a clip: (1, C, 1, 1, 1)."""
    parts = [torch.tensor(pixels).mul(255) if count == RGB else torch.full((count,), float(flow)) for count in channels]
    return torch.cat(parts).view(1, -1, 1, 1, 1)
