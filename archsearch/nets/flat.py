"""3D convolutions over space alone or time alone, as 2D ones: torch has no fast 3D kernel for them on one thread.

A clip in channels-last layout is, without a copy, N T images of H x W, or N images of T x (H W). Whether the 2D
convolution says the same is tried on random numbers for every shape that is met, forward and, where gradients are
wanted, backward; where it does not, the 3D convolution stays. In bfloat16 the 3D kernels are as fast.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

CLOSE = 1e-4  # relative L2 error


@dataclass(frozen=True)
class Site:
    """A convolution without bias, at the shape it meets."""

    shape: tuple[int, ...]  # (N, C, T, H, W)
    kernel: tuple[int, ...]  # (out, C / groups, t, h, w)
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int

    @property
    def pointwise(self) -> bool:
        """Whether it sees one place of one frame at a time."""
        return self.kernel[2:] == (1, 1, 1) and self.padding == (0, 0, 0)

    @property
    def spatial(self) -> bool:
        """Whether it sees one frame at a time."""
        return self.kernel[2] == self.stride[0] == 1 and self.padding[0] == 0

    @property
    def temporal(self) -> bool:
        """Whether it sees one place at a time."""
        return self.kernel[3:] == self.stride[1:] == (1, 1) and self.padding[1:] == (0, 0)


def may_be_flat(x_NCTHW: Tensor) -> bool:
    """Whether a clip lies as images do, and is computed now: what is traced or compiled keeps its 3D convolutions."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() or type(x_NCTHW) is not Tensor:
        return False
    if x_NCTHW.device.type != "cpu" or x_NCTHW.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    return x_NCTHW.is_contiguous(memory_format=torch.channels_last_3d)


def convolve(x_NCTHW: Tensor, weight: Tensor, bias: Tensor | None, site: Site) -> Tensor:
    """(N, C, T, H, W) -> (N, out, T', H', W'); as 2D where it can be and has proved itself here."""
    gradients = torch.is_grad_enabled() and (x_NCTHW.requires_grad or weight.requires_grad)
    if (site.pointwise or site.spatial or site.temporal) and _agrees(site, gradients, torch.get_num_threads()):
        return convolve_flat(x_NCTHW, weight, bias, site)
    return F.conv3d(x_NCTHW, weight, bias, site.stride, site.padding, 1, site.groups)


def convolve_flat(x_NCTHW: Tensor, weight: Tensor, bias: Tensor | None, site: Site) -> Tensor:
    """As images: every frame, or one of T x (H W) for every clip."""
    x_NTHWC, stride = x_NCTHW.permute(0, 2, 3, 4, 1), site.stride
    if site.pointwise and stride[0] > 1:
        x_NTHWC, stride = x_NTHWC[:, :: stride[0]], (1, *stride[1:])
    n, _, h, w, _ = x_NTHWC.shape
    frames = site.pointwise or site.spatial
    if frames:
        x, kernel, strides, padding = x_NTHWC.flatten(0, 1), weight.squeeze(2), stride[1:], site.padding[1:]
    else:
        x, kernel, strides, padding = x_NTHWC.flatten(2, 3), weight.squeeze(4), (stride[0], 1), (site.padding[0], 0)
    y = F.conv2d(x.permute(0, 3, 1, 2), kernel, bias, strides, padding, 1, site.groups).permute(0, 2, 3, 1)
    shape = (n, -1, *y.shape[1:]) if frames else (n, -1, h, w, y.shape[3])
    return y.reshape(shape).permute(0, 4, 1, 2, 3)


@cache
def _agrees(site: Site, gradients: bool, threads: int) -> bool:
    """Whether both ways agree; `threads` since torch takes other kernels by their number."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(shape, generator=generator).to(memory_format=torch.channels_last_3d)
        for shape in (site.shape, site.kernel)
    )
    flat, plain = (_results(x, weight, site, gradients, flat) for flat in (True, False))
    return all(_error(mine, its) < CLOSE for mine, its in zip(flat, plain, strict=True))


def _results(x: Tensor, weight: Tensor, site: Site, gradients: bool, flat: bool) -> tuple[Tensor, ...]:
    """Output, and gradients of both operands if wanted."""
    with torch.inference_mode(False), torch.set_grad_enabled(gradients):
        x, weight = x.clone().requires_grad_(gradients), weight.clone().requires_grad_(gradients)
        if flat:
            y = convolve_flat(x, weight, None, site)
        else:
            y = F.conv3d(x, weight, None, site.stride, site.padding, 1, site.groups)
        if not gradients:
            return (y,)
        return y.detach(), *torch.autograd.grad(y.square().sum(), (x, weight))


def _error(found: Tensor, wanted: Tensor) -> float:
    """Relative L2 error; infinite where it is not finite."""
    if not torch.isfinite(found).all():
        return float("inf")
    return float((found - wanted).norm() / wanted.norm().clamp_min(1e-12))
