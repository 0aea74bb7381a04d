"""Real searches whose workers and drivers are killed with SIGKILL at any moment, and end as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import curves_in, found_in, run_search, write_tiny

from archsearch.search.results import read_status

SPACE = {"search": {"trials": 4, "order": "fixed", "block": 2}}
RECIPE = {"epochs": 10, "views": 1}
COMMAND = [sys.executable, "-c", "from archsearch.cli import main; main()", "search"]
RAY_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")  # idle; look a minute for a Ray that was killed
DONE = {"complete": 4, "stopped": 0, "infeasible": 0, "running": 0, "failed": 0}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("files"), SPACE, RECIPE)


@pytest.fixture(scope="module")
def undisturbed(files, clips, tmp_path_factory):
    """What the search finds when nobody is killed."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    run_search(*files, clips, out)
    return found_in(out)


@contextmanager
def driver_of(files, clips, out, executor):
    """The command in a session of its own; its log is beside the run folder."""
    space_file, recipe_file = files
    command = [*COMMAND, space_file, clips, "--out", out, "--recipe", recipe_file, "--executor", executor]
    with Path(f"{out}.log").open("a") as log:
        process = subprocess.Popen([*map(str, command)], stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def members(session):
    """(pid, process group, command line) of the living processes of a session."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z" and int(fields[3]) == session:
                yield int(folder.name), int(fields[2]), (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue


def workers_of(driver, executor):
    """Those of processes lead groups of their own; those of Ray have a name while they work."""
    if executor == "ray":
        return [pid for pid, _, command in members(driver.pid) if command.startswith("ray::answer")]
    return [pid for pid, group, _ in members(driver.pid) if pid == group != driver.pid]


def wait_until(condition, driver, seconds=120):
    """Waits while the driver lives; whether the condition came true before it ended."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        if driver.poll() is not None:
            return condition()
        time.sleep(0.01)
    return True


def bury(driver):
    """Kills a driver, and waits until its workers are gone, too."""
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 30
    while [command for *_, command in members(driver.pid) if not command.startswith(RAY_AGENTS)]:
        assert time.monotonic() < deadline, list(members(driver.pid))
        time.sleep(0.02)


def under_way(out):
    """Whether a candidate is in the middle of its epochs, and something is recorded."""
    return any(2 <= len(curve) <= RECIPE["epochs"] - 4 for curve in curves_in(out).values())


def assert_kept(recorded, out):
    """Every epoch that was recorded is still there as it was, with the seconds it took: none was trained again."""
    curves = curves_in(out)
    for name, curve in recorded.items():
        assert curves[name][: len(curve)] == curve


def assert_undisturbed(out, undisturbed):
    assert read_status(str(out))["trials"] == DONE
    trials, curves, weights, front = found_in(out)
    assert curves == undisturbed[1]
    assert weights == undisturbed[2]
    assert trials == undisturbed[0]
    assert front == undisturbed[3]
    assert not list(Path(out).glob("candidates/*/checkpoint.pt"))


KINDS = ["processes", pytest.param("ray", marks=pytest.mark.slow)]


@pytest.mark.parametrize("executor", KINDS)
def test_a_killed_worker_is_replaced_and_goes_on(files, clips, tmp_path, undisturbed, executor):
    out = tmp_path / "run"
    with driver_of(files, clips, out, executor) as driver:
        assert wait_until(lambda: under_way(out) and workers_of(driver, executor), driver)
        os.kill(workers_of(driver, executor)[0], signal.SIGKILL)
        recorded = curves_in(out)
        assert driver.wait(240) == 0, Path(f"{out}.log").read_text()
    assert "worker was killed" in Path(f"{out}.log").read_text()
    assert_kept(recorded, out)
    assert_undisturbed(out, undisturbed)


@pytest.mark.parametrize("executor", KINDS)
def test_a_killed_driver_goes_on_with_the_same_command(files, clips, tmp_path, undisturbed, executor):
    out = tmp_path / "run"
    with driver_of(files, clips, out, executor) as driver:
        assert wait_until(lambda: under_way(out), driver)
        bury(driver)
    recorded = curves_in(out)
    assert sum(map(len, recorded.values())) >= 2
    run_search(*files, clips, out)  # in this process: whoever goes on
    assert_kept(recorded, out)
    assert_undisturbed(out, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_kills_at_random_moments_change_nothing(files, clips, tmp_path, undisturbed, seed):
    """Workers and drivers, fifteen at most, those of start and end among them."""
    out, draw = tmp_path / "run", random.Random(seed)
    kills, recorded = {"worker": 0, "driver": 0}, {}
    while sum(kills.values()) < 15:
        with driver_of(files, clips, out, "processes") as driver:
            lives = draw.randrange(3)  # of workers that die before their driver; a fourth death would be a failure
            while driver.poll() is None and lives:
                wait_until(lambda: workers_of(driver, "processes"), driver)
                time.sleep(draw.uniform(0, 1.5))
                for pid in draw.sample(found := workers_of(driver, "processes"), min(1, len(found))):
                    os.kill(pid, signal.SIGKILL)
                    kills["worker"] += 1
                    lives -= 1
            time.sleep(draw.uniform(0, 1.5))
            ended = driver.poll()
            bury(driver)
            kills["driver"] += ended is None
        assert_kept(recorded, out)
        recorded = curves_in(out)
        if ended is not None:
            assert ended == 0, Path(f"{out}.log").read_text()
            break
    run_search(*files, clips, out)
    assert kills["driver"] >= 2, kills
    assert kills["worker"] >= 2, kills
    assert_kept(recorded, out)
    assert_undisturbed(out, undisturbed)
