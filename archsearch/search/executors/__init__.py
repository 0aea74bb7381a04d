"""Where candidates are trained: in this process, in processes of this machine, or on a Ray cluster.

An executor runs one function, `work`, on payloads. The search uses nothing else of it than this:

    with open_executor("processes", train_candidate, workers=2) as executor:
        executor.submit("7", {"spec": "...", "epochs": 9})
        for outcome in executor.wait():
            ...

The contract, which all three keep:

1. **Text goes in, text comes out.** A payload and a result are what JSON can say; both cross the border as
   JSON on every executor, so a tuple comes back as a list on each. A payload that is not JSON raises TypeError
   in `submit`; a result that is not is an error of that job.
2. **Each submitted key comes out of `wait` exactly once**, in any order. `wait` blocks until at least one job
   is finished; it returns an empty list only if its time is up or nothing is under way. A key may be submitted
   again when its outcome is out; before that, ValueError.
3. **At most `workers` jobs run at once.** More may be submitted; they start in the order of submission.
4. **An exception of `work` is an outcome**, not an exception of `wait`. `Outcome.error` is one line: the lines
   of an ArchsearchError joined by "; ", or "TypeName: message"; the traceback of the latter is logged where
   `work` ran. Nothing is retried: the same payload would fail again. What no job is to blame for (a worker
   that cannot begin, since its machine lacks the package) is an ArchsearchError of `wait`.
5. **A worker that dies** (killed, crashed, out of memory) has its payload run again, three times at most, and
   then an outcome such as "worker was killed 4 times (last: signal 9)". **A worker whose machine goes** (lost,
   taken back by its owner) is none of these four: its payload runs again elsewhere, twenty times at most, since
   a payload may also be what brings machines down. No other job notices. So `work` must be able to run again on
   what a dead attempt left behind.
6. **`close` stops everything under way** and leaves none of it behind, nor does a driver that is killed. Jobs
   under way have no outcome then. `submit` raises ValueError afterwards, `wait` returns nothing.
7. **What workers warn of is heard.** Python's warnings, what is logged as one or worse, and tracebacks come out
   of `lines` as (key, line), at most 100 of an attempt, once each, with the deaths that rule 5 speaks of. They
   may come later than the outcome, and the last lines of a worker that dies may be lost. `places` says where
   running jobs run, as far as is known.

`work` is a function at the top of a module that other processes can import (not of a script). An executor is
used from one thread.

`serial` runs jobs inside `wait`: it cannot stop in the middle of a job, so timeouts do nothing, and there is no
worker whose death it could survive.
"""

from collections.abc import Callable
from typing import Literal, Protocol, Self

from archsearch.search.executors.base import Outcome, Payload, Work
from archsearch.search.executors.processes import ProcessExecutor
from archsearch.search.executors.ray import RayExecutor, RayOptions
from archsearch.search.executors.serial import SerialExecutor

__all__ = ["Executor", "Outcome", "Payload", "RayOptions", "Work", "open_executor"]


class Executor(Protocol):
    """Runs payloads; the contract is the module's. `workers` is how many run at once."""

    workers: int

    def submit(self, key: str, payload: Payload) -> None:
        """Hand over a payload."""

    def wait(self, timeout_seconds: float | None = None) -> list[Outcome]:
        """Block for outcomes, and give those since the last call."""

    def lines(self) -> list[tuple[str, str]]:
        """What workers said since the last call: (key, line)."""

    def places(self) -> dict[str, str]:
        """Where running jobs run, by key."""

    def close(self) -> None:
        """Stop everything under way."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


def open_executor(
    name: Literal["serial", "processes", "ray"],
    work: Work,
    workers: int,
    *,
    threads: float = 1,
    ray: RayOptions | None = None,
) -> Executor:
    """The executor of that name for `work`. `serial` has one worker, whatever is asked.

    `threads` and `ray` are what a task asks of Ray and where Ray is: without an address, a Ray is started here with
    room for all workers. Other executors leave threads and devices to `work`. Raises MissingExtra if Ray is not
    installed, ArchsearchError if no cluster answers, and ValueError for fewer than one worker or a function that
    other processes cannot import.
    """
    executors: dict[str, Callable[[], Executor]] = {
        "serial": lambda: SerialExecutor(work),
        "processes": lambda: ProcessExecutor(work, workers),
        "ray": lambda: RayExecutor(work, workers, threads, ray or RayOptions()),
    }
    return executors[name]()
