"""Which channels of a network an altered one's channels are: what the transfer walk carries from node to node."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

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

    def equals(self, other: "Channels") -> bool:
        """Whether both are the same copies of as many."""
        return self.old == other.old and np.array_equal(self.source, other.source)


class Wiring(NamedTuple):
    """What each weight of a new layer, (out, in / groups), takes of the old one's: row, column, and how much of it."""

    rows: Indices
    columns: Indices
    shares: NDArray[np.float64]
    exact: bool  # whether each row finds all that its old one read


def wiring(gives: Channels, reads: Channels, old_groups: int = 1, groups: int = 1) -> Wiring:
    """How a layer follows its channels. A weight is shared among the copies, within a group, of what it reads."""
    width, old_width = len(reads.source) // groups, reads.old // old_groups
    source = reads.source.reshape(groups, width)
    keys = np.arange(groups)[:, None] * (reads.old + 1) + source + 1
    shares = np.where(source >= 0, 1 / np.bincount(keys.ravel())[keys], 0.0)
    rows = gives.source.clip(0)[:, None]
    start = rows // (max(gives.old, old_groups) // old_groups) * old_width if old_groups > 1 else np.zeros((1, 1), int)
    block = np.arange(len(rows)) // (len(rows) // groups) if groups > 1 else np.zeros(1, int)
    columns, shares = source[block] - start, shares[block]
    inside = (columns >= 0) & (columns < old_width)
    shares = np.where(inside, shares, 0.0)
    found = np.broadcast_to(shares.sum(1), (len(rows),))[gives.source >= 0]
    return Wiring(rows, np.where(inside, columns, 0), shares, bool(np.isclose(found, old_width).all()))


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


def inner_channels(old: Conv, new: Conv, reads: Channels, choose: Callable[[int], Indices] = np.arange) -> Channels:
    """Between the halves of a site: of the channels it reads, where each stands alone; else as many as there are."""
    alone = old.groups == reads.old == old.out and new.groups == len(reads.source) == new.out > 1
    if alone and old.mid // old.groups == new.mid // new.groups:
        each = old.mid // old.groups
        return Channels((reads.source[:, None] * each + np.arange(each)).ravel(), old.mid)
    return resized([], old.mid, new.mid, lambda _, __, count: choose(count))
