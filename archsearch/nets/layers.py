"""The layers a graph is built from, where torch has no module of that meaning.

Axes in tensor names: N batch, C channels, T frames, H height, W width.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archsearch.spec.graph import Triple


class Conv3d(nn.Conv3d):
    """`nn.Conv3d` whose weight gradient can be trusted in lower precision.

    torch 2.13 on CPU gives a wrong weight gradient in bfloat16 for a temporal kernel of 3, padded by 1, on exactly
    two frames (it reads memory nobody wrote); with time padded beforehand it is right. A site whose `plain` is set
    did not prove itself in lower precision (see `archsearch.nets.fast`) and computes in float32.
    """

    plain: bool = False

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, out, T', H', W')."""
        device = x_NCTHW.device.type
        if self.plain:
            with torch.autocast(device, enabled=False):
                return self._convolve(x_NCTHW.float().contiguous())
        padding = [int(pad) for pad in self.padding]
        if x_NCTHW.shape[2] == 2 and padding[0] and torch.is_autocast_enabled(device):
            x_NCTHW = F.pad(x_NCTHW, (0, 0, 0, 0, padding[0], padding[0]))
            padding[0] = 0
        return F.conv3d(x_NCTHW, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _convolve(self, x_NCTHW: Tensor) -> Tensor:
        return super().forward(x_NCTHW)


class Mean(nn.Module):
    """The mean over all places: (N, C, T, H, W) -> (N, C)."""

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, C)."""
        return x_NCTHW.mean(dim=(2, 3, 4))


class Linear(nn.Linear):
    """A linear map over channels, at every place there is: (N, C, ...) -> (N, out, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> (N, out, ...)."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Gate(nn.Module):
    """sigmoid(W mean(x) + b) x per channel (S3D-G, Xie et al. 2018, section 4.3)."""

    def __init__(self, channels: int, pool: Literal["time", "space", "both"], bias: bool) -> None:
        super().__init__()
        self.axes = {"time": (2,), "space": (3, 4), "both": (2, 3, 4)}[pool]
        self.linear = Linear(channels, channels, bias=bias)

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        """(N, C, T, H, W) -> the same."""
        return x_NCTHW * torch.sigmoid(self.linear(x_NCTHW.mean(dim=self.axes, keepdim=True)))


class Pad(nn.Module):
    """Every stride-th place, and zero channels up to `out` (shortcut A of He et al. 2016)."""

    def __init__(self, c_in: int, out: int, stride: Triple) -> None:
        super().__init__()
        self.extra, self.stride = out - c_in, stride

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, out, T', H', W')."""
        t, h, w = self.stride
        return F.pad(x_NCTHW[:, :, ::t, ::h, ::w], (0, 0, 0, 0, 0, 0, 0, self.extra))
