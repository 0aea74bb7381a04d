"""The dashboard: what it shows of a run is what the files say, on this machine alone, until Ctrl-C."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from archsearch.errors import MissingExtra, RunError
from archsearch.search import dashboard
from archsearch.search.dashboard import RunStorage, run_study, serve
from archsearch.search.folder import RunFolder
from archsearch.store import open_store

KEPT = Path(__file__).parent.parent / "runs" / "utd_mhad_depth"
COMMAND = [sys.executable, "-c", "from archsearch.cli import main; main()", "dashboard"]


@pytest.fixture
def run(tmp_path):
    """A copy of the kept run, to be changed."""
    for name in ("asked", "trials"):
        shutil.copytree(KEPT / name, tmp_path / "run" / name)
    shutil.copy(KEPT / "run.json", tmp_path / "run")
    return tmp_path / "run"


def settled(run):
    return {trial.number: trial for trial in RunFolder(open_store(str(run))).settled()}


def test_a_study_of_the_files_alone():
    known = settled(KEPT)
    study = run_study(RunFolder(open_store(str(KEPT))))
    assert study.study_name == json.loads((KEPT / "run.json").read_text())["name"]
    assert study.metric_names == list(json.loads((KEPT / "run.json").read_text())["objectives"])
    assert len(study.trials) == len(known) > 20
    for trial in study.trials:
        entry = known[trial.number]
        assert trial.user_attrs["trial"] == trial.number
        assert trial.state.name == {"complete": "COMPLETE", "infeasible": "PRUNED"}[entry.state]
        assert trial.params == entry.params
        assert trial.constraints == (entry.constraints or {})
        assert trial.user_attrs["candidate"] == entry.candidate
        assert trial.user_attrs["epochs"] == entry.epochs
        if entry.state == "complete":
            assert trial.values == [entry.metrics[name] for name in study.metric_names]


def test_what_is_under_way_what_stopped_and_numbers(run):
    (run / "trials" / "3.json").unlink()
    entry = json.loads((run / "trials" / "4.json").read_text())
    entry |= {
        "state": "stopped",
        "reason": "left behind",
        "rungs": [{"epochs": 3, "seconds": 1.0, "metrics": {"a": 1}}],
    }
    (run / "trials" / "4.json").write_text(json.dumps(entry))
    for path in (run / "trials").glob("*.json"):
        entry = json.loads(path.read_text())
        path.write_text(json.dumps({**entry, "params": {**entry["params"], "depth": 3, "scale": 0.5}}))
    for folder in ("asked", "trials"):
        (run / folder / "0.json").unlink(missing_ok=True)
    trials = {trial.user_attrs["trial"]: trial for trial in run_study(RunFolder(open_store(str(run)))).trials}
    assert min(trials) == 1
    assert trials[3].state.name == "RUNNING"
    assert trials[3].user_attrs["gmacs"] > 0
    assert trials[4].state.name == "PRUNED"
    assert trials[4].user_attrs["rung0"] == {"a": 1}
    assert trials[4].user_attrs["reason"] == "left behind"
    assert trials[5].params["depth"] == 3
    assert trials[5].params["scale"] == 0.5


def test_it_is_refreshed_while_the_run_grows(run, monkeypatch):
    last = max((run / "trials").glob("*.json"), key=lambda path: int(path.stem))
    kept = last.read_text()
    last.unlink()
    (run / "asked" / last.name).unlink(missing_ok=True)
    storage = RunStorage(str(run))
    (study,) = storage.get_all_studies()
    before = len(storage.get_all_trials(study._study_id))
    last.write_text(kept)
    assert len(storage.get_all_trials(study._study_id)) == before
    monkeypatch.setattr(dashboard, "REFRESH_SECONDS", 0.0)
    assert len(storage.get_all_trials(study._study_id)) == before + 1
    assert [other._study_id for other in storage.get_all_studies()] == [study._study_id]


def fetched(url):
    with urllib.request.urlopen(url, timeout=60) as reply:
        return reply.read()


def test_it_is_served_here_alone_until_an_interrupt(run):
    pytest.importorskip("optuna_dashboard", reason="Optuna Dashboard is not installed (the extra `dashboard`)")
    before = {path: path.read_bytes() for path in run.rglob("*.json")}
    process = subprocess.Popen([*COMMAND, str(run), "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().strip()
        base, port = url.removesuffix("/dashboard"), int(url.rpartition(":")[2].partition("/")[0])
        assert base == f"http://127.0.0.1:{port}"
        assert b"<title>Optuna Dashboard</title>" in fetched(url)
        (study,) = json.loads(fetched(f"{base}/api/studies"))["study_summaries"]
        shown = json.loads(fetched(f"{base}/api/studies/{study['study_id']}"))
        assert shown["objective_names"] == ["top1", "gmacs"]
        assert [trial["number"] for trial in shown["trials"]] == sorted(settled(run))
        attributes = {entry["key"] for entry in shown["trials"][0]["user_attrs"]}
        assert {"candidate", "published", "epochs", "gmacs"} <= attributes
        assert listening(port) == {"0100007F"}
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert {path: path.read_bytes() for path in run.rglob("*.json")} == before
    finally:
        process.kill()
        process.communicate()


def listening(port):
    """The addresses, in the kernel's hex, at which somebody listens on a port: 0100007F is 127.0.0.1."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    places = [row[1].split(":") for row in rows if row[3] == "0A"]
    return {address for address, number in places if int(number, 16) == port}


def test_what_cannot_be_served(run, cli, tmp_path, monkeypatch):
    pytest.importorskip("optuna_dashboard", reason="Optuna Dashboard is not installed (the extra `dashboard`)")
    with pytest.raises(RunError, match=r"is no run folder"):
        serve(str(tmp_path / "none"), 0, print)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli("dashboard", run, "--port", port) == (
            1,
            "",
            [f"port {port}: Address already in use; give another with --port"],
        )
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(MissingExtra, match=r"archsearch\[dashboard\]"):
        serve(str(run), 0, print)
