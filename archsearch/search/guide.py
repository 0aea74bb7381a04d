"""What a surrogate makes of a search: which candidate begins and which goes on, by what each is expected to add.

What is known before training (multiply-adds, predicted latency, ...) is taken as it is; all other objectives are
modelled from the ends of trainings and from the training losses of all rungs, which rank networks long before
validation does (Ru et al. 2021). A candidate is worth the hypervolume that it is expected to add when it is trained to
the end, for each epoch that is left of that.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from archsearch.errors import SpecError
from archsearch.front.dominance import ranks
from archsearch.search.plan import Check, check
from archsearch.search.state import Entrant, Search
from archsearch.search.surrogate import Floats, Readings, Surrogate, expected_gains
from archsearch.space.choices import Parameter, option_name
from archsearch.space.space import Space

STARTERS = 4  # candidates that are read before there is a model
POOL = 1_000  # combinations of choices that are looked at; all there are, if they are fewer
DRAWS = 12  # of what is not known of a candidate
LATEST = 200  # candidates' readings that the model is fitted to, those of the highest rungs first
LOSS = "train_loss"

Positions = tuple[int, ...]


@dataclass(frozen=True)
class Option:
    """A candidate that may begin or go on: its choices, what is known of it before training, the epochs it needs."""

    params: Mapping[str, Any]
    cost: Mapping[str, float]
    epochs: int


@dataclass(frozen=True)
class Read:
    """What a candidate was measured as at a rung; `values` are its objectives, at the end alone."""

    candidate: str
    rung: int
    params: Mapping[str, Any]
    loss: float  # of training
    values: tuple[float, ...] | None = None


def has_model(search: Search) -> bool:
    """Whether enough candidates were read for one."""
    return len({each.candidate for each in read_so_far(search)}) >= STARTERS


def proposed(search: Search) -> Iterator[Mapping[str, Any]]:
    """The choices of candidates that may begin, the most promising first."""
    options = _beginners(search)
    for place in np.argsort(-worth(search, options), kind="stable"):
        yield options[int(place)].params


def goes_on(search: Search) -> str | None:
    """The candidate between rungs that is worth more than all others and than any that may begin; None for no such."""
    waiting = {name: entrant for name, entrant in search.entrants.items() if _may_go_on(search, entrant)}
    if not waiting:
        return None
    options = [_option(entrant) for entrant in waiting.values()]
    best = int(np.argmax(worth(search, options + (_beginners(search) if search.wants_more else []))))
    return list(waiting)[best] if best < len(waiting) else None


def _may_go_on(search: Search, entrant: Entrant) -> bool:
    """Whether a candidate waits between rungs, and its next one can be afforded."""
    waits = not entrant.under_way and bool(entrant.results)
    return waits and search.affords(entrant.next_stop - entrant.committed)


def _option(entrant: Entrant) -> Option:
    done: int = entrant.results[-1]["epochs"] if entrant.results else 0
    return Option(entrant.first.params, entrant.first.cost, entrant.recipe.epochs - done)


def _beginners(search: Search) -> list[Option]:
    """Feasible candidates that are neither known nor under way."""
    space, taken, found = search.plan.space, {*search.by_candidate, *search.entrants}, []
    for positions in _pool(search):
        facts = _facts(search, positions)
        if facts is not None and facts.reason is None and facts.candidate not in taken:
            found.append(Option(space.choices(positions), facts.cost, search.plan.recipe.epochs))
    return found


def _facts(search: Search, positions: Positions) -> Check | None:
    """What is known of a combination, looked up once; None where it cannot be."""
    if positions not in search.looked_at:
        try:
            search.looked_at[positions] = check(search.plan, search.plan.space.spec_at(positions))
        except SpecError:
            search.looked_at[positions] = None
    return search.looked_at[positions]


def _pool(search: Search) -> Iterator[Positions]:
    """Combinations to choose from: all, or random ones and those that differ from the best by a choice."""
    space = search.plan.space
    if space.size <= POOL:
        yield from space.all_positions()
        return
    yield from space.sample_positions(POOL // 2, seed=search.next_number)
    near = _near_best(search)
    yield from random.Random(search.next_number).sample(near, min(len(near), POOL // 2))


def _near_best(search: Search) -> list[Positions]:
    """Combinations that differ by one choice from those on the front."""
    space = search.plan.space
    ends = [each for each in read_so_far(search) if each.values]
    if not ends:
        return []
    first = ranks([each.values or () for each in ends], [way == "maximize" for way in space.objectives.values()]) == 0
    found = []
    for each in (ends[int(place)] for place in np.flatnonzero(first)):
        here = tuple(_place(parameter, each.params) for parameter in space.parameters)
        for place, parameter in enumerate(space.parameters):
            others = (other for other in range(len(parameter.options)) if other != here[place])
            found += [(*here[:place], other, *here[place + 1 :]) for other in others]
    return found


def read_so_far(search: Search) -> list[Read]:
    """What every candidate read at every rung, the highest rung first; what is not finite is left out."""
    found = []
    for name, trial in search.by_candidate.items():
        losses = [rung["metrics"][LOSS] for rung in trial.rungs]
        found += [Read(name, place, trial.params, loss) for place, loss in enumerate(losses)]
        if trial.state == "complete":
            values = tuple(trial.metrics[objective] for objective in search.plan.space.objectives)
            found.append(Read(name, len(search.rungs), trial.params, trial.metrics[LOSS], values))
    for name, entrant in search.entrants.items():
        losses = [result["metrics"][LOSS] for result in entrant.results]
        found += [Read(name, place, entrant.first.params, loss) for place, loss in enumerate(losses)]
    finite = [each for each in found if np.isfinite([each.loss, *(each.values or ())]).all()]
    return sorted(finite, key=lambda each: -each.rung)[:LATEST]


def worth(search: Search, options: Sequence[Option]) -> Floats:
    """The hypervolume (n) that each option is expected to add to the front, for each epoch that it needs."""
    if not options:
        return np.zeros(0)
    space, read = search.plan.space, read_so_far(search)
    signs = np.array([1.0 if direction == "maximize" else -1.0 for direction in space.objectives.values()])
    whole = np.array([each.values for each in read if each.values]).reshape(-1, len(signs)) * signs
    pending = [_option(entrant) for entrant in search.running.values()]
    mean, spread = np.zeros((2, len(options) + len(pending), len(signs)))
    for place in range(len(signs)):
        mean[:, place], spread[:, place] = _foreseen(search, read, [*options, *pending], place)
    seen = np.concatenate([mean, whole])
    low, size = seen.min(0), np.maximum(np.ptp(seen, 0), 1e-12)
    front = np.concatenate([whole, mean[len(options) :]])  # what is under way counts as it is expected to end
    ends = (mean[: len(options)] - low) / size
    gains = expected_gains((front - low) / size, ends, spread[: len(options)] / size, _draws(len(signs)))
    found: Floats = gains / [option.epochs for option in options]
    return found


def _foreseen(search: Search, read: Sequence[Read], options: Sequence[Option], objective: int) -> tuple[Floats, Floats]:
    """Mean and standard deviation of an objective (n), more being better: as it is known, or as the model has it."""
    space = search.plan.space
    name, direction = list(space.objectives.items())[objective]
    sign = 1.0 if direction == "maximize" else -1.0
    if all(name in option.cost for option in options):
        return sign * np.array([option.cost[name] for option in options]), np.zeros(len(options))
    known = tuple((each.candidate, each.rung) for each in read)
    if search.models.get(objective, ((), None))[0] != known:  # what is asked twice between two readings is fitted once
        search.models[objective] = known, _fitted(space, read, objective, sign)
    model: Surrogate = search.models[objective][1]
    return model.predict(np.array([encoded(space, option.params) for option in options]))


def _fitted(space: Space, read: Sequence[Read], objective: int, sign: float) -> Surrogate:
    """The model of an objective."""
    rows = [(each, 0, sign * each.values[objective]) for each in read if each.values]
    rows += [(each, 1, -each.loss) for each in read]
    readings = Readings(
        np.array([encoded(space, each.params) for each, _, _ in rows]),
        np.array([each.rung for each, _, _ in rows]),
        np.array([kind for _, kind, _ in rows]),
        np.array([value for _, _, value in rows]),
    )
    return Surrogate(readings)


def encoded(space: Space, params: Mapping[str, Any]) -> list[float]:
    """Choices as numbers from -1 to 1: numbers by their place among the options, names by one number each."""
    found: list[float] = []
    for parameter in space.parameters:
        count, place = len(parameter.options), _place(parameter, params)
        if count == 2 or (count > 2 and all(isinstance(option, int | float) for option in parameter.options)):
            found.append(2 * place / (count - 1) - 1)
        elif count > 2:
            found += [1.0 if place == other else -1.0 for other in range(count)]
    return found


def _place(parameter: Parameter, params: Mapping[str, Any]) -> int:
    """Where a parameter's value lies among its options."""
    names = [option_name(option) for option in parameter.options]
    return names.index(params[parameter.path]) if len(names) > 1 else 0


def _draws(objectives: int) -> Floats:
    """Of a standard normal for each objective (DRAWS, objectives): its quantiles, in an order of their own for each."""
    quantiles = [NormalDist().inv_cdf((place + 0.5) / DRAWS) for place in range(DRAWS)]
    return np.stack([np.random.default_rng(column).permutation(quantiles) for column in range(objectives)], 1)
