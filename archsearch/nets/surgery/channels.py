"""Which channels of a network an altered one's channels are: what the transfer walk carries from node to node."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from archsearch.spec.graph import Add, Concat, Conv, Flatten, Graph, Input, Linear, Lstm, Node, Pad, Size

Indices = NDArray[np.intp]
Choose = Callable[[list[str], int, int], Indices]  # old nodes, their channels, how many to keep -> which, ascending


@dataclass(frozen=True)
class Channels:
    """`source[j]` is the old channel that new channel j copies, -1 where it is none; `old` is how many there were."""

    source: Indices
    old: int

    @property
    def same(self) -> bool:
        """Whether nothing changed."""
        return len(self.source) == self.old and bool((self.source == np.arange(self.old)).all())

    @property
    def covers(self) -> bool:
        """Whether every old channel is still there."""
        return len(np.unique(self.source[self.source >= 0])) == self.old

    @property
    def shares(self) -> NDArray[np.float64]:
        """What each new channel's reader takes of the old one's weight: 1 over its copies, 0 for a new channel."""
        copies = np.bincount(self.source[self.source >= 0], minlength=max(self.old, 1))
        return np.where(self.source >= 0, 1 / np.maximum(copies[self.source], 1), 0.0)


def same_channels(count: int) -> Channels:
    """Nothing changed."""
    return Channels(np.arange(count), count)


def no_channels(count: int) -> Channels:
    """None of them was there."""
    return Channels(np.full(count, -1), 0)


def resized(names: list[str], old: int, new: int, choose: Choose) -> Channels:
    """As many as before; or copies behind the old ones (Net2Wider, Chen et al. 2016); or the chosen ones."""
    if new >= old:
        return Channels(np.arange(new) % old, old)
    return Channels(choose(names, old, new), old)


def first_channels(names: list[str], old: int, new: int) -> Indices:
    """The first ones: a choice without weights to judge by."""
    return np.arange(new)


def joined_groups(graph: Graph) -> dict[str, str]:
    """Node -> group of nodes whose channels are the same: through norms, acts, depthwise convolutions and sums."""
    parent = {name: name for name in graph.nodes}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for node in graph.nodes.values():
        if not makes_channels(node, graph):
            reads = node.inputs if isinstance(node.op, Add) else node.inputs[:1]
            for read in reads:
                parent[root(node.name)] = root(read)
    return {name: root(name) for name in graph.nodes}


def makes_channels(node: Node, graph: Graph) -> bool:
    """Whether a node's channels are its own, and not those that it reads."""
    if isinstance(node.op, Conv):
        return not is_depthwise(node.op, graph.input_sizes(node)[0])
    return isinstance(node.op, Input | Linear | Lstm | Concat | Flatten | Pad)


def is_depthwise(op: Conv, read: Size) -> bool:
    """Whether each channel is convolved on its own."""
    return op.groups == read.c == op.out and op.groups > 1


def group_channels(
    old: Graph, new: Graph, counterpart: Mapping[str, str | None], choose: Choose
) -> dict[str, Channels]:
    """The channels of each group of the new network whose makers have counterparts of one width."""
    groups = joined_groups(new)
    makers: dict[str, list[str]] = {}
    for node in new.nodes.values():
        theirs = counterpart.get(node.name)
        if theirs and isinstance(node.op, Conv | Linear | Lstm) and makes_channels(node, new):
            makers.setdefault(groups[node.name], []).append(theirs)
    found = {}
    for group, names in makers.items():
        widths = {old.nodes[name].size.c for name in names}
        count = new.nodes[group].size.c
        found[group] = resized(names, widths.pop(), count, choose) if len(widths) == 1 else no_channels(count)
    return {name: found[group] for name, group in groups.items() if group in found}
