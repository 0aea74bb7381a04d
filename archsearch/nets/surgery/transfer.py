"""Carrying out a plan: the old network's weights fitted to the new one. Pure: neither network is touched."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from archsearch.nets.build import build
from archsearch.nets.surgery.channels import Channels, Indices, is_depthwise, resized
from archsearch.nets.surgery.plan import Edit, Inflate, Rename, Step, steps
from archsearch.spec.graph import Conv, Gate, Graph, Linear, Lstm, Norm, Part, Size, parts
from archsearch.spec.spec import Spec, lower
from archsearch.spec.tensors import COUNTER

State = dict[str, Tensor]
SHIFT = 1.5  # standard deviations by which fitted halves are lifted, so that the act between them cuts little


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
    found = steps(old, new, rename or {}, _by_importance(graph, state), inflate)
    fresh = build(new, seed=seed).state_dict()
    work = _Transfer(graph, state, fresh)
    for step in found:
        work.carry_out(step)
    return work.state, [step.edit for step in found]


def _by_importance(graph: Graph, state: Mapping[str, Tensor]) -> Callable[[list[str], int, int], Indices]:
    """Keeps the channels whose makers weigh most, after the norm behind each."""
    behind = {node.inputs[0]: name for name, node in graph.nodes.items() if isinstance(node.op, Norm)}

    def choose(names: list[str], old: int, new: int) -> Indices:
        scores = torch.zeros(old, dtype=torch.float64)
        for name in names:
            weight = state.get(f"{name}.temporal.weight", state.get(f"{name}.weight"))
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
    """The new state in the making."""

    def __init__(self, old: Graph, source: Mapping[str, Tensor], fresh: State) -> None:
        self.old, self.source = old, source
        self.state = {name: tensor.clone() for name, tensor in fresh.items()}
        self.inner: dict[str, dict[str, Tensor]] = {}
        self.behind = {node.inputs[0]: name for name, node in old.nodes.items() if isinstance(node.op, Norm)}
        self.lifted: dict[str, Tensor] = {}  # by site: what lifting its inner channels adds to its outputs

    def carry_out(self, step: Step) -> None:
        """Writes one site's tensors."""
        name, theirs = step.edit.site, step.edit.old
        if step.rule == "zero":
            for leaf in ("weight", "bias") if isinstance(step.op, Norm) else self._weights(name):
                self.state[f"{name}.{leaf}"].zero_()
        elif step.rule == "half":
            for key in self._keys(name):
                if "reduce" not in key:
                    self.state[key].zero_()
        elif step.rule == "skip":
            self.state[f"{name}.weight"].copy_(_selection(step.gives, step.reads)[..., None, None, None])
        elif step.rule == "identity":
            _become_identity(self.state, name, step.op)
            self.state[f"{name}.weight"].mul_(2 if step.doubled else 1)
        elif step.rule not in ("none", "fresh") and theirs is not None:
            self._copy(step, name, theirs)

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
            self._conv(step, name, theirs)
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
        for site, offset in self.lifted.items():
            if self.behind.get(site) == theirs and site in self.lifted:
                self.state[f"{name}.running_mean"].add_(offset)

    def _linear(self, name: str, theirs: str, gives: Channels, reads: Channels) -> None:
        weight = self.state[f"{name}.weight"]
        weight.copy_(_remap(self.source[f"{theirs}.weight"], gives, reads, weight))
        if f"{name}.bias" in self.state and f"{theirs}.bias" in self.source:
            bias = self.state[f"{name}.bias"]
            bias.copy_(_rows(self.source[f"{theirs}.bias"], gives.source, bias))

    def _gate(self, step: Step, name: str, theirs: str) -> None:
        before, after = getattr(step.old_op, "hidden", 0), getattr(step.op, "hidden", 0)
        if bool(before) != bool(after):
            return
        if not after:
            self._linear(f"{name}.linear", f"{theirs}.linear", step.reads, step.reads)
            return
        hidden = resized([], before, after, lambda _, old, new: np.arange(new))
        self._linear(f"{name}.reduce", f"{theirs}.reduce", hidden, step.reads)
        self._linear(f"{name}.expand", f"{theirs}.expand", step.reads, hidden)

    def _lstm(self, step: Step, name: str, theirs: str) -> None:
        if getattr(step.old_op, "hidden", 0) != getattr(step.op, "hidden", 0):
            return
        for leaf in ("weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            self.state[f"{name}.lstm.{leaf}"].copy_(self.source[f"{theirs}.lstm.{leaf}"])
        weight = self.source[f"{theirs}.lstm.weight_ih_l0"]
        every = Channels(np.arange(len(weight)), len(weight))
        target = self.state[f"{name}.lstm.weight_ih_l0"]
        target.copy_(_remap(weight, every, step.reads, target))

    # --- convolution sites

    def _conv(self, step: Step, name: str, theirs: str) -> None:
        old, op = step.old_op, step.op
        assert isinstance(old, Conv)
        assert isinstance(op, Conv)
        c_old = self.old.input_sizes(self.old.nodes[theirs])[0].c
        was, now = parts(old, c_old), parts(op, len(step.reads.source))
        if op.bias and old.bias:
            bias = self.state[self._last(name, op, "bias")]
            bias.copy_(_rows(self.source[_last(theirs, old, "bias")], step.gives.source, bias))
        elif op.bias:
            self.state[self._last(name, op, "bias")].zero_()
        if step.rule == "copy" and len(was) == 2:
            self._halves(step, name, theirs, was, now)
            return
        whole = self._whole(theirs, old, was)
        depthwise = is_depthwise(op, Size(len(step.reads.source), 1, 1, 1)) and is_depthwise(old, Size(c_old, 1, 1, 1))
        if len(now) == 1:
            weight = self.state[f"{name}.weight"]
            kernel = _fit_kernel(whole, now[0].kernel, step.rule)
            weight.copy_(self._placed(kernel, step.gives, step.reads, weight, was[0], now[0], depthwise))
        else:
            self._factorise(step, name, theirs, whole, was, now)

    def _last(self, name: str, op: Conv, leaf: str) -> str:
        return _last(name, op, leaf)

    def _placed(
        self, kernel: Tensor, gives: Channels, reads: Channels, fresh: Tensor, was: Part, now: Part, depthwise: bool
    ) -> Tensor:
        """A kernel under channel maps and groups, (out, in / groups, t, h, w)."""
        if depthwise:
            return _rows(kernel, gives.source, fresh)
        dense = _remap(_dense(kernel, was.groups), gives, reads, None)
        grouped = _grouped(dense, now.groups)
        new_rows = torch.from_numpy(gives.source < 0)
        return torch.where(new_rows.view(-1, *[1] * (grouped.ndim - 1)), fresh, grouped)

    def _halves(self, step: Step, name: str, theirs: str, was: tuple[Part, ...], now: tuple[Part, ...]) -> None:
        """Both halves and the norm between them."""
        inner = self._inner_channels(theirs, was[0].out, now[0].out)
        first, last = _half_names(step.op)
        for half, gives, reads, before, after in (
            (first, inner, step.reads, was[0], now[0]),
            (last, step.gives, inner, was[1], now[1]),
        ):
            weight = self.state[f"{name}.{half}.weight"]
            kernel = self.source[f"{theirs}.{half}.weight"]
            depthwise = before.groups == before.c_in == before.out > 1 and after.groups == after.c_in == after.out
            weight.copy_(self._placed(kernel, gives, reads, weight, before, after, depthwise))
        _copy_norm(self.state, f"{name}.norm", self.source, f"{theirs}.norm", inner.source)

    def _inner_channels(self, theirs: str, old: int, new: int) -> Channels:
        """Of the channels between the halves: as many, copies behind them, or the heaviest."""
        norm = self.source[f"{theirs}.norm.weight"].abs()
        return resized([], old, new, lambda _, __, count: np.sort(norm.topk(count).indices.numpy()))

    def _whole(self, theirs: str, old: Conv, was: tuple[Part, ...]) -> Tensor:
        """The kernel of a site as one: of two halves, their product, scaled by the norm between them."""
        if len(was) == 1:
            return self.source[f"{theirs}.weight"]
        first, last = _half_names(old)
        norm = f"{theirs}.norm"
        scale = self.source[f"{norm}.weight"] / (self.source[f"{norm}.running_var"] + old.norm.eps).sqrt()
        a = _dense(self.source[f"{theirs}.{first}.weight"], was[0].groups) * scale.view(-1, 1, 1, 1, 1)
        b = _dense(self.source[f"{theirs}.{last}.weight"], was[1].groups)
        if old.first == "space":
            return torch.einsum("omt,mihw->oithw", b[..., 0, 0], a[:, :, 0])
        return torch.einsum("omhw,mit->oithw", b[:, :, 0], a[..., 0, 0])

    def _factorise(
        self, step: Step, name: str, theirs: str, whole: Tensor, was: tuple[Part, ...], now: tuple[Part, ...]
    ) -> None:
        """One kernel as two halves."""
        op = step.op
        assert isinstance(op, Conv)
        groups = was[0].groups if len(was) == 1 else 1
        dense = _remap(_dense(whole, groups), step.gives, step.reads, None)
        first, last = _half_names(op)
        space, time = self.state[f"{name}.spatial.weight"], self.state[f"{name}.temporal.weight"]
        _become_identity(self.state, f"{name}.norm", op)
        if step.rule in ("absorb", "signs"):
            _split_exactly(dense[:, :, 0], space, time, signs=step.rule == "signs")
            if step.rule == "absorb":
                more = np.full(op.mid - len(step.gives.source), -1)
                channels = np.concatenate([step.gives.source, more])
                _copy_norm(self.state, f"{name}.norm", self.source, self.behind[theirs], channels)
            return
        kernel = _fit_kernel(dense, (op.kernel[0], *op.kernel[1:]), "centre")
        a, b, lift = _fitted_halves(kernel, op)
        a, b = (a, b) if first == "spatial" else (b, a)
        del last
        space.copy_(_grouped(a, now[0].groups) if first == "spatial" else _grouped(a, now[1].groups))
        time.copy_(_grouped(b, now[1].groups) if first == "spatial" else _grouped(b, now[0].groups))
        self.state[f"{name}.norm.bias"].copy_(lift)
        if first == "spatial":
            self.lifted[theirs] = torch.einsum("omt,m->o", b[..., 0, 0], lift)


def _last(name: str, op: Conv, leaf: str) -> str:
    """The name of the last convolution's tensor of a site."""
    return f"{name}.{_half_names(op)[1]}.{leaf}" if op.mid else f"{name}.{leaf}"


def _half_names(op: object) -> tuple[str, str]:
    return ("spatial", "temporal") if getattr(op, "first", "space") == "space" else ("temporal", "spatial")


def _remap(weight: Tensor, gives: Channels, reads: Channels, fresh: Tensor | None) -> Tensor:
    """(out, in, ...) under channel maps: rows copied, columns shared among copies, new columns zero."""
    rows, columns = torch.from_numpy(gives.source.clip(0)), torch.from_numpy(reads.source.clip(0))
    shares = torch.from_numpy(reads.shares).to(weight.dtype)
    found = weight[rows][:, columns] * shares.view(1, -1, *[1] * (weight.ndim - 2))
    new_rows = torch.from_numpy(gives.source < 0).view(-1, *[1] * (weight.ndim - 1))
    return torch.where(new_rows, torch.zeros_like(found) if fresh is None else fresh, found)


def _rows(values: Tensor, source: Indices, fresh: Tensor) -> Tensor:
    """(out, ...) by row; new rows stay fresh."""
    found = values[torch.from_numpy(source.clip(0))]
    return torch.where(torch.from_numpy(source < 0).view(-1, *[1] * (values.ndim - 1)), fresh, found)


def _copy_norm(state: State, name: str, source: Mapping[str, Tensor], theirs: str, channels: Indices) -> None:
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        target = state[f"{name}.{leaf}"]
        target.copy_(_rows(source[f"{theirs}.{leaf}"], channels, target))
    state[f"{name}.{COUNTER}"].copy_(source[f"{theirs}.{COUNTER}"])


def _become_identity(state: State, name: str, op: object) -> None:
    eps: float = getattr(op, "eps", None) or getattr(op, "norm").eps  # noqa: B009
    for leaf, value in (("running_mean", 0.0), ("running_var", 1.0), ("weight", (1 + eps) ** 0.5), ("bias", 0.0)):
        state[f"{name}.{leaf}"].fill_(value)


def _selection(gives: Channels, reads: Channels) -> Tensor:
    """(new out, new in): each new channel from one that is a copy of the same old one."""
    chosen = torch.zeros(len(gives.source), len(reads.source))
    places = {int(old): place for place, old in reversed(list(enumerate(reads.source)))}
    for row, old in enumerate(gives.source):
        if old >= 0:
            chosen[row, places[int(old)]] = 1
    return chosen


def _dense(weight: Tensor, groups: int) -> Tensor:
    """(out, in / groups, ...) -> (out, in, ...): block-diagonal."""
    if groups == 1:
        return weight
    out, narrow = weight.shape[:2]
    dense = weight.new_zeros(out, narrow * groups, *weight.shape[2:])
    for group in range(groups):
        rows = slice(group * out // groups, (group + 1) * out // groups)
        dense[rows, group * narrow : (group + 1) * narrow] = weight[rows]
    return dense


def _grouped(dense: Tensor, groups: int) -> Tensor:
    """(out, in, ...) -> (out, in / groups, ...): the blocks on the diagonal."""
    if groups == 1:
        return dense
    out, wide = dense.shape[:2]
    blocks = [
        dense[g * out // groups : (g + 1) * out // groups, g * wide // groups : (g + 1) * wide // groups]
        for g in range(groups)
    ]
    return torch.cat(blocks)


def _fit_kernel(kernel: Tensor, sides: tuple[int, int, int], rule: str) -> Tensor:
    """A kernel of other sides: zeros around it, or cut around its centre; a shorter time is summed over."""
    if rule == "inflate":
        return kernel.expand(*kernel.shape[:2], sides[0], *kernel.shape[3:]) / sides[0]
    if sides[0] == 1 < kernel.shape[2]:
        kernel = kernel.sum(2, keepdim=True)
    for axis, side in enumerate(sides, start=2):
        extra = side - kernel.shape[axis]
        if extra < 0:
            kernel = kernel.narrow(axis, -extra // 2, side)
        elif extra > 0:
            padding = [0] * (2 * kernel.ndim)
            padding[2 * (kernel.ndim - 1 - axis)] = extra // 2
            padding[2 * (kernel.ndim - 1 - axis) + 1] = extra - extra // 2
            kernel = torch.nn.functional.pad(kernel, padding)
    return kernel


def _split_exactly(flat: Tensor, space: Tensor, time: Tensor, *, signs: bool) -> None:
    """A 2D kernel (out, in, h, w) as halves with the same outputs: behind an act without effect, or of both signs."""
    out, centre = len(flat), time.shape[2] // 2
    space[:out].copy_(flat[:, :, None])
    time.zero_()
    time[range(out), range(out), centre] = 1
    if signs:
        space[out : 2 * out].copy_(-flat[:, :, None])
        time[range(out), range(out, 2 * out), centre] = -1


def _fitted_halves(kernel: Tensor, op: Conv) -> tuple[Tensor, Tensor, Tensor]:
    """A kernel (out, in, t, h, w) as its best halves of `mid` channels, and a lift that keeps most above zero.

    The singular vectors of the kernel as a matrix (out x t) by (in x h x w); each spatial half is lifted by SHIFT
    times its size, since an act cuts what is below zero. Returns (mid, in, 1, h, w), (out, mid, t, 1, 1), (mid,).
    """
    out, c_in, t, h, w = kernel.shape
    matrix = kernel.permute(0, 2, 1, 3, 4).reshape(out * t, c_in * h * w).double()
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    rank = min(op.mid, len(s))
    root = s[:rank].sqrt()
    space = torch.zeros(op.mid, c_in * h * w, dtype=torch.float64)
    time = torch.zeros(out * t, op.mid, dtype=torch.float64)
    space[:rank], time[:, :rank] = root[:, None] * v[:rank], u[:, :rank] * root
    lift = SHIFT * space.norm(dim=1)
    return (
        space.reshape(op.mid, c_in, 1, h, w).to(kernel.dtype),
        time.reshape(out, t, op.mid).permute(0, 2, 1)[..., None, None].to(kernel.dtype),
        lift.to(kernel.dtype),
    )
