"""The graph every feature walks over: an ordered dict of typed nodes.

A stage record is lowered to nodes; each node knows its operation, the nodes it reads and the size of what it
gives. Sizes are (c, t, h, w), without the batch. Nothing here imports torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any, Literal, NamedTuple

Kind = Literal["2d", "3d", "2+1d", "separable"]
Half = Literal["space", "time"]
ActName = Literal["relu", "silu", "hardswish"]
Triple = tuple[int, int, int]


class Size(NamedTuple):
    """Channels, frames, height and width of one clip or feature map."""

    c: int
    t: int
    h: int
    w: int

    @property
    def elements(self) -> int:
        """Numbers in one map."""
        return self.c * self.t * self.h * self.w

    def __str__(self) -> str:
        return "x".join(str(side) for side in self)


@dataclass(frozen=True, slots=True)
class Input:
    """A clip comes in here."""

    size: Size


@dataclass(frozen=True, slots=True)
class Norm:
    """Batch normalisation with an affine scale and shift per channel."""

    eps: float = 1e-5
    momentum: float = 0.1


@dataclass(frozen=True, slots=True)
class Act:
    """A pointwise non-linearity."""

    fn: ActName = "relu"


class Conv(NamedTuple):
    """One convolution site. `kernel` is the site's, whatever the kind; see `parts` for what a kind makes of it.

    A tuple, which is made four times as fast as a frozen dataclass: counting a network is mostly making these.
    """

    out: int
    kernel: Triple
    stride: Triple
    padding: Triple  # on both ends
    kind: Kind
    mid: int = 0  # channels between the halves; 0 where there is one convolution
    groups: int = 1
    bias: bool = False  # of the last convolution: a norm follows the first
    norm: Norm = Norm()  # of the inner norm, where there are two convolutions
    act: Act = Act()  # likewise
    extra: Triple = (0, 0, 0)  # more padding at the far end (TensorFlow's "same")
    first: Half = "space"  # which half of a factorised site comes first


@dataclass(frozen=True, slots=True)
class Pool:
    """Max or average pooling."""

    mode: Literal["max", "avg"]
    kernel: Triple
    stride: Triple
    padding: Triple
    extra: Triple = (0, 0, 0)  # as of a convolution


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean over all places: (c, t, h, w) -> (c, 1, 1, 1); or over space, frame by frame: -> (c, t, 1, 1)."""

    over: Literal["all", "space"] = "all"


@dataclass(frozen=True, slots=True)
class Flatten:
    """Every place's channels behind each other: (c, t, h, w) -> (c·t·h·w, 1, 1, 1)."""


@dataclass(frozen=True, slots=True)
class Gate:
    """sigmoid(W mean(x) + b) x per channel, the mean over time, space or both (S3D-G, Xie et al. 2018).

    With `hidden` channels, two maps with a non-linearity between them: squeeze and excite (Hu et al. 2018).
    """

    pool: Literal["time", "space", "both"] = "both"
    bias: bool = False
    hidden: int = 0
    act: Act = Act()


@dataclass(frozen=True, slots=True)
class Add:
    """The sum of its inputs, or their mean."""

    mean: bool = False


@dataclass(frozen=True, slots=True)
class Concat:
    """Its inputs behind each other along the channels."""


@dataclass(frozen=True, slots=True)
class Pad:
    """Every stride-th place, and zero channels up to `out` (shortcut A, He et al. 2016)."""

    out: int
    stride: Triple


@dataclass(frozen=True, slots=True)
class Shift:
    """One in `share` channels comes from the next frame, as many from the one before (TSM, Lin et al. 2019)."""

    share: int


@dataclass(frozen=True, slots=True)
class Scale:
    """A learnt factor, 0 at first (ReZero, Bachlechner et al. 2020)."""


@dataclass(frozen=True, slots=True)
class Dropout:
    """Zeroes elements with probability `p` in training."""

    p: float


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear map over channels."""

    out: int
    bias: bool = True


@dataclass(frozen=True, slots=True)
class Lstm:
    """A long short-term memory over frames: (c, t, 1, 1) -> (hidden, t, 1, 1), or its last state (hidden, 1, 1, 1)."""

    hidden: int
    last: bool = True


Op = (
    Input | Conv | Norm | Act | Pool | Mean | Flatten | Gate | Add | Concat | Pad | Shift | Scale | Dropout
    | Linear | Lstm
)  # fmt: skip


def attributes(op: Op) -> dict[str, Any]:
    """The attributes an operation has, with their defaults; None where one must be given."""
    kind: Any = type(op)
    return _attributes(kind)


@cache
def _attributes(kind: Any) -> dict[str, Any]:
    if kind is Conv:
        return {name: Conv._field_defaults.get(name) for name in Conv._fields}
    return {field.name: None if field.default is MISSING else field.default for field in fields(kind)}


class Node(NamedTuple):
    """One operation: what it reads (names of earlier nodes) and the size of what it gives."""

    name: str
    op: Op
    inputs: tuple[str, ...]
    size: Size

    @property
    def stage(self) -> str:
        """The stage the node belongs to; inputs belong to themselves."""
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Graph:
    """A network: each node reads only earlier ones; `stages` maps each stage to its last node."""

    nodes: Mapping[str, Node]
    stages: Mapping[str, str]

    def input_sizes(self, node: Node) -> list[Size]:
        """The sizes of what a node reads."""
        return [self.nodes[name].size for name in node.inputs]

    @property
    def output(self) -> Node:
        """The node whose value is the network's."""
        return list(self.nodes.values())[-1]


class Part(NamedTuple):
    """One plain convolution of a site."""

    c_in: int
    out: int
    kernel: Triple
    stride: Triple
    padding: Triple
    extra: Triple
    groups: int
    bias: bool


_ONE, _NONE = (1, 1, 1), (0, 0, 0)
FACTORISED: tuple[Kind, ...] = ("2+1d", "separable")


def is_factorised(kind: Kind, kernel: Triple) -> bool:
    """Whether a site is two convolutions: only where its kernel spans both time and space."""
    return kind in FACTORISED and kernel[0] > 1 and (kernel[1] > 1 or kernel[2] > 1)


def plain_kind(kind: Kind, kernel: Triple, padding: Triple) -> Kind:
    """The one name of a site that is the same convolution whatever its kind, so that one network has one graph."""
    if kernel[0] == 1 and padding[0] == 0:
        return "2d"
    return "3d" if kind != "2d" and not is_factorised(kind, kernel) else kind


def is_plain(op: Conv) -> bool:
    """Whether a site is the one convolution that its attributes say: not two, and not flattened in time."""
    return not op.mid and (op.kind != "2d" or op.kernel[0] == 1)


def parts(op: Conv, c_in: int) -> tuple[Part, ...]:
    """The plain convolutions of a site, in order: one, or a spatial and a temporal half.

    2d: 1 x h x w. 3d: t x h x w. Factorised: 1 x h x w into `mid` channels, then t x 1 x 1 (Tran et al. 2018).
    """
    (t, h, w), (st, sh, sw), (pt, ph, pw), (et, eh, ew) = op.kernel, op.stride, op.padding, op.extra
    if is_factorised(op.kind, op.kernel):
        space = (1, h, w), (1, sh, sw), (0, ph, pw), (0, eh, ew)
        time = (t, 1, 1), (st, 1, 1), (pt, 0, 0), (et, 0, 0)
        first, last = (space, time) if op.first == "space" else (time, space)
        return Part(c_in, op.mid, *first, op.groups, False), Part(op.mid, op.out, *last, op.groups, op.bias)
    if op.kind == "2d":
        return (Part(c_in, op.out, (1, h, w), op.stride, (0, ph, pw), (0, eh, ew), op.groups, op.bias),)
    return (Part(c_in, op.out, op.kernel, op.stride, op.padding, op.extra, op.groups, op.bias),)


def matched_mid(c_in: int, out: int, kernel: Triple, groups: int = 1) -> int:
    """Channels between the halves that give a (2+1)D site the 3D site's parameters (Tran et al. 2018, section 3.5).

    Rounded down to a multiple of the groups.
    """
    t, h, w = kernel
    mid = t * h * w * c_in * out // (h * w * c_in + t * out)
    return max(groups, mid // groups * groups)


def windowed(size: Size, out: int, op: "Part | Pool | Conv") -> Size:
    """The size a sliding window leaves; a side may come out below 1, which the caller must refuse."""
    _, t, h, w = size
    if op.kernel == _ONE == op.stride and op.padding == _NONE == op.extra:
        return Size(out, t, h, w)
    (kt, kh, kw), (st, sh, sw), (pt, ph, pw), (et, eh, ew) = op.kernel, op.stride, op.padding, op.extra
    return Size(
        out,
        (t + 2 * pt + et - kt) // st + 1,
        (h + 2 * ph + eh - kh) // sh + 1,
        (w + 2 * pw + ew - kw) // sw + 1,
    )


def same_padding(sides: tuple[int, int, int], kernel: Triple, stride: Triple) -> tuple[Triple, Triple]:
    """TensorFlow's "same" for a map of these sides: padding at both ends, and the extra at the far end."""
    before, extra = [], []
    for side, k, s in zip(sides, kernel, stride, strict=True):
        total = max((-(-side // s) - 1) * s + k - side, 0)
        before.append(total // 2)
        extra.append(total % 2)
    return (before[0], before[1], before[2]), (extra[0], extra[1], extra[2])


def output_size(op: Op, sizes: list[Size]) -> Size:
    """The size an operation gives for the sizes it reads."""
    if isinstance(op, Conv):
        size = sizes[0]
        if is_plain(op):
            return windowed(size, op.out, op)
        for part in parts(op, size.c):
            size = windowed(size, part.out, part)
        return size
    rule = _SIZES.get(type(op))
    return rule(op, sizes) if rule else sizes[0]


_SIZES: dict[type, Callable[[Any, list[Size]], Size]] = {  # what keeps its first input's size is not listed
    Input: lambda op, sizes: op.size,
    Pool: lambda op, sizes: windowed(sizes[0], sizes[0].c, op),
    Pad: lambda op, sizes: Size(op.out, *(-(-side // s) for side, s in zip(sizes[0][1:], op.stride, strict=True))),
    Mean: lambda op, sizes: Size(sizes[0].c, sizes[0].t if op.over == "space" else 1, 1, 1),
    Flatten: lambda op, sizes: Size(sizes[0].elements, 1, 1, 1),
    Linear: lambda op, sizes: Size(op.out, *sizes[0][1:]),
    Lstm: lambda op, sizes: Size(op.hidden, 1 if op.last else sizes[0].t, 1, 1),
    Concat: lambda op, sizes: Size(sum(size.c for size in sizes), *sizes[0][1:]),
}
