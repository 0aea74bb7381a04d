"""The state of one drive, and how a trial's outcome enters it. All of it can be rebuilt from the run folder."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import optuna

from archsearch.search.executors import Executor, Outcome
from archsearch.search.folder import Asked, Settled
from archsearch.search.halving import rung_values
from archsearch.search.plan import Check, Plan
from archsearch.search.study import tell
from archsearch.training.recipe import Recipe


@dataclass(frozen=True)
class Standing:
    """How far a candidate under way is: epochs trained, what the last of them read, and where it runs, if it does."""

    epochs: int
    last: Mapping[str, float]  # val_loss, val_top1, ...; empty before the first
    place: str | None


@dataclass(frozen=True)
class Progress:
    """What is said while a search runs: trials just settled, those under way, and what their workers warned of."""

    settled: tuple[Settled, ...]
    running: Mapping[int, Standing]
    lines: tuple[tuple[int, str], ...] = ()


Report = Callable[[Progress], None]
Waiting = tuple[Asked, optuna.Trial]  # what was asked, and the study's trial


@dataclass(frozen=True)
class Queued:
    """Choices to ask for before a sampler's; `number` where they were asked before and are not settled."""

    params: Mapping[str, Any]
    published: str | None = None
    number: int | None = None


@dataclass
class Entrant:
    """A candidate between its first and its last rung."""

    trials: list[Waiting]  # those that asked for it, the first of them trained
    spec: str  # YAML
    recipe: Recipe
    stops: tuple[int, ...]  # epochs after which it is read; the last are all
    parent: str | None = None  # the candidate whose weights it begins with
    results: list[dict[str, Any]] = field(default_factory=list)  # of each rung that is finished
    under_way: bool = False

    @property
    def next_stop(self) -> int:
        """Epochs after which it is read next."""
        return self.stops[len(self.results)]

    @property
    def committed(self) -> int:
        """Epochs trained, those under way included."""
        read = self.results[-1]["epochs"] if self.results else 0
        return self.next_stop if self.under_way else int(read)

    @property
    def first(self) -> Asked:
        """The trial that it is trained for."""
        return self.trials[0][0]


@dataclass
class Search:
    """What is under way and what is known."""

    plan: Plan
    executor: Executor
    report: Report
    study: optuna.Study
    queue: deque[Queued]  # to be asked first: what was under way, then the published networks
    next_number: int
    block: int = 0
    entrants: dict[str, Entrant] = field(default_factory=dict)
    by_candidate: dict[str, Settled] = field(default_factory=dict)
    infeasible: int = 0  # of them
    rungs: tuple[dict[str, tuple[float, ...]], ...] = ()  # what ranks candidates at each rung before the last
    earlier: dict[int, Settled] = field(default_factory=dict)  # what earlier drives have settled
    answers: list[Outcome] = field(default_factory=list)  # that needed no worker
    training: set[str] = field(default_factory=set)  # what the executor has
    untimed: list[str] = field(default_factory=list)  # candidates that wait for their latency to be measured
    standings: dict[str, Standing] = field(default_factory=dict)  # of candidates, as they were last read
    news: list[Settled] = field(default_factory=list)  # settled since the last report
    looked_at: dict[tuple[int, ...], Check | None] = field(default_factory=dict)  # combinations, by option positions
    models: dict[int, tuple[object, Any]] = field(default_factory=dict)  # of objectives, with what each was fitted to
    exhausted: bool = False

    @property
    def running(self) -> dict[str, Entrant]:
        """The candidates that a worker has."""
        return {name: entrant for name, entrant in self.entrants.items() if entrant.under_way}

    def number(self, candidate: str) -> int:
        """The trial that a candidate is, or was, trained for."""
        entrant = self.entrants.get(candidate)
        return entrant.first.number if entrant else self.by_candidate[candidate].number

    @property
    def trained(self) -> int:
        """Distinct candidates done or under way."""
        return len(self.by_candidate) - self.infeasible + len(self.entrants)

    @property
    def wants_more(self) -> bool:
        """Whether another candidate should be asked; what was under way is finished in any case."""
        if self.queue and self.queue[0].number is not None:
            return True
        return not self.exhausted and self.trained < self.plan.trials and self.affords(self.plan.rungs[0])

    def affords(self, epochs: int) -> bool:
        """Whether so many more are within what halving would spend, where a model spends them as it likes.

        Published networks are trained to the end in any case, and do not count.
        """
        if self.plan.space.search.sampler != "surrogate":
            return True
        ended = sum(trial.epochs for trial in self.by_candidate.values() if not trial.published)
        begun = sum(entrant.committed for entrant in self.entrants.values() if not entrant.first.published)
        return ended + begun + epochs <= self.plan.epochs


def settle(search: Search, trial: Settled, asked: optuna.Trial) -> None:
    """Writes a trial's outcome, then tells the study."""
    search.plan.folder.settle(trial)
    tell(search.study, search.plan.space, asked, trial)
    remember(search, trial)
    known = search.earlier.get(trial.number)
    if known is None or known.state != trial.state:
        search.news.append(trial)


def remember(search: Search, trial: Settled) -> None:
    """A candidate asked again is answered from what is known."""
    if trial.duplicate_of is None and trial.candidate:
        search.infeasible += trial.candidate not in search.by_candidate and trial.state == "infeasible"
        search.by_candidate[trial.candidate] = trial
        for place, result in enumerate(trial.rungs):
            note_rung(search, trial.candidate, place, trial.metrics | result["metrics"])


def note_rung(search: Search, candidate: str, rung: int, metrics: Mapping[str, float]) -> None:
    """Enters what ranks a candidate at a rung before the last."""
    search.rungs[rung][candidate] = rung_values(search.plan.space.objectives, metrics)


def duplicate(known: Settled, asked: Asked) -> Settled:
    """The same candidate asked again: answered from what is known, at no cost."""
    original = known.number if known.duplicate_of is None else known.duplicate_of
    return replace(
        known,
        number=asked.number,
        params=asked.params,
        published=asked.published,
        block=asked.block,
        seconds=0.0,
        duplicate_of=original,
    )
