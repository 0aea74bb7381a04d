"""Searches: what is trained, what is not, what the study knows, and that a run folder is all that matters."""

import errno
import fcntl
import json
import random
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import yaml
from conftest import CLIPS, SPACE, curves_in, found_in, run_search, trials_in, write_tiny
from optuna.trial import TrialState

from archsearch.errors import RunError, SpaceError, SpecError
from archsearch.report.search import search_with_progress
from archsearch.search import driver, proposals, restore, scoring
from archsearch.search.evolution import STARTERS
from archsearch.search.executors import open_executor
from archsearch.search.folder import RunFolder, Settled
from archsearch.search.launch import Wish, Workers, prepare
from archsearch.search.results import read_results, read_status
from archsearch.search.study import make_sampler
from archsearch.search.worker import train_candidate
from archsearch.space.file import read_space
from archsearch.spec.cost import metrics
from archsearch.spec.presets import preset
from archsearch.spec.spec import digest, lower, parse_spec, spec_yaml
from archsearch.store import open_store, read_json
from archsearch.training.recipe import Recipe

REAL = ["processes", pytest.param("ray", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def undisturbed(clips, tmp_path_factory):
    """The tiny search in fixed order on the serial executor: a run folder that no test may change."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run_search(*write_tiny(folder), clips, folder / "run")
    return folder / "run"


@pytest.fixture
def ray():
    """A Ray of this process that searches join; starting one takes seconds."""
    ray = pytest.importorskip("ray")
    started = not ray.is_initialized()
    with open_executor("ray", train_candidate, workers=2):
        yield
    assert ray.is_initialized() != started


def contents(out):
    """Every file of a run folder but the lock, with the time it was written."""
    paths = [path for path in Path(out).rglob("*") if path.is_file() and path.name != ".driver.lock"]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


# A stand-in for training, for what needs many trials: the driver around it is the real one.


def pretend(payload):
    spec = parse_spec(yaml.safe_load(payload["spec"]), "candidate")
    cost = metrics(lower(spec))
    kinds = [stage.conv for stage in spec.stages[:-1]]
    top1 = 0.1 * kinds.count("3d") + 0.01 * kinds[::-1].index(kinds[-1])
    return {
        "epochs": 2,
        "seconds": 1.0,
        "metrics": {**dict.fromkeys(("top1", "clip_top1"), top1), "loss": cost["gmacs"], "train_loss": 1 - top1},
    }


def width(scale, stages="res*"):
    """A choice of widths; at 1.01 all round to those at 1."""
    return {"field": "width", "stages": [stages], "name": "w", "tied": {"scale": scale}}


class Interrupted(Exception):
    pass


def pretended(plan, interrupt_after=None):
    """Drives a plan with pretended trainings, perhaps cut short after so many of them."""
    left = [interrupt_after]

    def report(progress):
        if left[0] is not None:
            left[0] -= sum(trial.state == "complete" and trial.duplicate_of is None for trial in progress.settled)
            if left[0] < 0:
                raise Interrupted

    with plan.folder.driving(), open_executor("serial", pretend, 1) as executor:
        driver.drive(plan, executor, report)


@pytest.fixture
def planned(write_files, clips, tmp_path):
    """Plans of the tiny space with fields changed, in a folder of their own."""

    def make(out="run", trials=None, space=(), recipe=()):
        space_file, recipe_file = write_files(space, recipe)
        read = Recipe(**yaml.safe_load(recipe_file.read_text()))
        return prepare(space_file, clips, str(tmp_path / out), read, Wish(trials), lambda *_: None)[0]

    return make


# A fixed order is a function of its files.


@pytest.mark.parametrize("executor", REAL)
def test_every_executor_finds_the_same(undisturbed, write_files, clips, tmp_path, request, executor):
    if executor == "ray":
        request.getfixturevalue("ray")
    run_search(*write_files(), clips, tmp_path / "run", executor=executor)
    trials, curves, weights, front = found_in(tmp_path / "run")
    expected = found_in(undisturbed)
    assert curves == expected[1]
    assert weights == expected[2]
    assert trials == expected[0]
    assert front == expected[3]


def test_what_a_search_is(undisturbed):
    trials = trials_in(undisturbed)
    assert [trial["number"] for trial in trials] == list(range(len(trials)))
    assert [trial["published"] for trial in trials[:3]] == ["fr2d_18", "r3d_18", None]
    assert set(trials[0]["params"].values()) == {"2d"}
    assert set(trials[1]["params"].values()) == {"3d"}
    assert [trial["block"] for trial in trials[:4]] == [0, 0, 0, 1]
    assert len({trial["candidate"] for trial in trials}) == 5 == len(curves_in(undisturbed))
    assert {trial["state"] for trial in trials} == {"complete"}
    assert all(len(curve) == 2 for curve in curves_in(undisturbed).values())
    for trial in trials:
        folder = undisturbed / "candidates" / trial["candidate"]
        assert sorted(path.name for path in folder.iterdir()) == [
            "curve.json",
            "labels.txt",
            "recipe.json",
            "result.json",
            "spec.yaml",
            "weights.safetensors",
        ]
        result = json.loads((folder / "result.json").read_text())
        assert result["metrics"].items() <= trial["metrics"].items()
    front = read_results(str(undisturbed)).as_json()
    assert front["published"] == {"fr2d_18": 0, "r3d_18": 1}
    assert set(front["front"]) <= set(range(len(trials)))


def test_nothing_in_a_run_folder_says_where_it_was_made(undisturbed, clips):
    for name, content in contents(undisturbed).items():
        for place in (undisturbed, clips, Path.cwd(), Path.home(), Path(__file__).parent):
            assert str(place).encode() not in content, (name, place)


def test_the_same_command_again_changes_nothing(undisturbed, write_files, clips, tmp_path):
    before = contents(undisturbed)
    written = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("curve.json")}
    run_search(*write_files(), clips, undisturbed)
    assert contents(undisturbed) == before
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("curve.json")} == written


def test_more_trials_go_on(undisturbed, write_files, clips, tmp_path):
    """Two trials, then five, is five: though two ended in the middle of a block."""
    files = write_files()
    assert [trial.number for trial in run_search(*files, clips, tmp_path / "run", trials=2)] == [0, 1]
    recorded = curves_in(tmp_path / "run")
    run_search(*files, clips, tmp_path / "run")
    assert found_in(tmp_path / "run") == found_in(undisturbed)
    assert recorded.items() <= curves_in(tmp_path / "run").items()


@pytest.mark.parametrize(
    "sampler", ["tpe", *(pytest.param(name, marks=pytest.mark.slow) for name in ("random", "evolution"))]
)
def test_a_fixed_order_interrupted_anywhere_is_the_same(planned, tmp_path, sampler):
    """Thirty trials of which many are infeasible or known, cut short at random, some files lost on the way."""
    space = {
        "vary": [
            *SPACE["vary"],
            {"field": "width", "stages": ["res*"], "name": "w", "tied": {"scale": [0.5, 1, 1.01]}},
        ],
        "limits": {"gmacs": {"max": 0.0065}},
        "search": {"order": "fixed", "block": 4, "trials": 30, "sampler": sampler},
    }
    pretended(planned("whole", space=space))
    expected = trials_in(tmp_path / "whole")
    assert Counter(trial["state"] for trial in expected)["infeasible"] > 2
    assert any(trial["duplicate_of"] is not None for trial in expected)
    draw = random.Random(1)
    for _ in range(4):
        out = f"cut{draw.random()}"
        while True:
            try:
                pretended(planned(out, space=space), interrupt_after=draw.randrange(1, 16))
                break
            except Interrupted:
                files = list((tmp_path / out / "trials").glob("*.json"))
                for path in draw.sample(files, min(len(files), draw.choice([0, 0, 1, 2]))):
                    path.unlink()
        assert trials_in(tmp_path / out) == expected


# What is trained and what is not.


LIMITED = {"limits": {"gmacs": {"max": 0.0075}}, "search": {"trials": 6}}


def test_what_exceeds_a_limit_is_never_trained(planned, tmp_path, live_study):
    plan = planned(space=LIMITED)
    pretended(plan)
    trials = trials_in(tmp_path / "run")
    infeasible = [trial for trial in trials if trial["state"] == "infeasible"]
    assert any(trial["published"] == "r3d_18" for trial in infeasible)
    for trial in infeasible:
        assert trial["metrics"]["gmacs"] > 0.0075
        assert trial["constraints"] == {"gmacs": trial["metrics"]["gmacs"] / 0.0075 - 1}
        assert "gmacs" in trial["reason"]
        assert not (tmp_path / "run" / "candidates" / trial["candidate"]).exists()
        assert not (tmp_path / "run" / "asked" / f"{trial['number']}.json").exists()
    assert sum(trial["state"] == "complete" and trial["duplicate_of"] is None for trial in trials) == 6
    known = live_study().trials
    assert [trial.state for trial in known].count(TrialState.PRUNED) == len(infeasible)
    for trial in known:
        assert (trial.constraints["gmacs"] > 0) == (trial.state is TrialState.PRUNED)
    distinct = {trial["candidate"] for trial in infeasible}
    assert read_status(str(tmp_path / "run"))["trials"]["infeasible"] == len(distinct)


@pytest.fixture
def live_study(monkeypatch):
    """The study of the latest drive."""
    made = []
    monkeypatch.setattr(restore, "new_study", lambda *given: made.append(NEW_STUDY(*given)) or made[-1])
    return lambda: made[-1]


NEW_STUDY = restore.new_study


def as_samplers_see(study):
    return [(t.state, t.params, t.distributions, t.values, t.constraints) for t in study.trials]


@pytest.mark.parametrize("order", ["async", "fixed"])
def test_a_study_rebuilt_from_files_is_the_live_one(planned, live_study, order):
    space = {
        "vary": [*SPACE["vary"], width([1, 1.01, 2])],
        "limits": {"gmacs": {"max": 0.012}},
        "search": {"trials": 25, "order": order},
    }
    plan = planned(space=space)
    pretended(plan)
    live = live_study()
    rebuilt = NEW_STUDY(plan.space, plan.folder.settled())
    assert as_samplers_see(rebuilt) == as_samplers_see(live)
    assert {trial.state for trial in live.trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    count, suggested = len(live.trials), []
    for study in (live, rebuilt):
        study.sampler = make_sampler(plan.space, count)
        trials = [study.ask() for _ in range(4)]
        for trial in trials:
            plan.space.draw(trial)
        suggested.append([trial.params for trial in trials])
    assert suggested[0] == suggested[1]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_restart_does_not_suggest_the_same_again(planned, tmp_path, sampler):
    space = {"published": [], "search": {"sampler": sampler}}
    pretended(planned("short", trials=5, space=space))
    pretended(planned("short", trials=10, space=space))
    pretended(planned("fresh", trials=5, space=space))
    trials = [trial["params"] for trial in trials_in(tmp_path / "short")]
    first = [trial["params"] for trial in trials_in(tmp_path / "fresh")]
    assert trials[: len(first)] == first
    assert trials[len(first) : 2 * len(first)] != first


def test_a_network_that_two_choices_give_is_trained_once(write_files, clips, tmp_path):
    files = write_files(
        {
            "vary": [
                {"field": "conv", "stages": ["res5"], "each": ["2d", "3d"]},
                width([1, 1.01], "stem"),
            ],
            "published": [],
            "search": {"trials": 9},
        }
    )
    run_search(*files, clips, tmp_path / "run")
    trials = trials_in(tmp_path / "run")
    space = read_space(files[0]).for_classes(4)
    distinct = {digest(lower(space.spec_at(positions))) for positions in space.all_positions()}
    assert space.size == 4
    assert len(distinct) == 2 == len(curves_in(tmp_path / "run"))  # the space ended before nine
    copies = [trial for trial in trials if trial["duplicate_of"] is not None]
    assert copies
    by_number = {trial["number"]: trial for trial in trials}
    for copy in copies:
        original = by_number[copy["duplicate_of"]]
        assert original["duplicate_of"] is None
        assert copy["metrics"] == original["metrics"]
        assert copy["candidate"] == original["candidate"]
    status = read_status(str(tmp_path / "run"))
    assert status["trials"] == {"complete": 2, "stopped": 0, "infeasible": 0, "running": 0, "failed": 0}
    assert status["duplicates"] == len(copies)
    assert status["epochs"] == 4


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        ("tpe", "async"),
        ("tpe", "fixed"),
        ("nsga2", "async"),
        ("nsga3", "async"),
        ("random", "async"),
        ("random", "fixed"),
        ("evolution", "async"),
        ("evolution", "fixed"),
        ("surrogate", "async"),
        ("surrogate", "fixed"),
        ("grid", "fixed"),
    ],
)
def test_a_small_space_is_searched_to_its_end(planned, tmp_path, sampler, order):
    space = {"limits": {"gmacs": {"max": 0.0075}}, "search": {"sampler": sampler, "order": order, "trials": 999}}
    plan = planned(space=space)
    pretended(plan)
    feasible = [
        positions
        for positions in plan.space.all_positions()
        if metrics(lower(plan.space.spec_at(positions)))["gmacs"] <= 0.0075
    ]
    complete = [t for t in trials_in(tmp_path / "run") if t["state"] == "complete" and t["duplicate_of"] is None]
    assert 5 < len(feasible) < plan.space.size == 32
    assert len({json.dumps(trial["params"]) for trial in complete}) == len(complete) == len(feasible)
    before = len(trials_in(tmp_path / "run"))
    pretended(plan)
    assert len(read_results(str(tmp_path / "run")).complete()) == len(feasible)
    assert len(trials_in(tmp_path / "run")) == before


@pytest.mark.parametrize("order", ["async", "fixed"])
def test_networks_without_a_score_are_infeasible_and_asked_once(planned, monkeypatch, live_study, order):
    """A score that is not finite, or that memory runs out for, is a network's own; the space is searched to its end."""

    def score(spec, *_):
        if spec.stage("res4").conv == "3d":
            raise SpecError(f"{spec.name}: entropy is inf")
        if spec.stage("res5").conv == "3d":
            raise MemoryError
        return 1.0

    monkeypatch.setitem(scoring.FUNCTIONS, "entropy", score)
    vary = [{"field": "conv", "stages": ["res4", "res5"], "each": ["2d", "3d"]}, width([1, 1.01], "stem")]
    plan = planned(
        space={
            "vary": vary,
            "published": [],
            "objectives": {"top1": "maximize", "entropy": "maximize"},
            "search": {"order": order, "trials": 9},
        }
    )
    pretended(plan)
    trials = plan.folder.settled()
    states = Counter(trial.state for trial in trials if trial.duplicate_of is None)
    assert states == {"complete": 1, "infeasible": 3}
    reasons = {trial.reason.partition(": ")[2] for trial in trials if trial.state == "infeasible"}
    assert reasons == {"entropy is inf", "out of memory at its entropy, of 16 clips"}
    assert as_samplers_see(NEW_STUDY(plan.space, trials)) == as_samplers_see(live_study())
    pretended(plan)
    assert [trial.candidate for trial in plan.folder.settled()] == [trial.candidate for trial in trials]


def test_published_networks_outside_the_limits_keep_nothing_from_being_trained(planned, monkeypatch):
    monkeypatch.setattr(proposals, "PATIENCE", 1)
    plan = planned(space={**LIMITED, "search": {"trials": 3, "sampler": "grid"}})
    outside = [
        positions
        for positions in plan.space.all_positions()
        if metrics(lower(plan.space.spec_at(positions)))["gmacs"] > 0.0075
    ]
    published = {f"p{place}": plan.space.choices(positions) for place, positions in enumerate(outside[:4])}
    pretended(replace(plan, space=replace(plan.space, published=published)))
    assert [trial.state for trial in plan.folder.settled()] == ["infeasible"] * 4 + ["complete"] * 3


@pytest.mark.parametrize("sampler", ["nsga2", "nsga3", "cmaes"])
def test_a_fixed_order_refuses_a_sampler_that_forgets(write_files, sampler):
    space_file, _ = write_files({"search": {"sampler": sampler, "order": "fixed"}})
    with pytest.raises(SpaceError, match=rf"tiny\.yaml, search: order: fixed: {sampler} keeps what a restart forgets"):
        read_space(space_file)


DEPTHS = {"vary": [{"field": "depth", "stages": ["res*"], "each": {"low": 1, "high": 3, "step": 1}}], "published": []}


def test_cmaes_searches_numbers_for_one_objective(planned, write_files, tmp_path):
    pytest.importorskip("cmaes", reason="cmaes is not installed (the extra `samplers`)")
    space = {**DEPTHS, "objectives": {"loss": "minimize"}, "search": {"sampler": "cmaes", "trials": 6}}
    pretended(planned(space=space))
    assert read_status(str(tmp_path / "run"))["trials"]["complete"] == 6
    for changed, rule in (({"objectives": {"loss": "minimize", "gmacs": "minimize"}}, "knows one objective"),
                          ({"vary": SPACE["vary"]}, "stem.conv is a list")):  # fmt: skip
        with pytest.raises(SpaceError, match=rf"tiny\.yaml, search: sampler: cmaes .*{rule}"):
            read_space(write_files({**space, **changed})[0])


def test_a_sampler_may_be_given_beside_the_space(planned, clips, write_files, tmp_path):
    files = write_files(DEPTHS)
    recipe = Recipe(**yaml.safe_load(files[1].read_text()))
    plan = prepare(files[0], clips, str(tmp_path / "run"), recipe, Wish(sampler="grid"), lambda *_: None)[0]
    assert plan.space.search.sampler == "grid"
    with pytest.raises(RunError, match="another space"):
        prepare(files[0], clips, str(tmp_path / "run"), recipe, Wish(), lambda *_: None)
    with pytest.raises(SpaceError, match=r"'gird' is not one of .*did you mean 'grid'"):
        prepare(files[0], clips, str(tmp_path / "new"), recipe, Wish(sampler="gird"), lambda *_: None)


def test_gp_proposes_after_its_first_ten(planned, tmp_path):
    """Few trials: it takes seconds for each."""
    pretended(planned(space={"search": {"sampler": "gp", "trials": 12}}))
    assert read_status(str(tmp_path / "run"))["trials"]["complete"] == 12


def test_evolution_proposes_children_of_the_front(planned):
    """Once there are parents, every proposal is one choice away from a trial that was complete."""
    plan = planned(space={**DEPTHS, "search": {"sampler": "evolution", "trials": 20}})
    pretended(plan)
    trials = plan.folder.settled()
    for place, trial in enumerate(trials[STARTERS:], STARTERS):
        known = [other.params for other in trials[:place] if other.state == "complete"]
        assert min(sum(trial.params[name] != other[name] for name in other) for other in known) <= 1


def test_a_space_without_a_feasible_network_ends(planned, tmp_path):
    pretended(planned(space={"limits": {"gmacs": {"max": 1e-6}}}))
    assert {trial["state"] for trial in trials_in(tmp_path / "run")} == {"infeasible"}
    assert not (tmp_path / "run" / "candidates").exists()


def test_a_training_that_fails_is_recorded_and_the_search_goes_on(write_files, clips, tmp_path):
    files = write_files({"search": {"trials": 3}}, {"lr": 1e38, "optimizer": "sgd", "clip_norm": None})
    run_search(*files, clips, tmp_path / "run")
    trials = trials_in(tmp_path / "run")
    assert [trial["state"] for trial in trials] == ["failed"] * 3
    for trial in trials:
        assert "epoch" in trial["reason"]
        assert "try a lower lr" in trial["reason"]
        assert "top1" not in trial["metrics"]
    assert read_status(str(tmp_path / "run"))["trials"]["failed"] == 3
    assert read_results(str(tmp_path / "run")).as_json()["front"] == []
    before = contents(tmp_path / "run")
    run_search(*files, clips, tmp_path / "run")
    assert contents(tmp_path / "run") == before


def test_a_failure_counts_as_a_trial_and_others_go_on(planned, tmp_path):
    """The stand-in does not know a network without kinds; the study hears of a failure."""
    plan = planned(trials=6, space={"search": {"order": "async"}})
    with open_executor("serial", fail_on_r3d, 1) as executor:
        driver.drive(plan, executor)
    states = {trial["published"] or trial["number"]: trial["state"] for trial in trials_in(tmp_path / "run")}
    assert states.pop("r3d_18") == "failed"
    assert set(states.values()) == {"complete"}
    assert read_results(str(tmp_path / "run")).as_json()["candidates"][1]["reason"] == "ValueError: not this one"


def fail_on_r3d(payload):
    if "2d" not in payload["spec"].replace("r2d", ""):
        raise ValueError("not this one")
    return pretend(payload)


# What was under way.


CALLS = []


def interrupt_the_fourth(payload):
    CALLS.append(payload["store"])
    if len(CALLS) == 4:
        raise KeyboardInterrupt  # as Ctrl-C in the middle of it
    return pretend(payload)


def test_what_was_handed_out_is_handed_out_again_under_its_number(planned, tmp_path):
    """A driver that ends with a trial under way leaves it asked; the next one begins with it."""
    CALLS.clear()
    plan = planned(space={"search": {"order": "async", "trials": 6}})
    with open_executor("serial", interrupt_the_fourth, 1) as executor, pytest.raises(KeyboardInterrupt):
        driver.drive(plan, executor)
    asked = {path.name: path.read_text() for path in (tmp_path / "run" / "asked").iterdir()}
    assert asked.keys() - {path.name for path in (tmp_path / "run").glob("trials/*")} == {"3.json"}
    pretended(plan)
    trials = {trial["number"]: trial for trial in trials_in(tmp_path / "run")}
    for name, text in asked.items():
        known = json.loads(text)
        assert (tmp_path / "run" / "asked" / name).read_text() == text
        assert trials[known["number"]]["params"] == known["params"]
        assert trials[known["number"]]["candidate"] == known["candidate"]
        assert trials[known["number"]]["published"] == known["published"]
    assert read_status(str(tmp_path / "run"))["trials"]["running"] == 0
    assert read_status(str(tmp_path / "run"))["trials"]["complete"] == 6


def test_asynchronous_searches_end_with_as_many_as_asked_however_interrupted(planned, tmp_path):
    draw = random.Random(0)
    space = {**LIMITED, "search": {"trials": 10, "order": "async"}}
    while True:
        try:
            pretended(planned(space=space), interrupt_after=draw.randrange(3))
            break
        except Interrupted:
            continue
    trials = trials_in(tmp_path / "run")
    complete = [t for t in trials if t["state"] == "complete" and t["duplicate_of"] is None]
    assert len(complete) == len({trial["candidate"] for trial in complete}) == 10
    assert Counter(trial["published"] for trial in trials if trial["published"]) == {"fr2d_18": 1, "r3d_18": 1}
    before = contents(tmp_path / "run")
    pretended(planned(space=space))
    assert contents(tmp_path / "run") == before


# The folder.


def test_another_search_in_the_same_folder_is_refused(write_files, clips, planned, tmp_path):
    planned()
    with pytest.raises(RunError, match="was started with another space;"):
        planned(space={"published": []})
    with pytest.raises(RunError, match="was started with another recipe;"):
        planned(recipe={"lr": 1e-3})
    (tmp_path / "other").mkdir()
    for split in ("train", "val"):
        (tmp_path / "other" / split).symlink_to(clips / split)
    with pytest.raises(RunError, match="was started with another data set;"):
        run_search(*write_files(), tmp_path / "other", tmp_path / "run")
    with pytest.raises(RunError, match=r"holds other files and no run\.json"):
        planned(out="other")
    planned()


def test_a_base_that_was_edited_is_another_space(planned, tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text(spec_yaml(preset("r3d_18")))
    planned(space={"base": "base.yaml"})
    planned(space={"base": "base.yaml"})
    base.write_text(spec_yaml(preset("r3d_34")))
    with pytest.raises(RunError, match="another space;"):
        planned(space={"base": "base.yaml"})


def test_a_folder_whose_claim_was_cut_short_is_claimed_again(planned, tmp_path):
    planned()
    (tmp_path / "run" / "run.json").unlink()
    planned()
    assert (tmp_path / "run" / "run.json").exists()


def test_two_drivers_at_once_are_refused(planned):
    plan = planned()
    with plan.folder.driving(), pytest.raises(RunError, match="another search is running in this folder"):
        pretended(plan)
    pretended(plan)


def test_a_file_system_that_locks_nothing_is_said(planned, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    plan = planned()
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(RunError, match=r"run: cannot be locked: No locks available$"):
        pretended(plan)


def test_progress_that_cannot_be_read_stays_as_it_was_and_stops_nothing(planned, monkeypatch):
    reads, said = [], []

    def read(store, name):
        if name != driver.CURVE:
            return read_json(store, name)
        reads.append(store.url)
        if reads.count(store.url) > 1:
            raise RunError("away for a moment")
        return [{"val_top1": 0.5}]

    monkeypatch.setattr(driver, "read_json", read)
    plan = planned()
    with open_executor("serial", pretend, 1) as executor:
        driver.drive(plan, executor, said.append)
    assert len(reads) > len(set(reads))
    standings = [standing for progress in said for standing in progress.running.values()]
    assert {(standing.epochs, standing.last["val_top1"]) for standing in standings} == {(1, 0.5)}
    assert {trial["state"] for trial in trials_in(plan.folder.store.url)} == {"complete"}


def test_published_networks_that_are_one_have_both_names(planned):
    plan = planned(space={"search": {"trials": 3, "order": "async"}})
    first = next(iter(plan.space.published.values()))
    published = {"a": first, "b": first}
    pretended(replace(plan, space=replace(plan.space, published=published)))
    for number, name in ((7, "c"), (8, None)):
        plan.folder.settle(Settled(number, {}, "", "infeasible", {}, published=name, reason="cannot be"))
    results = read_results(plan.folder.store.url)
    names = {candidate.id: candidate.published for candidate in results.candidates if candidate.published}
    assert names == {0: "a = b", 7: "c"}
    assert results.published() == {"a": 0, "b": 0, "c": 7}


def test_half_written_files_are_not_read(planned, tmp_path):
    plan = planned(trials=4)
    pretended(plan)
    found = read_results(str(tmp_path / "run"))
    for folder in ("trials", "asked"):
        (tmp_path / "run" / folder / ".7.json.x1y2").write_text('{"number": 7, "par')
        (tmp_path / "run" / folder / ".7.json").write_text("")
    pretended(plan)
    assert read_results(str(tmp_path / "run")) == found


def test_a_cut_file_is_one_line_and_deleting_it_mends_it(planned, tmp_path):
    plan = planned(trials=4)
    pretended(plan)
    before = contents(tmp_path / "run")
    path = tmp_path / "run" / "trials" / "3.json"
    path.write_text(path.read_text()[:40])
    for read in (lambda: pretended(plan), lambda: read_results(str(tmp_path / "run"))):
        with pytest.raises(RunError, match=r"/run/trials/3\.json: not valid JSON .*; delete it and run") as caught:
            read()
        assert len(caught.value.lines) == 1
        assert "\n" not in str(caught.value)
    path.unlink()
    pretended(plan)
    assert contents(tmp_path / "run") == before


def test_a_file_that_is_no_trials_is_named(planned, tmp_path):
    plan = planned(trials=4)
    pretended(plan)
    (tmp_path / "run" / "trials" / "notes.json").write_text("{}")
    with pytest.raises(RunError, match=r"notes\.json: is no trial's file"):
        read_results(str(tmp_path / "run"))


@pytest.mark.slow
def test_a_run_folder_may_be_any_url(undisturbed, write_files, clips, tmp_path):
    url = f"memory:/{tmp_path}/run"
    run_search(*write_files(), clips, url)
    assert read_results(url).as_json() == read_results(str(undisturbed)).as_json()
    names = open_store(url).names("candidates")
    assert names == sorted(curves_in(undisturbed))
    files = fsspec.filesystem("memory")
    before = {path: files.cat_file(path) for path in files.find(f"{tmp_path}/run")}
    run_search(*write_files(), clips, url)
    assert {path: files.cat_file(path) for path in files.find(f"{tmp_path}/run")} == before
    with pytest.raises(RunError, match="another recipe"):
        run_search(*write_files(recipe={"lr": 1e-3}), clips, url)


@pytest.mark.slow
def test_workers_find_a_relative_run_folder(write_files, clips, tmp_path, monkeypatch):
    """The fork server, and a Ray worker all the more, may stand in another folder than the driver."""
    files = write_files({"search": {"trials": 2}})
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        run_search(*files, clips, "run", executor="processes")
        assert len(curves_in(tmp_path / name / "run")) == 2


def test_a_worker_refuses_other_clips_than_the_drivers(clips, planned, tmp_path):
    plan = planned()
    payload = {
        "spec": spec_yaml(plan.space.base),
        "recipe": plan.recipe.model_dump(mode="json"),
        "data": str(clips),
        "digest": "0123456789abcdef",
        "store": str(tmp_path / "candidate"),
    }
    assert "other clips" in train_candidate(payload)["stop"]
    assert not (tmp_path / "candidate").exists()


def test_a_fault_that_is_not_the_candidates_stops_the_search_and_loses_nothing(write_files, clips, tmp_path):
    """Something stands where the first candidate's curve should be; removed, the same command goes on."""
    files, out = write_files(), tmp_path / "run"
    run_search(*files, clips, out, trials=1)
    name = next((out / "candidates").iterdir()).name
    shutil.rmtree(out)
    (out / "candidates" / name / "curve.json").mkdir(parents=True)
    for path in ("space.yaml", "recipe.yaml"):
        (out / path).write_text("")
    with pytest.raises(RunError, match="holds other files"):
        run_search(*files, clips, out)
    shutil.move(out / "candidates", tmp_path / "kept")
    run_search(*files, clips, out, trials=1)
    shutil.rmtree(out / "candidates")
    shutil.rmtree(out / "trials")
    shutil.rmtree(out / "asked")
    shutil.move(tmp_path / "kept", out / "candidates")
    with pytest.raises(RunError, match=r"curve\.json: cannot be written.*nothing is lost"):
        run_search(*files, clips, out)
    assert trials_in(out) == []
    (out / "candidates" / name / "curve.json").rmdir()
    run_search(*files, clips, out)
    assert {trial["state"] for trial in trials_in(out)} == {"complete"}


# What is said.


def test_a_broken_video_is_left_out_counted_and_named(write_files, clips, tmp_path, capsys):
    shutil.copytree(clips, tmp_path / "data")
    broken = tmp_path / "data" / "train" / "right" / "3.mp4"
    broken.write_bytes(broken.read_bytes()[:100])
    space_file, recipe_file = write_files({"search": {"trials": 2}})
    recipe = Recipe(**yaml.safe_load(recipe_file.read_text()))
    search_with_progress(space_file, tmp_path / "data", str(tmp_path / "run"), recipe, Wish(), Workers("serial", 1))
    out, err = capsys.readouterr()
    assert out == ""
    count, line = [line for line in err.splitlines() if "left out" in line]
    assert count.endswith(f"1 of {4 * sum(CLIPS.values())} videos are broken and left out")
    assert "train/right/3.mp4" in line
    assert "#0 complete" in err
    assert "#1 complete" in err
    assert err.count("searching: 4/4") == 1
    assert read_status(str(tmp_path / "run"))["trials"]["complete"] == 2


def test_the_bar_counts_epochs_that_were_trained_once(write_files, clips, tmp_path, capsys):
    """Neither copies of what is under way nor an earlier start let it run over its end."""
    files = write_files(
        {
            "vary": [
                {"field": "conv", "stages": ["res5"], "each": ["2d", "3d"]},
                width([1, 1.01], "stem"),
            ],
            "published": [],
            "search": {"trials": 2, "seed": 2},
        }
    )
    recipe = Recipe(**yaml.safe_load(files[1].read_text()))
    for _ in range(2):
        search_with_progress(files[0], clips, str(tmp_path / "run"), recipe, Wish(), Workers("processes", 2))
        assert "searching: 4/4" in capsys.readouterr().err.splitlines()[-2]
    copies = [trial for trial in trials_in(tmp_path / "run") if trial["duplicate_of"] is not None]
    assert copies  # asked while their original was under way


def test_status_counts_what_is_under_way(planned, tmp_path):
    plan = planned(space={"search": {"order": "async", "trials": 4}})
    assert read_results(str(tmp_path / "run")).candidates == ()
    CALLS.clear()
    with open_executor("serial", interrupt_the_fourth, 1) as executor, pytest.raises(KeyboardInterrupt):
        driver.drive(plan, executor)
    folder = RunFolder(open_store(str(tmp_path / "run")))
    unsettled = {trial.number for trial in folder.asked()} - {trial.number for trial in folder.settled()}
    assert unsettled == {3}
    results = read_results(str(tmp_path / "run"))
    assert {candidate.id for candidate in results.candidates if candidate.state == "running"} == unsettled
    assert read_status(str(tmp_path / "run"))["trials"]["running"] == len(unsettled)
