"""Decoding alone: clips from video files by what packing decodes with, beside the decoders of others.

    python benchmarks/decoding.py [--data FOLDER ...] [--json]

A clip is 16 frames, 2 apart, from a random place, resized to 128 x 171. The film is 10 s of 340 x 256, h264, drawn
here, with key frames as the encoder likes them; the folders are lists of short clips (by default those of
../shared/data, where there are any). Everyone has one thread and decodes the same clips from paths, in turn; frames are
compared. Ratios of speed are medians over rounds with the range of their middle half. OpenCV, torchcodec and decord are
measured where they are installed.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
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

SAMPLING, HEIGHT, WIDTH = Sampling(16, 128, 171, 2), 128, 171
ROUNDS, CLIPS = 5, 12
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
OURS, DOCUMENTED = "archsearch", "PyAV, as its documentation seeks"
AIM_BEST, AIM_DOCUMENTED = 0.95, 1.3


def ours(wanted: Wanted) -> Frames:
    """The frames of a stretch, and of those the clip's."""
    source = Source(wanted.path, str(wanted.path))
    with opened(source) as (_, stream):
        places = wanted.of(stream.frames)
    stretch = Source(wanted.path, str(wanted.path), frames=(places[0], places[-1] + 1))
    found = [picture.pixels for picture in pictures(stretch, lambda *_: (wanted.height, wanted.width))]
    return np.stack([found[place - places[0]] for place in places])


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


def measured(name: str, paths: list[Path], peers: dict[str, Decode]) -> list[Claim]:
    """Our speed over that of the fastest of the others, and of the documented way."""
    spent: dict[str, list[float]] = {who: [] for who in (OURS, *peers)}
    for round_ in range(ROUNDS):
        rng = np.random.default_rng(round_)
        chosen = [paths[number] for number in rng.integers(len(paths), size=CLIPS)]
        clips = [Wanted(path, SAMPLING, float(rng.random()), HEIGHT, WIDTH) for path in chosen]
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
        print(f"{name}, {who}: {CLIPS / np.median(times):,.1f} clips/s", file=sys.stderr)
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
        claims = measured("film", [film], peers)
        for folder in folders:
            videos = [video.path for video in read_dataset(folder).splits["train"]]
            claims += measured(folder.name, videos, peers)
    print_claims(claims, given.json)
    for line in missing:
        print(line, file=sys.stderr if given.json else sys.stdout)


if __name__ == "__main__":
    main()
