"""The demo clips ask for time: a network that sees frames only one by one cannot pass half, a 3D one learns them."""

import math
from pathlib import Path

import pytest
from optuna.trial import FixedTrial

from archsearch.space.file import read_space
from archsearch.training.recipe import read_recipe
from archsearch.training.single import evaluate_single, train_single

ROOT = Path(__file__).parents[1]


@pytest.fixture
def train_preset(demo, tmp_path):
    """Trains a preset, scaled as in the demo space, by the demo recipe; gives the folders of network and clips."""

    def train(name):
        space = read_space(ROOT / "search_spaces" / "demo.yaml")
        spec = space.draw(FixedTrial(dict(space.published[name])))
        recipe = read_recipe(ROOT / "recipes" / "demo.yaml")
        train_single(spec, demo, str(tmp_path / name), recipe, lambda *_: None)
        return str(tmp_path / name), demo

    return train


@pytest.mark.slow
def test_frames_without_their_order_are_right_half_of_the_time_at_most(train_preset):
    scores = evaluate_single(*train_preset("fr2d_18"), "val", None, False)
    assert scores["top1"] <= 0.5 + 3 * math.sqrt(0.25 / scores["videos"])


@pytest.mark.slow
def test_a_3d_network_learns_the_direction_of_time(train_preset):
    run, clips = train_preset("r3d_18")
    forwards = evaluate_single(run, clips, "val", None, False)
    backwards = evaluate_single(run, clips, "val", None, True)
    assert forwards["top1"] > 0.8
    assert backwards["reverse"]
    assert backwards["top1"] < 0.2  # played backwards, a clip is one of the partner class
