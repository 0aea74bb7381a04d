"""Networks for other programs: the exported function is the network's, for any batch, and needs nothing of ours."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch

from archsearch.errors import ArchsearchError, MissingExtra, RunError
from archsearch.nets import export
from archsearch.nets.build import build
from archsearch.nets.export import (
    Scaling,
    checked,
    difference,
    random_clips,
    runtime_call,
    served,
    to_onnx,
    to_program,
    to_pt2,
    torch_call,
)
from archsearch.nets.quantise import to_int8
from archsearch.nets.runtimes import load_onnxruntime
from archsearch.spec.presets import preset
from archsearch.spec.spec import parse_spec, with_classes

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

# a preset of every family, each at a clip as small as it takes
FAMILIES = (
    "r3d_18", "r2plus1d_18", "fr2d_18", "c3d_bn", "ip_csn_50", "i3d", "i3d_flow", "s3d_g", "s3d_g_tfslim",
    "s3d_g_temporal", "inception_lstm", "two_stream_i3d", "fused_two_stream", "preresnet3d_18", "resnext3d_50",
    "densenet3d_121", "slow_r50", "slowfast_r50", "tsm_r50", "x3d_xs", "movinet_a0",
)  # fmt: skip

HEAD = {"kind": "head", "name": "head", "classes": 5}
STEM = {"kind": "conv", "name": "stem", "width": 8, "kernel": 3, "stride": [1, 2, 2]}
SHAPES = {
    "separable, gates, same padding, LSTM": {
        "name": "net",
        "clip": [3, 4, 16, 16],
        "padding": "same",
        "stages": [
            {**STEM, "conv": "separable"},
            {"kind": "pool", "name": "pool", "kernel": [1, 3, 3], "stride": [1, 2, 2]},
            {"kind": "inception", "name": "mixed", "widths": [4, 4, 4, 4, 4, 4], "conv": "separable", "gate": True},
            {"kind": "recurrent", "name": "lstm", "width": 6},
            HEAD,
        ],
    },
    "two inputs, (2+1)D": {
        "name": "net",
        "clip": {"rgb": [3, 4, 16, 16], "flow": [2, 4, 16, 16]},
        "stages": [
            {**STEM, "from": "rgb", "conv": "2+1d"},
            {**STEM, "name": "stem2", "from": "flow"},
            {"kind": "residual", "name": "res", "depth": 1, "width": 8, "stride": 2, "from": ["stem", "stem2"]},
            HEAD,
        ],
    },
}


def pixels_to_scores(spec, kind="softmax"):
    scalings = {
        name: Scaling(tuple(10.0 * (place + 1) for place in range(size.c)), (50.0,) * size.c)
        for name, size in spec.inputs.items()
    }
    net = build(spec, seed=3)
    for module in net.modules():  # norms that do something
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    for module in net.modules():  # classes that are told apart
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, 0, 0.3)
    return served(net, scalings, kind), [*spec.inputs.values()]


def check_export(spec):
    module, sizes = pixels_to_scores(spec)
    program = to_program(module, sizes)
    made = to_onnx(program, names=list(spec.inputs))
    batches = [random_clips(sizes, batch, batch) for batch in (1, 3)]
    wanted = torch_call(module)
    checked("onnx", wanted, runtime_call(load_onnxruntime(made, 1)), batches)
    again = torch.export.load(io.BytesIO(to_pt2(program))).module()
    checked("pt2", wanted, torch_call(again), batches)
    return onnx.load_from_string(made), wanted, batches


@pytest.fixture(autouse=True)
def single(one_thread):
    """Networks this small are slower on several threads."""


@pytest.fixture(scope="module", params=SHAPES)
def exported(request):
    spec = parse_spec(SHAPES[request.param], "net.yaml")
    return spec, *check_export(spec)


def test_the_exported_function_is_the_network_s(exported):
    spec, model, wanted, batches = exported
    assert {node.op_type for node in model.graph.node}.isdisjoint({"GlobalAveragePool", "AdaptiveAvgPool3d", "If"})
    assert not {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    told = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert told == {name: ["batch", *size] for name, size in spec.inputs.items()} | {"scores": ["batch", 5]}
    scores = wanted(batches[1])
    assert scores.sum(1) == pytest.approx(np.ones(3), abs=1e-5)
    assert scores.std(0).max() > 1e-4  # clips are told apart, so that a wrong order would be seen


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_exported(name):
    spec = with_classes(preset(name), 5)
    frames = {"slow": 4, "fast": 32}
    side = 112 if name == "c3d_bn" else 64
    sizes = {name: (size.c, frames.get(name, 16), side, side) for name, size in spec.inputs.items()}
    check_export(spec.model_copy(update={"clip": sizes if len(sizes) > 1 else next(iter(sizes.values()))}))


def test_normalisation_and_the_sigmoid_are_inside(spec):
    module, sizes = pixels_to_scores(spec, "sigmoid")
    clips = random_clips(sizes, 2)
    mean = torch.tensor([10.0, 20.0, 30.0]).view(1, 3, 1, 1, 1)
    with torch.no_grad():
        logits = module.net((clips[0] - mean) / 50)
    assert torch_call(module)(clips) == pytest.approx(logits.sigmoid().numpy())


def test_a_program_runs_without_archsearch(spec, tmp_path):
    module, sizes = pixels_to_scores(spec)
    file, clips = tmp_path / "model.pt2", random_clips(sizes, 5)
    file.write_bytes(to_pt2(to_program(module, sizes)))
    torch.save(clips[0], tmp_path / "clip.pt")
    code = (
        "import sys; sys.modules['archsearch'] = None; import torch; "
        f"scores = torch.export.load({str(file)!r}).module()(torch.load({str(tmp_path / 'clip.pt')!r})); "
        "print(*scores.argmax(1).tolist())"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(best) for best in torch_call(module)(clips).argmax(1)]


def test_eight_bits_come_close(spec):
    module, sizes = pixels_to_scores(spec)
    made = to_onnx(to_program(module, sizes), names=["clip"])
    small = to_int8(made, ["clip"], [random_clips(sizes, 8, seed) for seed in range(3)])
    assert len(small) < len(made)
    kinds = [node.op_type for node in onnx.load_from_string(small).graph.node]
    assert "QuantizeLinear" in kinds
    clips = random_clips(sizes, 4, 9)
    assert 0 < difference(torch_call(module)(clips), runtime_call(load_onnxruntime(small, 1))(clips)).absolute < 0.1


def test_a_file_that_differs_is_refused(spec):
    module, sizes = pixels_to_scores(spec)
    clips, call = random_clips(sizes, 2), torch_call(module)
    worst = checked("model.onnx", call, lambda clips: call(clips) + np.float32(5e-5), [clips])
    assert worst.absolute == pytest.approx(5e-5, rel=0.01)
    with pytest.raises(ArchsearchError, match=r"model.onnx: its scores are off by 0.001"):
        checked("model.onnx", call, lambda clips: call(clips) + 1e-3, [clips])
    for wrong in (lambda clips: call(clips) * np.nan, lambda clips: call(clips)[:1]):
        with pytest.raises(ArchsearchError, match="off by inf"):
            checked("model.onnx", call, wrong, [clips])


def test_what_cannot_be_had_is_one_line(spec, monkeypatch):
    module, sizes = pixels_to_scores(spec)
    with pytest.raises(RunError, match="opset 9: torch writes 18 and later"):
        to_onnx(module, random_clips(sizes, 1), opset=9)
    with pytest.raises(RunError, match="no network that ONNX Runtime can run"):
        load_onnxruntime(b"no model", 1)
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"archsearch\[onnx\]"):
        to_onnx(module, random_clips(sizes, 1))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra, match=r"archsearch\[openvino\]"):
        export.to_openvino(b"")
