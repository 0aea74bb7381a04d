"""One network of a front: limits, the best, the knee, what replaces a design, fewer that stand for all."""

import itertools
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import run_search, write_tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from archsearch.errors import RunError
from archsearch.front.choose import MARGIN, Bound, Final, _student, choose, losses, measured, noise, thin, volume
from archsearch.front.dominance import costs
from archsearch.front.results import Candidate, Results
from archsearch.search.executors import open_executor
from archsearch.search.finalize import finalize
from archsearch.search.results import read_results
from archsearch.search.worker import train_finalist
from archsearch.spec.spec import spec_yaml
from archsearch.store import open_store, write_json

RUN = Path(__file__).parents[1] / "runs" / "utd_mhad_depth"
DIRECTIONS = {"top1": "maximize", "gmacs": "minimize", "latency_ms": "minimize"}


def results_of(rows, objectives=2, **more):
    """A run whose candidates have these values of top1, gmacs, latency_ms, and params of their own."""
    names = list(DIRECTIONS)
    candidates = [
        Candidate(number, f"hash{number}", {}, dict(zip([*names, "params"], row, strict=False)), 3, "complete")
        for number, row in enumerate(rows)
    ]
    return Results("run", {name: DIRECTIONS[name] for name in names[:objectives]}, tuple(candidates), **more)


def values():
    grid = st.integers(1, 12).map(float)
    return st.lists(st.tuples(grid.map(lambda x: x / 12), grid, grid, grid), min_size=1, max_size=14)


def bounds():
    metrics = st.sampled_from(["top1", "gmacs", "latency_ms", "params"])
    return st.lists(st.builds(Bound, metrics, st.floats(0.05, 12), st.booleans()), max_size=2)


def dominates(results, one, other):
    a, b = costs(results.values([one, other]), results.maximize)
    return (a <= b).all() and (a < b).any()


@given(values(), st.integers(1, 3), bounds(), st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_the_chosen_is_within_the_limits_and_beaten_by_none_that_is(rows, objectives, limits, knee, again):
    results = results_of(rows, objectives)
    finals = {"hash0": Final(2, {"top1": rows[-1][0]}, {"top1": 0.1}), "hash1": Final(0)} if again else {}
    known = measured(results, finals)
    inside = [c for c in known.complete() if not any(limit.excess(c) for limit in limits)]
    if not inside:
        with pytest.raises(RunError):
            choose(results, limits, finals, knee=knee)
        return
    choice = choose(results, limits, finals, knee=knee)
    assert choice.chosen in choice.members
    assert {c.id for c in choice.members} <= {c.id for c in inside}
    if not again:
        assert not any(dominates(results, other, choice.chosen) for other in inside)
    if not knee:
        assert choice.chosen.metrics["top1"] == max(member.metrics["top1"] for member in choice.members)
    for near, name, sign in ((choice.cheaper, list(results.objectives)[-1], 1), (choice.better, "top1", -1)):
        if near is not None and objectives > 1:
            assert sign * near.candidate.metrics[name] < sign * choice.chosen.metrics[name]
            assert bool(near.outside) == (near.candidate not in choice.members)


@given(values(), st.integers(2, 3), st.integers(0, 13), bounds())
@settings(max_examples=100, deadline=None)
def test_what_replaces_a_network_is_as_good_and_nothing_cheaper_is(rows, objectives, place, limits):
    results = results_of(rows, objectives)
    target = results.candidates[place % len(rows)]
    *others, cost = results.objectives

    def as_good(candidate):
        a, b = (costs(results.values([c]), results.maximize)[0, : len(others)] for c in (candidate, target))
        return (a <= b).all() and not any(limit.excess(candidate) for limit in limits)

    good = [candidate for candidate in results.candidates if as_good(candidate)]
    if not good:
        with pytest.raises(RunError):
            choose(results, limits, like=target)
        return
    chosen = choose(results, limits, like=target).chosen
    assert as_good(chosen)
    assert chosen.metrics[cost] == min(candidate.metrics[cost] for candidate in good)


def distinct(results, members):
    return np.unique(losses(results, members), axis=0)


@given(values(), st.integers(1, 5), st.integers(0, 13))
@settings(max_examples=150, deadline=None)
def test_a_thinned_front_has_the_volume_of_the_best_subset_with_the_one_kept(rows, count, place):
    results = results_of(rows)
    members = results.front()
    keep = members[place % len(members)]
    few = thin(results, members, count, keep)
    at = dict(zip((member.id for member in members), losses(results, members), strict=True))
    assert keep in few
    assert len(few) == min(count, len(distinct(results, members)))
    subsets = itertools.combinations(members, len(few))
    best = max(volume(np.array([at[c.id] for c in s])) for s in subsets if keep in s)
    assert volume(np.array([at[member.id] for member in few])) == pytest.approx(best)
    assert [c.id for c in few] == [c.id for c in members if c in few]


@given(values(), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_more_representatives_dominate_no_less(rows, objectives):
    results = results_of(rows, objectives)
    choice = choose(results)
    points = {m.id: p for m, p in zip(choice.members, losses(results, choice.members), strict=True)}
    volumes = []
    for count in range(1, len(choice.members) + 2):
        few = thin(results, choice.members, count, choice.chosen)
        assert choice.chosen in few
        assert len({m.id for m in few}) == len(few) == min(count, len(distinct(results, choice.members)))
        volumes.append(volume(np.array([points[m.id] for m in few])))
    assert volumes == sorted(volumes)
    assert volumes[-1] == pytest.approx(volume(np.array(list(points.values()))))


def test_greedy_representatives_of_three_objectives_are_near_the_best():
    rng = np.random.default_rng(0)
    unit = np.abs(rng.normal(size=(12, 3)))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    results = results_of([(x, 2 - y, 2 - z, 1.0) for x, y, z in unit], 3)
    choice = choose(results)
    members = choice.members
    assert len(members) == 12
    points = losses(results, members)
    place = {member.id: index for index, member in enumerate(members)}
    few = thin(results, members, 4, choice.chosen)
    keep = place[choice.chosen.id]
    best = max(volume(points[list(s)]) for s in itertools.combinations(range(12), 4) if keep in s)
    alone = volume(points[[keep]])
    assert volume(points[[place[m.id] for m in few]]) - alone >= (1 - 1 / math.e) * (best - alone)


def test_a_large_front_is_thinned_quickly():
    x = np.linspace(0.01, 1, 1500)
    results = results_of([(a, 1 + 99 * a**2) for a in x])
    choice = choose(results)
    assert len(thin(results, choice.members, 8, choice.chosen)) == 8


def test_the_ends_of_a_front_are_worth_a_margin():
    """Of five on a line: both ends, then the middle."""
    results = results_of([(a, 10 ** (2 * a)) for a in (0, 0.25, 0.5, 0.75, 1)])
    for count, ids in ((1, [4]), (2, [0, 4]), (3, [0, 2, 4])):
        assert [member.id for member in thin(results, results.front(), count, results.candidates[4])] == ids
    assert volume(np.zeros((1, 2))) == pytest.approx((1 + MARGIN) ** 2)


#               top1  gmacs
FRONT = [(0.50, 1.0), (0.80, 2.0), (0.85, 20.0), (0.90, 100.0)]


def test_the_knee_is_where_both_sides_lose_most():
    """In losses: (1, 0), (0.25, 0.15), (0.125, 0.65), (0, 1)."""
    choice = choose(results_of(FRONT), knee=True)
    assert losses(results_of(FRONT), results_of(FRONT).front())[1] == pytest.approx([0.25, math.log(2) / math.log(100)])
    assert (choice.chosen.id, choice.why) == (1, "the knee of 4 on the front")
    assert (choice.cheaper.candidate.id, choice.better.candidate.id) == (0, 2)


def test_costs_count_by_their_logarithm():
    """Linear in gmacs the first step would be the bend; a tenth of the cost for as much top1 each time is a line."""
    line = results_of([(0.5, 1.0), (0.6, 10.0), (0.7, 100.0), (0.8, 1000.0)])
    choice = choose(line, knee=True)
    assert (choice.chosen.id, choice.why) == (3, "the best top1, since nothing stands out of 4 on the front")
    assert choose(results_of([(0.5, 1.0), (0.9, 9.0)]), knee=True).why.endswith("nothing stands out of 2 on the front")


def test_the_knee_of_three_objectives_has_the_least_sum_of_losses():
    rows = [(0.9, 100.0, 10.0), (0.5, 1.0, 10.0), (0.5, 100.0, 1.0), (0.8, 3.0, 2.0), (0.6, 2.0, 8.0)]
    results = results_of(rows, 3)
    assert choose(results, knee=True).chosen.id == 3


def test_limits_come_before_the_front():
    """A limit on what is no objective brings in what others dominate; they are its neighbours, outside."""
    results = results_of([(0.9, 5.0, 1.0, 9e6), (0.8, 6.0, 1.0, 4e6), (0.7, 1.0, 1.0, 8e6)])
    choice = choose(results, [Bound("params", 5e6, most=True)])
    assert (choice.chosen.id, choice.why) == (1, "the best top1 of 1 on the front within params max 5e+06")
    assert (choice.better.candidate.id, list(map(str, choice.better.outside))) == (0, ["params max 5e+06"])
    assert choice.cheaper.candidate.id == 0


def test_what_is_nearest_is_named():
    results = results_of(FRONT)
    with pytest.raises(RunError) as error:
        choose(results, [Bound("gmacs", 0.8, most=True)])
    assert error.value.lines == (
        "run: no network is within gmacs max 0.8; nearest is #0 with gmacs 1, 25 % outside gmacs max 0.8",
    )
    with pytest.raises(RunError, match=r"nearest is #2 with top1 0.85, 4.49 % outside top1 min 0.89$"):
        choose(results, [Bound("top1", 0.89, most=False), Bound("gmacs", 20, most=True)])
    some = replace(results, candidates=(*results.candidates, Candidate(9, "h", {}, {"loss": 0.1}, 0, "running")))
    with pytest.raises(RunError, match=r"^run: no metric 'loss'; there are: top1, gmacs$"):
        choose(some, [Bound("loss", 0.5, most=True)])


def test_costs_first_and_maximised_alone():
    """The first objective decides; the last that is minimised is the cost, or the last one."""
    rows = results_of(FRONT).candidates
    choice = choose(Results("run", {"gmacs": "minimize", "top1": "maximize"}, rows))
    assert (choice.chosen.id, choice.cheaper, choice.better.candidate.id) == (0, None, 1)
    zen = tuple(replace(c, metrics={"top1": c.metrics["top1"], "zen": -c.metrics["gmacs"]}) for c in rows)
    choice = choose(Results("run", {"top1": "maximize", "zen": "maximize"}, zen))
    assert (choice.chosen.id, choice.cheaper.candidate.id, choice.better) == (3, 2, None)
    single = choose(Results("run", {"top1": "maximize"}, rows))
    assert (single.chosen.id, single.cheaper, single.better) == (3, None, None)


def test_infinite_values_are_the_worst():
    results = results_of([(0.5, 1.0), (0.8, 2.0), (0.9, math.inf)])
    assert choose(results, knee=True).chosen.id in (1, 2)
    assert losses(results, results.front()).max() == 1


FINALS = {
    "hash1": Final(3, {"top1": 0.82}, {"top1": 0.01}),
    "hash2": Final(3, {"top1": 0.81}, {"top1": 0.01}),
    "hash3": Final(3, {"top1": 0.93}, {"top1": 0.01}),
}


def test_final_means_take_the_place_of_what_networks_were_selected_by():
    """The third is off the front of the means, and the fourth beyond noise; the first has no other value."""
    choice = choose(results_of(FRONT), [Bound("gmacs", 50, most=True)], FINALS)
    assert (choice.chosen.id, choice.chosen.metrics["top1"], [m.id for m in choice.members]) == (1, 0.82, [0, 1])
    assert choice.better.candidate.id == 3
    assert choice.better.noise == {"top1": False}
    assert choice.cheaper.noise == {}


def test_what_the_search_left_behind_does_not_come_back_beside_sober_means():
    """#4 lost to #2 on the same terms; that #2 falls back is no merit of #4. Where #2 cannot be had, #4 can."""
    results = results_of([*FRONT, (0.84, 21.0)])
    assert 4 not in {member.id for member in choose(results, finals=FINALS).members}
    failed = {**FINALS, "hash2": Final(0)}
    assert [member.id for member in choose(results, finals=failed).members] == [0, 1, 4, 3]


def test_noise_is_students():
    """Quantiles as tables have them; 2.447 standard errors of 0.0141 are 0.0346 for two means of four."""
    for freedom, quantile in ((2, 4.303), (3, 3.182), (4, 2.776), (8, 2.306), (20, 2.086)):
        assert _student(freedom) == pytest.approx(quantile, rel=0.035)
    results = results_of(FRONT)
    for difference, expected in ((0.034, True), (-0.034, True), (0.035, False), (-0.035, False)):
        finals = {f"hash{place}": Final(4, {"top1": 0.5 + place * difference}, {"top1": 0.02}) for place in (0, 1)}
        assert noise(results, *results.candidates[:2], finals) == {"top1": expected}
    assert noise(results, *results.candidates[:2], {**finals, "hash0": Final(1, {"top1": 0.5}, {"top1": 0.0})}) == {}


def said(cli, *args, code=0):
    found, out, err = cli("choose", *args)
    assert found == code, err
    return out.splitlines() if code == 0 else err


def as_json(cli, *args):
    code, out, err = cli("choose", *args, "--json")
    assert (code, err) == (0, [])
    return json.loads(out)


def test_the_kept_run(cli):
    lines = said(cli, RUN, "--knee")
    assert lines[0] == "#25 1cd8edd0f189: top1 0.795, gmacs 0.0657, params 503k"
    assert lines[2:5] == [
        "why: the knee of 4 on the front",
        "next cheaper: #18, 0.0627 gmacs (-5 %), top1 -0.011",
        "next better: #2 rmc3_18, top1 +0.034, 0.104 gmacs (+58 %)",
    ]
    assert lines[-1] == f"folder: {RUN}/candidates/1cd8edd0f189 (without weights)"
    best = said(cli, RUN)
    assert best[0] == "#2 9712650b35cf rmc3_18: top1 0.830, gmacs 0.104, params 891k"
    assert "next better: none" in best
    limited = said(cli, RUN, "--max", "gmacs=0.07", "--max", "loss=2")
    assert limited[0].startswith("#25 1cd8edd0f189: top1 0.795, gmacs 0.0657, loss ")
    assert limited[4] == "next better: #2 rmc3_18, top1 +0.034, 0.104 gmacs (+58 %); outside gmacs max 0.07"


def test_a_design_of_the_kept_run_and_what_replaces_it(cli, tmp_path):
    """By a published name, a preset that the run does not call so, a spec's file and a candidate's folder."""
    expected = as_json(cli, RUN, "--like", "r3d_18")
    assert expected["chosen"]["id"] == 18
    assert expected["why"] == "the cheapest by gmacs of 4 on the front with r3d_18's top1 of 0.7841 or better"
    folder = RUN / "candidates" / read_results(str(RUN)).candidates[4].hash
    file = tmp_path / "net.yaml"
    shutil.copy(folder / "spec.yaml", file)
    for name in (folder, file):
        assert as_json(cli, RUN, "--like", name)["chosen"] == expected["chosen"]
    copied = copy_run(tmp_path)
    for trial in (copied / "trials").glob("*.json"):
        data = json.loads(trial.read_text())
        trial.write_text(json.dumps({**data, "published": None}))
    found = as_json(cli, copied, "--like", "r3d_18")
    assert found["chosen"]["id"] == 18
    assert "with #4's top1" in found["why"]
    assert said(cli, copied, "--like", "i3d", code=1) == [f"{copied}: i3d was not tried"]


def test_what_was_not_tried(cli, spec, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(spec_yaml(spec))
    designs = "fr2d_18, mc3_18, rmc3_18, rmc4_18, r3d_18, r2plus1d_18"
    assert said(cli, RUN, "--like", own, code=1) == [f"{RUN}: {own} was not tried; designs that were: {designs}"]
    assert said(cli, RUN, "--like", "mc5_18", code=1) == [f"{RUN}: mc5_18 was not tried; designs that were: {designs}"]
    near = f"{RUN}: 'r3d18' is no design, preset or file; did you mean 'r3d_18'?"
    assert said(cli, RUN, "--like", "r3d18", code=1) == [near]
    assert (
        said(cli, RUN, "--like", tmp_path / "none.yaml", code=1)[0].split("; ")[0].endswith("none.yaml: no such file")
    )
    line = (
        "small: none of 1 on the front within gmacs max 0.05 is as good as rmc3_18 (top1 min 0.829545); "
        "nearest is #19 with top1 0.7386, 11 % outside top1 min 0.829545"
    )
    assert said(cli, RUN, "--like", "rmc3_18", "--max", "gmacs=0.05", code=1) == [line]


def test_faults_of_limits(cli, tmp_path):
    assert said(cli, RUN, "--max", "gmac=1", code=1) == [
        "small: no metric 'gmac'; did you mean 'gmacs'?; "
        "there are: top1, gmacs, params, activations, memory_mb, clip_top1, loss"
    ]
    line = "small: no network is within gmacs max 0.01; nearest is #19 with gmacs 0.03484, 248 % outside gmacs max 0.01"
    assert said(cli, RUN, "--max", "gmacs=0.01", code=1) == [line]
    for text in ("gmacs=abc", "gmacs", "=5", "gmacs=", "gmacs=nan", "gmacs=inf"):
        assert f"'{text}' is not METRIC=VALUE" in said(cli, RUN, "--max", text, code=2)[-1]
    assert "give one of --knee and --like" in said(cli, RUN, "--knee", "--like", "r3d_18", code=2)[-1]
    assert said(cli, RUN, "--thin", "0", code=2)
    assert "is no run folder" in said(cli, tmp_path / "none", code=1)[0]
    empty = copy_run(tmp_path)
    for name in ("trials", "asked"):
        shutil.rmtree(empty / name)
    assert said(cli, empty, code=1) == ["small: has no front yet; `archsearch status` says how far it is"]


def copy_run(folder):
    return Path(shutil.copytree(RUN, folder / "run"))


def test_json_has_candidates_as_front_has_them(cli):
    _, out, _ = cli("front", RUN, "--json")
    fronts = {candidate["id"]: candidate for candidate in json.loads(out)["candidates"]}
    found = as_json(cli, RUN, "--knee", "--thin", "3")
    assert list(found) == ["chosen", "why", "cheaper", "better", "front", "folder", "representatives"]
    assert found["front"] == json.loads(out)["front"]
    assert [each["id"] for each in found["representatives"]] == [19, 25, 2]
    for each in (found["chosen"], found["cheaper"], found["better"], *found["representatives"]):
        assert fronts[each["id"]].items() <= each.items()
    assert found["better"]["published"] == "rmc3_18"
    change = found["better"]["differences"]
    assert change["gmacs"] == fronts[2]["metrics"]["gmacs"] - fronts[25]["metrics"]["gmacs"]
    assert "representatives" not in as_json(cli, RUN)


def test_representatives_as_a_table(cli):
    lines = said(cli, RUN, "--thin", "3")
    assert max(map(len, lines)) <= 100
    shown = [line.split()[0] for line in lines if line.strip()[:2].strip().isdigit()]
    assert shown == ["19", "25", "2"]
    assert "3 of 4" in " ".join(lines)


def test_final_means_in_a_run(cli, tmp_path):
    run = copy_run(tmp_path)
    rows = [
        {"id": c.id, "hash": c.hash, "metrics": dict(c.metrics), "trained": 0, "failed": ["no memory"]}
        for c in read_results(str(run)).front()
    ]
    for row, top1 in zip(rows[1:], (0.75, 0.80, 0.81), strict=True):
        row |= {"trained": 3, "metrics": {**row["metrics"], "top1": top1}, "spread": {"top1": 0.02}}
    inherited = {**rows[3], "start": "inherited", "metrics": {**rows[3]["metrics"], "top1": 0.99}}
    write_json(open_store(str(run)), "final.json", {"candidates": [*rows, inherited]})
    lines = said(cli, run)
    assert lines[0] == "#2 9712650b35cf rmc3_18: top1 0.810 ± 0.020, gmacs 0.104, params 891k"
    assert "next cheaper: #25, 0.0657 gmacs (-37 %), top1 -0.010 (within noise)" in lines
    assert "values: means over 3 fresh seeds" in lines
    found = as_json(cli, run)
    assert found["front"] == [24, 18, 25, 2]  # the first, which beat #24, could not be trained again
    assert (found["chosen"]["seeds"], found["chosen"]["spread"]) == (3, {"top1": 0.02})
    assert found["cheaper"]["noise"] == {"top1": True}
    (run / "final.json").write_text('{"candidates": [{"id": 3}]}')
    assert said(cli, run, code=1) == [f"{run}/final.json: was changed by hand; `archsearch finalize` writes it anew"]


@pytest.mark.slow
def test_what_finalize_writes_is_what_is_chosen_from(cli, clips, tmp_path):
    run_search(*write_tiny(tmp_path), clips, tmp_path / "run")
    with open_executor("serial", train_finalist, 1) as executor:
        found = finalize(str(tmp_path / "run"), clips, 2, executor)
    chosen = as_json(cli, tmp_path / "run")
    assert chosen["front"] == found["front"]
    assert chosen["chosen"]["seeds"] == 2
    assert not said(cli, tmp_path / "run")[-1].endswith("(without weights)")
