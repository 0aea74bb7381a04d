"""Runs jobs as tasks of a Ray cluster, or of a Ray started on this machine.

Retries are counted here and not by Ray (`max_retries=0`): Ray repeats a task that ran out of memory without
end, and forgets how often a worker died. A Ray started here ends with the driver, even by SIGKILL: its
processes ask the kernel for it, and workers leave when their raylet does, within about three seconds. After a
SIGKILL two idle agents of Ray's look for it for a minute before they leave as well.
"""

import os
import socket
from collections.abc import Sequence
from typing import Any

from archsearch.errors import ArchsearchError, MissingExtra
from archsearch.search.executors.base import Death, Job, QueuedExecutor, Work, answer, one_line, refusal

CANCEL_SECONDS = 10.0
KNOCK_SECONDS = 10.0
LOGGED = "ERROR"  # at "WARNING" Ray 2.60 tells at each start that it made a token for its own use

# Read by Ray when it is imported or started; what the user has set stays.
ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's coming default: no gpus asked hides no gpu; and no warning
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` Ray would upload the working folder, runs and all
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
}


class RayExecutor(QueuedExecutor[Any]):
    """At most `workers` tasks at once, each with `threads` CPUs and `gpus` GPUs (a fraction shares one).

    Joins the Ray this process is connected to already; else the cluster at `address` or `RAY_ADDRESS`; else
    starts one here. `close` ends a Ray started here and leaves a joined one. Processes live on from job to job.
    Raises MissingExtra without Ray, ArchsearchError if no cluster answers.
    """

    def __init__(self, work: Work, workers: int, threads: int, address: str | None, gpus: float) -> None:
        super().__init__(work, workers)
        self._ray = _imported()
        self._connected_here = not self._ray.is_initialized()
        if self._connected_here:
            _connect(self._ray, address or os.environ.get("RAY_ADDRESS"), workers * threads)
        self._task = self._ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(answer)

    def _start(self, job: Job) -> Any:
        return self._task.remote(self.work, job.text)

    def _ended(self, handles: Sequence[Any], timeout_seconds: float | None) -> Sequence[Any]:
        first, _ = self._ray.wait(list(handles), num_returns=1, timeout=timeout_seconds)
        if not first:
            return []
        ended, _ = self._ray.wait(list(handles), num_returns=len(handles), timeout=0)
        return list(ended)

    def _answer(self, handle: Any) -> str | Death:
        errors = self._ray.exceptions
        try:
            return str(self._ray.get(handle))
        except errors.RayTaskError as error:  # the worker lives, but could not load the function
            return refusal(one_line(str(error).strip().splitlines()[-1]))
        except errors.RayError as error:
            return Death(type(error).__name__)

    def _stop(self, handles: Sequence[Any]) -> None:
        for handle in handles:
            self._ray.cancel(handle, force=True)
        if handles:
            self._ray.wait(list(handles), num_returns=len(handles), timeout=CANCEL_SECONDS)
        if self._connected_here:
            self._ray.shutdown()


def _imported() -> Any:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("Ray is not installed: pip install 'archsearch[ray]'") from error
    return ray


def _connect(ray: Any, address: str | None, cpus: int) -> None:
    """Connect to the cluster at an address, or start a Ray with so many CPUs."""
    if address is None:
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, logging_level=LOGGED)
        return
    try:
        _knock(address)
        ray.init(address=address, logging_level=LOGGED)
    except (OSError, ValueError) as error:  # ConnectionError, which Ray raises, is an OSError
        raise ArchsearchError(
            f"no Ray cluster answers at {address!r}: {one_line(str(error))}",
            "if the cluster asks for a token: set RAY_AUTH_MODE=token, with the token in ~/.ray/auth_token",
        ) from error


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at `host:port` or `ray://host:port`; Ray itself tries for five minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
