"""Weight sharing: what candidates are of the shared tensors, that training resumes, and what is read off."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import RECIPE, SPACE, write_tiny

from archsearch.errors import RecipeError, SpaceError, SpecError
from archsearch.nets.build import build_graph, initialise
from archsearch.nets.elastic import Elastic, Member, carve, estimate_norms, read_off
from archsearch.search import sharing
from archsearch.search.launch import Wish, prepare
from archsearch.search.sharing import family_of, share
from archsearch.space.extremes import cover, largest, smallest
from archsearch.space.file import parse_space
from archsearch.spec.cost import total_cost
from archsearch.spec.spec import lower, parse_spec
from archsearch.training.elastic import distillation, train_shared
from archsearch.training.optimiser import loss_of
from archsearch.training.recipe import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = ["2d", "3d", "2+1d", "separable"]
RESIDUAL = {"kind": "residual", "depth": 1, "width": 8}
INVERTED = {"kind": "inverted", "depth": 1, "width": 8, "inner": 12}
INCEPTION = {"kind": "inception", "widths": [4, 4, 8, 4, 8, 4]}
HALVES = ("3d", "space"), ("2+1d", "time"), ("2+1d", "space")
GROUPS = (2, 16), (4, 8), (1, 8)
FAMILIES = {  # blocks, the largest first, each a variant of one choice
    "kind": [{**RESIDUAL, "conv": kind} for kind in ("3d", "2d", "2+1d", "separable")],
    "factorised alone": [{**RESIDUAL, "conv": kind} for kind in ("2+1d", "2d", "separable")],
    "time first": [{**RESIDUAL, "conv": kind, "first": half} for kind, half in HALVES],
    "width": [{**RESIDUAL, "width": width, "stride": 2} for width in (16, 8, 12)],
    "depth": [{**RESIDUAL, "depth": depth} for depth in (3, 1, 2)],
    "gate": [{**RESIDUAL, "gate": gate} for gate in ({"reduction": 2}, False, True)],
    "kernel": [{**RESIDUAL, "kernel": kernel} for kernel in ([5, 5, 5], 3, [1, 3, 3])],
    "bottleneck": [{**RESIDUAL, "bottleneck": share} for share in (1.0, 0.5, 0.25)],
    "shortcut": [{**RESIDUAL, "width": width, "shortcut": "pad"} for width in (16, 12)],
    "order": [{**RESIDUAL, "order": order} for order in ("conv-norm-act", "norm-act-conv")],
    "groups": [{**RESIDUAL, "bottleneck": 1.0, "groups": groups, "width": width} for groups, width in GROUPS],
    "depthwise": [{**INVERTED, "conv": kind, "inner": inner} for kind, inner in (("3d", 16), ("2d", 8), ("2+1d", 12))],
    "rezero": [{**INVERTED, "rezero": True, "gate": {"reduction": 2}}, {**INVERTED, "rezero": False}],
    "inception": [{**INCEPTION, "conv": kind, "gate": gate} for kind, gate in (("3d", True), ("separable", False))],
    "inception widths": [{**INCEPTION, "widths": widths} for widths in ([8] * 6, [4] * 6, [8, 4, 4, 4, 8, 4])],
    "growth": [{"kind": "dense", "depth": depth, "growth": growth} for depth, growth in ((3, 8), (2, 8), (3, 4))],
    "recurrent": [{"kind": "recurrent", "width": width} for width in (8, 4)],
}  # fmt: skip
CLIP = (3, 4, 12, 12)


def network(block, head=()):
    stem = {"kind": "conv", "name": "stem", "width": 8, "kernel": [1, 3, 3]}
    stages = [stem, {**block, "name": "s"}, {"kind": "head", "name": "head", "classes": 3, **dict(head)}]
    return lower(parse_spec({"name": "net", "clip": CLIP, "stages": stages}, "net"))


def family(name):
    graphs = [network(block) for block in FAMILIES[name]]
    return Elastic(graphs, seed=1), graphs


def clip(count=3, seed=0):
    return torch.randn(count, *CLIP, generator=torch.Generator().manual_seed(seed))


# What a candidate is


@pytest.mark.parametrize("name", FAMILIES)
def test_every_candidate_is_a_network_and_gradients_reach_every_shared_tensor(name):
    shared, graphs = family(name)
    for graph in graphs:
        carved = carve(shared, graph)
        net = build_graph(graph)
        missing, unexpected = net.load_state_dict({key: value.detach() for key, value in carved.items()}, strict=False)
        assert not unexpected
        assert all("running_" in key or "num_batches" in key for key in missing)
        logits = Member(shared, graph, "net")(shared, clip())
        torch.testing.assert_close(logits, net.train()(clip()), rtol=0, atol=0)
        (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
    grads = {key: value.grad for key, value in shared.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    assert all(grads[key].any() for key in grads if key.rpartition(".")[2] in ("mix", "mix_space"))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_candidate_can_be_read_off(name):
    shared, graphs = family(name)
    for graph in graphs:
        net = read_off(shared, graph, "net", [clip(seed=1), clip(seed=2)])
        assert not net.training
        assert net(clip()).isfinite().all()
        carved = carve(shared, graph)
        assert all(torch.equal(value, carved[key]) for key, value in net.named_parameters())


@pytest.mark.parametrize("name", ["kind", "width", "depth", "gate", "bottleneck", "inception widths", "growth"])
def test_the_largest_has_the_shared_tensors_themselves(name):
    shared, graphs = family(name)
    tensors = dict(shared.named_parameters())
    for key, value in carve(shared, graphs[0]).items():
        whole = tensors[key]
        if key.endswith("weight") and value.ndim == 5 and name == "kind":
            whole = whole[: len(value)]  # 2+1d has more channels inside
        assert torch.equal(value, whole)
        assert value.data_ptr() == whole.data_ptr()


def test_the_largest_is_drawn_as_a_network_is():
    shared, graphs = family("width")
    net = build_graph(graphs[0])
    stds = {key: float(value.detach().std()) for key, value in shared.named_parameters() if value.ndim == 5}
    torch.manual_seed(0)
    initialise(net)
    for key, value in net.named_parameters():
        if value.ndim == 5:
            assert stds[key] == pytest.approx(float(value.detach().std()), rel=0.25)


def test_narrower_is_the_first_channels_and_shallower_the_first_blocks():
    shared, (wide, narrow, _) = family("width")
    whole, part = carve(shared, wide), carve(shared, narrow)
    assert torch.equal(part["s.0.conv2.weight"], whole["s.0.conv2.weight"][:8, :8])
    assert torch.equal(part["head.linear.weight"], whole["head.linear.weight"][:, :8])
    shared, (deep, shallow, _) = family("depth")
    whole, part = carve(shared, deep), carve(shared, shallow)
    assert all(torch.equal(value, whole[key]) for key, value in part.items())


def test_behind_a_concat_each_branch_keeps_its_place():
    shared, (wide, narrow, _) = family("inception widths")
    whole, part = carve(shared, wide)["head.linear.weight"], carve(shared, narrow)["head.linear.weight"]
    kept = [place + channel for place in (0, 8, 16, 24) for channel in range(4)]
    assert torch.equal(part, whole[:, kept])


def test_a_2d_kernel_is_the_3d_one_summed_over_time_at_first():
    graphs = [network({**RESIDUAL, "conv": kind}) for kind in ("3d", "2d", "separable")]
    whole, flat, halves = (carve(Elastic(graphs), graph) for graph in graphs)
    torch.testing.assert_close(flat["s.0.conv1.weight"], whole["s.0.conv1.weight"].sum(2, keepdim=True))
    torch.testing.assert_close(halves["s.0.conv1.spatial.weight"], flat["s.0.conv1.weight"])
    shared = Elastic(graphs, mix="centre")
    flat, whole = carve(shared, graphs[1]), carve(shared, graphs[0])
    assert torch.equal(flat["s.0.conv1.weight"], whole["s.0.conv1.weight"][:, :, 1:2])
    assert "stem.conv.mix" not in dict(shared.named_parameters())  # it has one frame in any case
    assert "s.0.conv1.mix" not in dict(Elastic(graphs[1:]).named_parameters())


def test_a_network_that_is_not_of_the_family_is_refused():
    shared, _ = family("width")
    for block in ({**RESIDUAL, "width": 32, "stride": 2}, {**RESIDUAL, "depth": 2}):
        with pytest.raises(SpecError, match="is of no network that the shared weights were made for"):
            carve(shared, network(block))


def test_the_seed_decides_the_draw():
    graphs = [network(block) for block in FAMILIES["recurrent"]]
    torch.manual_seed(0)
    first = dict(Elastic(graphs, 3).named_parameters())
    torch.manual_seed(1)
    again, other = (dict(Elastic(graphs, seed).named_parameters()) for seed in (3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_norms_are_estimated_as_training_sees_them():
    """On the very batch that it was estimated on, a network says in evaluation what it says in training."""
    net = build_graph(network(RESIDUAL))
    shared = Elastic([network(RESIDUAL)])
    net.load_state_dict({key: value.detach() for key, value in carve(shared, network(RESIDUAL)).items()}, strict=False)
    estimate_norms(net, [clip()])
    assert [norm.momentum for norm in net.modules() if isinstance(norm, torch.nn.BatchNorm3d)] == [0.1] * 3
    evaluated = net(clip())
    torch.testing.assert_close(evaluated, net.train()(clip()), rtol=0.02, atol=1e-3)


# The ends of a space


def test_the_ends_of_a_space(tmp_path):
    vary = [
        {"field": "conv", "stages": ["res*"], "each": KINDS},
        {"field": "conv", "stages": ["stem"], "prefix": ["2d", "3d"]},
        {"field": "depth", "stages": ["res2"], "tied": [1, 3]},
        {"field": "gate", "stages": ["res5"], "tied": [False, True]},
    ]
    space = parse_space({**SPACE, "vary": vary}, "tiny", tmp_path)
    big, small = largest(space), smallest(space)
    assert [stage.conv for stage in big.stages[:-1]] == ["3d"] * 5
    assert [stage.conv for stage in small.stages[:-1]] == ["2d"] * 5
    assert (big.stage("res2").depth, small.stage("res2").depth) == (3, 1)
    assert (big.stage("res5").gate, small.stage("res5").gate) == (True, False)
    specs = list(cover(space))
    assert len(specs) < space.size / 5
    shared = Elastic(map(lower, specs))
    for positions in space.sample_positions(30, seed=1):
        graph = lower(space.spec_at(positions))
        assert sum(value.numel() for value in carve(shared, graph).values()) == total_cost(graph).params


# Training


def test_what_the_largest_says_is_what_others_learn():
    said, teacher = torch.randn(4, 3), torch.randn(4, 3)
    smooth = Recipe(label_smoothing=0.0)
    torch.testing.assert_close(distillation(said, teacher, smooth), loss_of(said, teacher.softmax(1), smooth))
    binary = Recipe(label_smoothing=0.0, loss="binary")
    torch.testing.assert_close(distillation(said, teacher, binary), loss_of(said, teacher.sigmoid(), binary))


@pytest.fixture
def planned(clips, tmp_path):
    def make(out="run", space=(), recipe=()):
        files = write_tiny(tmp_path, space)
        made = Recipe(**{**RECIPE, **dict(recipe)})
        plan, _, pack = prepare(files[0], clips, str(tmp_path / out), made, Wish(shared=True), lambda *_: None)
        return plan, pack

    return make


class Stopped(Exception):
    pass


def test_a_training_that_was_stopped_goes_on_bit_for_bit(planned):
    plan, pack = planned(recipe={"views": 1, "ema": 0.5, "accumulate": 2, "mixup": 0.2})
    family = family_of(plan)
    store = plan.folder.store

    def stop(epoch):
        raise Stopped

    with pytest.raises(Stopped):
        train_shared(family, plan.recipe, pack, store.at("cut"), stop)
    cut, found = train_shared(family, plan.recipe, pack, store.at("cut"))
    whole, wanted = train_shared(family, plan.recipe, pack, store.at("whole"))
    assert all(torch.equal(a, b) for a, b in zip(cut.state_dict().values(), whole.state_dict().values(), strict=True))
    assert (found["metrics"], found["macs"]) == (wanted["metrics"], wanted["macs"])
    curves = [json.loads(store.read(f"{name}/curve.json")) for name in ("cut", "whole")]
    assert [{**row, "seconds": 0} for row in curves[0]] == [{**row, "seconds": 0} for row in curves[1]]
    again, known = train_shared(family, plan.recipe, pack, store.at("whole"))  # answered from its files
    assert known == wanted
    assert torch.equal(again.state_dict()["res5.0.conv1.weight"], whole.state_dict()["res5.0.conv1.weight"])


def test_what_a_training_costs_is_counted_while_it_trains(planned):
    plan, pack = planned(recipe={"views": 1})
    family, drawn = family_of(plan), []

    def draw(rng):
        drawn.append(family.draw(rng))
        return drawn[-1]

    _, result = train_shared(replace(family, draw=draw), plan.recipe, pack, plan.folder.store.at("one"))
    steps = 3 * plan.recipe.epochs  # of 8 clips each
    assert len(drawn) == 2 * steps, "networks are drawn for training alone"
    ends = steps * sum(total_cost(lower(spec)).macs for spec in (family.largest, family.smallest))
    assert result["macs"] == 8 * (ends + sum(total_cost(lower(spec)).macs for spec in drawn))


def test_a_whole_space_is_read_off(planned, cli, clips, tmp_path):
    plan, pack = planned(space={"limits": {"gmacs": {"max": 0.0098}}}, recipe={"epochs": 1, "warmup_epochs": 0})
    said = []
    assert share(plan, pack, 4, lambda *line: said.append(line)) == 4
    assert {line[0] for line in said} == {"training", "reading off"}
    trials = plan.folder.settled()
    assert [(trial.state, trial.epochs) for trial in trials] == [("complete", 0)] * 4
    assert trials[0].published == "fr2d_18"
    assert all(trial.metrics["gmacs"] <= 0.0098 for trial in trials)
    assert share(plan, pack, 5, lambda *_: None) == 5  # more of them; nothing is trained again
    assert plan.folder.settled()[:4] == trials
    code, out, _ = cli("status", plan.folder.store.url, "--json")
    assert (code, json.loads(out)["trials"]["complete"], json.loads(out)["shared"]["epochs"]) == (0, 5, 1)
    code, out, said = cli("front", plan.folder.store.url, "--json")
    assert code == 0
    assert "values are read off shared weights" in said[0]
    candidate = plan.folder.candidate(trials[0].candidate).url
    code, out, _ = cli("evaluate", candidate, clips, "--json")
    assert code == 0
    assert json.loads(out)["top1"] == trials[0].metrics["top1"]


def test_the_command_and_what_it_refuses(cli, clips, tmp_path):
    files = write_tiny(tmp_path, recipe={"epochs": 1, "warmup_epochs": 0, "views": 1})
    command = clips, "--out", tmp_path / "run", "--recipe", files[1]
    code, _, said = cli("share", files[0], *command, "--candidates", 2)
    assert (code, said[-1]) == (0, f"done: 2 networks read off; `archsearch front {tmp_path / 'run'}` shows the front")
    identity = json.loads((tmp_path / "run" / "run.json").read_text())
    assert identity["values"] == "shared"
    code, _, said = cli("search", files[0], *command)
    assert code == 1
    assert "was started with another source of values;" in said[0]


def test_spaces_and_recipes_that_share_no_weights(planned, monkeypatch):
    monkeypatch.setattr(sharing, "TRIES", 20)
    plan, pack = planned(recipe={"frozen_norm": True})
    with pytest.raises(RecipeError, match="frozen_norm: shared weights have no statistics"):
        share(plan, pack, 1, lambda *_: None)
    plan, _ = planned("other", {"vary": [{"field": "clip.frames", "tied": [4, 8]}], "published": []})
    with pytest.raises(SpaceError, match=r"tiny: weights are shared for clips of one size; clip.frames varies it"):
        family_of(plan)
    plan, _ = planned("third", {"limits": {"gmacs": {"max": 1e-9}}})
    with pytest.raises(SpaceError, match="found no candidate within its limits"):
        family_of(plan).draw(np.random.default_rng(0))
