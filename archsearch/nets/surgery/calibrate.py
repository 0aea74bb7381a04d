"""Calibration without labels: norm statistics seen anew, and approximated sites fitted to the old network's activations."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archsearch.nets.layers import Conv3d, pad_far_ends
from archsearch.nets.surgery.plan import Step
from archsearch.spec.graph import Conv

PLACES = 256  # of one clip, at most, that a site is fitted on
RIDGE = 1e-3  # of the mean square of what a site reads


def reestimate_norms(net: nn.Module, clips_NCTHW: Sequence[Tensor]) -> None:
    """Sets every norm's running statistics to those of the batches, each weighing the same."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm3d)]
    momenta = [norm.momentum for norm in norms]
    dropouts = [module for module in net.modules() if isinstance(module, nn.Dropout)]
    rates = [dropout.p for dropout in dropouts]
    was_training = net.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
    for dropout in dropouts:
        dropout.p = 0.0
    try:
        net.train()
        with torch.no_grad():
            for clip in clips_NCTHW:
                net(clip)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for dropout, rate in zip(dropouts, rates, strict=True):
            dropout.p = rate
        net.train(was_training)


def refit(
    old: nn.Module, new: nn.Module, steps: Sequence[Step], clips_NCTHW: Sequence[Tensor], seed: int = 0
) -> list[str]:
    """Fits each approximated site, in order, to what the old network's counterpart gives; returns the sites.

    Ridge regression of the old outputs on what the site's last convolution reads in the new network, so that errors
    of the sites before it are made up for, too. Changes `new` in place. Grouped convolutions are left alone.
    """
    old.eval()
    new.eval()
    fitted = []
    for step in steps:
        if not _can_be_fitted(step, new):
            continue
        if isinstance(step.op, Conv) and step.op.mid:
            _restandardise(new, step.edit.site, clips_NCTHW)
        _fit(old, new, step, clips_NCTHW, seed)
        fitted.append(step.edit.site)
    return fitted


def _can_be_fitted(step: Step, new: nn.Module) -> bool:
    if not isinstance(step.op, Conv) or step.edit.verdict != "approximate" or step.edit.old is None:
        return False
    return _last_convolution(new, step.edit.site).groups == 1 and bool((step.gives.source >= 0).all())


def _last_convolution(net: nn.Module, site: str) -> Conv3d:
    """The convolution whose output is the site's."""
    module = net.get_submodule(site)
    last = list(module.children())[-1] if isinstance(module, nn.Sequential) else module
    assert isinstance(last, Conv3d)
    return last


def _restandardise(net: nn.Module, site: str, clips_NCTHW: Sequence[Tensor]) -> None:
    """The norm between a site's halves gets the statistics of what it reads."""
    norm = net.get_submodule(f"{site}.norm")
    assert isinstance(norm, nn.BatchNorm3d)
    seen = [_seen(net, norm, clip, output=False).transpose(0, 1).flatten(1) for clip in clips_NCTHW]
    values = torch.cat(seen, 1)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(values.mean(1))
    norm.running_var.copy_(values.var(1))
    norm.weight.data.fill_(1.0)
    norm.bias.data.fill_(1.0)  # most of a normal distribution is above zero then


def _fit(old: nn.Module, new: nn.Module, step: Step, clips_NCTHW: Sequence[Tensor], seed: int) -> None:
    site, theirs = step.edit.site, step.edit.old or ""
    conv = _last_convolution(new, site)
    generator = torch.Generator().manual_seed(seed)
    channels = torch.from_numpy(step.gives.source)
    columns = conv.weight[0].numel() + 1
    left, right = (
        torch.zeros(columns, columns, dtype=torch.float64),
        torch.zeros(columns, len(channels), dtype=torch.float64),
    )
    for clip in clips_NCTHW:
        read = _seen(new, conv, clip, output=False)
        target = _seen(old, old.get_submodule(theirs), clip, output=True)[:, channels]
        patches, wanted = _sampled(conv, read, target, generator)
        ones = torch.ones(len(patches), 1, dtype=torch.float64)
        x = torch.cat([patches.double(), ones], 1)
        left += x.T @ x
        right += x.T @ wanted.double()
    ridge = RIDGE * left.diagonal()[:-1].mean()
    left.diagonal()[:-1] += ridge
    solved = torch.linalg.solve(left, right).to(conv.weight.dtype)
    conv.weight.data.copy_(solved[:-1].T.reshape(conv.weight.shape))
    _give_offset(new, step, conv, solved[-1])


def _give_offset(new: nn.Module, step: Step, conv: Conv3d, offset: Tensor) -> None:
    """The regression's constant: to the convolution's bias, or to the mean that the norm behind it takes off."""
    if conv.bias is not None:
        conv.bias.data.copy_(offset)
        return
    for name, module in new.named_modules():
        if (
            isinstance(module, nn.BatchNorm3d)
            and _reads(new, name) == step.edit.site
            and module.running_mean is not None
        ):
            module.running_mean.sub_(offset)


def _reads(net: nn.Module, name: str) -> str | None:
    """The module that another one reads, in a traced network."""
    graph = getattr(net, "graph", None)
    for node in graph.nodes if graph is not None else ():
        if node.op == "call_module" and node.target == name:
            return str(node.args[0].target)
    return None


def _sampled(conv: Conv3d, read: Tensor, target: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(places, in x t x h x w) and (places, out): windows of what a convolution reads, and what it should give there."""
    t, h, w = (int(pad) for pad in conv.padding)
    padded = pad_far_ends(F.pad(read, (w, w, h, h, t, t)), conv.extra)
    windows = padded
    for axis, (kernel, stride) in enumerate(zip(conv.kernel_size, conv.stride, strict=True), start=2):
        windows = windows.unfold(axis, kernel, stride)  # (N, C, T', H', W', t, h, w)
    frames = windows.shape[2]
    if target.shape[2] != frames:  # another stride of time: the old frame that stands at the same place
        target = target[:, :, torch.arange(frames) * target.shape[2] // frames]
    places = windows.shape[2] * windows.shape[3] * windows.shape[4]
    chosen = torch.randperm(places, generator=generator)[:PLACES]
    _, rows, columns = windows.shape[2:5]
    index = chosen // (rows * columns), chosen // columns % rows, chosen % columns
    patches = windows[:, :, index[0], index[1], index[2]]  # (N, C, P, t, h, w)
    wanted = target[:, :, index[0], index[1], index[2]]
    return patches.transpose(1, 2).flatten(0, 1).flatten(1), wanted.transpose(1, 2).flatten(0, 1)


class _EnoughError(Exception):
    """What was looked for has been seen."""


def _seen(net: nn.Module, module: nn.Module, clip_NCTHW: Tensor, *, output: bool) -> Tensor:
    """What a module of a network reads or gives for a batch."""
    found: list[Tensor] = []
    with _watching(module, found, output=output), torch.no_grad():
        try:
            net(clip_NCTHW)
        except _EnoughError:
            pass
    return found[0]


@contextmanager
def _watching(module: nn.Module, found: list[Tensor], *, output: bool) -> Iterator[None]:
    def look(_: nn.Module, read: tuple[Tensor, ...], given: Tensor | None = None) -> None:
        found.append((given if given is not None else read[0]).clone())
        raise _EnoughError

    handle = module.register_forward_hook(look) if output else module.register_forward_pre_hook(look)
    try:
        yield
    finally:
        handle.remove()
