"""Stage records: what people, YAML files and searches touch. Each appends its own nodes; a family is one record."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from archsearch.files import Record
from archsearch.spec.builder import Builder
from archsearch.spec.graph import Act, Gate, Kind, Pool, Triple

Positive = Annotated[int, Field(ge=1, le=10**6, strict=True)]  # a width of 1e30 is a slip, not a network
Side = Annotated[int, Field(ge=0, le=10**6, strict=True)]
Depth = Annotated[int, Field(ge=1, le=1000, strict=True)]
TripleField = tuple[Positive, Positive, Positive]
Stride = Annotated[
    Positive | TripleField, Field(description="a positive integer or three of them [time, height, width]")
]
Kernel = Annotated[
    Positive | tuple[Positive | Literal["frames"], Positive, Positive],
    Field(description="a positive integer or three of them [time, height, width]; time may be `frames`, all there are"),
]
Padding = Annotated[
    tuple[Side, Side, Side] | None, Field(description="three integers [time, height, width], each 0 or more")
]
Mid = Annotated[
    Literal["conv", "block"] | Positive,
    Field(description="conv (the 3D parameter count, per convolution), block (per block) or a number of channels"),
]


class GateRecord(Record):
    """A feature gate: what the mean runs over, and whether there is a bias."""

    pool: Literal["time", "space", "both"] = "both"
    bias: bool = False


GateField = Annotated[
    bool | GateRecord, Field(description="true, false or {pool: time | space | both, bias: true | false}")
]


class Stage(Record):
    """What every stage has: a name, and the stages it reads (the one before it by default)."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", description="lower-case letters, digits and _")]
    from_: Annotated[
        str | tuple[str, ...] | None, Field(alias="from", description="a stage's name or a list of names")
    ] = None

    def append(self, graph: Builder, x: str) -> str:
        """Appends the stage's nodes behind node `x`; returns the last one's name."""
        raise NotImplementedError


class ConvStage(Stage):
    """A convolution with norm, activation and gate, e.g. a stem."""

    kind: Literal["conv"] = "conv"
    width: Positive
    kernel: Kernel = 3
    stride: Stride = 1
    padding: Padding = None
    conv: Kind = "3d"
    mid: Mid = "conv"
    bias: bool = False
    norm: bool = True
    act: Literal["relu", "silu", "hardswish", "none"] = "relu"
    gate: GateField = False

    def append(self, graph: Builder, x: str) -> str:
        """conv, norm, act, gate."""
        x = graph.conv(
            f"{self.name}.conv",
            x,
            self.width,
            resolve_kernel(self.kernel, graph.size(x).t),
            resolve_stride(self.stride, self.conv),
            self.padding,
            kind=self.conv,
            mid=self.mid if isinstance(self.mid, int) else None,
            bias=self.bias,
        )
        if self.norm:
            x = graph.norm(f"{self.name}.norm", x)
        if self.act != "none":
            x = graph.act(f"{self.name}.act", x, Act(self.act))
        return graph.gate(f"{self.name}.gate", x, resolve_gate(self.gate)) if self.gate else x


class PoolStage(Stage):
    """Pooling between stages. Its stride never follows a convolution's kind: an integer strides time too."""

    kind: Literal["pool"] = "pool"
    mode: Literal["max", "avg"] = "max"
    kernel: Kernel = 3
    stride: Stride = 2
    padding: Padding = None

    def append(self, graph: Builder, x: str) -> str:
        """One pool; padding defaults to (k - 1) // 2."""
        kernel = resolve_kernel(self.kernel, graph.size(x).t)
        t, h, w = kernel
        padding = self.padding or ((t - 1) // 2, (h - 1) // 2, (w - 1) // 2)
        return graph.pool(f"{self.name}.pool", x, Pool(self.mode, kernel, resolve_stride(self.stride, "3d"), padding))


class ResidualStage(Stage):
    """Residual blocks (He et al. 2016), basic or bottleneck, before or after activation.

    `mid: conv` matches the 3D parameter count per convolution (Tran et al. 2018), `block` once per block from its
    outer widths (torchvision). Shortcut `pad` has no parameters (Hara et al. 2018's A), `conv` no norm.
    """

    kind: Literal["residual"] = "residual"
    depth: Depth
    width: Positive
    stride: Stride = 1
    conv: Kind = "3d"
    bottleneck: Annotated[float, Field(gt=0, description="a share of the width")] | None = None
    groups: Positive = 1
    order: Literal["conv-norm-act", "norm-act-conv"] = "conv-norm-act"
    shortcut: Literal["conv-norm", "conv", "pad"] = "conv-norm"
    gate: GateField = False
    mid: Mid = "conv"

    def append(self, graph: Builder, x: str) -> str:
        """`depth` blocks; the first one strides."""
        stride = resolve_stride(self.stride, self.conv)
        for index in range(self.depth):
            x = self._block(graph, f"{self.name}.{index}", x, stride if index == 0 else (1, 1, 1))
        return x

    def _block(self, graph: Builder, block: str, x: str, stride: Triple) -> str:
        skip = self._shortcut(graph, block, x, stride)
        sites = self._sites(stride)
        mid = self._mid(graph.size(x).c)
        y = x
        for number, (out, kernel, step, groups) in enumerate(sites, start=1):
            if self.order == "norm-act-conv":
                y = graph.act(f"{block}.act{number}", graph.norm(f"{block}.norm{number}", y))
            y = graph.conv(f"{block}.conv{number}", y, out, kernel, step, kind=self.conv, mid=mid, groups=groups)
            if self.order == "conv-norm-act":
                y = graph.norm(f"{block}.norm{number}", y)
                if number < len(sites):
                    y = graph.act(f"{block}.act{number}", y)
        if self.gate:
            y = graph.gate(f"{block}.gate", y, resolve_gate(self.gate))
        y = graph.join(f"{block}.add", skip, y)
        return graph.act(f"{block}.act", y) if self.order == "conv-norm-act" else y

    def _sites(self, stride: Triple) -> list[tuple[int, Triple, Triple, int]]:
        """(out, kernel, stride, groups) of each convolution site of a block."""
        spatial, point, one = (3, 3, 3), (1, 1, 1), (1, 1, 1)
        if self.bottleneck is None:
            return [(self.width, spatial, stride, self.groups), (self.width, spatial, one, self.groups)]
        inner = max(1, round(self.width * self.bottleneck))
        return [(inner, point, one, 1), (inner, spatial, stride, self.groups), (self.width, point, one, 1)]

    def _mid(self, c_in: int) -> int | None:
        """One number of inner channels for the whole block, or None where each convolution has its own."""
        if self.mid == "block":
            return 27 * c_in * self.width // (9 * c_in + 3 * self.width)
        return None if self.mid == "conv" else self.mid

    def _shortcut(self, graph: Builder, block: str, x: str, stride: Triple) -> str:
        if graph.size(x).c == self.width and stride == (1, 1, 1):
            return x
        if self.shortcut == "pad":
            return graph.pad(f"{block}.skip", x, self.width, stride)
        skip = graph.conv(f"{block}.skip", x, self.width, (1, 1, 1), stride, kind=self.conv)
        return graph.norm(f"{block}.skip_norm", skip) if self.shortcut == "conv-norm" else skip

    @model_validator(mode="after")
    def _check(self) -> "ResidualStage":
        if self.mid == "block" and self.bottleneck is not None:
            raise ValueError("mid: block is a rule of basic blocks; use mid: conv with a bottleneck")
        return self


class HeadStage(Stage):
    """The classifier: the mean over all places, dropout, and one linear map to the classes."""

    kind: Literal["head"] = "head"
    classes: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def append(self, graph: Builder, x: str) -> str:
        """mean, dropout, linear."""
        x = graph.mean(f"{self.name}.mean", x)
        x = graph.dropout(f"{self.name}.dropout", x, self.dropout)
        return graph.linear(f"{self.name}.linear", x, self.classes)


STAGES: dict[str, type[Stage]] = {
    "conv": ConvStage,
    "pool": PoolStage,
    "residual": ResidualStage,
    "head": HeadStage,
}


def resolve_stride(stride: int | Triple, conv: Kind) -> Triple:
    """An integer strides space, and time only where the stage's convolutions see time; a triple is as written."""
    if isinstance(stride, tuple):
        return stride
    return (1 if conv == "2d" else stride, stride, stride)


def resolve_kernel(kernel: int | tuple[int | Literal["frames"], int, int], frames: int) -> Triple:
    """A kernel as three numbers; `frames` is every frame the stage reads."""
    if isinstance(kernel, int):
        return (kernel, kernel, kernel)
    time, height, width = kernel
    return (frames if time == "frames" else time, height, width)


def resolve_gate(gate: bool | GateRecord) -> Gate:
    """The gate's attributes."""
    record = gate if isinstance(gate, GateRecord) else GateRecord()
    return Gate(record.pool, record.bias)
