"""The layers a graph is built from, where torch has no module of that meaning.

Axes in tensor names: N batch, C channels, T frames, H height, W width.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archsearch.nets.flat import Site, convolve, may_be_flat
from archsearch.spec.graph import Act, Part, Pool, Triple
from archsearch.spec.graph import Gate as GateOp

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "hardswish": nn.Hardswish}


def activation(act: Act) -> nn.Module:
    """The module of a non-linearity; in place, since no walk reads what stands before it."""
    make: Callable[..., nn.Module] = ACTIVATIONS[act.fn]
    return make(inplace=True)


class Conv3d(nn.Conv3d):
    """`nn.Conv3d` whose weight gradient can be trusted in lower precision, with more padding at far ends if asked.

    torch 2.13 on CPU gives a wrong weight gradient in bfloat16 for a temporal kernel of 3, padded by 1, on exactly
    two frames (it reads memory nobody wrote); with time padded beforehand it is right. A site whose `plain` is set
    did not prove itself in lower precision (see `archsearch.nets.fast`) and computes in float32.
    """

    plain: bool = False

    def __init__(self, part: Part) -> None:
        super().__init__(
            part.c_in, part.out, part.kernel, part.stride, part.padding, groups=part.groups, bias=part.bias
        )
        self.extra = part.extra

    def reset_parameters(self) -> None:
        """Nothing: `archsearch.nets.build.initialise` draws weights, once."""

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, out, T', H', W')."""
        device = x_NCTHW.device.type
        if self.plain:
            with torch.autocast(device, enabled=False):
                return self._convolve(x_NCTHW.float().contiguous(), [int(pad) for pad in self.padding])
        padding = [int(pad) for pad in self.padding]
        if x_NCTHW.shape[2] == 2 and padding[0] and torch.is_autocast_enabled(device):
            x_NCTHW = F.pad(x_NCTHW, (0, 0, 0, 0, padding[0], padding[0]))
            padding[0] = 0
        return self._convolve(x_NCTHW, padding)

    def _convolve(self, x_NCTHW: Tensor, padding: list[int]) -> Tensor:
        x_NCTHW = pad_far_ends(x_NCTHW, self.extra)
        if not may_be_flat(x_NCTHW):
            return F.conv3d(x_NCTHW, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
        site = Site(tuple(x_NCTHW.shape), tuple(self.weight.shape), tuple(self.stride), tuple(padding), self.groups)
        return convolve(x_NCTHW, self.weight, self.bias, site)


def pad_far_ends(x_NCTHW: Tensor, extra: Triple, value: float = 0.0) -> Tensor:
    """`extra` (t, h, w) more places behind the last ones."""
    if not any(extra):
        return x_NCTHW
    t, h, w = extra
    return F.pad(x_NCTHW, (0, w, 0, h, 0, t), value=value)


class MaxPool(nn.MaxPool3d):
    """`nn.MaxPool3d` with more padding at far ends if asked."""

    def __init__(self, op: Pool) -> None:
        super().__init__(op.kernel, op.stride, op.padding)
        self.extra = op.extra

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, C, T', H', W')."""
        y: Tensor = super().forward(pad_far_ends(x_NCTHW, self.extra, float("-inf")))
        return y


class AvgPool(nn.AvgPool3d):
    """`nn.AvgPool3d` with more padding at far ends if asked; what is padded is left out of the mean."""

    def __init__(self, op: Pool) -> None:
        super().__init__(op.kernel, op.stride, op.padding, count_include_pad=any(op.extra))
        self.extra = op.extra

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, C, T', H', W')."""
        y: Tensor = super().forward(pad_far_ends(x_NCTHW, self.extra))
        if not any(self.extra):
            return y
        places = super().forward(pad_far_ends(torch.ones_like(x_NCTHW[:1, :1]), self.extra))
        return y / places


class Mean(nn.Module):
    """The mean over all places, (N, C, T, H, W) -> (N, C), or over space, -> (N, C, T, 1, 1)."""

    def __init__(self, over: Literal["all", "space"] = "all") -> None:
        super().__init__()
        self.over = over

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, C) or (N, C, T, 1, 1); (N, C) stays as it is."""
        if x.ndim == 2:
            return x
        return x.mean(dim=(2, 3, 4)) if self.over == "all" else x.mean(dim=(3, 4), keepdim=True)


class Inputs(nn.Module):
    """The inputs of a network, given one by one or as a single batch that has their channels behind each other."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, first: Tensor, *others: Tensor | None) -> tuple[Tensor, ...]:
        """(N, C, T, H, W) of each, or of all -> (N, C, T, H, W) of each, in the memory format that they came in."""
        given = [other for other in others if other is not None]
        if given:
            return (first, *given)
        last = first.is_contiguous(memory_format=torch.channels_last_3d) and not first.is_contiguous()
        layout = torch.channels_last_3d if last else torch.contiguous_format
        return tuple(part.contiguous(memory_format=layout) for part in torch.split(first, list(self.channels), 1))


class Flatten(nn.Module):
    """Every place's channels behind each other: (N, C, T, H, W) -> (N, C T H W)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, C T H W)."""
        return x.flatten(1)


class Linear(nn.Linear):
    """A linear map over channels, at every place there is: (N, C, ...) -> (N, out, ...)."""

    def reset_parameters(self) -> None:
        """Nothing: `archsearch.nets.build.initialise` draws weights, once."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> (N, out, ...)."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Gate(nn.Module):
    """sigmoid(W mean(x) + b) x per channel (S3D-G, Xie et al. 2018, section 4.3), or with two maps (squeeze-excite)."""

    def __init__(self, channels: int, op: GateOp) -> None:
        super().__init__()
        self.axes = {"time": (2,), "space": (3, 4), "both": (2, 3, 4)}[op.pool]
        if op.hidden:
            self.reduce = Linear(channels, op.hidden, bias=op.bias)
            self.act = activation(op.act)
            self.expand = Linear(op.hidden, channels, bias=op.bias)
        else:
            self.linear = Linear(channels, channels, bias=op.bias)
        self.hidden = op.hidden

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        """(N, C, T, H, W) -> the same."""
        mean = x_NCTHW.mean(dim=self.axes, keepdim=True)
        score = self.expand(self.act(self.reduce(mean))) if self.hidden else self.linear(mean)
        return x_NCTHW * torch.sigmoid(score)


class Shift(nn.Module):
    """One in `share` channels from the next frame, as many from the one before (TSM, Lin et al. 2019)."""

    def __init__(self, share: int) -> None:
        super().__init__()
        self.share = share

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        """(N, C, T, H, W) -> the same; zeros come in at both ends."""
        fold = x_NCTHW.shape[1] // self.share
        later = F.pad(x_NCTHW[:, :fold, 1:], (0, 0, 0, 0, 0, 1))
        earlier = F.pad(x_NCTHW[:, fold : 2 * fold, :-1], (0, 0, 0, 0, 1, 0))
        return torch.cat([later, earlier, x_NCTHW[:, 2 * fold :]], 1)


class Scale(nn.Module):
    """A learnt factor, 0 at first (ReZero)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        scaled: Tensor = self.weight * x
        return scaled


class Lstm(nn.Module):
    """A long short-term memory over frames: (N, C, T, 1, 1) -> (N, hidden, T, 1, 1), or its last state (N, hidden)."""

    def __init__(self, channels: int, hidden: int, last: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, hidden, batch_first=True)
        self.last = last

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        """(N, C, T, 1, 1) -> (N, hidden) or (N, hidden, T, 1, 1)."""
        states, _ = self.lstm(x_NCTHW.flatten(2).transpose(1, 2))
        output: Tensor = states[:, -1] if self.last else states.transpose(1, 2)[..., None, None]
        return output


class Pad(nn.Module):
    """Every stride-th place, and zero channels up to `out` (shortcut A of He et al. 2016)."""

    def __init__(self, c_in: int, out: int, stride: Triple) -> None:
        super().__init__()
        self.extra, self.stride = out - c_in, stride

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, out, T', H', W')."""
        t, h, w = self.stride
        return F.pad(x_NCTHW[:, :, ::t, ::h, ::w], (0, 0, 0, 0, 0, 0, 0, self.extra))
