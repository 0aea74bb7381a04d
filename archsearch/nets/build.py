"""Graph -> torch: a walk that carries `torch.fx` proxies.

The result is a `torch.fx.GraphModule`: readable `.code`, parameter names equal to node names, picklable,
compilable, exportable.
"""

import keyword
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from archsearch.errors import SpecError
from archsearch.files import near_or_all
from archsearch.nets import layers
from archsearch.spec.graph import (
    Act,
    Add,
    Concat,
    Conv,
    Dropout,
    Flatten,
    Gate,
    Graph,
    Input,
    Linear,
    Lstm,
    Mean,
    Node,
    Norm,
    Pad,
    Pool,
    Scale,
    Shift,
    parts,
)
from archsearch.spec.spec import Spec, lower

INPUTS = "_inputs"  # no stage begins so


def build(spec: Spec, features: Sequence[str] = (), seed: int | None = None) -> fx.GraphModule:
    """The network of a spec, freshly initialised (He et al. 2015; `seed` makes it the same every time).

    Called with a batch (N, C, T, H, W) for each input, or with one that has the channels of all of them in their order,
    it returns logits (N, classes). With `features`, names of stages, it returns (logits, {stage: its output}). Raises
    SpecError for a stage that is not there.
    """
    graph = lower(spec)
    for name in features:
        if name not in graph.stages:
            raise SpecError(f"{spec.name}: there is no stage '{name}'{near_or_all(name, graph.stages)}")
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)  # recurrent layers draw their weights when they are made
        net = build_graph(graph, spec.name, features)
        if seed is not None:
            torch.manual_seed(seed)
        initialise(net)
    return net


def build_graph(graph: Graph, name: str = "net", features: Sequence[str] = ()) -> fx.GraphModule:
    """The walk itself: one fx node for each graph node. Weights are not drawn yet; `initialise` does that."""
    for stage in graph.stages:
        if keyword.iskeyword(stage) or hasattr(fx.GraphModule, stage) or stage == "training":
            raise SpecError(f"{name}, stage {stage}: torch keeps the name '{stage}' for itself; choose another")
    root = nn.Module()
    traced = fx.Graph()
    sizes = {node.name: node.op.size for node in graph.nodes.values() if isinstance(node.op, Input)}
    proxies = _inputs(root, traced, {name: size.c for name, size in sizes.items()})
    for node in graph.nodes.values():
        reads = [proxies[read] for read in node.inputs]
        if isinstance(node.op, Input):
            continue
        if isinstance(node.op, Add):
            proxies[node.name] = _sum(traced, reads, node.op.mean)
        elif isinstance(node.op, Concat):
            proxies[node.name] = traced.call_function(torch.cat, (reads, 1))
        else:
            _place(root, node.name, layer(node, graph.input_sizes(node)[0].c))
            proxies[node.name] = traced.call_module(node.name, tuple(reads))
    output = proxies[graph.output.name]
    named = {stage: proxies[graph.stages[stage]] for stage in features}
    traced.output((output, named) if named else output)
    return fx.GraphModule(root, traced, class_name=_class_name(name))


def _inputs(root: nn.Module, traced: fx.Graph, channels: Mapping[str, int]) -> dict[str, fx.Node]:
    """What stands for each input in the graph; of several, those behind the first may be left out."""
    first, *others = channels
    given = [traced.placeholder(first, type_expr=Tensor)]
    given += [traced.placeholder(name, type_expr=Tensor, default_value=None) for name in others]
    if not others:
        return {first: given[0]}
    root.add_module(INPUTS, layers.Inputs(tuple(channels.values())))
    split = traced.call_module(INPUTS, tuple(given))
    return {
        name: traced.create_node("call_function", operator.getitem, (split, place), name=name)
        for place, name in enumerate(channels)
    }


def _sum(traced: fx.Graph, reads: list[fx.Node], mean: bool) -> fx.Node:
    """The sum of several nodes, or their mean."""
    result = reads[0]
    for read in reads[1:]:
        result = traced.call_function(operator.add, (result, read))
    return traced.call_function(operator.truediv, (result, len(reads))) if mean else result


def _place(root: nn.Module, name: str, module: nn.Module) -> None:
    """Registers a module under its dotted name, so that parameters stand in the order of the graph."""
    *path, last = name.split(".")
    parent = root
    for step in path:
        if not hasattr(parent, step):
            parent.add_module(step, nn.Module())
        parent = parent.get_submodule(step)
    parent.add_module(last, module)


def layer(node: Node, c_in: int) -> nn.Module:
    """The torch module of one node that reads `c_in` channels."""
    op: Any = node.op
    makers: dict[type, Callable[[], nn.Module]] = {
        Conv: lambda: conv_site(op, c_in),
        Norm: lambda: nn.BatchNorm3d(c_in, eps=op.eps, momentum=op.momentum),
        Act: lambda: layers.activation(op),
        Pool: lambda: layers.MaxPool(op) if op.mode == "max" else layers.AvgPool(op),
        Mean: lambda: layers.Mean(op.over),
        Flatten: layers.Flatten,
        Gate: lambda: layers.Gate(c_in, op),
        Pad: lambda: layers.Pad(c_in, op.out, op.stride),
        Shift: lambda: layers.Shift(op.share),
        Scale: layers.Scale,
        Dropout: lambda: nn.Dropout(op.p),
        Linear: lambda: layers.Linear(c_in, op.out, bias=op.bias),
        Lstm: lambda: layers.Lstm(c_in, op.hidden, op.last),
    }
    return makers[type(op)]()


def conv_site(op: Conv, c_in: int) -> nn.Module:
    """One convolution, or the sequence `spatial norm act temporal` (or time first)."""
    plain = [layers.Conv3d(part) for part in parts(op, c_in)]
    if len(plain) == 1:
        return plain[0]
    names = ("spatial", "temporal") if op.first == "space" else ("temporal", "spatial")
    site = nn.Sequential()
    site.add_module(names[0], plain[0])
    site.add_module("norm", nn.BatchNorm3d(op.mid, eps=op.norm.eps, momentum=op.norm.momentum))
    site.add_module("act", layers.activation(op.act))
    site.add_module(names[1], plain[1])
    return site


def initialise(net: nn.Module) -> None:
    """He et al. 2015 (fan out) for convolutions, a small normal for the classifier, ones and zeros for norms."""
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
        if isinstance(module, nn.Conv3d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def fresh_site(node: Node, c_in: int, drawn: bool) -> dict[str, Tensor]:
    """The state of one node's module that reads `c_in` channels, by its own names; weights are drawn, or yet to be."""
    module = layer(node, c_in)
    if drawn:
        initialise(module)
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}


def _class_name(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
