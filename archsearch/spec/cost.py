"""What a network costs, counted exactly from its graph.

Units: *macs* are multiply-adds of convolution and linear sites at batch 1; a gate is its linear maps at each place
its mean leaves (one, where it runs over time and space), an LSTM 4·h·(in + h) a frame; norm, act, pool, add and concat
count 0. (Papers say FLOPs; fvcore adds 2 per norm element; torch's counter says 2 x macs.) *params* are trainable
numbers. *activations* are elements of all convolution outputs (as pycls counts them).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from archsearch.spec.graph import (
    Conv,
    Gate,
    Graph,
    Linear,
    Lstm,
    Node,
    Norm,
    Op,
    Part,
    Scale,
    Size,
    is_plain,
    parts,
    windowed,
)

FLOAT_BYTES = 4
METRICS = ("gmacs", "params", "activations", "memory_mb")  # 1e9 macs; count; elements; 1e6 bytes of one forward


class Cost(NamedTuple):
    """macs (batch 1), params, and activations (elements)."""

    macs: int = 0
    params: int = 0
    activations: int = 0

    def __add__(self, other: "Cost") -> "Cost":  # type: ignore[override]
        return Cost(self.macs + other.macs, self.params + other.params, self.activations + other.activations)


_FREE = Cost()


def op_cost(op: Op, read: Size, out: Size) -> Cost:
    """What one operation costs that reads `read` and gives `out`."""
    rule = _COSTS.get(type(op))
    return rule(op, read, out) if rule else _FREE


def _conv_cost(op: Conv, size: Size, out: Size) -> Cost:
    if is_plain(op):
        t, h, w = op.kernel
        weights = op.out * (size.c // op.groups) * t * h * w
        return Cost(weights * out.t * out.h * out.w, weights + op.out * op.bias, out.elements)
    macs = params = activations = 0
    plain = parts(op, size.c)
    for part in plain:
        size = windowed(size, part.out, part) if part is not plain[-1] else out
        weights = _weights(part)
        macs += weights * size.t * size.h * size.w
        params += weights + part.out * part.bias
        activations += size.elements
    return Cost(macs, params + (2 * op.mid if len(plain) == 2 else 0), activations)


def _gate_cost(op: Gate, read: Size) -> Cost:
    c, hidden = read.c, op.hidden
    weights = 2 * c * hidden if hidden else c * c
    places = {"both": 1, "space": read.t, "time": read.h * read.w}[op.pool]
    return Cost(weights * places, weights + (c + hidden) * op.bias)


def _lstm_cost(op: Lstm, read: Size) -> Cost:
    weights = 4 * op.hidden * (read.c + op.hidden)  # of four gates, each with two biases (torch, cuDNN)
    return Cost(weights * read.t, weights + 8 * op.hidden)


_COSTS: dict[type, Callable[[Any, Size, Size], Cost]] = {  # what costs nothing is not listed
    Conv: _conv_cost,
    Norm: lambda op, read, out: Cost(0, 2 * read.c),
    Linear: lambda op, read, out: Cost(out.elements * read.c, read.c * op.out + op.out * op.bias),
    Gate: lambda op, read, out: _gate_cost(op, read),
    Lstm: lambda op, read, out: _lstm_cost(op, read),
    Scale: lambda op, read, out: Cost(params=1),
}


def _weights(part: Part) -> int:
    t, h, w = part.kernel
    return part.out * (part.c_in // part.groups) * t * h * w


def node_costs(graph: Graph) -> dict[str, Cost]:
    """The cost of every node, by name."""
    nodes = graph.nodes
    return {
        name: op_cost(node.op, nodes[node.inputs[0]].size, node.size) if node.inputs else _FREE
        for name, node in nodes.items()
    }


def stage_costs(graph: Graph) -> dict[str, Cost]:
    """The cost of every stage, by name, in order."""
    totals = {stage: Cost() for stage in graph.stages}
    for name, cost in node_costs(graph).items():
        stage = graph.nodes[name].stage
        if stage in totals:
            totals[stage] += cost
    return totals


def total_cost(graph: Graph) -> Cost:
    """The cost of the whole network."""
    nodes = graph.nodes
    seen: dict[tuple[int, int], Cost] = {}  # by identity: copies of a block share their operations and sizes
    macs = params = activations = 0
    for node in nodes.values():
        op = node.op
        rule = _COSTS.get(type(op))
        if rule is None:
            continue
        read = nodes[node.inputs[0]].size
        key = id(op), id(read)
        cost = seen.get(key)
        if cost is None:
            cost = seen[key] = rule(op, read, node.size)
        m, p, a = cost
        macs, params, activations = macs + m, params + p, activations + a
    return Cost(macs, params, activations)


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of costs."""
    columns = list(zip(*costs, strict=True))
    return Cost(*map(sum, columns)) if columns else Cost()


def metrics(graph: Graph) -> dict[str, float]:
    """What can be aimed at and limited before any training; see METRICS."""
    cost = total_cost(graph)
    memory_mb = peak_memory_bytes(graph) / 1e6
    return {
        "gmacs": cost.macs / 1e9,
        "params": cost.params,
        "activations": cost.activations,
        "memory_mb": memory_mb,
    }


def peak_memory_bytes(graph: Graph, batch: int = 1, training: bool = False) -> int:
    """The largest live set of feature maps in float32: of one forward, or of a training step, which keeps them all.

    Weights are not in it (4 bytes for each of `params`), nor a library's workspace; in-place operations are counted
    as if they were not, so it is an upper bound on the maps.
    """
    last_read = {name: position for position, name in enumerate(graph.nodes)}
    for position, node in enumerate(graph.nodes.values()):
        last_read.update(dict.fromkeys(node.inputs, position))
    live: dict[str, int] = {}
    peak = saved = 0
    for position, (name, node) in enumerate(graph.nodes.items()):
        inner = _inner_elements(node, graph.nodes)
        live[name] = node.size.elements
        saved += node.size.elements + inner
        peak = max(peak, sum(live.values()) + inner)
        live = {kept: size for kept, size in live.items() if last_read[kept] > position}
    return FLOAT_BYTES * batch * (saved if training else peak)


def _inner_elements(node: Node, nodes: Mapping[str, Node]) -> int:
    """Elements between the halves of a factorised site: the first half's output, normalised and activated."""
    if not isinstance(node.op, Conv) or not node.op.mid:
        return 0
    read = nodes[node.inputs[0]].size
    half = parts(node.op, read.c)[0]
    return 3 * windowed(read, half.out, half).elements
