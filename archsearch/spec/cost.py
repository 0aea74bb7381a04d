"""What a network costs, counted exactly from its graph.

Units: *macs* are multiply-adds of convolution and linear sites at batch 1; a gate is channels squared at each place
its mean leaves (one, where it runs over time and space); norm, act, pool, add and concat count 0. (Papers say FLOPs;
fvcore adds 2 per norm element; torch's counter says 2 x macs.) *params* are trainable numbers. *activations* are
elements of all convolution outputs (as pycls counts them).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from archsearch.spec.graph import Conv, Gate, Graph, Linear, Node, Norm, Op, Part, Size, parts, windowed

FLOAT_BYTES = 4
METRICS = ("gmacs", "params", "activations", "memory_mb")  # 1e9 macs; count; elements; 1e6 bytes of one forward


@dataclass(frozen=True, slots=True)
class Cost:
    """macs (batch 1), params, and activations (elements)."""

    macs: int = 0
    params: int = 0
    activations: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.macs + other.macs, self.params + other.params, self.activations + other.activations)


_FREE = Cost()


def op_cost(op: Op, read: Size, out: Size) -> Cost:
    """What one operation costs that reads `read` and gives `out`."""
    if isinstance(op, Conv):
        return _conv_cost(op, read)
    if isinstance(op, Norm):
        return Cost(params=2 * read.c)
    if isinstance(op, Linear):
        return Cost(out.elements * read.c, read.c * op.out + op.out * op.bias)
    if isinstance(op, Gate):
        places = {"both": 1, "space": read.t, "time": read.h * read.w}[op.pool]
        return Cost(read.c * read.c * places, read.c * read.c + read.c * op.bias)
    return _FREE


def _conv_cost(op: Conv, size: Size) -> Cost:
    macs = params = activations = 0
    plain = parts(op, size.c)
    for part in plain:
        size = windowed(size, part.out, part.kernel, part.stride, part.padding)
        weights = _weights(part)
        macs += weights * size.t * size.h * size.w
        params += weights + part.out * part.bias
        activations += size.elements
    return Cost(macs, params + (2 * op.mid if len(plain) == 2 else 0), activations)


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
    return total(node_costs(graph).values())


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of costs."""
    macs = params = activations = 0
    for cost in costs:
        macs, params, activations = macs + cost.macs, params + cost.params, activations + cost.activations
    return Cost(macs, params, activations)


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
    """Elements between the halves of a factorised site: the spatial half's output, normalised and activated."""
    if not isinstance(node.op, Conv) or not node.op.mid:
        return 0
    spatial = parts(node.op, nodes[node.inputs[0]].size.c)[0]
    inner = windowed(nodes[node.inputs[0]].size, spatial.out, spatial.kernel, spatial.stride, spatial.padding)
    return 3 * inner.elements
