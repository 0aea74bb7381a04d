"""Two runs of one space: rank correlation, the fronts in each other's eyes, what each choice does."""

import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import run_search
from rich.console import Console

from archsearch.errors import RunError
from archsearch.front.compare import compare_runs, kendall_tau
from archsearch.front.results import Candidate, Results
from archsearch.report.compare import compare_runs_table
from archsearch.search.results import read_results, told_apart

OBJECTIVES = {"top1": "maximize", "gmacs": "minimize"}


def run(name, top1, costs, states=None, objectives=OBJECTIVES):
    """A run with a candidate for each choice of `kind`, a to z."""
    states = states or ["complete"] * len(top1)
    candidates = [
        Candidate(i, f"{name}{i}", {"kind": "abcdefgh"[i]}, {"top1": t, "loss": 1 - t, "gmacs": c}, 3, s)
        for i, (t, c, s) in enumerate(zip(top1, costs, states, strict=True))
    ]
    return Results(name, objectives, tuple(candidates))


def test_tau_is_kendalls():
    rng = np.random.default_rng(0)
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    for _ in range(20):
        x, y = rng.integers(0, 6, (2, 12)).astype(float)  # with ties
        assert kendall_tau(x, y) == pytest.approx(stats.kendalltau(x, y).statistic)
    assert kendall_tau(np.arange(5.0), np.arange(5.0)) == 1
    assert np.isnan(kendall_tau(np.ones(4), np.arange(4.0)))


def test_two_runs_are_compared_by_what_both_have_trained():
    left = run("left", [0.5, 0.6, 0.7, 0.9], [1, 2, 3, 4])
    right = run("right", [0.8, 0.6, 0.5, 0.9], [1, 2, 3, 4], ["complete", "complete", "complete", "stopped"])
    found = compare_runs(left, right)
    assert (found["networks"], found["common"]) == ([4, 3], 3)
    assert found["tau"]["top1"]["tau"] == found["tau"]["loss"]["tau"] == -1
    assert [(row["id"], row["rank"]) for row in found["fronts"][0]] == [(0, 0), (1, 1), (2, 2), (3, None)]
    assert [(row["id"], row["there"]["top1"]) for row in found["fronts"][1]] == [(0, 0.5)]
    assert found["choices"] == {"kind": {"a": [0.5, 0.8], "b": [0.6, 0.6], "c": [0.7, 0.5]}}


def test_runs_after_other_objectives():
    """What both have measured is compared; what one has not is named."""
    left = run("left", [0.5, 0.6, 0.7], [1, 2, 3])
    right = run("right", [0.4, 0.6, 0.7], [1, 2, 3], objectives={"loss": "minimize"})
    found = compare_runs(left, right)
    assert [row["there"]["top1"] for row in found["fronts"][0]] == [0.4, 0.6, 0.7]
    assert [row["there"] for row in found["fronts"][1]] == [{"loss": pytest.approx(0.3)}]
    assert shown(compare_runs_table(found)).count("0.700") >= 2
    unknown = replace(right, objectives={"latency_ms": "minimize"})
    scored = [replace(c, metrics={**c.metrics, "latency_ms": 3.0}) for c in right.candidates]
    unknown = replace(unknown, candidates=tuple(scored))
    for pair in ((left, unknown), (unknown, left)):
        with pytest.raises(
            RunError, match=r"^right is after latency_ms, left after top1, gmacs, and does not know latency_ms$"
        ):
            compare_runs(*pair)


def shown(table):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_a_constant_has_no_correlation():
    left, right = run("left", [0.5] * 3, [1, 2, 3]), run("right", [0.4, 0.6, 0.7], [1, 2, 3])
    found = compare_runs(left, right)
    assert found["tau"]["top1"] == {"tau": None, "interval": None}
    json.dumps(found, allow_nan=False)
    assert "tau -, since one of them has the same for all" in shown(compare_runs_table(found))


def test_runs_without_common_networks_are_still_compared(cli):
    left, right = run("left", [0.5], [1]), run("right", [0.5], [1], ["failed"])
    found = compare_runs(left, right)
    assert (found["common"], found["tau"], found["choices"]) == (0, {}, {})
    assert found["fronts"][1] == []


def test_the_command_compares_real_runs(clips, cli, write_files, tmp_path):
    files = write_files({"search": {"trials": 4, "order": "fixed"}})
    run_search(*files, clips, tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    code, out, _ = cli("compare", tmp_path / "one", tmp_path / "two")
    assert code == 0
    assert "4 networks in both (4 in one, 4 in two)" in out  # both are of the space `tiny`
    assert max(map(len, out.splitlines())) <= 100
    code, out, _ = cli("compare", tmp_path / "one", tmp_path / "two", "--json")
    data = json.loads(out)
    results = read_results(str(tmp_path / "one"))
    assert [row["id"] for row in data["fronts"][0]] == [candidate.id for candidate in results.front()]
    assert all(row["rank"] == 0 for row in data["fronts"][0])


@pytest.mark.parametrize(
    ("left", "right", "names"),
    [
        ("runs/depth", "runs/rgb/", ("depth", "rgb")),
        ("depth/run", "rgb/run", ("depth/run", "rgb/run")),
        ("run", "old/run", ("run", "old/run")),
        ("run", "run", ("run", "run")),
    ],
)
def test_runs_of_one_name_are_told_apart_by_their_places(left, right, names):
    assert told_apart(left, right) == names
