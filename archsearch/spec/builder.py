"""Appends nodes to a graph, stage by stage; what the stage records write with."""

from archsearch.errors import SpecError
from archsearch.spec.graph import (
    Act,
    Add,
    Concat,
    Conv,
    Dropout,
    Gate,
    Graph,
    Input,
    Kind,
    Linear,
    Mean,
    Node,
    Norm,
    Op,
    Pad,
    Pool,
    Size,
    Triple,
    is_factorised,
    matched_mid,
    output_size,
)


class Builder:
    """Nodes so far, with their sizes. Methods return the name of the node they appended, to be read by the next."""

    def __init__(self, source: str, norm: Norm) -> None:
        self.source = source
        self.norm_rule = norm
        self.nodes: dict[str, Node] = {}
        self.stages: dict[str, str] = {}

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
        if min(size) < 1:
            raise SpecError(f"{self._place(name)}: {_window(op)} leaves nothing of a {sizes[0]} feature map ({size})")
        if len(sizes) > 1 and len({read if isinstance(op, Add) else read[1:] for read in sizes}) > 1:
            raise SpecError(f"{self._place(name)}: sizes {' and '.join(map(str, sizes))} do not fit together")
        self.nodes[name] = Node(name, op, inputs, size)
        return name

    def input(self, name: str, size: Size) -> str:
        """A clip comes in."""
        return self.add(name, Input(size))

    def conv(
        self,
        name: str,
        x: str,
        out: int,
        kernel: Triple,
        stride: Triple = (1, 1, 1),
        padding: Triple | None = None,
        *,
        kind: Kind = "3d",
        mid: int | None = None,
        groups: int = 1,
        bias: bool = False,
        act: Act | None = None,
    ) -> str:
        """A convolution site. Padding defaults to (k - 1) // 2, `mid` to the kind's own rule."""
        c_in = self.size(x).c
        if c_in % groups or out % groups:
            raise SpecError(f"{self._place(name)}: {groups} groups do not divide {c_in} and {out} channels")
        inner = 0
        if is_factorised(kind, kernel):
            inner = out if kind == "separable" else mid or matched_mid(c_in, out, kernel)
            if inner % groups:
                raise SpecError(f"{self._place(name)}: {groups} groups do not divide {inner} channels inside; set mid")
        t, h, w = kernel
        padding = padding or ((t - 1) // 2, (h - 1) // 2, (w - 1) // 2)
        op = Conv(out, kernel, stride, padding, kind, inner, groups, bias, self.norm_rule, act or Act())
        return self.add(name, op, x)

    def norm(self, name: str, x: str) -> str:
        """Batch normalisation by the spec's rule."""
        return self.add(name, self.norm_rule, x)

    def act(self, name: str, x: str, act: Act | None = None) -> str:
        """A non-linearity, ReLU by default."""
        return self.add(name, act or Act(), x)

    def pool(self, name: str, x: str, op: Pool) -> str:
        """Max or average pooling. Raises SpecError where padding is more than half the kernel."""
        if any(2 * pad > side for pad, side in zip(op.padding, op.kernel, strict=True)):
            raise SpecError(f"{self._place(name)}: padding {op.padding} is more than half of kernel {op.kernel}")
        return self.add(name, op, x)

    def mean(self, name: str, x: str) -> str:
        """The mean over all places."""
        return self.add(name, Mean(), x)

    def gate(self, name: str, x: str, gate: Gate) -> str:
        """A feature gate."""
        return self.add(name, gate, x)

    def pad(self, name: str, x: str, out: int, stride: Triple) -> str:
        """The parameter-free shortcut."""
        return self.add(name, Pad(out, stride), x)

    def join(self, name: str, *inputs: str) -> str:
        """The sum of two branches."""
        return self.add(name, Add(), *inputs)

    def concat(self, name: str, *inputs: str) -> str:
        """Branches behind each other along the channels."""
        return self.add(name, Concat(), *inputs)

    def dropout(self, name: str, x: str, p: float) -> str:
        """Dropout, or nothing where p is 0."""
        return self.add(name, Dropout(p), x) if p else x

    def linear(self, name: str, x: str, out: int) -> str:
        """A linear map over channels."""
        return self.add(name, Linear(out), x)

    def _place(self, name: str) -> str:
        stage, _, site = name.partition(".")
        return f"{self.source}, stage {stage}{f', {site}' if site else ''}"


def _window(op: Op) -> str:
    if isinstance(op, Conv | Pool):
        return f"kernel {'x'.join(map(str, op.kernel))} with stride {'x'.join(map(str, op.stride))}"
    return type(op).__name__.lower()
