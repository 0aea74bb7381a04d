"""Successive halving for several objectives: which of the candidates that were trained for a while go on.

Asynchronous (Li et al. 2020, ASHA): whenever a worker is free, the best candidate goes on that is among the first
1/eta of its rung and has not gone on yet; only where there is none, a new candidate begins. Best is by non-domination
rank, then by crowding (Deb et al. 2002), so that a rung keeps cheap and accurate networks alike. A candidate that goes
on is trained on from where it paused: nothing is trained twice.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from archsearch.front.dominance import crowding, ranks
from archsearch.space.space import TRAINED_METRICS, Direction, SearchRecord

Values = Mapping[str, Sequence[float]]  # candidate -> its objectives at a rung


def rung_epochs(search: SearchRecord, epochs: int) -> tuple[int, ...]:
    """The epochs after which each rung is read, ascending; the last is the recipe's."""
    steps = [max(1, round(epochs / search.eta**place)) for place in reversed(range(search.rungs))]
    return tuple(sorted(set(steps)))


def rung_values(objectives: Mapping[str, Direction], metrics: Mapping[str, float]) -> tuple[float, ...]:
    """What a rung ranks a candidate by: objectives that are known before training, and the training loss for others.

    In mid-schedule validation ranks networks at random, while the training loss ranks them nearly as their ends do
    (docs/search.md).
    """
    loss = metrics["train_loss"]
    losses = {"minimize": loss, "maximize": -loss}
    return tuple(
        losses[direction] if name in TRAINED_METRICS else metrics[name] for name, direction in objectives.items()
    )


def best_first(values: Values, maximize: Sequence[bool]) -> list[str]:
    """Candidates by non-domination rank, the lonelier first within a rank, then in the order given."""
    names = list(values)
    if not names:
        return []
    points = np.array([values[name] for name in names], dtype=np.float64)
    rank = ranks(points, maximize)
    lonely = np.zeros(len(names))
    for level in np.unique(rank):
        members = np.flatnonzero(rank == level)
        if not np.isnan(points[members]).any():
            lonely[members] = crowding(points[members])
    return [names[place] for place in np.lexsort([np.arange(len(names)), -lonely, rank])]


def promoted(values: Values, gone: frozenset[str], eta: int, maximize: Sequence[bool]) -> str | None:
    """Of a rung's candidates, the best that is among the first 1/eta and has not `gone` on; or None."""
    quota = math.floor(len(values) / eta)
    for name in best_first(values, maximize)[:quota]:
        if name not in gone:
            return name
    return None
