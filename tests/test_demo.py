"""The demo clips ask for time: a network that sees frames only one by one cannot pass half, a 3D one learns them."""

import math
from pathlib import Path

import pytest
from optuna.trial import FixedTrial

from archsearch.space.space import read_space
from archsearch.spec.spec import with_clip
from archsearch.store import open_store
from archsearch.training.recipe import Recipe
from archsearch.training.single import evaluate_single, train_single
from archsearch.video.demo import make_demo

DEMO_SPACE = Path(__file__).parents[1] / "search_spaces" / "demo.yaml"
RECIPE = Recipe(epochs=24, batch=8, lr=3e-3, warmup_epochs=1, label_smoothing=0.0, flip=False, views=1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The demo clips that grow and shrink, those of the test split scored like those of val: 40 in all."""
    root = tmp_path_factory.mktemp("demo") / "clips"
    make_demo(root)
    videos = {split: sorted((root / split).glob("*/*.mp4")) for split in ("train", "val", "test")}
    for name, splits in {"train": ["train"], "val": ["val", "test"]}.items():
        chosen = [path for split in splits for path in videos[split] if path.parent.name in ("grow", "shrink")]
        lines = [f"{path.relative_to(root).as_posix()} {path.parent.name}\n" for path in chosen]
        (root / f"{name}.csv").write_text("".join(lines))
    return root


@pytest.fixture
def train_preset(pair, tmp_path):
    """Trains a preset, scaled as in the demo space but for smaller frames; gives the score and the folder."""

    def train(name):
        space = read_space(DEMO_SPACE)
        spec = with_clip(space.draw(FixedTrial(dict(space.published[name]))), (3, 8, 32, 32))
        train_single(spec, pair, str(tmp_path / name), RECIPE, lambda *_: None)
        return evaluate_single(str(tmp_path / name), pair, "val", None, False), str(tmp_path / name)

    return train


def test_frames_without_their_order_are_right_half_of_the_time(train_preset):
    scores, _ = train_preset("fr2d_18")
    assert scores["videos"] == 40
    assert scores["top1"] <= 0.5 + 3 * math.sqrt(0.25 / 40)


def test_a_3d_network_learns_the_direction_of_time(train_preset, pair):
    scores, run = train_preset("r3d_18")
    assert scores["top1"] > 0.8
    assert open_store(run).read("weights.safetensors")
    backwards = evaluate_single(run, pair, "val", None, True)
    assert backwards["reverse"]
    assert backwards["top1"] < 0.2  # a clip that grows, played backwards, shrinks
