"""Run folders that are no local folders: one driver at a time, and a search whose driver is killed on a real S3."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import found_in, run_search, write_tiny

from archsearch.errors import RunError
from archsearch.search import lease
from archsearch.search.folder import RunFolder
from archsearch.search.lease import LEASE, leased
from archsearch.search.results import read_results, read_status
from archsearch.store import open_store, read_json, write_json

COMMAND = [sys.executable, "-c", "from archsearch.cli import main; main()"]


@pytest.fixture(params=["memory", "s3"])
def url(request):
    place = f"{uuid.uuid4().hex}/run"
    return f"memory://{place}" if request.param == "memory" else f"{request.getfixturevalue('s3')}/{place}"


@pytest.fixture
def quick(monkeypatch):
    """Beats and patience in a thirtieth of the time."""
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(lease, "PATIENCE_SECONDS", 1.5)
    monkeypatch.setattr(lease, "PAUSE_SECONDS", 0.2)


def test_a_second_driver_is_refused_while_the_first_lives(url, quick):
    with RunFolder(open_store(url)).driving() as held:
        with pytest.raises(RunError, match=r"run: another search is running in this folder, on .* pid \d+$"):
            RunFolder(open_store(url)).driving().__enter__()
        time.sleep(0.5)
        held()
    assert read_json(open_store(url), LEASE) is None
    began = time.monotonic()
    with RunFolder(open_store(url)).driving() as held:  # given back: nobody waits
        held()
        assert time.monotonic() - began < 1.5 + 0.2 * 2
    assert LEASE not in open_store(url).names()


def test_a_dead_drivers_lease_is_taken_over_after_a_while(url, quick):
    store = open_store(url)
    write_json(store, LEASE, {"owner": "gone", "place": "elsewhere pid 1", "beats": 7})
    began = time.monotonic()
    with leased(store) as held:
        assert time.monotonic() - began > 1.5
        assert read_json(store, LEASE)["owner"] != "gone"
        held()
    assert read_json(store, LEASE) is None


def test_of_many_that_come_at_once_one_drives(url, quick):
    """However they meet: those that drive see no other, and all others are told so."""
    ended, told = [], []

    def drive():
        try:
            with leased(open_store(url)) as held:
                time.sleep(1)
                held()
                ended.append(1)
        except RunError as error:
            told.append(str(error))

    threads = [threading.Thread(target=drive) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(ended), len(told)) == (1, 3)
    assert all("another search is running" in line for line in told)


def test_a_driver_that_was_taken_for_dead_finds_out(url, quick):
    """As one that slept: its lease is another's when it wakes. It stops, and leaves the other's lease alone."""
    store = open_store(url)
    other = {"owner": "other", "place": "elsewhere pid 1", "beats": 1}
    with leased(store) as held:
        write_json(store, LEASE, other)
        time.sleep(1)
        with pytest.raises(RunError, match="on elsewhere pid 1"):
            held()
    assert read_json(store, LEASE) == other


def test_a_store_that_is_away_for_a_moment_is_no_reason_to_stop(quick, monkeypatch):
    store = open_store(f"memory://{uuid.uuid4().hex}/run")
    with leased(store) as held:
        with monkeypatch.context() as away:
            away.setattr(store.files, "cat_file", lambda *_: 1 / 0)
            time.sleep(0.5)
        held()
        before = read_json(store, LEASE)["beats"]
        time.sleep(0.6)
        assert read_json(store, LEASE)["beats"] > before


@pytest.mark.slow  # the library waits ever longer
def test_a_server_that_fails_for_a_while_is_asked_again(monkeypatch):
    pytest.importorskip("s3fs", reason="s3fs is not installed (the extra `s3`)")
    asked = []

    class Faulty(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # which answers that the client may send its body

        def do_PUT(self):
            asked.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(500 if len(asked) <= 6 else 200)
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Faulty) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
        open_store(f"s3://runs/{uuid.uuid4().hex}").write("asked/0.json", "{}")
        server.shutdown()
    assert len(asked) == 7


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_on_s3_whose_driver_is_killed_ends_as_a_local_one(s3, clips, tmp_path):
    import s3fs

    files = write_tiny(tmp_path, {"search": {"trials": 3, "order": "fixed", "block": 2}}, {"epochs": 30, "views": 1})
    run_search(*files, clips, tmp_path / "local")
    url = f"{s3}/{uuid.uuid4().hex}/run"
    command = [*COMMAND, "search", files[0], clips, "--out", url, "--recipe", files[1]]
    with ExitStack() as stack, (tmp_path / "log").open("w") as log:
        first = subprocess.Popen([*map(str, command)], stdout=log, stderr=log, start_new_session=True)
        stack.callback(first.kill)
        while not any(2 <= len(curve) <= 6 for curve in curves_at(url).values()):
            assert first.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        second = subprocess.run([*map(str, command)], capture_output=True, text=True)
        assert second.returncode == 1
        assert "another search is running in this folder" in second.stderr
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    recorded = curves_at(url)
    status = subprocess.run([*COMMAND, "status", url], capture_output=True, text=True, check=True).stdout
    assert "running" in status
    with (tmp_path / "resumed").open("w") as log:
        subprocess.run([*map(str, command)], check=True, stdout=log, stderr=log)
    for name, curve in recorded.items():
        assert curves_at(url)[name][: len(curve)] == curve  # with its seconds: no epoch was trained again
    s3fs.S3FileSystem().get(url.removeprefix("s3://"), str(tmp_path / "fetched"), recursive=True)
    assert found_in(tmp_path / "fetched") == found_in(tmp_path / "local")
    assert not list(Path(tmp_path / "fetched").rglob("checkpoint.pt"))
    assert read_results(url).as_json() == read_results(str(tmp_path / "local")).as_json()
    status_of = read_status(url)
    assert status_of["trials"]["complete"] == 3
    front = subprocess.run([*COMMAND, "front", url], capture_output=True, text=True, check=True).stdout
    assert "tiny" in front


def curves_at(url):
    """The epochs of every candidate so far."""
    folder = RunFolder(open_store(url))
    return {name: read_json(folder.candidate(name), "curve.json") or [] for name in folder.store.names("candidates")}
