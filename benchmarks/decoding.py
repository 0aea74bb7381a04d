"""Decoding alone: clips from video files by what packing decodes with, beside the decoders of others.

    python benchmarks/decoding.py [--data FOLDER ...] [--json]

Decoded are whole files, as packing does it, and stretches of 32 frames from a random place, as of a list of stretches;
every frame is resized to 128 x 171. The film is 10 s of 340 x 256, h264, drawn here, with key frames as the encoder
likes them; the folders are lists of short clips (by default those of ../shared/data, where there are any). Everyone has
one thread and decodes the same frames from paths, in turn; frames are compared. Ratios of speed are medians over rounds
with the range of their middle half. OpenCV, torchcodec and decord are measured where they are installed.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from claims import Claim, claim, parser, print_claims
from clips import Decode, Frames, Wanted, check_same, decord, draw, pyav, torchcodec, usable_peers

from archsearch.video.clips import Sampling
from archsearch.video.dataset import read_dataset
from archsearch.video.pictures import pictures
from archsearch.video.sources import Source, opened

STRETCH, HEIGHT, WIDTH = Sampling(32, 128, 171, 1), 128, 171
ROUNDS, CLIPS = 5, 8
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
OURS, DOCUMENTED = "archsearch", "PyAV, as its documentation seeks"
AIM_BEST, AIM_DOCUMENTED = 0.95, 1.3


@dataclass(frozen=True)
class Whole(Wanted):
    """Every frame of a file."""

    def of(self, frames: int) -> list[int]:
        """All of them."""
        return list(range(frames))


def ours(wanted: Wanted) -> Frames:
    """A whole file, or a stretch of one."""
    source = Source(wanted.path, str(wanted.path))
    if not isinstance(wanted, Whole):
        places = wanted.of(frames_in(wanted.path))
        source = replace(source, frames=(places[0], places[-1] + 1))
    return np.stack([picture.pixels for picture in pictures(source, lambda *_: (wanted.height, wanted.width))])


@cache
def frames_in(path: Path) -> int:
    """How many frames a file says it has; known before the first clock starts."""
    with opened(Source(path, str(path))) as (_, stream):
        return stream.frames


def opencv() -> Decode:
    """Seeking by number; frames between those wanted are grabbed, not retrieved."""
    library: Any = import_module("cv2")
    library.setNumThreads(1)
    one_thread = [library.CAP_PROP_N_THREADS, 1]

    def decode(wanted: Wanted) -> Frames:
        video = library.VideoCapture(str(wanted.path), library.CAP_FFMPEG, one_thread)
        places = wanted.of(int(video.get(library.CAP_PROP_FRAME_COUNT)))
        video.set(library.CAP_PROP_POS_FRAMES, places[0])
        found: dict[int, Frames] = {}
        for place in range(places[0], places[-1] + 1):
            video.grab()
            if place in places:
                small = library.resize(video.retrieve()[1], (wanted.width, wanted.height))
                found[place] = library.cvtColor(small, library.COLOR_BGR2RGB)
        video.release()
        return np.stack([found[place] for place in places])

    return decode


PEERS: dict[str, Callable[[], Decode]] = {
    DOCUMENTED: partial(pyav, seek=True, shared=False),
    "PyAV, one reformatter": partial(pyav, seek=True),
    "OpenCV": opencv,
    "torchcodec": torchcodec,
    "decord": decord,
}


def measured(name: str, paths: list[Path], peers: dict[str, Decode], whole: bool) -> list[Claim]:
    """Our speed over that of the fastest of the others, and of the documented way."""
    spent: dict[str, list[float]] = {who: [] for who in (OURS, *peers)}
    for round_ in range(ROUNDS):
        rng = np.random.default_rng(round_)
        chosen = [paths[number] for number in rng.integers(len(paths), size=CLIPS)]
        kind = Whole if whole else Wanted
        clips = [kind(path, STRETCH, float(rng.random()), HEIGHT, WIDTH) for path in chosen if frames_in(path)]
        for times in spent.values():
            times.append(0.0)
        for wanted in clips:
            frames: Frames | None = None
            for who, decode in {OURS: ours, **peers}.items():
                started = time.perf_counter()
                found = decode(wanted)
                spent[who][-1] += time.perf_counter() - started
                frames = found if frames is None else frames
                check_same(f"{name}, {who}, {wanted.path.name}", found, frames)
    for who, times in spent.items():
        print(f"{name}, {who}: {CLIPS / np.median(times):,.1f} a second", file=sys.stderr)
    best = min(peers, key=lambda who: float(np.median(spent[who])))
    return [
        claim(f"{name}: our speed over {who}'s", [b / a for a, b in zip(spent[OURS], spent[who], strict=True)], aim)
        for who, aim in ((best, AIM_BEST), (DOCUMENTED, AIM_DOCUMENTED))
    ]


def main() -> None:
    """Prints a table, or JSON."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, nargs="*", help="data sets of short clips")
    given = options.parse_args()
    folders = sorted(SHARED.glob("*/")) if given.data is None else given.data
    peers, missing = usable_peers(PEERS)
    with tempfile.TemporaryDirectory() as temporary:
        film = Path(temporary) / "film.mp4"
        draw(film, 300, 256, 340, 0)
        found = {"film": [film]}
        found |= {each.name: [video.path for video in read_dataset(each).splits["train"]] for each in folders}
        claims = []
        for name, videos in found.items():
            claims += measured(f"{name}, whole files", videos, peers, whole=True)
            claims += measured(f"{name}, stretches", videos, peers, whole=False)
    print_claims(claims, given.json)
    for line in missing:
        print(line, file=sys.stderr if given.json else sys.stdout)


if __name__ == "__main__":
    main()
