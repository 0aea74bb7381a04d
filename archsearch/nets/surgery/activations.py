"""What modules of a network read and give, as batches pass through it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Moments(NamedTuple):
    """Mean and variance of each channel, float64 (c,)."""

    mean: Tensor
    var: Tensor


def seen(net: nn.Module, module: nn.Module, clip_NCTHW: Tensor, *, output: bool) -> Tensor:
    """What a module of a network reads or gives for a batch."""
    found: list[Tensor] = []

    def look(_: nn.Module, x: Tensor) -> None:
        found.append(x.clone())
        raise _EnoughError

    with _watching([module], look, output=output), torch.no_grad(), suppress(_EnoughError):
        net(clip_NCTHW)
    return found[0]


def moments(
    net: nn.Module, modules: Sequence[nn.Module], clips_NCTHW: Sequence[Tensor], *, output: bool
) -> list[Moments]:
    """The moments of what each module reads or gives, over all places; every batch counts the same."""
    sums: dict[nn.Module, Tensor] = {}
    left: set[nn.Module] = set()

    def look(module: nn.Module, x: Tensor) -> None:
        places = (0, *range(2, x.ndim))
        exactly = x.double()
        found = torch.stack([exactly.mean(places), exactly.square().mean(places)])
        sums[module] = sums[module] + found if module in sums else found
        left.discard(module)
        if not left:
            raise _EnoughError

    with _watching(set(modules), look, output=output), torch.no_grad():
        for clip in clips_NCTHW:
            left.update(modules)
            with suppress(_EnoughError):
                net(clip)
    means = [sums[module] / len(clips_NCTHW) for module in modules]
    return [Moments(mean, (square - mean.square()).clamp_min(0)) for mean, square in means]


class _EnoughError(Exception):
    """What was looked for has been seen."""


@contextmanager
def _watching(
    modules: Iterable[nn.Module], look: Callable[[nn.Module, Tensor], None], *, output: bool
) -> Iterator[None]:
    def hook(module: nn.Module, read: tuple[Tensor, ...], given: Tensor | None = None) -> None:
        look(module, read[0] if given is None else given)

    handles = [
        module.register_forward_hook(hook) if output else module.register_forward_pre_hook(hook) for module in modules
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
