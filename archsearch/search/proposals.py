"""What to train next: trials asked of the study, costed, and kept from workers where they are infeasible or known."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from archsearch.errors import SpecError
from archsearch.search.folder import Asked, Settled
from archsearch.search.plan import check
from archsearch.search.scoring import objective_scores
from archsearch.search.state import Search, duplicate, settle
from archsearch.spec.spec import Spec

EXHAUSTIVE = 20_000  # combinations up to which a space is searched to its end
PATIENCE = 20  # asks in a row that bring nothing to train, before candidates are drawn at random


@dataclass(frozen=True)
class Proposal:
    """One trial that was asked: what it is and what it costs, or why it cannot be."""

    trial: Asked
    asked: optuna.Trial
    spec: Spec | None
    constraints: Mapping[str, float]
    reason: str | None


def next_proposal(search: Search) -> Proposal | None:
    """The next trial that is worth a worker; settles on the way what is infeasible or known."""
    if search.plan.space.search.sampler == "grid" and not search.queue:
        return _draw_untried(search)
    for _ in range(PATIENCE):
        proposal = _ask(search)
        if _is_new(search, proposal):
            return proposal
    return _draw_untried(search)


def _draw_untried(search: Search) -> Proposal | None:
    """A feasible candidate the sampler did not come to, drawn at random; None where all were tried."""
    params = untried(search)
    if params is None:
        search.exhausted = True
        return None
    search.queue.append(Asked(-1, params, "", {}))
    proposal = _ask(search)
    return proposal if _is_new(search, proposal) else None


def untried(search: Search) -> dict[str, Any] | None:
    """The choices of a feasible candidate that is neither known nor under way, or None."""
    space = search.plan.space
    if space.size <= EXHAUSTIVE:
        combinations = random.Random(search.next_number).sample(list(space.all_positions()), space.size)
    else:
        combinations = list(space.sample_positions(EXHAUSTIVE, seed=search.next_number))
    for positions in combinations:
        try:
            known = check(search.plan, space.spec_at(positions))
        except SpecError:
            continue
        if known.reason is None and known.candidate not in {*search.by_candidate, *search.entrants}:
            return space.choices(positions)
    return None


def _ask(search: Search) -> Proposal:
    """Asks the study, what is in the queue first, and costs the answer."""
    queued = search.queue.popleft() if search.queue else None
    if queued is not None:
        search.study.enqueue_trial(queued.params)
    trial = search.study.ask()
    number = queued.number if queued is not None and queued.number >= 0 else search.next_number
    search.next_number = max(search.next_number, number + 1)
    published = queued.published if queued is not None else None
    try:
        spec = search.plan.space.draw(trial)
        facts = check(search.plan, spec)
        if facts.reason is None and facts.candidate not in {*search.by_candidate, *search.entrants}:
            facts.cost.update(objective_scores(search.plan, spec))
    except SpecError as error:
        trial.set_constraint("network", 1.0)
        asked = Asked(number, trial.params, "", {}, published, search.block)
        return Proposal(asked, trial, None, {"network": 1.0}, "; ".join(error.lines))
    for name, value in facts.excess.items():
        trial.set_constraint(name, value)
    asked = Asked(number, trial.params, facts.candidate, facts.cost, published, search.block)
    return Proposal(asked, trial, spec, facts.excess, facts.reason)


def _is_new(search: Search, proposal: Proposal) -> bool:
    """Whether a worker is needed; otherwise the trial is settled here, or joins the one under way."""
    trial = proposal.trial
    if trial.candidate in search.by_candidate:
        settle(search, duplicate(search.by_candidate[trial.candidate], trial), proposal.asked)
        return False
    if proposal.reason is not None or proposal.spec is None:
        settled = Settled(
            trial.number, trial.params, trial.candidate, "infeasible", trial.cost, published=trial.published,
            block=trial.block, reason=proposal.reason, constraints=proposal.constraints,
        )  # fmt: skip
        settle(search, settled, proposal.asked)
        return False
    if trial.candidate in search.entrants:
        search.entrants[trial.candidate].trials.append((trial, proposal.asked))
        return False
    return True
