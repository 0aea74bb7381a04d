"""Stages that concatenate: inception (Szegedy et al. 2015) and dense blocks (Huang et al. 2017)."""

from typing import Annotated, Any, Literal

from pydantic import Field

from archsearch.spec.builder import RELU, Builder
from archsearch.spec.fields import (
    Depth,
    GateRecord,
    Kernel,
    Positive,
    Stage,
    Stride,
    resolve_gate,
    resolve_kernel,
    resolve_stride,
)
from archsearch.spec.graph import Kind, Triple

Widths = Annotated[
    tuple[Positive, Positive, Positive, Positive, Positive, Positive],
    Field(description="six widths [1x1x1, reduced, 3x3x3, reduced, 3x3x3, pooled]"),
]


class BranchGate(GateRecord):
    """A gate in an inception block: after each of its four branches, or after each temporal convolution."""

    after: Literal["branches", "temporal"] = "branches"


GateField = Annotated[
    bool | BranchGate,
    Field(description="true, false or {pool: time | space | both, bias: true | false, after: branches | temporal}"),
]


class InceptionStage(Stage):
    """An inception block as I3D has it: 1x1x1; 1x1x1 and 3x3x3, twice; a max pool and 1x1x1; side by side.

    `conv` is the kind of both 3x3x3 sites (I2D, I3D, S3D); the pool never follows it. `norm: inner` has a norm between
    the halves of a factorised site and a bias at its end (TF-slim's S3D-G).
    """

    kind: Literal["inception"] = "inception"
    widths: Widths
    conv: Kind = "3d"
    kernel: Kernel = 3
    pool: Kernel = 3  # of the pool branch
    norm: Literal["all", "inner"] = "all"
    gate: GateField = False

    def append(self, graph: Builder, x: str) -> str:
        """Four branches b0 to b3, and their concat."""
        name, widths = self.name, self.widths
        frames = graph.size(x).t
        b0 = self._gated(graph, f"{name}.b0", self._point(graph, f"{name}.b0", x, widths[0]), time=False)
        branches = [b0]
        for branch, reduced, out in (("b1", widths[1], widths[2]), ("b2", widths[3], widths[4])):
            y = self._point(graph, f"{name}.{branch}.reduce", x, reduced)
            y = self._site(graph, f"{name}.{branch}", y, out, resolve_kernel(self.kernel, frames))
            branches.append(self._gated(graph, f"{name}.{branch}", y, time=True))
        pooled = graph.pool(f"{name}.b3.pool", x, "max", resolve_kernel(self.pool, frames))
        b3 = self._point(graph, f"{name}.b3", pooled, widths[5])
        branches.append(self._gated(graph, f"{name}.b3", b3, time=False))
        return graph.concat(f"{name}.concat", *branches)

    def _point(self, graph: Builder, site: str, x: str, out: int) -> str:
        return graph.site(site, x, out, (1, 1, 1), RELU)

    def _site(self, graph: Builder, site: str, x: str, out: int, kernel: Triple) -> str:
        options: dict[str, Any] = {"kind": self.conv}
        if self.norm == "all" or self.conv not in ("separable", "2+1d"):
            return graph.site(site, x, out, kernel, RELU, **options)
        return graph.act(f"{site}.act", graph.conv(f"{site}.conv", x, out, kernel, bias=True, **options))

    def _gated(self, graph: Builder, branch: str, x: str, *, time: bool) -> str:
        after = self.gate.after if isinstance(self.gate, BranchGate) else "branches"
        if not self.gate or (after == "temporal" and not time):
            return x
        return graph.gate(f"{branch}.gate", x, resolve_gate(self.gate, graph.size(x).c))


class DenseStage(Stage):
    """Layers that each append `growth` channels to all they read: norm act 1x1x1 norm act 3x3x3."""

    kind: Literal["dense"] = "dense"
    depth: Depth
    growth: Positive = 32
    bottleneck: Positive = 4  # channels between, in multiples of the growth
    kernel: Kernel = 3
    conv: Kind = "3d"
    gate: Annotated[bool | GateRecord, Field(description="true, false or {pool, bias, reduction, act}")] = False

    def append(self, graph: Builder, x: str) -> str:
        """`depth` layers, each concatenated to what it read."""
        for index in range(self.depth):
            layer = f"{self.name}.{index}"
            kernel = resolve_kernel(self.kernel, graph.size(x).t)
            y = graph.act(f"{layer}.act1", graph.norm(f"{layer}.norm1", x))
            y = graph.conv(f"{layer}.conv1", y, self.bottleneck * self.growth, (1, 1, 1))
            y = graph.act(f"{layer}.act2", graph.norm(f"{layer}.norm2", y))
            y = graph.conv(f"{layer}.conv2", y, self.growth, kernel, kind=self.conv)
            if self.gate:
                y = graph.gate(f"{layer}.gate", y, resolve_gate(self.gate, self.growth))
            x = graph.concat(f"{layer}.concat", x, y)
        return x


class TransitionStage(Stage):
    """Between dense blocks: norm act 1x1x1 and an average pool as large as its stride."""

    kind: Literal["transition"] = "transition"
    reduction: Annotated[float, Field(gt=0, le=1, description="a share of the channels, up to 1")] = 0.5
    stride: Stride = 2

    def append(self, graph: Builder, x: str) -> str:
        """norm, act, conv, pool. An integer stride is time's, too."""
        out = max(1, int(graph.size(x).c * self.reduction))
        y = graph.act(f"{self.name}.act", graph.norm(f"{self.name}.norm", x))
        y = graph.conv(f"{self.name}.conv", y, out, (1, 1, 1))
        stride = resolve_stride(self.stride, "3d")
        return graph.pool(f"{self.name}.pool", y, "avg", stride, stride, (0, 0, 0))
