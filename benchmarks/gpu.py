"""On a GPU: our training step and forward beside torchvision's way with AMP defaults, and several candidates at once.

    python benchmarks/gpu.py [--networks r3d_18 ...] [--times 7] [--json]

The peer is the network written by hand in plain torch (`plain.py`): default layout, autocast to float16 and a gradient
scaler, as AMP's documentation has it. Ours is what a recipe with `precision: auto` trains, and what `bench` runs for a
forward: channels-last layout, bfloat16 where convolutions proved themselves, norms folded; then compiled, forwards as
CUDA graphs. Both have equal weights and clips, of 16 x 112 x 112 and 64 x 224 x 224; the sides in turn, medians of
ratios. Beside each time stands the share of what a large bfloat16 matrix product reaches here. Candidates at once are
processes that train the same small network side by side, against one after the other. Without a GPU nothing is said;
`--device cpu --sizes 8x32 --ways eager` tries the script itself.
"""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from claims import Claim, claim, parser, print_claims
from plain import NAMES, both
from torch import Tensor
from torch.nn import functional as F

from archsearch.nets.build import build
from archsearch.nets.fast import fastest_precision, prove_bf16
from archsearch.nets.fold import folded
from archsearch.spec.cost import total_cost
from archsearch.spec.presets import load_spec
from archsearch.spec.spec import Spec, lower, with_clip
from archsearch.training.optimiser import HALF, fresh_state, step
from archsearch.training.recipe import Recipe

AIMS, SEVERAL = {"eager": 1.5, "compiled": 2.0}, 2.0
SMALL, STEPS, AT_ONCE = (8, 56), 60, 4  # of the candidates that train at once
Call = Callable[[], object]


def clips_for(size: tuple[int, int], batch: int, device: str) -> tuple[Tensor, Tensor]:
    """Random clips and labels on the device."""
    frames, side = size
    generator = torch.Generator().manual_seed(0)
    clips = torch.randn(batch, 3, frames, side, side, generator=generator)
    return clips.to(device), torch.randint(400, (batch,), generator=generator).to(device)


def our_step(spec: Spec, net: Any, clips: Tensor, labels: Tensor, compiled: bool) -> Call:
    """A step as `archsearch train` makes it with `precision: auto`."""
    device, batch = clips.device.type, len(clips)
    fields = {"optimizer": "sgd", "lr": 1e-3, "clip_norm": None, "label_smoothing": 0.0, "batch": batch}
    recipe = Recipe.model_validate(fields | {"device": device, "precision": fastest_precision(device)})
    clips = clips.contiguous(memory_format=torch.channels_last_3d)
    net = net.to(device, memory_format=torch.channels_last_3d)
    if recipe.precision == "bf16":
        prove_bf16(net, clips)
    state = fresh_state(net.train(), spec, recipe)
    if compiled:
        state.net.compile(dynamic=False)
    return lambda: step(state, recipe, clips, labels, recipe.lr, batch)


def plain_step(net: Any, clips: Tensor, labels: Tensor) -> Call:
    """Automatic mixed precision as its documentation has it."""
    device = clips.device.type
    net = net.to(device).train()
    sgd = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=0.05)
    scaler = torch.amp.GradScaler(device)

    def run() -> float:
        sgd.zero_grad()
        with torch.autocast(device, torch.float16):
            loss = F.cross_entropy(net(clips), labels)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(sgd)
        scaler.update()
        return float(loss.detach())

    return run


def our_forward(net: Any, clips: Tensor, compiled: bool) -> Call:
    """A forward as `archsearch bench` runs it."""
    device = clips.device.type
    precision = fastest_precision(device)
    fast: Any = folded(net).to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    fast = torch.compile(fast, mode="reduce-overhead") if compiled else fast
    clips = clips.contiguous(memory_format=torch.channels_last_3d)
    return _inferring(fast, clips, HALF.get(precision))


def plain_forward(net: Any, clips: Tensor) -> Call:
    """Automatic mixed precision around an ordinary forward."""
    return _inferring(net.to(clips.device).eval(), clips, torch.float16)


def _inferring(net: Any, clips: Tensor, dtype: torch.dtype | None) -> Call:
    def run() -> object:
        with torch.inference_mode(), torch.autocast(clips.device.type, dtype, enabled=dtype is not None):
            return net(clips)

    return run


def seconds(call: Call, device: str) -> float:
    """Of a call, with all that it has started on the device."""
    started = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def in_turn(calls: dict[str, Call], times: int, device: str) -> dict[str, np.ndarray]:
    """Seconds of every call, turn by turn, after three that are not counted."""
    rows = [[seconds(call, device) for call in calls.values()] for _ in range(times + 3)]
    return dict(zip(calls, np.array(rows[3:]).T, strict=True))


def peak_flops(device: str) -> float:
    """What a large matrix product reaches, in operations a second."""
    side = 8192 if device == "cuda" else 512
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
    best = min(seconds(lambda: a @ a, device) for _ in range(10))
    return 2 * side**3 / best


def of_network(name: str, size: tuple[int, int], batch: int, given: argparse.Namespace, peak: float) -> list[Claim]:
    """The claims of one network at one size."""
    clips, labels = clips_for(size, batch, given.device)
    macs = total_cost(lower(with_clip(load_spec(name), (3, size[0], *size[1:] * 2)))).macs
    kinds: dict[str, tuple[Callable[[bool], Call], Call, int]] = {}
    spec, net, peer = both(name, *size)
    steps = [both(name, *size)[1] for _ in range(2)]
    kinds["training step"] = (
        lambda compiled: our_step(spec, steps[compiled], clips, labels, compiled),
        plain_step(peer, clips, labels),
        6,
    )
    kinds["inference"] = (
        lambda compiled: our_forward(net, clips, compiled),
        plain_forward(both(name, *size)[2], clips),
        2,
    )
    found = []
    for kind, (ours, plain, operations) in kinds.items():
        calls = {"plain": plain} | {way: ours(way == "compiled") for way in given.ways}
        took = in_turn(calls, given.times, given.device)
        for way in given.ways:
            share = operations * macs * batch / float(np.median(took[way])) / peak
            text = (
                f"{name}, {size[0]} x {size[1]}, batch {batch}: plain's {kind} over ours, {way} ({share:.0%} of peak)"
            )
            found.append(claim(text, took["plain"] / took[way], AIMS[way]))
    return found


def candidate(device: str, steps: int, ready: Any, go: Any, done: Any) -> None:
    """A process that trains a small network."""
    spec = with_clip(load_spec("mc3_18"), (3, SMALL[0], SMALL[1], SMALL[1]))
    clips, labels = clips_for(SMALL, 16, device)
    call = our_step(spec, build(spec, seed=0), clips, labels, compiled=False)
    for _ in range(3):
        seconds(call, device)
    ready.release()
    go.wait()
    for _ in range(steps):
        seconds(call, device)
    done.release()


def together(device: str, count: int, steps: int) -> float:
    """Seconds until so many processes, begun at the same moment, have trained."""
    context = multiprocessing.get_context("spawn")
    ready, go, done = context.Semaphore(0), context.Event(), context.Semaphore(0)
    processes = [context.Process(target=candidate, args=(device, steps, ready, go, done)) for _ in range(count)]
    for process in processes:
        process.start()
    for _ in processes:
        ready.acquire()
    started = time.perf_counter()
    go.set()
    for _ in processes:
        done.acquire()
    took = time.perf_counter() - started
    for process in processes:
        process.join()
    return took


def several(given: argparse.Namespace) -> Claim:
    """How much more is trained by several processes at once than by one after the other."""
    steps = STEPS if given.device == "cuda" else 2
    ratios = [
        AT_ONCE * together(given.device, 1, steps) / together(given.device, AT_ONCE, steps)
        for _ in range(min(3, given.times))
    ]
    return claim(f"{AT_ONCE} small candidates at once over one after the other", ratios, SEVERAL)


def main() -> None:
    """Prints a table, or JSON."""
    options = parser(__doc__)
    options.add_argument("--networks", nargs="+", default=list(NAMES), choices=NAMES)
    options.add_argument("--sizes", nargs="+", default=["16x112", "64x224"], help="frames x side")
    options.add_argument("--batches", nargs="+", type=int, default=[16, 4], help="of each size")
    options.add_argument("--times", type=int, default=7)
    options.add_argument("--ways", nargs="+", choices=list(AIMS), default=list(AIMS))
    options.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    given = options.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: nothing is measured", file=sys.stderr)
        print_claims([], given.json)
        return
    peak = peak_flops(given.device)
    claims = []
    for text, batch in zip(given.sizes, given.batches, strict=False):
        frames, side = (int(part) for part in text.split("x"))
        for name in given.networks:
            claims += of_network(name, (frames, side), batch, given, peak)
    print_claims([*claims, several(given)], given.json)


if __name__ == "__main__":
    main()
