"""The sites of a network: what of it runs together, known by everything that its time depends on.

A site is one node that computes, with what follows it alone and pointwise: `conv norm act`, `add act`, `mean linear`.
Two sites with the same key take the same time, in whatever networks they stand. Nothing here imports torch.
"""

from collections import Counter
from typing import NamedTuple

from archsearch.spec.cost import FLOAT_BYTES, total_cost
from archsearch.spec.graph import (
    Act,
    Conv,
    Dropout,
    Flatten,
    Graph,
    Input,
    Linear,
    Node,
    Norm,
    Op,
    Pool,
    Scale,
    Size,
    output_size,
)
from archsearch.spec.spec import op_text

FOLLOWERS = (Norm, Act, Scale, Flatten, Linear)  # run with the node they read, where they are its only reader


class Site(NamedTuple):
    """Operations that run behind each other; `clip` where the first one reads an input of the network."""

    ops: tuple[Op, ...]
    reads: tuple[Size, ...]
    clip: bool = False

    @property
    def kind(self) -> str:
        """`conv 3d, norm, act`: sites of one kind differ in sizes alone."""
        return ", ".join(f"{type(op).__name__.lower()}{_kernel(op)}" for op in self.ops)

    @property
    def key(self) -> str:
        """What the site is known by in a table: its sizes, then its operations."""
        sizes = " ".join(map(str, self.reads))
        return f"{'clip ' if self.clip else ''}{sizes}: {' '.join(map(op_text, self.ops))}"

    @property
    def graph(self) -> Graph:
        """The site alone, as a network of its own."""
        nodes = {f"read{place}": Node(f"read{place}", Input(size), (), size) for place, size in enumerate(self.reads)}
        reads, sizes = tuple(nodes), list(self.reads)
        for place, op in enumerate(self.ops):
            size = output_size(op, sizes)
            nodes[f"op{place}"] = Node(f"op{place}", op, reads, size)
            reads, sizes = (f"op{place}",), [size]
        return Graph(nodes, {})

    @property
    def features(self) -> tuple[int, ...]:
        """What sites of a kind are near each other by: macs, bytes, the size read, the size given, the kernel.

        Bytes are of the weights and of each map read or written, in float32; both at batch 1. No macs count as bytes.
        """
        graph, op = self.graph, self.ops[0]
        cost = total_cost(graph)
        maps = sum(node.size.elements * (1 if isinstance(node.op, Input) else 2) for node in graph.nodes.values())
        moved = FLOAT_BYTES * (cost.params + maps)
        kernel = op.kernel if isinstance(op, Conv | Pool) else (1, 1, 1)
        return (cost.macs or moved, moved, *self.reads[0], *graph.output.size, *kernel)


def _kernel(op: Op) -> str:
    if not isinstance(op, Conv):
        return ""
    depth = " depthwise" if op.groups > 1 and op.groups == op.out else " grouped" if op.groups > 1 else ""
    return " point" if max(op.kernel) == 1 else f" {op.kind}{depth}"


def sites(graph: Graph) -> list[Site]:
    """The sites of a network in the order in which they run; a network of three equal blocks names theirs thrice."""
    readers = Counter(read for node in graph.nodes.values() for read in node.inputs)
    owner: dict[str, int] = {}  # the number of the site whose last node it is
    found: list[tuple[list[Op], tuple[str, ...]]] = []
    same: dict[str, str] = {}  # what does nothing in inference, by what stands for it
    for node in graph.nodes.values():
        reads = tuple(same.get(read, read) for read in node.inputs)
        if isinstance(node.op, Dropout):
            same[node.name] = reads[0]
            readers[reads[0]] += readers[node.name] - 1
        elif isinstance(node.op, FOLLOWERS) and reads[0] in owner and readers[reads[0]] == 1:
            owner[node.name] = owner.pop(reads[0])
            found[owner[node.name]][0].append(_timed(node.op))
        elif not isinstance(node.op, Input):
            owner[node.name] = len(found)
            found.append(([_timed(node.op)], reads))
    nodes = graph.nodes
    return [
        Site(tuple(ops), tuple(nodes[read].size for read in reads), isinstance(nodes[reads[0]].op, Input))
        for ops, reads in found
    ]


def _timed(op: Op) -> Op:
    """The operation without what its time does not depend on."""
    if isinstance(op, Norm):
        return Norm()
    return op._replace(norm=Norm()) if isinstance(op, Conv) else op
