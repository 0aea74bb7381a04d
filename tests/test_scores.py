"""Training-free scores: what they promise of every network, and what a search does with them."""

import json
import math

import pytest
import torch
from conftest import SPACE, run_search, trials_in, write_tiny

from archsearch.errors import SpaceError, SpecError
from archsearch.nets.build import build
from archsearch.nets.scores import SCORES, entropy, naswot, plain_trunk, random_clips, synflow, zen
from archsearch.search.scoring import FIRST
from archsearch.space import space as spaces
from archsearch.space.file import parse_space, read_space
from archsearch.spec.graph import Add, Concat
from archsearch.spec.presets import preset
from archsearch.spec.spec import lower, parse_spec

pytestmark = pytest.mark.usefixtures("one_thread")

BLOCKS = {
    "basic": {"kind": "residual", "depth": 2, "width": 16, "stride": 2},
    "preactivation": {"kind": "residual", "depth": 1, "width": 16, "order": "norm-act-conv", "shortcut": "pad"},
    "2+1d": {"kind": "residual", "depth": 1, "width": 16, "conv": "2+1d", "bottleneck": 0.5, "groups": 2},
    "shift": {"kind": "residual", "depth": 1, "width": 16, "conv": "2d", "shift": 4, "gate": {"reduction": 4}},
    "depthwise": {"kind": "inverted", "depth": 1, "width": 16, "gate": True, "rezero": True, "act": "hardswish"},
    "separable": {"kind": "inception", "widths": [4, 4, 8, 4, 4, 4], "conv": "separable", "gate": True},
    "dense": {"kind": "dense", "depth": 2, "growth": 8},
    "recurrent": {"kind": "recurrent", "width": 8},
}


def network(*blocks, clip=(3, 4, 16, 16), width=8, act="relu", head=()):
    stages = [{"kind": "conv", "name": "stem", "width": width, "kernel": [1, 3, 3], "act": act}]
    stages += [{**block, "name": f"s{number}"} for number, block in enumerate(blocks)]
    return parse_spec(
        {
            "name": "net",
            "clip": clip,
            "stages": [*stages, {**{"kind": "head", "name": "head", "classes": 4}, **dict(head)}],
        },
        "net",
    )


def streams():
    """Two inputs, whose frames differ, each with its own head; their mean."""
    stages = [
        {"kind": "conv", "name": "a", "width": 8, "from": "slow"},
        {"kind": "head", "name": "head_a", "classes": 4},
        {"kind": "conv", "name": "b", "width": 4, "from": "fast", "conv": "2+1d"},
        {"kind": "head", "name": "head_b", "classes": 4},
        {"kind": "average", "name": "mean", "from": ["head_a", "head_b"]},
    ]
    clip = {"slow": [3, 2, 12, 12], "fast": [2, 8, 12, 12]}
    return parse_spec({"name": "streams", "clip": clip, "stages": stages}, "streams")


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("kind", [*BLOCKS, "streams"])
def test_every_kind_of_network_has_a_score_that_the_seed_decides(score, kind):
    spec = streams() if kind == "streams" else network(BLOCKS[kind])
    torch.manual_seed(1)
    found = SCORES[score](spec, 3, 4, None)
    assert math.isfinite(found)
    torch.manual_seed(2)
    assert SCORES[score](spec, 3, 4, None) == found
    assert (SCORES[score](spec, 4, 4, None) == found) == (score == "entropy")


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("name", ["resnet3d_10", "s3d_g"])
def test_presets_are_scored(score, name):
    spec = preset(name)
    spec = spec.model_copy(update={"clip": (3, 16, 32, 32)})
    assert math.isfinite(SCORES[score](spec, 0, 2, None))


def test_scoring_leaves_the_random_numbers_and_the_gradient_mode_alone():
    state = torch.get_rng_state()
    for score in SCORES.values():
        score(network(BLOCKS["basic"]), 0, 2, None)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


def test_the_names_of_spaces_are_those_of_the_functions():
    assert tuple(SCORES) == spaces.SCORES


# naswot


def test_naswot_counts_units_that_clips_switch_alike():
    spec = network(width=6)
    clips = random_clips(spec, 3, 5)
    net = build(spec, seed=7).train()
    codes = (net.stem.norm(net.stem.conv(clips[0])) > 0).flatten(1).double()
    kernel = codes @ codes.T + (1 - codes) @ (1 - codes).T
    assert naswot(spec, 7, 2, clips) == pytest.approx(float(torch.logdet(kernel)), abs=1e-6)


def test_naswot_refuses_what_it_is_not_of():
    with pytest.raises(SpecError, match=r"net: naswot is of activations, of which it has none"):
        naswot(network(act="none"))
    with pytest.raises(SpecError, match=r"net: naswot compares clips; give 2 or more, not 1"):
        naswot(network(), batch=1)
    spec = network()
    with pytest.raises(SpecError, match=r"naswot is -?inf"):  # two clips that nothing tells apart
        naswot(spec, clips=[random_clips(spec, 1, 0)[0].expand(2, -1, -1, -1, -1)])


@pytest.mark.parametrize("score", [naswot, zen])
def test_clips_of_another_size_are_refused(score):
    with pytest.raises(SpecError, match=r"net: reads clip 3x4x16x16; the clips are 3x4x8x8"):
        score(network(), clips=[torch.zeros(2, 3, 4, 8, 8)])


# synflow


def test_synflow_of_a_chain_is_what_it_gives_for_each_layer():
    """Tanaka et al. 2020: every layer of a chain has the same sum, which is what the network gives."""
    spec = parse_spec({"name": "chain", "clip": [3, 4, 8, 8], "stages": [
        {"kind": "conv", "name": "a", "width": 8, "kernel": 3},
        {"kind": "conv", "name": "b", "width": 4, "kernel": [3, 1, 1]},
        {"kind": "head", "name": "head", "classes": 4},
    ]}, "chain")  # fmt: skip
    net = build(spec, seed=2).double()
    with torch.no_grad():
        for weight in net.parameters():
            weight.abs_()
        x = torch.ones(1, 3, 4, 8, 8, dtype=torch.float64)
        given = net.head.linear(net.b.conv(net.a.conv(x)).mean((2, 3, 4)))
    assert synflow(spec, 2) == pytest.approx(math.log(3 * float(given.sum())), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["basic", "2+1d", "dense"])
def test_wider_and_deeper_are_never_a_lower_synflow(kind, seed):
    block = BLOCKS[kind]
    field = "growth" if kind == "dense" else "width"
    narrow, wide = (synflow(network({**block, field: times * block[field]}), seed) for times in (1, 2))
    deep = synflow(network({**block, "depth": block["depth"] + 1}), seed)
    assert wide > narrow
    assert deep > narrow


def test_synflow_is_of_any_batch_and_of_deep_networks():
    spec = network({**BLOCKS["dense"], "depth": 60, "growth": 32}, clip=(3, 1, 2, 2))
    assert synflow(spec, 0) > 200
    assert synflow(spec, 0, batch=1) == synflow(spec, 0, batch=8, clips=random_clips(spec, 2, 1))


# zen, entropy


def test_the_plain_trunk_has_no_shortcuts_and_no_heads():
    spec = network(BLOCKS["basic"], BLOCKS["dense"], head={"hidden": [8]})
    trunk = plain_trunk(spec)
    assert not any(isinstance(node.op, Add) for node in trunk.nodes.values())
    assert not any("skip" in name or name.startswith("head") for name in trunk.nodes)
    assert list(trunk.stages.values()) == [lower(spec).stages["s1"]]
    assert isinstance(trunk.output.op, Concat)
    assert list(plain_trunk(streams()).stages.values()) == ["a.act", "b.act"]


def test_zen_puts_back_what_norms_take_away():
    """Kernels of any size give the same network behind norms; zen of a chain knows each of them by its variance."""
    found = [zen(network({"kind": "conv", "width": width, "kernel": 3}), 0, 8) for width in (8, 32)]
    assert found[0] == pytest.approx(found[1], abs=0.5)  # as many are read; more are given
    wide = zen(network({"kind": "conv", "width": 8, "kernel": 3}, width=32), 0, 8)
    assert wide - found[0] == pytest.approx(0.5 * math.log(4), abs=0.5)


def test_entropy_is_the_formula_of_a_chain():
    """Wang et al. 2023: two sites in one resolution and one in the next."""
    spec = parse_spec({"name": "chain", "clip": [3, 8, 16, 16], "stages": [
        {"kind": "conv", "name": "a", "width": 8, "kernel": 3},
        {"kind": "conv", "name": "b", "width": 4, "kernel": [3, 1, 1]},
        {"kind": "conv", "name": "c", "width": 5, "kernel": 3, "stride": 2, "groups": 1},
        {"kind": "head", "name": "head", "classes": 4},
    ]}, "chain")  # fmt: skip

    def refined(fan_in, kernel, size):
        a, b = torch.tensor(kernel, dtype=torch.float64), torch.tensor(size, dtype=torch.float64)
        return math.log(fan_in * -math.log(1 - float(a @ b / (a.norm() * b.norm()))))

    first = refined(3 * 27, (3, 3, 3), (8, 16, 16)) + math.log(8 * 3)
    second = first + refined(4 * 27, (3, 3, 3), (4, 8, 8))
    levels = first / 2 + math.log(4), second / 2 + math.log(5)
    assert entropy(spec) == pytest.approx(levels[0] + 6 * levels[1])


def test_entropy_knows_time():
    kinds = [entropy(network({"kind": "conv", "width": 8, "conv": kind})) for kind in ("2d", "3d")]
    assert kinds[0] < kinds[1]


# in a search


def test_scores_are_objectives_without_limits(tmp_path):
    space = read_space(write_tiny(tmp_path, {"objectives": {"naswot": "maximize", "gmacs": "minimize"}})[0])
    assert list(space.objectives) == ["naswot", "gmacs"]
    with pytest.raises(SpaceError, match=r"limits: 'zen' is a score: it may be an objective, and has no limits"):
        read_space(write_tiny(tmp_path, {"limits": {"zen": {"min": 3}}})[0])
    with pytest.raises(SpaceError, match=r"unknown metric 'naswit'; did you mean 'naswot'"):
        read_space(write_tiny(tmp_path, {"objectives": {"naswit": "maximize"}})[0])
    with pytest.raises(SpaceError, match=r"first: the 9 best of first_of 8 draws; lower it"):
        parse_space({**SPACE, "search": {"first": 9, "first_of": 8}}, "tiny", tmp_path)
    with pytest.raises(SpaceError, match=r"first_by: 'zenn' is not one of .*; did you mean 'zen'"):
        parse_space({**SPACE, "search": {"first_by": "zenn"}}, "tiny", tmp_path)


def test_a_search_for_a_score_that_begins_with_the_best_by_it(clips, tmp_path):
    search = {"trials": 5, "sampler": "random", "first": 2, "first_by": "entropy", "first_of": 40}
    objectives = {"entropy": "maximize", "gmacs": "minimize"}
    files = write_tiny(tmp_path, {"search": search, "objectives": objectives}, {"epochs": 1, "warmup_epochs": 0})
    run_search(*files, clips, tmp_path / "run")
    trials = trials_in(tmp_path / "run")
    assert [trial["published"] for trial in trials[:3]] == ["fr2d_18", "r3d_18", None]
    first = json.loads((tmp_path / "run" / FIRST).read_text())
    assert [trial["params"] for trial in trials[2:4]] == first
    values = [trial["metrics"]["entropy"] for trial in trials]
    assert values[2] >= values[3] > max(values[0], 0)
    assert values[1] > values[2]  # r3d_18 has the most of all
    before = trials_in(tmp_path / "run")
    run_search(*files, clips, tmp_path / "run")  # nothing is asked again
    assert trials_in(tmp_path / "run") == before


def test_the_command(cli, tmp_path):
    code, out, _ = cli("score", "fr2d_18", "r3d_18", "--clip", "3x4x16x16", "--score", "entropy,naswot", "--json")
    assert code == 0
    rows = json.loads(out)
    assert [row["name"] for row in rows] == ["fr2d_18", "r3d_18"]
    assert all(row["scores"].keys() == {"entropy", "naswot"} == row["seconds"].keys() for row in rows)
    code, out, _ = cli("score", "fr2d_18", "--clip", "3x4x16x16", "--score", "entropy")
    assert code == 0
    assert "entropy" in out
    code, _, said = cli("score", "fr2d_18", "--score", "entopy")
    assert (code, said) == (1, ["--score entopy: there is no score 'entopy'; did you mean 'entropy'?"])
    code, _, said = cli("score", "fr2d_18", "--clip", "3x4x16x16", "--score", "naswot", "--batch", "1")
    assert (code, said) == (1, ["fr2d_18: naswot compares clips; give 2 or more, not 1"])
