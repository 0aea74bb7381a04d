"""Ranks, fronts, hypervolumes and the records of results, against brute force and against Optuna's own."""

import json
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from optuna._hypervolume import compute_hypervolume
from optuna.study._multi_objective import _fast_non_domination_rank

from archsearch.front.dominance import costs, crowding, front, ranks
from archsearch.front.hypervolume import hypervolume, normalised_hypervolume, reference_point
from archsearch.front.results import Candidate, Results


def points(nan=False):
    """Few distinct values, so that ties and copies are common."""
    value = st.integers(0, 6).map(float)
    value = st.one_of(value, st.just(math.nan)) if nan else value
    return st.integers(1, 4).flatmap(
        lambda m: hnp.arrays(float, st.tuples(st.integers(0, 14), st.just(m)), elements=value)
    )


def dominates(a, b):
    return bool(np.all(a <= b) and np.any(a < b))


def brute_front(cost):
    known = [i for i in range(len(cost)) if not np.isnan(cost[i]).any()]
    return {i for i in known if not any(dominates(cost[j], cost[i]) for j in known)}


@given(points(nan=True), st.lists(st.booleans(), min_size=4, max_size=4))
@settings(max_examples=80, deadline=None)
def test_front_is_what_nobody_dominates(values, maximize):
    maximize = maximize[: values.shape[1]]
    assert set(front(values, maximize).tolist()) == brute_front(costs(values, maximize))


@given(points())
@settings(max_examples=80, deadline=None)
def test_ranks_are_optunas(values):
    expected = _fast_non_domination_rank(values) if len(values) else []
    assert ranks(values, [False] * values.shape[1]).tolist() == list(expected)


@given(points(nan=True))
@settings(max_examples=60, deadline=None)
def test_points_with_a_nan_come_last_together(values):
    rank = ranks(values, [True] * values.shape[1])
    missing = np.isnan(values).any(axis=1)
    if missing.any() and not missing.all():
        assert set(rank[missing]) == {rank[~missing].max() + 1}


def test_known_front_with_copies_is_ordered_by_cost():
    #          top1  gmacs
    values = [(0.8, 4.0), (0.9, 9.0), (0.7, 5.0), (0.5, 1.0), (0.8, 4.0), (math.nan, 0.1)]
    assert front(values, [True, False]).tolist() == [3, 0, 4, 1]
    assert ranks(values, [True, False]).tolist() == [0, 0, 1, 0, 0, 2]


def test_front_without_costs_is_ordered_by_the_last_objective():
    assert front([(1, 3), (3, 1), (2, 2)], [True, True]).tolist() == [0, 2, 1]


def test_no_point_and_only_missing_points():
    assert front([], [True, False]).tolist() == []
    assert ranks([(math.nan, 1.0)], [True, False]).tolist() == [0]
    assert front([(math.nan, 1.0)], [True, False]).tolist() == []


def test_rows_must_hold_all_objectives():
    with pytest.raises(ValueError, match=r"must be \(points, 2\), got \(1, 3\)"):
        ranks([(1, 2, 3)], [True, False])


@pytest.mark.parametrize("objectives", [2, 3])
def test_ten_thousand_points_are_ranked_quickly(objectives):
    values = np.random.default_rng(0).random((10_000, objectives))
    start = time.perf_counter()
    ranks(values, [True] * objectives)
    assert time.perf_counter() - start < (1.0 if objectives == 2 else 10.0)


def test_crowding_is_the_gap_in_each_objective():
    distance = crowding([(0.0, 10.0), (1.0, 6.0), (4.0, 5.0), (10.0, 0.0)])
    assert distance[[0, 3]].tolist() == [math.inf, math.inf]
    assert distance[1:3] == pytest.approx([0.4 + 0.5, 0.9 + 0.6])
    assert crowding([(1.0, 1.0), (1.0, 1.0)]).tolist() == [0.0, 0.0]
    assert crowding([(1.0, math.inf), (2.0, math.inf)]).tolist() == [math.inf, math.inf]
    assert crowding(np.empty((0, 2))).tolist() == []


@given(points(), st.integers(4, 8))
@settings(max_examples=80, deadline=None)
def test_hypervolume_is_optunas(values, limit):
    reference = np.full(values.shape[1], float(limit))
    clipped = np.minimum(values, reference)
    expected = compute_hypervolume(clipped, reference) if len(values) else 0.0
    assert hypervolume(values, [False] * values.shape[1], reference) == pytest.approx(expected)


def test_hypervolume_in_units_of_the_objectives():
    values = [(0.5, 1.0), (0.8, 3.0), (math.nan, 0.5)]
    assert hypervolume(values, [True, False], [0.0, 5.0]) == pytest.approx(0.5 * 4 + 0.3 * 2)


def test_hypervolume_of_five_objectives():
    values = np.random.default_rng(1).random((20, 5))
    expected = compute_hypervolume(values, np.ones(5))
    assert hypervolume(-values, [True] * 5, -np.ones(5)) == pytest.approx(expected)


def test_reference_point_is_the_worst_finite_value():
    values = [(0.5, 1.0), (0.8, 300.0), (0.9, math.inf), (math.nan, 2.0)]
    assert reference_point(values, [True, False]).tolist() == [0.5, 300.0]
    with pytest.raises(ValueError, match="finite value of every objective"):
        reference_point([(math.nan, 1.0)], [True, False])


def test_normalised_hypervolume():
    assert normalised_hypervolume([], [True, False]) == 0
    assert normalised_hypervolume([(0.5, 1.0)], [True, False]) == 0
    assert normalised_hypervolume([(0.5, 2.0), (0.6, 1.0)], [True, False]) == 1
    assert normalised_hypervolume([(0.0, 0.0), (0.5, 5.0), (1.0, 10.0)], [True, False]) == pytest.approx(0.25)
    assert normalised_hypervolume([(0.7, 3.0), (0.7, 1.0), (math.nan, 0.0)], [True, False]) == 1


@given(points(nan=True), st.lists(st.booleans(), min_size=4, max_size=4))
@settings(max_examples=60, deadline=None)
def test_normalised_hypervolume_is_a_share(values, maximize):
    assert 0 <= normalised_hypervolume(values, maximize[: values.shape[1]]) <= 1


def candidate(number, top1, gmacs, state="complete", **more):
    metrics = {"top1": top1, "gmacs": gmacs, "params": 1.0e6}
    return Candidate(number, f"hash{number}", {"res3.conv": "2d"}, metrics, 27, state, **more)


@pytest.fixture
def results():
    return Results(
        "runs/kth",
        {"top1": "maximize", "gmacs": "minimize"},
        (
            candidate(3, 0.8, 4.0, published="mc3_18"),
            candidate(4, 0.99, 0.1, "stopped"),
            candidate(5, 0.7, 5.0, published="r3d_18"),
            candidate(7, 0.5, 1.0),
            candidate(8, math.nan, 0.2),
            candidate(9, 0.0, 90.0, "infeasible", reason="gmacs 90 > 60", published="mc3_18"),
        ),
    )


def test_front_of_results_holds_complete_candidates_cheapest_first(results):
    assert [candidate.id for candidate in results.front()] == [7, 3]
    assert results.dominators() == {5: 3}
    assert results.published() == {"r3d_18": 5, "mc3_18": 3}


def test_results_as_json(results):
    record = json.loads(json.dumps(results.as_json(), allow_nan=False))
    assert list(record) == ["objectives", "candidates", "front", "published"]
    assert record["objectives"] == {"top1": "maximize", "gmacs": "minimize"}
    assert record["front"] == [7, 3]
    assert record["published"] == {"mc3_18": 3, "r3d_18": 5}
    assert record["candidates"][0] == {
        "id": 3,
        "hash": "hash3",
        "choices": {"res3.conv": "2d"},
        "metrics": {"top1": 0.8, "gmacs": 4.0, "params": 1.0e6},
        "epochs": 27,
        "state": "complete",
    }
    assert record["candidates"][4]["metrics"]["top1"] is None
    assert record["candidates"][5]["reason"] == "gmacs 90 > 60"


def test_results_of_a_run_that_has_nothing_yet():
    empty = Results("runs/new", {"top1": "maximize", "gmacs": "minimize"}, ())
    assert empty.front() == ()
    assert empty.dominators() == {}
    assert empty.as_json()["candidates"] == []
