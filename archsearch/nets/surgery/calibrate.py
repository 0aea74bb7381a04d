"""Calibration without labels: sites fitted to the old network's activations, and norm statistics seen anew."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archsearch.nets.layers import Conv3d, pad_far_ends
from archsearch.nets.surgery.plan import Step
from archsearch.spec.graph import Conv, Norm

Report = Callable[[str, int, int, str], None]  # what, done, of how many, status
PLACES = 256  # of one clip, at most, that a plain site is fitted on
ITERATIONS, RATE = 100, 3e-3  # of the descent at a factorised site
BATCHES = 12  # that the descent goes round
RIDGE = 1e-3  # of the mean square of what a site reads


def settle_norms(net: nn.Module, clips_NCTHW: Sequence[Tensor]) -> None:
    """Gives every norm the statistics of what it reads, and scale and shift that leave the outputs as they are.

    So that a network which was put together says the same in training, where norms go by their batch.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm3d)]
    sums: dict[nn.Module, list[Tensor]] = {norm: [] for norm in norms}

    def note(norm: nn.Module, read: tuple[Tensor, ...]) -> None:
        x = read[0].double()
        sums[norm].append(torch.stack([x.mean((0, 2, 3, 4)), x.square().mean((0, 2, 3, 4))]))

    handles = [norm.register_forward_pre_hook(note) for norm in norms]
    try:
        with torch.no_grad():
            for clip in clips_NCTHW:
                net.eval()(clip)
    finally:
        for handle in handles:
            handle.remove()
    for norm in norms:
        mean, square = torch.stack(sums[norm]).mean(0)
        _settle(norm, mean.float(), (square - mean.square()).clamp_min(0).float())


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
    site by ridge regression, a factorised one by descent, since there is an act between its halves. Norms settle at
    the end. Changes `new` in place. Grouped convolutions are left alone. Labels are not needed.
    """
    old.eval()
    new.eval()
    sites = _sites(steps, new)
    norms = {step.edit.site: step for step in steps if isinstance(step.op, Norm) and step.edit.old is not None}
    for number, step in enumerate(sites, start=1):
        if isinstance(step.op, Conv) and step.op.mid:
            _restandardise(new, step.edit.site, clips_NCTHW)
        offset = _solve(old, new, step, clips_NCTHW, seed)
        if isinstance(step.op, Conv) and step.op.mid:
            offset = _descend(old, new, step, clips_NCTHW, offset)
        _give_offset(old, new, step, norms, offset)
        report("fitting sites", number, len(sites), step.edit.site)
    settle_norms(new, clips_NCTHW)
    return [step.edit.site for step in sites]


def _sites(steps: Sequence[Step], new: nn.Module) -> list[Step]:
    """The sites from the first approximated one on that have a counterpart of the same channels."""
    sites = [step for step in steps if isinstance(step.op, Conv)]
    first = next((number for number, step in enumerate(sites) if not step.edit.exact), len(sites))
    return [
        step
        for step in sites[first:]
        if step.edit.old is not None
        and step.rule not in ("none", "absorb")  # an absorbed norm and act make its outputs other ones
        and _last_convolution(new, step.edit.site).groups == 1
        and bool((step.gives.source >= 0).all())
    ]


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


def _solve(old: nn.Module, new: nn.Module, step: Step, clips_NCTHW: Sequence[Tensor], seed: int) -> Tensor:
    """Sets a site's last convolution by ridge regression; returns what its outputs still lack, (out,)."""
    conv, theirs = _last_convolution(new, step.edit.site), old.get_submodule(step.edit.old or "")
    generator = torch.Generator().manual_seed(seed)
    channels = torch.from_numpy(step.gives.source)
    columns = conv.weight[0].numel() + 1
    left = torch.zeros(columns, columns, dtype=torch.float64)
    right = torch.zeros(columns, len(channels), dtype=torch.float64)
    for clip in clips_NCTHW:
        read = _seen(new, conv, clip, output=False)
        target = _seen(old, theirs, clip, output=True)[:, channels]
        patches, wanted = _sampled(conv, read, target, generator)
        x = torch.cat([patches.double(), torch.ones(len(patches), 1, dtype=torch.float64)], 1)
        left += x.T @ x
        right += x.T @ wanted.double()
    left.diagonal()[:-1] += RIDGE * left.diagonal()[:-1].mean() + 1e-12
    solved = torch.linalg.solve(left, right).to(conv.weight.dtype)
    conv.weight.data.copy_(solved[:-1].T.reshape(conv.weight.shape))
    if conv.bias is not None:
        conv.bias.data.zero_()
    lacking: Tensor = solved[-1]
    return lacking


def _descend(old: nn.Module, new: nn.Module, step: Step, clips_NCTHW: Sequence[Tensor], offset: Tensor) -> Tensor:
    """Sets both halves and the norm between them by Adam on the squared error, in units of the outputs' variance.

    Returns what the outputs still lack, (out,).
    """
    module, theirs = new.get_submodule(step.edit.site), old.get_submodule(step.edit.old or "")
    channels = torch.from_numpy(step.gives.source)
    pairs = []
    for clip in clips_NCTHW[:BATCHES]:
        read = _seen(new, module, clip, output=False)
        frames = _seen(new, module, clip, output=True).shape[2]
        pairs.append((read, _in_frames(_seen(old, theirs, clip, output=True)[:, channels], frames)))
    scale = torch.stack([target.var((0, 2, 3, 4)) for _, target in pairs]).mean(0).clamp_min(1e-8).view(1, -1, 1, 1, 1)
    lacking = offset.clone().requires_grad_()
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
    return lacking.detach()


def _give_offset(old: nn.Module, new: nn.Module, step: Step, norms: Mapping[str, Step], offset: Tensor) -> None:
    """What outputs lack: to the convolution's bias, or to the mean that the norm behind it takes off."""
    conv = _last_convolution(new, step.edit.site)
    if conv.bias is not None:
        conv.bias.data.add_(offset)
        return
    for name, behind in norms.items():
        if _reads(new, name) == step.edit.site:
            mean, theirs = (
                net.get_buffer(f"{norm}.running_mean") for net, norm in ((new, name), (old, behind.edit.old))
            )
            mean.copy_(theirs[torch.from_numpy(behind.gives.source)] - offset)


def _reads(net: nn.Module, name: str) -> str | None:
    """The module that another one reads, in a traced network."""
    graph = getattr(net, "graph", None)
    for node in graph.nodes if graph is not None else ():
        if node.op == "call_module" and node.target == name:
            return str(node.args[0].target)
    return None


def _sampled(conv: Conv3d, read: Tensor, target: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(places, in x t x h x w) and (places, out): what a convolution reads at a place, and what it should give."""
    t, h, w = (int(pad) for pad in conv.padding)
    padded = pad_far_ends(F.pad(read, (w, w, h, h, t, t)), conv.extra)
    windows = padded
    for axis, (kernel, stride) in enumerate(zip(conv.kernel_size, conv.stride, strict=True), start=2):
        windows = windows.unfold(axis, kernel, stride)  # (N, C, T', H', W', t, h, w)
    target = _in_frames(target, windows.shape[2])
    places = windows.shape[2] * windows.shape[3] * windows.shape[4]
    chosen = torch.randperm(places, generator=generator)[:PLACES]
    _, rows, columns = windows.shape[2:5]
    index = chosen // (rows * columns), chosen // columns % rows, chosen % columns
    patches = windows[:, :, index[0], index[1], index[2]]  # (N, C, P, t, h, w)
    wanted = target[:, :, index[0], index[1], index[2]]
    return patches.transpose(1, 2).flatten(0, 1).flatten(1), wanted.transpose(1, 2).flatten(0, 1)


def _in_frames(target: Tensor, frames: int) -> Tensor:
    """Where the stride of time is another: the old frame that stands at the same place."""
    if target.shape[2] == frames:
        return target
    return target[:, :, torch.arange(frames) * target.shape[2] // frames]


class _EnoughError(Exception):
    """What was looked for has been seen."""


def _seen(net: nn.Module, module: nn.Module, clip_NCTHW: Tensor, *, output: bool) -> Tensor:
    """What a module of a network reads or gives for a batch."""
    found: list[Tensor] = []
    with _watching(module, found, output=output), torch.no_grad(), suppress(_EnoughError):
        net(clip_NCTHW)
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
