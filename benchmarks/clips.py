"""Clips a second from a pack, against decoding the same clips on the fly and against copying their bytes.

    python benchmarks/clips.py [--data FOLDER] [--json]

A batch is 16 clips of 8 frames of 56 x 56, from frames with a short side of 64, at random places, crops and mirrorings:
uint8, ready for the network. The data set (drawn here where no FOLDER is given) has clips spread over the video; a film
of 10 s, 340 x 256, h264, has them 2 frames apart, where seeking helps. Everyone has one thread and files in memory,
decodes from paths, and resizes only what it keeps. Rounds are interleaved; ratios are medians with the range of their
middle half. Torchcodec and decord are measured where they are installed.
"""

import gc
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from claims import Claim, claim, parser, print_claims

from archsearch.video.clips import Sampling, frame_indices, mirror, pick, training_batch
from archsearch.video.dataset import Dataset, read_dataset
from archsearch.video.decode import encode
from archsearch.video.pack import PackedSplit, open_pack

BATCH, SHORT_SIDE, ROUNDS, TIMES = 16, 64, 5, 60
PACK, STRAIGHT, COPY = "the pack", "the pack without mirroring", "copying the same bytes"
TOLERANCE = 8.0  # of 255
AIM_CLIPS, AIM_FILM, AIM_COPY = 20.0, 80.0, 0.6
SPREAD, CLOSE = Sampling(8, 56, 56), Sampling(8, 56, 56, 2)
Frames = np.ndarray  # uint8 (8, height, width, 3)


@dataclass(frozen=True)
class Wanted:
    """A clip before its crop: the file, which frames of it, and the height and width they are resized to."""

    path: Path
    sampling: Sampling
    place: float
    height: int
    width: int

    def of(self, frames: int) -> list[int]:
        """Which frames of a video of so many."""
        places: list[int] = frame_indices(frames, self.sampling.frames, self.sampling.stride, self.place).tolist()
        return places


Decode = Callable[[Wanted], Frames]


def pyav(seek: bool, shared: bool = True) -> Decode:
    """PyAV: the whole file, or from the key frame before the clip to its last frame.

    One shared reformatter, or `to_ndarray` with a size for each frame, as its documentation has it.
    """
    reformatter = VideoReformatter()

    def resized(frame: VideoFrame, wanted: Wanted) -> Frames:
        if not shared:
            return frame.to_ndarray(format="rgb24", width=wanted.width, height=wanted.height)
        return reformatter.reformat(frame, wanted.width, wanted.height, "rgb24").to_ndarray()

    def whole(wanted: Wanted) -> Frames:
        with av.open(str(wanted.path)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            frames = list(container.decode(video=0))
        return np.stack([resized(frames[place], wanted) for place in wanted.of(len(frames))])

    def part(wanted: Wanted) -> Frames:
        found: dict[int, Frames] = {}
        with av.open(str(wanted.path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            start, ticks = stream.start_time or 0, 1 / (stream.average_rate * stream.time_base)  # type: ignore[operator]
            places = wanted.of(stream.frames)
            container.seek(start + round(places[0] * ticks), stream=stream)
            for frame in container.decode(stream):
                place = round(((frame.pts or 0) - start) / ticks)
                if place in places:
                    found[place] = resized(frame, wanted)
                if place >= places[-1]:
                    break
        return np.stack([found[place] for place in places])

    return part if seek else whole


def torchcodec() -> Decode:
    """Its tips for clips: approximate seeking, one call for all frames, resizing by the decoder."""
    decoder: Any = import_module("torchcodec.decoders").VideoDecoder
    resize: Any = import_module("torchcodec.transforms").Resize

    def decode(wanted: Wanted) -> Frames:
        to_size = [resize((wanted.height, wanted.width))]
        video = decoder(wanted.path, dimension_order="NHWC", seek_mode="approximate", transforms=to_size)
        return np.asarray(video.get_frames_at(wanted.of(len(video))).data)

    return decode


def decord() -> Decode:
    """Resizing by the reader, one call for all frames."""
    library: Any = import_module("decord")

    def decode(wanted: Wanted) -> Frames:
        video = library.VideoReader(str(wanted.path), width=wanted.width, height=wanted.height, num_threads=1)
        return np.asarray(video.get_batch(wanted.of(len(video))).asnumpy())

    return decode


PEERS: dict[str, Callable[[], Decode]] = {
    "PyAV, whole file": partial(pyav, seek=False),
    "PyAV, seeking": partial(pyav, seek=True),
    "torchcodec": torchcodec,
    "decord": decord,
}


def usable_peers(peers: dict[str, Callable[[], Decode]] = PEERS) -> tuple[dict[str, Decode], list[str]]:
    """The peers that can be used here, and a line for each that cannot."""
    found, missing = {}, []
    for name, make in peers.items():
        try:
            found[name] = make()
        except (ImportError, OSError, RuntimeError) as error:  # wheels without their libraries raise all of these
            missing.append(
                f"{name} is not measured: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            )
    return found, missing


@dataclass(frozen=True)
class Clips:
    """A packed data set, and the file of each of its training videos."""

    split: PackedSplit
    paths: Sequence[Path]
    sampling: Sampling

    def packed(self, indices: np.ndarray, seed: int, flip: bool = True) -> Callable[[], np.ndarray]:
        """What gives a batch of some videos, once, from the pack."""
        sampling = replace(self.sampling, flip=flip)
        return partial(training_batch, self.split, indices, sampling, np.random.default_rng(seed))

    def decoded(self, decode: Decode, indices: np.ndarray, seed: int) -> np.ndarray:
        """The same batch from the files."""
        clips = []
        for video, draws in zip(indices, np.random.default_rng(seed).random((len(indices), 4)), strict=True):
            _, height, width = self.split.sizes[video].tolist()
            place, turn = float(draws[0]), float(draws[3])
            frames = decode(Wanted(self.paths[video], self.sampling, place, height, width))
            y, x = pick(draws[1], height - self.sampling.height), pick(draws[2], width - self.sampling.width)
            clip = np.ascontiguousarray(frames[:, y : y + self.sampling.height, x : x + self.sampling.width])
            if turn < 0.5:
                mirror(clip, self.sampling)
            clips.append(clip)
        return np.stack(clips)

    def copied(self, indices: np.ndarray, seed: int) -> Callable[[], np.ndarray]:
        """What copies the same bytes, of which it knows by now where they are."""
        windows = []
        for video, draws in zip(indices, np.random.default_rng(seed).random((len(indices), 4)), strict=True):
            frames = self.split.frames(int(video))
            count, height, width = frames.shape[:3]
            y, x = pick(draws[1], height - self.sampling.height), pick(draws[2], width - self.sampling.width)
            places = frame_indices(count, self.sampling.frames, self.sampling.stride, draws[0])
            windows.append([frames[t, y : y + self.sampling.height, x : x + self.sampling.width] for t in places])

        def copy() -> np.ndarray:
            batch = np.empty((len(windows), *(len(windows[0]), *windows[0][0].shape)), np.uint8)
            for clip, parts in zip(batch, windows, strict=True):
                for target, window in zip(clip, parts, strict=True):
                    target[...] = window
            return batch

        return copy


def opened(dataset: Dataset, sampling: Sampling, cache: Path) -> Clips:
    """Packed where there is no pack yet; videos are whole files."""
    pack = open_pack(dataset, SHORT_SIDE, cache, multi_label=True)
    paths = {video.name: video.path for video in dataset.splits["train"]}
    split = pack.splits["train"]
    return Clips(split, [paths[name] for name in split.names], sampling)


def measured(name: str, clips: Clips, peers: dict[str, Decode], aim: float) -> list[Claim]:
    """Each peer's time over the pack's for the same batches, and that of copying alone."""
    spent: dict[str, list[float]] = {who: [] for who in (PACK, STRAIGHT, COPY, *peers)}
    for round_ in range(ROUNDS):
        indices = drawn(clips, round_)
        batch = clips.packed(indices, round_)()
        for peer, decode in peers.items():
            started = time.perf_counter()
            found = clips.decoded(decode, indices, round_)
            spent[peer].append(time.perf_counter() - started)
            check_same(f"{name}, {peer}", found, batch)
        for who, median in from_memory(clips, range(TIMES * round_, TIMES * (round_ + 1))).items():
            spent[who].append(median)
    for who, times in spent.items():
        print(f"{name}, {who}: {BATCH / np.median(times):,.0f} clips/s", file=sys.stderr)
    rows = [(peer, PACK, aim) for peer in peers] + [(COPY, PACK, AIM_COPY), (COPY, STRAIGHT, AIM_COPY)]
    return [
        claim(f"{name}: {who} over {own}", [b / a for a, b in zip(spent[own], spent[who], strict=True)], target)
        for who, own, target in rows
    ]


def from_memory(clips: Clips, seeds: Sequence[int]) -> dict[str, float]:
    """Median seconds of a batch without decoding, in turn and in changing order, each of other clips."""
    spent: dict[str, list[float]] = {who: [] for who in (PACK, STRAIGHT, COPY)}
    gc.collect()
    for seed in seeds:
        indices = drawn(clips, seed)
        calls: list[tuple[str, Callable[[], object]]] = [
            (PACK, clips.packed(indices, seed)),
            (STRAIGHT, clips.packed(indices, seed, flip=False)),
            (COPY, clips.copied(indices, seed)),
        ]
        for who, call in calls[seed % 3 :] + calls[: seed % 3]:
            started = time.perf_counter()
            call()
            spent[who].append(time.perf_counter() - started)
    return {who: float(np.median(times)) for who, times in spent.items()}


def drawn(clips: Clips, seed: int) -> np.ndarray:
    """Which videos a batch is of."""
    return np.random.default_rng([seed, 1]).integers(len(clips.split), size=BATCH)


def check_same(what: str, found: np.ndarray, batch: np.ndarray) -> None:
    """Scaling differs a little from library to library; other frames or crops differ by far more."""
    off = float(np.abs(found.astype(int) - batch).mean())
    if off > TOLERANCE:
        raise SystemExit(f"{what}: gives other clips: pixels are {off:.1f} of 255 off in the mean")


def draw(path: Path, frames: int, height: int, width: int, seed: int) -> None:
    """A video of waves of colour that drift behind a little noise, with key frames as the encoder likes them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    pitch, turn, speed = rng.uniform(0.02, 0.12, 3), rng.uniform(0, 2 * np.pi, 3), rng.uniform(0.1, 0.4, 3)
    video = np.empty((frames, height, width, 3), np.uint8)
    for time_, picture in enumerate(video):
        for channel in range(3):
            along = (np.cos(turn[channel]) * x + np.sin(turn[channel]) * y) * pitch[channel]
            wave = 128 + 90 * np.sin(along + speed[channel] * time_)
            picture[..., channel] = np.clip(wave + rng.normal(0, 6, (height, width)), 0, 255)
    encode(path, video, fps=30, intra_only=False)


def folder_of(root: Path, videos: int, frames: int, height: int, width: int) -> Path:
    """A data set of drawn videos, all of one class."""
    root.mkdir()
    for number in range(videos):
        draw(root / f"{number}.mp4", frames, height, width, number)
    (root / "train.csv").write_text("".join(f"{number}.mp4 waves\n" for number in range(videos)))
    return root


def main() -> None:
    """Prints a table, or JSON."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, help="a data set of short clips")
    given = options.parse_args()
    torch.set_num_threads(1)
    peers, missing = usable_peers()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        data = given.data or folder_of(root / "clips", 16, 64, 160, 160)
        film = folder_of(root / "film", 1, 300, 256, 340)
        claims = measured("clips", opened(read_dataset(data), SPREAD, root), peers, AIM_CLIPS)
        claims += measured("film", opened(read_dataset(film), CLOSE, root), peers, AIM_FILM)
    print_claims(claims, given.json)
    for line in missing:
        print(line, file=sys.stderr if given.json else sys.stdout)


if __name__ == "__main__":
    main()
