"""Costing a whole space: candidates a second, from nothing kept, against lowering them one by one.

    python benchmarks/space.py [--json]

The space is an 18-layer network whose five groups each choose a kind of convolution, a width and, but for the stem, a
depth: 4,782,969 combinations. Each round enumerates all of them with a new `Coster`, then lowers and counts a random
few one by one, with equal results. Ratios are medians with the range of their middle half.
"""

import time
from pathlib import Path

import numpy as np
from claims import claim, parser, print_claims

from archsearch.report.networks import space_costs
from archsearch.space.costing import Coster, samples
from archsearch.space.file import parse_space
from archsearch.space.space import Space
from archsearch.spec.cost import total_cost
from archsearch.spec.kept import stage_result
from archsearch.spec.spec import lower

ROUNDS, ONE_BY_ONE = 5, 300
AIM_RATE = 100_000.0  # candidates a second


def space() -> Space:
    """An 18-layer space of 3 ** 14 combinations."""
    groups = ["stem", "res*"]
    vary = [
        {"field": "conv", "stages": groups, "each": ["2d", "3d", "2+1d"]},
        {"field": "width", "stages": groups, "each": {"scale": [0.5, 0.75, 1]}},
        {"field": "depth", "stages": ["res*"], "each": [1, 2, 3]},
    ]
    return parse_space({"name": "large", "base": "r3d_18", "vary": vary}, "large", Path("."))


def measure(large: Space) -> dict[str, list[float]]:
    """Candidates a second of both ways, by round."""
    (rows,) = samples(large, ONE_BY_ONE)
    rates: dict[str, list[float]] = {"space": [], "one by one": []}
    for _ in range(ROUNDS):
        stage_result.cache_clear()
        started = time.perf_counter()
        counted = space_costs(large, enumerate_all=True).counted
        rates["space"].append(counted / (time.perf_counter() - started))
        started = time.perf_counter()
        macs = [total_cost(lower(large.spec_at(tuple(row)))).macs for row in rows.tolist()]
        rates["one by one"].append(len(macs) / (time.perf_counter() - started))
        assert macs == Coster(large).costs(rows).macs.tolist()
    return rates


def main() -> None:
    """Prints a table, or JSON."""
    given = parser(__doc__).parse_args()
    rates = measure(space())
    ours = np.array(rates["space"])
    claims = [
        claim("candidates costed a second", ours, AIM_RATE),
        claim("the same, lowered one by one: times longer", ours / rates["one by one"], 1.0),
    ]
    print_claims(claims, given.json)


if __name__ == "__main__":
    main()
