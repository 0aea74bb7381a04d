"""Partial fine-tuning: what is frozen stays the function it was, what is trained moves at its own rate."""

import json

import pytest
import torch

from archsearch.errors import RecipeError
from archsearch.nets.build import build
from archsearch.spec.basic import PoolStage
from archsearch.spec.spec import spec_yaml
from archsearch.store import open_store
from archsearch.training.checkpoint import read_weights, save_state
from archsearch.training.finetune import parameter_groups, training_mode
from archsearch.training.loop import train
from archsearch.training.recipe import Recipe, read_recipe
from archsearch.training.single import start_state


def recipe(**changes):
    return Recipe(**{"epochs": 2, "batch": 8, "warmup_epochs": 0, "views": 1, **changes})


def groups(spec, **changes):
    net = build(spec, seed=0)
    return net, parameter_groups(net, [stage.name for stage in spec.stages], recipe(**changes))


def moved(before, after):
    """The stages with a tensor that changed."""
    return {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}


def trained(spec, pack, store, **changes):
    """Stages that a training of two epochs changes, batch statistics included."""
    before = {name: tensor.clone() for name, tensor in build(spec, seed=0).state_dict().items()}
    train(spec, recipe(**changes), pack, store)
    return moved(before, read_weights(store)), before, read_weights(store)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("only", "stages"),
    [((), {"stem", "res2", "res3", "head"}), (("head",), {"head"}), (("res3", "h*"), {"res3", "head"})],
)
def test_only_what_is_named_changes(spec, pack, tmp_path, only, stages):
    assert trained(spec, pack, open_store(str(tmp_path)), train_only=only)[0] == stages


@pytest.mark.usefixtures("one_thread")
def test_frozen_norms_keep_statistics_scale_and_shift(spec, pack, tmp_path):
    stages, before, after = trained(spec, pack, open_store(str(tmp_path)), frozen_norm=True)
    assert stages == {"stem", "res2", "res3", "head"}
    norms = [name for name in before if "norm" in name]
    assert any("running_mean" in name for name in norms)
    assert all(torch.equal(before[name], after[name]) for name in norms)


def test_frozen_stages_are_in_evaluation_while_others_train(spec):
    net, _ = groups(spec, train_only=("res3", "head"))
    training_mode(net, recipe(train_only=("res3", "head")))
    leaves = {path: module.training for path, module in net.named_modules() if path and not list(module.children())}
    assert {path.partition(".")[0] for path, training in leaves.items() if training} == {"res3", "head"}
    assert {path.partition(".")[0] for path, training in leaves.items() if not training} == {"stem", "res2"}


def test_every_parameter_has_its_own_rate_and_decay(spec):
    net, found = groups(spec, lr_factors={"stem": 0.01, "res*": 0.1})
    names = {parameter: name for name, parameter in net.named_parameters()}
    rate = {names[p]: (group["factor"], group["weight_decay"]) for group in found for p in group["params"]}
    assert rate.keys() == {name for name, _ in net.named_parameters()}
    for name, (factor, decay) in rate.items():
        assert factor == {"stem": 0.01, "head": 1.0}.get(name.partition(".")[0], 0.1)
        assert decay == (0.05 if net.get_parameter(name).ndim > 1 else 0.0)


@pytest.mark.usefixtures("one_thread")
def test_a_lower_rate_moves_a_stage_less(spec, pack, tmp_path):
    distance = {}
    for factor in (1e-3, 1.0):
        store = open_store(str(tmp_path / str(factor)))
        _, before, after = trained(spec, pack, store, lr_factors={"res2": factor}, warmup_epochs=1)
        weight = "res2.0.conv1.weight"
        distance[factor] = float((after[weight] - before[weight]).norm())
    assert 0 < distance[1e-3] < 0.05 * distance[1.0]


@pytest.mark.usefixtures("one_thread")
def test_interrupted_in_partial_training_and_resumed_is_uninterrupted(spec, pack, tmp_path):
    changes = {"train_only": ("res3", "head"), "lr_factors": {"res3": 0.5}, "epochs": 3}
    whole, parts = open_store(str(tmp_path / "whole")), open_store(str(tmp_path / "parts"))
    train(spec, recipe(**changes), pack, whole)

    def stop(epoch):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        train(spec, recipe(**changes), pack, parts, stop)
    train(spec, recipe(**changes), pack, parts)
    assert not moved(read_weights(whole), read_weights(parts))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"train_only": ("ras3",)}, "recipe, train_only: 'ras3' matches no stage; did you mean 'res3'?"),
        ({"lr_factors": {"layer*": 0.1}}, "recipe, lr_factors: 'layer*' matches no stage"),
    ],
)
def test_a_pattern_that_matches_nothing_is_named(spec, changes, line):
    with pytest.raises(RecipeError) as error:
        groups(spec, **changes)
    assert line in error.value.lines[0]


def test_a_stage_without_weights_alone_cannot_be_trained(spec):
    pooled = spec.model_copy(update={"stages": (*spec.stages[:-1], PoolStage(name="pool"), spec.stages[-1])})
    with pytest.raises(RecipeError, match="pool has nothing to train"):
        groups(pooled, train_only=("pool",))


@pytest.mark.parametrize("text", ["lr_factors: {res2: 0}", "lr_factors: {res2: -1}", "lr_factors: 3", "train_only: 3"])
def test_a_wrong_field_is_one_line(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as error:
        read_recipe(path)
    assert len(error.value.lines) == 1
    assert text.partition(":")[0] in error.value.lines[0]


@pytest.mark.usefixtures("one_thread")
def test_a_folder_of_a_recipe_without_the_newer_fields_goes_on(spec, clips, cli, tmp_path):
    (tmp_path / "net.yaml").write_text(spec_yaml(spec))
    (tmp_path / "recipe.yaml").write_text("{epochs: 1, batch: 8, warmup_epochs: 0, views: 1}")
    out = tmp_path / "out"
    command = ["train", tmp_path / "net.yaml", clips, "--recipe", tmp_path / "recipe.yaml", "--out", out]
    assert cli(*command)[0] == 0
    facts = json.loads((out / "network.json").read_text())
    for field in ("train_only", "lr_factors", "frozen_norm"):
        del facts["recipe"][field]
    (out / "network.json").write_text(json.dumps(facts))
    assert cli(*command)[0] == 0


def test_a_start_may_be_a_share_of_weights(spec, tmp_path):
    """Kernels lie between those of the folder and a fresh draw; norms and the classifier are the folder's."""
    theirs, fresh = (build(spec, seed=seed).state_dict() for seed in (1, 0))
    save_state(open_store(str(tmp_path)), theirs)
    whole, quarter = (start_state(spec, open_store(str(tmp_path)), 0, share=share) for share in (1.0, 0.25))
    for name, tensor in whole.items():
        assert torch.equal(tensor, theirs[name])
        expected = 0.25 * tensor + 0.75 * fresh[name] if tensor.ndim == 5 else tensor
        assert torch.allclose(quarter[name], expected)
