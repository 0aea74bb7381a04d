"""Networks and spaces as tables, and spaces as JSON."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from archsearch.errors import SpaceError
from archsearch.report.front import quantity
from archsearch.report.network_data import compare_json, spec_json
from archsearch.space.choices import option_name
from archsearch.space.costing import CHUNK, Coster, Floats, chunks, samples, within_limits
from archsearch.space.space import Space
from archsearch.spec.cost import node_costs, total_cost
from archsearch.spec.graph import Act, Conv, Graph, Pool, attributes
from archsearch.spec.latency import LATENCY
from archsearch.spec.spec import Spec, lower

ENUMERATED = 20_000_000  # combinations at most: ten seconds and, with a figure, 1.3 GB
WHOLE, SAMPLED = 1_000_000, 10_000  # a space up to the first size is costed whole, a larger one by a sample
WHOLE_SLOW, SAMPLED_SLOW = 4096, 1000  # where memory or latency is limited, which takes a millisecond a network


def empty_table(title: str | None = None) -> Table:
    """An empty table in the manner of all of them."""
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title=Text(title) if title else None)


def spec_table(spec: Spec) -> Group:
    """A network stage by stage."""
    data = spec_json(spec)
    sizes = ", ".join(f"{name} {size}" for name, size in spec.inputs.items())
    caption = (
        f"{data['macs'] / 1e9:.4g} gmacs (multiply-adds, batch 1), {quantity('params', data['params'])} parameters, "
        f"{quantity('activations', data['activations'])} activations, "
        f"{data['memory_bytes'] / 1e6:.4g} MB of maps in a forward"
    )
    table = empty_table(f"{spec.name}: {sizes}, {spec.classes} classes")
    for column in ("stage", "kind", "conv"):
        table.add_column(column)
    for column in ("output c x t x h x w", "params", "gmacs", "share"):
        table.add_column(column, justify="right")
    for stage in data["stages"]:
        output = " x ".join(map(str, stage["output"]))
        share = f"{stage['macs'] / max(data['macs'], 1):.1%}"
        gmacs = f"{stage['macs'] / 1e9:.4g}"
        table.add_row(stage["name"], stage["kind"], stage["conv"] or "", output, f"{stage['params']:,}", gmacs, share)
    return Group(table, Text(caption))


def nodes_table(graph: Graph) -> Table:
    """A network node by node. What a node reads is written where it is not the node above."""
    table = empty_table()
    table.add_column("node", no_wrap=True)
    table.add_column("operation", overflow="fold")
    for column in ("output", "params", "macs"):
        table.add_column(column, justify="right", no_wrap=True)
    above: tuple[str, ...] = ()
    for name, cost in node_costs(graph).items():
        node = graph.nodes[name]
        op = type(node.op).__name__.lower()
        reads = f" of {', '.join(node.inputs)}" if node.inputs != above else ""
        words = f"{op}{reads} {_attributes(node.op)}".strip()
        table.add_row(name, words, str(node.size), f"{cost.params:,}", f"{cost.macs:,}")
        above = (name,)
    return table


def _attributes(op: Any) -> str:
    """What an operation has besides its defaults, in a few words."""
    default = attributes(op)
    hidden = {"size", "norm", "act", "kind", "out", "kernel"} if isinstance(op, Conv) else {"size"}
    hidden |= {"padding"} if isinstance(op, Conv | Pool) else set()
    kernel = [f"{op.out} x {_sides(op.kernel)}"] if isinstance(op, Conv) else []
    kernel += [op.kind] if isinstance(op, Conv) and max(op.kernel) > 1 else []
    named = [
        f"{name} {_sides(value)}"
        for name in default
        if name not in hidden and (value := getattr(op, name)) != default[name] and value != (1, 1, 1)
    ]
    return ", ".join(kernel + named)


def _sides(value: Any) -> str:
    if isinstance(value, Act):
        return value.fn
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def presets_table(specs: dict[str, Spec]) -> Table:
    """Every preset with its cost at its own clip."""
    table = empty_table("gmacs are 1e9 multiply-adds of one clip")
    table.add_column("preset")
    for column in ("clip", "classes", "params", "gmacs"):
        table.add_column(column, justify="right")
    for name, spec in specs.items():
        total = total_cost(lower(spec))
        sizes = ", ".join(str(size) for size in spec.inputs.values())
        table.add_row(name, sizes, str(spec.classes), f"{total.params:,}", f"{total.macs / 1e9:.2f}")
    return table


def compare_table(left: Spec, right: Spec) -> Group:
    """Two networks side by side."""
    data = compare_json(left, right)
    a, b = data["networks"]
    ratio = b["macs"] / max(a["macs"], 1), b["params"] / max(a["params"], 1)
    caption = f"{b['name']} has {ratio[0]:.3g} times the macs and {ratio[1]:.3g} times the parameters"
    table = empty_table(f"{a['name']} and {b['name']}")
    for column in ("stage", "differs in"):
        table.add_column(column, overflow="fold")
    for network in (a, b):
        table.add_column(f"gmacs\n{escape(network['name'])}", justify="right")
        table.add_column(f"params\n{escape(network['name'])}", justify="right")
    costs = [{stage["name"]: stage for stage in network["stages"]} for network in (a, b)]
    for name in dict.fromkeys([*costs[0], *costs[1]]):
        fields = data["differences"].get(name, {})
        text = ", ".join(f"{field} {_brief(old)} -> {_brief(new)}" for field, (old, new) in fields.items())
        table.add_row(name, text or "=", *(cell for cost in costs for cell in _cost_cells(cost.get(name))))
    table.add_section()
    table.add_row("all", "", *(cell for network in (a, b) for cell in _cost_cells(network)))
    return Group(table, Text(caption))


def _cost_cells(stage: dict[str, Any] | None) -> tuple[str, str]:
    return (f"{stage['macs'] / 1e9:.4g}", f"{stage['params']:,}") if stage else ("-", "-")


def _brief(value: Any) -> str:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class SpaceCosts:
    """What the networks of a space cost, of all combinations or of a random sample.

    `macs` (batch 1) and `params` are (networks): choices that contradict each other have no row. `feasible` of the
    `counted` combinations are networks within limits.
    """

    macs: Floats
    params: Floats
    feasible: int
    counted: int
    whole: bool


def space_costs(
    space: Space, *, enumerate_all: bool = False, report: Callable[[int, int], None] | None = None
) -> SpaceCosts:
    """Costs every combination, or a random sample of a large space.

    `report` hears after each chunk how many combinations are done, of how many. Raises SpaceError where all of
    them are asked for and they are too many.
    """
    slow = bool({"memory_mb", LATENCY} & space.limits.keys())
    whole = enumerate_all or space.size <= (WHOLE_SLOW if slow else WHOLE)
    if whole and space.size > ENUMERATED:
        raise SpaceError(
            f"{space.name}: {space.size:,} combinations are too many to enumerate, which ends at {ENUMERATED:,}; "
            "leave out --enumerate to cost a random sample"
        )
    total = space.size if whole else SAMPLED_SLOW if slow else SAMPLED
    step = CHUNK // 64 if slow else CHUNK
    coster, rows = Coster(space), np.empty((2, total))
    done = kept = feasible = 0
    for positions in chunks(space, step) if whole else samples(space, total, step):
        costs = coster.costs(positions)
        feasible += int(np.count_nonzero(within_limits(space, positions, costs)))
        valid = np.array([costs.macs, costs.params])[:, costs.valid]
        rows[:, kept : kept + valid.shape[1]] = valid
        done, kept = done + len(positions), kept + valid.shape[1]
        if report is not None:
            report(done, total)
    return SpaceCosts(rows[0, :kept], rows[1, :kept], feasible, total, whole)


def space_json(space: Space, costs: SpaceCosts) -> dict[str, Any]:
    """What `archsearch space FILE --json` prints; `counted` is how many networks the figures are of."""
    scale = 1.0 if costs.whole else space.size / costs.counted
    summary = {}
    for name, values in (("macs", costs.macs), ("params", costs.params)):
        values = values if len(values) else np.zeros(1)
        summary[name] = {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}
    return {
        "name": space.name,
        "size": space.size,
        "choices": {p.path: list(p.options) for p in space.parameters if len(p.options) > 1},
        **summary,
        "feasible": round(costs.feasible * scale),
        "counted": "all" if costs.whole else f"a random sample of {costs.counted}",
        "objectives": dict(space.objectives),
        "published": dict(space.published),
    }


def space_table(space: Space, data: dict[str, Any]) -> Group:
    """A space: what may be chosen, how large it is, what its networks cost."""
    limits = ", ".join(f"{name} {limit}" for name, limit in space.limits.items())
    macs, params = data["macs"], data["params"]
    caption = (
        f"{data['size']:,} combinations, {data['feasible']:,} within limits ({limits or 'none'}); counted: "
        f"{data['counted']}\n"
        f"gmacs {macs['min'] / 1e9:.3g} to {macs['max'] / 1e9:.3g}, median {macs['median'] / 1e9:.3g}; "
        f"params {quantity('params', params['min'])} to {quantity('params', params['max'])}, "
        f"median {quantity('params', params['median'])}\n"
        f"published: {', '.join(space.published) or 'none'}"
    )
    table = empty_table(f"{space.name}, from {space.base.name}")
    table.add_column("choice")
    table.add_column("options", overflow="fold")
    for path, options in data["choices"].items():
        table.add_row(escape(path), escape(", ".join(_brief(option) for option in options)))
    return Group(table, Text(caption))


def published_marks(space: Space) -> dict[str, tuple[float, float]]:
    """(macs, params) of each published network in the space."""
    marks = {}
    for name, choices in space.published.items():
        positions = tuple(
            [option_name(option) for option in parameter.options].index(choices[parameter.path])
            if parameter.path in choices
            else 0
            for parameter in space.parameters
        )
        cost = total_cost(lower(space.spec_at(positions)))
        marks[name] = (float(cost.macs), float(cost.params))
    return marks
