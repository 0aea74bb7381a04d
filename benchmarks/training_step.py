"""A step of training on CPU: ours beside the same network written by hand in plain torch (`plain.py`).

    python benchmarks/training_step.py [--networks r3d_18 ...] [--batch 8] [--threads 2] [--times 7] [--json]

Both have equal weights and clips, and the same SGD; the sides in turn, and the median ratio of times. Like for like is
the same precision on both sides; "automatic" is `precision: auto` beside plain fp32. Before any timing, outputs and
gradients of both are compared in fp32. Peak memory is by how much a process of its own has grown during two steps in
fp32, ours by the default and by `recompute: true`, whose time stands beside it; the allocator gives memory back at once
on both sides (`MALLOC_MMAP_THRESHOLD_`), so that it is what the step asks for and not what glibc keeps.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from claims import Claim, claim, parser, print_claims
from plain import NAMES, both
from torch import Tensor, nn
from torch.nn import functional as F

from archsearch.nets.fast import fastest_precision, prove_bf16
from archsearch.training.optimiser import fresh_state, step
from archsearch.training.recipe import Recipe

FP32, BF16, AUTOMATIC, MEMORY = 1.25, 1.2, 1.8, 0.75
EXACT = 1e-5  # of max |difference| over max |value|
SIZES = {"s3d": (16, 64)}  # frames and side; it needs 13 frames
SIZE = (8, 56)
PLAIN, OURS, AGAIN = "plain", "ours", "ours, recompute"
Step = Callable[[], float]


def clips_for(name: str, batch: int) -> tuple[Tensor, Tensor]:
    """Random clips and labels."""
    generator = torch.Generator().manual_seed(0)
    frames, side = SIZES.get(name, SIZE)
    clips = torch.randn(batch, 3, frames, side, side, generator=generator)
    return clips, torch.randint(400, (batch,), generator=generator)


def our_step(name: str, batch: int, precision: str, recompute: bool = False) -> Step:
    """A step as `archsearch train` makes it."""
    fields = {"optimizer": "sgd", "lr": 1e-3, "clip_norm": None, "label_smoothing": 0.0, "batch": batch}
    recipe = Recipe.model_validate(fields | {"precision": precision, "recompute": recompute})
    spec, net, _ = both(name, *SIZES.get(name, SIZE))
    net = net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    clips, labels = clips_for(name, batch)
    clips = clips.contiguous(memory_format=torch.channels_last_3d)
    if precision == "bf16":
        prove_bf16(net, clips)
    state = fresh_state(net.train(), spec, recipe)
    return lambda: step(state, recipe, clips, labels, recipe.lr, batch)[0]


def plain_step(name: str, batch: int, precision: str) -> Step:
    """The same as a code base writes it."""
    _, _, net = both(name, *SIZES.get(name, SIZE))
    clips, labels = clips_for(name, batch)
    sgd = torch.optim.SGD(net.train().parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=0.05)

    def run() -> float:
        sgd.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = F.cross_entropy(net(clips), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        sgd.step()
        return float(loss.detach())

    return run


def ratios(ours: Step, peers: Step, times: int) -> list[float]:
    """The peer's seconds over ours, turn by turn, after one step each."""
    found = []
    for turn in range(times + 1):
        took = [_seconds(run) for run in (ours, peers)]
        found += [took[1] / took[0]] if turn else []
    return found


def _seconds(run: Step) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def differences(name: str) -> tuple[float, float]:
    """How far output and gradients of ours are from plain torch's, in fp32: max |difference| over max |value|."""
    _, ours, peers = both(name, *SIZES.get(name, SIZE))
    ours = ours.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    clips, labels = clips_for(name, 2)
    given = (clips.contiguous(memory_format=torch.channels_last_3d), clips)
    logits = [net.train()(clip) for net, clip in zip((ours, peers), given, strict=True)]
    for each in logits:
        F.cross_entropy(each, labels).backward()  # type: ignore[no-untyped-call]
    pairs = zip(_gradients(ours), _gradients(peers), strict=True)
    return _far(logits[0], logits[1]), max(_far(mine.reshape(its.shape), its) for mine, its in pairs)


def _gradients(net: nn.Module) -> list[Tensor]:
    return [weight.grad for weight in net.parameters() if weight.grad is not None]


def _far(mine: Tensor, its: Tensor) -> float:
    return float((mine - its).detach().abs().max() / its.detach().abs().max())


def memory(name: str, side: str, given: argparse.Namespace) -> float:
    """MB that a process of its own has grown by after two steps of one side."""
    words = ["--memory-of", name, "--side", side, "--batch", str(given.batch), "--threads", str(given.threads)]
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    said = subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True, text=True, env=env)
    return float(said.stdout)


def grown(given: argparse.Namespace) -> float:
    """MB of the largest this process was during two steps over what it was before the first."""
    name, batch = given.memory_of, given.batch
    run = plain_step(name, batch, "fp32") if given.side == PLAIN else our_step(name, batch, "fp32", given.side == AGAIN)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        run()
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def of_network(name: str, given: argparse.Namespace) -> list[Claim]:
    """The claims of one network."""
    output, gradient = differences(name)
    if not given.json:
        print(f"{name}: output off by {output:.1e}, gradients by {gradient:.1e} of the largest", flush=True)
    plain = plain_step(name, given.batch, "fp32")
    fp32 = ratios(our_step(name, given.batch, "fp32"), plain, given.times)
    again = ratios(our_step(name, given.batch, "fp32", recompute=True), plain, given.times)
    half = our_step(name, given.batch, "bf16")
    bf16 = ratios(half, plain_step(name, given.batch, "bf16"), given.times)
    chosen = fastest_precision("cpu")
    automatic = fp32 if chosen == "fp32" else ratios(half, plain, given.times)
    sizes = {side: memory(name, side, given) for side in (PLAIN, OURS, AGAIN)}
    return [
        claim(f"{name}: output off in fp32, over {EXACT:g}", [output / EXACT], 1.0, below=True),
        claim(f"{name}: plain's fp32 step over our fp32", fp32, FP32),
        claim(f"{name}: plain's bf16 step over our bf16", bf16, BF16),
        claim(f"{name}: plain's fp32 step over our automatic one, here {chosen}", automatic, AUTOMATIC),
        claim(f"{name}: our peak memory over plain's, fp32", [sizes[OURS] / sizes[PLAIN]], MEMORY, below=True),
        claim(f"{name}: the same with recompute", [sizes[AGAIN] / sizes[PLAIN]], MEMORY, below=True),
        claim(f"{name}: plain's fp32 step over our fp32 with recompute", again, FP32),
    ]


def main() -> None:
    """Measures and prints."""
    options = parser(__doc__)
    options.add_argument("--networks", nargs="+", default=list(NAMES), choices=NAMES)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--times", type=int, default=5)
    options.add_argument("--memory-of", help=argparse.SUPPRESS)
    options.add_argument("--side", help=argparse.SUPPRESS)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    torch.set_flush_denormal(True)
    if given.memory_of:
        print(grown(given))
        return
    print_claims([each for name in given.networks for each in of_network(name, given)], given.json)


if __name__ == "__main__":
    main()
