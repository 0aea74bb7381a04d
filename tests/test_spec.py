"""Records become graphs by the published rules, and whatever a file says, its faults are one line each."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsearch.errors import ArchsearchError, SpecError
from archsearch.spec.basic import ConvStage, PoolStage
from archsearch.spec.builder import Builder
from archsearch.spec.fields import resolve_stride
from archsearch.spec.graph import Conv, Size, is_factorised, matched_mid, parts
from archsearch.spec.presets import PRESETS, load_spec, preset
from archsearch.spec.residual import ResidualStage
from archsearch.spec.spec import digest, lower, parse_spec, read_spec, spec_yaml, with_classes, with_clip
from archsearch.spec.stages import STAGES

HEAD = {"kind": "head", "name": "head", "classes": 3}
NONE = (0, 0, 0)
TIGHT = {"max_examples": 60, "deadline": None, "derandomize": True}


def spec_of(*stages, clip=(4, 8, 16, 16), **fields):
    return parse_spec({"name": "net", "clip": clip, "stages": list(stages), **fields}, "net.yaml")


def lines_of(*stages, **fields):
    with pytest.raises(SpecError) as caught:
        spec_of(*stages, **fields)
    assert str(caught.value) == "\n".join(caught.value.lines)
    return caught.value.lines


def conv(name="a", width=8, **fields):
    return {"kind": "conv", "name": name, "width": width, **fields}


def residual(name="r", width=8, depth=1, **fields):
    return {"kind": "residual", "name": name, "width": width, "depth": depth, **fields}


def stage_sizes(spec):
    graph = lower(spec)
    return {stage: graph.nodes[node].size for stage, node in graph.stages.items()}


# --- files


@pytest.mark.parametrize("name", PRESETS)
def test_yaml_reads_back_to_an_equal_spec(name, tmp_path):
    path = tmp_path / "net.yaml"
    path.write_text(spec_yaml(preset(name)))
    spec = read_spec(path)
    assert spec == preset(name)
    assert load_spec(str(path)) == spec
    assert digest(lower(spec)) == digest(lower(preset(name)))


def test_yaml_keeps_every_field_that_differs_from_its_default():
    spec = spec_of(
        conv("rgb", kernel=["frames", 3, 3], stride=[1, 2, 2], padding=[0, 1, 1], bias=True, norm=False, act="none"),
        {"kind": "pool", "name": "pool", "mode": "avg", "kernel": [1, 2, 2], "stride": [1, 2, 2], "padding": [0, 1, 1]},
        residual("r", 16, bottleneck=0.25, groups=2, order="norm-act-conv", gate={"pool": "time", "bias": True}),
        residual("s", 16, conv="2+1d", mid=8, shortcut="pad", **{"from": "r"}),
        {**HEAD, "dropout": 0.5},
        norm={"eps": 1e-3, "momentum": 0.01},
    )
    import yaml

    assert parse_spec(yaml.safe_load(spec_yaml(spec)), "again") == spec


def test_presets_differ_from_each_other():
    names = {}
    for name in PRESETS:
        names.setdefault(digest(lower(preset(name))), []).append(name)
    assert [same for same in names.values() if len(same) > 1] == [
        ["i3d", "bottom_heavy_i3d_5c"],
        ["fast_s3d", "top_heavy_s3d_5b"],
        ["bottom_heavy_i3d_1a", "bottom_heavy_i3d_2b"],
    ]  # two names of one network


def test_a_preset_that_is_not_there_has_a_near_name():
    with pytest.raises(SpecError, match=r"no preset 'r3d_81'; did you mean 'r3d_18'\?"):
        preset("r3d_81")


def test_digest_is_of_the_network_and_not_of_its_name():
    base = preset("r3d_18")
    assert digest(lower(base.model_copy(update={"name": "other"}))) == digest(lower(base))
    assert digest(lower(with_classes(base, 7))) != digest(lower(base))
    assert digest(lower(base.model_copy(update={"norm": base.norm.model_copy(update={"eps": 1e-3})}))) != digest(
        lower(base)
    )


def test_classes_and_clip_change_nothing_else():
    spec = with_clip(with_classes(preset("r3d_18"), 7), (3, 8, 56, 56))
    assert (spec.classes, spec.inputs) == (7, {"clip": Size(3, 8, 56, 56)})
    assert spec.stages[:-1] == preset("r3d_18").stages[:-1]
    assert preset("r3d_18").classes == 400


# --- strides, kinds, kernels


@pytest.mark.parametrize(
    ("stride", "kind", "triple"),
    [(2, "2d", (1, 2, 2)), (2, "3d", (2, 2, 2)), (2, "2+1d", (2, 2, 2)), (2, "separable", (2, 2, 2))]
    + [((2, 1, 3), kind, (2, 1, 3)) for kind in ("2d", "3d", "2+1d", "separable")],
)
def test_stride_of_a_stage(stride, kind, triple):
    assert resolve_stride(stride, kind) == triple
    graph = lower(spec_of(residual(width=16, stride=stride, conv=kind)))
    assert graph.nodes["r.0.conv1"].op.stride == graph.nodes["r.0.skip"].op.stride == triple
    assert graph.nodes["r.0.conv2"].op.stride == (1, 1, 1)
    size = lower(spec_of(conv(stride=stride, conv=kind))).nodes["a.conv"].size
    assert size == Size(8, *(-(-side // step) for side, step in zip((8, 16, 16), triple, strict=True)))


def test_a_pool_strides_time_whatever_stands_around_it():
    spec = spec_of(conv(conv="2d"), {"kind": "pool", "name": "p", "kernel": 2})
    assert stage_sizes(spec)["p"] == Size(8, 4, 8, 8)


def test_parts_of_each_kind():
    op = Conv(16, (3, 5, 7), (2, 3, 4), (1, 2, 3), "3d", bias=True)
    assert [tuple(part) for part in parts(op, 4)] == [(4, 16, (3, 5, 7), (2, 3, 4), (1, 2, 3), NONE, 1, True)]
    flat = Conv(16, (3, 5, 7), (2, 3, 4), (1, 2, 3), "2d")
    assert [tuple(part) for part in parts(flat, 4)] == [(4, 16, (1, 5, 7), (2, 3, 4), (0, 2, 3), NONE, 1, False)]
    split = Conv(16, (3, 5, 7), (2, 3, 4), (1, 2, 3), "2+1d", mid=9, bias=True, extra=(1, 0, 1))
    assert [tuple(part) for part in parts(split, 4)] == [
        (4, 9, (1, 5, 7), (1, 3, 4), (0, 2, 3), (0, 0, 1), 1, False),
        (9, 16, (3, 1, 1), (2, 1, 1), (1, 0, 0), (1, 0, 0), 1, True),
    ]
    late = Conv(16, (3, 5, 7), (2, 3, 4), (1, 2, 3), "2+1d", mid=9, first="time")
    assert [tuple(part) for part in parts(late, 4)] == [
        (4, 9, (3, 1, 1), (2, 1, 1), (1, 0, 0), NONE, 1, False),
        (9, 16, (1, 5, 7), (1, 3, 4), (0, 2, 3), NONE, 1, False),
    ]


@pytest.mark.parametrize("kernel", [(1, 3, 3), (3, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("kind", ["2+1d", "separable"])
def test_a_site_of_one_side_is_one_convolution(kernel, kind):
    assert not is_factorised(kind, kernel)
    op = lower(spec_of(conv(kernel=list(kernel), conv=kind))).nodes["a.conv"].op
    assert (op.mid, len(parts(op, 4))) == (0, 1)


def test_mid_channels_by_the_formula():
    assert matched_mid(3, 64, (3, 7, 7)) == 83
    assert matched_mid(64, 64, (3, 3, 3)) == 144
    for c_in, out in [(64, 128), (128, 128), (5, 17)]:
        mid = matched_mid(c_in, out, (3, 3, 3))
        assert mid * (9 * c_in + 3 * out) <= 27 * c_in * out < (mid + 1) * (9 * c_in + 3 * out)


def test_mid_rules_of_a_block():
    def mids(**fields):
        graph = lower(spec_of(residual(width=16, conv="2+1d", **fields), clip=(8, 8, 16, 16)))
        return graph.nodes["r.0.conv1"].op.mid, graph.nodes["r.0.conv2"].op.mid

    once = 27 * 8 * 16 // (9 * 8 + 3 * 16)
    assert mids() == (once, 27 * 16 * 16 // (9 * 16 + 3 * 16))
    assert mids(mid="block") == (once, once)
    assert mids(mid=5) == (5, 5)
    separable = lower(spec_of(residual(width=16, conv="separable")))
    assert separable.nodes["r.0.conv1"].op.mid == 16


def test_the_two_stems_of_r2d():
    folded, flat = (lower(preset(name)).nodes["stem.conv"] for name in ("r2d_18", "fr2d_18"))
    assert (folded.op.kernel, folded.size) == ((16, 7, 7), Size(64, 1, 56, 56))
    assert (parts(flat.op, 3)[0].kernel, flat.size) == ((1, 7, 7), Size(64, 16, 56, 56))
    assert lower(with_clip(preset("r2d_18"), (3, 8, 56, 56))).nodes["stem.conv"].op.kernel == (8, 7, 7)


@pytest.mark.parametrize("sides", [(3, 16, 112), (16, 112, 112, 3, 3), (3, 0, 112, 112), (3, 16, 112, 1.5), ()])
def test_other_sides_are_one_line(sides):
    with pytest.raises(SpecError) as fault:
        with_clip(preset("r3d_18"), sides)
    assert fault.value.lines[0].startswith(f"clip {sides}: should be CxTxHxW, four positive integers (c, t, h, w)")


def test_a_clip_of_several_inputs_has_no_channels():
    two = preset("two_stream_i3d")
    assert with_clip(two, (16, 56, 48)).clip == {"rgb": (3, 16, 56, 48), "flow": (2, 16, 56, 48)}
    with pytest.raises(SpecError, match=r"^here: should be TxHxW for two_stream_i3d, which reads rgb, flow"):
        with_clip(two, (3, 16, 56, 48), "here")


def test_flipping_a_kind_renames_nothing():
    names = [list(lower(spec_of(residual(conv=kind, width=16, stride=[2, 2, 2])) ).nodes) for kind in
             ("2d", "3d", "2+1d", "separable")]  # fmt: skip
    assert names[0] == names[1] == names[2] == names[3]


def test_nodes_of_a_block_stand_as_documented():
    graph = lower(spec_of(conv("stem", 8), residual("res3", 16, stride=2, conv="2d")))
    read = {name: node.inputs for name, node in graph.nodes.items() if node.stage == "res3"}
    assert read == {
        "res3.0.skip": ("stem.act",),
        "res3.0.skip_norm": ("res3.0.skip",),
        "res3.0.conv1": ("stem.act",),
        "res3.0.norm1": ("res3.0.conv1",),
        "res3.0.act1": ("res3.0.norm1",),
        "res3.0.conv2": ("res3.0.act1",),
        "res3.0.norm2": ("res3.0.conv2",),
        "res3.0.add": ("res3.0.skip_norm", "res3.0.norm2"),
        "res3.0.act": ("res3.0.add",),
    }
    before = lower(spec_of(residual(order="norm-act-conv", width=4)))
    assert list(before.nodes)[-1] == "r.0.add"
    assert before.nodes["r.0.add"].inputs == ("clip", "r.0.conv2")


def test_shortcuts():
    def skips(**fields):
        graph = lower(spec_of(residual(width=16, depth=2, stride=2, **fields)))
        return [name for name in graph.nodes if "skip" in name]

    assert skips() == ["r.0.skip", "r.0.skip_norm"]
    assert skips(shortcut="conv") == ["r.0.skip"]
    assert skips(shortcut="pad") == ["r.0.skip"]
    pad = lower(spec_of(residual(width=16, stride=2, shortcut="pad"), clip=(4, 5, 7, 9))).nodes["r.0.skip"]
    assert pad.size == Size(16, 3, 4, 5)


# --- from


def test_from_one_stage_and_from_several():
    spec = spec_of(conv("a"), conv("b", 4), conv("c", **{"from": "a"}), conv("d", 2, **{"from": ["b", "c"]}), HEAD)
    graph = lower(spec)
    assert graph.nodes["c.conv"].inputs == ("a.act",)
    assert graph.nodes["d.concat"].inputs == ("b.act", "c.act")
    assert graph.nodes["d.concat"].size == Size(12, 8, 16, 16)
    assert graph.nodes["d.conv"].inputs == ("d.concat",)


def test_two_named_inputs():
    clips = {"rgb": (3, 8, 16, 16), "flow": (2, 8, 16, 16)}
    spec = spec_of(
        conv("a", **{"from": "rgb"}), conv("b", **{"from": "flow"}), {**HEAD, "from": ["a", "b"]}, clip=clips
    )
    graph = lower(spec)
    assert spec.inputs == {"rgb": Size(3, 8, 16, 16), "flow": Size(2, 8, 16, 16)}
    assert graph.nodes["b.conv"].inputs == ("flow",)
    assert graph.nodes["head.concat"].size.c == 16
    with pytest.raises(SpecError, match=r"stage a: from: 'rgb' is no earlier stage; there are: clip"):
        lower(spec.model_copy(update={"clip": (3, 8, 16, 16)}))


WRONG = [
    ([conv("a"), conv("b", stride=2, **{"from": "clip"}), conv("c", **{"from": ["a", "b"]})], "stage c, concat: sizes"),
    ([conv(kernel=[9, 3, 3], padding=[0, 1, 1])], "stage a, conv: kernel 9x3x3 with stride 1x1x1 leaves nothing of a"),
    ([conv(width=6), residual(width=9, groups=3), conv("c", 4), residual("s", 9, groups=3)], "stage s, 0.conv1: 3 gro"),
    ([conv(width=12), residual(width=12, groups=12, conv="2+1d", mid=27)], "12 groups do not divide 27 channels in"),
    ([{"kind": "pool", "name": "p", "padding": [2, 1, 1]}], "padding (2, 1, 1) is more than half of kernel (3, 3, 3)"),
    ([conv("a"), conv("a")], "stage a: the name is given twice"),
    ([conv("clip")], "stage clip: the name is given twice"),
    ([conv("a", **{"from": "b"}), conv("b")], "stage a: from: 'b' is no earlier stage; there are: clip"),
    ([conv("a", **{"from": "a"})], "stage a: from: 'a' is no earlier stage"),
    ([HEAD, conv()], "stage a: reads a head"),
    ([conv(), HEAD, {**HEAD, "name": "other", "from": ["head"]}], "stage other: reads a head"),
    ([conv(widht=3)], "net.yaml, stage a: unknown field 'widht'; did you mean 'width'?"),
    ([{"kind": "conv", "name": "a"}], "net.yaml, stage a: field 'width' is missing"),
    ([{"name": "a"}], "stage a: field 'kind' is missing; there are: conv, pool, residual, inverted, inception"),
    ([{"kind": "residul", "name": "a"}], "stage a: unknown kind 'residul'; did you mean 'residual'?"),
    ([{"kind": ["conv"]}], "stage number 1: unknown kind ['conv']"),
    ([5], "stage number 1: expected fields, got 5"),
    ([conv(width=True)], "stage a: width: True should be"),
    ([conv(width="8")], "stage a: width: '8' should be"),
    ([conv(width=-1)], "stage a: width: -1 should be greater than or equal to 1"),
    ([conv(width=10**30)], "stage a: width: 10000000"),
    ([residual(depth=10**9)], "stage r: depth: 1000000000 should be less than or equal to 1000"),
    ([conv(conv="2dd")], "stage a: conv: '2dd' is not one of 2d, 3d, 2+1d, separable; did you mean '2d'?"),
    ([residual(mid="blok")], "did you mean 'block'?"),
    ([conv(kernel=[3, 3])], "stage a: kernel: [3, 3] is not a positive integer or three of them"),
    ([conv(stride=0)], "stage a: stride: 0 is not a positive integer or three of them"),
    ([conv(gate={"pol": 1})], "stage a: gate: {'pol': 1} is not true, false or {pool: time"),
    ([conv("Stem x")], "stage Stem x: name: 'Stem x' is not lower-case letters, digits and _"),
    ([residual(temporal="entry")], "stage r: temporal: entry is of blocks with a bottleneck; set bottleneck"),
    ([residual(pointwise=True)], "stage r: pointwise: true stands before a depthwise convolution; set groups"),
    ([residual(temporal_start=1)], "stage r: temporal_start 1 leaves no block of 1 that sees time"),
    (
        [{"kind": "inception", "name": "i", "widths": [8, 8, 8, 8, 8]}],
        "stage i: widths: [8, 8, 8, 8, 8] is not six widths",
    ),
    ([{**HEAD, "pool": [2, "some", 1]}], "stage head: pool: [2, 'some', 1] is not mean, flatten or a window"),
    ([residual(bottleneck=float("nan"))], "stage r: bottleneck: nan"),
    ([{**HEAD, "dropout": 1}], "stage head: dropout: 1 should be less than 1"),
]


@pytest.mark.parametrize(("stages", "said"), WRONG, ids=[said for _, said in WRONG])
def test_one_fault_is_one_line(stages, said):
    lines = lines_of(*stages)
    assert len(lines) == 1
    assert lines[0].startswith("net.yaml, stage ")
    assert said in lines[0]


def test_faults_of_a_nested_record_name_it():
    lines = lines_of(HEAD, norm={"epss": 1, "eps": 0, "momentum": "x"})
    assert [line.split(" ")[1:3] for line in lines] == [["norm:", "eps:"], ["norm:", "momentum:"], ["norm:", "unknown"]]
    assert lines[2] == "net.yaml, norm: unknown field 'epss'; did you mean 'eps'?"


@pytest.mark.parametrize(
    "clip", [3, {}, {"rgb": 3}, {"my clip": [3, 8, 8, 8]}, [3, 8, 8], [3, 8, 8, 0], None, "3x8x8x8"]
)
def test_a_clip_is_four_sides(clip):
    (line,) = lines_of(HEAD, clip=clip)
    assert line.startswith("net.yaml: clip: ")
    assert "four positive integers [channels, frames, height, width]" in line


def test_every_fault_of_a_file_at_once_and_no_echo():
    lines = lines_of(
        conv("a", widht=1), conv("b", **{"from": "a"}), conv("c", **{"from": "bb"}), "d", name="a b", clip=[1, 2, 3]
    )
    assert len(lines) == 4  # those of `from` wait until the file is read
    lines = lines_of(conv("a", widht=1), conv("b", **{"from": "a"}), conv("c", **{"from": "bb"}))
    assert len(lines) == 2
    assert lines[1].endswith("stage c: from: 'bb' is no earlier stage; did you mean 'b'?")


@pytest.mark.parametrize("stages", [5, None, [], {}, "conv", True])
def test_stages_are_a_list(stages):
    with pytest.raises(SpecError) as caught:
        parse_spec({"name": "n", "clip": [3, 8, 8, 8], "stages": stages}, "net.yaml")
    assert f"net.yaml: stages: {stages!r} is not a list of stages" in caught.value.lines


def test_stage_by_name():
    assert preset("r3d_18").stage("res2").name == "res2"
    with pytest.raises(SpecError, match="there is no stage 'res22'; did you mean 'res2'"):
        preset("r3d_18").stage("res22")


def test_records_are_frozen():
    stages = (ConvStage(name="a", width=3), PoolStage(name="b"), ResidualStage(name="c", depth=1, width=3))
    for stage in stages:
        with pytest.raises(ValueError, match="frozen"):
            stage.name = "d"


# --- whatever a file says

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["3d", "a"])
hostile = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(scalars, inner, max_size=3), max_leaves=8
)
infos = [pair for stage in STAGES.values() for pair in stage.model_fields.items()]
fields = sorted({info.alias or name for name, info in infos} - {"kind"})
odd_stage = st.builds(
    lambda kind, given: {"kind": kind, "name": "a", "width": 8, "depth": 1, "classes": 2, **given},
    st.sampled_from(sorted(STAGES)),
    st.dictionaries(st.sampled_from(fields), hostile, max_size=3),
)


def thin(stage):
    """A stage without the fields its kind does not have, so that the fuzz reaches the values."""
    known = {info.alias or name for name, info in STAGES[stage["kind"]].model_fields.items()}
    return {name: value for name, value in stage.items() if name in known}


def faults_of(data):
    """The lines of a file's faults, or None where it is a network."""
    try:
        graph = lower(parse_spec(data, "f.yaml"))
    except ArchsearchError as error:
        return error.lines
    assert min(min(node.size) for node in graph.nodes.values()) >= 1
    return None


@settings(**TIGHT)
@given(st.lists(odd_stage.map(thin) | hostile, max_size=3), hostile | st.just([3, 8, 16, 16]), st.booleans())
def test_any_file_is_a_network_or_lines(stages, clip, odd):
    lines = faults_of({"name": "n", "clip": clip, "stages": stages if odd else [*stages, HEAD]})
    assert lines != ()
    assert all(line.startswith("f.yaml") and len(line.splitlines()) == 1 for line in lines or ())


@settings(**TIGHT)
@given(st.dictionaries(scalars | st.sampled_from(["name", "clip", "stages", "norm"]), hostile, max_size=5))
def test_any_mapping_is_a_network_or_lines(data):
    with pytest.raises(ArchsearchError) as caught:
        parse_spec(data, "f.yaml")
    assert caught.value.lines
    assert all(len(line.splitlines()) == 1 for line in caught.value.lines)


@pytest.mark.parametrize(
    "name", ["r3d_34", "resnet3d_50", "preresnet3d_50", "i3d_r50", "tsm_r50", "x3d_s", "movinet_a0"]
)
def test_a_block_that_is_a_copy_is_the_block_that_would_be_built(name, monkeypatch):
    copied = lower(preset(name))
    monkeypatch.setattr(Builder, "block", lambda self, block, x, rule, append: append(block, x))
    built = lower(preset(name))
    assert list(copied.nodes.items()) == list(built.nodes.items())
    assert copied.stages == built.stages
