"""Packing a data set, beside the ffmpeg command line that resizes the same videos to raw frames.

    python benchmarks/packing.py [--data FOLDER ...] [--times 3] [--json]

Ours reads the list of a data set and packs it into a new folder: one file of frames and an index, synchronised to disk.
Ffmpeg is begun once a video, one process a core at a time as ours has, each of one thread, and writes a file of rgb24.
Frames have a short side of 128 pixels; both give as many bytes. The drawn data set has 24 videos of 5 s, 340 x 256,
h264; the folders are by default those of ../shared/data, where there are any. In turn; ratios of times are medians with
the range of their middle half.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import av
from claims import Claim, claim, parser, print_claims
from clips import draw

from archsearch.video.dataset import read_dataset
from archsearch.video.decode import fitted_size
from archsearch.video.pack import open_pack
from archsearch.video.reading import cores

SHORT_SIDE, DRAWN, COPIES, FRAMES = 128, 4, 6, 150
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
AIM = 1.3


def ffmpeg_command() -> str:
    """The ffmpeg of this machine, or that of imageio-ffmpeg. Exits where there is neither."""
    found = shutil.which("ffmpeg")
    if found is None:
        try:
            found = str(import_module("imageio_ffmpeg").get_ffmpeg_exe())
        except (ImportError, RuntimeError) as error:
            raise SystemExit(f"there is no ffmpeg to compare with: {error}") from None
    return found


def packed(data: Path, cache: Path) -> int:
    """Bytes of frames of a new pack."""
    pack = open_pack(read_dataset(data), SHORT_SIDE, cache, multi_label=True)
    return sum(int(split.sizes.prod(axis=1).sum()) * 3 for split in pack.splits.values())


def resized(ffmpeg: str, videos: list[tuple[Path, tuple[int, int]]], out: Path) -> int:
    """Bytes of the raw frames that ffmpeg writes."""
    out.mkdir()

    def one(number: int) -> int:
        path, (height, width) = videos[number]
        target = out / f"{number}.rgb"
        scale = ("-vf", f"scale={width}:{height}:flags=bilinear", "-pix_fmt", "rgb24", "-f", "rawvideo")
        threads = ("-threads", "1", "-filter_threads", "1")
        subprocess.run([ffmpeg, "-v", "error", "-nostdin", *threads, "-i", str(path), *scale, str(target)], check=True)
        return target.stat().st_size

    with ThreadPoolExecutor(cores()) as pool:
        return sum(pool.map(one, range(len(videos))))


def sizes(data: Path) -> list[tuple[Path, tuple[int, int]]]:
    """Each video of a data set, and the height and width it is resized to."""
    found = []
    for videos in read_dataset(data).splits.values():
        for video in videos:
            with av.open(str(video.path)) as container:
                stream = container.streams.video[0]
                found.append((video.path, fitted_size(stream.height, stream.width, SHORT_SIDE)))
    return found


def measured(name: str, data: Path, ffmpeg: str, times: int, root: Path) -> Claim:
    """Our time over ffmpeg's."""
    videos, ratios = sizes(data), []
    for _ in range(times):
        with tempfile.TemporaryDirectory(dir=root) as temporary:
            started = time.perf_counter()
            ours = packed(data, Path(temporary) / "cache")
            between = time.perf_counter()
            theirs = resized(ffmpeg, videos, Path(temporary) / "raw")
            spent = between - started, time.perf_counter() - between
        if ours != theirs:
            raise SystemExit(f"{name}: the pack has {ours:,} bytes of frames, ffmpeg wrote {theirs:,}")
        print(f"{name}: ours {spent[0]:.2f} s, ffmpeg {spent[1]:.2f} s", file=sys.stderr)
        ratios.append(spent[0] / spent[1])
    text = f"{name}: {len(videos)} videos on {cores()} cores: our time over ffmpeg's"
    return claim(text, ratios, AIM, below=True)


def drawn(root: Path) -> Path:
    """A data set of a few drawn videos, several times each."""
    root.mkdir()
    for number in range(DRAWN):
        draw(root / f"{number}.mp4", FRAMES, 256, 340, number)
        for copy in range(1, COPIES):
            shutil.copy(root / f"{number}.mp4", root / f"{number + DRAWN * copy}.mp4")
    (root / "train.csv").write_text("".join(f"{number}.mp4 waves\n" for number in range(DRAWN * COPIES)))
    return root


def main() -> None:
    """Prints a table, or JSON."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, nargs="*", help="data sets of short clips")
    options.add_argument("--times", type=int, default=3, help="packs of each")
    given = options.parse_args()
    ffmpeg = ffmpeg_command()
    folders = sorted(SHARED.glob("*/")) if given.data is None else given.data
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        data = {"drawn": drawn(root / "drawn"), **{folder.name: folder for folder in folders}}
        claims = [measured(name, folder, ffmpeg, given.times, root) for name, folder in data.items()]
    print_claims(claims, given.json)


if __name__ == "__main__":
    main()
