"""Counting networks: ours, from a preset's name to macs with nothing kept, against fvcore on the built network.

    python benchmarks/count.py [--every] [--json]

Runs are interleaved; ratios are medians with the range of their middle half. Fvcore is given the network ready built,
ours starts from the name. `--every` counts each preset at its own clip, which takes six to fifteen minutes.
"""

import random
import resource
import sys
from collections.abc import Iterable

import numpy as np
import torch
from claims import Claim, claim, parser, print_claims, seconds
from fvcore.nn import FlopCountAnalysis

from archsearch.nets.build import build_graph
from archsearch.spec.cost import total_cost
from archsearch.spec.kept import kept_cost, stage_result
from archsearch.spec.presets import PRESETS, preset
from archsearch.spec.residual import ResidualStage
from archsearch.spec.spec import Spec, lower

ALONE = ("r3d_18", "mc3_18", "r2plus1d_18")
FAMILIES = (*ALONE, "resnet3d_50", "densenet3d_121", "ir_csn_50", "slow_r50", "x3d_s", "movinet_a0", "i2d", "fast_s3d")
ROUNDS, OURS_PER_ROUND = 5, 20
AIM_SECONDS, AIM_COLD, AIM_KEPT, AIM_MEMORY = 1e-3, 1000.0, 10_000.0, 1.02
SPECS, SEEN_BY_FVCORE = 4000, 12  # different specs counted with results kept; how many of them fvcore counts


def count_cold(name: str) -> None:
    """From a name to macs, nothing kept."""
    total_cost(lower(preset(name)))


def fvcore_seconds(spec: Spec) -> float:
    """Fvcore's count of the network, built beforehand; without gradients, which makes it a little faster."""
    net = build_graph(lower(spec), spec.name).eval()
    clips = tuple(torch.zeros(1, *size) for size in spec.inputs.values())
    analysis = FlopCountAnalysis(net, clips).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with torch.no_grad():
        return seconds(analysis.total)


def alone(name: str) -> list[Claim]:
    """One network, over and over."""
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(seconds(lambda: count_cold(name), OURS_PER_ROUND))
        theirs.append(fvcore_seconds(preset(name)))
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return [
        claim(f"{name}: fvcore's time over ours", ratios, 100.0),
        claim(f"{name}: 1 ms over our cold count", [AIM_SECONDS / each for each in ours], 1.0),
    ]


def together(names: Iterable[str], rounds: int) -> Claim:
    """A list of networks, each counted by both in turn."""
    names = list(names)
    ratios = []
    for _ in range(rounds):
        ours = theirs = 0.0
        for name in names:
            ours += seconds(lambda name=name: count_cold(name), 3)  # type: ignore[misc]
            theirs += fvcore_seconds(preset(name))
            print(f"{name}: {theirs:.1f} s of fvcore's, {ours:.4f} s of ours so far", file=sys.stderr)
        ratios.append(theirs / ours)
    return claim(f"{len(names)} presets together, cold: fvcore's time over ours", ratios, AIM_COLD)


def drawn(count: int, seed: int) -> list[Spec]:
    """Different specs: R3D-18 with the kind, depth and width of every stage at random."""
    rng = random.Random(seed)
    base = preset("r3d_18")
    found: dict[tuple[object, ...], Spec] = {}
    while len(found) < count:
        choices = tuple((rng.choice(["2d", "3d", "2+1d"]), rng.choice([1, 2, 3]), rng.choice([1, 2])) for _ in range(4))
        stages = [
            stage.model_copy(update={"conv": kind, "depth": depth, "width": stage.width * wide // 2})
            for stage, (kind, depth, wide) in zip(
                [s for s in base.stages if isinstance(s, ResidualStage)], choices, strict=True
            )
        ]
        found[choices] = base.model_copy(update={"stages": (base.stages[0], *stages, base.stages[-1])})
    return list(found.values())


def kept() -> Claim:
    """Different specs with stage results kept, the filling included, against fvcore on some of them."""
    ratios = []
    for seed in range(ROUNDS):
        specs = drawn(SPECS, seed)
        stage_result.cache_clear()
        ours = seconds(lambda specs=specs: [kept_cost(spec) for spec in specs]) / SPECS  # type: ignore[misc]
        theirs = np.mean([fvcore_seconds(spec) for spec in specs[:SEEN_BY_FVCORE]])
        ratios.append(float(theirs) / ours)
    return claim(f"{SPECS} different specs, stage results kept: fvcore's time over ours", ratios, AIM_KEPT)


def memory() -> Claim:
    """How resident memory grows once the kept results are all there are."""
    peaks = []
    for seed in range(3):
        for spec in drawn(SPECS, 100 + seed):
            kept_cost(spec)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return claim(
        f"resident memory after {3 * SPECS} specs over after {SPECS}", [peaks[-1] / peaks[0]], AIM_MEMORY, below=True
    )


def main() -> None:
    """Prints a table, or JSON."""
    options = parser(__doc__)
    options.add_argument("--every", action="store_true", help="every preset instead of one or two a family")
    given = options.parse_args()
    claims = [memory()] + [found for name in ALONE for found in alone(name)] + [kept()]
    claims.append(together(PRESETS, 1) if given.every else together(FAMILIES, 3))
    print_claims(claims, given.json)


if __name__ == "__main__":
    main()
