"""Stages of blocks that add to what they read: residual (He et al. 2016) and inverted (Sandler et al. 2018)."""

from functools import partial
from typing import Annotated, Literal

from pydantic import Field, model_validator

from archsearch.spec.builder import ONE, Builder
from archsearch.spec.fields import (
    Act_,
    Depth,
    Flag,
    GateField,
    Groups,
    Kernel,
    Mid,
    Positive,
    Side,
    Stage,
    Stride,
    resolve_act,
    resolve_gate,
    resolve_kernel,
    resolve_stride,
)
from archsearch.spec.graph import Half, Kind, Triple

Site = tuple[int, Triple, Triple, int | str]  # out, kernel, stride, groups


class ResidualStage(Stage):
    """Residual blocks, basic or bottleneck, before or after activation.

    `mid: conv` matches the 3D parameter count per convolution (Tran et al. 2018), `block` once per block from what it
    reads (torchvision). Shortcut `pad` has no parameters (Hara et al. 2018's A), `conv` no norm. `temporal: entry` has
    time in a bottleneck's first convolution instead of the middle one (Slow-R50), `temporal_every` in every n-th block
    from `temporal_start` on (I3D-R50). `pointwise` mixes channels before a depthwise one (ip-CSN, Tran et al. 2019).
    `shift: 8` takes an eighth of what each block reads from the next frame and one from the last (TSM).
    """

    kind: Literal["residual"] = "residual"
    depth: Depth
    width: Positive
    kernel: Kernel = 3
    stride: Stride = 1
    conv: Kind = "3d"
    bottleneck: Annotated[float, Field(gt=0, description="a share of the width")] | None = None
    groups: Groups = 1
    pointwise: Flag = False
    order: Literal["conv-norm-act", "norm-act-conv"] = "conv-norm-act"
    shortcut: Literal["conv-norm", "conv", "pad"] = "conv-norm"
    gate: GateField = False
    mid: Mid = "conv"
    first: Half = "space"  # which half of a factorised site comes first
    temporal: Literal["inner", "entry"] = "inner"
    temporal_every: Positive = 1
    temporal_start: Side = 0
    shift: Side = 0

    def append(self, graph: Builder, x: str) -> str:
        """`depth` blocks; the first one strides."""
        stride = resolve_stride(self.stride, self.conv)
        for index in range(self.depth):
            step = stride if index == 0 else ONE
            sites = self._sites(graph.size(x).t, index, step)
            append = partial(self._block, graph, sites, step)
            x = graph.block(f"{self.name}.{index}", x, (self.name, sites, step), append)
        return x

    def _block(self, graph: Builder, sites: tuple[Site, ...], stride: Triple, block: str, x: str) -> str:
        skip = self._shortcut(graph, block, x, stride)
        mid = self._mid(graph.size(x).c)
        y = graph.shift(f"{block}.shift", x, self.shift) if self.shift else x
        for number, (out, kernel, step, groups) in enumerate(sites, start=1):
            if self.order == "norm-act-conv":
                y = graph.act(f"{block}.act{number}", graph.norm(f"{block}.norm{number}", y))
            if self.pointwise and groups == "depthwise":
                y = graph.conv(f"{block}.point", y, graph.size(y).c, ONE)
                y = graph.norm(f"{block}.point_norm", y)
            y = graph.conv(
                f"{block}.conv{number}", y, out, kernel, step, kind=self.conv, mid=mid, groups=groups, first=self.first
            )
            if self.order == "conv-norm-act":
                y = graph.norm(f"{block}.norm{number}", y)
                if number < len(sites):
                    y = graph.act(f"{block}.act{number}", y)
        if self.gate:
            y = graph.gate(f"{block}.gate", y, resolve_gate(self.gate, self.width))
        y = graph.join(f"{block}.add", skip, y)
        return graph.act(f"{block}.act", y) if self.order == "conv-norm-act" else y

    def _sites(self, frames: int, index: int, stride: Triple) -> tuple[Site, ...]:
        """The convolution sites of a block."""
        t, h, w = resolve_kernel(self.kernel, frames)
        if index < self.temporal_start or (index - self.temporal_start) % self.temporal_every:
            t = 1
        if self.bottleneck is None:
            return (self.width, (t, h, w), stride, self.groups), (self.width, (t, h, w), ONE, self.groups)
        inner = max(1, round(self.width * self.bottleneck))
        entry, middle = (t, 1) if self.temporal == "entry" else (1, t)
        return (
            (inner, (entry, 1, 1), ONE, 1),
            (inner, (middle, h, w), stride, self.groups),
            (self.width, ONE, ONE, 1),
        )

    def _mid(self, c_in: int) -> int | None:
        """One number of inner channels for the whole block, or None where each convolution has its own."""
        if self.mid == "block":
            planes = self.width if self.bottleneck is None else max(1, round(self.width * self.bottleneck))
            return 27 * c_in * planes // (9 * c_in + 3 * planes)
        return None if self.mid == "conv" else self.mid

    def _shortcut(self, graph: Builder, block: str, x: str, stride: Triple) -> str:
        if graph.size(x).c == self.width and stride == ONE:
            return x
        if self.shortcut == "pad":
            return graph.pad(f"{block}.skip", x, self.width, stride)
        skip = graph.conv(f"{block}.skip", x, self.width, ONE, stride, kind=self.conv)
        return graph.norm(f"{block}.skip_norm", skip) if self.shortcut == "conv-norm" else skip

    @model_validator(mode="after")
    def _check(self) -> "ResidualStage":
        if self.temporal == "entry" and self.bottleneck is None:
            raise ValueError("temporal: entry is of blocks with a bottleneck; set bottleneck")
        if self.pointwise and self.groups != "depthwise":
            raise ValueError("pointwise: true stands before a depthwise convolution; set groups: depthwise")
        if self.temporal_start and self.temporal_start >= max(self.depth, self.temporal_every):
            raise ValueError(f"temporal_start {self.temporal_start} leaves no block of {self.depth} that sees time")
        return self


class InvertedStage(Stage):
    """Blocks that widen, convolve depthwise, weigh channels and narrow (X3D, Feichtenhofer 2020; MoViNet).

    `inner` is the channels between, `expand` the same as a factor of the width. The gate stands before or after the
    depthwise convolution's act, in every `gate_every`-th block. `pool-conv-norm` averages where it strides (MoViNet).
    """

    kind: Literal["inverted"] = "inverted"
    depth: Depth
    width: Positive
    expand: Annotated[float, Field(gt=0, description="a factor of the width")] = 2.25
    inner: Positive | None = None
    kernel: Kernel = 3
    stride: Stride = 1
    conv: Kind = "3d"
    gate: GateField = False
    gate_at: Literal["before-act", "after-act"] = "before-act"
    gate_every: Positive = 1
    act: Act_ = "relu"  # after widening
    inner_act: Act_ = "relu"  # after the depthwise convolution
    out_act: Act_ = "relu"  # after the sum
    shortcut: Literal["conv-norm", "conv", "pool-conv-norm"] = "conv-norm"
    rezero: Flag = False  # a learnt factor, 0 at first, on what the block adds

    def append(self, graph: Builder, x: str) -> str:
        """`depth` blocks; the first one strides."""
        stride = resolve_stride(self.stride, self.conv)
        for index in range(self.depth):
            step = stride if index == 0 else ONE
            gated = bool(self.gate) and index % self.gate_every == 0
            append = partial(self._block, graph, gated, step)
            x = graph.block(f"{self.name}.{index}", x, (self.name, gated, step), append)
        return x

    def _block(self, graph: Builder, gated: bool, stride: Triple, block: str, x: str) -> str:
        inner = self.inner or max(1, round(self.width * self.expand))
        kernel = resolve_kernel(self.kernel, graph.size(x).t)
        inner_act, out_act = resolve_act(self.inner_act), resolve_act(self.out_act)
        skip = self._shortcut(graph, block, x, stride)
        y = graph.norm(f"{block}.norm1", graph.conv(f"{block}.conv1", x, inner, ONE))
        y = graph.act(f"{block}.act1", y, act) if (act := resolve_act(self.act)) else y
        y = graph.conv(f"{block}.conv2", y, inner, kernel, stride, kind=self.conv, groups="depthwise", act=inner_act)
        y = graph.norm(f"{block}.norm2", y)
        if gated and self.gate_at == "before-act":
            y = graph.gate(f"{block}.gate", y, resolve_gate(self.gate, inner))
        y = graph.act(f"{block}.act2", y, inner_act) if inner_act else y
        if gated and self.gate_at == "after-act":
            y = graph.gate(f"{block}.gate", y, resolve_gate(self.gate, inner))
        y = graph.norm(f"{block}.norm3", graph.conv(f"{block}.conv3", y, self.width, ONE))
        y = graph.scale(f"{block}.scale", y) if self.rezero else y
        y = graph.join(f"{block}.add", skip, y)
        return graph.act(f"{block}.act", y, out_act) if out_act else y

    def _shortcut(self, graph: Builder, block: str, x: str, stride: Triple) -> str:
        if graph.size(x).c == self.width and stride == ONE:
            return x
        if self.shortcut == "pool-conv-norm" and stride != ONE:
            t, h, w = (1 if step == 1 else 3 for step in stride)
            x, stride = graph.pool(f"{block}.skip_pool", x, "avg", (t, h, w), stride), ONE
        skip = graph.conv(f"{block}.skip", x, self.width, ONE, stride)
        return skip if self.shortcut == "conv" else graph.norm(f"{block}.skip_norm", skip)
