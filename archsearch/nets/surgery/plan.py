"""The plan of an operation: what each site of the new network gets from the old one, and whether that is exact.

A walk over the new graph that carries channel maps. It needs no weights, but for the channels to keep where a network
becomes narrower.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from archsearch.errors import SurgeryError
from archsearch.nets.surgery.channels import (
    Channels,
    Choose,
    first_channels,
    group_channels,
    is_depthwise,
    makes_channels,
    no_channels,
    same_channels,
)
from archsearch.spec.graph import (
    Act,
    Add,
    Concat,
    Conv,
    Flatten,
    Gate,
    Graph,
    Input,
    Linear,
    Lstm,
    Node,
    Norm,
    Op,
    Pad,
    Scale,
    parts,
)
from archsearch.spec.spec import Spec, lower

Verdict = Literal["kept", "exact", "approximate", "new", "removed"]
Rename = Mapping[str, str | None]  # a block or stage of the new network -> the old one's, None for a new one
Inflate = Literal["centre", "mean"]  # what a 2D kernel becomes in 3D: its centre tap, or all taps alike
STATEFUL = Conv | Norm | Gate | Linear | Lstm | Scale
LEAST_SHARED = 0.2  # of the sites: networks with less in common are of unrelated families


@dataclass(frozen=True)
class Edit:
    """One site of the new network: where it comes from, whether outputs stay the same through it, and how."""

    site: str
    old: str | None
    verdict: Verdict
    how: str

    @property
    def exact(self) -> bool:
        """Whether the network's outputs stay the same, in evaluation, as far as this site goes."""
        return self.verdict in ("kept", "exact")


@dataclass(frozen=True)
class Step:
    """An edit, with all that the transfer needs to carry it out."""

    edit: Edit
    op: Op
    old_op: Op | None
    reads: Channels
    gives: Channels
    rule: str = "copy"
    doubled: bool = False  # a norm before a gate that lets half through


def plan(old: Spec, new: Spec, rename: Rename | None = None, inflate: Inflate = "centre") -> list[Edit]:
    """What becomes of each site, in the order of the new network; then what the old one had besides.

    Raises SurgeryError for networks of unrelated families.
    """
    return [step.edit for step in steps(old, new, rename or {}, inflate=inflate)]


def steps(
    old: Spec, new: Spec, rename: Rename, choose: Choose = first_channels, inflate: Inflate = "centre"
) -> list[Step]:
    """The plan with what the transfer needs."""
    before, after = lower(old), lower(_on_clip_of(old, new))
    walk = _Walk(before, after, rename, choose, inflate)
    found = walk.steps()
    sites = [step for step in found if isinstance(step.op, Conv)]
    shared = sum(step.edit.old is not None for step in sites)
    if shared < max(1, LEAST_SHARED * len(sites)):
        raise SurgeryError(f"{new.name}: {shared} of {len(sites)} sites are also in {old.name}; not of one family")
    return found + walk.removed()


def _on_clip_of(old: Spec, new: Spec) -> Spec:
    """The new network for the old one's clips, where it takes them: the clip's size is no change of weights."""
    sizes, theirs = new.inputs, old.inputs
    if sizes.keys() != theirs.keys():
        return new
    clips = {name: (size.c, *theirs[name][1:]) for name, size in sizes.items()}
    moved = new.model_copy(update={"clip": clips if isinstance(new.clip, Mapping) else clips["clip"]})
    try:
        lower(moved)
    except Exception:
        return new
    return moved


class _Walk:
    """One pass over the new graph; `channels` is what it carries."""

    def __init__(self, old: Graph, new: Graph, rename: Rename, choose: Choose, inflate: Inflate) -> None:
        self.old, self.new, self.inflate = old, new, inflate
        self.names = {name: self._counterpart(name, rename) for name in new.nodes}
        self.groups = group_channels(old, new, self.names, choose)
        self.channels: dict[str, Channels] = {}
        self.readers: dict[str, list[Node]] = {}
        for node in new.nodes.values():
            for read in node.inputs:
                self.readers.setdefault(read, []).append(node)
        self.identities: set[str] = set()  # norms that were absorbed by the site before them
        self.doubled = {norm for node in new.nodes.values() if (norm := self._norm_of_new_gate(node))}
        self.zeroed = {name for node in new.nodes.values() if (name := self._end_of_new_block(node))}

    def steps(self) -> list[Step]:
        """A step for every node that has state or is not as it was."""
        found = []
        for node in self.new.nodes.values():
            self.channels[node.name] = self._channels(node)
            step = self._step(node)
            if step is not None:
                found.append(step)
        return found

    def removed(self) -> list[Step]:
        """What the old network had and the new one has not: whole blocks by their name, other sites by theirs."""
        kept = set(self.names.values())
        alive = {name.rpartition(".")[0] for name in kept if name is not None}
        sites: dict[str, Node] = {}
        for node in self.old.nodes.values():
            block = node.name.rpartition(".")[0]
            if node.name not in kept and isinstance(node.op, STATEFUL | Pad):
                sites.setdefault(node.name if block in alive else block, node)
        nothing = no_channels(0)
        return [
            Step(Edit(name, name, "removed", ""), node.op, node.op, nothing, nothing, "none")
            for name, node in sites.items()
        ]

    def _counterpart(self, name: str, rename: Rename) -> str | None:
        """The old node of that name, of the same type."""
        theirs: str | None = name
        for prefix, other in rename.items():
            if name == prefix or name.startswith(f"{prefix}."):
                theirs = None if other is None else other + name.removeprefix(prefix)
        node = self.old.nodes.get(theirs) if theirs is not None else None
        same = node is not None and type(node.op) is type(self.new.nodes[name].op)
        return theirs if same else None

    # --- channels

    def _channels(self, node: Node) -> Channels:
        if isinstance(node.op, Input):
            theirs = self.names[node.name]
            old = self.old.nodes[theirs].size.c if theirs else 0
            return (
                same_channels(node.size.c)
                if old == node.size.c
                else Channels(np.arange(node.size.c) % max(old, 1), old)
            )
        if isinstance(node.op, Concat):
            return self._joined(node)
        if isinstance(node.op, Flatten):
            return self._flattened(node)
        if isinstance(node.op, Conv | Linear | Lstm | Pad | Add) and node.name in self.groups:
            return self.groups[node.name]
        if isinstance(node.op, Conv | Linear | Lstm | Pad) and not self._is_depthwise(node):
            return no_channels(node.size.c)
        return self.channels[node.inputs[0]]

    def _is_depthwise(self, node: Node) -> bool:
        return isinstance(node.op, Conv) and is_depthwise(node.op, self.new.input_sizes(node)[0])

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

    # --- verdicts

    def _step(self, node: Node) -> Step | None:
        theirs = self.names[node.name]
        reads = self.channels[node.inputs[0]] if node.inputs else no_channels(0)
        gives = self.channels[node.name]
        old_op = self.old.nodes[theirs].op if theirs else None
        base = Step(Edit(node.name, theirs, "new", _word(node.op)), node.op, old_op, reads, gives, "fresh")
        if not isinstance(node.op, STATEFUL):
            return self._stateless(node, base)
        if theirs is None or not self._reads_fit(node, theirs, reads):
            return self._new(node, base)
        if isinstance(node.op, Conv):
            return self._conv(node, base)
        if isinstance(node.op, Norm):
            return self._norm(node, base)
        return self._dense(node, base)

    def _reads_fit(self, node: Node, theirs: str, reads: Channels) -> bool:
        """Whether what a node reads is numbered as its counterpart's input."""
        return 0 < reads.old <= self.old.input_sizes(self.old.nodes[theirs])[0].c

    def _covers(self, theirs: str, reads: Channels) -> bool:
        return reads.covers and reads.old == self.old.input_sizes(self.old.nodes[theirs])[0].c

    def _stateless(self, node: Node, base: Step) -> Step | None:
        """Nothing to say where it is as it was, or belongs to a new block."""
        if base.old_op is None or base.old_op == node.op or isinstance(node.op, Input | Add | Concat | Flatten):
            same_size = base.edit.old is None or self.old.nodes[base.edit.old].size.c == node.size.c
            if isinstance(node.op, Input) and not same_size:
                old = self.channels[node.name].old
                return _verdict(base, "approximate", f"{old} -> {node.size.c} input channels", "none")
            return None
        if isinstance(node.op, Pad) and isinstance(base.old_op, Pad) and node.op.stride == base.old_op.stride:
            return _verdict(base, "approximate", "wider or narrower shortcut", "none")
        return _verdict(
            base, "approximate", f"{_word(base.old_op)} -> {_word(node.op)}: {_changed(base.old_op, node.op)}", "none"
        )

    def _new(self, node: Node, base: Step) -> Step:
        """Nothing to copy: in a block that adds nothing at first, as a gate that lets half through, or from scratch."""
        if node.name in self.zeroed:
            return _verdict(base, "exact", "new block that adds nothing at first", "zero")
        block = node.name.rpartition(".")[0]
        if any(name.startswith(f"{block}.") for name in self.zeroed):
            return _verdict(base, "exact", f"new {_word(node.op)}, in a block that adds nothing at first", "fresh")
        if isinstance(node.op, Gate):
            if self._norm_of_new_gate(node):
                return _verdict(base, "exact", "new gate, half open; the norm before it is doubled", "half")
            return _verdict(base, "approximate", "new gate, half open", "half")
        if self._is_identity_skip(node, base.reads, base.gives):
            return _verdict(base, "exact", "identity as a convolution", "skip")
        if isinstance(node.op, Norm) and self._after_identity_skip(node):
            return _verdict(base, "exact", "norm that changes nothing", "identity")
        if self._unread(node):
            return _verdict(base, "exact", f"new {_word(node.op)}, which nothing reads at first", "fresh")
        return _verdict(base, "new", f"new {_word(node.op)}, from scratch", "fresh")

    def _norm(self, node: Node, base: Step) -> Step:
        doubled = node.name in self.doubled
        if node.name in self.identities:
            words = "identity: the site before it took it over"
            return replace(_verdict(base, "exact", words, "identity"), doubled=doubled)
        if not isinstance(base.old_op, Norm) or base.old_op.eps != base.op.eps:  # type: ignore[union-attr]
            return _verdict(base, "approximate", "another eps", "copy")
        if doubled:
            return replace(_verdict(base, "exact", "doubled, for the gate behind it", "copy"), doubled=True)
        return _verdict(base, "kept" if base.reads.same else "exact", _resized(base.reads), "copy")

    def _dense(self, node: Node, base: Step) -> Step:
        """Linear layers, gates, LSTMs, factors."""
        theirs = self.names[node.name] or ""
        assert base.old_op is not None
        if isinstance(node.op, Linear) and isinstance(base.old_op, Linear):
            return self._linear(node, base, theirs, base.old_op)
        exact = self._covers(theirs, base.reads)
        if base.old_op != node.op and not _same_but(base.old_op, node.op, {"hidden"}):
            return _verdict(base, "approximate", _changed(base.old_op, node.op), "copy")
        if getattr(base.old_op, "hidden", 0) != getattr(node.op, "hidden", 0):
            grown = getattr(node.op, "hidden", 0) >= getattr(base.old_op, "hidden", 0) > 0 and isinstance(node.op, Gate)
            if not grown:
                return _verdict(base, "approximate", _changed(base.old_op, node.op), "copy")
        verdict: Verdict = "kept" if base.reads.same and base.old_op == node.op else "exact" if exact else "approximate"
        return _verdict(base, verdict, _resized(base.reads), "copy")

    def _linear(self, node: Node, base: Step, theirs: str, old: Linear) -> Step:
        op = node.op
        assert isinstance(op, Linear)
        if old.out != op.out and not self.readers.get(node.name):
            return _verdict(base, "new", f"{old.out} -> {op.out} classes: a fresh classifier", "fresh")
        if old.out != op.out and node.name.endswith(".linear"):
            return _verdict(base, "new", f"{old.out} -> {op.out} classes: a fresh classifier", "fresh")
        if old.bias != op.bias:
            return _verdict(base, "approximate", _changed(old, op), "copy")
        exact = self._covers(theirs, base.reads)
        verdict: Verdict = "kept" if base.reads.same and base.gives.same else "exact" if exact else "approximate"
        return _verdict(base, verdict, _resized(base.reads, base.gives), "copy")

    def _conv(self, node: Node, base: Step) -> Step:
        """A convolution site: what its kernel becomes, and whether its inputs are all there."""
        old, op = base.old_op, node.op
        assert isinstance(old, Conv)
        assert isinstance(op, Conv)
        rule, exact, words = self._kernel(node, old, op)
        if rule == "absorb":
            (norm,) = self.readers[node.name]
            self.identities.add(norm.name)
        notes = [words] if words else []
        if old.stride != op.stride:
            exact = False
            notes.append(f"stride {_sides(old.stride)} -> {_sides(op.stride)}")
        elif rule == "copy" and (old.padding, old.extra) != (op.padding, op.extra) and old.kernel == op.kernel:
            exact = False
            notes.append("another padding")
        if old.groups != op.groups and not self._is_depthwise(node):
            fewer = old.groups % op.groups == 0 and base.reads.same and base.gives.same
            exact &= fewer
            notes.append(f"{old.groups} -> {op.groups} groups")
        if old.bias != op.bias:
            exact &= op.bias
            notes.append("bias added" if op.bias else "bias removed")
        theirs = self.names[node.name] or ""
        if not self._covers(theirs, base.reads):
            exact = False
        if not (base.reads.same and base.gives.same):
            notes.append(_resized(base.reads, base.gives))
            if old.groups > 1 and not self._is_depthwise(node):
                exact = False
        if rule == "copy" and not notes and old.mid == op.mid:
            return _verdict(base, "kept", "", rule)
        if rule == "copy" and old.mid != op.mid:
            notes.append(f"{old.mid} -> {op.mid} inner channels")
            exact &= op.mid >= old.mid
        return _verdict(base, "exact" if exact else "approximate", "; ".join(notes), rule)

    def _kernel(self, node: Node, old: Conv, op: Conv) -> tuple[str, bool, str]:
        """How a kernel becomes the other: (rule, whether that is exact, words)."""
        c_old = self.old.input_sizes(self.old.nodes[self.names[node.name] or ""])[0].c
        was, now = parts(old, c_old), parts(op, self.new.input_sizes(node)[0].c)
        change = f"{old.kind} -> {op.kind}" if old.kind != op.kind else ""
        if len(was) == len(now) == 2:
            if old.first != op.first or old.kernel != op.kernel:
                return "effective", False, f"{change or 'another order or kernel'}, through the whole kernel"
            return "copy", old.act == op.act and old.norm.eps == op.norm.eps, change
        if len(was) == len(now) == 1:
            return self._plain(was[0], now[0], change)
        if len(was) == 2:
            return "effective", False, f"{change}, the two halves multiplied"
        if was[0].kernel[0] > 1:
            return "split", False, f"{change}, halves fitted to the kernel"
        if was[0].kernel[1:] != now[0].kernel[1:] and was[0].kernel[1:] != now[1].kernel[1:]:
            return "split", False, f"{change}, another kernel"
        if self._followed_by_norm_and_relu(node, op):
            return "absorb", True, f"{change}, the centre tap after norm and act"
        if op.mid >= 2 * op.out and op.act.fn == "relu" and op.first == "space" and op.groups == 1:
            return "signs", True, f"{change}, the centre tap of both signs"
        return "split", False, f"{change}, the centre tap behind an activation"

    def _plain(self, was: Any, now: Any, change: str) -> tuple[str, bool, str]:
        """One convolution becomes another one."""
        if was.kernel == now.kernel:
            return "copy", True, change
        sizes = f"kernel {_sides(was.kernel)} -> {_sides(now.kernel)}"
        words = change or sizes
        if all(a <= b for a, b in zip(was.kernel, now.kernel, strict=True)):
            grown = zip(was.kernel, now.kernel, was.padding, now.padding, strict=True)
            if self.inflate == "mean" and was.kernel[0] == 1 < now.kernel[0] and was.kernel[1:] == now.kernel[1:]:
                return "inflate", False, f"{words}, repeated over time and divided by {now.kernel[0]}"
            centred = all((b - a) % 2 == 0 and q - p == (b - a) // 2 for a, b, p, q in grown)
            return "centre", centred and was.extra == now.extra, f"{words}, the centre tap"
        if now.kernel[0] < was.kernel[0] and now.kernel[1:] == was.kernel[1:]:
            return "sum", False, f"{words}, summed over time"
        return "sum", False, f"{words}, cut to the centre"

    def _followed_by_norm_and_relu(self, node: Node, op: Conv) -> bool:
        """Whether norm and ReLU, and nothing else, read a site, so that both may stand inside it."""
        behind = self.readers.get(node.name, [])
        if len(behind) != 1 or not isinstance(behind[0].op, Norm) or op.act.fn != "relu":
            return False
        acts = self.readers.get(behind[0].name, [])
        kept = self.names.get(behind[0].name) is not None
        wide = op.mid >= op.out and op.first == "space" and op.groups == 1
        return len(acts) == 1 and acts[0].op == Act("relu") and kept and wide and not op.bias

    # --- what is new and changes nothing

    def _norm_of_new_gate(self, node: Node) -> str | None:
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
        """The node that has to give zeros for a new block to add nothing: its last norm, or convolution."""
        if not isinstance(node.op, Add) or node.op.mean or self.names[node.name] is not None or len(node.inputs) != 2:
            return None
        skip, end = (self.new.nodes[read] for read in node.inputs)
        block = f"{node.name.rpartition('.')[0]}."
        acts = [act.op for act in self.readers.get(node.name, []) if act.name.startswith(block)]
        if skip.name.startswith(block) or (acts and not (acts == [Act("relu")] == [skip.op])):
            return None  # the shortcut is no identity, or the act behind the sum would change what comes through it
        while isinstance(end.op, Gate | Scale):
            end = self.new.nodes[end.inputs[0]]
        return end.name if isinstance(end.op, Norm | Conv) else None

    def _is_identity_skip(self, node: Node, reads: Channels, gives: Channels) -> bool:
        """Whether a new pointwise shortcut only has to hand on what the old network's identity did."""
        if not isinstance(node.op, Conv) or node.op.kernel != (1, 1, 1) or not node.name.endswith(".skip"):
            return False
        return node.op.stride == (1, 1, 1) and reads.old == gives.old and reads.covers

    def _after_identity_skip(self, node: Node) -> bool:
        before = self.new.nodes[node.inputs[0]]
        if self.names[before.name] is not None:
            return False
        reads = self.channels[before.inputs[0]]
        return self._is_identity_skip(before, reads, self.channels[before.name])

    def _unread(self, node: Node) -> bool:
        """Whether all that comes of a node ends as new channels of a concat, of which its readers take nothing."""
        readers = self.readers.get(node.name, [])
        return bool(readers) and all(self._takes_nothing(reader, node) for reader in readers)

    def _takes_nothing(self, reader: Node, node: Node) -> bool:
        if isinstance(reader.op, Concat):
            return bool((self.channels_of(node).source < 0).all())
        if isinstance(reader.op, Add):
            return False
        if makes_channels(reader, self.new) and not bool((self.channels_of(reader).source < 0).all()):
            return False
        return self._unread(reader)

    def channels_of(self, node: Node) -> Channels:
        """The channels of a node that the walk may not have met yet."""
        return self.channels.get(node.name) or self.groups.get(node.name) or no_channels(node.size.c)


def _verdict(step: Step, verdict: Verdict, how: str, rule: str) -> Step:
    return replace(step, edit=replace(step.edit, verdict=verdict, how=how), rule=rule)


def _resized(*channels: Channels) -> str:
    """What became of the channels a site reads and gives."""
    words = []
    for name, found in zip(("reads", "gives"), channels, strict=False):
        if not found.same:
            words.append(f"{name} {found.old} -> {len(found.source)} channels")
    return ", ".join(words)


def _same_but(old: Op, new: Op, names: Iterable[str]) -> bool:
    fields = set(old.__slots__) - set(names)
    return all(getattr(old, name) == getattr(new, name) for name in fields)


def _changed(old: Op, new: Op) -> str:
    """The attributes that differ."""
    names = [name for name in old.__slots__ if getattr(old, name) != getattr(new, name, None)]
    return ", ".join(f"{name} {getattr(old, name)} -> {getattr(new, name)}" for name in names)


def _word(op: Op | None) -> str:
    return type(op).__name__.lower()


def _sides(triple: Iterable[int]) -> str:
    return "x".join(map(str, triple))
