"""One set of tensors with the weights of every network of a family: a candidate's are functions of them.

A narrower network has the first channels of each site, a shallower one the first blocks, a smaller kernel the middle
of the larger. A 2D kernel is the 3D one summed over time with a learnt weight for each frame, likewise the spatial
half of a factorised site, with weights of its own; a temporal half and the norm between halves are its own. Gates,
shortcuts, norms and classifiers are shared by name. Of grouped convolutions the first channels of each group are taken.
Statistics of norms are nobody's: they are estimated for each candidate (`read_off`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from archsearch.errors import SpecError
from archsearch.nets.build import build_graph
from archsearch.nets.surgery.channels import Indices, makes_channels
from archsearch.spec.graph import (
    Add,
    Concat,
    Conv,
    Flatten,
    Gate,
    Graph,
    Input,
    Linear,
    Lstm,
    Node,
    Norm,
    Part,
    Scale,
    Triple,
    parts,
)

Shape = tuple[int, ...]
Mix = Literal["sum", "centre"]  # what a 2D kernel is of the 3D one at first
MIXES = ("mix", "mix_space")  # weights of frames: of a 2D kernel, of a spatial half


class Channels(NamedTuple):
    """The shared channel that each of a candidate's is, and how many shared ones there are."""

    source: Indices
    width: int


class Piece(NamedTuple):
    """One tensor of a candidate: of which shared one, which places along the first axes, and how large its kernel is.

    `mix` weighs the frames of a shared kernel that spans several, where this one spans one.
    """

    name: str
    shared: str
    places: tuple[Indices, ...]
    kernel: Triple | tuple[()] = ()
    mix: str | None = None


class Elastic(nn.Module):
    """The shared tensors of a family of graphs: parameters by the names that sites have, `mix` vectors beside them."""

    def __init__(self, graphs: Iterable[Graph], seed: int = 0, mix: Mix = "sum") -> None:
        super().__init__()
        family = list(graphs)
        self._widths = _widths(family)  # no stage begins so
        generator = torch.Generator().manual_seed(seed)
        for name, shape in _shapes(family, self._widths).items():
            tensor = _drawn(name, shape, mix, generator)
            _module_at(self, name).register_parameter(name.rpartition(".")[2], nn.Parameter(tensor))

    def pieces_of(self, graph: Graph) -> list[Piece]:
        """Every parameter of a candidate."""
        return list(pieces(graph, self._widths))


def carve(shared: Elastic, graph: Graph) -> dict[str, Tensor]:
    """The parameters of a candidate as functions of the shared ones, through which gradients flow back.

    Raises SpecError for a network that is not of the family.
    """
    return carve_pieces(dict(shared.named_parameters()), shared.pieces_of(graph))


def carve_pieces(tensors: Mapping[str, Tensor], wanted: Iterable[Piece]) -> dict[str, Tensor]:
    """The same, of pieces that are known."""
    return {piece.name: _carved(piece, tensors) for piece in wanted}


class Member:
    """A candidate that computes with shared weights, its norms by the batch."""

    def __init__(self, shared: Elastic, graph: Graph, name: str) -> None:
        self.pieces = shared.pieces_of(graph)
        with torch.device("meta"):
            self.net = build_graph(graph, name)
        for module in self.net.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.track_running_stats = False
                module.running_mean = module.running_var = module.num_batches_tracked = None

    def __call__(self, shared: Elastic, clip_NCTHW: Tensor) -> Tensor:
        """Logits (N, classes), in training mode."""
        tensors = carve_pieces(dict(shared.named_parameters()), self.pieces)
        logits: Tensor = functional_call(self.net, tensors, (clip_NCTHW,))
        return logits


def read_off(shared: Elastic, graph: Graph, name: str, clips_NCTHW: Sequence[Tensor]) -> fx.GraphModule:
    """A candidate as a network of its own, in evaluation mode: weights copied, norms' statistics those of the clips."""
    net = build_graph(graph, name)
    with torch.no_grad():
        net.load_state_dict(carve(shared, graph), strict=False)
    net = net.to(next(shared.parameters()).device)
    estimate_norms(net, clips_NCTHW)
    return net


@torch.no_grad()
def estimate_norms(net: nn.Module, clips_NCTHW: Sequence[Tensor]) -> None:
    """Gives norms the mean statistics of what they read in training mode; dropout lets all pass. Ends in evaluation."""
    norms = [module for module in net.eval().modules() if isinstance(module, nn.BatchNorm3d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    for clip in clips_NCTHW:
        net(clip)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    net.eval()


def pieces(graph: Graph, widths: Mapping[str, int]) -> Iterator[Piece]:
    """Every parameter of a graph, in its order."""
    known: dict[str, Channels] = {}
    for node in graph.nodes.values():
        reads = [known[name] for name in node.inputs]
        known[node.name] = gives = _gives(node, graph, reads, widths)
        rule = _RULES.get(type(node.op))
        for piece in rule(node.op, graph.input_sizes(node)[0].c, reads[0], gives) if rule else ():
            mix = None if piece.mix is None else f"{node.name}.{piece.mix}"
            yield piece._replace(name=f"{node.name}.{piece.name}", shared=f"{node.name}.{piece.shared}", mix=mix)


# --- which channels


def _gives(node: Node, graph: Graph, reads: list[Channels], widths: Mapping[str, int]) -> Channels:
    """The shared channels that a node gives."""
    if isinstance(node.op, Add):
        return Channels(reads[0].source, max(read.width for read in reads))
    if not makes_channels(node, graph):
        return reads[0]
    if isinstance(node.op, Concat):
        starts = np.cumsum([0, *(read.width for read in reads)])
        sources = [read.source + start for read, start in zip(reads, starts, strict=False)]
        return Channels(np.concatenate(sources), int(starts[-1]))
    if isinstance(node.op, Flatten):
        size = graph.input_sizes(node)[0]
        places = size.t * size.h * size.w
        return Channels((reads[0].source[:, None] * places + np.arange(places)).ravel(), reads[0].width * places)
    return Channels(np.arange(node.size.c), max(widths.get(node.name, 0), node.size.c))


def _widths(family: Iterable[Graph]) -> dict[str, int]:
    """The most channels that each node that makes its own has."""
    found: dict[str, int] = {}
    for graph in family:
        for node in graph.nodes.values():
            if not isinstance(node.op, Input):
                found[node.name] = max(found.get(node.name, 0), node.size.c)
    return found


# --- which pieces, by operation: names within the node


def _conv(op: Conv, c_in: int, reads: Channels, gives: Channels) -> Iterator[Piece]:
    first, *rest = parts(op, c_in)
    alone = op.groups == c_in == op.out > 1
    if not rest:
        rows = reads.source if alone else gives.source
        yield Piece("weight", "weight", (rows, _columns(first, reads.source)), first.kernel, _mix(first, "mix"))
        if op.bias:
            yield Piece("bias", "bias", (rows,))
        return
    each = op.mid // op.groups
    inner = (reads.source[:, None] * each + np.arange(each)).ravel() if alone else np.arange(op.mid)
    ends = (inner, _columns(first, reads.source)), (gives.source, _columns(rest[0], inner))
    if op.first == "space":
        yield Piece("spatial.weight", "weight", ends[0], first.kernel, _mix(first, "mix_space"))
    else:
        yield Piece("temporal.weight", "time_first.temporal.weight", ends[0], first.kernel)
    yield from (piece._replace(name=f"norm.{piece.name}", shared=f"norm.{piece.shared}") for piece in _norm(inner))
    if op.first == "space":
        yield Piece("temporal.weight", "temporal.weight", ends[1], rest[0].kernel)
    else:
        yield Piece("spatial.weight", "time_first.spatial.weight", ends[1], rest[0].kernel)
    if op.bias:
        half = "temporal" if op.first == "space" else "spatial"
        yield Piece(f"{half}.bias", "bias", (gives.source,))


def _columns(part: Part, source: Indices) -> Indices:
    """What a row reads: of groups, the first channels of each."""
    return source if part.groups == 1 else np.arange(part.c_in // part.groups)


def _mix(part: Part, name: str) -> str | None:
    return name if part.kernel[0] == 1 else None


def _norm(source: Indices) -> Iterator[Piece]:
    yield Piece("weight", "weight", (source,))
    yield Piece("bias", "bias", (source,))


def _linear(rows: Indices, columns: Indices, bias: bool, prefix: str = "") -> Iterator[Piece]:
    yield Piece(f"{prefix}weight", f"{prefix}weight", (rows, columns))
    if bias:
        yield Piece(f"{prefix}bias", f"{prefix}bias", (rows,))


def _gate(op: Gate, _: int, reads: Channels, gives: Channels) -> Iterator[Piece]:
    if not op.hidden:
        yield from _linear(reads.source, reads.source, op.bias, "linear.")
        return
    yield from _linear(np.arange(op.hidden), reads.source, op.bias, "reduce.")
    yield from _linear(reads.source, np.arange(op.hidden), op.bias, "expand.")


def _lstm(op: Lstm, _: int, reads: Channels, gives: Channels) -> Iterator[Piece]:
    own = np.arange(op.hidden)
    rows = (np.arange(4)[:, None] * gives.width + own).ravel()  # of its four gates
    yield Piece("lstm.weight_ih_l0", "lstm.weight_ih_l0", (rows, reads.source))
    yield Piece("lstm.weight_hh_l0", "lstm.weight_hh_l0", (rows, own))
    for name in ("lstm.bias_ih_l0", "lstm.bias_hh_l0"):
        yield Piece(name, name, (rows,))


_RULES: dict[type, Callable[[Any, int, Channels, Channels], Iterator[Piece]]] = {  # what has no weights is not listed
    Conv: _conv,
    Norm: lambda op, c_in, reads, gives: _norm(reads.source),
    Linear: lambda op, c_in, reads, gives: _linear(gives.source, reads.source, op.bias),
    Gate: _gate,
    Lstm: _lstm,
    Scale: lambda op, c_in, reads, gives: iter([Piece("weight", "weight", ())]),
}


# --- tensors


def _shapes(family: Iterable[Graph], widths: Mapping[str, int]) -> dict[str, Shape]:
    """Shared tensors, large enough for every piece; weights of frames where one kernel spans several, another one."""
    shapes: dict[str, Shape] = {}
    mixes: dict[str, str] = {}
    for graph in family:
        for piece in pieces(graph, widths):
            needed = (*(int(places.max()) + 1 for places in piece.places), *piece.kernel)
            known = shapes.get(piece.shared, needed)
            shapes[piece.shared] = tuple(map(max, known, needed))
            if piece.mix is not None:
                mixes[piece.mix] = piece.shared
    frames = {mix: shapes[kernel][2] for mix, kernel in mixes.items()}
    return shapes | {mix: (count,) for mix, count in frames.items() if count > 1}


def _drawn(name: str, shape: Shape, mix: Mix, generator: torch.Generator) -> Tensor:
    """As `archsearch.nets.build.initialise` draws it."""
    leaf = name.rpartition(".")[2]
    if leaf in MIXES:
        return torch.ones(shape) if mix == "sum" else torch.eye(shape[0])[shape[0] // 2].clone()
    if leaf.endswith("_l0"):
        share = (shape[0] // 4) ** -0.5
        return torch.empty(shape).uniform_(-share, share, generator=generator)
    if len(shape) == 5:
        return nn.init.kaiming_normal_(torch.empty(shape), mode="fan_out", nonlinearity="relu", generator=generator)
    if len(shape) == 2:
        return nn.init.normal_(torch.empty(shape), 0, 0.01, generator=generator)
    return torch.ones(shape) if leaf == "weight" and shape else torch.zeros(shape)


def _module_at(root: nn.Module, name: str) -> nn.Module:
    """The module that holds a tensor of a dotted name; made where it is missing."""
    for step in name.split(".")[:-1]:
        if step not in root._modules:
            root.add_module(step, nn.Module())
        root = root.get_submodule(step)
    return root


def _carved(piece: Piece, tensors: Mapping[str, Tensor]) -> Tensor:
    tensor = tensors.get(piece.shared)
    if tensor is None or any(len(p) and p.max() >= side for p, side in zip(piece.places, tensor.shape, strict=False)):
        raise SpecError(f"{piece.name}: is of no network that the shared weights were made for")
    for axis, places in enumerate(piece.places):
        tensor = _picked(tensor, axis, places)
    if not piece.kernel:
        return tensor
    if piece.mix is not None and tensor.shape[2] > 1:
        tensor = torch.einsum("oithw,t->oihw", tensor, tensors[piece.mix]).unsqueeze(2)
    for axis, side in enumerate(piece.kernel, start=2):
        tensor = tensor.narrow(axis, (tensor.shape[axis] - side) // 2, side)
    return tensor


def _picked(tensor: Tensor, axis: int, places: Indices) -> Tensor:
    """Some places of an axis; the first ones are a view."""
    if int(places[-1]) == len(places) - 1 and bool((places == np.arange(len(places))).all()):
        return tensor.narrow(axis, 0, len(places))
    return tensor.index_select(axis, torch.from_numpy(places).to(tensor.device))
