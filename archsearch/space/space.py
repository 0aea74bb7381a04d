"""A search space: a base network, what varies in it, what is aimed at and what is forbidden."""

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, model_validator

from archsearch.errors import SpecError
from archsearch.files import Record
from archsearch.space.choices import (
    Parameter,
    Settings,
    Trial,
    assign,
    option_name,
)
from archsearch.space.latency import Timing, predicted
from archsearch.spec.cost import metrics
from archsearch.spec.graph import Graph
from archsearch.spec.latency import Table
from archsearch.spec.spec import Spec, digest, lower, with_classes

Direction = Literal["maximize", "minimize"]
Score = Literal["naswot", "synflow", "zen", "entropy"]  # see archsearch.nets.scores
SCORES: tuple[str, ...] = get_args(Score)
TRAINED_METRICS = ("top1", "clip_top1", "map", "loss")  # known of a network that was trained to the end


class Limit(Record):
    """A hard limit: a candidate outside it is not trained."""

    min: Annotated[float, Field(ge=0)] | None = None
    max: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _check(self) -> "Limit":
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self

    def __str__(self) -> str:
        bounds = [f"{word} {bound:g}" for word, bound in (("min", self.min), ("max", self.max)) if bound is not None]
        return ", ".join(bounds)

    def excess(self, value: float) -> float:
        """How far a value is outside, as a share of the limit; 0 or less inside."""
        over = value / self.max - 1 if self.max else -1.0
        under = 1 - value / self.min if self.min else -1.0
        return max(over, under)


FORGETFUL = ("nsga2", "nsga3", "cmaes")  # samplers whose generations lie in the study that is made anew


class SearchRecord(Record):
    """How candidates are proposed."""

    sampler: Literal["tpe", "nsga2", "nsga3", "gp", "cmaes", "evolution", "surrogate", "random", "grid"] = "tpe"
    trials: Annotated[int, Field(ge=1)] = 24  # distinct candidates to train
    seed: Annotated[int, Field(ge=0)] = 0
    order: Literal["async", "fixed"] = "async"  # fixed: the whole search is a function of its files and the seed
    block: Annotated[int, Field(ge=1)] = 4  # candidates asked at once where the order is fixed
    rungs: Annotated[int, Field(ge=1, le=6)] = 1  # pauses and the end: who is among the best at a pause is trained on
    eta: Annotated[int, Field(ge=2, le=10)] = 3  # one of so many is trained on to so many times the epochs
    first: Annotated[int, Field(ge=0)] = 0  # candidates that are tried first, the best by a score of so many draws:
    first_by: Score = "synflow"
    first_of: Annotated[int, Field(ge=1)] = 200
    inherit: Annotated[float, Field(ge=0, lt=1)] = 0  # share of the epochs for a candidate that inherits; 0: none does

    @model_validator(mode="after")
    def _check(self) -> "SearchRecord":
        if self.order == "fixed" and self.sampler in FORGETFUL:
            others = ", ".join(FORGETFUL)
            raise ValueError(f"order: fixed: {self.sampler} keeps what a restart forgets; take another than {others}")
        if self.first > self.first_of:
            raise ValueError(f"first: the {self.first} best of first_of {self.first_of} draws; lower it")
        return self


@dataclass(frozen=True)
class Space:
    """A space that can be drawn from, sized and enumerated without training."""

    name: str
    base: Spec  # with `set` applied
    parameters: tuple[Parameter, ...]
    objectives: Mapping[str, Direction]
    limits: Mapping[str, Limit]
    published: Mapping[str, Mapping[str, Any]]  # the choices that give each published network
    search: SearchRecord
    latency: Table | Timing | None = None

    @property
    def size(self) -> int:
        """How many combinations of choices there are."""
        return math.prod(len(parameter.options) for parameter in self.parameters)

    def metrics(self, graph: Graph) -> dict[str, float]:
        """What is known of a network before any training. Raises SpecError where no latency can be predicted."""
        return {**metrics(graph), **predicted(self.latency, graph)}

    def draw(self, trial: Trial) -> Spec:
        """The network of a trial's choices. Raises SpecError where choices contradict each other."""
        return self.spec_at(tuple(parameter.suggest(trial) for parameter in self.parameters))

    def choices(self, positions: tuple[int, ...]) -> dict[str, Any]:
        """Option positions as trial parameters, as `draw` asks for them."""
        return {
            parameter.path: option_name(parameter.options[position])
            for parameter, position in zip(self.parameters, positions, strict=True)
            if len(parameter.options) > 1
        }

    def positions(self, spec: Spec) -> tuple[int, ...] | None:
        """The choices that give a network, or None where the space does not contain it."""
        found = [parameter.position(spec) for parameter in self.parameters]
        if None in found:
            return None
        positions = tuple(position for position in found if position is not None)
        return positions if digest(lower(self.spec_at(positions))) == digest(lower(spec)) else None

    def all_positions(self) -> Iterator[tuple[int, ...]]:
        """Every combination."""
        return itertools.product(*(range(len(parameter.options)) for parameter in self.parameters))

    def sample_positions(self, count: int, seed: int = 0) -> Iterator[tuple[int, ...]]:
        """Random combinations, uniform over choices."""
        rng = random.Random(seed)
        for _ in range(count):
            yield tuple(rng.randrange(len(parameter.options)) for parameter in self.parameters)

    def spec_at(self, positions: tuple[int, ...]) -> Spec:
        """The network of one combination. Raises SpecError where choices contradict each other."""
        settings: Settings = {}
        for parameter, position in zip(self.parameters, positions, strict=True):
            settings.update(parameter.settings[position])
        try:
            return assign(self.base, settings, self.name)
        except ValidationError as error:
            fault = error.errors()[0]
            reason = fault["ctx"]["error"] if fault["type"] == "value_error" else fault["msg"]
            raise SpecError(f"{self.name}: {reason}") from None

    def for_classes(self, classes: int) -> "Space":
        """The same space for a data set's number of classes."""
        return replace(self, base=with_classes(self.base, classes))


def sampler_fault(space: Space) -> str | None:
    """What keeps a space's sampler from proposing networks of it, or None."""
    if space.search.sampler != "cmaes":
        return None
    if len(space.objectives) > 1:
        return "sampler: cmaes knows one objective; take tpe, nsga2, nsga3, gp or evolution"
    named = [parameter.path for parameter in space.parameters if len(parameter.options) > 1 and not parameter.step]
    if named:
        return f"sampler: cmaes knows ranges {{low, high, step}} alone; {named[0]} is a list; take tpe or evolution"
    return None
