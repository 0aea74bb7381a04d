"""Successive halving: who goes on, what is kept and told, and that tables answer as trainings do."""

import json
import random
import shutil
from contextlib import nullcontext

import pytest
import torch
import yaml
from conftest import RECIPE, SPACE, found_in, run_search, trials_in, write_tiny
from optuna.trial import TrialState
from safetensors.torch import load_file

from archsearch.errors import RunError, SpaceError
from archsearch.search import driver
from archsearch.search.executors import open_executor
from archsearch.search.folder import RunFolder
from archsearch.search.halving import best_first, promoted, rung_epochs, rung_values
from archsearch.search.inheritance import _to_fit
from archsearch.search.launch import Wish, prepare, prepare_replay, replay
from archsearch.search.results import read_results, read_status
from archsearch.search.study import new_study
from archsearch.search.table import Table, read_table, write_table
from archsearch.space.choices import assign
from archsearch.space.space import SearchRecord
from archsearch.spec.cost import metrics
from archsearch.spec.spec import lower, parse_spec, with_sides
from archsearch.training.recipe import Recipe

RUNGS = {"rungs": 3, "eta": 3, "trials": 27}
WIDE = {"vary": [*SPACE["vary"], {"field": "width", "stages": ["res*"], "name": "w", "tied": {"scale": [0.5, 1, 2]}}]}
SLOW = {"epochs": 18}


def pretend(payload):
    """A stand-in for training: longer is better, and 3D higher up is."""
    spec = parse_spec(yaml.safe_load(payload["spec"]), "candidate")
    epochs = payload.get("until", payload["recipe"]["epochs"])
    cost = metrics(lower(spec))["gmacs"]
    kinds = [stage.conv for stage in spec.stages[:-1]]
    top1 = sum(place * (kind == "3d") for place, kind in enumerate(kinds)) / 20 + cost + epochs / 100
    metrics_read = {"top1": top1, "clip_top1": top1, "loss": 1 - top1, "train_loss": 2 - top1}
    return {"epochs": epochs, "seconds": float(epochs), "metrics": metrics_read}


class Interrupted(Exception):
    pass


@pytest.fixture
def planned(clips, tmp_path):
    def make(out="run", **search):
        folder = tmp_path / f"{out}-files"
        folder.mkdir(exist_ok=True)
        files = write_tiny(folder, {**WIDE, "search": {**RUNGS, **search}}, SLOW)
        recipe = Recipe(**yaml.safe_load(files[1].read_text()))
        return prepare(files[0], clips, str(tmp_path / out), recipe, Wish(), lambda *_: None)[0]

    return make


def pretended(plan, cut_after=None):
    """Drives a plan, perhaps cut short after so many outcomes."""
    left = [cut_after]

    def report(_):
        if left[0] is not None:
            left[0] -= 1
            if left[0] < 0:
                raise Interrupted

    with plan.folder.driving(), open_executor("serial", pretend, 1) as executor:
        driver.drive(plan, executor, report)


# Who goes on.


def test_rungs_are_powers_of_eta_and_end_at_the_recipes_epochs():
    assert rung_epochs(SearchRecord(), 30) == (30,)
    assert rung_epochs(SearchRecord(rungs=3), 27) == (3, 9, 27)
    assert rung_epochs(SearchRecord(rungs=3, eta=2), 30) == (8, 15, 30)
    assert rung_epochs(SearchRecord(rungs=4), 3) == (1, 3)


def test_a_rung_ranks_by_what_is_known_and_by_the_training_loss():
    objectives = {"top1": "maximize", "gmacs": "minimize", "loss": "minimize", "zen": "maximize"}
    read = {"top1": 0.1, "gmacs": 2.0, "loss": 9.0, "zen": 3.0, "train_loss": 1.5}
    assert rung_values(objectives, read) == (-1.5, 2.0, 1.5, 3.0)


def test_the_first_ranks_go_on_and_the_lonelier_within_a_rank():
    values = {
        "cheap": (0.3, 1.0), "accurate": (0.9, 9.0), "crowded": (0.5, 4.0), "lonely": (0.7, 6.5), "near": (0.45, 3.7),
        "beaten": (0.2, 2.0), "worse": (0.1, 3.0), "unknown": (float("nan"), 1.0),
    }  # fmt: skip
    order = best_first(values, (True, False))
    assert set(order[:2]) == {"cheap", "accurate"}  # the ends of the front
    assert order.index("lonely") < order.index("crowded") < order.index("beaten") < order.index("worse")
    assert order[-1] == "unknown"
    assert promoted(values, frozenset(), 4, (True, False)) == order[0]
    assert promoted(values, frozenset(order[:1]), 4, (True, False)) == order[1]
    assert promoted(values, frozenset(order[:2]), 4, (True, False)) is None  # 8 // 4 have gone on
    assert promoted(dict(list(values.items())[:3]), frozenset(), 4, (True, False)) is None
    assert promoted({}, frozenset(), 4, (True, False)) is None


@pytest.mark.parametrize("order", ["async", "fixed"])
@pytest.mark.parametrize("sampler", ["tpe", "random", "surrogate"])
def test_a_search_by_halving(planned, tmp_path, order, sampler):
    plan = planned(order=order, sampler=sampler)
    assert plan.rungs == (2, 6, 18)
    pretended(plan)
    trials = [trial for trial in trials_in(tmp_path / "run") if trial["duplicate_of"] is None]
    by_state = {state: [t for t in trials if t["state"] == state] for state in ("complete", "stopped")}
    assert len(by_state["complete"]) + len(by_state["stopped"]) == len(trials)
    assert len(trials) == 27 if sampler != "surrogate" else 4 < len(trials) <= 27
    published = {trial["candidate"] for trial in trials if trial["published"]}
    assert published <= {trial["candidate"] for trial in by_state["complete"]}
    for trial in trials:
        read = [rung["epochs"] for rung in trial["rungs"]]
        assert read == [2, 6][: len(read)]
        assert trial["epochs"] == (18 if trial["state"] == "complete" else read[-1])
        assert (trial["state"] == "complete") == (len(read) == 2 and trial["reason"] is None)
    first = {t["candidate"]: [-t["rungs"][0]["metrics"]["train_loss"], t["metrics"]["gmacs"]] for t in trials}
    went_on = [t["candidate"] for t in trials if len(t["rungs"]) > 1 or t["state"] == "complete"]
    if sampler == "surrogate":  # the model spends what halving would, on whom it likes
        spent = sum(trial["epochs"] for trial in trials if not trial["published"])
        assert plan.epochs == 27 * 2 + 9 * 4 + 3 * 12
        assert plan.epochs - max(plan.rungs) < spent <= plan.epochs
    else:
        assert 27 // 3 <= len(set(went_on)) <= 27 // 2 + len(published)  # some that went on were later beaten
    if order == "fixed" and sampler != "surrogate":  # whoever is best of all by the first rung was never left behind
        assert set(best_first(first, (True, False))[:3]) <= set(went_on)
    status = read_status(str(tmp_path / "run"))
    assert status["epochs"] == sum(trial["epochs"] for trial in trials) < 27 * 18
    assert status["trials"]["stopped"] == len(by_state["stopped"])
    on_front = {candidate.state for candidate in read_results(str(tmp_path / "run")).front()}
    assert on_front == {"complete"}


def test_samplers_never_see_the_value_of_a_rung(planned, tmp_path):
    plan = planned()
    pretended(plan)
    study = new_study(plan.space, plan.folder.settled())
    settled = {json.dumps(trial.params): trial for trial in plan.folder.settled()}
    for trial in study.trials:
        known = settled[json.dumps(trial.params)]
        if known.state == "complete":
            assert trial.values == [known.metrics["top1"], known.metrics["gmacs"]]
            assert trial.values[0] > trial.user_attrs["rung0"]["top1"]
        else:
            assert (trial.state, trial.values) == (TrialState.PRUNED, None)
            assert sum(trial.constraints.values()) > 0
        assert set(trial.user_attrs) == {f"rung{place}" for place in range(len(known.rungs))}


@pytest.mark.parametrize(("sampler", "order"), [("tpe", "async"), ("surrogate", "fixed")])
def test_halving_goes_on_wherever_it_was_cut(planned, tmp_path, order, sampler):
    pretended(planned("whole", order=order, sampler=sampler))
    expected = trials_in(tmp_path / "whole")
    draw = random.Random(3)
    cuts = 0
    while True:
        try:
            pretended(
                planned("cut", order=order, sampler=sampler), cut_after=draw.randrange(1, 12) if cuts < 8 else None
            )
            break
        except Interrupted:
            cuts += 1
            during = read_results(str(tmp_path / "cut"))
            assert {candidate.state for candidate in during.candidates} <= {"complete", "stopped", "running"}
    assert cuts >= 8
    found = trials_in(tmp_path / "cut")
    if order == "fixed":
        assert found == expected
    distinct = sum(trial["duplicate_of"] is None for trial in found)
    assert distinct == 27 if sampler != "surrogate" else 4 < distinct <= 27  # it spends epochs as it likes
    assert all(trial["state"] in ("complete", "stopped") for trial in found)


TRAINED = []


def noted(payload):
    TRAINED.append((payload["store"], payload.get("until")))
    return pretend(payload)


def test_more_trials_let_stopped_candidates_go_on(planned, tmp_path):
    """Nine, then eighteen: who is among the best of all goes on, whenever it was asked; nothing is trained twice."""
    TRAINED.clear()
    found = []
    for trials in (9, 18, 18):
        plan = planned(order="async", trials=trials, sampler="random", seed=1)
        with plan.folder.driving(), open_executor("serial", noted, 1) as executor:
            driver.drive(plan, executor)
        found.append(trials_in(tmp_path / "run"))
    first, second, third = found
    assert third == second
    assert len(TRAINED) == len(set(TRAINED)) == sum(len(trial["rungs"]) + (trial["state"] == "complete")
                                                    for trial in second if trial["duplicate_of"] is None)  # fmt: skip
    assert [trial["candidate"] for trial in second[: len(first)]] == [trial["candidate"] for trial in first]
    went_on = [len(new["rungs"]) - len(old["rungs"]) for old, new in zip(first, second, strict=False)]
    assert min(went_on) == 0 < max(went_on)
    trials = {trial["candidate"]: trial for trial in second if trial["duplicate_of"] is None}
    assert len(trials) == 18
    for rung in (0, 1):
        read = {name: [trial["rungs"][rung]["metrics"]["top1"], trial["metrics"]["gmacs"]]
                for name, trial in trials.items() if len(trial["rungs"]) > rung}  # fmt: skip
        for name in best_first(read, (True, False))[: len(read) // 3]:
            assert len(trials[name]["rungs"]) > rung + 1 or trials[name]["state"] == "complete"


def fail_at_the_second_rung(payload):
    """Every network with a 3D stem fails once it is trained for longer."""
    spec = parse_spec(yaml.safe_load(payload["spec"]), "candidate")
    if payload.get("until") == 6 and spec.stages[0].conv == "3d":
        raise ValueError("too long for it")
    return pretend(payload)


def test_a_failure_at_a_rung_is_that_failure_after_a_restart(planned, tmp_path):
    plan = planned(order="fixed")
    found = []
    for _ in range(2):
        with plan.folder.driving(), open_executor("serial", fail_at_the_second_rung, 1) as executor:
            driver.drive(plan, executor)
        found.append(trials_in(tmp_path / "run"))
    failed = [trial for trial in found[0] if trial["state"] == "failed"]
    assert failed
    assert {len(trial["rungs"]) for trial in failed} == {1}
    assert found[1] == found[0]


def test_real_rungs_pause_a_training_that_goes_on_as_if_it_had_not(clips, tmp_path):
    space = {"search": {"rungs": 2, "eta": 2, "trials": 4, "order": "fixed"}}
    files = write_tiny(tmp_path, space, {"epochs": 4})
    run_search(*files, clips, tmp_path / "run")
    whole = found_in(tmp_path / "run")
    for trial in whole[0]:
        folder = tmp_path / "run" / "candidates" / trial["candidate"]
        curve = json.loads((folder / "curve.json").read_text())
        assert len(curve) == trial["epochs"] == (4 if trial["state"] == "complete" else 2)
        read = trial["rungs"][0]
        assert (read["epochs"], read["metrics"]["train_loss"]) == (2, curve[1]["train_loss"])
        assert (folder / "weights.safetensors").exists() == (trial["state"] == "complete")
        assert (folder / "checkpoint.pt").exists() == (trial["state"] == "stopped")
    run_search(*files, clips, tmp_path / "run")
    assert found_in(tmp_path / "run") == whole
    (tmp_path / "at once").mkdir()
    once = write_tiny(tmp_path / "at once", {"search": {"trials": 4, "order": "fixed"}}, {"epochs": 4})
    run_search(*once, clips, tmp_path / "once")
    _, curves, weights, _ = found_in(tmp_path / "once")
    shared = set(weights) & set(whole[2])
    assert shared
    for name in shared:
        assert (whole[1][name], whole[2][name]) == (curves[name], weights[name])


# Inheritance.


HEIRS = {
    "vary": SPACE["vary"],
    "search": {"trials": 6, "order": "fixed", "block": 2, "inherit": 0.34, "sampler": "random"},
}


def test_candidates_inherit_from_the_nearest_finished_one(clips, tmp_path):
    """The published networks begin with chance; others with weights, fitted, and a short schedule at a low rate."""
    files = write_tiny(tmp_path, HEIRS, {"epochs": 3})
    run_search(*files, clips, tmp_path / "run")
    trials = [trial for trial in trials_in(tmp_path / "run") if trial["duplicate_of"] is None]
    known = {trial["candidate"]: trial for trial in trials}
    heirs = [trial for trial in trials if trial["inherited"]]
    assert len(heirs) == 4
    assert not any(trial["published"] for trial in heirs)
    lowest = min(epoch["lr"] for epoch in json.loads(curve_of(tmp_path, trials[0]).read_text()))
    for trial in heirs:
        parent = known[trial["inherited"]]
        assert parent["number"] < trial["number"]
        changed = {name for name, value in trial["params"].items() if parent["params"][name] != value}
        others = [other for other in trials if other["block"] < trial["block"]]
        assert (
            len(changed)
            <= min(sum(other["params"][name] != value for name, value in trial["params"].items()) for other in others)
            + 1
        )
        assert trial["epochs"] == 1
        folder = curve_of(tmp_path, trial).parent
        assert json.loads((folder / "recipe.json").read_text())["epochs"] == 1
        seconds = json.loads((tmp_path / "run" / "trials" / f"{trial['number']}.json").read_text())["seconds"]
        assert json.loads((folder / "result.json").read_text())["seconds"] == seconds
        start = load_file(tmp_path / "run" / "candidates" / trial["candidate"] / "start.safetensors")
        theirs = load_file(tmp_path / "run" / "candidates" / parent["candidate"] / "weights.safetensors")
        kept = [name for name in start if name in theirs and torch.equal(start[name], theirs[name])]
        assert any(name.endswith("weight") for name in kept)
        rates = [epoch["lr"] for epoch in json.loads(curve_of(tmp_path, trial).read_text())]
        assert max(rates) <= 0.1 * Recipe(**RECIPE).lr + lowest
    shown = read_results(str(tmp_path / "run")).as_json()["candidates"]
    assert {entry["hash"]: entry.get("inherited") for entry in shown} == {n: t["inherited"] for n, t in known.items()}


def curve_of(folder, trial):
    return folder / "run" / "candidates" / trial["candidate"] / "curve.json"


@pytest.mark.slow
def test_a_search_that_inherits_is_the_same_however_interrupted(clips, tmp_path):
    files = write_tiny(tmp_path, HEIRS, {"epochs": 3})
    run_search(*files, clips, tmp_path / "run")
    whole = found_in(tmp_path / "run")
    run_search(*files, clips, tmp_path / "cut", trials=3)
    run_search(*files, clips, tmp_path / "cut")
    assert found_in(tmp_path / "cut") == whole


def test_nothing_is_inherited_across_sizes_of_clips(planned, tmp_path):
    old = planned().space.base
    assert _to_fit(old, old) == 0
    assert _to_fit(old, with_sides(old, (4, 24, 24))) == 1
    assert 0 < _to_fit(old, assign(old, {("res3", "conv"): "2d"}, "other")) < 1


# Tables.


@pytest.fixture(scope="module")
def trained(clips, tmp_path_factory):
    """Run folders of real trainings of 4, 2 epochs of every network of the tiny space, and their table."""
    root = tmp_path_factory.mktemp("table")
    vary = [{"field": "conv", "stages": ["res3", "res4", "res5"], "each": ["2d", "3d"]}]
    space = {"vary": vary, "published": [], "search": {"sampler": "grid", "trials": 99}}
    runs = []
    for epochs in (4, 2):
        files = write_tiny(root, space, {"epochs": epochs, "warmup_epochs": epochs / 4})
        run_search(*files, clips, root / f"run{epochs}")
        runs.append(str(root / f"run{epochs}"))
    write_table(runs, root / "table.json")
    return root, space, runs


def test_a_table_has_every_training_with_its_curve(trained):
    root, _, runs = trained
    table = read_table(root / "table.json")
    assert {epochs for _, _, epochs in table.rows} == {2, 4}
    assert len(table.rows) == sum(len(read_results(run).complete()) for run in runs)
    assert table.recipe.epochs == 4
    for (_, seed, epochs), row in table.rows.items():
        assert seed == 0
        assert len(row["curve"]["val_loss"]) == epochs


def test_a_replay_is_the_search_without_the_training(trained, clips, tmp_path):
    """The same trials, metrics and front as training gives, in milliseconds a candidate."""
    root, space, _ = trained
    space = {**space, "search": {"rungs": 2, "eta": 2, "trials": 4, "sampler": "random", "order": "fixed"}}
    files = write_tiny(tmp_path, space, {"epochs": 4, "warmup_epochs": 1})
    run_search(*files, clips, tmp_path / "trained")
    table = read_table(root / "table.json")
    plan = prepare_replay(files[0], table, str(tmp_path / "replayed"), None, Wish())
    _, seconds = replay(plan, table, 1)
    assert trials_in(tmp_path / "replayed") == trials_in(tmp_path / "trained")
    spent = read_status(str(tmp_path / "replayed"))["seconds"]
    assert seconds == pytest.approx(spent, abs=0.1)


def test_a_table_is_of_whole_trainings_from_chance(clips, tmp_path):
    space = {"search": {"rungs": 2, "eta": 2, "trials": 4, "order": "fixed", "sampler": "random"}}
    files = write_tiny(tmp_path, space, {"epochs": 2, "warmup_epochs": 0, "views": 1})
    run_search(*files, clips, tmp_path / "run")
    trials = [trial for trial in trials_in(tmp_path / "run") if trial["duplicate_of"] is None]
    assert {trial["state"] for trial in trials} == {"complete", "stopped"}
    count = write_table([str(tmp_path / "run")], tmp_path / "table.json")
    table = read_table(tmp_path / "table.json")
    whole = [trial for trial in trials if trial["state"] == "complete"]
    assert len(table.rows) == count == len(whole)
    assert all(len(row["curve"]["val_loss"]) == row["epochs"] == 2 for row in table.rows.values())
    plan = prepare_replay(files[0], table, str(tmp_path / "replayed"), None, Wish())
    replay(plan, table, 1)
    heir = tmp_path / "run" / "trials" / f"{whole[0]['number']}.json"
    settled = json.loads(heir.read_text())
    heir.write_text(json.dumps({**settled, "inherited": whole[1]["candidate"]}))
    assert write_table([str(tmp_path / "run")], tmp_path / "less.json") == count - 1
    heir.write_text(json.dumps(settled))
    with pytest.raises(RunError, match="replayed: its values are of a table or of shared weights"):
        write_table([str(tmp_path / "replayed")], tmp_path / "none.json")
    with pytest.raises(RunError, match="was started with another source of values;"):
        run_search(*files, clips, tmp_path / "replayed")
    with pytest.raises(RunError, match="was started with another source of values;"):
        prepare_replay(files[0], table, str(tmp_path / "run"), None, Wish())
    inherits = write_tiny(tmp_path, {"search": {**space["search"], "inherit": 0.5}})
    with pytest.raises(SpaceError, match=r"tiny\.yaml, search: inherit: a table has no weights"):
        prepare_replay(inherits[0], table, str(tmp_path / "heirs"), None, Wish())
    shutil.rmtree(tmp_path / "run" / "candidates" / whole[1]["candidate"])
    with pytest.raises(RunError, match=f"the training of trial {whole[1]['number']} is no longer there"):
        write_table([str(tmp_path / "run")], tmp_path / "none.json")


def test_a_replay_ends_where_another_has_the_folder(clips, tmp_path, monkeypatch):
    files = write_tiny(tmp_path)
    table = Table({"digest": "0", "classes": ["a", "b"]}, Recipe(), {})
    plan = prepare_replay(files[0], table, str(tmp_path / "run"), None, Wish())

    def held():
        raise RunError("another search is running in this folder")

    monkeypatch.setattr(RunFolder, "driving", lambda _: nullcontext(held))
    with pytest.raises(RunError, match="another search"):
        replay(plan, table, 1)


def test_replays_by_command_and_what_they_refuse(trained, clips, cli, tmp_path):
    root, space, runs = trained
    files = write_tiny(tmp_path, space)
    code, _, _ = cli("tabulate", *runs, "--out", tmp_path / "table.json")
    assert (code, (tmp_path / "table.json").read_bytes()) == (0, (root / "table.json").read_bytes())
    code, _, said = cli("search", files[0], "--replay", tmp_path / "table.json", "--out", tmp_path / "run")
    assert code == 0
    assert "training it would have taken" in said[-1]
    assert cli("front", tmp_path / "run")[0] == 0
    (tmp_path / "table.json").write_text('{"rows": []}')
    code, _, said = cli("search", files[0], "--replay", tmp_path / "table.json", "--out", tmp_path / "other")
    assert (code, len(said)) == (1, 1)
    assert "is no table of `archsearch tabulate`" in said[0]
    run_search(*write_tiny(tmp_path, space, {"epochs": 2, "lr": 0.5}), clips, tmp_path / "odd", trials=1)
    with pytest.raises(RunError, match="another recipe or data set"):
        write_table([runs[0], str(tmp_path / "odd")], tmp_path / "table.json")
