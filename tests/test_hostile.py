"""Run folders, spaces and data sets that were cut, changed by hand or made to do harm: a line each, nothing touched."""

import json
import os
import shutil
from pathlib import Path

import pytest
from conftest import run_search

from archsearch.errors import DataError, RunError, SpaceError
from archsearch.files import plain, read_yaml, write_whole
from archsearch.search.dashboard import run_study
from archsearch.search.folder import RunFolder, Settled
from archsearch.search.results import read_results
from archsearch.store import LocalStore, open_store, read_json
from archsearch.video.dataset import read_dataset

KEPT = Path(__file__).parent.parent / "runs" / "utd_mhad_depth"
SCRIPT, ESCAPE = "<script>alert(1)</script>[/bold]", "\x1b[31mred\x1b]0;title\x07\nline\u202e"
DEEP = "[" * 200_000
READING = (["front", "--all"], ["front", "--csv"], ["status"], ["choose"], ["report", "--json"])


@pytest.fixture
def run(tmp_path):
    """A copy of the kept run beside a file that nobody may touch."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    shutil.copytree(KEPT, tmp_path / "run")
    return tmp_path / "run"


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def contents(root):
    return {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def metrics(**values):
    return {"metrics": {"top1": 0.5, "gmacs": 0.1, **values}}


WRONG = {
    "params: [1]": {"params": [1]},
    "params, width: [1, 2] is not a choice": {"params": {"width": [1, 2]}},
    "params, width: nan is not a choice": {"params": {"width": float("nan")}},
    "metrics: None": {"metrics": None},
    "metrics, top1: '0.9' is not a number": metrics(top1="0.9"),
    "metrics, top1: True is not a number": metrics(top1=True),
    "metrics, gmacs: 1000000": metrics(gmacs=10**400),
    "state: 'done'": {"state": "done"},
    "number: '2' is not a whole number": {"number": "2"},
    "number: -5 is not a whole number": {"number": -5},
    "epochs: 'x' is not a whole number": {"epochs": "x"},
    "seconds: nan is not a number of seconds": {"seconds": float("nan")},
    "candidate: '../../outside' is not a candidate's hash": {"candidate": "../../outside"},
    "candidate: '/etc' is not a candidate's hash": {"candidate": "/etc"},
    "candidate: 'a\\x00b' is not a candidate's hash": {"candidate": "a\0b"},
    "candidate: ['a'] is not a candidate's hash": {"candidate": ["a"]},
    "inherited: '../x' is not a candidate's hash": {"inherited": "../x"},
    "published: 5 is not text": {"published": 5},
    "rungs, 0: 1 is not a rung": {"rungs": [1]},
    "constraints, gmacs: 'x' is not a number": {"constraints": {"gmacs": "x"}},
}


@pytest.mark.parametrize("said", WRONG)
def test_a_field_of_another_kind_is_named(run, said):
    change(run / "trials" / "2.json", **WRONG[said])
    with pytest.raises(RunError) as caught:
        read_results(str(run))
    (line,) = caught.value.lines
    assert line.startswith(f"{run}/trials/2.json: is no record of a trial ({said}")
    assert line.endswith("; delete it and give the same command again")
    assert len(line) < len(str(run)) + 250


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("trials/2.json", "[1]", "is no record of a trial (expected fields, got [1])"),
        ("trials/2.json", DEEP, "not valid JSON (nested too deeply)"),
        ("trials/²³.json", "{}", "is no trial's file"),
        ("asked/99.json", '{"number": 99, "params": {}, "candidate": "../x", "cost": {}}', "candidate: '../x' is not"),
        ("run.json", DEEP, "not valid JSON (nested too deeply)"),
        ("run.json", "null", "expected fields, got None"),
        ("run.json", '{"name": "a", "objectives": {}, "data": {"digest": "", "classes": []}}', "objectives: {} is not"),
        ("run.json", '{"name": "a", "objectives": {"top1": "up"}, "data": null}', "objectives: 'up' is not"),
        ("run.json", '{"name": [1], "objectives": {"top1": "maximize"}}', "name: [1] is not text"),
        ("shared/result.json", "[1]", "does not say epochs and seconds"),
    ],
)
def test_a_file_of_another_kind_is_a_line(cli, run, name, content, said):
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text(content)
    before = contents(run.parent)
    code, out, err = cli("status", run)
    assert (code, out) == (1, "")
    assert said in err[0]
    assert all(len(line) < 400 for line in err)
    assert contents(run.parent) == before


def test_a_record_of_another_trial_is_told(run):
    change(run / "trials" / "2.json", number=3)
    with pytest.raises(RunError, match=r"trials/2\.json: is of trial 3 by what it says"):
        read_results(str(run))


def test_a_record_of_a_newer_version_is_not_to_be_deleted(run):
    change(run / "trials" / "2.json", future=1)
    with pytest.raises(RunError, match=r"2\.json: unknown field 'future'; .*newer archsearch") as caught:
        read_results(str(run))
    assert "delete" not in str(caught.value)


def test_what_a_record_holds_is_read_as_it_was_written():
    for trial in RunFolder(open_store(str(KEPT))).settled():
        raw = json.loads((KEPT / "trials" / f"{trial.number}.json").read_text())
        assert json.dumps({name: getattr(trial, name) for name in raw}) == json.dumps(raw)


@pytest.mark.parametrize("args", READING, ids=" ".join)
@pytest.mark.parametrize("text", [SCRIPT, ESCAPE, "\udcff"], ids=["markup", "escape", "no text"])
def test_names_are_told_and_do_nothing(cli, run, args, text):
    entry = json.loads((run / "trials" / "2.json").read_text())
    change(run / "trials" / "2.json", published=text, params={**entry["params"], text: text})
    change(run / "trials" / "3.json", state="failed", reason=text)
    change(run / "run.json", name=text, data_name=text)
    before = contents(run.parent)
    code, out, err = cli(args[0], run, *args[1:])
    assert (code, err) == (0, [])
    assert all(line.isprintable() for line in out.splitlines())
    assert contents(run.parent) == before


def test_comparing_runs_reads_no_markup(cli, run):
    entry = json.loads((run / "trials" / "2.json").read_text())
    change(run / "trials" / "2.json", params={**entry["params"], SCRIPT: SCRIPT})
    code, out, err = cli("compare", run, run)
    assert (code, err) == (0, [])
    assert "[/bold]" in "".join(out.split())


def test_a_value_that_is_missing_is_a_failure_to_optuna(run):
    change(run / "trials" / "2.json", metrics={"gmacs": 0.1})
    change(run / "trials" / "3.json", **metrics(top1=float("nan")))
    states = {
        trial.user_attrs["trial"]: trial.state.name for trial in run_study(RunFolder(open_store(str(run)))).trials
    }
    assert (states[2], states[3], states[4]) == ("FAIL", "FAIL", "COMPLETE")


@pytest.mark.parametrize(
    "row",
    [
        1,
        {"id": 2, "hash": "../x", "metrics": {}, "trained": 1},
        {"id": 2, "hash": "x", "metrics": {"top1": "a"}, "trained": 1},
        {"id": 2, "hash": "x", "metrics": {}, "trained": 1, "spread": [1]},
        {"id": 2, "hash": ["x"], "metrics": {}, "trained": 1},
    ],
)
def test_final_results_of_another_kind_are_a_line(cli, run, row):
    (run / "final.json").write_text(json.dumps({"candidates": [row]}))
    for command, said in (("choose", "was changed by hand"), ("report", "is no result of `archsearch finalize`")):
        code, _, err = cli(command, run, "--json")
        assert code == 1
        assert err[0].startswith(f"{run}/final.json: {said}")


def test_final_results_of_another_kind_are_not_overwritten(cli, run, clips):
    (run / "final.json").write_text('{"candidates": [{"id": 3}]}')
    before = contents(run)
    code, _, err = cli("finalize", run, clips, "--executor", "serial")
    assert code == 1
    assert "final.json: is no result of `archsearch finalize`; move it away" in err[-1]
    assert {path: content for path, content in contents(run).items() if "lock" not in path.name} == before


def test_a_table_is_made_of_whole_trainings(cli, run, tmp_path):
    name = json.loads((run / "trials" / "0.json").read_text())["candidate"]
    for file, said in (("curve.json", "is no list of fields"), ("result.json", "is no result of a training")):
        kept = (run / "candidates" / name / file).read_text()
        (run / "candidates" / name / file).write_text("5")
        code, _, err = cli("tabulate", run, "--out", tmp_path / "table.json")
        assert (code, err) == (
            1,
            [f"{run}/candidates/{name}/{file}: {said}; delete it and give the same command again"],
        )
        (run / "candidates" / name / file).write_text(kept)
    assert not (tmp_path / "table.json").exists()


def test_pipes_and_devices_are_not_waited_for(run):
    os.mkfifo(run / "final.json")
    (run / "first.json").symlink_to("/dev/zero")
    for name in ("final.json", "first.json"):
        with pytest.raises(RunError, match=rf"{name}: a pipe or a device, not a file"):
            read_json(open_store(str(run)), name)


def test_links_are_deleted_and_what_they_name_stays(tmp_path):
    store = LocalStore(str(tmp_path / "store"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text("kept")
    store.write("own", b"")
    for place, to in (("folder", "elsewhere"), ("dangling", "nowhere")):
        (tmp_path / "store" / place).symlink_to(tmp_path / to)
        store.delete(place)
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["own"]
    assert (tmp_path / "elsewhere" / "kept").read_text() == "kept"


def test_a_link_in_the_place_of_a_report_is_replaced_and_not_followed(cli, run):
    pytest.importorskip("plotly")
    (run / "report.html").symlink_to(run.parent / "outside" / "secret")
    assert cli("report", run)[0] == 0
    assert (run.parent / "outside" / "secret").read_text() == "secret"
    assert not (run / "report.html").is_symlink()


def test_a_search_in_a_folder_of_other_things_leaves_nothing_there(cli, clips, tmp_path, write_files):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes").write_text("mine")
    space, recipe = write_files()
    code, _, err = cli("search", space, clips, "--out", tmp_path / "other", "--recipe", recipe, "--executor", "serial")
    assert (code, err[-1]) == (
        1,
        f"{tmp_path}/other: holds other files and no run.json; give --out a new folder",
    )
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["notes"]


def test_a_write_that_fails_names_the_file_that_was_meant(tmp_path):
    (tmp_path / "page.html").mkdir()
    with pytest.raises(OSError, match="directory") as caught:
        write_whole(tmp_path / "page.html", "text")
    assert caught.value.filename == str(tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_file_of_megabytes_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "space.yaml").write_text("a: [" + "1," * 3_000_000 + "1]")
    with pytest.raises(SpaceError, match=r"space\.yaml: too large: 6,000,006 characters, the limit is 1,000,000"):
        read_yaml(tmp_path / "space.yaml", SpaceError)


@pytest.mark.parametrize("name", [b"two\nlines", b"\xff\xfe"])
def test_a_class_that_labels_cannot_hold_is_refused(clips, tmp_path, name):
    shutil.copytree(clips, tmp_path / "clips")
    for split in ("train", "val", "test"):
        os.rename(tmp_path / "clips" / split / "left", os.fsencode(tmp_path / "clips" / split) + b"/" + name)
    with pytest.raises(DataError, match="is not a line of UTF-8 text") as caught:
        read_dataset(tmp_path / "clips")
    assert plain(str(caught.value)).isprintable()


def test_broken_videos_of_odd_names_are_told(cli, clips, tmp_path):
    shutil.copytree(clips, tmp_path / "clips")
    folder = os.fsencode(tmp_path / "clips" / "train" / "left")
    for name in (b"a\n\x1b[31m.mp4", b"\xff\xfe.mp4"):
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(b"no video")
    for args in (["check"], ["pack"]):
        code, out, err = cli("data", *args, tmp_path / "clips")
        assert code == 0
        assert all(line.isprintable() for line in [*out.splitlines(), *err])
        assert "\\udcff\\udcfe.mp4" in "".join(line.strip() for line in [*out.splitlines(), *err])


def test_a_settled_trial_is_what_is_read_back(tmp_path):
    folder = RunFolder(open_store(str(tmp_path)))
    rungs = ({"epochs": 1, "metrics": {"top1": float("nan")}, "seconds": 0.5},)
    trial = Settled(0, {"a": None, "b": "[1, 2]"}, "", "infeasible", {"gmacs": 1, "x": 2.0}, reason="no", rungs=rungs)
    folder.settle(trial)
    assert repr(folder.settled()) == repr([Settled(**{**vars(trial), "rungs": [dict(rungs[0])]})])


@pytest.mark.parametrize("content", ["[1]", '{"epochs": "x"}', '{"epochs": 2, "metrics": {"top1": "x"}, "seconds": 1}'])
def test_a_search_takes_no_result_that_is_none(clips, tmp_path, write_files, content):
    files = write_files({"search": {"trials": 1, "order": "fixed"}}, {"epochs": 1, "warmup_epochs": 0})
    run_search(*files, clips, tmp_path / "run")
    (result,) = (tmp_path / "run" / "candidates").glob("*/result.json")
    shutil.rmtree(tmp_path / "run" / "trials")
    result.write_text(content)
    with pytest.raises(RunError, match=r"result\.json: is no result of a training; delete it"):
        run_search(*files, clips, tmp_path / "run")


@pytest.mark.parametrize("name", ["spec.yaml", "labels.txt", "recipe.json"])
def test_a_network_whose_files_are_no_text_is_a_line(cli, clips, tmp_path, name):
    for each, content in {"spec.yaml": b"{}", "labels.txt": b"a\n", "recipe.json": b"{}"}.items():
        (tmp_path / each).write_bytes(b"ok\xff" if each == name else content)
    code, _, err = cli("evaluate", tmp_path, clips)
    assert code == 1
    assert err == [f"{tmp_path}/{name}, byte 2: not UTF-8; the file is damaged, copy the folder again"]
