"""Appends nodes to a graph, stage by stage; what the stage records write with."""

from collections.abc import Callable, Hashable, Sequence
from itertools import islice
from typing import Any, Literal

from archsearch.errors import SpecError
from archsearch.spec.graph import (
    FACTORISED,
    Act,
    Add,
    Concat,
    Conv,
    Dropout,
    Flatten,
    Gate,
    Graph,
    Half,
    Input,
    Kind,
    Linear,
    Lstm,
    Mean,
    Node,
    Norm,
    Op,
    Pad,
    Pool,
    Scale,
    Shift,
    Size,
    Triple,
    is_plain,
    matched_mid,
    output_size,
    plain_kind,
    same_padding,
    windowed,
)

Mode = Literal["max", "avg"]
ONE: Triple = (1, 1, 1)
NONE: Triple = (0, 0, 0)
RELU = Act()


class Builder:
    """Nodes so far, with their sizes. Methods return the name of the node they appended, to be read by the next."""

    def __init__(self, source: str, norm: Norm, same: bool = False) -> None:
        self.source = source
        self.norm_rule = norm
        self.same = same  # TensorFlow's padding where a stage states none
        self.nodes: dict[str, Node] = {}
        self.stages: dict[str, str] = {}
        self._blocks: dict[Hashable, tuple[str, str, list[Node]]] = {}  # name, read, nodes; see `block`

    def size(self, name: str) -> Size:
        """The size of what a node gives."""
        return self.nodes[name].size

    def graph(self) -> Graph:
        """The finished graph."""
        return Graph(self.nodes, self.stages)

    def add(self, name: str, op: Op, *inputs: str) -> str:
        """Appends a node. Raises SpecError where a feature map becomes empty or two that meet do not fit."""
        sizes = [self.nodes[read].size for read in inputs]
        size = output_size(op, sizes)
        if len(sizes) != 1 or size is not sizes[0]:  # else it is the size of what was checked before
            self._check(name, op, sizes, size)
        self.nodes[name] = Node(name, op, inputs, size)
        return name

    def block(self, name: str, x: str, rule: Hashable, append: Callable[[str, str], str]) -> str:
        """Several nodes as `append(name, x)` gives them. One that reads the size an earlier one of the same rule read
        is its copy under another name: deep stages are mostly copies."""
        nodes = self.nodes
        key = (rule, nodes[x].size)
        if key not in self._blocks:
            before = len(nodes)
            output = append(name, x)
            own = list(islice(reversed(nodes.values()), len(nodes) - before))
            self._blocks[key] = name, x, own[::-1]
            return output
        first, read, copied = self._blocks[key]
        names = {read: x}
        full = name
        for node in copied:
            full = names[node.name] = name + node.name[len(first) :]
            nodes[full] = Node(full, node.op, tuple([names[each] for each in node.inputs]), node.size)
        return full

    def _keep(self, name: str, op: Op, x: str) -> str:
        """Appends a node that gives the size it reads."""
        self.nodes[name] = Node(name, op, (x,), self.nodes[x].size)
        return name

    def _check(self, name: str, op: Op, sizes: Sequence[Size], size: Size) -> None:
        if min(size) < 1:
            raise SpecError(f"{self._place(name)}: {_window(op)} leaves nothing of a {sizes[0]} feature map ({size})")
        if len(sizes) > 1 and len({read if isinstance(op, Add) else read[1:] for read in sizes}) > 1:
            raise SpecError(f"{self._place(name)}: sizes {' and '.join(map(str, sizes))} do not fit together")

    def input(self, name: str, size: Size) -> str:
        """A clip comes in."""
        return self.add(name, Input(size))

    def conv(
        self,
        name: str,
        x: str,
        out: int,
        kernel: Triple,
        stride: Triple = ONE,
        padding: Triple | None = None,
        *,
        kind: Kind = "3d",
        mid: int | None = None,
        groups: int | str = 1,
        bias: bool = False,
        act: Act | None = None,
        first: Half = "space",
    ) -> str:
        """A convolution site. Padding defaults to the spec's rule, `mid` to the kind's own; groups may be depthwise."""
        read = self.nodes[x].size
        c_in = read.c
        groups = c_in if isinstance(groups, str) else groups
        if c_in % groups or out % groups:
            raise SpecError(f"{self._place(name)}: {groups} groups do not divide {c_in} and {out} channels")
        around, extra = (padding, NONE) if padding is not None else self._padding(read, kernel, stride)
        kind = plain_kind(kind, kernel, around)
        inner = 0
        if kind in FACTORISED:
            inner = out if kind == "separable" else mid or matched_mid(c_in, out, kernel, groups)
            if inner % groups:
                raise SpecError(f"{self._place(name)}: {groups} groups do not divide {inner} channels inside (mid)")
        else:
            first = "space"  # there is one convolution
        op = Conv(out, kernel, stride, around, kind, inner, groups, bias, self.norm_rule, act or RELU, extra, first)
        size = windowed(read, out, op) if is_plain(op) else output_size(op, [read])
        if min(size) < 1:
            self._check(name, op, (read,), size)
        self.nodes[name] = Node(name, op, (x,), size)
        return name

    def site(self, name: str, x: str, out: int, kernel: Triple, act: Act | None, **options: Any) -> str:
        """A convolution with its norm and act, named `name.conv name.norm name.act`; None: no act."""
        x = self.norm(f"{name}.norm", self.conv(f"{name}.conv", x, out, kernel, **options))
        return self.act(f"{name}.act", x, act) if act else x

    def _padding(self, size: Size, kernel: Triple, stride: Triple) -> tuple[Triple, Triple]:
        """The spec's padding at both ends, and more at the far end."""
        if kernel == ONE:
            return NONE, NONE
        if self.same:
            return same_padding(size[1:], kernel, stride)
        t, h, w = kernel
        return ((t - 1) // 2, (h - 1) // 2, (w - 1) // 2), NONE

    def norm(self, name: str, x: str) -> str:
        """Batch normalisation by the spec's rule."""
        return self._keep(name, self.norm_rule, x)

    def act(self, name: str, x: str, act: Act | None = None) -> str:
        """A non-linearity, ReLU by default."""
        return self._keep(name, act or RELU, x)

    def pool(
        self, name: str, x: str, mode: Mode, kernel: Triple, stride: Triple = ONE, padding: Triple | None = None
    ) -> str:
        """Max or average pooling. Raises SpecError where padding is more than half the kernel."""
        around, extra = (padding, NONE) if padding is not None else self._padding(self.size(x), kernel, stride)
        if any(2 * pad > side for pad, side in zip(around, kernel, strict=True)):
            raise SpecError(f"{self._place(name)}: padding {around} is more than half of kernel {kernel}")
        return self.add(name, Pool(mode, kernel, stride, around, extra), x)

    def mean(self, name: str, x: str, over: Literal["all", "space"] = "all") -> str:
        """The mean over all places, or over space."""
        return self.add(name, Mean(over), x)

    def gate(self, name: str, x: str, gate: Gate) -> str:
        """A feature gate."""
        return self.add(name, gate, x)

    def pad(self, name: str, x: str, out: int, stride: Triple) -> str:
        """The parameter-free shortcut."""
        return self.add(name, Pad(out, stride), x)

    def join(self, name: str, *inputs: str) -> str:
        """The sum of branches."""
        return self.add(name, Add(), *inputs)

    def average(self, name: str, *inputs: str) -> str:
        """The mean of branches."""
        return self.add(name, Add(mean=True), *inputs)

    def shift(self, name: str, x: str, share: int) -> str:
        """Some channels from the neighbouring frames."""
        return self.add(name, Shift(share), x)

    def scale(self, name: str, x: str) -> str:
        """A learnt factor."""
        return self.add(name, Scale(), x)

    def flatten(self, name: str, x: str) -> str:
        """All numbers of a map as channels."""
        return self.add(name, Flatten(), x)

    def lstm(self, name: str, x: str, hidden: int, last: bool) -> str:
        """A recurrent layer over frames."""
        return self.add(name, Lstm(hidden, last), x)

    def concat(self, name: str, *inputs: str) -> str:
        """Branches behind each other along the channels."""
        return self.add(name, Concat(), *inputs)

    def dropout(self, name: str, x: str, p: float) -> str:
        """Dropout, or nothing where p is 0."""
        return self.add(name, Dropout(p), x) if p else x

    def linear(self, name: str, x: str, out: int, bias: bool = True) -> str:
        """A linear map over channels."""
        return self.add(name, Linear(out, bias), x)

    def _place(self, name: str) -> str:
        stage, _, site = name.partition(".")
        return f"{self.source}, stage {stage}{f', {site}' if site else ''}"


def _window(op: Op) -> str:
    if isinstance(op, Conv | Pool):
        return f"kernel {'x'.join(map(str, op.kernel))} with stride {'x'.join(map(str, op.stride))}"
    return type(op).__name__.lower()
