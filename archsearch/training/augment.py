"""Augmentation of batches on the device they train on: colours, erased boxes, and mixtures of clips and labels.

What is drawn comes from one generator, so that a batch is a function of (seed, epoch) whatever came before. Where a
clip is cut in space and time is the part of `archsearch.video.variation`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from archsearch.training.recipe import Recipe
from archsearch.video.clips import RGB
from archsearch.video.flow import ZERO

GREY = (0.299, 0.587, 0.114)  # what each colour adds to brightness (ITU-R BT.601)
ERASED = (0.02, 0.33)  # the share of a frame that is erased (Zhong et al. 2020)


def augments(recipe: Recipe) -> bool:
    """Whether the recipe asks for any of it."""
    return bool(recipe.colour or recipe.mixup or recipe.cutmix or recipe.erasing)


def augment(
    clip_NCTHW: Tensor, target: Tensor, recipe: Recipe, rng: np.random.Generator, channels: Sequence[int] = (RGB,)
) -> tuple[Tensor, Tensor]:
    """A batch of pixels 0 ... 1 and their targets, as the recipe changes them: colour, erasing, mixup or cutmix.

    Targets are (N, classes) where clips are mixed. Each clip is changed alike in all its frames. Of the inputs, whose
    `channels` lie behind each other, those of pixels have colours, and optical flow has none.
    """
    if recipe.colour and RGB in channels:
        parts = [
            jitter_colours(part, recipe.colour, rng) if part.shape[1] == RGB else part
            for part in torch.split(clip_NCTHW, list(channels), 1)
        ]
        clip_NCTHW = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
    if recipe.mixup or recipe.cutmix:
        clip_NCTHW, target = mix(clip_NCTHW, target, recipe.mixup, recipe.cutmix, rng)
    if recipe.erasing:
        clip_NCTHW = erase(clip_NCTHW, recipe.erasing, rng, channels)
    return clip_NCTHW, target


def jitter_colours(clip_NCTHW: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Brightness, contrast and saturation, each times a factor of 1 - strength ... 1 + strength, one for each clip.

    Clips of other than three channels have no saturation.
    """
    factors = torch.from_numpy(rng.uniform(1 - strength, 1 + strength, (3, len(clip_NCTHW)))).to(clip_NCTHW)
    brightness, contrast, saturation = factors.view(3, -1, 1, 1, 1, 1)
    clip = clip_NCTHW * brightness
    clip = clip.mean((1, 2, 3, 4), keepdim=True).lerp(clip, contrast)
    if clip.shape[1] == 3:
        grey = (clip * clip.new_tensor(GREY).view(1, 3, 1, 1, 1)).sum(1, keepdim=True)
        clip = grey.lerp(clip, saturation)
    bounded: Tensor = clip.clamp(0, 1)
    return bounded


def erase(clip_NCTHW: Tensor, probability: float, rng: np.random.Generator, channels: Sequence[int] = (RGB,)) -> Tensor:
    """A box of one random colour in some clips, the same in all frames (random erasing, Zhong et al. 2020).

    Of the inputs, whose `channels` lie behind each other, optical flow stands still there.
    """
    clip = clip_NCTHW.clone()
    draws = rng.random((len(clip), 5))
    still = torch.cat([torch.full((count,), count != RGB) for count in channels])
    fills_NC = torch.from_numpy(rng.random(clip.shape[:2])).masked_fill(still, ZERO / 255).to(clip)
    for one, fill_C, (chance, area, aspect, top, left) in zip(clip, fills_NC, draws, strict=True):
        if chance < probability:
            rows, columns = _box(clip.shape[-2:], ERASED[0] + area * (ERASED[1] - ERASED[0]), aspect, top, left)
            one[..., rows, columns] = fill_C.view(-1, 1, 1, 1)
    return clip


def mix(
    clip_NCTHW: Tensor, target: Tensor, mixup: float, cutmix: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Each clip with another one of the batch, and their targets (N, classes) in the same proportion.

    `mixup` blends (Zhang et al. 2018), `cutmix` puts in a box (Yun et al. 2019); each is the alpha of the Beta
    distribution of the share, 0 leaves it out. Of both, one is drawn for each batch.
    """
    alphas = [alpha for alpha in (mixup, cutmix) if alpha]
    chosen = int(rng.integers(len(alphas)))
    boxed = alphas[chosen] == cutmix and (not mixup or chosen == 1)
    share = float(rng.beta(alphas[chosen], alphas[chosen]))
    other = torch.from_numpy(rng.permutation(len(clip_NCTHW))).to(clip_NCTHW.device)
    top, left = rng.random(2)
    if boxed:
        rows, columns = _box(clip_NCTHW.shape[-2:], 1 - share, 0.5, top, left)
        clip = clip_NCTHW.clone()
        clip[..., rows, columns] = clip_NCTHW[other][..., rows, columns]
        height, width = clip.shape[-2:]
        share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    else:
        clip = clip_NCTHW[other].lerp(clip_NCTHW, share)
    return clip, target[other].lerp(target, share)


def _box(sides: torch.Size, area: float, aspect: float, top: float, left: float) -> tuple[slice, slice]:
    """Rows and columns of a box of a share of the area, its sides as 1:2 (aspect 0) to 2:1 (aspect 1), inside."""
    height, width = sides
    stretch = 2 ** (aspect - 0.5)
    rows = min(height, round(height * area**0.5 * stretch))
    columns = min(width, round(width * area**0.5 / stretch))
    y, x = int(top * (height - rows + 1)), int(left * (width - columns + 1))
    return slice(y, y + rows), slice(x, x + columns)
