"""How a front grew, and which published design each network is nearest to."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from archsearch.front.dominance import Floats, costs
from archsearch.front.hypervolume import hypervolume

EXACT = 2  # objectives up to which volumes are computed; of more they are estimated
POINTS = 10_000  # that estimate a volume: one standard error is at most 0.5 % of the box


def growth(values: ArrayLike, maximize: Sequence[bool]) -> Floats:
    """The normalised hypervolume after each point, in their order: (points), in the box of all of them.

    The last is `normalised_hypervolume` of all, where there are at most two objectives; of more, it is estimated by
    random points in the box, the same ones at each step. Points that are not finite change nothing.
    """
    cost = costs(values, maximize)
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(cost).all(axis=1))
    result = np.zeros(len(cost))
    if not finite.any():
        return result
    low, high = cost[finite].min(axis=0), cost[finite].max(axis=0)
    varied = np.asarray(high > low)
    if not varied.any():
        return result
    unit = (cost[:, varied] - low[varied]) / (high - low)[varied]
    return _exact(unit, finite) if unit.shape[1] <= EXACT else _estimated(unit, finite)


def _exact(unit: Floats, finite: NDArray[np.bool_]) -> Floats:
    ones, members, volume = np.ones(unit.shape[1]), np.empty((0, unit.shape[1])), 0.0
    result = np.zeros(len(unit))
    for place, point in enumerate(unit):
        if finite[place] and not (members <= point).all(axis=1).any():
            members = np.vstack([members[~(point <= members).all(axis=1)], point])
            volume = min(1.0, hypervolume(members, [False] * unit.shape[1], ones))
        result[place] = volume
    return result


def _estimated(unit: Floats, finite: NDArray[np.bool_]) -> Floats:
    free = np.random.default_rng(0).random((POINTS, unit.shape[1]))
    members, result = np.empty((0, unit.shape[1])), np.zeros(len(unit))
    for place, point in enumerate(unit):
        if finite[place] and not (members <= point).all(axis=1).any():
            members = np.vstack([members[~(point <= members).all(axis=1)], point])
            free = free[~(point <= free).all(axis=1)]
        result[place] = 1 - len(free) / POINTS
    return result


def nearest_design(choices: Mapping[str, Any], designs: Mapping[str, Mapping[str, Any]]) -> tuple[str, int] | None:
    """The published design that differs in the fewest choices, and in how many; the first of several.

    None where there is no design. A choice that only one of the two has met counts as different.
    """
    counts = {name: differing(choices, design) for name, design in designs.items()}
    best = min(counts, key=lambda name: len(counts[name]), default=None)
    return None if best is None else (best, len(counts[best]))


def differing(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[str]:
    """The choices in which two networks differ."""
    return [name for name in dict.fromkeys([*left, *right]) if left.get(name) != right.get(name)]
