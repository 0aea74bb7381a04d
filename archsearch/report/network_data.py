"""Networks and what they cost as plain data, which needs neither NumPy nor a terminal's library to be made."""

from typing import Any

from archsearch.spec.cost import peak_memory_bytes, stage_costs, total_cost
from archsearch.spec.spec import Spec, lower


def spec_json(spec: Spec) -> dict[str, Any]:
    """What `archsearch show SPEC --json` prints."""
    graph = lower(spec)
    total = total_cost(graph)
    costs = stage_costs(graph)
    return {
        "name": spec.name,
        "clip": spec.model_dump(mode="json")["clip"],
        "classes": spec.classes,
        "params": total.params,
        "macs": total.macs,
        "activations": total.activations,
        "memory_bytes": peak_memory_bytes(graph),
        "stages": [
            {
                "name": stage.name,
                "kind": getattr(stage, "kind"),  # noqa: B009
                "conv": getattr(stage, "conv", None),
                "output": list(graph.nodes[graph.stages[stage.name]].size),
                "params": costs[stage.name].params,
                "macs": costs[stage.name].macs,
            }
            for stage in spec.stages
        ],
    }


def compare_json(left: Spec, right: Spec) -> dict[str, Any]:
    """Both networks and, stage by stage, where they differ."""
    names = list(dict.fromkeys(stage.name for spec in (left, right) for stage in spec.stages))
    differences = {name: _differences(left, right, name) for name in names}
    found = {name: fields for name, fields in differences.items() if fields}
    return {"networks": [spec_json(left), spec_json(right)], "differences": found}


def _differences(left: Spec, right: Spec, name: str) -> dict[str, list[Any]]:
    """Each field of a stage that differs: [left, right]."""
    stages = [{s.name: s.model_dump(mode="json") for s in spec.stages}.get(name, {}) for spec in (left, right)]
    fields = dict.fromkeys([*stages[0], *stages[1]])
    pairs = {field: [stage.get(field) for stage in stages] for field in fields}
    return {field: pair for field, pair in pairs.items() if pair[0] != pair[1]}
