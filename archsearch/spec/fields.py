"""What stage records are made of: their fields' types and rules, gates, and the record all stages share."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from archsearch.files import Record
from archsearch.spec.builder import Builder
from archsearch.spec.graph import Act, ActName, Gate, Kind, Triple

Positive = Annotated[int, Field(ge=1, le=10**6, strict=True)]  # a width of 1e30 is a slip, not a network
Side = Annotated[int, Field(ge=0, le=10**6, strict=True)]
Depth = Annotated[int, Field(ge=1, le=1000, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
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
Groups = Annotated[Positive | Literal["depthwise"], Field(description="a positive integer or depthwise")]
Act_ = Literal["relu", "silu", "hardswish", "none"]


class GateRecord(Record):
    """A feature gate: what the mean runs over, whether there is a bias, and by how much channels are squeezed."""

    pool: Literal["time", "space", "both"] = "both"
    bias: Flag = False
    reduction: Annotated[float, Field(gt=0, description="a factor above 0")] | None = None  # None: one map
    act: ActName = "relu"  # between the two maps of a reduction


GateField = Annotated[
    Flag | GateRecord,
    Field(description="true, false or {pool: time | space | both, bias: true | false, reduction, act}"),
]


class Stage(Record):
    """What every stage has: a name, and the stages it reads (the one before it by default)."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", description="lower-case letters, digits and _")]
    from_: Annotated[
        str | tuple[str, ...] | None, Field(alias="from", description="a stage's name or a list of names")
    ] = None

    def merge(self, graph: Builder, inputs: Sequence[str]) -> str:
        """One node of the several that `from` names: their concat, unless the stage has another way."""
        return graph.concat(f"{self.name}.concat", *inputs)

    def append(self, graph: Builder, x: str) -> str:
        """Appends the stage's nodes behind node `x`; returns the last one's name."""
        raise NotImplementedError


def resolve_stride(stride: int | Triple, conv: Kind) -> Triple:
    """An integer strides space, and time only where the stage's convolutions see time; a triple is as written."""
    if isinstance(stride, tuple):
        return stride
    return (1 if conv == "2d" else stride, stride, stride)


def resolve_kernel(kernel: int | tuple[Any, int, int], frames: int) -> Triple:
    """A kernel as three numbers; `frames` is every frame the stage reads."""
    if isinstance(kernel, int):
        return (kernel, kernel, kernel)
    time, height, width = kernel
    return (frames if time == "frames" else time, height, width)


def resolve_gate(gate: bool | GateRecord, channels: int) -> Gate:
    """The gate's attributes for so many channels."""
    record = gate if isinstance(gate, GateRecord) else GateRecord()
    hidden = round_channels(channels / record.reduction) if record.reduction else 0
    return Gate(record.pool, record.bias, hidden, Act(record.act))


def resolve_act(act: str) -> Act | None:
    """The non-linearity of that name, or None."""
    return None if act == "none" else Act(act)  # type: ignore[arg-type]


def round_channels(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of 8, at least 8, and not more than a tenth below (as mobile networks round widths)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor
