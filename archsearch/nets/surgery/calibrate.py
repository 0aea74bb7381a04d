"""Calibration without labels: sites fitted to the old network's activations, and norm statistics seen anew."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archsearch.nets.layers import Conv3d, pad_far_ends
from archsearch.nets.surgery.activations import moments, seen
from archsearch.nets.surgery.plan import Step
from archsearch.spec.graph import Conv, Linear, Norm

Report = Callable[[str, int, int, str], None]  # what, done, of how many, status
PLACES = 256  # of one clip, at most, that a plain site is fitted on
ITERATIONS, RATE = 100, 3e-3  # of the descent at a factorised site
BATCHES = 12  # that the descent goes round
HELD_BYTES = 2**30  # of what they read and should give: fewer batches where it is more
RIDGE = 1e-3  # of the mean square of what a site reads


def settle_norms(net: nn.Module, clips_NCTHW: Sequence[Tensor]) -> None:
    """Gives every norm the statistics of what it reads, and scale and shift that leave the outputs as they are.

    So that a network which was put together says the same in training, where norms go by their batch.
    """
    norms = [module for module in net.eval().modules() if isinstance(module, nn.BatchNorm3d)]
    for norm, found in zip(norms, moments(net, norms, clips_NCTHW, output=False), strict=True):
        _settle(norm, found.mean.float(), found.var.float())


def _settle(norm: nn.BatchNorm3d, mean: Tensor, var: Tensor) -> None:
    """Other statistics, the same function."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    old, new = (norm.running_var + norm.eps).sqrt(), (var + norm.eps).sqrt()
    norm.bias.data.add_(norm.weight.data * (mean - norm.running_mean) / old)
    norm.weight.data.mul_(new / old)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(var)


def refit(
    old: nn.Module,
    new: nn.Module,
    steps: Sequence[Step],
    clips_NCTHW: Sequence[Tensor],
    report: Report = lambda *_: None,
    seed: int = 0,
) -> list[str]:
    """Fits every site from the first approximated one on to what its counterpart gives; returns the sites, in order.

    Each is fitted on what it reads in the new network, so that it makes up for the errors of those before it: a plain
    site by ridge regression, a factorised one by descent, since there is an act between its halves. What has a bias,
    norms and linear layers among them, is given the mean of its counterpart's outputs. Norms settle at the end.
    Changes `new` in place; both networks and the clips are on one device. Grouped convolutions are left alone. Labels
    are not needed.
    """
    old.eval()
    new.eval()
    behind = _from_first_approximated(steps)
    fitted = [step.edit.site for step in behind if _is_fitted(step, new)]
    centred = [step for step in behind if _is_centred(step, new)]
    means = moments(old, [_last(old, str(step.edit.old)) for step in centred], clips_NCTHW, output=True)
    wanted = {step.edit.site: found.mean for step, found in zip(centred, means, strict=True)}
    for step in behind:
        if step.edit.site in fitted:
            _fit(old, new, step, clips_NCTHW, seed)
            report("fitting sites", fitted.index(step.edit.site) + 1, len(fitted), step.edit.site)
        if step.edit.site in wanted:
            _centre(new, step, wanted[step.edit.site], clips_NCTHW)
    settle_norms(new, clips_NCTHW)
    return fitted


def _from_first_approximated(steps: Sequence[Step]) -> Sequence[Step]:
    """The first site whose outputs are not the old ones, and all behind it."""
    approximated = (place for place, step in enumerate(steps) if isinstance(step.op, Conv) and not step.edit.exact)
    return steps[next(approximated, len(steps)) :]


def _is_fitted(step: Step, new: nn.Module) -> bool:
    """Whether a step is a site that has a counterpart of the same channels and no groups."""
    return (
        isinstance(step.op, Conv)
        and step.edit.old is not None
        and step.rule not in ("none", "absorb")  # an absorbed norm and act make its outputs other ones
        and _last(new, step.edit.site).groups == 1
        and bool((step.gives.source >= 0).all())
    )


def _is_centred(step: Step, new: nn.Module) -> bool:
    """Whether a step has a bias, and outputs that should be its counterpart's."""
    return (
        isinstance(step.op, Conv | Norm | Linear)
        and step.edit.old is not None
        and step.rule not in ("none", "absorb", "identity", "fresh")
        and _last(new, step.edit.site).bias is not None
    )


def _last(net: nn.Module, site: str) -> Any:
    """The module whose outputs are the site's: of two halves the last one."""
    module = net.get_submodule(site)
    return list(module.children())[-1] if isinstance(module, nn.Sequential) else module


def _centre(new: nn.Module, step: Step, wanted: Tensor, clips_NCTHW: Sequence[Tensor]) -> None:
    """Sets a bias so that outputs have the mean that is wanted, (old out,), of channels that were there."""
    module = _last(new, step.edit.site)
    [found] = moments(new, [module], clips_NCTHW, output=True)
    known = torch.from_numpy(step.gives.source >= 0)
    lacking = wanted[torch.from_numpy(step.gives.source)] * (2 if step.doubled else 1) - found.mean
    module.bias.data[known] += lacking[known].to(module.bias.dtype)


def _fit(old: nn.Module, new: nn.Module, step: Step, clips_NCTHW: Sequence[Tensor], seed: int) -> None:
    """Sets the weights of a site; what its outputs still lack in the mean is left to the biases behind it."""
    factorised = isinstance(new.get_submodule(step.edit.site), nn.Sequential)
    if factorised:
        _restandardise(new, step.edit.site, clips_NCTHW)
    lacking = _solve(old, new, step, clips_NCTHW, seed)
    if factorised:
        _descend(old, new, step, clips_NCTHW, lacking)


def _restandardise(net: nn.Module, site: str, clips_NCTHW: Sequence[Tensor]) -> None:
    """The norm between a site's halves gets the statistics of what it reads."""
    norm = net.get_submodule(f"{site}.norm")
    assert isinstance(norm, nn.BatchNorm3d)
    [found] = moments(net, [norm], clips_NCTHW, output=False)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(found.mean)
    norm.running_var.copy_(found.var)
    norm.weight.data.fill_(1.0)
    norm.bias.data.fill_(1.0)  # most of a normal distribution is above zero then


def _solve(old: nn.Module, new: nn.Module, step: Step, clips_NCTHW: Sequence[Tensor], seed: int) -> Tensor:
    """Sets a site's last convolution by ridge regression; returns what its outputs still lack, (out,)."""
    conv, theirs = _last(new, step.edit.site), old.get_submodule(step.edit.old or "")
    generator = torch.Generator().manual_seed(seed)
    channels = torch.from_numpy(step.gives.source)
    columns = conv.weight[0].numel() + 1
    left = conv.weight.new_zeros(columns, columns, dtype=torch.float64)
    right = conv.weight.new_zeros(columns, len(channels), dtype=torch.float64)
    for clip in clips_NCTHW:
        read = seen(new, conv, clip, output=False)
        target = seen(old, theirs, clip, output=True)[:, channels]
        patches, wanted = _sampled(conv, read, target, generator)
        x = torch.cat([patches.double(), patches.new_ones(len(patches), 1, dtype=torch.float64)], 1)
        left += x.T @ x
        right += x.T @ wanted.double()
    left.diagonal()[:-1] += RIDGE * left.diagonal()[:-1].mean() + 1e-12
    solved = torch.linalg.solve(left, right).to(conv.weight.dtype)
    conv.weight.data.copy_(solved[:-1].T.reshape(conv.weight.shape))
    if conv.bias is not None:
        conv.bias.data.zero_()
    lacking: Tensor = solved[-1]
    return lacking


def _descend(old: nn.Module, new: nn.Module, step: Step, clips_NCTHW: Sequence[Tensor], lacking: Tensor) -> None:
    """Sets both halves and the norm between them by Adam on the squared error, in units of the outputs' variance.

    What outputs lack, (out,), is found with them.
    """
    module = new.get_submodule(step.edit.site)
    pairs = _within_budget(_pairs(old, new, step, clips_NCTHW[:BATCHES]))
    scale = torch.stack([target.var((0, 2, 3, 4)) for _, target in pairs]).mean(0).clamp_min(1e-8).view(1, -1, 1, 1, 1)
    lacking = lacking.clone().requires_grad_()
    optimizer = torch.optim.Adam([*module.parameters(), lacking], lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ITERATIONS)
    for number in range(ITERATIONS):
        read, target = pairs[number % len(pairs)]
        loss = ((module(read) + lacking.view(1, -1, 1, 1, 1) - target).square() / scale).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    optimizer.zero_grad(set_to_none=True)


def _pairs(
    old: nn.Module, new: nn.Module, step: Step, clips_NCTHW: Sequence[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each batch what a site reads, and what it should give there."""
    module, theirs = new.get_submodule(step.edit.site), old.get_submodule(step.edit.old or "")
    for clip in clips_NCTHW:
        read = seen(new, module, clip, output=False)
        target = seen(old, theirs, clip, output=True)[:, torch.from_numpy(step.gives.source)]
        with torch.no_grad():
            yield read, _on_grid(target, module(read).shape[2:])


def _within_budget(pairs: Iterator[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Pairs until they hold HELD_BYTES: one at least."""
    held: list[tuple[Tensor, Tensor]] = []
    for pair in pairs:
        held.append(pair)
        if sum(tensor.nbytes for kept in held for tensor in kept) >= HELD_BYTES:
            break
    return held


def _sampled(conv: Conv3d, read: Tensor, target: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(places, in x t x h x w) and (places, out): what a convolution reads at a place, and what it should give."""
    t, h, w = (int(pad) for pad in conv.padding)
    padded = pad_far_ends(F.pad(read, (w, w, h, h, t, t)), conv.extra)
    windows = padded
    for axis, (kernel, stride) in enumerate(zip(conv.kernel_size, conv.stride, strict=True), start=2):
        windows = windows.unfold(axis, kernel, stride)  # (N, C, T', H', W', t, h, w)
    target = _on_grid(target, windows.shape[2:5])
    places = windows.shape[2] * windows.shape[3] * windows.shape[4]
    chosen = torch.randperm(places, generator=generator)[:PLACES]
    _, rows, columns = windows.shape[2:5]
    index = chosen // (rows * columns), chosen // columns % rows, chosen % columns
    patches = windows[:, :, index[0], index[1], index[2]]  # (N, C, P, t, h, w)
    wanted = target[:, :, index[0], index[1], index[2]]
    return patches.transpose(1, 2).flatten(0, 1).flatten(1), wanted.transpose(1, 2).flatten(0, 1)


def _on_grid(target: Tensor, sides: Sequence[int]) -> Tensor:
    """Where strides are others: what stands at the same place of the clip, on a grid of these sides (t, h, w)."""
    for axis, side in enumerate(sides, start=2):
        if target.shape[axis] != side:
            places = torch.arange(side, device=target.device) * target.shape[axis] // side
            target = target.index_select(axis, places)
    return target
