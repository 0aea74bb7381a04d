"""Counting a network: ours, from a preset's name to macs with nothing kept, against fvcore on the built network.

    python benchmarks/count.py [--json]

Runs are interleaved; ratios are medians with the range of their middle half. Fvcore is given the network ready built,
ours starts from the name.
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from fvcore.nn import FlopCountAnalysis

from archsearch.nets.build import build
from archsearch.spec.cost import total_cost
from archsearch.spec.presets import preset
from archsearch.spec.spec import lower

NETWORKS = ("r3d_18", "mc3_18", "r2plus1d_18")
ROUNDS, OURS_PER_ROUND = 5, 20
AIM_SECONDS, AIM_RATIO = 1e-3, 100.0


def seconds(call: Callable[[], object], times: int = 1) -> float:
    """Mean wall-clock of a call."""
    started = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - started) / times


def measure(name: str) -> dict[str, list[float]]:
    """Interleaved rounds of ours and fvcore's."""
    net = build(preset(name)).eval()
    clip = torch.zeros(1, 3, 16, 112, 112)
    rounds: dict[str, list[float]] = {"ours": [], "fvcore": []}
    for _ in range(ROUNDS):
        rounds["ours"].append(seconds(lambda: total_cost(lower(preset(name))), OURS_PER_ROUND))
        analysis = FlopCountAnalysis(net, (clip,)).unsupported_ops_warnings(False)
        rounds["fvcore"].append(seconds(analysis.total))
    return rounds


def claims(name: str, rounds: dict[str, list[float]]) -> list[dict[str, object]]:
    """The two claims about one network."""
    ratios = np.array(rounds["fvcore"]) / np.array(rounds["ours"])
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    ours = np.quantile(rounds["ours"], [0.25, 0.5, 0.75])
    return [
        {
            "claim": f"{name}: fvcore's time over ours",
            "ratio": round(float(median), 1),
            "aim": AIM_RATIO,
            "met": bool(median >= AIM_RATIO),
            "spread": [round(float(low), 1), round(float(high), 1)],
        },
        {
            "claim": f"{name}: 1 ms over our cold count",
            "ratio": round(float(AIM_SECONDS / ours[1]), 2),
            "aim": 1.0,
            "met": bool(ours[1] <= AIM_SECONDS),
            "spread": [round(float(AIM_SECONDS / ours[2]), 2), round(float(AIM_SECONDS / ours[0]), 2)],
        },
    ]


def main() -> None:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [row for name in NETWORKS for row in claims(name, measure(name))]
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['claim']:40} {row['ratio']:>8} (aim {row['aim']}, middle half {row['spread']})")


if __name__ == "__main__":
    main()
