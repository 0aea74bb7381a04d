"""What a decoding process does (see `children`): read a request, decode, answer.

A task has one answer, a stream has some; an answer is a result as JSON, and frames.
"""

import contextlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from archsearch.errors import VideoError
from archsearch.video.decode import decoded
from archsearch.video.facts import facts
from archsearch.video.flow import fields
from archsearch.video.reading import Tick, seconds_of
from archsearch.video.sources import MAX_BYTES, Source

if TYPE_CHECKING:
    from archsearch.video.views import Cut

GRACE_SECONDS = 10  # after its time a child ends itself, as its parent may be gone
MEMORY_BYTES = 3 * MAX_BYTES  # of a child: frames once, and the decoder's own

TICKS = 4  # signs of life in the time that the parent waits for one

Answer = tuple[Any, Sequence[np.ndarray]]


def serve() -> None:
    """The child: answers requests from stdin on stdout until there are no more."""
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    Parent(answers).tell("ready")
    for line in sys.stdin.buffer:
        task, fields, argument, seconds = json.loads(line)
        source, parent = Source(**{**fields, "path": Path(fields["path"])}), Parent(answers, seconds)
        parent.awaits()
        try:
            for result, frames in _answers(task, source, argument, parent.tick):
                parent.tell({"result": result}, frames)
                parent.awaits()
            parent.tell({"end": True})
        except VideoError as fault:
            parent.tell({"fault": fault.lines[0]})


def _answers(task: str, source: Source, argument: Any, tick: Tick) -> Iterator[Answer]:
    if task in TASKS:
        yield TASKS[task](source, argument)
    else:
        yield from STREAMS[task](source, argument, tick)


@dataclass
class Parent:
    """Who asked for answers, and waits so many seconds for each line of them."""

    answers: IO[bytes]
    seconds: float = 0.0
    heard: float = 0.0

    def awaits(self) -> None:
        """From now on; a child that takes longer ends itself."""
        self.heard = time.monotonic()
        signal.alarm(int(self.seconds) + GRACE_SECONDS)

    def tick(self) -> None:
        """Says now and then that work goes on."""
        if time.monotonic() > self.heard + self.seconds / TICKS:
            self.tell({"working": True})
            self.awaits()

    def tell(self, line: Any, frames: Sequence[np.ndarray] = ()) -> None:
        """A line of JSON, and frames behind it; as long as nobody reads, the child waits."""
        signal.alarm(0)
        try:
            self.answers.write(json.dumps(line).encode() + b"\n")
            for frame in frames:
                self.answers.write(np.ascontiguousarray(frame).data)
            self.answers.flush()
        except BrokenPipeError:
            os._exit(1)  # it is gone


def _decode(source: Source, short_side: int) -> Answer:
    frames = list(decoded(source, short_side))
    return (len(frames), *frames[0].shape), frames


def _facts(source: Source, _: None) -> Answer:
    return asdict(facts(source)), ()


def _flow(source: Source, argument: Any) -> Answer:
    """Of frames that lie as plain bytes in a file."""
    shape, method, bound = argument
    assert source.member is not None
    frames = np.memmap(source.path, np.uint8, "r", source.member[0], tuple(shape))
    try:
        return (*shape[:3], 2), list(fields(frames, method, bound))
    except VideoError as fault:
        raise VideoError(f"{source.place}: {fault.lines[0]}") from None


def _seconds(source: Source, _: None) -> Answer:
    return seconds_of(source), ()


def _views(source: Source, argument: Any, tick: Tick) -> Iterator[Answer]:
    """The length of a video, and the clips of its views."""
    from archsearch.video.views import view_clips  # what packing does not need

    fields, views, threads = argument
    seconds, clips = view_clips(source, _cut(fields), views, threads, tick)
    yield (seconds, clips.shape), (clips,)


def _along(source: Source, argument: Any, tick: Tick) -> Iterator[Answer]:
    """The begin, the end and the clip of each window."""
    from archsearch.video.stream import Rhythm
    from archsearch.video.views import clips_along

    fields, rhythm = argument
    for begin, end, clip in clips_along(source, _cut(fields), Rhythm(**rhythm), tick):
        yield (begin, end, clip.shape), (clip,)


def _cut(fields: Any) -> "Cut":
    from archsearch.video.views import Cut

    return Cut(**{**fields, "channels": tuple(fields["channels"])})


TASKS: dict[str, Callable[[Source, Any], Answer]] = {
    "decode": _decode,
    "facts": _facts,
    "flow": _flow,
    "seconds": _seconds,
}
STREAMS: dict[str, Callable[[Source, Any, Tick], Iterator[Answer]]] = {"views": _views, "along": _along}
