"""Which points are beaten by which: non-domination ranks, the Pareto front and how crowded it is.

A point dominates another when it is at least as good in every objective and better in one. Points are rows of
`values` (points, objectives); `maximize` says for each objective whether more is better.
"""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


def costs(values: ArrayLike, maximize: Sequence[bool]) -> Floats:
    """`values` with every objective turned into a cost, less is better: (points, objectives).

    Raises ValueError when the rows do not hold one value per objective.
    """
    points = np.asarray(values, dtype=np.float64)
    points = points.reshape(0, len(maximize)) if points.size == 0 else points
    if points.ndim != 2 or points.shape[1] != len(maximize):
        raise ValueError(f"values must be (points, {len(maximize)}), got {points.shape}")
    return points * np.where(maximize, -1.0, 1.0) + 0.0  # + 0.0: one zero, not two


def ranks(values: ArrayLike, maximize: Sequence[bool]) -> Indices:
    """Non-domination rank of every point: 0 is the front, 1 the front of what is left, and so on.

    Equal points share a rank. Points with a NaN come after all others, together. Two objectives take
    O(n log n), more take O(n^2) time and O(n) memory. (Deb et al. 2002, NSGA-II, section III.A.)
    """
    cost = costs(values, maximize)
    known = ~np.isnan(cost).any(axis=1)
    result = np.zeros(len(cost), dtype=np.intp)
    if known.any():
        distinct, place = np.unique(cost[known], axis=0, return_inverse=True)
        rank = _ranks_of_two if distinct.shape[1] == 2 else _ranks_of_many
        result[known] = rank(distinct)[place.reshape(-1)]
        result[~known] = result.max() + 1
    return result


def _ranks_of_two(sorted_costs: Floats) -> Indices:
    """Ranks of distinct, lexically sorted points with two costs.

    A point can only be dominated by earlier ones, and by a front exactly if the front's lowest second cost so
    far is not above its own. These lowest costs rise from front to front, so a bisection finds the rank.
    """
    lowest: list[float] = []
    result = np.empty(len(sorted_costs), dtype=np.intp)
    for index, cost in enumerate(sorted_costs[:, 1].tolist()):
        rank = bisect_right(lowest, cost)
        lowest[rank : rank + 1] = [cost]
        result[index] = rank
    return result


def _ranks_of_many(sorted_costs: Floats) -> Indices:
    """Ranks of distinct, lexically sorted points: one more than the worst rank among those that dominate."""
    result = np.zeros(len(sorted_costs), dtype=np.intp)
    columns = np.ascontiguousarray(sorted_costs.T[1:])
    for index in range(1, len(sorted_costs)):
        dominating = np.ones(index, dtype=bool)
        for column in columns:
            dominating &= column[:index] <= column[index]
        result[index] = result[:index].max(where=dominating, initial=-1) + 1
    return result


def front(values: ArrayLike, maximize: Sequence[bool]) -> Indices:
    """Indices of the points nobody dominates, all copies of equal points included; never one with a NaN.

    Ordered best first by the last minimised objective (cheapest first, where costs are written after
    accuracy), or by the last objective when all are maximised; ties by the other objectives, then by index.
    """
    cost = costs(values, maximize)
    known = ~np.isnan(cost).any(axis=1)
    members = np.flatnonzero(known & (ranks(values, maximize) == 0))
    minimised = [index for index, more in enumerate(maximize) if not more]
    leading = minimised[-1] if minimised else len(maximize) - 1
    return members[np.lexsort([*cost[members].T, cost[members, leading]])]


def crowding(values: ArrayLike) -> Floats:
    """Crowding distance of points of one front: the width of the gap each stands in, infinite at the ends.

    For each objective the distance between the two neighbours over the range of the front, summed; an
    objective without a finite range adds nothing. Higher is lonelier. `values` (points, objectives), free of
    NaN. (Deb et al. 2002, NSGA-II, section III.B.)
    """
    points = np.asarray(values, dtype=np.float64)
    distance = np.zeros(len(points))
    for column in points.T:
        order = np.argsort(column, kind="stable")
        value = column[order]
        if len(value) == 0 or not np.isfinite(value[[0, -1]]).all() or value[0] == value[-1]:
            continue
        distance[order[1:-1]] += (value[2:] - value[:-2]) / (value[-1] - value[0])
        distance[order[[0, -1]]] = np.inf
    return distance
