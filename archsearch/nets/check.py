"""The cost walk against an independent count: fvcore, on the built network."""

from dataclasses import dataclass
from typing import Any

from archsearch.errors import MissingExtra
from archsearch.nets.build import build_graph
from archsearch.spec.cost import node_costs, total_cost
from archsearch.spec.graph import Lstm
from archsearch.spec.spec import Spec, lower


@dataclass(frozen=True)
class Check:
    """Ours beside theirs. `other` is what fvcore counts besides convolutions and linear maps (2 a norm element).

    `uncounted` is how often it met an operation that it does not count; `recurrent` are our macs of LSTMs, for which
    it has no rule.
    """

    macs: int
    fvcore_macs: int
    params: int
    torch_params: int
    other: dict[str, int]
    uncounted: dict[str, int]
    recurrent: int

    @property
    def agrees(self) -> bool:
        """Whether both counts are equal to the unit, LSTMs apart."""
        return self.macs - self.recurrent == self.fvcore_macs and self.params == self.torch_params


def check_against_fvcore(spec: Spec) -> Check:
    """Builds the network and counts it with fvcore. Raises MissingExtra where fvcore is not installed."""
    try:
        from fvcore.nn import FlopCountAnalysis
    except ImportError:
        raise MissingExtra("show --check needs fvcore: pip install 'archsearch[check]'") from None
    import torch

    graph = lower(spec)
    net = build_graph(graph, spec.name).eval()
    clips = tuple(torch.zeros(1, *size) for size in spec.inputs.values())
    analysis: Any = FlopCountAnalysis(net, clips)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with torch.no_grad():  # nothing kept for a backward pass: long clips fit in memory
        counts = {name: int(value) for name, value in analysis.by_operator().items()}
    sites = sum(counts.pop(name, 0) for name in ("conv", "linear", "matmul", "addmm"))
    total = total_cost(graph)
    costs = node_costs(graph)
    recurrent = sum(costs[node.name].macs for node in graph.nodes.values() if isinstance(node.op, Lstm))
    params = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
    return Check(total.macs, sites, total.params, params, counts, dict(analysis.unsupported_ops()), recurrent)
