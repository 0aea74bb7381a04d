"""What an untrained network promises: four training-free scores of a spec, higher is better.

Each is a function of (spec, seed, batch, clips); `entropy` of the spec alone. `clips` are one batch (N, C, T, H, W) for
each input; without them `batch` clips of Gaussian noise are drawn. Networks have fresh weights of the seed, so that the
same call gives the same number. All raise SpecError where a score is not defined or not finite.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from archsearch.errors import SpecError
from archsearch.nets.build import build, build_graph
from archsearch.nets.layers import Scale
from archsearch.spec.basic import HeadStage
from archsearch.spec.graph import Add, Concat, Conv, Graph, Node, Part, Size, parts
from archsearch.spec.spec import Spec, lower

Clips = Sequence[Tensor]
Acts = nn.ReLU | nn.SiLU | nn.Hardswish
BATCH = 16
NOISE = 0.01  # how far `zen` moves clips, in standard deviations of them
LEVELS = (1, 1, 6)  # what the last three resolutions count in `entropy` (the authors' code, of E3D)
LEAST_ANGLE = 1e-6  # 1 - cosine, below which `entropy` takes a kernel for as long as its map in every direction


def naswot(spec: Spec, seed: int = 0, batch: int = BATCH, clips: Clips | None = None) -> float:
    """How differently clips switch the activations: log |det K|, K_ij the number of units that i and j switch alike.

    Mellor et al. 2021, equation 2; a unit is on where its activation reads more than 0, whatever the activation. Norms
    go by the batch. Two clips or more are compared; the number grows with the batch.
    """
    clips = _clips(spec, seed, batch, clips)
    if len(clips[0]) < 2:
        raise SpecError(f"{spec.name}: naswot compares clips; give 2 or more, not {len(clips[0])}")
    net = build(spec, seed=seed).train()
    kernel = torch.zeros(len(clips[0]), len(clips[0]), dtype=torch.float64)

    def count(_: nn.Module, read: tuple[Tensor, ...]) -> None:
        codes = torch.where(read[0].flatten(1) > 0, 1.0, -1.0)
        kernel.add_((codes @ codes.T + codes.shape[1]) / 2)

    for module in net.modules():
        if isinstance(module, Acts):
            module.register_forward_pre_hook(count)
        elif isinstance(module, nn.Dropout):
            module.eval()
    with torch.no_grad():
        net(*clips)
    if not kernel.any():
        raise SpecError(f"{spec.name}: naswot is of activations, of which it has none")
    return _finite(spec, "naswot", float(torch.linalg.slogdet(kernel)[1]))


def synflow(spec: Spec, seed: int = 0, batch: int = 1, clips: Clips | None = None) -> float:
    """How much signal flows through the weights: log of the sum of |w dR/dw|, R the sum of what the network gives.

    Tanaka et al. 2020, equation 4: absolute weights, an input of ones, norms left out as Abdelfattah et al. 2021 do. In
    float64, and where all signal passes one node it is divided by its mean, which is added in the end: deep networks
    come to the end of float64's range. With ReLU and no gates that changes nothing else. A function of spec and seed:
    `batch` and `clips` change nothing.
    """
    net = _without_norms(build(spec, seed=seed)).double().eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.abs_()
    flow = _Flow(net)
    total: Tensor = flow.run(*(torch.ones(1, *size, dtype=torch.float64) for size in spec.inputs.values()))
    total.sum().backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        moved = sum(float((w * w.grad).abs().sum()) for w in net.parameters() if w.grad is not None)
    return _finite(spec, "synflow", (math.log(moved) if moved > 0 else -math.inf) + flow.log_scale)


def zen(spec: Spec, seed: int = 0, batch: int = BATCH, clips: Clips | None = None) -> float:
    """How far Gaussian noise on clips moves the last feature maps, with what norms took away put back.

    Lin et al. 2021, algorithm 1: log mean |f(x) - f(x + 0.01 e)| + the sum over norms of log sqrt(mean variance of what
    they read). f is what heads read, without shortcuts; kernels are Gaussian with deviation 1, norms go by the batch.
    The mean is over all elements, as in the authors' code (the paper's norm grows with their number).
    """
    clips = _clips(spec, seed, batch, clips)
    trunk = plain_trunk(spec)
    net = build_graph(trunk, spec.name, tuple(trunk.stages)).train()
    generator = torch.Generator().manual_seed(seed)
    _draw_gaussian(net, generator)
    moved = [clip + NOISE * torch.randn(clip.shape, generator=generator) for clip in clips]
    with torch.no_grad(), _variances(net) as seen:
        maps = _flat(net(*clips))
        log_scale = sum(0.5 * math.log(max(variance, 1e-30)) for variance in seen)
        moves = float((_flat(net(*moved)) - maps).abs().double().mean())
    return _finite(spec, "zen", (math.log(moves) if moves > 0 else -math.inf) + log_scale)


def entropy(spec: Spec, seed: int = 0, batch: int = 1, clips: Clips | None = None) -> float:
    """The largest entropy that the feature maps of Gaussian clips and weights can have: STEntr-Score.

    Wang et al. 2023, as their code computes it: a convolution adds log(fan-in a) to the log-variance, where its kernel
    (t, h, w) in a map (T, H, W) counts by a = -log(1 - cosine of the two), 1 for pointwise and temporal kernels. At the
    end of each spatial resolution stand half the log-variance + log channels; of the last three, 1, 1 and 6 times that
    are added. Norms, acts, shortcuts and head do not count; branches that are concatenated have the mean of their
    variances, weighed by channels. Where the paper has one rule for each block, this is the same site by site, and maps
    are those a site gives. `seed`, `batch` and `clips` change nothing.
    """
    trunk = plain_trunk(spec)
    log_variance: dict[str, float] = {}
    levels: dict[tuple[int, int], float] = {}
    for node in trunk.nodes.values():
        log_variance[node.name] = value = _log_variance(node, trunk, log_variance)
        levels[node.size.h, node.size.w] = value / 2 + math.log(node.size.c)
    last = list(levels.values())[-len(LEVELS) :]
    return _finite(spec, "entropy", sum(a * b for a, b in zip(last, LEVELS[-len(last) :], strict=True)))


Score = Callable[[Spec, int, int, Clips | None], float]
SCORES: dict[str, Score] = {"naswot": naswot, "synflow": synflow, "zen": zen, "entropy": entropy}


def plain_trunk(spec: Spec) -> Graph:
    """The graph of a spec without shortcuts and heads; its stages are what the heads read."""
    graph = lower(spec)
    heads = {stage.name for stage in spec.stages if isinstance(stage, HeadStage)}
    stands: dict[str, str] = {}
    nodes: dict[str, Node] = {}
    for node in graph.nodes.values():
        if isinstance(node.op, Add) and not node.op.mean:
            stands[node.name] = stands[node.inputs[-1]]
        else:
            stands[node.name] = node.name
            nodes[node.name] = node._replace(inputs=tuple(stands[read] for read in node.inputs))
    read = [name for node in nodes.values() if node.stage in heads for name in node.inputs]
    ends = dict.fromkeys(name for name in read if nodes[name].stage not in heads) or {stands[graph.output.name]: None}
    needed = set(ends)
    for node in reversed(nodes.values()):
        needed.update(node.inputs if node.name in needed else ())
    kept = {name: node for name, node in nodes.items() if name in needed}
    return Graph(kept, {f"end{number}": name for number, name in enumerate(ends)})


def random_clips(spec: Spec, batch: int, seed: int) -> list[Tensor]:
    """A batch of Gaussian noise for each input: (N, C, T, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, *size, generator=generator) for size in spec.inputs.values()]


def _clips(spec: Spec, seed: int, batch: int, clips: Clips | None) -> Clips:
    """What is given, if it fits; else noise. Raises SpecError."""
    if clips is None:
        return random_clips(spec, batch, seed)
    sizes = [Size(*clip.shape[1:]) for clip in clips]
    if sizes != list(spec.inputs.values()):
        wanted = ", ".join(f"{name} {size}" for name, size in spec.inputs.items())
        raise SpecError(f"{spec.name}: reads {wanted}; the clips are {', '.join(map(str, sizes))}")
    return clips


def _finite(spec: Spec, name: str, value: float) -> float:
    if not math.isfinite(value):
        raise SpecError(f"{spec.name}: {name} is {value}")
    return value


# synflow


def _without_norms(net: fx.GraphModule) -> fx.GraphModule:
    """Every norm lets all pass, and acts leave what they read, which others may read, too."""
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.BatchNorm3d):
            net.set_submodule(name, nn.Identity())
        elif isinstance(module, Acts):
            module.inplace = False
    return net


class _Flow(fx.Interpreter):
    """Runs a network, and divides where all signal passes; `log_scale` is what was divided by."""

    def __init__(self, net: fx.GraphModule) -> None:
        super().__init__(net)
        self.log_scale = 0.0
        self.bottlenecks = _bottlenecks(net.graph)

    def run_node(self, n: fx.Node) -> Any:
        """What the node gives, with mean 1 at a bottleneck."""
        value = super().run_node(n)
        if n not in self.bottlenecks or not isinstance(value, Tensor):
            return value
        mean = float(value.detach().mean())
        if mean <= 0:
            return value
        self.log_scale += math.log(mean)
        return value / mean


def _bottlenecks(graph: fx.Graph) -> set[fx.Node]:
    """The nodes behind which nothing before them is read."""
    places = {node: place for place, node in enumerate(graph.nodes)}
    found, until = set(), 0
    for node, place in places.items():
        if until <= place and node.op in ("call_module", "call_function"):
            found.add(node)
        until = max([until, *(places[user] for user in node.users)])
    return found


# zen


def _draw_gaussian(net: nn.Module, generator: torch.Generator) -> None:
    """Kernels and matrices with deviation 1, no biases, factors of 1."""
    for module in net.modules():
        if isinstance(module, nn.Conv3d | nn.Linear):
            nn.init.normal_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LSTM):
            for weight in module.parameters():
                nn.init.normal_(weight, std=module.hidden_size**-0.5, generator=generator)
        elif isinstance(module, Scale):
            nn.init.ones_(module.weight)


@contextmanager
def _variances(net: nn.Module) -> Iterator[list[float]]:
    """Collects the mean variance over channels of what each norm reads, in the order of the walk."""
    seen: list[float] = []

    def note(_: nn.Module, read: tuple[Tensor, ...]) -> None:
        seen.append(float(read[0].double().var((0, 2, 3, 4), correction=0).mean()))

    handles = [m.register_forward_pre_hook(note) for m in net.modules() if isinstance(m, nn.BatchNorm3d)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _flat(given: tuple[Tensor, dict[str, Tensor]]) -> Tensor:
    """All elements of what the heads read: (N, elements)."""
    return torch.cat([value.flatten(1) for value in given[1].values()], 1)


# entropy


def _log_variance(node: Node, graph: Graph, known: dict[str, float]) -> float:
    """Of what a node gives, by what it reads."""
    if not node.inputs:
        return 0.0
    if isinstance(node.op, Concat | Add):
        return _mean([(known[name], graph.nodes[name].size.c) for name in node.inputs])
    value = known[node.inputs[0]]
    if isinstance(node.op, Conv):
        value += sum(_gain(part, node.size) for part in parts(node.op, graph.input_sizes(node)[0].c))
    return value


def _gain(part: Part, size: Size) -> float:
    """What one convolution adds to the log-variance."""
    fan_in = part.c_in // part.groups * math.prod(part.kernel)
    if part.kernel[1] == 1:
        return math.log(fan_in)
    dot = sum(a * b for a, b in zip(part.kernel, size[1:], strict=True))
    cosine = dot / (math.hypot(*part.kernel) * math.hypot(*size[1:]))
    return math.log(fan_in * -math.log(max(1 - cosine, LEAST_ANGLE)))


def _mean(branches: Sequence[tuple[float, int]]) -> float:
    """The log of the mean variance, weighed by channels; branches are (log-variance, channels)."""
    most = max(log_variance for log_variance, _ in branches)
    total = sum(channels * math.exp(log_variance - most) for log_variance, channels in branches)
    return most + math.log(total / sum(channels for _, channels in branches))
