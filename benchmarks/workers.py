"""How much of 64 workers' time is work, on one Ray: tasks that sleep instead of training.

Every worker first has a task as long as the others, so that all of Ray's processes have started: trainings take
minutes, and the start is paid once for each worker. Then `--rounds` tasks for each worker are handed out at once, as a
search does it, and the share is the seconds slept over the seconds from the first task's beginning to the last one's
end, times 64.

    python benchmarks/workers.py --json

A task asks for a CPU, and Ray believes that there is one for each, whatever the machine has: of processes that wait for
a task it keeps no more than it has CPUs.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import workers as importable  # this file, not `__main__`: tasks find `sleep` by its module's name
from claims import claim, parser, print_claims

from archsearch.search.executors import Executor, open_executor

AIM = 0.95


def sleep(payload: dict[str, Any]) -> dict[str, Any]:
    """Sleeps `payload["seconds"]`; when that began and ended."""
    began = time.time()
    time.sleep(payload["seconds"])
    return {"began": began, "ended": time.time()}


def shares(workers: int, rounds: int, seconds: float, times: int) -> tuple[list[float], float]:
    """The share of worker time that is task time, so many times, and the seconds of the start."""
    started = time.perf_counter()
    with open_executor("ray", importable.sleep, workers, threads=1) as executor:
        for key in range(workers):
            executor.submit(f"start {key}", {"seconds": seconds})
        _spans(executor, workers)
        start = time.perf_counter() - started
        found = []
        for turn in range(times):
            for key in range(workers * rounds):
                executor.submit(f"{turn} {key}", {"seconds": seconds})
            found.append(_share(_spans(executor, workers * rounds), workers))
    return found, start


def _spans(executor: Executor, count: int) -> list[tuple[float, float]]:
    spans: list[tuple[float, float]] = []
    while len(spans) < count:
        for outcome in executor.wait():
            assert outcome.result is not None, outcome.error
            spans.append((outcome.result["began"], outcome.result["ended"]))
    return spans


def _share(spans: Sequence[tuple[float, float]], workers: int) -> float:
    whole = max(ended for _, ended in spans) - min(began for began, _ in spans)
    return sum(ended - began for began, ended in spans) / (whole * workers)


def main() -> None:
    """Measures and prints."""
    options = parser(__doc__)
    options.add_argument("--workers", type=int, default=64)
    options.add_argument("--rounds", type=int, default=3, help="tasks for each worker")
    options.add_argument("--seconds", type=float, default=20.0, help="of a task; a candidate's training takes minutes")
    options.add_argument("--times", type=int, default=3, help="the same again")
    given = options.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    found, start = shares(given.workers, given.rounds, given.seconds, given.times)
    text = f"share of {given.workers} workers' time that is task time, {given.rounds} tasks of {given.seconds:g} s each"
    print_claims([claim(text, found, AIM)], given.json)
    if not given.json:
        print(f"starting Ray and {given.workers} workers took {start:.0f} s, which the share leaves out")


if __name__ == "__main__":
    main()
