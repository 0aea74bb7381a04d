"""The tensors of a network's state, by name, without building it: what weight files hold."""

from collections.abc import Callable, Iterator
from typing import Any

from archsearch.spec.graph import Conv, Gate, Graph, Linear, Lstm, Norm, Part, Scale, parts

Shape = tuple[int, ...]
Shapes = Iterator[tuple[str, Shape]]
NORM = ("weight", "bias", "running_mean", "running_var")
COUNTER = "num_batches_tracked"  # an integer: how many batches the running statistics have seen


def tensor_shapes(graph: Graph) -> dict[str, Shape]:
    """Name -> shape of every parameter and statistic, in the order of the graph: `state_dict()` of the built network.

    A plain site is `node.weight`; a factorised one `node.spatial.weight`, `node.norm.*`, `node.temporal.weight`.
    """
    return {
        f"{node.name}.{name}": shape
        for node in graph.nodes.values()
        if (rule := _RULES.get(type(node.op))) is not None
        for name, shape in rule(node.op, graph.nodes[node.inputs[0]].size.c)
    }


def modules(graph: Graph) -> dict[str, list[str]]:
    """The same names by module: `res2.0.norm1` -> weight, bias, running_mean, running_var, num_batches_tracked."""
    found: dict[str, list[str]] = {}
    for name in tensor_shapes(graph):
        module, _, leaf = name.rpartition(".")
        found.setdefault(module, []).append(leaf)
    return found


def _norm(channels: int, prefix: str = "") -> Shapes:
    yield from ((f"{prefix}{leaf}", (channels,)) for leaf in NORM)
    yield f"{prefix}{COUNTER}", ()


def _conv(op: Conv, c_in: int) -> Shapes:
    first, *rest = parts(op, c_in)
    if not rest:
        yield from _part(first)
        return
    names = ("spatial.", "temporal.") if op.first == "space" else ("temporal.", "spatial.")
    yield from _part(first, names[0])
    yield from _norm(op.mid, "norm.")
    yield from _part(rest[0], names[1])


def _part(part: Part, prefix: str = "") -> Shapes:
    yield f"{prefix}weight", (part.out, part.c_in // part.groups, *part.kernel)
    if part.bias:
        yield f"{prefix}bias", (part.out,)


def _linear(c_in: int, out: int, bias: bool, prefix: str = "") -> Shapes:
    yield f"{prefix}weight", (out, c_in)
    if bias:
        yield f"{prefix}bias", (out,)


def _gate(op: Gate, c_in: int) -> Shapes:
    if not op.hidden:
        yield from _linear(c_in, c_in, op.bias, "linear.")
        return
    yield from _linear(c_in, op.hidden, op.bias, "reduce.")
    yield from _linear(op.hidden, c_in, op.bias, "expand.")


def _lstm(op: Lstm, c_in: int) -> Shapes:
    yield "lstm.weight_ih_l0", (4 * op.hidden, c_in)
    yield "lstm.weight_hh_l0", (4 * op.hidden, op.hidden)
    yield "lstm.bias_ih_l0", (4 * op.hidden,)
    yield "lstm.bias_hh_l0", (4 * op.hidden,)


_RULES: dict[type, Callable[[Any, int], Shapes]] = {  # what has no state is not listed
    Conv: _conv,
    Norm: lambda op, c_in: _norm(c_in),
    Linear: lambda op, c_in: _linear(c_in, op.out, op.bias),
    Gate: _gate,
    Lstm: _lstm,
    Scale: lambda op, c_in: iter([("weight", ())]),
}
