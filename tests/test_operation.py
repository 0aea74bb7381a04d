"""Operating on a trained network's folder: what is read, where it is computed, and what a kill leaves behind."""

from functools import partial

import pytest
import torch

from archsearch.errors import RunError
from archsearch.nets.build import build
from archsearch.space.choices import assign
from archsearch.spec.spec import spec_yaml
from archsearch.store import open_store, read_json, write_json
from archsearch.training import operation
from archsearch.training.checkpoint import read_weights, save_weights
from archsearch.training.operation import calibration_clips, inherit, operate
from archsearch.training.recipe import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")

HERE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def separable(spec):
    return assign(spec, {("res2", "conv"): "separable"}, "separable")


@pytest.fixture
def folder(tmp_path, spec):
    """Writes the folder of an untrained network, for a recipe of some device, and gives its path."""

    def write(device="cpu"):
        store = open_store(str(tmp_path / f"of_{device}"))
        store.write("spec.yaml", spec_yaml(spec))
        write_json(store, "recipe.json", Recipe(batch=8, device=device).model_dump(mode="json"))
        store.write("labels.txt", "right\nleft\nup\ndown\n")
        save_weights(store, build(spec, seed=0))
        return store.url

    return write


def test_what_was_trained_on_a_gpu_is_fitted_wherever_it_is_operated_on(folder, separable, clips, pack, tmp_path):
    source, out = folder("cuda"), str(tmp_path / "new")
    assert operate(source, separable, out, data=clips)["fitted"][0] == "res2.0.conv1"
    recipe = Recipe(batch=8, device="cuda")
    assert {clip.device.type for clip in calibration_clips(separable, recipe, pack)} == {HERE}
    assert read_json(open_store(out), "recipe.json")["device"] == "cuda"
    heir = open_store(str(tmp_path / "heir"))
    assert inherit(open_store(source), separable, recipe, pack, heir) > 0
    assert heir.read("start.safetensors")


def test_no_more_clips_are_read_than_are_kept(spec, pack, monkeypatch):
    drawn, batches_of = [], operation.epoch_batches

    def counted(*args):
        for batch in batches_of(*args):
            drawn.append(len(batch[0]))
            yield batch

    monkeypatch.setattr(operation, "epoch_batches", counted)
    recipe = Recipe(batch=8)
    for most, batches in ((8, 1), (9, 2), (1000, 6)):  # of 24 videos, each seen twice at most
        drawn.clear()
        monkeypatch.setattr(operation, "CLIPS", most)
        assert len(calibration_clips(spec, recipe, pack)) == len(drawn) == batches


def test_an_operation_that_was_killed_is_repeated(folder, separable, tmp_path, monkeypatch):
    go = partial(operate, folder(), separable, str(tmp_path / "new"))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(operation, "save_state", killed)
        with pytest.raises(KeyboardInterrupt):
            go()
    assert go()["new"] == "separable"
    assert read_weights(open_store(str(tmp_path / "new")))
    with pytest.raises(RunError, match="is in use"):
        go()
