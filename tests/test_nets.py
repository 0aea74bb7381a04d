"""Graphs become torch networks: names, sizes, gradients, copies, compilation, and the proof of lower precision."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from archsearch.errors import SpecError
from archsearch.nets import fast, layers
from archsearch.nets.build import build, build_graph, initialise
from archsearch.nets.fast import fastest_precision, prove_bf16
from archsearch.spec.cost import total_cost
from archsearch.spec.graph import Act, Gate, Part, Pool, same_padding
from archsearch.spec.presets import PRESETS, preset
from archsearch.spec.spec import lower, parse_spec, with_classes
from archsearch.spec.tensors import tensor_shapes

CLIP = (3, 8, 32, 32)


pytestmark = pytest.mark.usefixtures("one_thread")


def batch_of(size, count=2, seed=0):
    return torch.randn(count, *size, generator=torch.Generator().manual_seed(seed))


def tiny(conv="3d", width=8, depth=1, clip=(3, 8, 16, 16), **fields):
    """A network of two residual stages."""
    stages = [
        {"kind": "conv", "name": "stem", "width": width, "stride": [1, 2, 2], "conv": conv},
        {"kind": "residual", "name": "res2", "width": width, "depth": depth, "conv": conv, **fields},
        {"kind": "residual", "name": "res3", "width": 2 * width, "depth": depth, "stride": 2, "conv": conv, **fields},
        {"kind": "head", "name": "head", "classes": 5},
    ]
    return parse_spec({"name": "tiny", "clip": clip, "stages": stages}, "tiny.yaml")


def two_streams():
    stages = [
        {"kind": "conv", "name": "a", "from": "rgb", "width": 4, "act": "silu"},
        {"kind": "conv", "name": "b", "from": "flow", "width": 4, "act": "hardswish", "bias": True, "norm": False},
        {"kind": "pool", "name": "pool", "from": ["a", "b"], "mode": "avg"},
        {"kind": "head", "name": "head", "classes": 5, "dropout": 0.5},
    ]
    clip = {"rgb": [3, 8, 16, 16], "flow": [2, 8, 16, 16]}
    return parse_spec({"name": "two", "clip": clip, "stages": stages}, "two.yaml")


SHAPES = {
    "kinds_2d": lambda: tiny("2d"),
    "kinds_2+1d": lambda: tiny("2+1d", mid="block"),
    "kinds_separable": lambda: tiny("separable"),
    "bottleneck": lambda: tiny(bottleneck=0.5, groups=2),
    "grouped_2+1d": lambda: tiny("2+1d", groups=2, mid=6),
    "before": lambda: tiny("2+1d", order="norm-act-conv", shortcut="conv", depth=2),
    "pad": lambda: tiny(shortcut="pad", depth=2),
    "gates": lambda: tiny(gate={"pool": "time", "bias": True}),
    "gates_space": lambda: tiny(gate={"pool": "space"}),
    "gates_both": lambda: tiny(gate=True),
    "two_streams": two_streams,
}


def check_net(spec):
    """Names, parameter count, and the size of every stage as torch has it."""
    graph = lower(spec)
    net = build_graph(graph, spec.name, tuple(graph.stages)).eval()
    found = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    assert found == tensor_shapes(graph)
    assert list(found) == list(tensor_shapes(graph))
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == total_cost(graph).params
    clips = [batch_of(size, 1) for size in spec.inputs.values()]
    with torch.no_grad():
        logits, found = net(*clips)
    assert logits.shape == (1, spec.classes)
    assert list(found) == list(graph.stages)
    for stage, node in graph.stages.items():
        size = graph.nodes[node].size
        shape = tuple(size) if found[stage].ndim == 5 else (size.c,)
        assert tuple(found[stage].shape[1:]) == shape, stage


# one of each way to build a network; the others are in the slow tests
# fmt: off
QUICK = (
    "r2d_18", "fr2d_18", "mc3_18", "r3d_18", "r2plus1d_18", "torchvision_r2plus1d_18", "c3d_bn", "i3d_flow", "i2d",
    "s3d", "s3d_g_time", "fast_s3d", "s3d_g_temporal", "s3d_g_tfslim", "inception_lstm", "fused_two_stream",
    "two_stream_i3d", "resnet3d_18", "preresnet3d_18", "ip_csn_50", "densenet3d_121", "c2d_r50", "i3d_r50",
    "slow_r50", "r2plus1d_r50", "tsm_r50", "slowfast_r50", "x3d_s", "movinet_a0",
)
# fmt: on


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in PRESETS])
def test_every_preset_is_what_its_graph_says(name):
    spec = with_classes(preset(name), 5)
    frames = {"slow": 8, "fast": 32}
    sizes = {name: (size.c, frames.get(name, 16), 48, 48) for name, size in spec.inputs.items()}
    check_net(spec.model_copy(update={"clip": sizes if len(sizes) > 1 else sizes["clip"]}))


@pytest.mark.parametrize("name", SHAPES)
def test_every_record_is_what_its_graph_says(name):
    check_net(SHAPES[name]())


def test_odd_sizes_come_out_as_counted():
    for conv in ("2d", "3d", "2+1d"):
        for shortcut in ("conv-norm", "pad"):
            check_net(tiny(conv, clip=(3, 7, 17, 23), shortcut=shortcut))


# --- weights and training


def test_the_seed_decides_the_weights_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    nets = [build(tiny(), seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(3), expected)
    states = [net.state_dict() for net in nets]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    drawn = [name for name in states[0] if "conv" in name or "skip.w" in name or "linear.weight" in name]
    assert drawn
    assert not any(torch.equal(states[0][name], states[2][name]) for name in drawn)


@pytest.mark.parametrize("name", SHAPES)
def test_a_step_reaches_every_parameter_and_the_loss_falls(name):
    spec = SHAPES[name]()
    net = build(spec, seed=0)
    clips = [batch_of(size, 6, seed=3) for size in spec.inputs.values()]
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    losses = []
    for step in range(4):
        torch.manual_seed(0)  # the same dropout every time
        loss = F.cross_entropy(net(*clips), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step == 0:
            same = [name for name, p in net.named_parameters() if torch.equal(p, before[name])]
            assert same == []
    assert losses[-1] < losses[0]


def test_norm_takes_its_rule_from_the_spec():
    spec = tiny("2+1d").model_copy(update={"norm": tiny().norm.model_copy(update={"eps": 1e-3, "momentum": 0.01})})
    norms = [module for module in build(spec).modules() if isinstance(module, nn.BatchNorm3d)]
    assert len(norms) == 6 + 5  # after each of five sites and the shortcut, and inside each site
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


# --- copies, features, compilation


@pytest.mark.parametrize("remake", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_give_the_same(remake):
    for spec in (tiny("2+1d", gate=True), two_streams()):
        net = build(spec, ("pool",) if spec.name == "two" else ("res2",), seed=0).eval()
        clips = [batch_of(size) for size in spec.inputs.values()]
        other = remake(net)
        (logits, found), (others, others_found) = net(*clips), other(*clips)
        assert torch.equal(logits, others)
        assert all(torch.equal(found[stage], others_found[stage]) for stage in found)
        next(other.parameters()).data.zero_()
        assert torch.equal(net(*clips)[0], logits)


def test_features_change_nothing_and_are_not_overwritten():
    spec = tiny(order="norm-act-conv")
    clip = batch_of((3, 8, 16, 16))
    plain = build(spec, seed=0).eval()(clip)
    logits, found = build(spec, ("res3", "stem"), seed=0).eval()(clip)
    assert torch.equal(plain, logits)
    assert list(found) == ["res3", "stem"]
    alone = build(spec.model_copy(update={"stages": spec.stages[:1]}), seed=0).eval()
    assert torch.equal(alone(clip), found["stem"])


def test_an_unknown_stage_has_a_near_name():
    with pytest.raises(SpecError, match=r"tiny: there is no stage 'res4'; did you mean 'res[23]'\?"):
        build(tiny(), ("res4",))


@pytest.mark.parametrize("name", ["forward", "training", "class", "half", "graph"])
def test_a_name_torch_needs_is_one_line(name):
    spec = tiny()
    stages = (spec.stages[0].model_copy(update={"name": name}), *spec.stages[1:])
    with pytest.raises(SpecError, match=f"tiny, stage {name}: torch keeps the name '{name}' for itself"):
        build(spec.model_copy(update={"stages": stages}))


def test_code_is_readable():
    code = build(tiny(), seed=0).code
    assert "def forward(self, clip : torch.Tensor):" in code
    assert "self.stem.conv(clip)" in code
    assert "stem_act + res2_0_norm2" in code
    assert "def forward(self, rgb : torch.Tensor, flow : torch.Tensor = None):" in build(two_streams()).code


def test_inputs_by_name():
    net = build(two_streams(), seed=0).eval()
    rgb, flow = batch_of((3, 8, 16, 16)), batch_of((2, 8, 16, 16))
    assert torch.equal(net(flow=flow, rgb=rgb), net(rgb, flow))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_one_batch_may_hold_the_channels_of_all_inputs(layout):
    net = build(two_streams(), seed=0).eval()
    clip = batch_of((5, 8, 16, 16)).contiguous(memory_format=layout)
    apart = [part.contiguous(memory_format=layout) for part in clip.split([3, 2], 1)]
    assert torch.equal(net(clip), net(*apart))
    again = pickle.loads(pickle.dumps(net))
    assert torch.equal(again(clip), net(clip))
    assert list(again.state_dict()) == list(net.state_dict())
    assert not any("_inputs" in name for name in net.state_dict())
    exported = torch.export.export(net, (clip,)).module()
    assert torch.equal(exported(clip), net(clip))


def check_compiled(backend):
    for spec in (tiny("2+1d", gate=True), two_streams()):
        net = build(spec, seed=0).eval()
        clips = [batch_of(size) for size in spec.inputs.values()]
        try:
            compiled = torch.compile(net, backend=backend, fullgraph=True)
            torch.testing.assert_close(compiled(*clips), net(*clips), rtol=1e-4, atol=1e-5)
        finally:
            torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # torch's own, on the first compilation
def test_compiles():
    check_compiled("aot_eager")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
def test_compiles_to_machine_code():
    check_compiled("inductor")


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
def test_exports():
    clip = batch_of((3, 8, 16, 16))
    net = build(tiny("2+1d"), seed=0).eval()
    program = torch.export.export(net, (clip,))
    torch.testing.assert_close(program.module()(clip), net(clip))


# --- layers


def test_a_gate_is_its_formula():
    x = batch_of((4, 3, 5, 5))
    for pool, axes in {"time": (2,), "space": (3, 4), "both": (2, 3, 4)}.items():
        gate = drawn(layers.Gate(4, Gate(pool, bias=True)))
        mean = x.mean(axes, keepdim=True)
        weights = torch.einsum("oc,ncthw->nothw", gate.linear.weight, mean) + gate.linear.bias.view(-1, 1, 1, 1)
        torch.testing.assert_close(gate(x), x / (1 + torch.exp(-weights)))


def test_squeeze_and_excite_is_its_formula():
    x = batch_of((8, 3, 5, 5))
    gate = drawn(layers.Gate(8, Gate(bias=True, hidden=2, act=Act("silu"))))
    mean = x.mean((2, 3, 4))
    inner = F.silu(mean @ gate.reduce.weight.T + gate.reduce.bias)
    score = torch.sigmoid(inner @ gate.expand.weight.T + gate.expand.bias)
    torch.testing.assert_close(gate(x), x * score[:, :, None, None, None])


def test_a_shift_takes_an_eighth_from_either_neighbour():
    x = batch_of((16, 4, 3, 3))
    y = layers.Shift(8)(x)
    assert torch.equal(y[:, :2, :-1], x[:, :2, 1:])
    assert not y[:, :2, -1].any()
    assert torch.equal(y[:, 2:4, 1:], x[:, 2:4, :-1])
    assert not y[:, 2:4, 0].any()
    assert torch.equal(y[:, 4:], x[:, 4:])


@pytest.mark.parametrize(
    ("side", "kernel", "stride"), [(8, 7, 2), (9, 7, 2), (8, 3, 2), (7, 3, 2), (8, 2, 2), (6, 3, 1)]
)
def test_same_padding_is_tensorflows(side, kernel, stride):
    before, extra = same_padding((side,) * 3, (kernel,) * 3, (stride,) * 3)
    total = 2 * before[0] + extra[0]
    out = -(-side // stride)
    assert (side + total - kernel) // stride + 1 == out
    assert total == max((out - 1) * stride + kernel - side, 0)
    assert extra[0] in (0, 1)  # what is odd goes to the far end
    part = Part(2, 3, (kernel,) * 3, (stride,) * 3, before, extra, 1, False)
    conv, x = drawn(layers.Conv3d(part)), batch_of((2, side, side, side))
    padded = F.pad(x, (before[0], before[0] + extra[0]) * 3)
    torch.testing.assert_close(conv(x), F.conv3d(padded, conv.weight, stride=stride))
    pool = Pool("max", (kernel,) * 3, (stride,) * 3, before, extra)
    lowest = F.pad(x, (before[0], before[0] + extra[0]) * 3, value=-1e9)
    assert torch.equal(layers.MaxPool(pool)(x), F.max_pool3d(lowest, kernel, stride))


@pytest.mark.parametrize("extra", [(0, 0, 0), (1, 0, 1)])
def test_an_average_pool_leaves_padding_out(extra):
    pool = Pool("avg", (3, 3, 3), (2, 2, 2), (1, 1, 0), extra)
    y = layers.AvgPool(pool)(torch.ones(1, 2, 6, 6, 6))
    torch.testing.assert_close(y, torch.ones_like(y))


def test_a_recurrent_layer_reads_frames_in_order():
    lstm = layers.Lstm(4, 5, last=False).eval()
    x = batch_of((4, 6, 1, 1))
    states = lstm(x)
    assert states.shape == (2, 5, 6, 1, 1)
    torch.testing.assert_close(states[:, :, :3], lstm(x[:, :, :3]))
    lstm.last = True
    torch.testing.assert_close(lstm(x), states[:, :, -1, 0, 0])


def test_a_pad_shortcut_is_every_stride_th_place_and_zeros():
    x = batch_of((4, 5, 6, 7))
    y = layers.Pad(4, 6, (2, 1, 3))(x)
    assert y.shape == (2, 6, 3, 6, 3)
    assert torch.equal(y[:, :4], x[:, :, [0, 2, 4]][..., [0, 3, 6]])
    assert not y[:, 4:].any()


# --- lower precision


def drawn(layer):
    """A layer made by itself has no weights yet."""
    initialise(layer)
    return layer


def relative(a, b):
    return float((a.float() - b).norm() / b.norm())


@pytest.mark.parametrize("kernel", [(3, 3, 3), (3, 1, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_two_frames_in_bf16_have_the_right_gradients(kernel, layout):
    padding = tuple(side // 2 for side in kernel)
    part = Part(32, 32, kernel, (1, 1, 1), padding, (0, 0, 0), 1, False)
    conv = drawn(layers.Conv3d(part)).to(memory_format=layout)
    x = batch_of((32, 2, 7, 7), 4).to(memory_format=layout)
    found = []
    for bf16 in (False, True):
        read = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = conv(read)
        assert y.dtype == (torch.bfloat16 if bf16 else torch.float32)
        found.append((y.detach().float(), *torch.autograd.grad(y.float().square().sum(), (read, conv.weight))))
    assert all(torch.isfinite(value).all() for value in found[1])
    assert max(relative(b, a) for a, b in zip(*found, strict=True)) < 0.02


def test_a_plain_convolution_is_the_same_without_autocast():
    conv = drawn(layers.Conv3d(Part(4, 4, (3, 3, 3), (1, 1, 1), (1, 1, 1), (0, 0, 0), 1, True)))
    x = batch_of((4, 2, 5, 5))
    expected = F.conv3d(x, conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(conv(x), expected)
    conv.plain = True
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(conv(x), expected)
        assert conv(x.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ("known", "precision"), [({}, "fp32"), ({"avx512_vnni": True}, "fp32"), ({"avx512_bf16": True}, "bf16")]
)
def test_the_fastest_precision_has_instructions(monkeypatch, known, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert fastest_precision("cpu") == precision


def test_the_proof_leaves_good_convolutions_and_the_network_alone():
    net = build(tiny("2+1d"), seed=0)
    net.res2.eval()
    clip = batch_of((3, 8, 16, 16))
    F.cross_entropy(net(clip), torch.tensor([0, 1])).backward()
    net.stem.conv.spatial.weight.requires_grad_(False)
    modes = [module.training for module in net.modules()]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    grads = {name: p.grad.clone() for name, p in net.named_parameters()}
    assert prove_bf16(net, clip) == []
    assert not any(module.plain for module in net.modules() if isinstance(module, layers.Conv3d))
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(torch.equal(p.grad, grads[name]) for name, p in net.named_parameters())
    assert not any(module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize("damage", ["output", "gradient", "nan"])
def test_the_proof_refuses_a_convolution_whose_fast_path_is_wrong(monkeypatch, damage):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * 1.2

    true = layers.Conv3d.forward

    def broken(self, x):
        y = true(self, x)
        if y.dtype != torch.bfloat16 or self.out_channels != 16:
            return y
        return {"output": lambda: y * 1.2, "gradient": lambda: Wrong.apply(y), "nan": lambda: y * float("nan")}[
            damage
        ]()

    monkeypatch.setattr(layers.Conv3d, "forward", broken)
    net = build(tiny(), seed=0)
    clip = batch_of((3, 8, 16, 16))
    assert prove_bf16(net, clip) == ["res3.0.skip", "res3.0.conv1", "res3.0.conv2"]
    assert net.res3.get_submodule("0.conv1").plain
    assert not net.res2.get_submodule("0.conv1").plain
    monkeypatch.undo()
    assert prove_bf16(net, clip) == []  # a proof is of this machine as it is now
    assert not net.res3.get_submodule("0.conv1").plain


def test_a_proof_is_made_once_for_each_shape(monkeypatch):
    asked = []
    monkeypatch.setattr(fast, "_agrees", lambda conv, shape, device: asked.append((conv.weight.shape, shape)) or True)
    prove_bf16(build(tiny(depth=3), seed=0), batch_of((3, 8, 16, 16)))
    assert len(asked) == len(set(asked)) == 5  # stem, res2's, and the shortcut, the first and the others of res3
