"""Finalising a search: fresh seeds, from scratch, the test split once, resumed."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import run_search, write_tiny
from safetensors.torch import load_file

from archsearch.errors import RunError
from archsearch.search import finalize as finalizing
from archsearch.search.executors import Outcome, open_executor
from archsearch.search.finalize import chosen, finalists, finalize
from archsearch.search.folder import RunFolder
from archsearch.search.models import MODELS, middle, model_name
from archsearch.search.results import read_results
from archsearch.search.worker import train_finalist
from archsearch.store import open_store, write_json
from archsearch.training.evaluate import two_way_interval
from archsearch.training.model import read_model
from archsearch.training.single import score_single


@pytest.fixture(scope="module")
def searched(clips, tmp_path_factory):
    """A small search that inherits, and its final result."""
    folder = tmp_path_factory.mktemp("final")
    files = write_tiny(folder, {"search": {"trials": 5, "order": "fixed", "block": 2, "inherit": 0.5}})
    run_search(*files, clips, folder / "run")
    return folder / "run", finalized(folder / "run", clips)


def finalized(run, clips, seeds=2, **options):
    with open_executor("serial", train_finalist, 1) as executor:
        return finalize(str(run), clips, seeds, executor, **options)


def test_the_front_and_the_published_networks_are_finalists(searched):
    run, found = searched
    results = read_results(str(run))
    ids = [candidate.id for candidate in finalists(results)]
    assert ids[: len(results.front())] == [candidate.id for candidate in results.front()]
    assert set(results.published().values()) <= set(ids)
    assert [row["id"] for row in found["candidates"]] == ids
    assert set(found["front"]) <= set(ids)


def test_seeds_are_fresh_and_begin_with_chance(searched):
    run, found = searched
    assert found["seeds"] == [1, 2]  # the search's was 0
    for row in found["candidates"]:
        folders = [run / "final" / row["hash"] / str(seed) for seed in (1, 2)]
        curves = [json.loads((folder / "curve.json").read_text()) for folder in folders]
        assert [len(curve) for curve in curves] == [2, 2]
        assert curves[0][0]["train_loss"] != curves[1][0]["train_loss"]
        assert not any((folder / "start.safetensors").exists() for folder in folders)


def test_means_spreads_and_test_are_those_of_the_trainings(searched, clips):
    run, found = searched
    for row in found["candidates"]:
        folders = [run / "final" / row["hash"] / str(seed) for seed in (1, 2)]
        top1 = [json.loads((folder / "result.json").read_text())["metrics"]["top1"] for folder in folders]
        assert row["metrics"]["top1"] == pytest.approx(np.mean(top1))
        assert row["spread"]["top1"] == pytest.approx(np.std(top1, ddof=1))
        hits = np.array([json.loads((folder / "test.json").read_text())["hits"] for folder in folders])
        assert row["test_top1"] == pytest.approx(hits.mean())
        low, high = row["test_interval"]
        assert low <= row["test_top1"] <= high
        assert row["metrics"]["gmacs"] == row["selected"]["gmacs"]
    folder = run / "final" / found["candidates"][0]["hash"] / "1"
    scores, _ = score_single(str(folder), clips, "test")
    assert scores.top1 == pytest.approx(json.loads((folder / "test.json").read_text())["top1"])


def test_what_is_finished_is_neither_trained_nor_tested_again(searched, clips, monkeypatch):
    run, found = searched
    files = {path: path.stat().st_mtime_ns for path in run.glob("final/*/*/*")}
    assert finalized(run, clips) == found
    assert {path: path.stat().st_mtime_ns for path in run.glob("final/*/*/*")} == files
    more = finalized(run, clips, seeds=3)
    assert more["seeds"] == [1, 2, 3]
    assert files.items() <= {path: path.stat().st_mtime_ns for path in run.glob("final/*/*/*")}.items()


def test_an_interval_over_seeds_and_videos():
    """Wider than that over videos where seeds differ, and as wide where they do not."""
    rng = np.random.default_rng(0)
    same = np.repeat((rng.random((1, 60)) < 0.7).astype(int), 4, axis=0)
    spread = (rng.random((4, 60)) < [[0.4], [0.6], [0.8], [1.0]]).astype(int)
    narrow, wide = two_way_interval(same), two_way_interval(spread)
    assert narrow[0] < same.mean() < narrow[1]
    assert wide[1] - wide[0] > 1.3 * (narrow[1] - narrow[0])
    assert two_way_interval(np.ones((2, 5))) == [1.0, 1.0]


def test_a_run_without_a_front_is_one_line(clips, cli, write_files, tmp_path):
    space = {"limits": {"gmacs": {"max": 1e-6}}}
    run_search(*write_files(space), clips, tmp_path / "run")
    with pytest.raises(RunError, match="has no front yet"):
        finalized(tmp_path / "run", clips)
    code, _, said = cli("finalize", tmp_path / "run", clips)
    assert (code, len(said)) == (1, 1)


def test_data_without_test_is_said_before_anything_is_trained(clips, cli, tmp_path):
    for split in ("train", "val"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for place in (clips / split).iterdir():
            (tmp_path / "data" / split / place.name).symlink_to(place)
    files = write_tiny(tmp_path, {"search": {"trials": 2}}, {"epochs": 1, "warmup_epochs": 0, "views": 1})
    run_search(*files, tmp_path / "data", tmp_path / "run")
    code, _, said = cli("finalize", tmp_path / "run", tmp_path / "data", "--executor", "serial")
    assert code == 1
    assert "the data set has no 'test' split" in said[-1]
    assert not list(tmp_path.glob("run/final/*/*/curve.json"))


def test_two_at_once_are_refused_and_a_search_may_go_on(searched, clips):
    run, found = searched
    with (
        RunFolder(open_store(str(run / "final"))).driving(),
        pytest.raises(RunError, match="another search is running in this folder"),
    ):
        finalized(run, clips)
    with RunFolder(open_store(str(run))).driving():
        assert finalized(run, clips) == found


def fails(payload):
    raise ValueError("not this one")


def test_finalists_that_all_fail_are_one_line(searched, clips):
    with open_executor("serial", fails, 1) as executor, pytest.raises(RunError, match=r"no finalist .*: not this one"):
        finalize(str(searched[0]), clips, 1, executor)
    assert json.loads((searched[0] / finalizing.FINAL).read_text())["seeds"] != [1]


def test_every_outcome_is_said_and_a_store_that_is_away_stops_nothing(searched, clips, monkeypatch):
    """Two end at once, one of them failed; how far they are cannot be read."""
    run, found = searched
    said = []

    class Both:
        def __init__(self):
            self.keys = []

        def submit(self, key, payload):
            self.keys.append(key)

        def wait(self, timeout_seconds):
            keys, self.keys = self.keys, []
            result = {"epochs": 2, "seconds": 1.0, "metrics": {"top1": 0.5}, "hits": [1, 0]}
            return [Outcome(key, result if place else None, None if place else "no") for place, key in enumerate(keys)]

        def lines(self):
            return []

    def away(*_):
        raise RunError("away")

    monkeypatch.setattr(finalizing, "read_json", lambda store, name: away() if name == finalizing.CURVE else None)
    finalize(str(run), clips, 1, Both(), lambda done, total, line: said.append(line))
    write_json(open_store(str(run)), finalizing.FINAL, found)
    hashes = [row["hash"] for row in found["candidates"]]
    assert said == [f"{hashes[0]}/1: no", *(f"{name}/1" for name in hashes[1:])]


def test_chosen_networks_are_finalised_and_several_calls_add_up(searched, clips, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(searched[0], run, ignore=shutil.ignore_patterns("final", "final.json", MODELS))
    results = read_results(str(run))
    first, second = results.complete()[:2]
    found = finalized(run, clips, 1, only=[str(first.id)])
    assert [(row["id"], row["start"]) for row in found["candidates"]] == [(first.id, "scratch")]
    files = {path: path.stat().st_mtime_ns for path in run.glob("final/*/*/*")}
    more = finalized(run, clips, 1, only=[second.hash], inherit=True)
    rows = {(row["id"], row["start"]): row for row in more["candidates"]}
    assert set(rows) == {(first.id, "scratch"), (second.id, "inherited")}
    assert rows[first.id, "scratch"] == found["candidates"][0]
    assert files.items() <= {path: path.stat().st_mtime_ns for path in run.glob("final/*/*/*")}.items()
    begun = load_file(run / "final" / second.hash / "1_inherited" / "start.safetensors")
    own = load_file(run / "candidates" / second.hash / "weights.safetensors")
    assert all(torch.equal(begun[name], own[name]) for name in own)
    assert json.loads((run / finalizing.FINAL).read_text()) == more


def test_networks_are_chosen_by_number_name_or_hash(searched):
    results = read_results(str(searched[0]))
    name, number = next(iter(results.published().items()))
    one = next(candidate for candidate in results.complete() if candidate.id == number)
    assert chosen(results, [name, str(number), one.hash]) == [one]
    with pytest.raises(RunError, match=rf"network '{name}x' is not there; did you mean '{name}'\?"):
        chosen(results, [f"{name}x"])


def test_a_candidate_without_weights_cannot_be_begun_with(searched, clips, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(searched[0], run, ignore=shutil.ignore_patterns("final*", "weights.safetensors", MODELS))
    with pytest.raises(RunError, match=r"candidate \d+ has no weights.safetensors to begin with"):
        finalized(run, clips, 1, inherit=True)
    assert not (run / "final").exists()


def test_the_seed_in_the_middle_stands_for_all():
    assert middle({1: 0.9, 2: 0.5, 3: 0.7}) == 3
    assert middle({1: 0.9, 2: 0.5}) == 1  # the better one would flatter
    assert middle({4: 1.0}) == 4


def test_names_of_folders_are_harmless():
    row = {"id": 7, "published": None}
    assert model_name(row) == "7"
    assert model_name({**row, "published": "r3d_18 = mc5_18"}) == "r3d_18"
    for name in ("../up", "<script>", "a/b", ".hidden", ""):
        assert model_name({**row, "published": name}) == "7"
    assert model_name({**row, "published": "r3d_18", "start": "inherited"}) == "r3d_18_inherited"


def test_the_command_prints_a_table_and_writes_models(searched, clips, cli):
    run, found = searched
    first = found["candidates"][0]
    options = ("--only", first["id"], "--seeds", 2, "--executor", "serial")
    code, out, _ = cli("finalize", run, clips, *options)
    assert code == 0
    assert f"{first['test_top1']:.3f}" in out
    table = [line for line in out.splitlines() if f"/{MODELS}/" not in line]
    assert max(map(len, table)) <= 100
    assert [path.name for path in (run / MODELS).iterdir()] == [model_name(first)]
    check_model(run, first)
    files = {path: path.stat().st_mtime_ns for path in run.glob(f"{MODELS}/*/*")}
    code, out, _ = cli("finalize", run, clips, *options, "--json")
    assert sorted(json.loads(out)["front"]) == sorted(found["front"])
    assert json.loads(out)["models"].keys() == {model_name(first)}
    assert {path: path.stat().st_mtime_ns for path in run.glob(f"{MODELS}/*/*")} == files
    assert finalizing.FINAL in [path.name for path in run.iterdir()]


def check_model(run, row):
    """The weights of the median seed, and the numbers of all."""
    folder = run / MODELS / model_name(row)
    model, _, _ = read_model(str(folder))
    losses = {
        seed: json.loads((run / "final" / row["hash"] / str(seed) / "result.json").read_text())["metrics"]["loss"]
        for seed in row["seeds"]
    }
    assert model.training["seed"] == middle(losses)
    weights = (run / "final" / row["hash"] / str(middle(losses)) / "weights.safetensors").read_bytes()
    assert (folder / "weights.safetensors").read_bytes() == weights
    assert model.accuracy["test"]["top1"] == row["test_top1"]
    assert model.accuracy["test"]["top1_interval"] == row["test_interval"]
    text = (folder / "MODEL.md").read_text()
    assert f"those of seed {middle(losses)}, with the median validation loss" in text
    assert f"archsearch finalize {run}" in text
