"""The peer of the speed benchmarks: four networks written by hand in plain torch, as a paper's code base has them.

Modules of torch.nn in the default layout, in-place ReLU, no fast path. Their state has the order of ours, so weights
can be handed over one after the other (`with_weights_of`), and both sides compute the same function.
"""

import torch
from torch import Tensor, fx, nn

from archsearch.nets.build import build
from archsearch.spec.presets import load_spec
from archsearch.spec.spec import Spec, with_clip

NAMES = ("r3d_18", "mc3_18", "r2plus1d_18", "s3d")
Triple = tuple[int, int, int]


def norm_relu(channels: int) -> list[nn.Module]:
    """A batch norm and the ReLU behind it."""
    return [nn.BatchNorm3d(channels), nn.ReLU(inplace=True)]


class Conv3D(nn.Conv3d):
    """3 x 3 x 3."""

    def __init__(self, c_in: int, out: int, stride: int) -> None:
        super().__init__(c_in, out, 3, stride, 1, bias=False)


class Conv2D(nn.Conv3d):
    """1 x 3 x 3, which strides space alone."""

    def __init__(self, c_in: int, out: int, stride: int) -> None:
        super().__init__(c_in, out, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)


class Factorised(nn.Sequential):
    """1 x 3 x 3 into as many channels as the 3D kernel's parameters allow, then 3 x 1 x 1."""

    def __init__(self, c_in: int, out: int, stride: int) -> None:
        mid = 27 * c_in * out // (9 * c_in + 3 * out)
        super().__init__(
            nn.Conv3d(c_in, mid, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
            *norm_relu(mid),
            nn.Conv3d(mid, out, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
        )


class Block(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, conv: type[Conv3D | Conv2D | Factorised], c_in: int, out: int, stride: int) -> None:
        super().__init__()
        self.skip: nn.Module | None = None
        if stride > 1:
            strides = (1, stride, stride) if conv is Conv2D else (stride,) * 3
            self.skip = nn.Sequential(nn.Conv3d(c_in, out, 1, strides, bias=False), nn.BatchNorm3d(out))
        self.conv1, self.norm1 = conv(c_in, out, stride), nn.BatchNorm3d(out)
        self.conv2, self.norm2 = conv(out, out, 1), nn.BatchNorm3d(out)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, out, T', H', W')."""
        y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        y += x if self.skip is None else self.skip(x)
        activated: Tensor = self.relu(y)
        return activated


class ResNet(nn.Module):
    """18 layers, of one kind of convolution for each stage (Tran et al. 2018)."""

    def __init__(self, convs: list[type[Conv3D | Conv2D | Factorised]], widths: list[int], classes: int) -> None:
        super().__init__()
        first = widths[0]
        if convs[0] is Factorised:
            self.stem = nn.Sequential(
                nn.Conv3d(3, 45, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
                *norm_relu(45),
                nn.Conv3d(45, first, (3, 1, 1), 1, (1, 0, 0), bias=False),
                *norm_relu(first),
            )
        else:
            conv = nn.Conv3d(3, first, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
            self.stem = nn.Sequential(conv, *norm_relu(first))
        blocks, c_in = [], first
        for place, (conv_of, out) in enumerate(zip(convs, widths, strict=True)):
            blocks += [Block(conv_of, c_in, out, 2 if place else 1), Block(conv_of, out, out, 1)]
            c_in = out
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.head = nn.Linear(c_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, T, H, W) -> (N, classes)."""
        logits: Tensor = self.head(self.pool(self.blocks(self.stem(x))).flatten(1))
        return logits


def unit(c_in: int, out: int) -> nn.Sequential:
    """A pointwise convolution, norm, ReLU."""
    return nn.Sequential(nn.Conv3d(c_in, out, 1, bias=False), *norm_relu(out))


def separable(c_in: int, out: int, kernel: int, stride: int, padding: int) -> nn.Sequential:
    """Space, then time, each with norm and ReLU (Xie et al. 2018)."""
    k, s, p = kernel, stride, padding
    return nn.Sequential(
        nn.Conv3d(c_in, out, (1, k, k), (1, s, s), (0, p, p), bias=False),
        *norm_relu(out),
        nn.Conv3d(out, out, (k, 1, 1), (s, 1, 1), (p, 0, 0), bias=False),
        *norm_relu(out),
    )


class Inception(nn.Module):
    """Four branches behind each other in their channels."""

    def __init__(self, c_in: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, pooled = widths
        self.branch0 = unit(c_in, one)
        self.branch1 = nn.Sequential(unit(c_in, reduce3), separable(reduce3, three, 3, 1, 1))
        self.branch2 = nn.Sequential(unit(c_in, reduce5), separable(reduce5, five, 3, 1, 1))
        self.branch3 = nn.Sequential(nn.MaxPool3d(3, 1, 1), unit(c_in, pooled))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, out, T, H, W)."""
        return torch.cat([self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(x)], 1)


MIXED = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)
POOL_BEFORE = {2: nn.MaxPool3d(3, 2, 1), 7: nn.MaxPool3d(2, 2, 0)}  # a mixed layer, by its place


class S3D(nn.Module):
    """Separable convolutions in an inception network (Xie et al. 2018), without gates."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [separable(3, 64, 7, 2, 3), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))]
        layers += [unit(64, 64), separable(64, 192, 3, 1, 1), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))]
        c_in = 192
        for place, widths in enumerate(MIXED):
            layers += [POOL_BEFORE[place]] if place in POOL_BEFORE else []
            layers.append(Inception(c_in, widths))
            c_in = widths[0] + widths[2] + widths[4] + widths[5]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Conv3d(c_in, classes, 1)
        for module in self.layers.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.eps, module.momentum = 1e-3, 1e-3

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, T, H, W) -> (N, classes): the mean over pairs of frames of what each says."""
        y = self.layers(x)
        pairs = nn.functional.avg_pool3d(y, (2, *y.shape[3:]), 1)
        logits: Tensor = self.head(pairs).mean((2, 3, 4))
        return logits


def plain(name: str, classes: int = 400) -> nn.Module:
    """One of NAMES."""
    kinds: dict[str, list[type[Conv3D | Conv2D | Factorised]]] = {
        "r3d_18": [Conv3D] * 4,
        "mc3_18": [Conv3D, Conv2D, Conv2D, Conv2D],
        "r2plus1d_18": [Factorised] * 4,
    }
    if name == "s3d":
        return S3D(classes)
    return ResNet(kinds[name], [64, 128, 256, 512], classes)


def with_weights_of(net: nn.Module, other: nn.Module) -> nn.Module:
    """A network with the state of another one that has the same tensors in the same order (shapes up to ones)."""
    own, its = net.state_dict(), other.state_dict()
    assert len(own) == len(its), (len(own), len(its))
    for (name, mine), (source, given) in zip(own.items(), its.items(), strict=True):
        assert mine.numel() == given.numel(), (name, mine.shape, source, given.shape)
        mine.copy_(given.reshape(mine.shape))
    return net


def both(name: str, frames: int, side: int) -> tuple[Spec, fx.GraphModule, nn.Module]:
    """The spec of a network at a clip's size, ours and the peer's, of equal weights."""
    spec = with_clip(load_spec(name), (3, frames, side, side))
    ours = build(spec, seed=0)
    return spec, ours, with_weights_of(plain(name, spec.classes), ours)
