"""The Optuna study: rebuilt from settled trials at every start, asked and told by one driver."""

import warnings
from collections.abc import Iterable

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, BruteForceSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from archsearch.search.folder import Settled, digest_data
from archsearch.space.choices import Parameter, option_name
from archsearch.space.space import Space

STATES = {"complete": TrialState.COMPLETE, "infeasible": TrialState.PRUNED, "failed": TrialState.FAIL}


def make_sampler(name: str, seed: int, trials: int) -> BaseSampler:
    """A sampler of Optuna's, seeded from (seed, trials so far): with the seed alone, a restart would replay itself."""
    mixed = int(digest_data([seed, trials]), 16) % 2**31
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "random":
            return RandomSampler(seed=mixed)
        if name == "grid":
            return BruteForceSampler(seed=mixed)  # every combination once, in an order drawn at random
        if name == "nsga2":
            return NSGAIISampler(seed=mixed)
        # Its default is univariate and suggests mostly duplicates on a discrete space.
        return TPESampler(multivariate=True, group=True, constant_liar=True, seed=mixed)


def new_study(space: Space, settled: Iterable[Settled]) -> optuna.Study:
    """A study in memory that knows every settled trial."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    directions = list(space.objectives.values())
    study = optuna.create_study(directions=directions, sampler=RandomSampler(seed=0))
    study.add_trials([as_trial(space, trial) for trial in settled])
    return study


def as_trial(space: Space, trial: Settled) -> FrozenTrial:
    """A settled trial as Optuna keeps it."""
    distributions = {p.path: distribution(p) for p in space.parameters if p.path in trial.params}
    return create_trial(
        state=STATES[trial.state],
        values=objective_values(space, trial) if trial.state == "complete" else None,
        params=trial.params,
        distributions=distributions,
        constraints=dict(trial.constraints or {}),
    )


def objective_values(space: Space, trial: Settled) -> list[float]:
    """The objectives of a complete trial, in the space's order."""
    return [trial.metrics[name] for name in space.objectives]


def tell(study: optuna.Study, space: Space, number: int, trial: Settled) -> None:
    """Tells the study's trial `number` its outcome: infeasible as PRUNED, since of FAIL samplers learn nothing."""
    if trial.state == "complete":
        study.tell(number, objective_values(space, trial))
    else:
        study.tell(number, state=STATES[trial.state])


def distribution(parameter: Parameter) -> BaseDistribution:
    """What `Parameter.suggest` asks for."""
    if parameter.step:
        return IntDistribution(int(parameter.options[0]), int(parameter.options[-1]), step=parameter.step)
    return CategoricalDistribution([option_name(option) for option in parameter.options])
