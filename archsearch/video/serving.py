"""What a decoding process does (see `children`): read a request, decode, answer."""

import contextlib
import json
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from archsearch.errors import VideoError
from archsearch.video.decode import decoded
from archsearch.video.facts import facts
from archsearch.video.flow import fields
from archsearch.video.sources import MAX_BYTES, Source

GRACE_SECONDS = 10  # after its time a child ends itself, as its parent may be gone
MEMORY_BYTES = 3 * MAX_BYTES  # of a child: frames once, and the decoder's own

Answer = tuple[Any, Sequence[np.ndarray]]


def serve() -> None:
    """The child: answers requests from stdin on stdout until there are no more."""
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    _write_line(answers, "ready")
    for line in sys.stdin.buffer:
        task, fields, argument, seconds = json.loads(line)
        signal.alarm(int(seconds) + GRACE_SECONDS)
        frames: Sequence[np.ndarray] = ()
        try:
            result, frames = TASKS[task](Source(**{**fields, "path": Path(fields["path"])}), argument)
            _write_line(answers, {"result": result})
        except VideoError as fault:
            _write_line(answers, {"fault": fault.lines[0]})
        for frame in frames:
            answers.write(np.ascontiguousarray(frame).data)
        answers.flush()
        signal.alarm(0)


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


TASKS: dict[str, Callable[[Source, Any], Answer]] = {"decode": _decode, "facts": _facts, "flow": _flow}


def _write_line(file: IO[bytes], content: Any) -> None:
    file.write(json.dumps(content).encode() + b"\n")
    file.flush()
