"""Runs every job in a fresh process of this machine, forked from a server that has torch imported already.

The processes and their signals:

    driver ── fork server ─┬─ worker   (leader of its own process group)
       │                   └─ worker ── decoders, data loaders, ... (in the group of their worker)
       └── one pipe from each worker for its lines and its answer, one to each worker that says the driver lives

- A worker that loses its driver, even to SIGKILL, kills its group. The fork server and multiprocessing's
  resource tracker end when driver and workers are gone.
- Ctrl-C reaches the driver alone: workers lead groups of their own, and SIGINT is blocked in them and in the
  fork server from their first instruction.
- The fork server starts with the first job and keeps the environment variables of that moment. It stays for
  the next executor, idle, until the driver ends.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from archsearch.nets.processes import main_hidden
from archsearch.search.executors.base import Death, Job, QueuedExecutor, Work, answer

PRELOAD = ("torch", __name__)  # imported once by the fork server; a plain process would spend 1.5 s on torch
LINE, ANSWER = "l", "a"  # how messages of workers begin
EXIT_SECONDS = 5.0  # a worker that has answered may take this long to exit before it is killed


@dataclass(frozen=True, eq=False)
class Attempt:
    """One worker process, and the pipe on which its lines come, and after them its answer."""

    key: str
    process: BaseProcess
    reader: Connection
    answers: list[str] = field(default_factory=list)  # none or one


class ProcessExecutor(QueuedExecutor[Attempt]):
    """At most `workers` processes at once, one per attempt. Needs fork: Linux or macOS.

    A worker never runs the driver's `__main__` again, so a search may stand in a script without a guard.
    """

    def __init__(self, work: Work, workers: int) -> None:
        super().__init__(work, workers)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([*PRELOAD, work.__module__])

    def _start(self, job: Job) -> Attempt:
        reader, writer = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_live, args=(self.work, job.text, writer), name=job.key)
        with writer, _interrupts_blocked(), main_hidden():
            process.start()
        return Attempt(job.key, process, reader)

    def _ended(self, handles: Sequence[Attempt], timeout_seconds: float | None) -> Sequence[Attempt]:
        sources: dict[Any, Attempt] = {}
        for attempt in handles:
            sources |= {attempt.reader: attempt, attempt.process.sentinel: attempt}
        ready = dict.fromkeys(sources[source] for source in wait(list(sources), timeout_seconds))
        return [attempt for attempt in ready if self._has_ended(attempt)]

    def _has_ended(self, attempt: Attempt) -> bool:
        """Takes what has come from a worker; whether no more will."""
        dead = not attempt.process.is_alive()  # asked first: what it sent before that has come
        while (message := _received(attempt.reader)) is not None:
            if not message.startswith(LINE):
                attempt.answers.extend([message.removeprefix(ANSWER)] if message else [])
                return True
            self._lines.append((attempt.key, message.removeprefix(LINE)))
        return dead

    def _answer(self, handle: Attempt) -> str | Death:
        handle.process.join(EXIT_SECONDS)
        code = _buried(handle)
        if handle.answers:
            return handle.answers[0]
        return Death(f"signal {-code}" if code < 0 else f"exit code {code}")

    def _place(self, handle: Attempt) -> str:
        return f"pid {handle.process.pid}"

    def _stop(self, handles: Sequence[Attempt]) -> None:
        for attempt in handles:
            _kill(attempt)
        for attempt in handles:
            _buried(attempt)


def _received(reader: Connection) -> str | None:
    """The next message, empty at the end of the pipe; None if there is none now."""
    try:
        # A child of a dead worker may hold the pipe open: without the poll, reading would wait for it.
        return reader.recv_bytes().decode() if reader.poll() else None
    except (EOFError, OSError):
        return ""


def _kill(attempt: Attempt) -> None:
    """Kill the worker and all it started; the group is missing if the worker did not live to make it."""
    assert attempt.process.pid is not None
    with suppress(ProcessLookupError):
        os.killpg(attempt.process.pid, signal.SIGKILL)
    attempt.process.kill()


def _buried(attempt: Attempt) -> int:
    """End what is left of an attempt and give its exit code (minus the signal's number, if one killed it)."""
    _kill(attempt)
    attempt.process.join()
    code = attempt.process.exitcode
    attempt.process.close()
    attempt.reader.close()
    assert code is not None
    return code


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Whatever starts meanwhile has SIGINT blocked for good: the mask is inherited by processes."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _live(work: Work, text: str, writer: Connection) -> None:
    """The whole life of a worker."""
    os.setpgrp()
    threading.Thread(target=_end_with_driver, daemon=True).start()
    one_at_a_time = threading.Lock()

    def send(kind: str, message: str) -> None:
        with one_at_a_time:
            writer.send_bytes((kind + message).encode())

    send(ANSWER, answer(work, text, partial(send, LINE)))


def _end_with_driver() -> None:
    """Block until the driver is gone, on a pipe whose other end it alone holds, and take the group along."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os.killpg(0, signal.SIGKILL)
