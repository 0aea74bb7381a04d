"""Searches on a Ray of several nodes, two raylets of this machine: what a task asks, and nodes and drivers that go."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import curves_in, found_in, run_search, write_tiny

from archsearch.errors import ArchsearchError
from archsearch.search.executors import RayOptions, open_executor
from archsearch.search.executors import base as executors
from archsearch.search.results import read_status

COMMAND = [sys.executable, "-c", "from archsearch.cli import main; main()", "search"]
SPACE = {"search": {"trials": 3, "order": "fixed", "block": 3}}
RECIPE = {"epochs": 8, "views": 1}


def double(payload):
    return {"doubled": 2 * payload["number"]}


# What a task asks.


def test_what_a_task_asks():
    options = RayOptions(gpus=0.25, memory_gb=8, resources={"fast_disk": 1})
    assert options.bundle(2) == {"CPU": 2, "GPU": 0.25, "memory": 8_000_000_000, "fast_disk": 1}
    assert RayOptions(gpus=2).bundle(1) == {"CPU": 1, "GPU": 2}
    with pytest.raises(ArchsearchError, match=r"^1\.5 GPUs a candidate: Ray takes a share below 1 or a whole number$"):
        RayOptions(gpus=1.5).bundle(1)


def test_options_of_ray_go_with_ray(cli, clips, tmp_path):
    space_file, _ = write_tiny(tmp_path)
    for option in (("--gpus", 1), ("--memory-gb", 8), ("--resource", "a=1"), ("--ray-env", space_file)):
        code, _, err = cli("search", space_file, clips, "--out", tmp_path / "run", *option)
        assert code == 2
        assert f"{option[0]}" in " ".join(err)
    for resource in ("a", "=1", "a=-1", "a=inf", "a=0", "CPU=0", "GPU=1.5", "memory=3"):
        faulty = ("--executor", "ray", "--resource", resource)
        assert cli("search", space_file, clips, "--out", tmp_path / "run", *faulty)[0] == 2
    for option in ("--memory-gb=inf", "--gpus=nan"):
        assert cli("search", space_file, clips, "--out", tmp_path / "run", "--executor", "ray", option)[0] == 2
    assert cli("search", space_file, clips, "--out", tmp_path / "run", "--executor", "serial", "--ray", "auto")[0] == 2
    assert not (tmp_path / "run").exists()


def test_faults_of_a_runtime_environment(cli, clips, tmp_path):
    pytest.importorskip("ray")
    space_file, recipe = write_tiny(tmp_path)
    for text, line in (
        ("pipp: [numpy]", "runtime environment: unknown field 'pipp'; did you mean 'pip'?"),
        ("pip: 3", "runtime environment: "),
    ):
        (tmp_path / "env.yaml").write_text(text)
        options = ["--executor", "ray", "--ray-env", tmp_path / "env.yaml", "--recipe", recipe]
        code, _, err = cli("search", space_file, clips, "--out", tmp_path / "run", *options)
        assert code == 1
        assert err[-1].startswith(line), err


# What is counted when workers and machines go.


class Scripted(executors.QueuedExecutor[str]):
    """Attempts end as a script says: with an answer or a death."""

    def __init__(self, script, dead_machines=()):
        super().__init__(double, workers=1)
        self.script, self.dead_machines = list(script), set(dead_machines)

    def _start(self, job):
        return job.key

    def _ended(self, handles, timeout_seconds):
        return handles

    def _answer(self, handle):
        return self.script.pop(0)

    def _machine_lost(self, death):
        return death.lost or death.machine in self.dead_machines

    def _place(self, handle):
        return None

    def _stop(self, handles):
        pass


KILLED, LOST = executors.Death("signal 9"), executors.Death("NodeDiedError", lost=True)
DONE = json.dumps({"result": {}})


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ([KILLED] * 3 + [LOST] * 10 + [DONE], None),
        ([LOST] * 20 + [DONE], None),
        ([LOST] * 21, "its machine was lost 21 times (last: NodeDiedError)"),
        ([LOST] * 5 + [KILLED] * 4, "worker was killed 4 times (last: signal 9)"),
        ([executors.Death("WorkerCrashedError", machine="gone")] * 9 + [DONE], None),
        ([executors.Death("WorkerCrashedError", machine="here")] * 4, "worker was killed 4 times"),
    ],
    ids=["both", "lost", "always lost", "killed", "found dead before their machine", "alone"],
)
def test_a_lost_machine_is_no_kill(script, error):
    executor = Scripted(script, dead_machines={"gone"})
    executor.submit("a", {})
    (outcome,) = executor.wait()
    assert (outcome.error or "").startswith(error or "")
    assert (outcome.result == {}) == (error is None)
    lines = [line for _, line in executor.lines()]
    assert len(lines) == len(script) - 1
    assert all(line.endswith(", starting again") for line in lines)
    assert executor.lines() == []


# Two nodes.


@pytest.fixture
def cluster():
    """A head with one CPU, and a place to add others."""
    pytest.importorskip("ray")
    from archsearch.search.executors.cluster import ENVIRONMENT

    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setenv("RAY_raylet_start_wait_time_s", "120")  # on a busy machine
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            yield cluster
        finally:
            with suppress(Exception):
                cluster.shutdown()


@contextmanager
def driver_of(files, clips, out, address):
    command = [*COMMAND, files[0], clips, "--out", out, "--recipe", files[1], "--ray", address]
    with Path(f"{out}.log").open("a") as log:
        process = subprocess.Popen([*map(str, command)], stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def below(pid):
    """The processes that a process started, and theirs: (pid, command line)."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                command = (folder / "cmdline").read_text().replace("\0", " ").strip()
                parents.setdefault(int(fields[1]), []).append((int(folder.name), command))
    found = list(parents.get(pid, ()))
    return found + [other for child, _ in found for other in below(child)]


def raylet_of(node):
    return node.all_processes["raylet"][0].process.pid


def at_work(node):
    """The processes of a node that have a task."""
    return [pid for pid, command in below(raylet_of(node)) if command.startswith("ray::answer")]


def wait_until(condition, driver, out):
    deadline = time.monotonic() + 240
    while not condition():
        assert driver.poll() is None, Path(f"{out}.log").read_text()
        assert time.monotonic() < deadline, Path(f"{out}.log").read_text()
        time.sleep(0.05)


def in_mid_epoch(out):
    """Two candidates that have some of their epochs."""
    return sum(2 <= len(curve) <= RECIPE["epochs"] - 4 for curve in curves_in(out).values()) >= 2


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("files"), SPACE, RECIPE)


@pytest.fixture(scope="module")
def undisturbed(files, clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    run_search(*files, clips, out)
    return found_in(out)


def assert_as_undisturbed(out, recorded, undisturbed):
    """The same result, and every epoch that was recorded as it was, with the seconds it took."""
    curves = curves_in(out)
    for name, curve in recorded.items():
        assert curves[name][: len(curve)] == curve
    assert read_status(str(out))["trials"]["complete"] == 3
    assert found_in(out) == undisturbed


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_that_is_killed_costs_an_epoch_and_no_candidate(cluster, files, clips, undisturbed, tmp_path):
    out, node = tmp_path / "run", cluster.add_node(num_cpus=1)
    with driver_of(files, clips, out, cluster.address) as driver:
        wait_until(lambda: at_work(node) and in_mid_epoch(out), driver, out)
        victims = [raylet_of(node), *(pid for pid, _ in below(raylet_of(node)))]
        recorded = curves_in(out)
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert driver.wait(600) == 0, Path(f"{out}.log").read_text()
    log = Path(f"{out}.log").read_text()
    assert "its machine was lost (NodeDiedError), starting again" in log, log
    assert "worker was killed" not in log
    assert_as_undisturbed(out, recorded, undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_another_driver_goes_on_when_the_first_dies(cluster, files, clips, undisturbed, tmp_path):
    """On the same cluster; the dead driver's tasks end by themselves. The second is interrupted, the third ends."""
    out, node = tmp_path / "run", cluster.add_node(num_cpus=1)
    with driver_of(files, clips, out, cluster.address) as driver:
        wait_until(lambda: at_work(node) and in_mid_epoch(out), driver, out)
        workers = at_work(node) + at_work(cluster.head_node)
        assert len(workers) == 2
        driver.kill()
        driver.wait()
    recorded = curves_in(out)
    deadline = time.monotonic() + 60
    while at_work(node) + at_work(cluster.head_node):
        assert time.monotonic() < deadline, "tasks of a dead driver go on"
        time.sleep(0.1)
    with driver_of(files, clips, out, cluster.address) as driver:
        wait_until(lambda: at_work(node), driver, out)
        os.killpg(driver.pid, signal.SIGINT)
        assert driver.wait(60) == 130
    log = Path(f"{out}.log").read_text()
    assert "interrupted; the same command goes on from here" in log
    assert "Traceback" not in log
    with driver_of(files, clips, out, cluster.address) as driver:
        assert driver.wait(600) == 0, Path(f"{out}.log").read_text()
    assert_as_undisturbed(out, recorded, undisturbed)


@pytest.mark.slow
def test_a_cluster_is_asked_to_grow_and_then_no_longer(cluster, monkeypatch):
    asked = []
    monkeypatch.setattr("ray.autoscaler.sdk.request_resources", lambda bundles: asked.append(bundles))
    with open_executor("ray", double, workers=3, ray=RayOptions(cluster.address, gpus=0.5)):
        assert asked == [[{"CPU": 1, "GPU": 0.5}] * 3]  # no node has a GPU: it would wait for one
    assert asked == [[{"CPU": 1, "GPU": 0.5}] * 3, []]


def test_what_cannot_begin_asks_no_cluster_to_grow(monkeypatch):
    module = sys.modules["archsearch.search.executors.ray"]
    asked = []
    monkeypatch.setattr(module, "imported_ray", lambda: SimpleNamespace(is_initialized=lambda: True))
    monkeypatch.setattr(module, "check_room", lambda *_, **__: None)
    monkeypatch.setattr(module, "hint", asked.append)
    with pytest.raises(AttributeError, match="remote"):
        open_executor("ray", double, workers=2, ray=RayOptions("host:1"))
    assert asked == [[{"CPU": 1}] * 2, []]


@pytest.mark.slow
def test_a_ray_of_this_machine_must_have_the_room(monkeypatch):
    pytest.importorskip("ray")
    asked = []
    monkeypatch.setattr("ray.autoscaler.sdk.request_resources", lambda bundles: asked.append(bundles))
    with pytest.raises(ArchsearchError, match="this machine has no room for a candidate, which asks for CPU 1, GPU 64"):
        open_executor("ray", double, workers=1, ray=RayOptions(gpus=64))
    env = {"env_vars": {"ARCHSEARCH_TRIED": "yes", "PYTHONPATH": str(Path(__file__).parent)}}
    with open_executor("ray", tell_env, workers=1, ray=RayOptions(env=env, memory_gb=0.1)) as executor:
        executor.submit("a", {})
        assert executor.wait()[0].result == {"tried": "yes"}
    assert asked == []


def tell_env(payload):
    return {"tried": os.environ.get("ARCHSEARCH_TRIED")}


# The page.


def blocks_of(language):
    page = Path(__file__).parent.parent / "docs" / "cluster.md"
    return [part.split("```")[0] for part in page.read_text().split(f"```{language}\n")[1:]]


def test_the_examples_are_what_ray_reads():
    ray = pytest.importorskip("ray")
    env, machines, pods = map(yaml.safe_load, blocks_of("yaml"))
    assert env.keys() <= ray.runtime_env.RuntimeEnv.known_fields
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    pytest.importorskip("jsonschema").validate(machines, schema)
    assert machines["head_node_type"] in machines["available_node_types"]
    assert (pods["apiVersion"], pods["kind"]) == ("ray.io/v1", "RayCluster")
    for group in (pods["spec"]["headGroupSpec"], *pods["spec"]["workerGroupSpecs"]):
        spec = group["template"]["spec"]
        mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}
