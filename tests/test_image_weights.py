"""Weights of image networks in networks of video: the same scores on still clips; one line for whatever is wrong."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from reference_images import (
    DENSE_DEPTHS,
    DEPTHS,
    densenet,
    densenet_rows,
    googlenet,
    googlenet_rows,
    resnet,
    resnet_features,
    resnet_rows,
)
from reference_layouts import random_weights
from safetensors.torch import save_file

from archsearch.errors import WeightsError
from archsearch.files import parse_yaml
from archsearch.nets.build import build
from archsearch.nets.dialects import IMAGES, layout_of
from archsearch.nets.images import are_of_images, twin
from archsearch.nets.surgery.plan import plan
from archsearch.nets.weights import import_weights, looks_like
from archsearch.spec.presets import load_spec, preset
from archsearch.spec.spec import SpecError, lower, parse_spec, with_clip
from archsearch.spec.tensors import tensor_shapes
from archsearch.store import open_store
from archsearch.training.checkpoint import load_weights
from archsearch.training.single import read_network

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = {  # torchvision's and timm's networks
    "resnet18": resnet_rows(DEPTHS[18]),
    "resnet34": resnet_rows(DEPTHS[34]),
    "resnet50": resnet_rows(DEPTHS[50], bottleneck=True),
    "resnet101": resnet_rows(DEPTHS[101], bottleneck=True),
    "resnet152": resnet_rows(DEPTHS[152], bottleneck=True),
    "wide_resnet50_2": resnet_rows(DEPTHS[50], bottleneck=True, group_width=128),
    "wide_resnet101_2": resnet_rows(DEPTHS[101], bottleneck=True, group_width=128),
    "resnext50_32x4d": resnet_rows(DEPTHS[50], bottleneck=True, groups=32, group_width=4),
    "resnext101_32x4d": resnet_rows(DEPTHS[101], bottleneck=True, groups=32, group_width=4),
    "googlenet": googlenet_rows(),
    "densenet121": densenet_rows(DENSE_DEPTHS[121]),
    "densenet169": densenet_rows(DENSE_DEPTHS[169]),
    "densenet201": densenet_rows(DENSE_DEPTHS[201]),
}
FITS = {  # image network -> presets of its shape
    "resnet18": "resnet3d_18_conv_shortcut r3d_18 mc3_18 rmc3_18 r2d_18 fr2d_18 r2plus1d_18 hara_r2plus1d_18",
    "resnet34": "resnet3d_34_conv_shortcut r3d_34 r2plus1d_34 hara_r2plus1d_34",
    "resnet50": "resnet3d_50 c2d_r50 i3d_r50 slow_r50 tsm_r50 r2plus1d_r50 r2plus1d_50 hara_r2plus1d_50",
    "resnet101": "resnet3d_101 r2plus1d_101 hara_r2plus1d_101",
    "resnet152": "resnet3d_152 r2plus1d_152",
    "wide_resnet50_2": "wideresnet3d_50",
    "wide_resnet101_2": "wideresnet3d_101",
    "resnext50_32x4d": "resnext3d_50",
    "resnext101_32x4d": "resnext3d_101",
    "googlenet": "i3d i2d s3d s3d_g fast_s3d bottom_heavy_i3d_4b top_heavy_i3d_4b top_heavy_s3d_4b",
    "densenet121": "densenet3d_121",
    "densenet169": "densenet3d_169",
    "densenet201": "densenet3d_201",
}
FORWARD = {"googlenet": googlenet, "densenet121": densenet}  # the others are ResNets
SAME = {  # presets whose geometry is the image network's -> it, and whether the test is quick
    "resnet3d_18_conv_shortcut": ("resnet18", True),
    "resnet3d_34_conv_shortcut": ("resnet34", False),
    "resnet3d_50": ("resnet50", False),
    "resnet3d_101": ("resnet101", False),
    "wideresnet3d_50": ("wide_resnet50_2", False),
    "resnext3d_50": ("resnext50_32x4d", False),
    "c2d_r50": ("resnet50", False),
    "i3d_r50": ("resnet50", False),
    "slow_r50": ("resnet50", False),
    "i3d": ("googlenet", True),
    "i2d": ("googlenet", False),
    "s3d": ("googlenet", False),
    "s3d_g": ("googlenet", False),
    "fast_s3d": ("googlenet", False),
    "densenet3d_121": ("densenet121", False),
}
SMALL = resnet_rows((2, 2), (8, 16), stem=8)
TINY = """
name: tiny
clip: [3, 8, 32, 32]
stages:
  - {kind: conv, name: stem, width: 8, kernel: 7, stride: [1, 2, 2]}
  - {kind: pool, name: pool, kernel: 3, stride: 2}
  - {kind: residual, name: res2, depth: 2, width: 8}
  - {kind: residual, name: res3, depth: 2, width: 16, stride: 2}
  - {kind: head, name: head, classes: 400}
"""
EVERY_FRAME = TINY.replace("kernel: 3, stride: 2", "kernel: [1, 3, 3], stride: [1, 2, 2]").replace(
    "stride: 2}", "stride: [1, 2, 2]}"
)
KINDS = {  # of networks with the scores of a small ResNet
    "3d": TINY,
    "every frame": EVERY_FRAME,
    "2d above": TINY.replace("name: res3,", "name: res3, conv: 2d,"),
    "2+1d": TINY.replace("depth: 2,", "depth: 2, conv: 2+1d,"),
    "gates": TINY.replace("depth: 2,", "depth: 2, gate: true,"),
}


def spec_of(text):
    return parse_spec(parse_yaml(text, "tiny.yaml", SpecError), "tiny.yaml")


def shapes_of(rows):
    return {key: shape for key, shape, _ in rows}


def saved(path, content):
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


def network_of(found, clip):
    net = build(with_clip(found.spec, clip)).eval()
    net.load_state_dict(found.state)
    return net


def image_of(side, count=1, seed=1):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def still(image, frames):
    """One image as a clip."""
    return image[:, :, None].expand(-1, -1, frames, -1, -1).contiguous()


def difference(found, expected):
    assert found.shape == expected.shape
    assert expected.abs().max() > 1e-3
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.fixture
def spec():
    return spec_of(TINY)


@pytest.fixture
def state():
    """A small ResNet of images, for 1000 classes."""
    return random_weights(SMALL, seed=0)


@pytest.fixture
def refused(cli, tmp_path):
    """The lines of an import that fails: exit code 1, nothing on stdout, nothing written."""

    def run(file, *args, lines=1, network=None):
        (tmp_path / "tiny.yaml").write_text(TINY)
        before = sorted(tmp_path.rglob("*"))
        code, out, said = cli(
            "weights", "import", file, "--as", network or tmp_path / "tiny.yaml", "--out", tmp_path / "out", *args
        )
        assert (code, out, len(said)) == (1, "", lines), said
        assert sorted(tmp_path.rglob("*")) == before
        return said[0] if lines == 1 else said

    return run


# Names and shapes.


@pytest.mark.parametrize("image", ROWS)
def test_every_tensor_has_its_place_in_every_preset(image):
    shapes = shapes_of(ROWS[image])
    for name in FITS[image].split():
        spec = preset(name)
        dialect = next(dialect for dialect in IMAGES if dialect.fits(spec))
        layout = layout_of(dialect, spec.model_copy(update={"stages": (*spec.stages[:-1], _head_of_1000(spec))}))
        assert (layout.agreement(shapes), layout.missing(shapes), layout.left_over(shapes)) == (1, [], []), name
        ours = [ours for ours, _ in layout.places.values()]
        assert ours == list(tensor_shapes(lower(layout.spec)))
    assert looks_like(shapes, FITS[image].split()[0])[0] == FITS[image].split()[0]


def _head_of_1000(spec):
    return spec.stages[-1].model_copy(update={"classes": 1000})


def test_a_twin_is_the_network_in_2d():
    for name in " ".join(FITS.values()).split():
        found = lower(twin(preset(name)))
        assert all(len(shape) < 5 or shape[2] == 1 for shape in tensor_shapes(found).values()), name
        assert twin(twin(preset(name))) == twin(preset(name))
        assert all(edit.verdict != "new" for edit in plan(twin(preset(name)), preset(name))), name
    places = [(node.name, node.size) for node in lower(preset("resnet3d_18")).nodes.values()]
    assert places == [(node.name, node.size) for node in lower(twin(preset("resnet3d_18"))).nodes.values()]


def test_what_an_image_network_is_known_by():
    assert are_of_images({"conv1.weight": (64, 3, 7, 7), "fc.weight": (9, 64)})
    assert not are_of_images({"conv1.weight": (64, 3, 7, 7, 7), "fc.weight": (9, 64)})
    assert not are_of_images({"conv1.weight": (64, 3, 7, 7, 7), "point.weight": (64, 3, 1, 1)})
    assert not are_of_images({"fc.weight": (9, 64)})


# The same scores.


def presets():
    for name, (_, quick) in SAME.items():
        yield pytest.param(name, marks=[] if quick else pytest.mark.slow)


@pytest.mark.parametrize("name", list(presets()))
def test_a_still_clip_scores_as_its_image(tmp_path, name):
    image, _ = SAME[name]
    state = random_weights(ROWS[image], seed=0)
    found = import_weights(saved(tmp_path / "a.pt", state), preset(name))
    (tmp_path / "a.pt").unlink()
    assert all(edit.exact for edit in found.inflation.edits)
    x = image_of(64)
    forward = FORWARD.get(image, resnet)
    with torch.inference_mode():
        expected, scores = forward(state, x), network_of(found, (3, 16, 64, 64))(still(x, 16))
    assert difference(scores, expected) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_network_scores_as_its_image(tmp_path, state, kind):
    found = import_weights(saved(tmp_path / "a.pt", state), spec_of(KINDS[kind]))
    assert all(edit.exact for edit in found.inflation.edits)
    for frames, side in ((8, 32), (5, 41)):
        x = image_of(side, 2)
        with torch.inference_mode():
            assert difference(network_of(found, (3, frames, side, side))(still(x, frames)), resnet(state, x)) < 1e-4


def test_any_clip_scores_as_its_frames_where_time_is_not_strided(tmp_path, state):
    found = import_weights(saved(tmp_path / "a.pt", state), spec_of(EVERY_FRAME))
    frames = image_of(32, 6)
    with torch.inference_mode():
        scores = network_of(found, (3, 6, 32, 32))(frames.transpose(0, 1)[None])
        assert difference(scores, resnet(state, frames).mean(0, keepdim=True)) < 1e-4


@pytest.mark.parametrize("side", [32, 96, pytest.param(224, marks=pytest.mark.slow)])
def test_googlenet_agrees_where_every_pool_reads_an_even_side(tmp_path, side):
    state = random_weights(ROWS["googlenet"], seed=3)
    found = import_weights(saved(tmp_path / "a.pt", state), preset("i2d"))
    x = image_of(side)
    with torch.inference_mode():
        assert difference(network_of(found, (3, 16, side, side))(still(x, 16)), googlenet(state, x)) < 1e-4


def test_mean_is_the_images_features_far_from_the_ends(tmp_path, state):
    found = import_weights(saved(tmp_path / "a.pt", state), spec_of(EVERY_FRAME), inflate="mean")
    frames = 31  # the middle one sees 7 + 8 * 2 = 23 frames
    body = with_clip(found.spec, (3, frames, 32, 32))
    net = build(body.model_copy(update={"stages": body.stages[:-1]})).eval()
    net.load_state_dict({name: tensor for name, tensor in found.state.items() if not name.startswith("head.")})
    x = image_of(32)
    with torch.inference_mode():
        features, expected = net(still(x, frames)), resnet_features(state, x)
    assert all(difference(features[:, :, frame], expected) < 1e-4 for frame in range(11, 20))
    assert difference(features[:, :, 0], expected) > 0.01  # zeros before the clip


def test_rules_of_inflation(tmp_path, state, spec):
    file = saved(tmp_path / "a.pt", state)
    centre, mean = (import_weights(file, spec, inflate=rule).state["stem.conv.weight"] for rule in ("centre", "mean"))
    kernel = state["conv1.weight"]
    assert torch.equal(centre[:, :, 3], kernel)
    assert centre.abs().sum() == kernel.abs().sum()
    assert all(torch.equal(mean[:, :, frame], kernel / 7) for frame in range(7))
    assert torch.equal(import_weights(file, spec).state["stem.conv.weight"], centre)


# The folder.


def test_a_folder_on_the_command_line(cli, tmp_path, state):
    (tmp_path / "tiny.yaml").write_text(TINY)
    file = saved(tmp_path / "a.safetensors", state)
    code, out, said = cli("weights", "import", file, "--as", tmp_path / "tiny.yaml", "--inflate", "mean")
    folder = tmp_path / "a"
    assert (code, out) == (0, f"{folder}: tiny, {len(state)} tensors from torchvision's and timm's ResNet layout\n")
    assert said == [
        f"{file}: classifier: 1000 classes, as in the file",
        f"{file}: weights of images, inflated by 'mean': sites 12 kept, 9 approximate",
    ]
    facts = json.loads((folder / "origin.json").read_text())
    assert (facts["dialect"], facts["placed"], facts["fresh"]) == ("images", len(state), 0)
    assert facts["inflation"]["rule"] == "mean"
    assert facts["inflation"]["sites"] == {"kept": 12, "approximate": 9}
    assert facts["inflation"]["changed"]["stem.conv"] == "2d -> 3d, repeated over time and divided by 7"
    recipe = json.loads((folder / "recipe.json").read_text())
    assert (recipe["mean"], recipe["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert len((folder / "labels.txt").read_text().splitlines()) == 1000
    assert load_spec(str(folder)).model_copy(update={"stages": ()}) == spec_of(TINY).model_copy(update={"stages": ()})
    spec, _, _ = read_network(open_store(str(folder)))
    load_weights(open_store(str(folder)), build(spec))
    assert cli("weights", "import", file, "--as", tmp_path / "tiny.yaml", "--inflate", "mean")[0] == 0
    code, _, said = cli("weights", "import", file, "--as", tmp_path / "tiny.yaml")
    assert code == 1
    assert "holds another import" in said[0]


def test_googlenet_brings_its_rules_and_leaves_its_other_classifiers(cli, tmp_path):
    file = saved(tmp_path / "a.pt", random_weights(ROWS["googlenet"], seed=0))
    code, _, said = cli("weights", "import", file, "--as", "s3d", "--classes", 7)
    assert code == 0
    assert said[0].startswith(f"{file}: 20 left alone, of auxiliary classifiers: aux1.conv.conv.weight, ")
    assert said[1] == f"{file}: classifier: a fresh one for 7 classes instead of 1000"
    spec = load_spec(str(tmp_path / "a"))
    assert (spec.norm.eps, spec.padding, spec.stages[0].padding, spec.classes) == (1e-3, "same", (3, 3, 3), 7)
    recipe = json.loads((tmp_path / "a" / "recipe.json").read_text())
    assert (recipe["mean"], recipe["std"]) == ([0.5] * 3, [0.5] * 3)
    facts = json.loads((tmp_path / "a" / "origin.json").read_text())
    assert (facts["placed"], facts["fresh"]) == (len(ROWS["googlenet"]) - 20 - 2, 2)
    shutil.rmtree(tmp_path)


def test_a_network_without_its_pool_is_said(tmp_path, state):
    text = TINY.replace("  - {kind: pool, name: pool, kernel: 3, stride: 2}\n", "")
    found = import_weights(saved(tmp_path / "a.pt", state), spec_of(text))
    assert found.remarks[-1] == "the image network pools behind its stem, tiny does not: its maps are larger"
    x = image_of(32)
    with torch.inference_mode():
        scores = network_of(found, (3, 8, 32, 32))(still(x, 8))
        assert difference(scores, resnet(state, x, pooled=False)) < 1e-4


def test_published_densenets_have_older_names(tmp_path):
    rows = densenet_rows((2, 2), growth=4, stem=8, classes=5)
    text = TINY.replace(
        "kind: residual, name: res2, depth: 2, width: 8", "kind: dense, name: dense1, depth: 2, growth: 4"
    )
    text = text.replace(
        "kind: residual, name: res3, depth: 2, width: 16, stride: 2", "kind: transition, name: transition1"
    )
    text = text.replace("  - {kind: head", "  - {kind: dense, name: dense2, depth: 2, growth: 4}\n  - {kind: head")
    spec = spec_of(text.replace("classes: 400", "classes: 5, norm: true"))
    state = random_weights(rows, seed=0)
    older = {key.replace("norm1.", "norm.1.").replace("norm2.", "norm.2."): tensor for key, tensor in state.items()}
    older = {key.replace("conv1.", "conv.1.").replace("conv2.", "conv.2."): tensor for key, tensor in older.items()}
    found, again = (import_weights(saved(tmp_path / "a.pt", kept), spec) for kept in (state, older))
    assert (found.dialect.about, again.dialect.about) == tuple(dialect.about for dialect in IMAGES[2:])
    assert all(torch.equal(found.state[name], tensor) for name, tensor in again.state.items())
    x = image_of(64)
    with torch.inference_mode():
        assert difference(network_of(found, (3, 8, 64, 64))(still(x, 8)), densenet(state, x)) < 1e-4


# Faults: one line each, nothing written.


def test_inflate_is_of_image_networks(refused, tmp_path, state):
    deep = {key: tensor[:, :, None] if tensor.ndim == 4 else tensor for key, tensor in state.items()}
    file = saved(tmp_path / "a.pt", deep)
    line = f"{file}: is no file of an image network, whose kernels are 2D; there is nothing to inflate"
    assert refused(file, "--inflate", "mean") == line
    assert refused(file, "--inflate", "center") == "--inflate center: should be centre or mean"


def test_a_file_of_another_depth_is_named(refused, tmp_path):
    file = saved(tmp_path / "a.pt", random_weights(ROWS["resnet18"], seed=0))
    lines = refused(file, network="resnet3d_34_conv_shortcut", lines=2)
    assert lines[0].startswith(f"{file}: 80 missing: layer1.2.conv1.weight, ")
    assert lines[1] == f"{file}: it looks like resnet3d_18_conv_shortcut (torchvision's and timm's ResNet)"
    assert "it looks like r3d_18 (" in refused(file, network="r3d_34", lines=2)[1]
    assert "it looks like resnet3d_18_conv_shortcut (" in refused(file, network="resnet3d_18", lines=2)[1]
    assert "it looks like r" in refused(file, network="s3d")
    file.unlink()


def test_tensors_that_are_missing_left_over_or_of_another_shape(refused, tmp_path, state):
    gone = {key: tensor for key, tensor in state.items() if key != "layer1.0.conv1.weight"}
    assert refused(saved(tmp_path / "a.pt", gone)) == f"{tmp_path / 'a.pt'}: 1 missing: layer1.0.conv1.weight"
    more = state | {"aux1.conv.weight": torch.ones(1)}  # only GoogLeNet's are left alone
    assert refused(saved(tmp_path / "a.pt", more)) == f"{tmp_path / 'a.pt'}: 1 left over: aux1.conv.weight"
    turned = state | {"layer2.0.conv1.weight": state["layer2.0.conv1.weight"].transpose(0, 1)}
    line = "1 of another shape: layer2.0.conv1.weight is 8x16x3x3 instead of 16x8x3x3"
    assert refused(saved(tmp_path / "a.pt", turned)) == f"{tmp_path / 'a.pt'}: {line}"


def test_partial_takes_what_fits(tmp_path, state, spec):
    part = {key: tensor for key, tensor in state.items() if not key.startswith("layer2.")}
    found = import_weights(saved(tmp_path / "a.pt", part), spec, partial=True, classes=3)
    assert (found.placed, found.fresh) == (len(part) - 2, len(state) - len(part) + 2)
    assert "missing: layer2.0." in found.remarks[-2]
    assert torch.equal(found.state["res2.0.conv1.weight"][:, :, 1], state["layer1.0.conv1.weight"])
    network_of(found, (3, 8, 32, 32))


def test_dialects_of_the_other_kind(cli, refused, tmp_path, state):
    file = saved(tmp_path / "a.pt", state)
    assert refused(file, "--dialect", "hara") == "tiny: no known project has a network of images of this kind"
    assert "movinet_a0: no known project has a network of images of this kind" in refused(file, network="movinet_a0")
    assert cli("weights", "import", file, "--as", tmp_path / "tiny.yaml", "--dialect", "images")[0] == 0
    code, out, said = cli("weights", "export", tmp_path / "a", "--as", "images")
    assert (code, out) == (1, "")
    assert said == ["tiny: weights of images are only read: their layout has no place for time"]
    assert cli("weights", "export", tmp_path / "a", "--as", "hara")[0] == 0


def test_flow_reads_other_channels(tmp_path):
    file = saved(tmp_path / "a.pt", random_weights(ROWS["googlenet"], seed=0))
    with pytest.raises(WeightsError, match=r"conv1\.conv\.weight is 64x3x7x7 instead of 64x2x7x7"):
        import_weights(file, preset("i3d_flow"))
    Path(file).unlink()
