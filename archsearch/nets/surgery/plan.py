"""The plan of an operation: what each site of the new network gets from the old one, and whether that is exact.

A walk over the new graph that carries channel maps, and which old node's value each node has. It needs no weights, but
for the channels to keep where a network becomes narrower.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from archsearch.errors import SpecError, SurgeryError
from archsearch.nets.surgery.channels import Channels, Choose, first_channels, inner_channels, no_channels, wiring
from archsearch.nets.surgery.kernels import Inflate as Inflate
from archsearch.nets.surgery.kernels import Kernel, kernel_change, sides
from archsearch.nets.surgery.matching import Matching
from archsearch.nets.surgery.matching import Rename as Rename
from archsearch.spec.graph import (
    Act,
    Add,
    Concat,
    Conv,
    Dropout,
    Flatten,
    Gate,
    Input,
    Linear,
    Lstm,
    Node,
    Norm,
    Op,
    Pad,
    Scale,
    Shift,
    attributes,
    parts,
)
from archsearch.spec.spec import Spec, lower
from archsearch.spec.tensors import tensor_shapes

Verdict = Literal["kept", "exact", "approximate", "new", "removed"]
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
    walk = _Walk(Matching(before, after, {**_other_kinds(old, new), **rename}, choose), inflate)
    found = walk.steps()
    sites = [step for step in found if isinstance(step.op, Conv)]
    shared = sum(step.edit.old is not None for step in sites)
    if shared < max(1, LEAST_SHARED * len(sites)):
        raise SurgeryError(f"{new.name}: {shared} of {len(sites)} sites are also in {old.name}; not of one family")
    return found + walk.removed()


def _other_kinds(old: Spec, new: Spec) -> dict[str, str | None]:
    """Stages of one name and of different kinds have nothing in common."""
    kinds = {stage.name: type(stage) for stage in old.stages}
    return {stage.name: None for stage in new.stages if kinds.get(stage.name, type(stage)) is not type(stage)}


def _on_clip_of(old: Spec, new: Spec) -> Spec:
    """The new network for the old one's clips, where it takes them: the clip's size is no change of weights."""
    inputs, theirs = new.inputs, old.inputs
    if inputs.keys() != theirs.keys():
        return new
    clips = {name: (size.c, *theirs[name][1:]) for name, size in inputs.items()}
    moved = new.model_copy(update={"clip": clips if isinstance(new.clip, Mapping) else clips["clip"]})
    try:
        same = tensor_shapes(lower(moved)) == tensor_shapes(lower(new))
    except SpecError:
        return new
    return moved if same else new


class _Walk:
    """One pass over the new graph."""

    def __init__(self, matching: Matching, inflate: Inflate) -> None:
        self.match, self.inflate = matching, inflate
        self.old, self.new, self.names = matching.old, matching.new, matching.names
        self.identities: set[str] = set()  # norms that were absorbed by the site before them
        self.stands: dict[str, str | None] = {}  # the old node whose value each node has, if every edit is exact
        self.told: set[tuple[str | None, str]] = set()  # (read, read before) of those that read something else

    def steps(self) -> list[Step]:
        """A step for every node that has state or is not as it was."""
        found = []
        for node in self.new.nodes.values():
            gives = self.match.follow(node)
            theirs = self.names[node.name]
            reads = self.match.channels[node.inputs[0]] if node.inputs else no_channels(0)
            old_op = self.old.nodes[theirs].op if theirs else None
            base = Step(Edit(node.name, theirs, "new", _word(node.op)), node.op, old_op, reads, gives, "fresh")
            step = self._wired(node, base, self._step(node, base))
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

    # --- what is read

    def _wired(self, node: Node, base: Step, step: Step | None) -> Step | None:
        """The step, approximate where the node reads other values than its counterpart did; said once of each."""
        reads = [self.stands[read] for read in node.inputs]
        theirs = self.names[node.name]
        if theirs is None or isinstance(node.op, Dropout):
            self.stands[node.name] = reads[0] if reads else None
            return step
        self.stands[node.name] = theirs
        wanted = [self._value(read) for read in self.old.nodes[theirs].inputs]
        others = [pair for pair in zip(reads, wanted, strict=False) if pair[0] != pair[1] and pair not in self.told]
        self.told |= set(others)
        if self.new.output is node and self._value(self.old.output.name) != theirs:
            others.append((theirs, self.old.output.name))
        if (not others and len(reads) == len(wanted)) or (step is not None and not step.edit.exact):
            return step
        words = ", ".join(f"{read or 'something new'} in place of {before}" for read, before in others)
        how = f"reads {words or f'{len(wanted)} -> {len(reads)} branches'}"
        if step is None:
            return _verdict(base, "approximate", how, "none")
        return _verdict(step, "approximate", "; ".join(filter(None, (step.edit.how, how))), step.rule)

    def _value(self, name: str) -> str:
        """The old node whose value that one has in evaluation: what a dropout reads."""
        node = self.old.nodes[name]
        return self._value(node.inputs[0]) if isinstance(node.op, Dropout) else name

    # --- verdicts

    def _step(self, node: Node, base: Step) -> Step | None:
        theirs = base.edit.old
        if not isinstance(node.op, STATEFUL):
            return self._stateless(node, base)
        if theirs is None or not self.match.fits(node, theirs):
            return self._new(node, base)
        if isinstance(node.op, Conv):
            return self._conv(node, base, theirs)
        if isinstance(node.op, Norm):
            return self._norm(node, base)
        return self._dense(node, base, theirs)

    def _stateless(self, node: Node, base: Step) -> Step | None:
        """Nothing to say where it is as it was, or belongs to a new block."""
        old, op = base.old_op, node.op
        if old is None:
            return self._new_stateless(node, base)
        if isinstance(op, Input):
            channels = f"{base.gives.old} -> {node.size.c} input channels"
            return None if base.gives.same else _verdict(base, "approximate", channels, "none")
        if isinstance(op, Add) and not all(self.match.channels[read].equals(base.gives) for read in node.inputs):
            return _verdict(base, "approximate", "sums channels of different origin", "none")
        if isinstance(op, Pad | Shift) and not base.reads.same:
            words = "wider or narrower shortcut" if isinstance(op, Pad) else "shifts other channels"
            return _verdict(base, "approximate", words, "none")
        if old == op or isinstance(op, Concat | Flatten | Dropout):
            return None
        return _verdict(base, "approximate", f"{_word(old)}: {_changed(old, op)}", "none")

    def _new_stateless(self, node: Node, base: Step) -> Step | None:
        """Whether it changes what passes; in a new block, its sites tell."""
        block = node.name.rpartition(".")[0]
        beside = [other for other in self.new.nodes if other.rpartition(".")[0] == block]
        told = all(self.names[other] is None for other in beside) and any(
            isinstance(self.new.nodes[other].op, STATEFUL) for other in beside
        )
        if told or self.match.is_silent(node):
            return None
        return _verdict(base, "approximate", f"new {_word(node.op)}", "none")

    def _new(self, node: Node, base: Step) -> Step:
        """Nothing to copy: in a block that adds nothing at first, as a gate that lets half through, or from scratch."""
        match, word = self.match, _word(node.op)
        if node.name in match.zeroed:
            return _verdict(base, "exact", "new block that adds nothing at first", "zero")
        if match.adds_nothing(node):
            return _verdict(base, "exact", f"new {word}, in a block that adds nothing at first", "fresh")
        if match.is_unread(node):
            return _verdict(base, "exact", f"new {word}, which nothing reads at first", "fresh")
        if match.norm_of_new_gate(node):
            return _verdict(base, "exact", "new gate, half open; the norm before it is doubled", "half")
        if isinstance(node.op, Gate):
            return _verdict(base, "approximate", "new gate, half open", "half")
        if match.is_identity_skip(node):
            return _verdict(base, "exact", "identity as a convolution", "skip")
        if match.is_norm_of_identity_skip(node):
            return _verdict(base, "exact", "norm that changes nothing", "identity")
        return _verdict(base, "new", f"new {word}, from scratch", "fresh")

    def _norm(self, node: Node, base: Step) -> Step:
        base = replace(base, doubled=node.name in self.match.doubled)
        if node.name in self.identities:
            return _verdict(base, "exact", "identity: the site before it took it over", "identity")
        if getattr(base.old_op, "eps", 0) != getattr(node.op, "eps", 0):
            return _verdict(base, "approximate", "another eps", "copy")
        if base.doubled:
            return _verdict(base, "exact", "doubled, for the gate behind it", "copy")
        return _verdict(base, "kept" if base.reads.same else "exact", _resized(base.reads), "copy")

    def _dense(self, node: Node, base: Step, theirs: str) -> Step:
        """Linear layers, gates, LSTMs, factors."""
        old, op = base.old_op, node.op
        assert old is not None
        before, after = getattr(old, "hidden", 0), getattr(op, "hidden", 0)
        changed = _changed(old, op)
        if isinstance(op, Linear) and base.gives.old != op.out and node.name.endswith(".linear"):
            return _verdict(base, "new", f"{base.gives.old} -> {op.out} classes: a fresh classifier", "fresh")
        if isinstance(op, Gate) and bool(before) != bool(after):
            return _verdict(base, "new", f"another gate, half open: {changed}", "half")
        grown = {"hidden", "bias", "out"} if getattr(op, "bias", False) else {"hidden", "out"}
        covers = base.reads.covers and base.reads.old == self.match.old_reads(theirs)
        exact = _same_but(old, op, grown) and after >= before and (covers or isinstance(op, Scale))
        verdict: Verdict = "approximate" if not exact else "exact" if changed or not base.reads.same else "kept"
        return _verdict(base, verdict, changed or _resized(base.reads), "copy")

    def _conv(self, node: Node, base: Step, theirs: str) -> Step:
        """A convolution site: what its kernel becomes, and whether its inputs are all there."""
        old, op = base.old_op, node.op
        assert isinstance(old, Conv)
        assert isinstance(op, Conv)
        kernel = self._kernel(node, old, op, theirs)
        notes, exact = [kernel.words], kernel.exact and self._reads_all(base, old, op, theirs)
        if kernel.rule == "absorb":
            self.identities.add(self.match.readers[node.name][0].name)
        if old.stride != op.stride:
            exact = False
            notes.append(f"stride {sides(old.stride)} -> {sides(op.stride)}")
        if old.groups != op.groups:
            notes.append(f"{old.groups} -> {op.groups} groups")
        if old.bias != op.bias:
            exact &= op.bias
            notes.append("bias added" if op.bias else "bias removed")
        notes.append(_resized(base.reads, base.gives))
        how = "; ".join(filter(None, notes))
        return _verdict(base, "approximate" if not exact else "exact" if how else "kept", how, kernel.rule)

    def _reads_all(self, base: Step, old: Conv, op: Conv, theirs: str) -> bool:
        """Whether every new channel finds all that its old one read, group by group, and half by half."""
        if base.reads.old != self.match.old_reads(theirs):
            return False
        was, now = parts(old, base.reads.old), parts(op, len(base.reads.source))
        if len(was) == len(now) == 2:
            inner = inner_channels(old, op, base.reads)
            ends = [(inner, base.reads), (base.gives, inner)]
        else:
            ends = [(base.gives, base.reads)]
        grouped = max(old.groups, op.groups) > 1 and not base.gives.equals(base.reads)
        if grouped and not all(gives.covers and reads.covers for gives, reads in ends):
            return False  # it would depend on which channels are kept
        return all(wiring(gives, reads, old.groups, op.groups).exact for gives, reads in ends)

    def _kernel(self, node: Node, old: Conv, op: Conv, theirs: str) -> Kernel:
        c_old, c_in = self.match.old_reads(theirs), self.new.input_sizes(node)[0].c
        absorbs = self._absorbs(node, op, theirs)
        return kernel_change(old, c_old, op, c_in, self.inflate, absorbs=absorbs)

    def _absorbs(self, node: Node, op: Conv, theirs: str) -> bool:
        """Whether norm and ReLU, and nothing else, read a site, so that both may stand inside it."""
        behind = self.match.readers.get(node.name, [])
        if len(behind) != 1 or not isinstance(behind[0].op, Norm):
            return False
        acts = self.match.readers.get(behind[0].name, [])
        norm = self.names[behind[0].name]
        if norm is None or len(acts) != 1 or acts[0].op != Act("relu"):
            return False
        before = self.old.nodes[norm]
        return before.inputs == (theirs,) and isinstance(before.op, Norm) and before.op.eps == op.norm.eps


def _verdict(step: Step, verdict: Verdict, how: str, rule: str) -> Step:
    return replace(step, edit=replace(step.edit, verdict=verdict, how=how), rule=rule)


def _resized(*channels: Channels) -> str:
    """What became of the channels a site reads and gives."""
    words = []
    for name, found in zip(("reads", "gives"), channels, strict=False):
        if not found.same:
            words.append(f"{name} {found.old} -> {len(found.source)} channels")
    return ", ".join(words)


def _same_but(old: Op, new: Op, names: set[str]) -> bool:
    return all(getattr(old, name) == getattr(new, name) for name in set(attributes(old)) - names)


def _changed(old: Op, new: Op) -> str:
    """The attributes that differ."""
    names = [name for name in attributes(old) if getattr(old, name) != getattr(new, name, None)]
    return ", ".join(f"{name} {getattr(old, name)} -> {getattr(new, name)}" for name in names)


def _word(op: Op) -> str:
    return type(op).__name__.lower()
