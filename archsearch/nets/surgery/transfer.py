"""Carrying out a plan: the old network's weights fitted to the new one. Pure: neither network is touched."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from archsearch.nets.build import fresh_site
from archsearch.nets.surgery.channels import Channels, Indices, inner_channels, resized
from archsearch.nets.surgery.plan import STATEFUL, Edit, Inflate, Rename, Step, steps
from archsearch.nets.surgery.tensors import dense, fit_kernel, fitted_halves, placed, rows, selection, split_exactly
from archsearch.spec.graph import Conv, Gate, Graph, Linear, Lstm, Norm, Part, parts
from archsearch.spec.spec import Spec, lower
from archsearch.spec.tensors import COUNTER

State = dict[str, Tensor]


def transfer(
    old: Spec,
    state: Mapping[str, Tensor],
    new: Spec,
    rename: Rename | None = None,
    inflate: Inflate = "centre",
    seed: int = 0,
) -> tuple[State, list[Edit]]:
    """The new network's state, made of the old one's, and what became of each site.

    What is new is initialised from `seed`. Raises SurgeryError for networks of unrelated families.
    """
    graph = lower(old)
    found = weighed_steps(old, state, new, rename, inflate)
    work = _Transfer(graph, state, lower(new))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in found:
            work.carry_out(step)
    return work.state, [step.edit for step in found]


def weighed_steps(
    old: Spec,
    state: Mapping[str, Tensor],
    new: Spec,
    rename: Rename | None = None,
    inflate: Inflate = "centre",
) -> list[Step]:
    """The steps that `transfer` carries out: where channels go, those whose weights are the largest stay."""
    return steps(old, new, rename or {}, _by_importance(lower(old), state), inflate)


def _by_importance(graph: Graph, state: Mapping[str, Tensor]) -> Callable[[list[str], int, int], Indices]:
    """Keeps the channels whose makers weigh most, after the norm behind each."""
    behind = {node.inputs[0]: name for name, node in graph.nodes.items() if isinstance(node.op, Norm)}

    def choose(names: list[str], old: int, new: int) -> Indices:
        scores = torch.zeros(old, dtype=torch.float64)
        for name in names:
            op = graph.nodes[name].op
            weight = state.get(_last(name, op, "weight") if isinstance(op, Conv) else f"{name}.weight")
            if weight is None or len(weight) != old:
                continue
            score = weight.double().flatten(1).norm(dim=1)
            norm = behind.get(name)
            if norm is not None:
                score *= state[f"{norm}.weight"].double().abs() / (state[f"{norm}.running_var"].double() + 1e-5).sqrt()
            scores += score / score.mean().clamp_min(1e-12)
        return np.sort(scores.topk(new).indices.numpy())

    return choose


class _Transfer:
    """The new state in the making, site by site: besides both networks there is never more than one layer."""

    def __init__(self, old: Graph, source: Mapping[str, Tensor], new: Graph) -> None:
        self.old, self.source, self.new = old, source, new
        self.state: State = {}
        self.behind = {node.inputs[0]: name for name, node in old.nodes.items() if isinstance(node.op, Norm)}
        self.read_as_they_are = {
            read for node in new.nodes.values() if not isinstance(node.op, Norm) for read in node.inputs
        }
        self.lifted: dict[str, Tensor] = {}  # by site: what lifting its inner channels adds to its outputs

    def carry_out(self, step: Step) -> None:
        """Writes one site's tensors."""
        name, theirs = step.edit.site, step.edit.old
        if step.edit.verdict == "removed" or not isinstance(step.op, STATEFUL):
            return
        node = self.new.nodes[name]
        found = fresh_site(node, self.new.nodes[node.inputs[0]].size.c if node.inputs else 0, not _is_covered(step))
        self.state |= {f"{name}.{leaf}": tensor for leaf, tensor in found.items()}
        if step.rule == "zero":
            for leaf in ("weight", "bias") if isinstance(step.op, Norm) else self._weights(name):
                self.state[f"{name}.{leaf}"].zero_()
        elif step.rule == "half":
            for key in self._keys(name):
                if "reduce" not in key:
                    self.state[key].zero_()
        elif step.rule == "skip":
            self.state[f"{name}.weight"].copy_(selection(step.gives, step.reads)[..., None, None, None])
        elif step.rule == "identity":
            _become_identity(self.state, name, step.op)
            self.state[f"{name}.weight"].mul_(2 if step.doubled else 1)
        elif step.rule not in ("none", "fresh") and theirs is not None:
            self._copy(step, name, theirs)
        if isinstance(step.op, Norm) and node.inputs[0] in self.lifted:
            self.state[f"{name}.running_mean"].add_(self.lifted[node.inputs[0]])

    def _keys(self, name: str) -> list[str]:
        return [key for key in self.state if key.startswith(f"{name}.")]

    def _weights(self, name: str) -> list[str]:
        """The last weights of a convolution site, whose zeros make it give zeros."""
        last = [key.removeprefix(f"{name}.") for key in self._keys(name) if key.endswith((".weight", ".bias"))]
        halves = [leaf for leaf in last if not leaf.startswith("norm.")]
        return [leaf for leaf in halves if leaf.rpartition(".")[0] == halves[-1].rpartition(".")[0]]

    def _copy(self, step: Step, name: str, theirs: str) -> None:
        if isinstance(step.op, Norm):
            self._norm(step, name, theirs)
        elif isinstance(step.op, Conv):
            self._conv(step, step.op, name, theirs)
        elif isinstance(step.op, Linear):
            self._linear(name, theirs, step.gives, step.reads)
        elif isinstance(step.op, Gate):
            self._gate(step, name, theirs)
        elif isinstance(step.op, Lstm):
            self._lstm(step, name, theirs)
        else:
            self.state[f"{name}.weight"].copy_(self.source[f"{theirs}.weight"])

    def _norm(self, step: Step, name: str, theirs: str) -> None:
        _copy_norm(self.state, name, self.source, theirs, step.gives.source)
        if step.doubled:
            self.state[f"{name}.weight"].mul_(2)
            self.state[f"{name}.bias"].mul_(2)

    def _linear(self, name: str, theirs: str, gives: Channels, reads: Channels) -> None:
        weight = self.state[f"{name}.weight"]
        weight.copy_(placed(self.source[f"{theirs}.weight"], gives, reads, weight))
        if f"{name}.bias" in self.state and f"{theirs}.bias" in self.source:
            bias = self.state[f"{name}.bias"]
            bias.copy_(rows(self.source[f"{theirs}.bias"], gives.source, bias))

    def _gate(self, step: Step, name: str, theirs: str) -> None:
        before, after = getattr(step.old_op, "hidden", 0), getattr(step.op, "hidden", 0)
        if not after:
            self._linear(f"{name}.linear", f"{theirs}.linear", step.reads, step.reads)
            return
        hidden = resized([], before, after, lambda _, old, new: np.arange(new))
        self._linear(f"{name}.reduce", f"{theirs}.reduce", hidden, step.reads)
        self._linear(f"{name}.expand", f"{theirs}.expand", step.reads, hidden)

    def _lstm(self, step: Step, name: str, theirs: str) -> None:
        """Its four gates have rows behind each other; copies of a hidden channel share what it gives itself."""
        hidden = step.gives
        every = Channels(np.concatenate([hidden.source + gate * hidden.old for gate in range(4)]), 4 * hidden.old)
        for leaf, reads in (("weight_ih_l0", step.reads), ("weight_hh_l0", hidden)):
            target = self.state[f"{name}.lstm.{leaf}"]
            target.copy_(placed(self.source[f"{theirs}.lstm.{leaf}"], every, reads, target))
        for leaf in ("bias_ih_l0", "bias_hh_l0"):
            target = self.state[f"{name}.lstm.{leaf}"]
            target.copy_(rows(self.source[f"{theirs}.lstm.{leaf}"], every.source, target))

    # --- convolution sites

    def _conv(self, step: Step, op: Conv, name: str, theirs: str) -> None:
        old = step.old_op
        assert isinstance(old, Conv)
        c_old = self.old.input_sizes(self.old.nodes[theirs])[0].c
        was, now = parts(old, c_old), parts(op, len(step.reads.source))
        if op.bias and old.bias:
            bias = self.state[_last(name, op, "bias")]
            bias.copy_(rows(self.source[_last(theirs, old, "bias")], step.gives.source, bias))
        elif op.bias:
            self.state[_last(name, op, "bias")].zero_()
        if step.rule == "copy" and len(was) == 2:
            self._halves(step, name, theirs, old, op)
            return
        whole = self._whole(theirs, old, was)
        groups = old.groups if len(was) == 1 else 1
        if len(now) == 1:
            weight = self.state[f"{name}.weight"]
            kernel = fit_kernel(whole, now[0].kernel, step.rule)
            weight.copy_(placed(kernel, step.gives, step.reads, weight, groups, op.groups))
        else:
            self._factorise(step, op, name, theirs, placed(dense(whole, groups), step.gives, step.reads))

    def _halves(self, step: Step, name: str, theirs: str, old: Conv, op: Conv) -> None:
        """Both halves and the norm between them, whose heaviest channels stay where there are to be fewer."""
        norm = self.source[f"{theirs}.norm.weight"].abs()
        inner = inner_channels(old, op, step.reads, lambda count: np.sort(norm.topk(count).indices.numpy()))
        first, last = _half_names(op)
        for half, gives, reads in ((first, inner, step.reads), (last, step.gives, inner)):
            weight = self.state[f"{name}.{half}.weight"]
            kernel = self.source[f"{theirs}.{half}.weight"]
            weight.copy_(placed(kernel, gives, reads, weight, old.groups, op.groups))
        _copy_norm(self.state, f"{name}.norm", self.source, f"{theirs}.norm", inner.source)

    def _whole(self, theirs: str, old: Conv, was: tuple[Part, ...]) -> Tensor:
        """The kernel of a site as one: of two halves, their product, scaled by the norm between them."""
        if len(was) == 1:
            return self.source[f"{theirs}.weight"]
        first, last = _half_names(old)
        norm = f"{theirs}.norm"
        scale = self.source[f"{norm}.weight"] / (self.source[f"{norm}.running_var"] + old.norm.eps).sqrt()
        a = dense(self.source[f"{theirs}.{first}.weight"], was[0].groups) * scale.view(-1, 1, 1, 1, 1)
        b = dense(self.source[f"{theirs}.{last}.weight"], was[1].groups)
        if old.first == "space":
            return torch.einsum("omt,mihw->oithw", b[..., 0, 0], a[:, :, 0])
        return torch.einsum("omhw,mit->oithw", b[:, :, 0], a[..., 0, 0])

    def _factorise(self, step: Step, op: Conv, name: str, theirs: str, whole: Tensor) -> None:
        """One kernel, (out, in, t, h, w), as two halves; lifted where a bias or a norm takes off what that adds."""
        space, time = self.state[f"{name}.spatial.weight"], self.state[f"{name}.temporal.weight"]
        _become_identity(self.state, f"{name}.norm", op)
        if step.rule in ("absorb", "signs"):
            split_exactly(whole[:, :, 0], space, time, signs=step.rule == "signs")
            if step.rule == "absorb":
                more = np.full(op.mid - len(step.gives.source), -1)
                channels = np.concatenate([step.gives.source, more])
                _copy_norm(self.state, f"{name}.norm", self.source, self.behind[theirs], channels)
            return
        lifted = op.bias or name not in self.read_as_they_are
        halves = fitted_halves(fit_kernel(whole, op.kernel, "centre"), op, lifted=lifted)
        near, far = (space, time) if op.first == "space" else (time, space)
        near.copy_(halves.first)
        far.copy_(halves.last)
        self.state[f"{name}.norm.bias"].copy_(halves.lift)
        if op.bias:
            self.state[_last(name, op, "bias")].sub_(halves.offset)
        else:
            self.lifted[name] = halves.offset


def _is_covered(step: Step) -> bool:
    """Whether all of a site's weights are about to be written, so that none has to be drawn."""
    if isinstance(step.op, Gate):
        return step.rule == "half" and not step.op.hidden
    rules = ("copy", "sum", "centre", "inflate", "effective", "split", "skip")
    return isinstance(step.op, Conv) and step.rule in rules and bool((step.gives.source >= 0).all())


def _last(name: str, op: Conv, leaf: str) -> str:
    """The name of the last convolution's tensor of a site."""
    return f"{name}.{_half_names(op)[1]}.{leaf}" if op.mid else f"{name}.{leaf}"


def _half_names(op: object) -> tuple[str, str]:
    return ("spatial", "temporal") if getattr(op, "first", "space") == "space" else ("temporal", "spatial")


def _copy_norm(state: State, name: str, source: Mapping[str, Tensor], theirs: str, channels: Indices) -> None:
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        target = state[f"{name}.{leaf}"]
        target.copy_(rows(source[f"{theirs}.{leaf}"], channels, target))
    state[f"{name}.{COUNTER}"].copy_(source[f"{theirs}.{COUNTER}"])


def _become_identity(state: State, name: str, op: object) -> None:
    eps: float = getattr(op, "eps", None) or getattr(op, "norm").eps  # noqa: B009
    for leaf, value in (("running_mean", 0.0), ("running_var", 1.0), ("weight", (1 + eps) ** 0.5), ("bias", 0.0)):
        state[f"{name}.{leaf}"].fill_(value)
