"""What choices do, how a front grew, what is near: against known functions and by hand."""

import itertools
import math

import numpy as np
import pytest

from archsearch.front.growth import differing, growth, nearest_design
from archsearch.front.hypervolume import normalised_hypervolume
from archsearch.front.importance import FEWEST, MODELLED, coded_options, importance


def grid(repeats=3):
    rows = itertools.product("xy", [1, 2, 3], [False, True])
    return [dict(zip(("kind", "depth", "gate"), row, strict=True)) for row in rows] * repeats


def test_shares_of_an_additive_function_are_those_of_its_variances():
    rows = grid(20)
    noise = np.random.default_rng(0).normal(0, 0.5, len(rows))
    value = [3 * (row["kind"] == "x") + row["depth"] + own for row, own in zip(rows, noise, strict=True)]
    (found,) = importance(rows, {"value": value})
    shares = {effect.choice: effect.share for effect in found.effects}
    parts = {"kind": 9 / 4, "depth": 2 / 3, "noise": 0.25}  # variances of the parts
    total = sum(parts.values())
    assert shares["kind"] == pytest.approx(parts["kind"] / total, abs=0.02)
    assert shares["depth"] == pytest.approx(parts["depth"] / total, abs=0.02)
    assert shares["gate"] < 0.01
    assert found.rest == pytest.approx(parts["noise"] / total, abs=0.02)
    assert found.rest + sum(shares.values()) == pytest.approx(1)
    assert [effect.choice for effect in found.effects] == ["kind", "depth", "gate"]
    kind = found.effects[0]
    assert [(option.label, option.networks) for option in kind.options] == [("x", 120), ("y", 120)]
    assert kind.options[0].mean - kind.options[1].mean == pytest.approx(3, abs=0.1)
    assert kind.options[0].effect == pytest.approx(1.5, abs=0.1)
    assert kind.interval[0] < kind.share < kind.interval[1]


def test_a_choice_that_only_goes_with_another_gets_little():
    """A search that learns tries options together; plain means would blame both."""
    rng = np.random.default_rng(1)
    rows = [{"cause": bool(cause), "shadow": bool(cause ^ (rng.random() < 0.15))} for cause in rng.integers(0, 2, 300)]
    value = [row["cause"] + rng.normal(0, 0.1) for row in rows]
    (found,) = importance(rows, {"value": value})
    shadow = next(effect for effect in found.effects if effect.choice == "shadow")
    assert abs(shadow.options[1].mean - shadow.options[0].mean) > 0.5
    assert shadow.share < 0.01
    assert abs(shadow.options[1].effect - shadow.options[0].effect) < 0.1


def test_a_product_is_all_rest():
    rows = [dict(zip("ab", pair, strict=True)) for pair in itertools.product([0, 1], repeat=2)] * 30
    (found,) = importance(rows, {"value": [float(row["a"] == row["b"]) for row in rows]})
    assert found.rest > 0.99


def test_noise_is_not_explained():
    rng = np.random.default_rng(2)
    rows = [{f"choice{k}": int(rng.integers(3)) for k in range(8)} for _ in range(24)]
    (found,) = importance(rows, {"value": rng.normal(size=24)})
    assert found.rest > 0.75


def test_wide_costs_are_modelled_by_their_logarithm():
    rows = grid()
    value = [10.0 ** row["depth"] * (2 if row["gate"] else 1) for row in rows]
    (found,) = importance(rows, {"gmacs": value})
    assert found.logarithmic
    assert found.effects[0].choice == "depth"
    assert found.rest < 0.01
    gate = next(effect for effect in found.effects if effect.choice == "gate")
    assert gate.options[1].effect / gate.options[0].effect == pytest.approx(2, rel=0.05)


def test_what_says_nothing():
    assert importance([], {"top1": []})[0].effects == ()
    few = grid()[: FEWEST - 1]
    (found,) = importance(few, {"top1": np.arange(len(few))})
    assert {effect.share for effect in found.effects} == {None}
    assert found.effects[0].options[0].networks > 0
    same, moves = importance(grid(), {"same": [1.0] * 36, "moves": np.arange(36.0)})
    assert same.rest is None
    assert moves.rest is not None
    (found,) = importance([{"one": 1}] * 20, {"top1": np.arange(20.0)})
    assert found.effects == ()


def test_missing_numbers_and_choices_never_met():
    rows = [*grid(), {"kind": "x"}, {"kind": "y"}]
    value = [*np.random.default_rng(0).random(36), math.nan, math.inf]
    (found,) = importance(rows, {"top1": value})
    assert found.networks == 36
    rows[-1] = {"kind": "x"}
    (found,) = importance(rows, {"top1": [*value[:-2], 0.5, 0.5]})
    depth = next(effect for effect in found.effects if effect.choice == "depth")
    assert {option.label for option in depth.options} == {"-", "1", "2", "3"}


def test_many_options():
    labels, codes = coded_options(list(range(1000)))
    assert (len(labels), len(set(codes.tolist()))) == (8, 8)
    assert labels[0] == "0 to 124"
    assert (np.diff(codes) >= 0).all()
    labels, codes = coded_options([f"name{k % 500}" for k in range(1000)])
    assert len(labels) == 30
    assert labels[-1] == "others"
    assert coded_options([3, 1, 2.5, True and 1])[0] == ["1", "2.5", "3"]
    assert coded_options(["2d", "3d", "2d"])[1].tolist() == [0, 1, 0]


def test_hundreds_of_choices_take_seconds():
    rng = np.random.default_rng(3)
    rows = [{f"choice{k}": int(rng.integers(2)) for k in range(500)} for _ in range(120)]
    value = [row["choice7"] * 5 + rng.normal(0, 0.1) for row in rows]
    (found,) = importance(rows, {"value": value})
    assert found.effects[0].choice == "choice7"
    assert sum(len(effect.options) for effect in found.effects) <= MODELLED


@pytest.mark.parametrize("objectives", [1, 2])
def test_growth_ends_at_the_hypervolume_and_never_falls(objectives):
    values = np.random.default_rng(4).random((60, objectives))
    values[7] = np.nan
    maximize = [True, False][:objectives]
    found = growth(values, maximize)
    assert found[-1] == pytest.approx(normalised_hypervolume(values, maximize))
    assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize("objectives", [3, 4])
def test_growth_of_more_objectives_is_near(objectives):
    values = np.random.default_rng(5).random((60, objectives))
    found = growth(values, [True] * objectives)
    assert found[-1] == pytest.approx(normalised_hypervolume(values, [True] * objectives), abs=0.02)
    assert (np.diff(found) >= 0).all()


def test_growth_of_nothing():
    assert growth([], [True, False]).tolist() == []
    assert growth([(math.nan, 1.0), (0.5, 2.0)], [True, False]).tolist() == [0, 0]


def test_the_nearest_design_differs_in_the_fewest_choices():
    designs = {"r3d": {"a": "3d", "b": "3d"}, "mc3": {"a": "3d", "b": "2d"}}
    assert nearest_design({"a": "2d", "b": "2d"}, designs) == ("mc3", 1)
    assert nearest_design({"a": "3d", "b": "3d", "c": 1}, designs) == ("r3d", 1)
    assert nearest_design({"a": 1}, {}) is None
    assert differing({"a": 1, "b": 2}, {"b": 3, "a": 1, "c": 0}) == ["b", "c"]
