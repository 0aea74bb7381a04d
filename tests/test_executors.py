"""One contract, three executors. The contract is in the docstring of archsearch.search.executors."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from archsearch.errors import ArchsearchError, MissingExtra, SpecError
from archsearch.search.executors import RayOptions, open_executor

SERIAL = "a serial executor runs jobs in the calling process: "
NAMES = ["serial", "processes", "ray"]
RAY_AGENTS = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}  # idle; look a minute for a Ray that was killed


# What executors are given to do.


def double(payload):
    return {"doubled": 2 * payload["number"], "pair": (1, 2)}


def fail(payload):
    raise ValueError("two\n  lines")


def find_faults(payload):
    raise SpecError("a.yaml: no stages", "a.yaml: no head")


class Unpicklable(Exception):
    def __init__(self, place):
        super().__init__(f"at {place}")
        self.stream = sys.stderr

    def __reduce__(self):
        raise TypeError("not over the border")


def fail_unpicklably(payload):
    raise Unpicklable("home")


def leave(payload):
    sys.exit(2)


def return_an_object(payload):
    return {"stream": object()}


def fill(payload):
    return {"text": "x" * payload["length"]}


def die_first(payload):
    """Die as told until that has happened so many times, counted by lines in a file; then return the count."""
    path = Path(payload["path"])
    deaths = len(path.read_text().splitlines()) if path.exists() else 0
    if deaths < payload["times"]:
        with path.open("a") as file:
            file.write("died\n")
        if payload["how"] == "signal 9":
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(3)
    return {"deaths": deaths}


def note_times(payload):
    began = time.time()
    time.sleep(payload["seconds"])
    return {"began": began, "ended": time.time()}


def wait_for_a_file(payload):
    while not os.path.exists(payload["file"]):
        time.sleep(0.05)


def sleep_with_a_child(payload):
    """Note the ids of this process and of a child it starts, then sleep; both for a minute."""
    child = subprocess.Popen(["sleep", "60"])
    note = Path(payload["folder"]) / payload["name"]
    note.with_suffix(".part").write_text(json.dumps([os.getpid(), child.pid]))
    note.with_suffix(".part").rename(note)
    time.sleep(60)
    return {}


# What tests look with.


@pytest.fixture(scope="session", autouse=True)
def this_folder_on_the_path():
    """New processes find this module as they would find an installed one, so the fork server loads it once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        yield


@pytest.fixture(scope="session")
def shared_ray(this_folder_on_the_path):
    """One Ray for all tests, which their executors join: starting one takes seconds."""
    pytest.importorskip("ray")
    with open_executor("ray", double, workers=2):
        yield


@pytest.fixture(params=NAMES)
def name(request):
    if request.param == "ray":
        request.getfixturevalue("shared_ray")
    return request.param


def all_outcomes(executor, count):
    outcomes = []
    while len(outcomes) < count:
        fresh = executor.wait(60)
        assert fresh, "nothing came within a minute"
        outcomes += fresh
    return outcomes


def only_outcome(name, work, payload):
    with open_executor(name, work, workers=1) as executor:
        executor.submit("a", payload)
        (outcome,) = all_outcomes(executor, 1)
        assert executor.wait() == []
    assert outcome.key == "a"
    assert (outcome.result is None) != (outcome.error is None)
    return outcome


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def within(seconds, condition):
    """Whether the condition became true in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def members(session):
    """The command lines of a session's processes, zombies left out. Ray's overwrite their environment."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z" and int(fields[3]) == session:
                found.add((folder / "cmdline").read_text().replace("\0", " ").strip())
        except OSError:
            continue
    return found


# Rules 1 to 3: keys, text, workers.


def test_every_key_comes_out_once(name):
    with open_executor(name, double, workers=2) as executor:
        for number in range(5):
            executor.submit(str(number), {"number": number})
        outcomes = all_outcomes(executor, 5)
        assert executor.wait() == []
    assert sorted(outcome.key for outcome in outcomes) == list("01234")
    for outcome in outcomes:
        assert outcome.result == {"doubled": 2 * int(outcome.key), "pair": [1, 2]}  # as JSON says it
        assert outcome.error is None


def test_a_key_may_come_again_only_when_it_is_out(name):
    with open_executor(name, double, workers=1) as executor:
        executor.submit("a", {"number": 1})
        with pytest.raises(ValueError, match="'a'"):
            executor.submit("a", {"number": 2})
        assert all_outcomes(executor, 1)[0].result["doubled"] == 2
        executor.submit("a", {"number": 2})
        assert all_outcomes(executor, 1)[0].result["doubled"] == 4


def test_a_payload_is_taken_as_it_was_submitted(name):
    with open_executor(name, double, workers=1) as executor:
        payload = {"number": 1}
        executor.submit("a", payload)
        executor.submit("b", payload)
        payload["number"] = 5
        assert [outcome.result["doubled"] for outcome in all_outcomes(executor, 2)] == [2, 2]
        with pytest.raises(TypeError, match="object"):
            executor.submit("c", {"module": object()})


def test_large_results_come_back(name):
    assert len(only_outcome(name, fill, {"length": 3_000_000}).result["text"]) == 3_000_000


def test_workers_run_side_by_side_but_no_more_than_asked(name):
    with open_executor(name, note_times, workers=2) as executor:
        for number in range(4):
            executor.submit(str(number), {"seconds": 0.4})
        spans = [outcome.result for outcome in all_outcomes(executor, 4)]
        assert executor.workers == (1 if name == "serial" else 2)
    at_once = max(sum(a["began"] <= b["began"] < a["ended"] for a in spans) for b in spans)
    assert at_once == executor.workers


def test_wait_gives_up_when_its_time_is_over(name):
    if name == "serial":
        pytest.skip(SERIAL + "it cannot stop in the middle of one")
    with open_executor(name, note_times, workers=1) as executor:
        executor.submit("a", {"seconds": 1})
        assert executor.wait(0.1) == []
        assert executor.wait(0) == []
        assert [outcome.key for outcome in executor.wait()] == ["a"]


# Rule 4: exceptions.


@pytest.mark.parametrize(
    ("work", "line"),
    [
        (fail, "ValueError: two lines"),
        (find_faults, "a.yaml: no stages; a.yaml: no head"),
        (fail_unpicklably, "Unpicklable: at home"),
        (leave, "SystemExit: 2"),
        (return_an_object, "TypeError: Object of type object is not JSON serializable"),
    ],
    ids=["any", "ours", "unpicklable", "exit", "not-json"],
)
def test_an_exception_is_one_line(name, work, line):
    assert only_outcome(name, work, {}).error == line


def interrupt(payload):
    raise KeyboardInterrupt


def test_an_interrupt_passes_through_serial_work():
    with open_executor("serial", interrupt, workers=1) as executor:
        executor.submit("a", {})
        with pytest.raises(KeyboardInterrupt):
            executor.wait()
        with pytest.raises(ValueError, match="under way"):
            executor.submit("a", {})


# Rule 5: deaths.


@pytest.mark.parametrize("name", ["serial", "processes", pytest.param("ray", marks=pytest.mark.slow)], indirect=True)
def test_a_dead_worker_is_replaced_three_times(name, tmp_path):
    if name == "serial":
        pytest.skip(SERIAL + "it dies with them")
    deaths = {
        "thrice": (3, "signal 9"),
        "killed": (9, "signal 9"),
        "exits": (9, "exit code 3"),
        "never": (0, ""),
    }
    with open_executor(name, die_first, workers=2) as executor:
        for key, (times, how) in deaths.items():
            executor.submit(key, {"path": str(tmp_path / key), "times": times, "how": how})
        outcomes = {outcome.key: outcome for outcome in all_outcomes(executor, 4)}
    assert outcomes["never"].result == {"deaths": 0}
    assert outcomes["thrice"].result == {"deaths": 3}
    for key in ["killed", "exits"]:
        cause = "WorkerCrashedError" if name == "ray" else deaths[key][1]
        assert outcomes[key].error == f"worker was killed 4 times (last: {cause})"
        assert len((tmp_path / key).read_text().splitlines()) == 4


# Rule 7: what workers say.


def warn(payload):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("two\nlines", stacklevel=1)
    logging.getLogger("somebody").warning("careful: %s", payload["what"])
    logging.getLogger("somebody").info("nothing new")
    if payload["what"] == "worst":
        raise ValueError("no")
    if payload["what"] == "flood":
        for number in range(1000):
            logging.getLogger("somebody").warning("again %d", number)
    return {}


def test_what_workers_warn_of_is_heard(name):
    with open_executor(name, warn, workers=2) as executor:
        assert executor.lines() == []
        for key in ("bad", "worst", "flood"):
            executor.submit(key, {"what": key})
        all_outcomes(executor, 3)
        heard = []
        assert within(20, lambda: heard.extend(executor.lines()) or len(heard) >= 100 + 2 + 6)
    said = {key: [line for other, line in heard if other == key] for key in ("bad", "worst", "flood")}
    first, second = said["bad"]
    assert first.endswith(f"UserWarning: two lines {Path(__file__).read_text().splitlines()[WARNED].strip()}")
    assert second == "careful: bad"
    assert said["worst"][:2] == [first, "careful: worst"]
    assert said["worst"][2:4] == ["warn failed", "Traceback (most recent call last):"]
    assert said["worst"][-1] == "ValueError: no"
    assert len(said["flood"]) == 100
    assert all("\n" not in line for _, line in heard)


WARNED = next(n for n, line in enumerate(Path(__file__).read_text().splitlines()) if 'warnings.warn("two' in line)


def test_places_of_what_runs(name, tmp_path):
    if name == "serial":
        pytest.skip(SERIAL + "nothing runs outside wait")
    with open_executor(name, wait_for_a_file, workers=1) as executor:
        executor.submit("a", {"file": str(tmp_path / "a")})
        executor.submit("b", {"file": str(tmp_path)})
        assert within(30, lambda: executor.wait(0.1) == [] and executor.places())
        assert re.fullmatch(r"pid \d+" if name == "processes" else r"[\d.]+ pid \d+", executor.places()["a"])
        assert executor.places().keys() == {"a"}
        (tmp_path / "a").touch()
        all_outcomes(executor, 2)
        assert executor.places() == {}
        assert not getattr(executor, "_places", {})


# Rule 6: the end.


def test_close_stops_what_runs_and_what_it_started(name, tmp_path):
    if name == "serial":
        pytest.skip(SERIAL + "nothing runs outside wait")
    with open_executor(name, sleep_with_a_child, workers=2) as executor:
        for key in ["a", "b", "waiting"]:
            executor.submit(key, {"folder": str(tmp_path), "name": key})
        assert within(30, lambda: (tmp_path / "a").exists() and (tmp_path / "b").exists())
    pids = [pid for key in "ab" for pid in json.loads((tmp_path / key).read_text())]
    assert within(5, lambda: not any(map(alive, pids)))
    assert not (tmp_path / "waiting").exists()


def test_a_closed_executor_does_nothing(name):
    with open_executor(name, double, workers=1) as executor:
        executor.submit("a", {"number": 1})
    executor.close()
    assert executor.wait() == []
    with pytest.raises(ValueError, match="closed"):
        executor.submit("b", {"number": 1})


# No guard on purpose: a worker that ran this file again would print a second line.
DRIVER = """
import sys
from archsearch.search.executors import RayOptions, open_executor
from test_executors import sleep_with_a_child

print("driver", flush=True)
try:
    with open_executor(sys.argv[1], sleep_with_a_child, workers=2) as executor:
        for key in "ab":
            executor.submit(key, {"folder": sys.argv[2], "name": key})
        executor.wait()
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture
def driver(request, tmp_path):
    """A search in a process of its own, and in a session of its own, with both workers busy."""
    if request.param == "ray":
        pytest.importorskip("ray")
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    command = [sys.executable, str(script), request.param, str(tmp_path)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True)
    begun = [tmp_path / "a", tmp_path / "b"]
    within(60, lambda: process.poll() is not None or all(note.exists() for note in begun))
    try:
        assert all(note.exists() for note in begun), (tmp_path / "log").read_text()
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("driver", ["processes", "ray"], indirect=True)
def test_workers_die_with_a_killed_driver(driver):
    driver.kill()
    driver.wait()
    assert within(10, lambda: not members(driver.pid) - RAY_AGENTS), members(driver.pid)


@pytest.mark.parametrize("driver", ["processes", pytest.param("ray", marks=pytest.mark.slow)], indirect=True)
def test_an_interrupt_is_the_drivers_alone(driver, tmp_path):
    os.killpg(driver.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
    assert driver.wait(30) == 130
    assert within(10, lambda: not members(driver.pid)), members(driver.pid)
    log = (tmp_path / "log").read_text()
    assert log.splitlines().count("driver") == 1, log
    assert "Traceback" not in log


# The constructor.


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_opened(name):
    with pytest.raises(ValueError, match="importable"):
        open_executor(name, lambda payload: payload, workers=1)
    if name != "serial":
        with pytest.raises(ValueError, match="workers=0"):
            open_executor(name, double, workers=0)


def test_ray_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"archsearch\[ray\]"):
        open_executor("ray", double, workers=1)


def test_an_address_without_a_cluster(monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ArchsearchError, match=r"no Ray cluster answers at '127\.0\.0\.1:1': .*refused"):
        open_executor("ray", double, workers=1, ray=RayOptions("127.0.0.1:1"))
