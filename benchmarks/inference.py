"""A forward on CPU: ours beside plain torch (`plain.py`), ONNX Runtime and OpenVINO, of equal weights.

    python benchmarks/inference.py [--networks r3d_18 ...] [--batch 1] [--threads 2] [--times 15] [--json]

Ours is what `archsearch predict` and `bench` run: norms folded, channels-last layout, 2D kernels where they prove
themselves. All sides in turn; before any timing, their outputs are compared. Runtimes read the ONNX file that
`archsearch export` writes. OpenVINO is left out where it is not installed.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import torch
from claims import Claim, claim, parser, print_claims
from plain import NAMES, both
from torch import Tensor

from archsearch.errors import MissingExtra
from archsearch.nets.export import to_onnx
from archsearch.nets.fold import folded
from archsearch.nets.runtimes import RUNTIMES, load_network

FP32, BF16, RUNTIME = 1.3, 2.5, 1.2
EXACT = 1e-5  # of max |difference| over max |value|
SIZES = {"s3d": (16, 112)}  # frames and side; it needs 13 frames
SIZE = (8, 112)
Forward = Callable[[], Tensor]


def sides(name: str, given: argparse.Namespace) -> dict[str, Forward]:
    """A forward of each side."""
    size = SIZES.get(name, SIZE)
    _, net, peer = both(name, *size)
    peer = peer.eval()
    clip = torch.randn(given.batch, 3, size[0], size[1], size[1], generator=torch.Generator().manual_seed(0))
    fast = folded(net).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    last = clip.contiguous(memory_format=torch.channels_last_3d)
    model = to_onnx(net.eval(), (clip,))

    def half(call: Forward) -> Forward:
        def run() -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return call()

        return run

    found: dict[str, Forward] = {
        "ours": lambda: fast(last),
        "plain": lambda: peer(clip),
        "ours bf16": half(lambda: fast(last)),
    }
    return found | by_runtimes(model, clip, given.threads)


def by_runtimes(model: bytes, clip: Tensor, threads: int) -> dict[str, Forward]:
    """The file by each runtime that is installed, as `archsearch predict --runtime` runs it."""
    found: dict[str, Forward] = {}
    for name in RUNTIMES:
        with suppress(MissingExtra):
            network = load_network(name, model, threads)
            found[name] = lambda network=network: torch.from_numpy(network(clip.numpy()))  # type: ignore[misc]
    return found


def of_network(name: str, given: argparse.Namespace) -> list[Claim]:
    """The claims of one network."""
    runs = sides(name, given)
    with torch.inference_mode():
        outputs = {side: run().float() for side, run in runs.items()}
        times = np.array([[_seconds(run) for run in runs.values()] for _ in range(given.times)])
    wanted = outputs["plain"]
    off = {side: float((output - wanted).abs().max() / wanted.abs().max()) for side, output in outputs.items()}
    took = dict(zip(runs, times.T, strict=True))
    if not given.json:
        texts = [f"{side} {1000 * np.median(took[side]):.1f} ms (off by {off[side]:.0e})" for side in runs]
        print(f"{name}: {', '.join(texts)}", flush=True)
    best = np.minimum.reduce([took[side] for side in RUNTIMES if side in took])
    return [
        claim(f"{name}: output off in fp32, over {EXACT:g}", [off["ours"] / EXACT], 1.0, below=True),
        claim(f"{name}: plain torch's time over ours, fp32", took["plain"] / took["ours"], FP32),
        claim(f"{name}: plain torch's time over ours in bf16", took["plain"] / took["ours bf16"], BF16),
        claim(f"{name}: plain torch's time over `--runtime`'s best, fp32", took["plain"] / best, FP32),
        claim(f"{name}: our torch's time over the best runtime's, fp32", took["ours"] / best, RUNTIME, below=True),
    ]


def _seconds(run: Forward) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    """Measures and prints."""
    options = parser(__doc__)
    options.add_argument("--networks", nargs="+", default=list(NAMES), choices=NAMES)
    options.add_argument("--batch", type=int, default=1)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--times", type=int, default=15)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    torch.set_flush_denormal(True)
    print_claims([each for name in given.networks for each in of_network(name, given)], given.json)


if __name__ == "__main__":
    main()
