"""Cost with results kept per (stage record, sizes it reads): counting many specs that share stages.

What a stage costs and gives is a function of its record, the sizes it reads and the spec's padding rule; so a spec
costs what its stages cost, and a stage is lowered once, however many specs have it.
"""

from functools import lru_cache

from archsearch.spec.builder import Builder
from archsearch.spec.cost import Cost, total, total_cost
from archsearch.spec.fields import Stage
from archsearch.spec.graph import Norm, Size
from archsearch.spec.spec import Spec, append_stage, reads_of

KEPT = 16384  # stage results, about 2 kB each with their records: memory stays flat


@lru_cache(maxsize=KEPT)
def stage_result(stage: Stage, reads: tuple[Size, ...], same: bool = False) -> tuple[Size, Cost]:
    """The size a stage gives and what it costs, for the sizes it reads. Raises SpecError where a map becomes empty."""
    graph = Builder("spec", Norm(), same)
    inputs = [graph.input(f"read{number}", size) for number, size in enumerate(reads)]
    output = append_stage(graph, stage, inputs)
    return graph.size(output), total_cost(graph.graph())


def kept_cost(spec: Spec) -> Cost:
    """What `total_cost(lower(spec))` gives, from kept stage results. Raises SpecError for a spec that cannot be."""
    sizes = spec.inputs
    previous = next(iter(sizes))
    same = spec.padding == "same"
    costs = []
    for stage in spec.stages:
        reads = tuple(sizes[name] for name in reads_of(stage, previous))
        sizes[stage.name], cost = stage_result(stage, reads, same)
        costs.append(cost)
        previous = stage.name
    return total(costs)
