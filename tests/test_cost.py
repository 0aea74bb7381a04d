"""Counts: published ones to the unit, fvcore's, and what memory a forward holds."""

import json
import math
from pathlib import Path

import pytest

from archsearch.nets.check import check_against_fvcore
from archsearch.spec.basic import HeadStage
from archsearch.spec.cost import metrics, node_costs, peak_memory_bytes, stage_costs, total_cost
from archsearch.spec.graph import parts, windowed
from archsearch.spec.kept import kept_cost
from archsearch.spec.presets import PRESETS, preset
from archsearch.spec.spec import Spec, lower, parse_spec, with_classes, with_clip
from archsearch.spec.tensors import tensor_shapes

GOLDEN = json.loads((Path(__file__).parent / "golden" / "published.json").read_text())
fvcores = pytest.mark.filterwarnings("ignore:.torch.jit.*is deprecated:DeprecationWarning")  # on import, in fvcore
pytestmark = pytest.mark.usefixtures("one_thread")


def row_id(row):
    return f"{row['key']}-{'x'.join(map(str, row['clip']))}"


@pytest.mark.parametrize("row", GOLDEN["networks"], ids=row_id)
def test_preset_costs_what_was_published(row):
    spec = with_clip(with_classes(preset(row["preset"]), row["classes"]), row["clip"])
    cost = total_cost(lower(spec))
    assert (cost.macs, cost.params) == (row["macs"], row["params"])
    assert kept_cost(spec) == cost
    assert row["source"]


def test_golden_counts_cover_every_family():
    published = {row["preset"] for row in GOLDEN["networks"]}
    assert len(GOLDEN["networks"]) == 139
    assert published <= set(PRESETS)
    assert len(published) == 97


@pytest.mark.parametrize("name", PRESETS)
def test_kept_stage_results_give_the_same(name):
    spec = preset(name)
    assert kept_cost(spec) == total_cost(lower(spec))
    assert set(tensor_shapes(lower(spec))) >= {f"{head.name}.linear.weight" for head in spec.stages if heads(head)}


def heads(stage):
    return isinstance(stage, HeadStage)


def small_clip(spec):
    """The spec for clips small enough to count in a moment, of which every stage leaves something."""
    frames = {"slow": 8, "fast": 32}
    sizes = {name: (size.c, frames.get(name, 16), 64, 64) for name, size in spec.inputs.items()}
    return spec.model_copy(update={"clip": sizes if len(sizes) > 1 else sizes["clip"]})


# one of each way to build a network; the others are in the slow tests
# fmt: off
QUICK = (
    "r2d_18", "mc3_18", "r3d_18", "r2plus1d_18", "i2d", "s3d_g", "fast_s3d", "inception_lstm", "preresnet3d_18",
    "ip_csn_50", "tsm_r50", "slowfast_r50", "x3d_s", "movinet_a0",
)
# fmt: on


@fvcores
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in PRESETS])
def test_fvcore_agrees(name):
    check = check_against_fvcore(small_clip(with_classes(preset(name), 5)))
    assert check.agrees, check
    assert set(check.other) <= {"batch_norm", "adaptive_avg_pool3d"}
    assert (check.recurrent > 0) == (name == "inception_lstm") == any("lstm" in op for op in check.uncounted)


def small(*stages, clip=(4, 4, 8, 8)):
    return parse_spec({"name": "small", "clip": clip, "stages": list(stages)}, "small.yaml")


@fvcores
@pytest.mark.parametrize("pool", ["both", "space", "time"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_gate_is_a_linear_map_at_each_place_its_mean_leaves(pool, bias):
    gate = {"pool": pool, "bias": bias}
    stem = {"kind": "conv", "name": "stem", "width": 6, "gate": gate}
    spec = small(stem, {"kind": "head", "name": "head", "classes": 3})
    cost = node_costs(lower(spec))["stem.gate"]
    places = {"both": 1, "space": 4, "time": 64}[pool]
    assert (cost.macs, cost.params, cost.activations) == (36 * places, 36 + 6 * bias, 0)
    assert check_against_fvcore(spec).agrees


def test_stage_costs_and_node_costs_add_up():
    graph = lower(preset("r2plus1d_18"))
    total = total_cost(graph)
    stages = stage_costs(graph)
    assert list(stages) == ["stem", "res2", "res3", "res4", "res5", "head"]
    for field in ("macs", "params", "activations"):
        assert sum(getattr(cost, field) for cost in stages.values()) == getattr(total, field)
    assert stages["head"].params == 513 * 400
    found = metrics(graph)
    assert found["gmacs"] == total.macs / 1e9
    assert found["memory_mb"] == peak_memory_bytes(graph) / 1e6


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18", "mc3_18", "r2d_18", "resnet3d_50", "r2plus1d_r50"])
def test_activations_are_what_convolutions_give(name):
    import torch

    from archsearch.nets.build import build

    spec = with_clip(with_classes(preset(name), 3), (3, 8, 32, 32))
    counted = []
    net = build(spec, seed=0).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.register_forward_hook(lambda _, __, out: counted.append(out.numel()))
    with torch.no_grad():
        net(torch.zeros(1, 3, 8, 32, 32))
    assert total_cost(lower(spec)).activations == sum(counted)


def elements_inside(node, graph):
    """Numbers between the halves of a factorised site: a map, its norm and its activation."""
    halves = parts(node.op, graph.input_sizes(node)[0].c) if hasattr(node.op, "mid") else ()
    if len(halves) != 2:
        return 0
    half = halves[0]
    return 3 * math.prod(windowed(graph.input_sizes(node)[0], half.out, half))


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18", "mc4_18", "two_streams"])
def test_peak_memory_is_the_largest_live_set(name):
    graph = lower(two_streams() if name == "two_streams" else preset(name))
    order = list(graph.nodes)
    peaks = []
    for now, node in enumerate(graph.nodes.values()):
        needed_later = {read for later in order[now:] for read in graph.nodes[later].inputs}
        alive = {made for made in order[:now] if made in needed_later} | {node.name}
        peaks.append(sum(math.prod(graph.nodes[made].size) for made in alive) + elements_inside(node, graph))
    everything = sum(math.prod(node.size) + elements_inside(node, graph) for node in graph.nodes.values())
    assert peak_memory_bytes(graph) == 4 * max(peaks)
    assert peak_memory_bytes(graph, batch=3) == 12 * max(peaks)
    assert peak_memory_bytes(graph, training=True) == 4 * everything


def two_streams() -> Spec:
    return parse_spec(
        {
            "name": "two",
            "clip": {"rgb": [3, 8, 32, 32], "flow": [2, 8, 32, 32]},
            "stages": [
                {"kind": "conv", "name": "a", "from": "rgb", "width": 8},
                {"kind": "conv", "name": "b", "from": "flow", "width": 4},
                {"kind": "residual", "name": "both", "from": ["a", "b"], "depth": 1, "width": 8, "stride": 2},
                {"kind": "head", "name": "head", "classes": 3},
            ],
        },
        "two.yaml",
    )
