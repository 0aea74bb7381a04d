"""Counts: published ones to the unit, fvcore's, and what memory a forward holds."""

import json
import math
from pathlib import Path

import pytest

from archsearch.nets.check import check_against_fvcore
from archsearch.spec.cost import metrics, node_costs, peak_memory_bytes, stage_costs, total_cost
from archsearch.spec.graph import parts, windowed
from archsearch.spec.presets import PRESETS, preset
from archsearch.spec.spec import Spec, lower, parse_spec, with_classes, with_clip

GOLDEN = json.loads((Path(__file__).parent / "golden" / "published.json").read_text())
fvcores = pytest.mark.filterwarnings("ignore:.torch.jit.*is deprecated:DeprecationWarning")  # on import, in fvcore
EIGHTEEN = ("r2d", "fr2d", "mc2", "mc3", "mc4", "mc5", "rmc2", "rmc3", "rmc4", "rmc5", "r3d", "r2plus1d")


pytestmark = pytest.mark.usefixtures("one_thread")


def row_id(row):
    return f"{row['key']}-{'x'.join(map(str, row['clip']))}"


def hara(depths, *, wide=1, conv="3d", **fields):
    """Hara et al.'s networks: a 7x7x7 stem that strides space, a pool that strides all, blocks behind it."""
    widths = [width * (1 if "bottleneck" not in fields else 4) for width in (64, 128, 256, 512)]
    stages = [
        {"kind": "conv", "name": "stem", "width": 64 * wide, "kernel": 7, "stride": [1, 2, 2], "conv": conv},
        {"kind": "pool", "name": "pool", "kernel": 3, "stride": 2},
    ]
    for number, (depth, width) in enumerate(zip(depths, widths, strict=True), start=2):
        stride = 1 if number == 2 else 2
        block = {"kind": "residual", "name": f"res{number}", "depth": depth, "width": width, "stride": stride}
        stages.append({**block, "conv": conv, **fields})
    return parse_spec({"name": "hara", "clip": [3, 16, 112, 112], "stages": [*stages, HEAD]}, "hara.yaml")


HEAD = {"kind": "head", "name": "head", "classes": 400}
BEFORE = {"order": "norm-act-conv", "shortcut": "conv-norm"}
RECORDS = {
    "resnet3d_18": lambda: hara((2, 2, 2, 2), shortcut="pad"),
    "resnet3d_34": lambda: hara((3, 4, 6, 3), shortcut="pad"),
    "resnet3d_18_conv_shortcut": lambda: hara((2, 2, 2, 2)),
    "resnet3d_50": lambda: hara((3, 4, 6, 3), bottleneck=0.25),
    "resnet3d_101": lambda: hara((3, 4, 23, 3), bottleneck=0.25),
    "resnext3d_50": lambda: hara((3, 4, 6, 3), bottleneck=0.5, groups=32),
    "resnext3d_101": lambda: hara((3, 4, 23, 3), bottleneck=0.5, groups=32),
    "preresnet3d_18": lambda: hara((2, 2, 2, 2), **BEFORE),
    "preresnet3d_34": lambda: hara((3, 4, 6, 3), **BEFORE),
    "preresnet3d_50": lambda: hara((3, 4, 6, 3), bottleneck=0.25, **BEFORE),
    "wideresnet3d_50_widestem": lambda: hara((3, 4, 6, 3), wide=2, bottleneck=0.5),
    "wideresnet3d_101_widestem": lambda: hara((3, 4, 23, 3), wide=2, bottleneck=0.5),
    "hara_r2plus1d_18": lambda: hara((2, 2, 2, 2), conv="2+1d"),
    "hara_r2plus1d_34": lambda: hara((3, 4, 6, 3), conv="2+1d"),
}


@pytest.mark.parametrize("row", GOLDEN["presets"], ids=row_id)
def test_preset_costs_what_was_published(row):
    spec = with_clip(with_classes(preset(row["preset"]), row["classes"]), row["clip"])
    cost = total_cost(lower(spec))
    assert (cost.macs, cost.params) == (row["macs"], row["params"])


@pytest.mark.parametrize("row", GOLDEN["records"], ids=row_id)
def test_records_cost_what_was_published(row):
    spec = with_clip(with_classes(RECORDS[row["preset"]](), row["classes"]), row["clip"])
    cost = total_cost(lower(spec))
    assert (cost.macs, cost.params) == (row["macs"], row["params"])


def test_golden_counts_cover_the_family():
    names = {f"{name}_18" for name in EIGHTEEN} | {"r3d_34", "r2plus1d_34", "torchvision_r2plus1d_18"}
    assert names <= {row["preset"] for row in GOLDEN["presets"]}
    assert {row["preset"] for row in GOLDEN["records"]} == set(RECORDS)
    assert all(row["source"] for row in GOLDEN["presets"] + GOLDEN["records"])


DEEP = {name for name in PRESETS if name.endswith("_34")} - {"r3d_34", "r2plus1d_34"}  # their 18s stand for them


@fvcores
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in DEEP)) for n in PRESETS])
def test_fvcore_agrees(name):
    check = check_against_fvcore(with_clip(with_classes(preset(name), 5), (3, 4, 32, 32)))
    assert check.agrees, check
    assert set(check.other) <= {"batch_norm"}


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


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18", "mc3_18", "r2d_18", "hara"])
def test_activations_are_what_convolutions_give(name):
    import torch

    from archsearch.nets.build import build

    spec = hara((1, 1, 1, 1), bottleneck=0.25) if name == "hara" else preset(name)
    spec = with_clip(with_classes(spec, 3), (3, 8, 32, 32))
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
    inner = windowed(graph.input_sizes(node)[0], half.out, half.kernel, half.stride, half.padding)
    return 3 * math.prod(inner)


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
