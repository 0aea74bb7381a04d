"""Batches as the network reads them: from packed uint8 clips to normalised tensors."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from archsearch.errors import DataError, SpecError
from archsearch.files import near_or_all
from archsearch.spec.basic import HeadStage
from archsearch.spec.spec import Spec
from archsearch.training.augment import augment, augments
from archsearch.training.processes import own_part
from archsearch.training.recipe import Recipe
from archsearch.video.clips import Sampling, training_batch, view_batch
from archsearch.video.pack import Pack, PackedSplit
from archsearch.video.variation import Variation, varied_clips


def sampling_for(spec: Spec, recipe: Recipe, classes: tuple[str, ...]) -> Sampling:
    """How clips are cut for a network. Raises DataError for a clip of other than 3 channels or an unknown class."""
    if not isinstance(spec.stages[-1], HeadStage):
        raise SpecError(f"{spec.name}: its last stage is {spec.stages[-1].name}; training needs a head there")
    sizes = spec.inputs
    clip = next(iter(sizes.values()))
    if len(sizes) > 1 or clip.c != 3:
        reads = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise DataError(f"{spec.name}: reads {reads}; clips of video files are one input of 3 channels")
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
    return Sampling(clip.t, clip.h, clip.w, stride, recipe.flip, kept)


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
    `classes` clips vary as the recipe says; where it mixes them, targets are (N, classes). Of several processes each
    draws the same batch and gives its own part of it.
    """
    rng = np.random.default_rng([recipe.seed, epoch])
    variation = variation_for(recipe, classes) if classes else Variation()
    order = rng.permutation(len(split))
    for indices in np.array_split(order, steps_per_epoch(split, recipe)):
        own = own_part(len(indices))
        pixels: np.ndarray | list[np.ndarray]
        if variation == Variation():
            pixels, labels = training_batch(split, indices, sampling, rng), split.labels[indices]
        else:
            pixels, labels = varied_clips(split, indices, sampling, variation, rng)
        label = torch.from_numpy(labels).to(recipe.device)
        if classes and augments(recipe):  # clips of the whole batch, since they may be mixed
            clip = _on_device(pixels, sampling, recipe)
            target = F.one_hot(label, len(classes)).float() if recipe.mixup or recipe.cutmix else label
            clip, label = augment(clip / 255, target, recipe, rng)
            clip = clip[own] * 255
        else:
            clip = _on_device(pixels[own], sampling, recipe)
        yield normalised(clip, recipe), label[own]


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
        yield as_clip(batch, recipe)


def as_clip(batch_NTHWC: np.ndarray, recipe: Recipe) -> Tensor:
    """uint8 (N, T, H, W, C) -> normalised float32 (N, C, T, H, W), in the recipe's memory format."""
    return normalised(as_pixels(batch_NTHWC, recipe), recipe)


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


def normalised(clip_NCTHW: Tensor, recipe: Recipe) -> Tensor:
    """Pixels 0 ... 255 less the recipe's mean, over its standard deviation, in its memory format."""
    mean = torch.tensor(recipe.mean, device=recipe.device).mul(255).view(1, 3, 1, 1, 1)
    scale = torch.tensor(recipe.std, device=recipe.device).mul(255).view(1, 3, 1, 1, 1)
    clip = (clip_NCTHW - mean) / scale
    if recipe.channels_last:
        return clip.contiguous(memory_format=torch.channels_last_3d)
    return clip.contiguous()
