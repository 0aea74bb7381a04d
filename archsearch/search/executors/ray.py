"""Runs jobs as tasks of a Ray cluster, or of a Ray started on this machine.

Retries are counted here and not by Ray (`max_retries=0`): Ray repeats a task that ran out of memory without
end, and forgets how often a worker died. A Ray started here ends with the driver, even by SIGKILL: its
processes ask the kernel for it, and workers leave when their raylet does, within about three seconds. After a
SIGKILL two idle agents of Ray's look for it for a minute before they leave as well. A cluster ends the tasks of a
driver that is gone.

What workers say comes by a mailbox, an actor on the driver's own machine: Ray's own way would print it.
"""

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from archsearch.errors import ArchsearchError
from archsearch.search.executors.base import Death, Job, QueuedExecutor, Work, answer, one_line
from archsearch.search.executors.cluster import check_room, checked_env, connect, hint, imported_ray

CANCEL_SECONDS = 10.0
MAIL_SECONDS = 0.5
BYTES_PER_GB = 10**9


@dataclass(frozen=True)
class RayOptions:
    """Where Ray is, and what every task asks of it beside its threads.

    `address`: of a cluster; none: a Ray is started here, unless `RAY_ADDRESS` names one.
    `env`: a runtime environment as Ray takes it (`pip`, `working_dir`, `env_vars`, `image_uri`, ...).
    `gpus`: a share below 1, or a whole number. `memory_gb`: 10^9 bytes that Ray sets aside, not a limit.
    `resources`: amounts of whatever the cluster's nodes are said to have.
    """

    address: str | None = None
    env: Mapping[str, Any] = field(default_factory=dict)
    gpus: float = 0
    memory_gb: float = 0
    resources: Mapping[str, float] = field(default_factory=dict)

    def bundle(self, threads: float) -> dict[str, float]:
        """What a task asks, in Ray's names. Raises ArchsearchError for 1.5 GPUs and the like."""
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ArchsearchError(f"{self.gpus:g} GPUs a candidate: Ray takes a share below 1 or a whole number")
        asked = {"CPU": threads, "GPU": self.gpus, "memory": int(self.memory_gb * BYTES_PER_GB), **self.resources}
        return {name: amount for name, amount in asked.items() if amount}


@dataclass(frozen=True)
class Attempt:
    """A job's task."""

    key: str
    task: Any


@dataclass(frozen=True)
class Place:
    """Where a task runs: Ray's id of the node, and words for people."""

    node: str
    text: str


class RayExecutor(QueuedExecutor[Attempt]):
    """At most `workers` tasks at once, each with `threads` CPUs and what the options say.

    Joins the Ray this process is connected to already; else the cluster of the options; else starts one here.
    `close` ends a Ray started here and leaves a joined one. Processes live on from job to job. An autoscaling
    cluster is asked for room for all workers at the start, and no longer at the end.
    Raises MissingExtra without Ray, ArchsearchError if no cluster answers or none of one machine's has the room.
    """

    def __init__(self, work: Work, workers: int, threads: float, options: RayOptions) -> None:
        super().__init__(work, workers)
        self._ray = ray = imported_ray()
        bundle, env = options.bundle(threads), checked_env(options.env)
        address = options.address or os.environ.get("RAY_ADDRESS")
        self._connected_here = not ray.is_initialized()
        if self._connected_here:
            connect(ray, address, math.ceil(workers * threads), env)
        self._hinted = address is not None
        self._places: dict[str, Place] = {}
        try:
            check_room(ray, bundle, may_grow=self._hinted)
            if self._hinted:
                hint([bundle] * workers)
            self._task = _task(ray, bundle, None if self._connected_here else env)
            self._mailbox = ray.remote(num_cpus=0)(Mailbox).options(scheduling_strategy=_beside_driver(ray)).remote()
            self._mail = self._mailbox.take.remote()
        except BaseException:
            self.close()
            raise

    def _start(self, job: Job) -> Attempt:
        return Attempt(job.key, self._task.remote(self.work, job.text, job.key, self._mailbox))

    def _ended(self, handles: Sequence[Attempt], timeout_seconds: float | None) -> Sequence[Attempt]:
        tasks = {attempt.task: attempt for attempt in handles}
        first, _ = self._ray.wait(list(tasks), num_returns=1, timeout=timeout_seconds)
        self._read_mail()
        if not first:
            return []
        ended, _ = self._ray.wait(list(tasks), num_returns=len(tasks), timeout=0)
        return [tasks[task] for task in ended]

    def _answer(self, handle: Attempt) -> str | Death:
        errors, place = self._ray.exceptions, self._places.pop(handle.key, None)
        try:
            return str(self._ray.get(handle.task))
        except (errors.RayTaskError, errors.RuntimeEnvSetupError) as error:  # the next would fare no better
            reason = one_line(str(error).strip().splitlines()[-1])
            raise ArchsearchError(f"a worker of Ray cannot begin: {reason}") from None
        except errors.RayError as error:
            lost = isinstance(error, errors.NodeDiedError | errors.LocalRayletDiedError)
            return Death(type(error).__name__, lost, place.node if place else None)

    def _machine_lost(self, death: Death) -> bool:
        """A node's processes may be found dead a while before the node is."""
        if death.lost or death.machine is None:
            return death.lost
        return death.machine not in {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}

    def _place(self, handle: Attempt) -> str | None:
        place = self._places.get(handle.key)
        return place.text if place else None

    def lines(self) -> list[tuple[str, str]]:
        """What workers said since the last call: (key, line)."""
        self._read_mail()
        self._read_mail(MAIL_SECONDS)  # the first may have been asked for before the last line came
        return super().lines()

    def _read_mail(self, timeout_seconds: float = 0) -> None:
        """Takes what has come, and asks for what is to come."""
        with suppress(self._ray.exceptions.RayError):
            if self._ray.wait([self._mail], timeout=timeout_seconds)[0]:
                for key, message in self._ray.get(self._mail):
                    if isinstance(message, Place):
                        self._places[key] = message
                    else:
                        self._lines.append((key, message))
                self._mail = self._mailbox.take.remote()

    def _stop(self, handles: Sequence[Attempt]) -> None:
        for attempt in handles:
            self._ray.cancel(attempt.task, force=True)
        if handles:
            self._ray.wait([attempt.task for attempt in handles], num_returns=len(handles), timeout=CANCEL_SECONDS)
        if self._hinted:
            hint([])
        if self._connected_here:
            self._ray.shutdown()


class Mailbox:
    """Holds messages until the driver takes them."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, Place | str]] = []

    def put(self, key: str, message: Place | str) -> None:
        """Of the worker that has the job of that key."""
        self.messages.append((key, message))

    def take(self) -> list[tuple[str, Place | str]]:
        """What has come since the last time."""
        messages, self.messages = self.messages, []
        return messages


def answer_and_tell(work: Work, text: str, key: str, mailbox: Any) -> str:
    """What a task does: says where it is, then answers."""
    ray = imported_ray()
    node, host = ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()
    put = [mailbox.put.remote(key, Place(node, f"{host} pid {os.getpid()}"))]
    answered = answer(work, text, lambda line: put.append(mailbox.put.remote(key, line)))
    ray.wait(put, num_returns=len(put), timeout=MAIL_SECONDS)
    return answered


def _task(ray: Any, bundle: Mapping[str, float], env: Mapping[str, Any] | None) -> Any:
    """What runs a job, with what it asks of its node."""
    own = dict(bundle)
    needs = {"num_cpus": own.pop("CPU"), "num_gpus": own.pop("GPU", 0), "memory": own.pop("memory", None)}
    return ray.remote(**needs, resources=own or None, runtime_env=env or None, max_retries=0)(answer_and_tell)


def _beside_driver(ray: Any) -> Any:
    """On the machine that the driver is connected to: when that one goes, the driver does, too."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
