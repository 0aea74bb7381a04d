"""What to train next: trials asked of the study, costed, and kept from workers where they are infeasible or known."""

import random
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import optuna

from archsearch.errors import SpecError, TrainingError
from archsearch.search.folder import Asked, Settled
from archsearch.search.guide import has_model, proposed
from archsearch.search.plan import Check, Plan, check
from archsearch.search.scoring import objective_scores
from archsearch.search.state import Queued, Search, duplicate, settle
from archsearch.spec.spec import Spec

EXHAUSTIVE = 20_000  # combinations up to which a space is searched to its end
PATIENCE = 20  # asks in a row that bring nothing to train, before candidates are drawn at random
NETWORK = "network"  # a constraint that a network breaks which cannot be, or has no score


@dataclass(frozen=True)
class Proposal:
    """One trial that was asked: what it is and what it costs, or why it cannot be."""

    trial: Asked
    asked: optuna.Trial
    spec: Spec | None
    constraints: Mapping[str, float]
    reason: str | None


def next_proposal(search: Search) -> Proposal | None:
    """The next trial that is worth a worker, or None; settles on the way what is infeasible or known."""
    for queued in _turns(search):
        proposal = _ask(search, queued)
        if _is_new(search, proposal):
            return proposal
    return None


def _turns(search: Search) -> Iterator[Queued | None]:
    """What to ask for: the queue, whatever the sampler likes (None) for a while, then what was not tried, at random."""
    sampler = search.plan.space.search.sampler
    while search.queue:
        yield search.queue.popleft()
    if sampler == "surrogate" and has_model(search):
        yield from map(Queued, proposed(search))
    elif sampler != "grid":
        yield from repeat(None, PATIENCE)
    while (params := untried(search.plan, {*search.by_candidate, *search.entrants}, search.next_number)) is not None:
        yield Queued(params)
    search.exhausted = True


def untried(plan: Plan, known: Set[str], seed: int) -> dict[str, Any] | None:
    """The choices of a feasible candidate that is not among those known, drawn at random; None where there is none."""
    space = plan.space
    if space.size <= EXHAUSTIVE:
        combinations = iter(random.Random(seed).sample(list(space.all_positions()), space.size))
    else:
        combinations = space.sample_positions(EXHAUSTIVE, seed=seed)
    for positions in combinations:
        try:
            facts = check(plan, space.spec_at(positions))
        except SpecError:
            continue
        if facts.reason is None and facts.candidate not in known:
            return space.choices(positions)
    return None


def _ask(search: Search, queued: Queued | None) -> Proposal:
    """Asks the study, for what is queued if anything is, and costs the answer."""
    published, number = (queued.published, queued.number) if queued is not None else (None, None)
    if queued is not None:
        search.study.enqueue_trial(dict(queued.params))
    trial = search.study.ask()
    if number is None:
        number = search.next_number
    search.next_number = max(search.next_number, number + 1)
    spec, facts = _drawn(search, trial)
    for name, value in facts.excess.items():
        trial.set_constraint(name, value)
    asked = Asked(number, trial.params, facts.candidate, facts.cost, published, search.block)
    return Proposal(asked, trial, spec, facts.excess, facts.reason)


def _drawn(search: Search, trial: optuna.Trial) -> tuple[Spec | None, Check]:
    """A trial's network, and what is known of it before any training, scores included where it is new."""
    try:
        spec = search.plan.space.draw(trial)
        facts = check(search.plan, spec)
    except SpecError as error:
        return None, Check("", {}, {NETWORK: 1.0}, "; ".join(error.lines))
    if facts.reason is not None or facts.candidate in search.by_candidate or facts.candidate in search.entrants:
        return spec, facts
    try:
        return spec, replace(facts, cost=facts.cost | objective_scores(search.plan, spec))
    except (SpecError, TrainingError) as error:
        return spec, replace(facts, excess=facts.excess | {NETWORK: 1.0}, reason="; ".join(error.lines))


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
