"""What a search has found, as records: everything that inspects a run starts from these."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from archsearch.front.dominance import Floats, costs, front

SAME = " = "  # between the names of published designs that are one network
State = Literal["complete", "stopped", "infeasible", "failed", "running"]
Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Candidate:
    """One network that a search has asked for."""

    id: int  # number of the trial
    hash: str  # of spec, recipe, data and seed: the name of its folder
    choices: Mapping[str, Any]  # parameter path, as res3.conv, to the value drawn
    metrics: Mapping[str, float]  # the objectives known so far, and whatever else was measured
    epochs: int  # trained so far
    state: State
    published: str | None = None  # name of the published design it is, if any; `SAME` between several
    reason: str | None = None  # why it failed or is infeasible
    inherited: str | None = None  # hash of the candidate whose weights it began with


@dataclass(frozen=True)
class Results:
    """All candidates of a run and what the run was after."""

    run: str
    objectives: Mapping[str, Direction]
    candidates: tuple[Candidate, ...]

    @property
    def maximize(self) -> tuple[bool, ...]:
        """For each objective, whether more is better."""
        return tuple(direction == "maximize" for direction in self.objectives.values())

    def complete(self) -> tuple[Candidate, ...]:
        """The candidates that were trained to the end and have a value of every objective."""
        return tuple(
            candidate
            for candidate in self.candidates
            if candidate.state == "complete" and not np.isnan(self.values([candidate])).any()
        )

    def values(self, candidates: Sequence[Candidate]) -> Floats:
        """The objectives of some candidates, (candidates, objectives); NaN where one is missing."""
        rows = [[candidate.metrics.get(name, math.nan) for name in self.objectives] for candidate in candidates]
        return np.array(rows, dtype=np.float64).reshape(len(candidates), len(self.objectives))

    def front(self) -> tuple[Candidate, ...]:
        """The complete candidates that no other dominates, cheapest first (see `dominance.front`)."""
        complete = self.complete()
        return tuple(complete[index] for index in front(self.values(complete), self.maximize))

    def published(self) -> dict[str, int]:
        """Name of each published design that was tried, to its candidate; a complete one if there are two."""
        complete_last = sorted(self.candidates, key=lambda candidate: candidate.state == "complete")
        return {
            name: candidate.id
            for candidate in complete_last
            if candidate.published
            for name in candidate.published.split(SAME)
        }

    def dominators(self) -> dict[int, int]:
        """For each complete candidate off the front, the first on it, so the cheapest, that dominates it."""
        members = self.front()
        cost = costs(self.values(members), self.maximize)
        result = {}
        for candidate in self.complete():
            own = costs(self.values([candidate]), self.maximize)
            better = np.flatnonzero((cost <= own).all(axis=1) & (cost < own).any(axis=1))
            if len(better):
                result[candidate.id] = members[better[0]].id
        return result

    def as_json(self) -> dict[str, Any]:
        """What `archsearch front RUN --json` prints; NaN and infinity, which JSON lacks, become null."""
        return {
            "objectives": dict(self.objectives),
            "candidates": [_candidate_json(candidate) for candidate in self.candidates],
            "front": [candidate.id for candidate in self.front()],
            "published": self.published(),
        }


def _candidate_json(candidate: Candidate) -> dict[str, Any]:
    """One entry of `candidates`; `reason` and `inherited` only where there is one."""
    metrics = {name: value if math.isfinite(value) else None for name, value in candidate.metrics.items()}
    record = {
        "id": candidate.id,
        "hash": candidate.hash,
        "choices": dict(candidate.choices),
        "metrics": metrics,
        "epochs": candidate.epochs,
        "state": candidate.state,
    }
    others = {"reason": candidate.reason, "inherited": candidate.inherited}
    return record | {name: value for name, value in others.items() if value is not None}
