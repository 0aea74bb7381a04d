"""Which old node each node of a new network is, which of its channels, and what is new and changes nothing."""

from collections.abc import Mapping

import numpy as np

from archsearch.nets.surgery.channels import (
    Channels,
    Choose,
    group_channels,
    makes_channels,
    no_channels,
)
from archsearch.spec.graph import (
    Act,
    Add,
    Concat,
    Conv,
    Dropout,
    Flatten,
    Gate,
    Graph,
    Input,
    Linear,
    Lstm,
    Node,
    Norm,
    Pad,
    Pool,
    Scale,
    Shift,
)

Rename = Mapping[str, str | None]  # a block or stage of the new network -> the old one's, None for a new one


class Matching:
    """Old and new graph side by side; `channels` fills as the walk meets nodes."""

    def __init__(self, old: Graph, new: Graph, rename: Rename, choose: Choose) -> None:
        self.old, self.new = old, new
        self.names = {name: self._counterpart(name, rename) for name in new.nodes}
        self.groups = group_channels(old, new, self.names, choose)
        self.channels: dict[str, Channels] = {}
        self.readers: dict[str, list[Node]] = {}
        for node in new.nodes.values():
            for read in node.inputs:
                self.readers.setdefault(read, []).append(node)
        self.doubled = {norm for node in new.nodes.values() if (norm := self.norm_of_new_gate(node))}
        self.zeroed = {name for node in new.nodes.values() if (name := self._end_of_new_block(node))}

    def _counterpart(self, name: str, rename: Rename) -> str | None:
        """The old node of that name, of the same type."""
        theirs: str | None = name
        for prefix, other in rename.items():
            if name == prefix or name.startswith(f"{prefix}."):
                theirs = None if other is None else other + name.removeprefix(prefix)
        node = self.old.nodes.get(theirs) if theirs is not None else None
        same = node is not None and type(node.op) is type(self.new.nodes[name].op)
        return theirs if same else None

    def old_reads(self, theirs: str) -> int:
        """How many channels an old node reads."""
        return self.old.input_sizes(self.old.nodes[theirs])[0].c

    # --- channels

    def follow(self, node: Node) -> Channels:
        """The channels of a node whose inputs were met before; keeps them."""
        self.channels[node.name] = found = self._channels(node)
        return found

    def _channels(self, node: Node) -> Channels:
        if isinstance(node.op, Input):
            theirs = self.names[node.name]
            old = self.old.nodes[theirs].size.c if theirs else 0
            return Channels(np.arange(node.size.c) % old, old) if old else no_channels(node.size.c)
        if isinstance(node.op, Concat):
            return self._joined(node)
        if isinstance(node.op, Flatten):
            return self._flattened(node)
        if isinstance(node.op, Conv | Linear | Lstm | Pad | Add) and node.name in self.groups:
            return self.groups[node.name]
        if makes_channels(node, self.new):
            return no_channels(node.size.c)
        return self.channels[node.inputs[0]]

    def _joined(self, node: Node) -> Channels:
        """Behind each other, in the old network's numbering."""
        start, sources = 0, []
        for read in node.inputs:
            part = self.channels[read]
            sources.append(np.where(part.source >= 0, part.source + start, -1))
            start += part.old
        return Channels(np.concatenate(sources), start)

    def _flattened(self, node: Node) -> Channels:
        """Each channel at each place, channels first; where the places changed nothing is known."""
        read, size = self.channels[node.inputs[0]], self.new.input_sizes(node)[0]
        theirs = self.names[node.name]
        before = self.old.input_sizes(self.old.nodes[theirs])[0] if theirs else None
        if before is None or before[1:] != size[1:]:
            return no_channels(node.size.c)
        places = size.t * size.h * size.w
        source = np.where(read.source[:, None] >= 0, read.source[:, None] * places + np.arange(places), -1)
        return Channels(source.ravel(), read.old * places)

    def fits(self, node: Node, theirs: str) -> bool:
        """Whether the channels a node reads and gives are numbered as its counterpart's."""
        reads, gives = self.channels[node.inputs[0]], self.channels[node.name]
        if isinstance(node.op, Conv | Linear | Lstm):
            known = gives.old == self.old.nodes[theirs].size.c and bool((gives.source >= 0).any())
            grouped = getattr(self.old.nodes[theirs].op, "groups", 1) > 1
            if not known or (grouped and reads.old != self.old_reads(theirs)):
                return False
        return 0 < reads.old <= self.old_reads(theirs)

    # --- what is new and changes nothing

    def norm_of_new_gate(self, node: Node) -> str | None:
        """The norm whose doubling makes up for a new, half open gate."""
        if not isinstance(node.op, Gate) or self.names[node.name] is not None:
            return None
        behind = self.new.nodes[node.inputs[0]]
        while isinstance(behind.op, Act) and behind.op.fn == "relu" and len(self.readers[behind.name]) == 1:
            behind = self.new.nodes[behind.inputs[0]]
        alone = len(self.readers[behind.name]) == 1
        known = self.names[behind.name] is not None
        return behind.name if isinstance(behind.op, Norm) and alone and known else None

    def _end_of_new_block(self, node: Node) -> str | None:
        """The node that has to give zeros for a new block to add nothing: its last norm, convolution or factor."""
        if not isinstance(node.op, Add) or node.op.mean or self.names[node.name] is not None or len(node.inputs) != 2:
            return None
        skip, end = (self.new.nodes[read] for read in node.inputs)
        block = f"{node.name.rpartition('.')[0]}."
        acts = [act.op for act in self.readers.get(node.name, []) if act.name.startswith(block)]
        if skip.name.startswith(block) or (acts and not (acts == [Act("relu")] and self.is_positive(skip))):
            return None  # the shortcut is no identity, or the act behind the sum would change what comes through it
        while isinstance(end.op, Gate):
            end = self.new.nodes[end.inputs[0]]
        return end.name if isinstance(end.op, Norm | Conv | Scale) else None

    def is_positive(self, node: Node) -> bool:
        """Whether a ReLU would change nothing of what a node gives."""
        if isinstance(node.op, Pool | Gate | Dropout | Shift | Pad | Add | Concat):
            return all(self.is_positive(self.new.nodes[read]) for read in node.inputs)
        return node.op == Act("relu")

    def adds_nothing(self, node: Node) -> bool:
        """Whether a node is of a new block that adds nothing at first."""
        block = f"{node.name.rpartition('.')[0]}."
        return any(name.startswith(block) for name in self.zeroed)

    def is_identity_skip(self, node: Node) -> bool:
        """Whether a new pointwise shortcut only has to hand on what the old network's identity did."""
        if not isinstance(node.op, Conv) or node.op.kernel != (1, 1, 1) or not node.name.endswith(".skip"):
            return False
        reads, gives = self.channels[node.inputs[0]], self.channels[node.name]
        return node.op.stride == (1, 1, 1) and reads.old == gives.old and reads.covers

    def is_norm_of_identity_skip(self, node: Node) -> bool:
        """Whether a new norm stands behind such a shortcut."""
        before = self.new.nodes[node.inputs[0]]
        return isinstance(node.op, Norm) and self.names[before.name] is None and self.is_identity_skip(before)

    def is_unread(self, node: Node) -> bool:
        """Whether all that comes of a node ends as new channels of a concat, of which its readers take nothing."""
        readers = self.readers.get(node.name, [])
        return bool(readers) and all(self._takes_nothing(reader, node) for reader in readers)

    def _takes_nothing(self, reader: Node, node: Node) -> bool:
        if isinstance(reader.op, Concat):
            return bool((self._channels_of(node).source < 0).all())
        if isinstance(reader.op, Add):
            return False
        if makes_channels(reader, self.new) and not bool((self._channels_of(reader).source < 0).all()):
            return False
        return self.is_unread(reader)

    def _channels_of(self, node: Node) -> Channels:
        """The channels of a node that the walk may not have met yet."""
        return self.channels.get(node.name) or self.groups.get(node.name) or no_channels(node.size.c)

    def is_silent(self, node: Node) -> bool:
        """Whether a new node without weights changes nothing, or what does is told of the sites beside it."""
        if isinstance(node.op, Dropout) or self.adds_nothing(node) or self.is_unread(node):
            return True
        if isinstance(node.op, Concat) and all((self.channels[read].source < 0).all() for read in node.inputs[1:]):
            return True
        return node.op == Act("relu") and self.is_positive(self.new.nodes[node.inputs[0]])
