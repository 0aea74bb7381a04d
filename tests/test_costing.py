"""Costs of whole spaces: the same numbers as lowering every network, however combinations come."""

import time
from pathlib import Path

import numpy as np
import pytest

from archsearch.errors import SpaceError, SpecError
from archsearch.report import networks
from archsearch.report.networks import space_costs, space_json
from archsearch.space import costing
from archsearch.space.costing import Coster, chunks, samples, within_limits
from archsearch.space.file import parse_space, read_space
from archsearch.spec.cost import metrics, total_cost
from archsearch.spec.spec import lower

FILES = sorted((Path(__file__).parent.parent / "search_spaces").glob("*.yaml"))
GROUPS = ["stem", "res*"]
TWO_STREAMS = {
    "clip": {"rgb": [3, 8, 32, 32], "flow": [2, 8, 32, 32]},
    "stages": [
        {"kind": "conv", "name": "a", "from": "rgb", "width": 8, "stride": [1, 2, 2]},
        {"kind": "conv", "name": "b", "from": "flow", "width": 4, "stride": [1, 2, 2]},
        {"kind": "conv", "name": "c", "from": ["a", "b"], "width": 8},
        {"kind": "pool", "name": "unread", "from": "b", "kernel": [1, 16, 16], "padding": [0, 0, 0]},
        {"kind": "head", "name": "head", "from": ["c", "a"], "classes": 5},
    ],
}
STEM_AND_POOLS = {
    "clip": [3, 8, 32, 32],
    "stages": [
        {"kind": "conv", "name": "stem", "width": 8},
        {"kind": "pool", "name": "p1", "padding": [0, 0, 0]},
        {"kind": "pool", "name": "p2", "padding": [0, 0, 0]},
        {"kind": "head", "name": "head", "classes": 5},
    ],
}
SPACES = {
    "clip, tied scale and prefix": {
        "base": "r3d_18",
        "vary": [
            {"field": "conv", "stages": GROUPS, "prefix": ["3d", "2d"]},
            {"field": "clip.size", "tied": [48, 112]},
            {"field": "width", "stages": GROUPS, "name": "width", "tied": {"scale": [0.5, 1.3]}},
            {"field": "clip.frames", "tied": [4, 16]},
            {"field": "depth", "stages": ["res[23]"], "each": {"low": 1, "high": 5, "step": 2}},
        ],
    },
    "choices that contradict each other": {
        "base": "r3d_18",
        "set": {"res2.bottleneck": 0.25},
        "vary": [
            {"field": "temporal", "stages": ["res2"], "each": ["inner", "entry"]},
            {"field": "mid", "stages": ["res*"], "name": "mid", "tied": ["conv", "block", 7]},
            {"field": "bottleneck", "stages": ["res[23]"], "each": [None, 0.25]},
            {"field": "gate", "stages": ["res3"], "each": [False, {"pool": "time"}, {"pool": "space"}]},
        ],
    },
    "maps that become empty": {
        "base": STEM_AND_POOLS,
        "vary": [
            {"field": "clip.frames", "tied": [1, 4, 8, 15]},
            {"field": "kernel", "stages": ["p1", "p2"], "each": [2, 3, [1, 3, 3]]},
            {"field": "stride", "stages": ["p1"], "each": [1, 2]},
            {"field": "width", "stages": ["stem"], "each": [8, 16]},
        ],
    },
    "two inputs": {
        "base": TWO_STREAMS,
        "vary": [
            {"field": "width", "stages": ["a", "b"], "each": [4, 8, 12]},
            {"field": "stride", "stages": ["a"], "each": [1, [1, 2, 2]]},
            {"field": "clip.size", "tied": [16, 33]},
        ],
    },
    "inputs of other names": {
        "base": STEM_AND_POOLS,
        "vary": [
            {"field": "clip", "tied": [[3, 8, 32, 32], {"rgb": [3, 8, 28, 28], "flow": [2, 4, 8, 8]}]},
            {"field": "width", "stages": ["stem"], "each": [8, 16]},
        ],
    },
    "clips of other inputs": {
        "base": TWO_STREAMS,
        "vary": [
            {"field": "clip", "tied": [TWO_STREAMS["clip"], {"rgb": [3, 8, 32, 32]}, [3, 8, 32, 32]]},
            {"field": "conv", "stages": ["a"], "each": ["2d", "3d"]},
        ],
    },
}


def made(name, **fields):
    return parse_space({"name": "s", **SPACES[name], **fields}, "s.yaml", Path("."))


def one_by_one(space, rows):
    """(macs, params, activations) of each combination, NaN where the network cannot be."""
    found = []
    for row in rows:
        try:
            cost = total_cost(lower(space.spec_at(tuple(row))))
            found.append((cost.macs, cost.params, cost.activations))
        except SpecError:
            found.append((np.nan,) * 3)
    return np.array(found)


def stacked(costs):
    return np.column_stack([costs.macs, costs.params, costs.activations])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_costs_of_the_files_are_those_of_the_networks(path):
    space = read_space(path)
    (rows,) = samples(space, 60)
    costs = Coster(space).costs(rows)
    assert np.array_equal(stacked(costs), one_by_one(space, rows.tolist()), equal_nan=True)


@pytest.mark.parametrize("name", SPACES)
def test_costs_of_every_combination(name):
    space = made(name)
    (rows,) = chunks(space)
    assert list(map(tuple, rows.tolist())) == list(space.all_positions())
    costs, expected = Coster(space).costs(rows), one_by_one(space, rows.tolist())
    assert np.array_equal(stacked(costs), expected, equal_nan=True)
    assert costs.valid.tolist() == (~np.isnan(expected[:, 0])).tolist()
    assert costs.valid.all() == (name in ("clip, tied scale and prefix", "inputs of other names"))
    assert costs.valid.any()


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("size", [1, 7])
def test_chunks_and_order_change_nothing(name, size):
    space = made(name)
    whole = stacked(Coster(space).costs(next(chunks(space))))
    coster = Coster(space)
    pieces = [stacked(coster.costs(rows)) for rows in chunks(space, size)]
    assert {len(piece) for piece in pieces[:-1]} <= {size}
    assert np.array_equal(np.concatenate(pieces), whole, equal_nan=True)
    mixed = np.random.default_rng(0).permutation(len(whole))
    assert np.array_equal(stacked(coster.costs(next(chunks(space))[mixed])), whole[mixed], equal_nan=True)


def test_a_stage_is_counted_once_however_many_combinations_have_it(monkeypatch):
    counted = []
    real = costing.stage_result
    monkeypatch.setattr(costing, "stage_result", lambda *given: counted.append(given) or real(*given))
    vary = [{"field": "conv", "stages": GROUPS, "prefix": ["3d", "2d"]}, {"field": "clip.frames", "tied": [8, 16]}]
    space = parse_space({"name": "s", "base": "r3d_18", "vary": vary}, "s.yaml", Path("."))
    coster = Coster(space)
    for rows in chunks(space, 5):
        coster.costs(rows)
    assert len(counted) == len(set(counted)) < 12 * 6 / 2  # of 12 networks with 6 stages each


def test_groups_of_rows_when_codes_would_not_fit():
    rows = np.array([(0, 5, 6), (4, 5, 6), (4, 5, 6), (0, 2**31 - 1, 2**31 - 1)])  # 4 * 2**62 is 0 in 64 bits
    ones, groups = costing._groups([*rows.T], len(rows))
    assert np.array_equal(rows[ones][groups], rows)
    assert len(ones) == 3


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"gmacs": {"max": 10}},
        {"gmacs": {"min": 2, "max": 10}, "params": {"max": 20e6}},
        {"activations": {"min": 4e6}, "memory_mb": {"max": 10}},
    ],
)
def test_what_is_within_limits_is_what_a_search_would_train(limits):
    space = made("clip, tied scale and prefix", limits=limits)
    (rows,) = samples(space, 80)
    inside = within_limits(space, rows, Coster(space).costs(rows))
    expected = []
    for row in rows.tolist():
        measured = metrics(lower(space.spec_at(tuple(row))))
        expected.append(all(limit.excess(measured[name]) <= 0 for name, limit in space.limits.items()))
    assert inside.tolist() == expected
    assert any(expected)
    assert all(expected) == (not limits)


def test_what_cannot_be_has_no_row_and_is_not_feasible():
    space = made("choices that contradict each other")
    costs = space_costs(space)
    impossible = int(np.isnan(one_by_one(space, space.all_positions())[:, 0]).sum())
    assert (costs.whole, costs.counted, len(costs.macs)) == (True, space.size, space.size - impossible)
    data = space_json(space, costs)
    assert data["feasible"] == space.size - impossible
    assert data["counted"] == "all"
    assert data["params"]["min"] <= data["params"]["median"] <= data["params"]["max"]


def large(**fields):
    """3 ** 9 combinations."""
    ways = ["2d", "3d", "2+1d"]
    depths = {"field": "depth", "stages": ["res*"], "each": [1, 2, 3]}
    vary = [{"field": "conv", "stages": GROUPS, "each": ways}, depths]
    return parse_space({"name": "s", "base": "r3d_18", "vary": vary, **fields}, "s.yaml", Path("."))


def test_a_large_space_is_sampled_unless_all_is_asked_for(monkeypatch):
    monkeypatch.setattr(networks, "WHOLE", 1000)
    space = large(limits={"gmacs": {"max": 40}})
    heard = []
    some = space_costs(space, report=lambda *progress: heard.append(progress))
    every = space_costs(space, enumerate_all=True)
    assert (some.whole, some.counted, heard) == (False, networks.SAMPLED, [(networks.SAMPLED, networks.SAMPLED)])
    assert (every.whole, every.counted, len(every.macs)) == (True, 3**9, 3**9)
    guess, exact = (space_json(space, costs) for costs in (some, every))
    assert guess["counted"] == f"a random sample of {networks.SAMPLED}"
    assert guess["feasible"] == pytest.approx(exact["feasible"], rel=0.03)
    assert guess["macs"]["median"] == pytest.approx(exact["macs"]["median"], rel=0.03)
    assert guess.keys() == exact.keys()


def test_a_limit_of_memory_makes_the_sample_small(monkeypatch):
    monkeypatch.setattr(networks, "SAMPLED_SLOW", 20)
    costs = space_costs(large(limits={"memory_mb": {"max": 60}}))
    assert (costs.whole, costs.counted) == (False, 20)
    assert 0 <= costs.feasible <= 20


def test_too_much_to_enumerate_is_one_line(monkeypatch):
    monkeypatch.setattr(networks, "ENUMERATED", 1000)
    with pytest.raises(SpaceError) as caught:
        space_costs(large(), enumerate_all=True)
    (line,) = caught.value.lines
    assert line.startswith("s: 19,683 combinations are too many to enumerate, which ends at 1,000; leave out --enum")


def test_a_hundred_thousand_a_second():
    space = large()
    started = time.perf_counter()
    assert space_costs(space).counted == 3**9
    assert time.perf_counter() - started < 3  # a fraction of a second; the slack is for a busy machine
