"""Batches as the network reads them: from packed uint8 clips to normalised tensors."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from archsearch.errors import DataError, SpecError
from archsearch.files import near_or_all
from archsearch.spec.basic import HeadStage
from archsearch.spec.spec import Spec
from archsearch.training.recipe import Recipe
from archsearch.video.clips import Sampling, training_batch, view_batch
from archsearch.video.pack import Pack, PackedSplit


def sampling_for(spec: Spec, recipe: Recipe, classes: tuple[str, ...]) -> Sampling:
    """How clips are cut for a network. Raises DataError for a clip of other than 3 channels or an unknown class."""
    if not isinstance(spec.stages[-1], HeadStage):
        raise SpecError(f"{spec.name}: its last stage is {spec.stages[-1].name}; training needs a head there")
    sizes = spec.inputs
    clip = next(iter(sizes.values()))
    if len(sizes) > 1 or clip.c != 3:
        reads = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise DataError(f"{spec.name}: reads {reads}; clips of video files are one input of 3 channels")
    for name in recipe.flip_except:
        if name not in classes:
            raise DataError(f"recipe, flip_except: there is no class '{name}'{near_or_all(name, classes)}")
    kept = frozenset(classes.index(name) for name in recipe.flip_except)
    return Sampling(clip.t, clip.h, clip.w, recipe.stride, recipe.flip, kept)


def split_of(pack: Pack, name: str) -> PackedSplit:
    """A split of the data set. Raises DataError where it is missing or empty."""
    if name not in pack.splits or not len(pack.splits[name]):
        raise DataError(f"the data set has no '{name}' split{near_or_all(name, pack.splits)}")
    return pack.splits[name]


def epoch_batches(
    split: PackedSplit, sampling: Sampling, recipe: Recipe, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every clip of an epoch once: (clip_NCTHW, label_N). A function of (seed, epoch), whatever came before.

    The clips are dealt into ceil(n / batch) batches of almost equal size, so that no batch is nearly empty.
    """
    rng = np.random.default_rng([recipe.seed, epoch])
    order = rng.permutation(len(split))
    for indices in np.array_split(order, steps_per_epoch(split, recipe)):
        batch = training_batch(split, indices, sampling, rng)
        yield as_clip(batch, recipe), torch.from_numpy(split.labels[indices]).to(recipe.device)


def steps_per_epoch(split: PackedSplit, recipe: Recipe) -> int:
    """How many batches an epoch has."""
    return -(-len(split) // recipe.batch)


def view_batches(
    split: PackedSplit, sampling: Sampling, recipe: Recipe, view: int, *, reverse: bool = False
) -> Iterator[Tensor]:
    """One view of every video, in order: clip_NCTHW."""
    for start in range(0, len(split), recipe.batch):
        indices = np.arange(start, min(start + recipe.batch, len(split)))
        yield as_clip(view_batch(split, indices, sampling, view, recipe.views, reverse), recipe)


def as_clip(batch_NTHWC: np.ndarray, recipe: Recipe) -> Tensor:
    """uint8 (N, T, H, W, C) -> normalised float32 (N, C, T, H, W), in the recipe's memory format."""
    clip = torch.from_numpy(batch_NTHWC).to(recipe.device).permute(0, 4, 1, 2, 3).float()
    mean = torch.tensor(recipe.mean, device=recipe.device).mul(255).view(1, 3, 1, 1, 1)
    scale = torch.tensor(recipe.std, device=recipe.device).mul(255).view(1, 3, 1, 1, 1)
    clip = (clip - mean) / scale
    return clip if recipe.channels_last else clip.contiguous()
