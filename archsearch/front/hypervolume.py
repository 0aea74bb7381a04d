"""The volume that a set of points dominates: one number for the quality of a whole front."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from archsearch.front.dominance import Floats, costs, ranks


def hypervolume(values: ArrayLike, maximize: Sequence[bool], reference: ArrayLike) -> float:
    """Volume between the points and `reference`, exact for any number of objectives.

    `values` (points, objectives), `reference` (objectives) in the units of the objectives; so is the result.
    Points that are not better than the reference everywhere, or hold a NaN, add nothing.
    """
    cost = costs(values, maximize)
    limit = costs(np.asarray(reference, dtype=np.float64)[None], maximize)[0]
    return _volume(cost[(cost < limit).all(axis=1)], limit)


def reference_point(values: ArrayLike, maximize: Sequence[bool]) -> Floats:
    """The worst finite value observed in each objective: (objectives).

    Nothing is added to it, also for costs that span orders of magnitude. A point that is worst in one
    objective then adds no volume of its own. Raises ValueError when an objective has no finite value.
    """
    cost = costs(values, maximize)
    finite = np.isfinite(cost)
    if not finite.any(axis=0).all():
        raise ValueError("a reference point needs a finite value of every objective")
    worst: Floats = cost.max(axis=0, where=finite, initial=-np.inf)
    return worst * np.where(maximize, -1.0, 1.0) + 0.0


def normalised_hypervolume(values: ArrayLike, maximize: Sequence[bool]) -> float:
    """Share, 0..1, of the box between the worst and the best observed values that the points dominate.

    Only points with finite values count, and objectives in which they differ; 0 when they differ in none, so
    for one point or no point. The box grows with the points: compare numbers of one set of points only.
    """
    cost = costs(values, maximize)
    cost = cost[np.isfinite(cost).all(axis=1)]
    if len(cost) == 0:
        return 0.0
    span = np.ptp(cost, axis=0)
    if not span.any():
        return 0.0
    unit = ((cost - cost.min(axis=0)) / np.where(span > 0, span, 1.0))[:, span > 0]
    return min(1.0, _volume(unit, np.ones(unit.shape[1])))


def _volume(cost: Floats, limit: Floats) -> float:
    """Volume that `cost` (points, objectives), none above `limit`, dominates.

    Two objectives are one sweep. More are cut along the last one: the slab above a point is as thick as the
    way to the next point, and its base is the volume of all points so far in the other objectives (HSO, While
    et al. 2006). Thousands of points of three objectives, or a hundred of four, take less than a second.
    """
    if len(cost) == 0:
        return 0.0
    if cost.shape[1] == 1:
        return float(limit[0] - cost.min())
    if cost.shape[1] > 2:
        cost = np.unique(cost[ranks(cost, [False] * cost.shape[1]) == 0], axis=0)
    cost = cost[np.argsort(cost[:, -1])]
    thickness = np.diff(cost[:, -1], append=limit[-1])
    if cost.shape[1] == 2:
        return float(thickness @ (limit[0] - np.minimum.accumulate(cost[:, 0])))
    slabs = np.flatnonzero(thickness)
    return float(sum(thickness[i] * _volume(cost[: i + 1, :-1], limit[:-1]) for i in slabs))
