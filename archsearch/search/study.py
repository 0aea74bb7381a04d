"""The Optuna study: rebuilt from settled trials at every start, asked and told by one driver."""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from archsearch.errors import MissingExtra
from archsearch.search.evolution import EvolutionSampler
from archsearch.search.folder import Settled, digest_data
from archsearch.space.choices import Parameter, option_name
from archsearch.space.space import Space

STATES = {
    "complete": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "infeasible": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}

STOPPED = "stopped"  # a constraint that only stopped trials break: what they read is no value of the objectives


def make_sampler(space: Space, trials: int) -> BaseSampler:
    """The space's sampler, seeded from (seed, trials so far): with the seed alone, a restart would replay itself.

    Raises MissingExtra where a sampler's package is not installed.
    """
    mixed = int(digest_data([space.search.seed, trials]), 16) % 2**31
    makers: dict[str, Callable[[], BaseSampler]] = {
        # Its default is univariate and suggests mostly duplicates on a discrete space.
        "tpe": lambda: TPESampler(multivariate=True, group=True, constant_liar=True, seed=mixed),
        "nsga2": lambda: NSGAIISampler(seed=mixed),
        "nsga3": lambda: NSGAIIISampler(seed=mixed),
        "gp": lambda: GPSampler(seed=mixed),
        "cmaes": lambda: CmaEsSampler(seed=mixed),
        "evolution": lambda: EvolutionSampler(mixed),
        "surrogate": lambda: RandomSampler(seed=mixed),  # until there is a model (see `guide`)
        "random": lambda: RandomSampler(seed=mixed),
        "grid": lambda: RandomSampler(seed=mixed),  # the driver walks it
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            return makers[space.search.sampler]()
        except ImportError:
            raise MissingExtra(
                f"sampler {space.search.sampler}: install its packages: pip install 'archsearch[samplers]'"
            ) from None


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
    state, values = outcome(trial, list(space.objectives))
    return create_trial(
        state=state,
        values=values,
        params=trial.params,
        distributions=distributions,
        constraints=_constraints(trial),
        user_attrs={f"rung{place}": dict(rung["metrics"]) for place, rung in enumerate(trial.rungs)},
    )


def outcome(trial: Settled, objectives: Sequence[str]) -> tuple[TrialState, list[float] | None]:
    """A trial's state and values as Optuna keeps them; without a value of every objective it has failed."""
    values = [trial.metrics.get(name, math.nan) for name in objectives]
    if trial.state != "complete":
        return STATES[trial.state], None
    return (TrialState.FAIL, None) if any(map(math.isnan, values)) else (TrialState.COMPLETE, values)


def _constraints(trial: Settled) -> dict[str, float]:
    return dict(trial.constraints or {}) | ({STOPPED: 1.0} if trial.state == "stopped" else {})


def objective_values(space: Space, trial: Settled) -> list[float]:
    """The objectives of a complete trial, in the space's order."""
    return [trial.metrics[name] for name in space.objectives]


def tell(study: optuna.Study, space: Space, asked: optuna.Trial, trial: Settled) -> None:
    """Tells the study a trial's outcome: infeasible as PRUNED, since of FAIL samplers learn nothing."""
    if trial.state == "complete":
        study.tell(asked, objective_values(space, trial))
    else:
        constraints = _constraints(trial)
        for name in constraints.keys() - asked.constraints.keys():
            asked.set_constraint(name, constraints[name])
        study.tell(asked, state=STATES[trial.state])


def tell_rung(asked: optuna.Trial, rung: int, metrics: Mapping[str, float]) -> None:
    """Notes what was read at a rung, for people: samplers do not look at it."""
    asked.set_user_attr(f"rung{rung}", dict(metrics))


def distribution(parameter: Parameter) -> BaseDistribution:
    """What `Parameter.suggest` asks for."""
    if parameter.step:
        return IntDistribution(int(parameter.options[0]), int(parameter.options[-1]), step=parameter.step)
    return CategoricalDistribution([option_name(option) for option in parameter.options])
