"""Work on videos in other processes: one on which a decoder hangs or crashes is broken, and the rest goes on.

A child is this Python with `serving.serve`, started as a command: nothing of the caller's program runs there again,
threads and libraries it has loaded do not matter, and whoever may not have `multiprocessing` children may have these.
A request is a line of JSON. So is each of its answers, behind which frames follow as plain bytes; a last line says that
there are no more, or what is wrong. A child may be ahead by what a pipe holds, then it waits until it is read.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_all
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from archsearch.errors import DataError, VideoError
from archsearch.video.sources import Source

if TYPE_CHECKING:
    from archsearch.video.stream import Rhythm
    from archsearch.video.views import Cut, Timed

COMMAND = (sys.executable, "-S", "-P", "-c", "from archsearch.video.serving import serve; serve()")
SECONDS = 60.0  # for a line, and as many more for each megabyte as its task has
START_SECONDS = 120.0
ENDING_SECONDS = 0.3
PIPE_BYTES = 1 << 20  # what any user may have on Linux; a small pipe stops the child at each frame
FLOW_SECONDS = 60.0  # for a megabyte of frames
PATIENCE_SECONDS = 0.7  # of waiting in all, before another child is worth its start of a third of a second


@dataclass(frozen=True)
class Task:
    """What a child is asked for by `name`, how its answer is read, and what faults say of it."""

    name: str
    read: Callable[[IO[bytes], Any], Any]
    seconds: float = 1.0  # for a megabyte
    doing: str = "decoding"
    advice: str = "encode it again or leave it out"
    more: float = 0.0  # seconds


Request = tuple[Source, Any]  # and the task's argument
Then = Callable[[Source, Any], Any]


def decode_all(sources: Sequence[Source], short_side: int) -> Generator[np.ndarray | VideoError, None, None]:
    """The frames (t, h, w, 3) of each source, or its fault, in order."""
    return _answers(Task("decode", _read_frames), [(source, short_side) for source in sources])


def facts_of_all(sources: Sequence[Source]) -> Generator[dict[str, Any] | VideoError, None, None]:
    """The fields of `Facts` of each source, or its fault, in order."""
    return _answers(Task("facts", lambda answers, result: result), [(source, None) for source in sources])


def flow_of_all(requests: Sequence[Request]) -> Generator[np.ndarray | VideoError, None, None]:
    """The fields (t, h, w, 2) of each request, or its fault, in order.

    A source is a part of a file of frames, its argument their shape (t, h, w, 3), the method and the bound.
    """
    return _answers(Task("flow", _read_frames, FLOW_SECONDS, "computing its flow", "take another method"), requests)


def views_of_all(
    sources: Sequence[Source], cut: "Cut", views: int, threads: int, then: Callable[[Source, float, np.ndarray], Any]
) -> Generator[Any, None, None]:
    """What `then` makes of each video, its length in seconds and the clips of its views, or its fault, in order.

    It is called in several threads.
    """

    def made(source: Source, answer: tuple[float, np.ndarray]) -> Any:
        return then(source, *answer)

    return _answers(_clips("views", cut), [(source, (asdict(cut), views, threads)) for source in sources], made)


def seconds_of(children: "Children", source: Source) -> float:
    """The length of a video as its header says, 0 where it says nothing. Raises VideoError."""
    answer = children.ask(Task("seconds", lambda answers, result: result), source, None)
    if isinstance(answer, VideoError):
        raise answer
    return float(answer)


def clips_along(children: "Children", source: Source, cut: "Cut", rhythm: "Rhythm") -> Generator["Timed", None, None]:
    """What `views.clips_along` gives, of which a child is ahead by a few. Raises VideoError, perhaps after some."""
    with contextlib.closing(children.answers(_clips("along", cut), source, (asdict(cut), asdict(rhythm)))) as answers:
        for answer in answers:
            if isinstance(answer, VideoError):
                raise answer
            yield answer


def _clips(name: str, cut: "Cut") -> Task:
    """A task whose child says now and then that it works, so a long film may take its time."""
    area = 3 * 2 * cut.short_side**2 / 1e6  # megabytes of a frame, as wide as films are
    return Task(name, _read_clips, 0.0, more=FLOW_SECONDS * area * cut.depth)


class _Lost(VideoError):
    """The child of a video hung or died: by the video's fault, or for want of time or memory beside the others."""


def _as_it_is(source: Source, answer: Any) -> Any:
    return answer


def _answers(task: Task, requests: Sequence[Request], then: Then = _as_it_is) -> Generator[Any, None, None]:
    """What `then` makes of children's answers to each request, or a fault, in order; a few are ahead, never all.

    Where a child was lost the request is made once more, while no other is under way.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    children = Children()
    threads = ThreadPoolExecutor(cores)
    ahead: deque[tuple[Request, Future[Any]]] = deque()

    def answer(source: Source, argument: Any) -> Any:
        found = children.ask(task, source, argument)
        return found if isinstance(found, VideoError) else then(source, found)

    def first() -> Any:
        request, found = ahead.popleft()
        if not isinstance(found.result(), _Lost):
            return found.result()
        wait_all(other for _, other in ahead)
        return answer(*request)

    try:
        for request in requests:
            ahead.append((request, threads.submit(answer, *request)))
            if len(ahead) > 2 * cores:
                yield first()
        while ahead:
            yield first()
    finally:
        children.kill()
        threads.shutdown(cancel_futures=True)
        children.end()


@contextlib.contextmanager
def decoders() -> "Iterator[Children]":
    """Children for one request after another, none of which is left behind."""
    children = Children()
    try:
        yield children
    finally:
        children.kill()
        children.end()


class Children:
    """As many processes as are asked at the same time; each is used again, a lost one replaced."""

    def __init__(self) -> None:
        self.idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self.alive: set[subprocess.Popen[bytes]] = set()
        self.busy: set[subprocess.Popen[bytes]] = set()
        self.lock = threading.Lock()
        self.waited = 0.0
        self.ended = False

    def ask(self, task: Task, source: Source, argument: Any) -> Any:
        """The first answer for one source, or a VideoError; also where the child hangs or dies of it."""
        found, *_ = self.answers(task, source, argument)
        return found

    def answers(self, task: Task, source: Source, argument: Any) -> Generator[Any, None, None]:
        """Every answer for one source, the last perhaps a VideoError; whoever closes this ends the child."""
        child = self._take()
        whole = False
        seconds = SECONDS + task.more + task.seconds * _megabytes(source)
        request = json.dumps([task.name, {**asdict(source), "path": str(source.path)}, argument, seconds])
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(request.encode() + b"\n")
            while not whole:
                if not wait([child.stdout.fileno()], seconds):
                    raise TimeoutError
                answer = json.loads(child.stdout.readline())
                whole = "end" in answer or "fault" in answer
                if "fault" in answer:
                    yield VideoError(answer["fault"])
                elif "result" in answer:
                    yield task.read(child.stdout, answer["result"])
        except TimeoutError:
            self._lose(child)
            yield _Lost(f"{source.place}: {task.doing} takes longer than {seconds:.0f} seconds; {task.advice}")
        except (OSError, EOFError, ValueError):  # its end of a pipe is closed
            yield _Lost(f"{source.place}: {task.doing} crashed ({self._lose(child)}); {task.advice}")
        finally:
            self._give_back(child, whole)

    def _give_back(self, child: subprocess.Popen[bytes], whole: bool) -> None:
        """A child that has said everything may be used again; another one is ended."""
        with self.lock:
            usable = whole and child in self.busy
            self.busy.discard(child)
        if usable:
            self.idle.put(child)
        elif child in self.alive:
            child.kill()
            self._lose(child)

    def interrupt(self) -> None:
        """End what is under way: who waits for an answer gets a fault."""
        with self.lock:
            for child in self.busy:
                child.kill()
            self.busy.clear()

    def _take(self) -> subprocess.Popen[bytes]:
        """A child that has nothing to do, or a new one. Raises DataError where none can be started."""
        with self.lock:
            child = None if self.alive else self._start()
        if child is None:
            began = time.monotonic()
            try:
                child = self.idle.get(timeout=max(0.0, PATIENCE_SECONDS - self.waited))
                self.waited += time.monotonic() - began
                with self.lock:
                    self.busy.add(child)
                return child
            except queue.Empty:
                self.waited = 0.0
                child = self._start()
        self.busy.add(child)
        assert child.stdout is not None
        if self.ended or not wait([child.stdout.fileno()], START_SECONDS) or not child.stdout.readline():
            raise DataError(f"processes for videos cannot be started ({self._lose(child)}); see what is said above")
        return child

    def _start(self) -> subprocess.Popen[bytes]:
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        child = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # nothing is read before it is waited for
            pipesize=PIPE_BYTES,
            env={**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"},  # starts sooner
            start_new_session=True,  # Ctrl-C is for the parent, which ends its children
        )
        self.alive.add(child)
        return child

    def _lose(self, child: subprocess.Popen[bytes]) -> str:
        """End a child whatever it does; gives how it ended."""
        self.alive.discard(child)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(ENDING_SECONDS)  # a pipe closes a moment before its process is gone
        child.kill()
        for pipe in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):
                pipe and pipe.close()
        try:
            code = child.wait(10 * ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            return "it waits for its disk and cannot be ended"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        """End all work; who waits for an answer gets a fault, and no child is started any more."""
        self.ended = True
        for child in tuple(self.alive):
            child.kill()

    def end(self) -> None:
        """Leave no process behind; nobody may be asking any more."""
        for child in tuple(self.alive):
            self._lose(child)


def _read_frames(answers: IO[bytes], shape: Sequence[int]) -> np.ndarray:
    """Frames (t, h, w, 3) from a child. Raises EOFError where it ends before."""
    frames = np.empty(shape, np.uint8)
    missing = frames.data.cast("B")
    while missing:
        count = answers.readinto(missing)  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        missing = missing[count:]
    return frames


def _read_clips(answers: IO[bytes], result: Any) -> Any:
    """Times in seconds, and clips."""
    *times, shape = result
    return (*times, _read_frames(answers, shape))


def _megabytes(source: Source) -> float:
    """What is to be read; the holes of a sparse file are not."""
    try:
        known = source.path.stat()
        return (source.member[1] if source.member else min(known.st_size, 512 * known.st_blocks)) / 1e6
    except (OSError, ValueError):
        return 0.0
