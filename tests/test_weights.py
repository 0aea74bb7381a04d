"""Weights of other projects: the same scores as there, bit for bit on the way back, one line for whatever is wrong."""

import json
import pickle
import re
import shutil
import warnings
from collections import OrderedDict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from reference_layouts import CLIPS, EPS, LAYOUTS, hara_resnet, random_weights, torchvision_resnet
from safetensors.torch import load_file, save_file

from archsearch.errors import RunError, WeightsError
from archsearch.files import parse_yaml
from archsearch.nets.build import build
from archsearch.nets.dialects import DIALECTS
from archsearch.nets.weights import export_weights, import_weights, layout_of, looks_like, read_state
from archsearch.spec.presets import PRESETS, load_spec, preset
from archsearch.spec.spec import SpecError, lower, parse_spec, spec_yaml, with_classes, with_clip
from archsearch.spec.tensors import tensor_shapes
from archsearch.store import open_store, read_json
from archsearch.training.checkpoint import START, WEIGHTS, load_weights, read_weights
from archsearch.training.clips import as_clip
from archsearch.training.recipe import Recipe
from archsearch.training.single import read_network, train_single

pytestmark = pytest.mark.usefixtures("one_thread")

KNOWN = {  # layout -> (preset, dialect, whether its test is quick)
    "torchvision_r3d_18": ("r3d_18", "torchvision", False),
    "torchvision_mc3_18": ("mc3_18", "torchvision", True),
    "torchvision_r2plus1d_18": ("torchvision_r2plus1d_18", "torchvision", False),
    "torchvision_s3d": ("s3d", "torchvision", False),
    "kylemin_s3d": ("s3d", "kylemin", True),
    "piergiaj_i3d_rgb400": ("i3d", "piergiaj", True),
    "hassony2_i3d_rgb400": ("i3d", "hassony2", True),
    "hara_resnet18": ("resnet3d_18_conv_shortcut", "hara", False),
    "hara_resnet18_shortcutA": ("resnet3d_18", "hara2018", False),
    "hara_resnet2p1d18": ("hara_r2plus1d_18", "hara", False),
    "hara_resnet50": ("resnet3d_50", "hara", False),
    "hara_densenet121": ("densenet3d_121", "hara", False),
    "hara2018_preresnet18_B": ("preresnet3d_18", "hara2018", False),
    "hara2018_resnext50_c32": ("resnext3d_50", "hara2018", False),
    "hara2018_wideresnet50_k2": ("wideresnet3d_50", "hara2018", False),
    "pytorchvideo_c2d_r50": ("c2d_r50", "pytorchvideo", False),
    "pytorchvideo_i3d_r50": ("i3d_r50", "pytorchvideo", False),
    "pytorchvideo_slow_r50": ("slow_r50", "pytorchvideo", False),
    "pytorchvideo_r2plus1d_r50": ("r2plus1d_r50", "pytorchvideo", False),
    "pytorchvideo_x3d_s": ("x3d_s", "pytorchvideo", True),
}
LEAVES = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
COUNTER = "num_batches_tracked"

RESIDUAL = """
name: tiny
clip: [3, 4, 32, 32]
stages:
  - {kind: conv, name: stem, width: 8, kernel: [3, 7, 7], stride: [1, 2, 2]}
  - {kind: residual, name: res2, depth: 2, width: 8}
  - {kind: residual, name: res3, depth: 2, width: 16, stride: 2}
  - {kind: head, name: head, classes: 400}
"""
DEEP = RESIDUAL.replace("name: res2, depth: 2", "name: res2, depth: 1")
HARA = RESIDUAL.replace("kernel: [3, 7, 7]", "kernel: 7")
HARA_2018 = HARA.replace("depth: 2, width: 8}", "depth: 2, width: 8, order: norm-act-conv}")
INCEPTION = """
name: tiny
clip: [3, 16, 32, 32]
stages:
  - {kind: conv, name: conv1a, width: 8, kernel: 7, stride: [2, 2, 2]}
  - {kind: pool, name: pool2a, kernel: [1, 3, 3], stride: [1, 2, 2]}
  - {kind: conv, name: conv2b, width: 8, kernel: 1}
  - {kind: conv, name: conv2c, width: 12}
  - {kind: pool, name: pool3a, kernel: [1, 3, 3], stride: [1, 2, 2]}
  - {kind: inception, name: mixed3b, widths: [4, 4, 8, 4, 4, 4]}
  - {kind: head, name: head, classes: 400, pool: [2, all, all]}
"""
SEPARABLE = (
    INCEPTION.replace("width: 8", "conv: separable, width: 8")
    .replace("width: 12", "conv: separable, width: 12")
    .replace("4, 4]}", "4, 4], conv: separable}")
)
GATED = """
name: tiny
clip: [3, 4, 32, 32]
stages:
  - {kind: conv, name: stem_space, width: 8, kernel: [1, 3, 3], stride: [1, 2, 2], norm: false, act: none}
  - {kind: conv, name: stem_time, width: 8, kernel: [5, 1, 1], groups: depthwise}
  - {kind: inverted, name: res2, depth: 2, width: 8, stride: [1, 2, 2], gate: {bias: true, reduction: 16.0},
     gate_every: 2, inner_act: silu, shortcut: conv}
  - {kind: conv, name: last, width: 16, kernel: 1}
  - {kind: head, name: head, classes: 400, pool: [4, 5, 5], hidden: [24], bias: false}
"""
TINY = {  # dialect -> a small network that it has
    "torchvision": RESIDUAL,
    "vmz": DEEP,
    "kylemin": SEPARABLE,
    "piergiaj": INCEPTION,
    "hassony2": INCEPTION,
    "hara": HARA,
    "hara2018": HARA_2018,
    "pytorchvideo": GATED,
}


@pytest.fixture
def refused(cli, tmp_path):
    """The lines of an import that fails: exit code 1, nothing on stdout, nothing written."""

    def run(file, *args, lines=1, network=None):
        spec = tmp_path / "tiny.yaml"
        spec.write_text(RESIDUAL)
        before = sorted(tmp_path.rglob("*"))
        code, out, said = cli(
            "weights", "import", file, "--as", network or spec, "--out", tmp_path / "new" / "out", *args
        )
        assert (code, out) == (1, "")
        assert sorted(tmp_path.rglob("*")) == before
        assert len(said) == lines, said
        assert all(line.isprintable() and len(line) < 1000 for line in said)
        return said[0] if lines == 1 else said

    return run


@pytest.fixture
def scratch(tmp_path):
    """A folder that is emptied at once: weight files are large."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def spec_of(text):
    return parse_spec(parse_yaml(text, "tiny.yaml", SpecError), "tiny.yaml")


def rows_of(layout):
    """The lines of a golden file: `key shape [dtype]`."""
    for line in (Path(__file__).parent / "golden" / "layouts" / f"{layout}.txt").read_text().splitlines():
        key, shape, *dtype = line.split()
        sizes = () if shape == "-" else tuple(map(int, shape.split("x")))
        yield key, sizes, dtype[0] if dtype else "float32"


def theirs(dialect, spec, seed=0):
    """Random weights of a network as a project keeps it."""
    known = next(found for found in DIALECTS if found.name == dialect and found.fits(spec))
    places = layout_of(known, spec).places
    rows = [(name, shape, "int64" if name.endswith(COUNTER) else "float32") for name, (_, shape) in places.items()]
    return random_weights(rows, seed)


def saved(path, content):
    """Writes what a project would write."""
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    assert all(found[name].dtype == tensor.dtype for name, tensor in expected.items())
    assert all(found[name].shape == tensor.shape for name, tensor in expected.items())
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def network_in(folder, clip=None):
    """The network of a folder with its weights, for scoring."""
    store = open_store(str(folder))
    spec, _, _ = read_network(store)
    net = build(spec if clip is None else with_clip(spec, clip)).eval()
    load_weights(store, net)
    return spec, net


def assert_same_scores(net, forward, state, clip):
    x = torch.randn(1, *clip, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = forward(state, x), net(x)
    assert found.shape == expected.shape
    assert expected.abs().max() > 1e-3
    assert (found - expected).abs().max() / expected.abs().max() < 1e-4


@pytest.fixture
def spec():
    return spec_of(RESIDUAL)


@pytest.fixture
def state(spec):
    """A whole state dict of the tiny network in torchvision's layout."""
    return theirs("torchvision", spec)


# The same scores, and the same file on the way back.


def layouts():
    for layout, (_, _, quick) in KNOWN.items():
        yield pytest.param(layout, marks=[] if quick else pytest.mark.slow)


@pytest.mark.parametrize("layout", list(layouts()))
def test_a_file_scores_as_there_and_comes_back_bit_for_bit(cli, scratch, layout):
    name, dialect, _ = KNOWN[layout]
    state = random_weights(tuple(rows_of(layout)), seed=0)
    file = saved(scratch / ("a.pt" if len(layout) % 2 else "a.safetensors"), state)
    code, out, said = cli("weights", "import", file, "--as", name)
    assert (code, said) == (0, [])
    folder = scratch / "a"
    assert out.startswith(f"{folder}: {name}, {len(state)} tensors from ")
    facts = json.loads((folder / "origin.json").read_text())
    assert (facts["dialect"], facts["placed"], facts["fresh"], facts["remarks"]) == (dialect, len(state), 0, [])
    spec, net = network_in(folder, CLIPS[layout])
    assert spec.norm.eps == EPS[layout]
    assert_same_scores(net, LAYOUTS[layout], state, CLIPS[layout])
    for suffix in (".pt", ".safetensors"):
        back = scratch / f"back{suffix}"
        assert cli("weights", "export", folder, "--as", dialect, "--out", back) == (0, f"{back}\n", [])
        read = load_file(back) if suffix == ".safetensors" else torch.load(back, weights_only=True)
        assert_equal(read, state)
        back.unlink()


def test_every_layout_is_tested():
    assert KNOWN.keys() == LAYOUTS.keys()
    folder = Path(__file__).parent / "golden" / "layouts"
    assert KNOWN.keys() == {path.stem for path in folder.glob("*.txt")}
    assert {dialect for _, dialect, _ in KNOWN.values()} == {dialect.name for dialect in DIALECTS} - {"vmz"}
    quick = {dialect for _, dialect, quick in KNOWN.values() if quick} | {dialect for dialect, *_ in SMALL.values()}
    assert quick == {dialect for _, dialect, _ in KNOWN.values()}


STRIDES = ((1, 1, 1), (2, 2, 2))
POOLED = HARA.replace(
    "  - {kind: residual, name: res2", "  - {kind: pool, name: pool}\n  - {kind: residual, name: res2"
)
SMALL = {  # the same forwards for networks small enough for every day: dialect, network, forward
    "3d": ("torchvision", RESIDUAL, partial(torchvision_resnet, strides=STRIDES)),
    "2+1d": (
        "torchvision",
        RESIDUAL.replace("depth: 2,", "depth: 2, conv: 2+1d, mid: block,").replace(
            "8, kernel", "8, conv: 2+1d, kernel"
        ),
        partial(torchvision_resnet, strides=STRIDES),
    ),
    "hara": ("hara", POOLED, partial(hara_resnet, depths=(2, 2), convs=2)),
    "shortcut A": (
        "hara2018",
        POOLED.replace("depth: 2,", "depth: 2, shortcut: pad,"),
        partial(hara_resnet, depths=(2, 2), convs=2),
    ),
    "pre-activation": (
        "hara2018",
        POOLED.replace("depth: 2,", "depth: 2, order: norm-act-conv,"),
        partial(hara_resnet, depths=(2, 2), convs=2, pre=True),
    ),
    "groups": (
        "hara2018",
        POOLED.replace("depth: 2,", "depth: 2, bottleneck: 0.5, groups: 2,"),
        partial(hara_resnet, depths=(2, 2), convs=3),
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_small_network_scores_as_there(tmp_path, name):
    dialect, text, forward = SMALL[name]
    spec = spec_of(text)
    state = theirs(dialect, spec)
    found = import_weights(saved(tmp_path / "a.pt", state), spec)
    assert found.dialect.name == dialect
    net = build(found.spec).eval()
    net.load_state_dict(found.state)
    for clip in ((3, 4, 32, 32), (3, 5, 37, 41)):
        assert_same_scores(net, forward, state, clip)


def test_odd_sizes_are_padded_as_tensorflow_pads_them(scratch):
    layout = "piergiaj_i3d_rgb400"
    state = random_weights(tuple(rows_of(layout)), seed=2)
    found = import_weights(saved(scratch / "a.pt", state), preset("i3d"))
    for clip in ((3, 19, 75, 75), (3, 18, 70, 41)):
        net = build(with_clip(found.spec, clip)).eval()
        net.load_state_dict(found.state)
        assert_same_scores(net, LAYOUTS[layout], state, clip)


@pytest.mark.parametrize("dialect", TINY)
def test_a_small_network_in_every_layout_and_back(tmp_path, dialect):
    spec = spec_of(TINY[dialect])
    state = theirs(dialect, spec)
    found = import_weights(saved(tmp_path / "a.safetensors", state), spec)
    assert (found.dialect.name, found.placed, found.remarks) == (dialect, len(state), ())
    assert_equal(export_weights(found.spec, found.state, dialect), state)
    assert import_weights(tmp_path / "a.safetensors", spec, dialect=dialect).dialect.name == dialect
    build(found.spec).load_state_dict(found.state)


def test_what_norms_and_padding_have_to_be_travels(cli, tmp_path):
    expected = {
        "torchvision": (1e-5, 0.1, "symmetric"),
        "vmz": (1e-3, 0.1, "symmetric"),
        "kylemin": (1e-3, 1e-3, "symmetric"),
        "piergiaj": (1e-3, 1e-2, "same"),
        "hassony2": (1e-3, 0.1, "same"),
        "hara": (1e-5, 0.1, "symmetric"),
        "hara2018": (1e-5, 0.1, "symmetric"),
        "pytorchvideo": (1e-5, 0.1, "symmetric"),
    }
    for dialect, rule in expected.items():
        (tmp_path / f"{dialect}.yaml").write_text(TINY[dialect])
        file = saved(tmp_path / f"{dialect}.pt", theirs(dialect, spec_of(TINY[dialect])))
        code, _, said = cli("weights", "import", file, "--as", tmp_path / f"{dialect}.yaml")
        assert (code, said) == (0, [])
        spec = load_spec(str(tmp_path / dialect))
        assert (spec.norm.eps, spec.norm.momentum, spec.padding) == rule
        assert load_spec(str(tmp_path / dialect / "spec.yaml")) == spec


# Names and shapes of every network that a project has.


def having():
    """Every network with every layout that it is kept in. A separable inception network is S3D's, another is I3D's."""
    for name in PRESETS:
        spec, kept = preset(name), 0
        fitting = [dialect for dialect in DIALECTS if dialect.fits(spec)]
        for dialect in fitting:
            try:
                layout = layout_of(dialect, spec)
            except WeightsError:
                assert re.search("S3D|I3D", dialect.about), (name, dialect.about)
                continue
            kept += 1
            yield spec, layout
        assert kept or not fitting or re.match("s3d_g|fast_s3d|top_heavy_s3d|inception_lstm", name), name


def test_every_preset_that_a_project_has_keeps_all_its_tensors():
    seen = set()
    for spec, layout in having():
        dialect = layout.dialect
        ours = tensor_shapes(lower(spec))
        assert [name for name, _ in layout.places.values()] == list(ours), (spec.name, dialect.about)  # none is lost
        assert all(name.rpartition(".")[2] in LEAVES and name.isascii() for name in layout.places)
        assert all("{" not in name and "None" not in name and ".." not in name for name in layout.places)
        empty = {name: torch.empty(shape, device="meta") for name, shape in ours.items()}
        written = {name: tuple(tensor.shape) for name, tensor in export_weights(spec, empty, dialect.name).items()}
        assert written == {name: shape for name, (_, shape) in layout.places.items()}
        assert (layout.agreement(written), layout.missing(written), layout.left_over(written)) == (1, [], [])
        seen.add(dialect.about)
    assert seen == {dialect.about for dialect in DIALECTS}


def test_layouts_of_one_network_are_told_apart():
    networks = {}
    for spec, layout in having():
        networks.setdefault(spec.name, []).append(layout)
    several = [layouts for layouts in networks.values() if len(layouts) > 1]
    assert several
    for layouts in several:
        for layout in layouts:
            shapes = {name: shape for name, (_, shape) in layout.places.items()}
            assert [other.dialect for other in layouts if other.agreement(shapes) >= 0.5] == [layout.dialect]


@pytest.mark.parametrize(("name", "classes"), [("resnext3d_50", 400), ("preresnet3d_18", 700), ("x3d_s", 11)])
def test_a_file_is_recognised_whatever_its_classes_and_without_counters(name, classes):
    spec = with_classes(preset(name), classes)
    dialect = next(dialect for dialect in DIALECTS if dialect.fits(spec))
    places = layout_of(dialect, spec).places.items()
    found, about, share = looks_like({theirs: shape for theirs, (_, shape) in places if not theirs.endswith(COUNTER)})
    assert (found.removesuffix("s")[:4], about, share) == (name.removesuffix("s")[:4], dialect.about, 1)


# Wrappers, prefixes, counters, types.


@pytest.mark.parametrize("key", ["state_dict", "model_state", "model_state_dict", "model"])
def test_a_checkpoint_is_unwrapped(tmp_path, spec, state, key):
    wrapped = {"epoch": 3, "arch": "x", key: OrderedDict(state), "optimizer": {"lr": 0.1, 5: [torch.ones(2)]}, 7: None}
    found = import_weights(saved(tmp_path / "a.pt", wrapped), spec)
    assert found.remarks == (f"read from '{key}'; left alone: epoch, arch, optimizer, 7",)
    assert_equal(export_weights(found.spec, found.state, "torchvision"), state)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_prefixes_are_taken_off(tmp_path, spec, state, prefix, wrapped):
    named = {prefix + name: tensor for name, tensor in state.items()}
    found = import_weights(saved(tmp_path / "a.pt", {"state_dict": named} if wrapped else named), spec)
    assert sum("taken off" in remark for remark in found.remarks) == prefix.count(".")
    assert_equal(export_weights(found.spec, found.state, "torchvision"), state)


def test_a_prefix_of_some_names_stays(tmp_path, spec, state):
    name = next(iter(state))
    mixed = {f"module.{name}" if name == key else key: tensor for key, tensor in state.items()}
    with pytest.raises(WeightsError) as caught:
        import_weights(saved(tmp_path / "a.pt", mixed), spec)
    assert [line.rpartition(": ")[2] for line in caught.value.lines[:2]] == [name, f"module.{name}"]


def test_counters_that_are_older_than_torch_are_zero(tmp_path, spec, state):
    old = {name: tensor for name, tensor in state.items() if not name.endswith(COUNTER)}
    found = import_weights(saved(tmp_path / "a.pt", old), spec)
    counters = len(state) - len(old)
    assert found.remarks == (f"{counters} batch counters are not in the file; they start at 0",)
    assert found.placed == len(old)
    assert all(int(tensor) == 0 for name, tensor in found.state.items() if name.endswith(COUNTER))
    back = export_weights(found.spec, found.state, "torchvision")
    assert_equal({name: back[name] for name in old}, old)
    assert back.keys() == state.keys()


def test_counters_are_kept(tmp_path, spec, state):
    found = import_weights(saved(tmp_path / "a.pt", state), spec)
    assert found.state["stem.norm.num_batches_tracked"] == state["stem.1.num_batches_tracked"] > 0
    assert found.state["stem.norm.num_batches_tracked"].dtype is torch.int64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_and_said(tmp_path, spec, state, dtype):
    half = {name: tensor if name.endswith(COUNTER) else tensor.to(dtype) for name, tensor in state.items()}
    floats = sum(not name.endswith(COUNTER) for name in state)
    for path in (tmp_path / "a.pt", tmp_path / "a.safetensors"):
        found = import_weights(saved(path, half), spec)
        assert found.remarks == (f"{floats} tensors in half precision, widened to float32",)
        back = export_weights(found.spec, found.state, "torchvision")
        assert_equal(back, {name: value.float() if name not in half or value.dtype is dtype else value
                            for name, value in half.items()})  # fmt: skip


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("fc.weight", torch.int32),
        ("fc.weight", torch.float64),
        ("fc.bias", torch.bool),
        ("fc.bias", torch.complex64),
        (f"stem.1.{COUNTER}", torch.float32),
        (f"stem.1.{COUNTER}", torch.int32),
    ],
)
def test_another_type_is_refused(refused, tmp_path, state, name, dtype):
    state[name] = state[name].to(dtype)
    line = refused(saved(tmp_path / "a.pt", state))
    assert line.startswith(f"{tmp_path / 'a.pt'}: 1 of another type than float32 (counters int64): {name} is ")
    assert line.endswith(str(dtype).removeprefix("torch."))


def test_tensors_that_share_memory_or_lie_otherwise(cli, tmp_path, spec, state):
    state["layer1.0.conv2.0.weight"] = state["layer1.0.conv1.0.weight"]  # one storage, two names
    whole = torch.randn(2, *state["layer2.0.conv2.0.weight"].shape)
    state["layer2.0.conv2.0.weight"], state["layer2.1.conv1.0.weight"] = whole  # two views of one
    state["fc.weight"] = torch.randn(16, 400).t()
    state["stem.1.bias"] = torch.ones(1).expand(8)
    state["fc.bias"] = torch.nn.Parameter(state["fc.bias"])
    (tmp_path / "tiny.yaml").write_text(RESIDUAL)
    code, _, _ = cli("weights", "import", saved(tmp_path / "a.pt", state), "--as", tmp_path / "tiny.yaml")
    assert code == 0
    for name in ("b.safetensors", "b.pt"):
        code, _, _ = cli("weights", "export", tmp_path / "a", "--as", "torchvision", "--out", tmp_path / name)
        assert code == 0
        assert_equal(read_state(tmp_path / name)[0], {key: value.detach() for key, value in state.items()})


def test_weights_that_are_no_numbers_are_said(tmp_path, spec, state):
    state["stem.0.weight"][0, 0, 0, 0, 0] = float("nan")
    state["fc.bias"][3] = float("inf")
    found = import_weights(saved(tmp_path / "a.pt", state), spec)
    assert found.remarks == ("2 tensors hold nan or inf: stem.0.weight, fc.bias",)
    assert found.state["head.linear.bias"][3] == float("inf")


# Classifiers.


@pytest.mark.parametrize("dialect", TINY)
def test_a_classifier_of_another_size_stays_as_in_the_file(tmp_path, dialect):
    spec = spec_of(TINY[dialect])
    state = theirs(dialect, with_classes(spec, 700))
    file = saved(tmp_path / "a.pt", state)
    for classes in (None, 700):
        found = import_weights(file, spec, classes=classes)
        assert found.spec.classes == 700
        assert found.remarks == ("classifier: 700 classes, as in the file",)
        assert_equal(export_weights(found.spec, found.state, dialect), state)


@pytest.mark.parametrize("dialect", TINY)
def test_a_classifier_is_replaced_where_other_classes_are_asked_for(tmp_path, dialect):
    spec = spec_of(TINY[dialect])
    state = theirs(dialect, with_classes(spec, 700))
    file = saved(tmp_path / "a.pt", state)
    found, again = (import_weights(file, spec, classes=11) for _ in range(2))
    assert found.spec.classes == 11
    assert found.remarks == ("classifier: a fresh one for 11 classes instead of 700",)
    assert found.placed == len(state) - 2
    assert_equal(found.state, again.state)
    kept = import_weights(file, spec).state
    heads = {"head.linear.weight", "head.linear.bias"}
    assert_equal({k: v for k, v in found.state.items() if k not in heads},
                 {k: v for k, v in kept.items() if k not in heads})  # fmt: skip
    assert [found.state[name].shape[0] for name in heads] == [11, 11]
    assert found.state["head.linear.weight"].std() > 0
    build(found.spec).load_state_dict(found.state)


def test_replaced_classifiers_on_the_command_line(cli, tmp_path, state):
    (tmp_path / "tiny.yaml").write_text(RESIDUAL)
    file = saved(tmp_path / "a.pt", state)
    code, out, said = cli("weights", "import", file, "--as", tmp_path / "tiny.yaml", "--classes", 11, "--json")
    facts = json.loads(out)
    assert (code, facts["classes"], facts["fresh"]) == (0, 11, 2)
    assert said == [f"{file}: classifier: a fresh one for 11 classes instead of 400"]
    assert (tmp_path / "a" / "labels.txt").read_text().splitlines() == [str(number) for number in range(11)]


def test_a_classifier_with_a_bias_of_another_size_is_a_fault(refused, tmp_path, state):
    state["fc.bias"] = torch.zeros(700)
    line = refused(saved(tmp_path / "a.pt", state))
    assert line.endswith("1 of another shape: fc.bias is 700 instead of 400")
    state["fc.weight"] = torch.zeros(0, 16)
    assert "fc.weight is 0x16 instead of 400x16" in refused(saved(tmp_path / "a.pt", state))


# Faults: one line each, nothing written.


def test_names_that_are_not_known(cli, refused, tmp_path, state):
    file = saved(tmp_path / "a.pt", state)
    assert refused(file, network="r3d_81") == "there is no preset 'r3d_81'; did you mean 'r3d_18'?"
    assert refused(file, "--dialect", "torchvison") == "there is no dialect 'torchvison'; did you mean 'torchvision'?"
    assert "there are: torchvision, vmz, kylemin, " in refused(file, "--dialect", "zzz")
    assert "no known project has a network of this kind" in refused(file, network="movinet_a0")
    assert "tiny: no known project has a network of this kind" in refused(file, "--dialect", "kylemin")


def test_a_file_of_another_network_is_named(refused, tmp_path):
    line = refused(saved(tmp_path / "a.pt", theirs("pytorchvideo", preset("x3d_s"))))
    assert line.startswith(f"{tmp_path / 'a.pt'}: is not tiny in torchvision's VideoResNet layout; ")
    assert "it looks like x3d_" in line
    strange = refused(saved(tmp_path / "a.pt", {"conv.weight": torch.ones(3), "conv.bias": torch.ones(3)}))
    assert strange.endswith("; it looks like no network known here")


def test_a_file_of_a_network_that_is_almost_the_same_is_named(tmp_path):
    state = theirs("hara2018", with_classes(preset("preresnet3d_18"), 700))
    shallow = {name: tensor[:1, :1].clone() if tensor.ndim == 5 else tensor for name, tensor in state.items()}
    with pytest.raises(WeightsError) as caught:
        import_weights(saved(tmp_path / "a.pt", state), preset("preresnet3d_34"))
    assert "it looks like preresnet3d_18 (Hara's 3D-ResNets, 2018)" in caught.value.lines[-1]
    with pytest.raises(WeightsError):
        import_weights(saved(tmp_path / "a.pt", shallow), preset("preresnet3d_18"))
    (tmp_path / "a.pt").unlink()


def test_tensors_that_are_missing_left_over_or_of_another_shape(refused, tmp_path, state):
    file = tmp_path / "a.pt"
    gone = {name: tensor for name, tensor in state.items() if name != "layer1.0.conv1.0.weight"}
    assert refused(saved(file, gone)) == f"{file}: 1 missing: layer1.0.conv1.0.weight"
    assert refused(saved(file, state | {"extra": torch.ones(1)})) == f"{file}: 1 left over: extra"
    turned = state | {"layer2.0.conv1.0.weight": state["layer2.0.conv1.0.weight"].transpose(0, 1)}
    shapes = "layer2.0.conv1.0.weight is 8x16x3x3x3 instead of 16x8x3x3x3"
    assert refused(saved(file, turned)) == f"{file}: 1 of another shape: {shapes}"
    many = {name: tensor[:2] if name.endswith("running_var") else tensor for name, tensor in gone.items()}
    lines = refused(saved(file, many | {f"extra{n}": torch.ones(1) for n in range(9)}), lines=3)
    assert lines[0] == f"{file}: 1 missing: layer1.0.conv1.0.weight"
    assert lines[1] == f"{file}: 9 left over: extra0, extra1, extra2, extra3 and 5 more"
    assert lines[2].startswith(f"{file}: 10 of another shape: stem.1.running_var is 2 instead of 8, ")
    assert lines[2].endswith(" and 6 more")


def test_a_counter_with_a_shape_is_a_fault(refused, tmp_path, state):
    state[f"stem.1.{COUNTER}"] = torch.ones(1, dtype=torch.int64)
    assert refused(saved(tmp_path / "a.pt", state)).endswith(f"stem.1.{COUNTER} is 1 instead of one number")


CONTENTS = {
    "empty.pt": (b"", "the file is empty"),
    "empty.safetensors": (b"", "the file is empty"),
    "text.pt": (b"hello world\nthis is a text\n", "is no whole file of torch's format or safetensors"),
    "text.safetensors": (b"hello world\nthis is a text\n", "not a whole safetensors file"),
    "data.json": (b'{"fc.weight": [1, 2]}', "is no whole file"),
    "data.safetensors": (b'{"fc.weight": [1, 2]}', "not a whole safetensors file"),
    "image.png": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(64), "is no whole file"),
    "zeros.pth": (bytes(999), "is no whole file"),
    "archive.pt": (b"PK\x05\x06" + bytes(18), ""),
    "short.safetensors": (b"\xff", "not a whole safetensors file"),
    "bomb.safetensors": (b"\xff" * 8 + b"{}", "not a whole safetensors file"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_files_that_are_something_else(refused, tmp_path, name):
    content, reason = CONTENTS[name]
    (tmp_path / name).write_bytes(content)
    line = refused(tmp_path / name)
    assert line.startswith(f"{tmp_path / name}: ")
    assert reason in line


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "old.pt"])
def test_files_that_are_cut(refused, tmp_path, state, name):
    path = tmp_path / name
    if name == "old.pt":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        saved(path, state)
    whole = path.read_bytes()
    for length in (1, 7, 9, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "whole" in refused(path)


def test_the_old_format_of_torch_is_read(tmp_path, spec, state):
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    found = import_weights(tmp_path / "a.pt", spec)
    assert found.remarks == ()
    assert_equal(export_weights(found.spec, found.state, "torchvision"), state)


def test_places_without_a_file(refused, tmp_path):
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    assert refused(tmp_path / "nowhere.pt") == f"{tmp_path / 'nowhere.pt'}: No such file or directory"
    assert refused(tmp_path / "folder.pt") == f"{tmp_path / 'folder.pt'}: Is a directory"
    assert refused(tmp_path / "loop.pt").startswith(f"{tmp_path / 'loop.pt'}: Too many levels of symbolic links")


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("way", ["zip", "old", "pickle", "pickle2", "inside"])
def test_code_in_a_file_does_not_run(refused, tmp_path, state, way):
    trap, path = tmp_path / "ran", tmp_path / "a.pt"
    evil = {"fc.weight": Evil(str(trap))}
    if way.startswith("pickle"):
        path.write_bytes(pickle.dumps(evil, protocol=2 if way == "pickle2" else 4))
    else:
        content = {"state_dict": state, "hook": Evil(str(trap))} if way == "inside" else evil
        torch.save(content, path, _use_new_zipfile_serialization=way != "old")
    line = refused(path)
    assert "holds code or objects" in line
    assert "Save model.state_dict() instead" in line
    assert not trap.exists()
    pickle.loads(pickle.dumps(evil))["fc.weight"].close()
    assert trap.exists()  # the trap works


def test_a_whole_module_is_refused(refused, tmp_path):
    line = refused(saved(tmp_path / "a.pt", torch.nn.Linear(2, 3)))
    assert "holds code or objects (torch.nn.modules.linear.Linear), not only tensors" in line
    numpy = refused(saved(tmp_path / "a.pt", {"fc.weight": np.ones(3)}))
    assert "holds code or objects (numpy." in numpy


def test_a_torchscript_archive_is_refused(refused, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 3)).save(str(tmp_path / "a.pt"))
    assert "is a TorchScript archive, which holds code" in refused(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (torch.ones(3), "holds a Tensor, not a state dict"),
        ([torch.ones(3)], "holds a list, not a state dict"),
        (None, "holds a NoneType, not a state dict"),
        ({}, "holds no tensors"),
        ({"state_dict": {}}, "holds no tensors"),
        ({"a": {"b": {"c": 1}}, "d": "e"}, "holds no state dict; no tensor: a, d"),
        ({"fc.weight": torch.ones(3), "epoch": 3}, "holds no state dict; no tensor: epoch"),
        ({1: torch.ones(3), (2, 3): torch.ones(3), None: torch.ones(1)}, "it looks like no network known here"),
        ({1: 2, (3, 4): 5}, "no tensor: 1, (3, 4)"),
        ({"a": torch.ones(3).to("meta")}, "1 without plain values"),
        ({"a": torch.sparse_coo_tensor([[0]], [1.0], (3,), check_invariants=True)}, "1 without plain values"),
    ],
    ids=range(11),
)
def test_contents_that_are_no_state_dict(refused, tmp_path, content, reason):
    assert reason in refused(saved(tmp_path / "a.pt", content))


def test_quantised_and_sparse_tensors_are_refused(refused, tmp_path, state):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(state["fc.weight"], 0.1, 0, torch.qint8)
        file = saved(tmp_path / "a.pt", state | {"fc.weight": quantised})
    assert "fc.weight is qint8" in refused(file)
    sparse = state["fc.weight"].to_sparse()
    assert "(sparse, or of no device): fc.weight" in refused(saved(tmp_path / "a.pt", state | {"fc.weight": sparse}))


STRANGE = ["a\nb", "\x1b[31mred\x1b[0m", "x" * 100_000, "\r\t\x00", "\u2028line\u202e", "'quoted\"", ""]


@pytest.mark.parametrize("name", STRANGE, ids=range(len(STRANGE)))
def test_strange_names_stay_on_one_line(refused, tmp_path, state, name):
    refused(saved(tmp_path / "a.pt", state | {name: torch.ones(1)}))
    refused(saved(tmp_path / "a.pt", {name: 3}))
    refused(saved(tmp_path / "a.pt", state | {name: torch.ones(1, dtype=torch.int8)}))
    refused(saved(tmp_path / "a.pt", {name: torch.ones(1), "b": torch.ones(1)}))


def test_strange_names_in_remarks_stay_on_one_line(cli, tmp_path, state):
    (tmp_path / "tiny.yaml").write_text(RESIDUAL)
    file = saved(tmp_path / "a.pt", {"state_dict": state, **dict.fromkeys(STRANGE[:4], 1)})
    code, _, said = cli("weights", "import", file, "--as", tmp_path / "tiny.yaml")
    assert (code, len(said)) == (0, 1)
    assert said[0].isprintable()


def test_a_name_that_safetensors_cannot_end_with(cli, refused, tmp_path, state):
    (tmp_path / "tiny.yaml").write_text(RESIDUAL)
    assert cli("weights", "import", saved(tmp_path / "a.pt", state), "--as", tmp_path / "tiny.yaml")[0] == 0
    code, out, said = cli("weights", "export", tmp_path / "a", "--as", "torchvision", "--out", tmp_path / "b.bin")
    assert (code, out) == (1, "")
    assert said == [f"{tmp_path / 'b.bin'}: the name should end in .safetensors, .pt or .pth"]
    code, _, said = cli("weights", "export", tmp_path / "a", "--as", "hara")
    assert (code, said) == (1, ["tiny: hara has no network of this kind"])
    code, _, said = cli("weights", "export", tmp_path / "a", "--as", "torchvison")
    assert (code, said) == (1, ["there is no dialect 'torchvison'; did you mean 'torchvision'?"])
    code, _, said = cli("weights", "export", tmp_path / "nowhere", "--as", "torchvision")
    assert code == 1
    assert "is no trained network's folder" in said[0]
    code, out, said = cli("weights", "export", tmp_path / "a", "--as", "torchvision")
    assert (code, out, said) == (0, f"{tmp_path / 'a_torchvision.safetensors'}\n", [])
    shutil.copy(tmp_path / "a.pt", tmp_path / "bare")
    code, _, said = cli("weights", "import", tmp_path / "bare", "--as", tmp_path / "tiny.yaml")
    assert (code, said) == (1, [f"{tmp_path / 'bare'}: its name has no ending to leave off; give --out a folder"])


def test_what_does_not_travel_in_a_file_is_said(cli, tmp_path):
    spec = spec_of(SEPARABLE)
    (tmp_path / "tiny.yaml").write_text(SEPARABLE)
    file = saved(tmp_path / "a.pt", theirs("kylemin", spec))
    assert cli("weights", "import", file, "--as", tmp_path / "tiny.yaml")[0] == 0
    code, _, said = cli("weights", "export", tmp_path / "a", "--as", "torchvision")
    assert (code, said) == (0, [])  # torchvision's S3D has the same rules
    changed = load_spec(str(tmp_path / "a")).model_copy(update={"padding": "same", "norm": spec.norm})
    (tmp_path / "a" / "spec.yaml").write_text(spec_yaml(changed))
    code, _, said = cli("weights", "export", tmp_path / "a", "--as", "torchvision")
    assert code == 0
    assert [line.partition(";")[0] for line in said] == [
        f"{tmp_path / 'a'}: its norm's eps is 1e-05, theirs 0.001",
        f"{tmp_path / 'a'}: its padding is same, theirs symmetric",
    ]


# --partial.


def test_partial_takes_what_fits_and_says_what_does_not(cli, tmp_path, spec, state):
    (tmp_path / "tiny.yaml").write_text(RESIDUAL)
    part = {name: tensor for name, tensor in state.items() if not name.startswith("layer2.")}
    part["stem.0.weight"] = torch.ones(8, 1, 3, 7, 7)
    part["extra"] = torch.ones(1)
    file = saved(tmp_path / "a.pt", part)
    code, out, said = cli("weights", "import", file, "--as", tmp_path / "tiny.yaml", "--partial", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["placed"] == len(part) - 2
    assert facts["fresh"] == len(state) - len(part) + 2
    texts = " ".join(said)
    assert "missing: layer2.0.downsample.0.weight, " in texts
    assert "1 left over: extra" in texts
    assert "stem.0.weight is 8x1x3x7x7 instead of 8x3x3x7x7" in texts
    fresh = build(spec, seed=0).state_dict()
    full = export_weights(spec, fresh, "torchvision")
    kept = {name: tensor for name, tensor in part.items() if name not in ("stem.0.weight", "extra")}
    found = read_weights(open_store(str(tmp_path / "a")))
    assert_equal(export_weights(spec, found, "torchvision"), full | kept)


def test_partial_with_nothing_that_fits_is_no_import(refused, tmp_path):
    lines = refused(saved(tmp_path / "a.pt", {"a.weight": torch.ones(3)}), "--partial", lines=3)
    assert lines[0] == f"{tmp_path / 'a.pt'}: no tensor fits tiny in torchvision's VideoResNet layout"
    counter = {f"stem.1.{COUNTER}": torch.tensor(3)}
    assert "no tensor fits" in refused(saved(tmp_path / "a.pt", counter), "--partial", lines=2)[0]


def test_partial_without_a_classifier(tmp_path, spec, state):
    backbone = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    file = saved(tmp_path / "a.pt", backbone)
    for classes in (None, 11):
        found = import_weights(file, spec, partial=True, classes=classes)
        assert found.placed == len(backbone)
        assert found.spec.classes == (classes or 400)
        assert found.remarks[-1] == f"{file}: 2 missing: fc.weight, fc.bias"


# The folder.


@pytest.fixture
def imported(cli, tmp_path, state):
    """A folder with the tiny network's weights."""
    (tmp_path / "tiny.yaml").write_text(RESIDUAL)
    code, _, said = cli("weights", "import", saved(tmp_path / "a.pt", state), "--as", tmp_path / "tiny.yaml")
    assert (code, said) == (0, [])
    return tmp_path / "a"


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_is_one_that_other_commands_read(cli, imported, state):
    assert sorted(content_of(imported)) == ["labels.txt", "origin.json", "recipe.json", "spec.yaml", WEIGHTS]
    spec, _, labels = read_network(open_store(str(imported)))
    assert (spec.name, spec.classes, len(labels), labels[399]) == ("tiny", 400, 400, "399")
    code, out, said = cli("show", imported)
    assert (code, said) == (0, [])
    assert "layer" not in out
    assert "res3" in out
    assert cli("show", imported, "--clip", "3x8x64x64")[0] == 0


def test_the_same_import_again_changes_nothing_and_adds_what_is_missing(cli, imported, tmp_path):
    (imported / "labels.txt").write_text("".join(f"class {number}\n" for number in range(400)))
    before = content_of(imported)
    again = ["weights", "import", tmp_path / "a.pt", "--as", tmp_path / "tiny.yaml", "--out", imported]
    assert cli(*again)[0] == 0
    assert content_of(imported) == before
    for name in (WEIGHTS, "recipe.json", "spec.yaml"):  # a kill came before they were written
        (imported / name).unlink()
        assert cli(*again)[0] == 0
        assert content_of(imported) == before
    shutil.copy(tmp_path / "a.pt", tmp_path / "b.pt")
    again[2] = tmp_path / "b.pt"
    assert cli(*again)[0] == 0
    assert content_of(imported) == before


def test_a_folder_that_holds_something_else_stays(cli, imported, tmp_path, spec):
    other = saved(tmp_path / "other.pt", theirs("torchvision", spec, seed=1))
    before = content_of(imported)
    for file, *more in ((other,), (tmp_path / "a.pt", "--classes", 7)):
        code, out, said = cli("weights", "import", file, "--as", tmp_path / "tiny.yaml", "--out", imported, *more)
        assert (code, out) == (1, "")
        assert said == [f"{imported}: holds another import, tiny from a.pt; give --out a new folder"]
        assert content_of(imported) == before


@pytest.mark.parametrize("name", ["network.json", "run.json", "checkpoint.pt", "spec.yaml", WEIGHTS])
def test_a_folder_of_a_training_or_a_search_stays(cli, tmp_path, state, name):
    (tmp_path / "tiny.yaml").write_text(RESIDUAL)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("{}")
    file = saved(tmp_path / "a.pt", state)
    code, _, said = cli("weights", "import", file, "--as", tmp_path / "tiny.yaml", "--out", tmp_path / "out")
    assert (code, said) == (1, [f"{tmp_path / 'out'}: holds a training or a search; give --out a new folder"])
    assert content_of(tmp_path / "out") == {name: b"{}"}


def test_an_output_that_is_a_file_or_may_not_be_written(cli, tmp_path, state):
    (tmp_path / "tiny.yaml").write_text(RESIDUAL)
    file = saved(tmp_path / "a.pt", state)
    (tmp_path / "out").write_text("mine")
    code, _, said = cli("weights", "import", file, "--as", tmp_path / "tiny.yaml", "--out", tmp_path / "out")
    assert (code, len(said)) == (1, 1)
    assert "cannot be written" in said[0]
    assert (tmp_path / "out").read_text() == "mine"


# Preprocessing.

MEAN_STD = {
    "torchvision": ([0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989]),
    "vmz": ([0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989]),
    "kylemin": ([0.5] * 3, [0.5] * 3),
    "piergiaj": ([0.5] * 3, [0.5] * 3),
    "hassony2": ([0.5] * 3, [0.5] * 3),
    "hara": ([0.4345, 0.4051, 0.3775], [0.2768, 0.2713, 0.2737]),
    "hara2018": ([114.7748 / 255, 107.7354 / 255, 99.4750 / 255], [1 / 255] * 3),
    "pytorchvideo": ([0.45] * 3, [0.225] * 3),
}


@pytest.mark.parametrize("dialect", TINY)
def test_pixels_become_what_the_weights_know(cli, tmp_path, dialect):
    (tmp_path / "tiny.yaml").write_text(TINY[dialect])
    file = saved(tmp_path / "a.pt", theirs(dialect, spec_of(TINY[dialect])))
    assert cli("weights", "import", file, "--as", tmp_path / "tiny.yaml")[0] == 0
    mean, std = MEAN_STD[dialect]
    said = json.loads((tmp_path / "a" / "origin.json").read_text())["preprocessing"]
    assert (said["mean"], said["std"], said["range"], said["channels"]) == (mean, std, [0, 1], "rgb")
    recipe = json.loads((tmp_path / "a" / "recipe.json").read_text())
    assert (recipe["mean"], recipe["std"]) == (mean, std)
    _, read, _ = read_network(open_store(str(tmp_path / "a")))
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 8, 8, 3), dtype=np.uint8)
    found = as_clip(frames, read).permute(0, 2, 3, 4, 1).double().numpy()
    if dialect == "hara2018":
        expected = frames - np.array([114.7748, 107.7354, 99.4750])
    elif std == [0.5] * 3:
        expected = frames / 127.5 - 1
        assert np.abs(found).max() <= 1 + 1e-6
    else:
        expected = (frames / 255 - np.array(mean)) / np.array(std)
    assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()


def test_flow_has_two_channels(cli, tmp_path):
    text = INCEPTION.replace("clip: [3,", "clip: [2,")
    (tmp_path / "tiny.yaml").write_text(text)
    file = saved(tmp_path / "a.pt", theirs("piergiaj", spec_of(text)))
    assert cli("weights", "import", file, "--as", tmp_path / "tiny.yaml")[0] == 0
    said = json.loads((tmp_path / "a" / "origin.json").read_text())["preprocessing"]
    assert (said["mean"], said["std"], said["range"], said["channels"]) == ([0.5] * 2, [0.5] * 2, [0, 1], "flow")


# Training from weights.


def quiet(*_):
    pass


def recipe(**changes):
    fields = {"epochs": 2, "batch": 8, "warmup_epochs": 1, "views": 1, "flip": False, "optimizer": "sgd", "lr": 1e-9}
    return Recipe(**{**fields, **changes})


class Interrupted(Exception):
    pass


def interrupting(what, done, _total, _status):
    if what == "training" and done == 1:
        raise Interrupted


def test_training_starts_from_weights(cli, clips, imported, tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe().model_dump(mode="json", exclude_defaults=True)))
    (tmp_path / "bare.yaml").write_text(RESIDUAL)
    out = tmp_path / "run"
    command = ["train", tmp_path / "bare.yaml", clips, "--out", out, "--from", imported]
    code, _, said = cli(*command, "--recipe", tmp_path / "recipe.yaml")
    assert code == 0
    assert f"{imported}: the classifier is fresh, for 4 classes" in said
    assert any("pixels are normalised as for its weights" in line for line in said)
    given, started, ended = (
        read_weights(open_store(str(imported))), load_file(out / START), load_file(out / WEIGHTS)
    )  # fmt: skip
    heads = {"head.linear.weight", "head.linear.bias"}
    assert {name for name in given if not torch.equal(given[name], started[name])} == heads
    fresh = build(with_classes(spec_of(RESIDUAL), 4), seed=0).state_dict()
    assert_equal({name: started[name] for name in heads}, {name: fresh[name] for name in heads})
    moving = {name for name in ended if name.rpartition(".")[2] not in ("weight", "bias")}
    assert all(torch.allclose(ended[name], started[name], atol=1e-6) for name in ended.keys() - moving)
    assert any(not torch.allclose(ended[name], fresh[name], atol=1e-2) for name in ended.keys() - moving - heads)
    assert json.loads((out / "recipe.json").read_text())["mean"] == MEAN_STD["torchvision"][0]


def test_training_from_weights_goes_on_after_an_interruption(clips, imported, tmp_path, spec):
    made = recipe(lr=1e-2, epochs=3)
    train_single(spec, clips, str(tmp_path / "whole"), made, quiet, start=str(imported))
    whole = (tmp_path / "whole" / WEIGHTS).read_bytes()
    for name, lost in (("epoch", ()), ("start", ("checkpoint.pt", "curve.json"))):
        out = tmp_path / name
        with pytest.raises(Interrupted):
            train_single(spec, clips, str(out), made, interrupting, start=str(imported))
        for file in lost:  # as if killed before the first epoch's end
            (out / file).unlink()
        train_single(spec, clips, str(out), made, quiet, start=str(imported))
        assert (out / WEIGHTS).read_bytes() == whole
        assert read_json(open_store(str(out)), "network.json")["start"] == str(imported)
    mean, std = MEAN_STD["torchvision"]
    chance = recipe(lr=1e-2, epochs=3, mean=mean, std=std)
    train_single(spec, clips, str(tmp_path / "chance"), chance, quiet)
    assert (tmp_path / "chance" / WEIGHTS).read_bytes() != whole
    with pytest.raises(RunError, match="holds a training with another start"):
        train_single(spec, clips, str(tmp_path / "chance"), chance, quiet, start=str(imported))


def test_training_from_weights_of_another_network_is_one_line(cli, clips, imported, tmp_path):
    (tmp_path / "wide.yaml").write_text(RESIDUAL.replace("width: 16", "width: 24"))
    code, out, said = cli("train", tmp_path / "wide.yaml", clips, "--out", tmp_path / "run", "--from", imported)
    assert (code, out) == (1, "")
    assert sum("do not fit tiny" in line for line in said) == 1
    assert not (tmp_path / "run" / START).exists()
    code, _, said = cli("train", tmp_path / "wide.yaml", clips, "--out", tmp_path / "new", "--from", tmp_path / "no")
    assert code == 1
    assert "is no trained network's folder" in said[-1]
    assert not (tmp_path / "new").exists()
