"""Weights carried over to an altered network: what is exact is measured to be, and what is not says so."""

import random
from functools import cache
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import nn

from archsearch.errors import SpecError, SurgeryError
from archsearch.nets.build import build
from archsearch.nets.surgery.plan import plan
from archsearch.nets.surgery.transfer import transfer
from archsearch.space.file import read_space
from archsearch.spec.presets import preset
from archsearch.spec.spec import lower, parse_spec, with_classes, with_clip
from archsearch.spec.tensors import COUNTER, tensor_shapes

pytestmark = pytest.mark.usefixtures("one_thread", "unwritten_is_nan")

SPACES = sorted(Path(__file__).parent.parent.joinpath("search_spaces").glob("*.yaml"))
SAME = 1e-5  # of the largest logit: what float32 leaves between two ways to compute the same
CLIP = (3, 8, 16, 16)


@pytest.fixture
def unwritten_is_nan():
    """Memory that nobody writes holds nan, so that a weight which is forgotten shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_unwritten_memory_shows():
    assert torch.empty(8).isnan().all()


# --- networks


def spec_of(*stages, clip=CLIP, classes=5, head=(), **fields):
    """A network of these stages, in order, each (kind, name, fields), and a head."""
    records = [{"kind": kind, "name": name, **more} for kind, name, more in stages]
    records.append({"kind": "head", "name": "head", "classes": classes, **dict(head)})
    return parse_spec({"name": "tiny", "clip": clip, "stages": records, **fields}, "tiny.yaml")


def stem(width=8, **fields):
    return "conv", "stem", {"width": width, "stride": [1, 2, 2], "conv": "2d", **fields}


def residual(conv="2d", width=8, depth=1, name="res2", **fields):
    return "residual", name, {"width": width, "depth": depth, "conv": conv, **fields}


def inverted(width=8, depth=1, name="inv", **fields):
    return "inverted", name, {"width": width, "depth": depth, **fields}


def dense(depth=2, growth=4, **fields):
    return "dense", "dense", {"depth": depth, "growth": growth, "bottleneck": 2, **fields}


TRANSITION = "transition", "transition", {"stride": [1, 2, 2]}


def inception(widths, **fields):
    return "inception", "mixed", {"widths": widths, **fields}


def residual_net(conv="2d", width=8, **fields):
    """Two residual stages; the second strides."""
    return spec_of(
        stem(width), residual(conv, width, **fields), residual(conv, 2 * width, name="res3", stride=(1, 2, 2), **fields)
    )


def randomised(net, clip, seed=1):
    """Random weights and norms, with the statistics of random clips, so that activations keep their size."""
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in net.state_dict().items():
        if tensor.ndim == 1 and name.endswith("weight"):
            tensor.copy_(torch.rand(tensor.shape, generator=draw) * 0.5 + 0.75)
        elif name.endswith("bias"):
            tensor.copy_(torch.randn(tensor.shape, generator=draw) * 0.1)
        elif tensor.ndim == 0 and name.endswith("scale.weight"):
            tensor.fill_(0.7)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm3d)]
    for norm in norms:
        norm.momentum = None
    net.train()
    with torch.no_grad():
        net(*clips_of(clip, draw, 3))
    return net.eval()


def clips_of(size, draw, count=2):
    sizes = size.values() if isinstance(size, dict) else [size]
    return [torch.randn(count, *each, generator=draw) for each in sizes]


def outputs(net, spec, seed=3):
    with torch.no_grad():
        return net(*clips_of(spec.clip, torch.Generator().manual_seed(seed)))


def operate(old, new, **options):
    """(edits, the largest difference of logits as a share of the largest logit)."""
    net = randomised(build(old, seed=1), old.clip)
    source = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state, edits = transfer(old, source, new, **options)
    assert edits == plan(old, new, **options)
    grown = build(new).eval()
    grown.load_state_dict(state, strict=True)
    if old.clip != new.clip or old.classes != new.classes:
        return edits, None
    before, after = outputs(net, old), outputs(grown, new)
    assert after.isfinite().all()
    check_accounted(new, state, edits)
    return edits, ((before - after).abs().max() / before.abs().max()).item()


def check_accounted(new, state, edits):
    """No tensor is as it was initialised unless a step says that it is new."""
    fresh = build(new, seed=0).state_dict()
    told = {edit.site: edit for edit in edits if edit.verdict != "removed"}
    for name, tensor in state.items():
        site = next((name[:place] for place in range(len(name)) if name[place] == "." and name[:place] in told), None)
        assert site is not None, f"{name}: no edit tells of it"
        same = torch.equal(tensor, fresh[name]) and tensor.unique().numel() > 2
        assert not same or "new" in (told[site].verdict, told[site].how.split()[0]), f"{name}: {told[site]}"


def check_exact(old, new, **options):
    edits, difference = operate(old, new, **options)
    assert [edit for edit in edits if not edit.exact] == []
    assert difference < SAME
    return {edit.site: edit for edit in edits}


def check_approximate(old, new, site, **options):
    """The plan says so of that site, and it is so."""
    edits, difference = operate(old, new, **options)
    found = {edit.site: edit for edit in edits}
    assert not found[site].exact, found[site]
    assert difference is None or difference > SAME
    return found


# --- whatever a space holds


def shrunk(spec):
    """The same network with few channels and blocks."""
    return spec.model_copy(update={"stages": tuple(shrunk_stage(stage) for stage in spec.stages)})


def shrunk_stage(stage):
    fields = dict(stage)
    if "width" in fields:
        fields["width"] = max(8, stage.width // 64 * 8)
    if "widths" in fields:
        fields["widths"] = tuple(max(4, width // 16) for width in stage.widths)
    if fields.get("depth", 0) > 2:
        fields["depth"] = min(3, 1 + stage.depth // 4)
    if "growth" in fields:
        fields["growth"] = max(4, stage.growth // 4)
    if isinstance(fields.get("mid"), int):
        fields["mid"] = 8
    if fields.get("groups") == 32:
        fields["groups"] = 4
    if fields.get("kind") == "head":
        fields["classes"] = 7
    if fields.get("kind") == "inverted":
        fields["inner"] = None
    fields["from"] = fields.pop("from_")
    return type(stage).model_validate(fields)


@cache
def space_of(path):
    return read_space(path)


def pairs_in(path, seed):
    """Endless pairs of a space's networks, shrunk: such as differ in one choice, and in any."""
    space, draw = space_of(path), random.Random(seed)
    deep = any(name in path.name for name in ("heavy", "s3d", "densenet", "x3d"))
    clip = (3, 16, 48, 48) if deep else (3, 8, 32, 32)
    for number, (a, b) in enumerate(zip(*[iter(space.sample_positions(4000, seed))] * 2, strict=True)):
        if number % 3:
            place = draw.randrange(len(a))
            b = (*a[:place], draw.randrange(len(space.parameters[place].options)), *a[place + 1 :])
        try:
            pair = [with_clip(shrunk(space.spec_at(positions)), clip) for positions in (a, b)]
            graphs = [lower(spec) for spec in pair]
        except SpecError:
            continue
        if graphs[0] != graphs[1]:
            yield pair


def check_pairs(path, count, seed):
    for old, new in islice(pairs_in(path, seed), count):
        edits, difference = operate(old, new)
        wrong = [edit for edit in edits if not edit.exact]
        assert (not wrong) == (difference < SAME), f"{difference:.1e}: {wrong}"


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_outputs_stay_the_same_exactly_where_the_plan_says_so(path):
    check_pairs(path, 2, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_outputs_stay_the_same_exactly_where_the_plan_says_so_in_many_draws(path):
    check_pairs(path, 15, seed=1)


# --- kinds and kernels


def test_a_2d_network_becomes_3d_by_its_centre_taps():
    edits = check_exact(residual_net("2d"), residual_net("3d"))
    assert edits["res2.0.conv1"].how == "2d -> 3d, the centre tap"


def test_an_integer_stride_that_comes_to_stride_time_is_approximate():
    old, new = (spec_of(stem(), residual(conv), residual(conv, 16, name="res3", stride=2)) for conv in ("2d", "3d"))
    found = check_approximate(old, new, "res3.0.conv1")
    assert "stride 1x2x2 -> 2x2x2" in found["res3.0.conv1"].how
    assert not found["res3.0.skip"].exact
    assert found["res3.0.conv2"].exact


def test_a_2d_site_becomes_separable_where_norm_and_relu_follow():
    old, new = (spec_of(("conv", "site", {"width": 8, "conv": conv})) for conv in ("2d", "separable"))
    edits = check_exact(old, new)
    assert "after norm and act" in edits["site.conv"].how
    assert "took it over" in edits["site.norm"].how


def test_a_2d_site_becomes_separable_with_a_new_gate_behind_it():
    old = spec_of(("conv", "site", {"width": 8, "conv": "2d"}))
    check_exact(old, spec_of(("conv", "site", {"width": 8, "conv": "separable", "gate": True})))


def test_a_2d_site_that_becomes_separable_before_a_sum_is_approximate():
    found = check_approximate(residual_net("2d"), residual_net("separable"), "res2.0.conv2")
    assert found["res2.0.conv1"].exact


def test_a_2d_site_becomes_factorised_by_both_signs_where_there_is_room():
    edits = check_exact(residual_net("2d"), residual_net("2+1d", mid=32))
    assert "both signs" in edits["res2.0.conv2"].how


def test_a_2d_site_that_becomes_factorised_time_first_is_approximate():
    check_approximate(residual_net("2d"), residual_net("2+1d", first="time"), "res2.0.conv1")


@pytest.mark.parametrize("kernel", [[2, 3, 3], [4, 3, 3]])
def test_a_factorised_site_without_a_middle_frame_is_approximate(kernel):
    old = spec_of(("conv", "site", {"width": 8, "conv": "2d"}))
    new = {"width": 8, "conv": "separable", "kernel": kernel, "padding": [kernel[0] // 2, 1, 1]}
    check_approximate(old, spec_of(("conv", "site", new)), "site.conv")


def test_a_factorised_site_whose_padding_changes_is_approximate():
    old = spec_of(("conv", "site", {"width": 8, "conv": "2d", "padding": [0, 1, 1]}))
    check_approximate(
        old, spec_of(("conv", "site", {"width": 8, "conv": "separable", "padding": [1, 0, 0]})), "site.conv"
    )


def test_a_site_that_becomes_separable_under_another_eps_is_approximate():
    old, new = (
        spec_of(("conv", "site", {"width": 8, "conv": conv}), norm={"eps": eps})
        for conv, eps in (("2d", 1e-5), ("separable", 1e-2))
    )
    check_approximate(old, new, "site.norm")


@pytest.mark.parametrize(
    ("before", "after"), [("2+1d", "3d"), ("separable", "3d"), ("3d", "2+1d"), ("3d", "2d"), ("2+1d", "separable")]
)
@pytest.mark.parametrize("groups", [1, 2])
def test_other_changes_of_kind_fit_whole_kernels_and_say_so(before, after, groups):
    fields = {"groups": groups, "mid": 16}
    check_approximate(residual_net(before, **fields), residual_net(after, **fields), "res2.0.conv1")


@pytest.mark.parametrize("after", ["3d", "2+1d", "separable", "2d"])
@pytest.mark.parametrize("before", ["3d", "2+1d", "separable", "2d"])
def test_depthwise_sites_change_their_kind(before, after):
    old, new = (spec_of(stem(), inverted(conv=conv, kernel=[3, 3, 3])) for conv in (before, after))
    edits, difference = operate(old, new)
    exact = before == after or (before, after) == ("2d", "3d")
    assert all(edit.exact for edit in edits) == exact
    assert not exact or difference < SAME  # a lifted half may happen to lose nothing


def test_halves_of_full_rank_give_the_whole_kernel():
    """Where the act between them cuts nothing."""
    old = spec_of(("conv", "site", {"width": 4, "conv": "3d", "norm": False, "act": "none", "bias": True}))
    halves = {"width": 4, "conv": "2+1d", "mid": 24, "norm": False, "act": "none", "bias": True}
    for first in ("space", "time"):
        new = spec_of(("conv", "site", {**halves, "first": first}))
        net = randomised(build(old, seed=1), CLIP)
        state, _ = transfer(old, net.state_dict(), new)
        state["site.conv.norm.bias"] += 100
        grown = build(new, features=["site"]).eval()
        grown.load_state_dict(state)
        whole = build(old, features=["site"]).eval()
        whole.load_state_dict(net.state_dict())
        x = torch.randn(1, *CLIP)
        with torch.no_grad():
            before, after = (each(x)[1]["site"][:, :, 2:-2, 2:-2, 2:-2] for each in (whole, grown))
        offset = (after - before).mean((0, 2, 3, 4), keepdim=True)
        torch.testing.assert_close(after - offset, before, rtol=0, atol=1e-3)


def test_a_kernel_grows_around_its_centre():
    edits = check_exact(residual_net("3d", kernel=3), residual_net("3d", kernel=5))
    assert edits["res2.0.conv1"].how == "kernel 3x3x3 -> 5x5x5, the centre tap"


def test_a_kernel_that_grows_without_padding_is_approximate():
    old, new = (spec_of(stem(kernel=[1, k, k], padding=[0, 1, 1])) for k in (3, 5))
    check_approximate(old, new, "stem.conv")


def test_a_kernel_that_shrinks_is_approximate():
    found = check_approximate(residual_net("3d", kernel=5), residual_net("3d", kernel=3), "res2.0.conv1")
    assert found["res2.0.conv1"].how == "kernel 5x5x5 -> 3x3x3, cut to the centre"


def test_a_convolution_gains_a_bias_of_zero():
    old, new = (spec_of(stem(norm=False, bias=bias)) for bias in (False, True))
    check_exact(old, new)
    check_approximate(new, old, "stem.conv")


# --- depth


BLOCKS = {
    "basic": residual,
    "gated": lambda **fields: residual(gate=True, **fields),
    "pre_activation": lambda **fields: residual("3d", order="norm-act-conv", **fields),
    "pre_activation_gated": lambda **fields: residual(order="norm-act-conv", gate=True, **fields),
    "pre_activation_factorised": lambda **fields: residual("2+1d", order="norm-act-conv", **fields),
    "bottleneck": lambda **fields: residual("3d", bottleneck=0.5, **fields),
    "depthwise": lambda **fields: residual("3d", bottleneck=1, groups="depthwise", pointwise=True, **fields),
    "inverted": inverted,
    "inverted_gated": lambda **fields: inverted(gate={"reduction": 2, "bias": True}, inner_act="silu", **fields),
    "inverted_linear": lambda **fields: inverted(out_act="none", rezero=True, **fields),
    "inverted_rezero": lambda **fields: inverted(rezero=True, **fields),
}


@pytest.mark.parametrize("block", BLOCKS)
def test_a_new_block_adds_nothing_at_first(block):
    old, new = (spec_of(stem(), BLOCKS[block](depth=depth)) for depth in (1, 3))
    check_exact(old, new)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_new_block_can_learn(block):
    """Of all that a new block adds, something changes after one step."""
    old, new = (spec_of(stem(), BLOCKS[block](depth=depth)) for depth in (1, 2))
    state, _ = transfer(old, randomised(build(old, seed=1), CLIP).state_dict(), new)
    net = build(new).train()
    net.load_state_dict(state)
    net(torch.randn(2, *CLIP)).square().sum().backward()
    added = [tensor for name, tensor in net.named_parameters() if name.split(".")[1] == "1"]
    assert any(tensor.grad is not None and tensor.grad.abs().max() > 0 for tensor in added)


def test_a_new_block_behind_a_silu_is_approximate():
    old, new = (spec_of(stem(), inverted(depth=depth, out_act="silu")) for depth in (1, 2))
    edits, difference = operate(old, new)
    assert difference > SAME
    assert not all(edit.exact for edit in edits)


def test_a_new_stage_behind_a_pool_adds_nothing_at_first():
    pool = ("pool", "pool", {"kernel": [1, 3, 3], "stride": [1, 2, 2]})
    check_exact(spec_of(stem(), pool), spec_of(stem(), pool, residual()))


def test_a_block_comes_into_the_middle_by_rename():
    old, new = (spec_of(stem(), residual(depth=depth)) for depth in (3, 4))
    edits = check_exact(old, new, rename={"res2.1": None, "res2.2": "res2.1", "res2.3": "res2.2"})
    assert edits["res2.1.norm2"].how == "new block that adds nothing at first"
    assert edits["res2.3.conv1"].old == "res2.2.conv1"
    assert edits["res2.3.conv1"].verdict == "kept"


def test_a_block_less_is_approximate_and_said_once():
    found = check_approximate(residual_net(depth=2), residual_net(depth=1), "res2.1")
    assert found["res2.1"].verdict == "removed"
    assert found["res3.0.skip"].how == "reads res2.0.act in place of res2.1.act"
    assert found["res3.0.conv1"].verdict == "kept"


def test_dense_blocks_grow_in_depth_and_in_growth():
    nets = [spec_of(stem(), dense(*shape), TRANSITION) for shape in ((2, 4), (4, 4), (2, 6), (3, 8))]
    for new in nets[1:]:
        check_exact(nets[0], new)


def test_dense_blocks_with_gates_grow_in_depth():
    check_exact(*(spec_of(stem(), dense(depth, gate=True), TRANSITION) for depth in (1, 3)))


def test_a_dense_block_that_loses_a_layer_is_approximate():
    check_approximate(*(spec_of(stem(), dense(depth), TRANSITION) for depth in (3, 2)), "transition.norm")


# --- width


WIDER = {
    "residual": (residual_net("3d", 8), residual_net("3d", 12)),
    "factorised": (residual_net("2+1d", 8), residual_net("2+1d", 12)),
    "factorised_inside": (residual_net("2+1d", mid=8), residual_net("2+1d", mid=13)),
    "separable": (residual_net("separable", 8), residual_net("separable", 20)),
    "bottleneck": (residual_net(bottleneck=0.5), residual_net(bottleneck=1)),
    "pre_activation": (residual_net(order="norm-act-conv"), residual_net(width=11, order="norm-act-conv")),
    "depthwise": (residual_net("3d", groups="depthwise"), residual_net("3d", 12, groups="depthwise")),
    "inverted": (spec_of(stem(), inverted(8, 2)), spec_of(stem(12), inverted(12, 2, expand=3))),
    "depthwise_factorised": (spec_of(stem(), inverted(conv="2+1d")), spec_of(stem(12), inverted(12, conv="2+1d"))),
    "rezero": (spec_of(stem(), inverted(8, rezero=True)), spec_of(stem(12), inverted(12, rezero=True))),
    "gate": (residual_net(gate=True), residual_net(width=12, gate=True)),
    "squeeze_excite": (
        residual_net(gate={"reduction": 1, "bias": True}),
        residual_net(width=24, gate={"reduction": 1, "bias": True}),
    ),
    "inception": (spec_of(stem(), inception([4, 4, 6, 2, 4, 4])), spec_of(stem(10), inception([6, 4, 7, 5, 4, 5]))),
    "hidden": (spec_of(stem(), head={"hidden": [8]}), spec_of(stem(), head={"hidden": [13]})),
    "flatten": (spec_of(stem(), head={"pool": "flatten"}), spec_of(stem(11), head={"pool": "flatten"})),
    "lstm": (
        spec_of(stem(), ("recurrent", "lstm", {"width": 6})),
        spec_of(stem(12), ("recurrent", "lstm", {"width": 9})),
    ),
}


@pytest.mark.parametrize("name", WIDER)
def test_a_wider_network_copies_channels_and_shares_their_weights(name):
    check_exact(*WIDER[name])


@pytest.mark.parametrize("name", WIDER)
def test_a_narrower_network_keeps_some_channels_and_says_so(name):
    new, old = WIDER[name]
    edits, difference = operate(old, new)
    assert not all(edit.exact for edit in edits)
    assert difference > SAME


def test_wider_and_back_fits():
    old, wide = WIDER["residual"]
    net = randomised(build(old, seed=1), CLIP)
    state, _ = transfer(old, net.state_dict(), wide)
    back, edits = transfer(wide, state, old)
    build(old).load_state_dict(back)
    assert not all(edit.exact for edit in edits)


def test_the_heaviest_channels_are_kept():
    old, new = (spec_of(stem(width)) for width in (8, 3))
    state = randomised(build(old, seed=1), CLIP).state_dict()
    state["stem.norm.weight"][[1, 4, 6]] *= 100
    found, _ = transfer(old, state, new)
    assert torch.equal(found["stem.conv.weight"], state["stem.conv.weight"][[1, 4, 6]])


def test_a_wider_network_with_shortcuts_of_zeros_is_approximate():
    old = spec_of(stem(8), residual(width=8), residual(width=16, name="res3", shortcut="pad"))
    new = spec_of(stem(12), residual(width=12), residual(width=16, name="res3", shortcut="pad"))
    check_approximate(old, new, "res3.0.skip")


def test_a_wider_network_that_shifts_channels_is_approximate():
    check_approximate(residual_net(shift=4), residual_net(width=12, shift=4), "res2.0.shift")


def test_a_sum_with_a_concat_of_other_widths_is_approximate():
    old, new = (
        spec_of(stem(), inception(widths), residual(width=sum(widths[i] for i in (0, 2, 4, 5))))
        for widths in ((4, 4, 6, 2, 4, 4), (6, 4, 6, 2, 4, 4))
    )
    check_approximate(old, new, "res2.0.add")


def test_an_identity_shortcut_becomes_a_convolution():
    """Stem and stage widen apart, so that the block needs one."""
    old = spec_of(stem(8), residual(width=8))
    for shortcut in ("conv-norm", "conv"):
        edits = check_exact(old, spec_of(stem(8), residual(width=12, shortcut=shortcut)))
        assert edits["res2.0.skip"].how == "identity as a convolution"


# --- groups


def test_fewer_groups_are_exact_and_more_are_not():
    nets = {groups: residual_net("3d", groups=groups) for groups in (1, 2, 4, "depthwise")}
    check_exact(nets[4], nets[2])
    check_exact(nets[2], nets[1])
    check_approximate(nets[1], nets[2], "res2.0.conv1")
    check_approximate(nets[2], nets[4], "res2.0.conv1")


def test_a_depthwise_site_becomes_dense_and_back():
    old, new = (spec_of(stem(), residual("3d", groups=groups)) for groups in ("depthwise", 1))
    check_exact(old, new)
    check_approximate(new, old, "res2.0.conv1")


def test_groups_of_a_factorised_site_change():
    old, new = (spec_of(stem(), residual("2+1d", groups=groups, mid=16)) for groups in (4, 2))
    check_exact(old, new)
    check_approximate(new, old, "res2.0.conv1")


def test_inner_channels_of_a_grouped_site_grow_only_where_groups_stay_together():
    old, new = (spec_of(stem(), residual("2+1d", groups=2, mid=mid)) for mid in (8, 12))
    edits, difference = operate(old, new)
    assert all(edit.exact for edit in edits) == (difference < SAME)


# --- gates


@pytest.mark.parametrize("gate", [True, {"pool": "time", "bias": True}, {"reduction": 2, "bias": True}])
def test_a_new_gate_is_half_open_behind_a_doubled_norm(gate):
    edits = check_exact(residual_net(), residual_net(gate=gate))
    assert edits["res2.0.gate"].how == "new gate, half open; the norm before it is doubled"
    assert edits["res2.0.norm2"].how == "doubled, for the gate behind it"


def test_a_new_gate_behind_a_relu_is_exact_and_behind_a_silu_approximate():
    check_exact(spec_of(stem()), spec_of(stem(gate=True)))
    check_approximate(spec_of(stem(act="silu")), spec_of(stem(act="silu", gate=True)), "stem.gate")


def test_new_gates_stand_in_inverted_blocks():
    old = spec_of(stem(), inverted())
    for at in ("before-act", "after-act"):
        check_exact(old, spec_of(stem(), inverted(gate={"reduction": 4, "bias": True}, gate_at=at)))


def test_a_gate_that_moves_is_approximate():
    old, new = (spec_of(stem(), inverted(gate=True, gate_at=at)) for at in ("before-act", "after-act"))
    check_approximate(old, new, "inv.0.gate")


def test_a_gate_gains_a_bias_of_zero():
    check_exact(residual_net(gate=True), residual_net(gate={"bias": True}))


def test_a_gate_of_another_form_is_new():
    found = check_approximate(residual_net(gate=True), residual_net(gate={"reduction": 2}), "res2.0.gate")
    assert found["res2.0.gate"].verdict == "new"


def test_a_gate_that_pools_otherwise_is_approximate():
    check_approximate(residual_net(gate=True), residual_net(gate={"pool": "time"}), "res2.0.gate")


# --- what has no weights


CHANGED = {
    "act": (spec_of(stem()), spec_of(stem(act="silu"))),
    "no_act": (spec_of(stem()), spec_of(stem(act="none"))),
    "new_act": (spec_of(stem(act="none")), spec_of(stem())),
    "shift": (residual_net(), residual_net(shift=4)),
    "no_shift": (residual_net(shift=4), residual_net()),
    "order": (residual_net(order="norm-act-conv"), residual_net()),
    "pool": (spec_of(stem()), spec_of(stem(), ("pool", "pool", {"stride": 1}))),
    "no_pool": (spec_of(stem(), ("pool", "pool", {"stride": 1})), spec_of(stem())),
    "pool_kernel": tuple(spec_of(stem(), ("pool", "pool", {"kernel": k, "stride": 1})) for k in (3, 5)),
    "padding": (spec_of(stem()), spec_of(stem(padding=[0, 0, 0]))),
    "stride": (spec_of(stem()), spec_of(stem(stride=1))),
    "eps": tuple(spec_of(stem(), residual(), norm={"eps": eps}) for eps in (1e-5, 0.1)),
    "reads": (
        spec_of(stem(), residual(), residual(name="res3")),
        spec_of(stem(), residual(), residual(name="res3", **{"from": "stem"})),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_what_has_no_weights_of_its_own_is_approximate_when_it_changes(name):
    edits, difference = operate(*CHANGED[name])
    assert difference > SAME
    assert not all(edit.exact for edit in edits)


def test_dropout_comes_and_goes():
    nets = [spec_of(stem(), head={"dropout": p, "hidden": [6]}) for p in (0.0, 0.5)]
    check_exact(*nets)
    check_exact(*reversed(nets))


# --- classes, inputs, clips


def test_other_classes_are_a_fresh_classifier():
    old = residual_net()
    edits, _ = operate(old, with_classes(old, 9))
    assert [(edit.site, edit.verdict, edit.how) for edit in edits if not edit.exact] == [
        ("head.linear", "new", "5 -> 9 classes: a fresh classifier")
    ]


def test_fewer_input_channels_are_approximate():
    old, new = (spec_of(stem(), residual(), clip=(c, 8, 16, 16)) for c in (3, 2))
    found = check_approximate(old, new, "clip")
    assert found["clip"].how == "3 -> 2 input channels"
    check_approximate(new, old, "clip")


def test_another_clip_size_changes_no_weights():
    old = residual_net("3d")
    new = with_clip(old, (3, 16, 24, 24))
    state = randomised(build(old, seed=1), CLIP).state_dict()
    found, edits = transfer(old, state, new)
    assert {edit.verdict for edit in edits} == {"kept"}
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_another_clip_size_changes_the_weights_that_are_as_large_as_it():
    old = spec_of(("conv", "stem", {"width": 4, "kernel": ["frames", 3, 3], "padding": [0, 1, 1]}))
    operate(old, with_clip(old, (3, 4, 16, 16)))
    old = spec_of(stem(), head={"pool": "flatten"})
    found = check_approximate(old, with_clip(old, (3, 4, 16, 16)), "head.linear")
    assert found["head.linear"].verdict == "new"


def test_two_streams_are_carried_over():
    old, new = (
        spec_of(
            ("conv", "a", {"from": "rgb", "width": width}),
            ("conv", "b", {"from": "flow", "width": 4}),
            ("pool", "pool", {"from": ["a", "b"], "mode": "avg"}),
            clip={"rgb": [3, 4, 16, 16], "flow": [2, 4, 16, 16]},
        )
        for width in (4, 6)
    )
    check_exact(old, new)


# --- the transfer itself


def test_the_same_network_is_kept_bit_for_bit():
    for old in (residual_net("2+1d", gate=True), WIDER["inception"][0], WIDER["lstm"][0], WIDER["rezero"][0]):
        state = randomised(build(old, seed=1), CLIP).state_dict()
        found, edits = transfer(old, state, old)
        assert {edit.verdict for edit in edits} == {"kept"}
        assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_transfer_changes_neither_network_and_draws_from_its_seed():
    old, new = residual_net("3d"), residual_net("separable", 12, depth=2)
    state = randomised(build(old, seed=1), CLIP).state_dict()
    before, data = {name: tensor.clone() for name, tensor in state.items()}, old.model_dump()
    global_state = torch.random.get_rng_state()
    (first, _), (again, _), (other, _) = (transfer(old, state, new, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), global_state)
    assert old.model_dump() == data
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert {name: tuple(tensor.shape) for name, tensor in first.items()} == tensor_shapes(lower(new))
    first["stem.conv.weight"].zero_()
    assert state["stem.conv.weight"].any(), "the result shares memory with the old weights"


def test_counters_of_norms_are_carried_over():
    old = residual_net()
    state = build(old, seed=1).state_dict()
    state[f"res2.0.norm1.{COUNTER}"].fill_(7)
    found, _ = transfer(old, state, residual_net("3d"))
    assert found[f"res2.0.norm1.{COUNTER}"] == 7


@pytest.mark.parametrize("names", [("r3d_18", "s3d"), ("x3d_s", "resnet3d_50"), ("s3d", "x3d_s")])
def test_unrelated_families_are_refused_in_one_line(names):
    with pytest.raises(SurgeryError, match="not of one family") as raised:
        plan(*map(preset, names))
    assert len(raised.value.lines) == 1


def test_a_mean_inflated_network_sees_a_frame_repeated_as_the_frame():
    """Where the receptive field does not reach an end."""
    clip = (3, 24, 16, 16)
    old, new = (
        spec_of(stem(conv=conv), residual(conv), residual(conv, 12, name="res3", stride=(1, 2, 2)), clip=clip)
        for conv in ("2d", "3d")
    )
    net = randomised(build(old, seed=1), clip)
    state, edits = transfer(old, net.state_dict(), new, inflate="mean")
    assert "repeated over time and divided by 3" in {edit.site: edit for edit in edits}["stem.conv"].how
    nets = build(old, features=["res3"]).eval(), build(new, features=["res3"]).eval()
    nets[0].load_state_dict(net.state_dict())
    nets[1].load_state_dict(state)
    video = torch.randn(2, 3, 1, 16, 16).expand(2, *clip)
    with torch.no_grad():
        before, after = (each(video)[1]["res3"][:, :, 5:-5] for each in nets)
    assert (before - after).abs().max() < SAME * before.abs().max()
