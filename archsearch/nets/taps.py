"""Where in time the convolutions of a network have their weight (after Xie et al. 2018, figure 4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from torch import nn

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Taps:
    """How the weight of filters is spread over time: `shares` (filters, t) of sum |w|, each row with sum 1.

    `offsets` (t) are frames of the convolution's input from the kernel's middle, the earlier of two middles where t is
    even. Filters without any weight, or with one that is not finite, are not among the rows.
    """

    site: str
    stage: str
    offsets: tuple[int, ...]
    shares: Shares


def temporal_taps(net: nn.Module) -> list[Taps]:
    """Every convolution of a built network that spans more than one frame, in order; of a factorised site, that half.

    A convolution of such filters alone has no rows.
    """
    convs = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv3d)]
    return [_taps(name.removesuffix(".temporal"), conv) for name, conv in convs if conv.kernel_size[0] > 1]


def _taps(site: str, conv: nn.Conv3d) -> Taps:
    weight = conv.weight.detach().double().abs().sum((1, 3, 4)).cpu().numpy()
    whole = weight.sum(1, keepdims=True)
    frames = weight.shape[1]
    offsets = tuple(tap - (frames - 1) // 2 for tap in range(frames))
    kept = (whole[:, 0] > 0) & np.isfinite(whole[:, 0])
    return Taps(site, site.partition(".")[0], offsets, weight[kept] / whole[kept])


def by_stage(taps: Sequence[Taps]) -> list[Taps]:
    """The filters of each stage together; a shorter kernel has a share of 0 at frames only a longer one reaches."""
    return [_together(stage, list(members)) for stage, members in groupby(taps, lambda each: each.stage)]


def _together(stage: str, members: list[Taps]) -> Taps:
    first = min(each.offsets[0] for each in members)
    last = max(each.offsets[-1] for each in members)
    padded = [np.pad(each.shares, ((0, 0), (each.offsets[0] - first, last - each.offsets[-1]))) for each in members]
    return Taps(stage, stage, tuple(range(first, last + 1)), np.concatenate(padded))
