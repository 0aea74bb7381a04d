"""Successive halving for several objectives: which of the candidates that were trained for a while go on.

Asynchronous (Li et al. 2020, ASHA): whenever a worker is free, the best candidate goes on that is among the first
1/eta of its rung and has not gone on yet; only where there is none, a new candidate begins. Best is by non-domination
rank, then by crowding (Deb et al. 2002), so that a rung keeps cheap and accurate networks alike.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from archsearch.front.dominance import crowding, ranks
from archsearch.space.space import SearchRecord
from archsearch.training.recipe import Recipe

Values = Mapping[str, Sequence[float]]  # candidate -> its objectives at a rung


def rung_epochs(search: SearchRecord, epochs: int) -> tuple[int, ...]:
    """Epochs of each rung's training, ascending; the last is the recipe's."""
    steps = [max(1, round(epochs / search.eta**place)) for place in reversed(range(search.rungs))]
    return tuple(sorted(set(steps)))


def rung_recipe(recipe: Recipe, epochs: int) -> Recipe:
    """The same recipe as a complete schedule of fewer epochs: what it reads at its end is annealed."""
    if epochs == recipe.epochs:
        return recipe
    share = epochs / recipe.epochs
    milestones = tuple(place if place < 1 else place / recipe.epochs for place in recipe.milestones)
    update = {"epochs": epochs, "warmup_epochs": recipe.warmup_epochs * share, "milestones": milestones}
    return recipe.model_copy(update=update)


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
