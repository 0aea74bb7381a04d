"""Regularised evolution: a member of the recent front changes one of its choices (Real et al. 2019, for fronts)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from archsearch.front.dominance import crowding, ranks

POPULATION, CONTEST = 48, 8  # the latest complete trials live; of so many drawn, the best is a parent
STARTERS = 8  # complete trials before the first child


class EvolutionSampler(BaseSampler):
    """Proposes children: the latest trials live, the best of a few drawn is the parent, one choice changes.

    Best is by non-domination rank, then by crowding. Everything is drawn from `seed` and the study's trials.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._first = RandomSampler(seed=seed)
        self._space = IntersectionSearchSpace(include_pruned=True)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The choices that all trials had, those with one option left out."""
        return {name: kind for name, kind in self._space.calculate(study).items() if not kind.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A child's choices; none before there are enough trials to choose parents from."""
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))[-POPULATION:]
        if len(trials) < STARTERS or not search_space:
            return {}
        parent = self._parent(study, trials)
        child = {name: parent.params[name] for name in search_space}
        changed = str(self._rng.choice(sorted(search_space)))
        others = [option for option in _options(search_space[changed]) if option != child[changed]]
        child[changed] = others[int(self._rng.integers(len(others)))]
        return child

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A choice drawn at random."""
        return self._first.sample_independent(study, trial, param_name, param_distribution)

    def _parent(self, study: Study, trials: Sequence[FrozenTrial]) -> FrozenTrial:
        drawn = self._rng.choice(len(trials), min(CONTEST, len(trials)), replace=False)
        values = np.array([trials[place].values for place in drawn])
        rank = ranks(values, [direction == StudyDirection.MAXIMIZE for direction in study.directions])
        first = np.flatnonzero(rank == 0)
        return trials[int(drawn[first[int(np.argmax(crowding(values[first])))]])]


def _options(distribution: BaseDistribution) -> Sequence[Any]:
    """Every value of a choice."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, IntDistribution)
    return range(distribution.low, distribution.high + 1, distribution.step)
