"""What all executors share: jobs, answers as text, retries, and the queue between `submit` and `wait`.

A payload and a result cross every border as JSON, in the calling process as well as on another machine. So a
result reads the same whoever computed it, a payload cannot change after it was submitted, and a module or a
tensor is refused where it was handed over.
"""

import json
import logging
import textwrap
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeVar

from archsearch.errors import ArchsearchError

RETRIES = 3  # a job whose worker died runs again this often; more, and the job is likely what kills workers
LOSSES = 20  # whose machine went: machines of a spot market go often, but a job may also be what takes them down
LINE_LENGTH = 1000  # torch puts pages of C++ frames into some messages
LINES = 100  # of one attempt reach the driver; a warning at every step is no news

Payload = dict[str, Any]
Work = Callable[[Payload], Payload]
Tell = Callable[[str], None]  # sends a line to the driver
Handle = TypeVar("Handle", bound=Hashable)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of a submitted payload: exactly one of `result` and `error` is not None.

    `result` is what the function returned. `error` is one line that says why there is none.
    """

    key: str
    result: Payload | None
    error: str | None


@dataclass(frozen=True)
class Job:
    """A submitted payload, as JSON, and the workers that died on it so far."""

    key: str
    text: str
    deaths: tuple["Death", ...] = ()


@dataclass(frozen=True)
class Death:
    """A worker ended without an answer. `cause` is `signal 9`, `exit code 1` or the name of Ray's error.

    `lost` says that its machine went, and the worker with it; `machine` names it, where that is known.
    """

    cause: str
    lost: bool = False
    machine: str | None = None


def answer(work: Work, text: str, tell: Tell) -> str:
    """Run `work` on a payload in JSON and give `{"result": ...}` or `{"error": line}`, in JSON.

    An exception becomes the line; unless it is an ArchsearchError, which says all a user needs, its traceback
    is logged. Only KeyboardInterrupt and its like pass through. Warnings, and what is logged as one, go to `tell`.
    """
    with _telling(tell):
        try:
            return json.dumps({"result": work(json.loads(text))})
        except ArchsearchError as error:
            return _refusal(one_line("; ".join(error.lines)) or type(error).__name__)
        except (Exception, SystemExit) as error:
            logger.exception("%s failed", work.__qualname__)
            return _refusal(one_line(f"{type(error).__name__}: {_message(error)}"))


class _Teller(logging.Handler):
    """Sends records line by line, and no more than so many lines."""

    def __init__(self, tell: Tell) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell
        self._left = LINES

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        for line in [one_line(text)] if record.name == "py.warnings" else text.splitlines():
            if self._left > 0 and line.strip():
                self._tell(line[:LINE_LENGTH])
            self._left -= 1


@contextmanager
def _telling(tell: Tell) -> Iterator[None]:
    """What this process warns of meanwhile is told."""
    handler = _Teller(tell)
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)


def _refusal(line: str) -> str:
    """The answer of a job that failed."""
    return json.dumps({"error": line})


def one_line(text: str) -> str:
    """The text with every run of white space as one space, cut at a word where it is very long."""
    return textwrap.shorten(text, LINE_LENGTH, placeholder=" ...")


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "(its message cannot be read)"


class QueuedExecutor(ABC, Generic[Handle]):
    """Keeps jobs in a queue, at most `workers` of them running, and runs a job again when its worker died.

    A subclass knows one way to run a job and fills in five methods; a handle is whatever it needs to find a
    running job again. `work` must be a function that another process can import: ValueError otherwise.
    """

    def __init__(self, work: Work, workers: int) -> None:
        if work.__module__ == "__main__" or "<" in work.__qualname__:
            place = f"{work.__module__}.{work.__qualname__}"
            raise ValueError(f"work must be a function at the top of an importable module (got {place})")
        if workers < 1:
            raise ValueError(f"there must be at least one worker (got {workers=})")
        self.work = work
        self.workers = workers
        self._waiting: deque[Job] = deque()
        self._running: dict[Handle, Job] = {}
        self._lines: list[tuple[str, str]] = []
        self._closed = False

    def submit(self, key: str, payload: Payload) -> None:
        """Hand over a payload. Raises ValueError if the key is under way or the executor closed, TypeError if
        the payload is not JSON.
        """
        if self._closed:
            raise ValueError(f"the executor is closed (got {key=})")
        if any(job.key == key for job in (*self._waiting, *self._running.values())):
            raise ValueError(f"the key is already under way (got {key=})")
        self._waiting.append(Job(key, json.dumps(payload)))
        self._fill()

    def wait(self, timeout_seconds: float | None = None) -> list[Outcome]:
        """Outcomes since the last call: at least one, unless time runs out or nothing is under way."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        outcomes: list[Outcome] = []
        while self._running and not outcomes:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ended = self._ended(list(self._running), left)
            if not ended and left == 0:
                break
            outcomes = [outcome for handle in ended if (outcome := self._settle(handle))]
            self._fill()
        return outcomes

    def lines(self) -> list[tuple[str, str]]:
        """What workers have warned of since the last call, and which of them died: (key, line)."""
        lines, self._lines = self._lines, []
        return lines

    def places(self) -> dict[str, str]:
        """Where the running jobs run, as people would look for them; those of which it is known."""
        return {job.key: place for handle, job in self._running.items() if (place := self._place(handle))}

    def close(self) -> None:
        """Stop everything under way. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        running = list(self._running)
        self._waiting.clear()
        self._running.clear()
        self._stop(running)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self.workers:
            job = self._waiting[0]
            self._running[self._start(job)] = job
            self._waiting.popleft()

    def _settle(self, handle: Handle) -> Outcome | None:
        """The outcome of an ended attempt, or None if the job goes back to the head of the queue."""
        answered = self._answer(handle)
        job = self._running.pop(handle)
        if isinstance(answered, str):
            said = json.loads(answered)
            return Outcome(job.key, said.get("result"), said.get("error"))
        deaths = (*job.deaths, answered)
        lost = sum(map(self._machine_lost, deaths))
        if len(deaths) - lost > RETRIES:
            return Outcome(job.key, None, f"worker was killed {len(deaths) - lost} times (last: {answered.cause})")
        if lost > LOSSES:
            return Outcome(job.key, None, f"its machine was lost {lost} times (last: {answered.cause})")
        what = "its machine was lost" if self._machine_lost(answered) else "worker was killed"
        self._lines.append((job.key, f"{what} ({answered.cause}), starting again"))
        self._waiting.appendleft(replace(job, deaths=deaths))
        return None

    def _machine_lost(self, death: Death) -> bool:
        """Whether the machine went, and not the worker alone; asked again later, when more may be known."""
        return death.lost

    @abstractmethod
    def _start(self, job: Job) -> Handle:
        """Begin to run a job."""

    @abstractmethod
    def _ended(self, handles: Sequence[Handle], timeout_seconds: float | None) -> Sequence[Handle]:
        """Block until at least one of the attempts has ended, or time runs out; those that have."""

    @abstractmethod
    def _answer(self, handle: Handle) -> str | Death:
        """What an ended attempt left; nothing of it runs any more."""

    @abstractmethod
    def _place(self, handle: Handle) -> str | None:
        """Where an attempt runs, if that is known."""

    @abstractmethod
    def _stop(self, handles: Sequence[Handle]) -> None:
        """End these attempts and give back what the executor holds."""
