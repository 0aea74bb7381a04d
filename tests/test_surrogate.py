"""The model that guides a search: what it learns from which readings, and what it makes of it."""

import itertools

import numpy as np
import pytest
from test_halving import planned, pretended  # noqa: F401 (a fixture)

from archsearch.front.hypervolume import hypervolume, reference_point
from archsearch.search.guide import encoded
from archsearch.search.surrogate import Readings, Surrogate, expected_gains
from archsearch.space.choices import Parameter
from archsearch.space.space import Space

EVERY = np.array(list(itertools.product((-1.0, 1.0), repeat=6)))  # 64 networks of six choices
EFFECTS = np.array([0.02, 0.05, 0.1, 0.12, 0.07, 0.0])


def truth(rung):
    """What networks would read at a rung without noise: with effects of their own and one of two choices together."""
    return 0.3 * rung + EVERY @ EFFECTS + 0.08 * EVERY[:, 2] * EVERY[:, 3]


def readings(parts, seed=0):
    """Of some places of EVERY at a rung, and of a kind that is noisy by so much."""
    rng = np.random.default_rng(seed)
    rows = [(place, rung, kind, noise) for places, rung, kind, noise in parts for place in places]
    places, rungs, kinds, noises = (np.array(column) for column in zip(*rows, strict=True))
    values = np.array([truth(rung)[place] for place, rung in zip(places, rungs, strict=True)])
    return Readings(EVERY[places], rungs, kinds, (3.0 * kinds + 1) * (values + noises * rng.normal(size=len(rows))))


def error(model, rung=1):
    mean, spread = model.predict(EVERY)
    assert np.isfinite(spread).all()
    assert spread.min() > 0
    return float(np.sqrt(np.mean((mean - truth(rung)) ** 2)))


def test_what_choices_do_is_learnt_from_a_few():
    seen = np.random.default_rng(1).permutation(64)[:20]
    model = Surrogate(readings([(seen, 1, 0, 0.03)]))
    assert error(model) < 0.06 < np.std(truth(1)) / 2
    spread = model.predict(EVERY)[1]
    assert spread[seen].mean() < np.delete(spread, seen).mean()


@pytest.mark.parametrize("kind", [0, 1])
def test_short_trainings_and_other_readings_help(kind):
    """Six long trainings alone say little; beside thirty short ones, or their training losses, they say more."""
    alone, beside = [], []
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(64)
        long = (order[:6], 1, 0, 0.02)
        alone.append(error(Surrogate(readings([long], seed))))
        others = (order[:36], 0, kind, 0.03)
        own = (order[:6], 0, 0, 0.3)
        beside.append(error(Surrogate(readings([long, others, own], seed))))
    assert np.mean(beside) < 0.75 * np.mean(alone)


def test_what_tells_nothing_is_not_believed():
    rng = np.random.default_rng(0)
    seen = rng.permutation(64)[:16]
    known = readings([(seen, 1, 0, 0.02), (range(64), 1, 1, 0.0)])
    noise = np.where(known.kinds == 1, rng.normal(size=len(known.kinds)), known.values)
    misled = Surrogate(Readings(known.features, known.rungs, known.kinds, noise))
    assert error(misled) < 1.2 * error(Surrogate(readings([(seen, 1, 0, 0.02)])))


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_gains_are_those_of_the_hypervolume(objectives):
    rng = np.random.default_rng(objectives)
    front, points = rng.uniform(0.2, 0.8, (4, objectives)), rng.uniform(0, 1, (12, objectives))
    still = np.zeros((1, objectives))
    gains = expected_gains(front, points, np.zeros_like(points), still)
    maximize, nothing = [True] * objectives, [0.0] * objectives
    base = hypervolume(front, maximize, nothing)
    exact = np.array([hypervolume(np.vstack([front, point]), maximize, nothing) - base for point in points])
    assert np.corrcoef(gains, exact)[0, 1] > 0.97
    assert gains[exact == 0].max(initial=0) == 0
    uncertain = expected_gains(front, 0.5 * front[:1], np.full((1, objectives), 0.3), rng.normal(size=(50, objectives)))
    assert uncertain[0] > expected_gains(front, 0.5 * front[:1], np.zeros((1, objectives)), still)[0] == 0


def test_choices_become_numbers():
    parameters = (
        Parameter("conv", ("2d", "3d"), ({}, {})),
        Parameter("width", (0.5, 1, 2), ({}, {}, {})),
        Parameter("gate", ("none", "space", "both"), ({}, {}, {})),
        Parameter("one", ("only",), ({},)),
    )
    space = Space("s", None, parameters, {}, {}, {}, None)
    assert encoded(space, {"conv": "3d", "width": 1, "gate": "space"}) == [1.0, 0.0, -1.0, 1.0, -1.0]


def test_a_guided_search_finds_more_of_the_front(planned, tmp_path):  # noqa: F811
    """Than one that draws at random, of as many networks."""
    found = {}
    for sampler, seed in itertools.product(("random", "surrogate"), range(3)):
        plan = planned(f"{sampler}{seed}", sampler=sampler, seed=seed, order="async", trials=10, rungs=1)
        pretended(plan)
        ends = [trial for trial in plan.folder.settled() if trial.state == "complete" and trial.duplicate_of is None]
        assert len(ends) == 10
        found[sampler, seed] = [[trial.metrics["top1"], trial.metrics["gmacs"]] for trial in ends]
    sides = [True, False]
    worst = reference_point(list(itertools.chain(*found.values())), sides)
    volumes = {key: hypervolume(points, sides, worst) for key, points in found.items()}
    assert all(volumes["surrogate", seed] > volumes["random", seed] for seed in range(3)), volumes
