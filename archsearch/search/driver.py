"""The driver: one loop asks and tells a study, workers are tasks, limits are checked before any worker is touched.

Two orders. `async`: a free worker gets the next candidate at once. `fixed`: candidates are asked in blocks and told
in the order of asking, so that the whole search is a function of (space, recipe, data, seed) on any executor, with
any number of kills: a block that was cut short is asked again, and what is finished answers from its folder.
"""

import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import optuna

from archsearch.errors import RunError, SpecError
from archsearch.search.executors import Executor, Outcome
from archsearch.search.folder import Asked, Settled
from archsearch.search.plan import Plan, check
from archsearch.search.study import make_sampler, new_study, tell
from archsearch.spec.spec import Spec, spec_yaml
from archsearch.store import read_json, write_json
from archsearch.training.loop import CURVE

EXHAUSTIVE = 20_000  # combinations up to which a space is searched to its end
PATIENCE = 20  # asks in a row that bring nothing to train, before candidates are drawn at random
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Progress:
    """What is said while a search runs: trials just settled, and epochs trained of every candidate under way."""

    settled: tuple[Settled, ...]
    running: Mapping[int, int]


Report = Callable[[Progress], None]


@dataclass
class Search:
    """The state of one drive: everything in it can be rebuilt from the folder."""

    plan: Plan
    executor: Executor
    report: Report
    study: optuna.Study
    queue: deque[Asked]  # to be asked first: what was under way, then the published networks
    next_number: int
    block: int = 0
    running: dict[str, list[tuple[Asked, int]]] = field(default_factory=dict)  # candidate -> its trials
    by_candidate: dict[str, Settled] = field(default_factory=dict)
    news: list[Settled] = field(default_factory=list)  # settled since the last report
    exhausted: bool = False

    @property
    def trained(self) -> int:
        """Distinct candidates done or under way."""
        done = sum(1 for trial in self.by_candidate.values() if trial.state != "infeasible")
        return done + len(self.running)

    @property
    def wants_more(self) -> bool:
        """Whether another candidate should be asked; what was under way is finished in any case."""
        if self.queue and self.queue[0].number >= 0:
            return True
        return not self.exhausted and self.trained < self.plan.trials


def drive(plan: Plan, executor: Executor, report: Report = lambda _: None) -> bool:
    """Runs a search until `plan.trials` distinct candidates are settled, from wherever the folder stands.

    Returns whether it ended before, because the space has no other feasible candidate.
    """
    search = _restore(plan, executor, report)
    if plan.space.search.order == "fixed":
        _drive_blocks(search)
    else:
        _drive_freely(search)
    _say(search)
    return search.exhausted


def _restore(plan: Plan, executor: Executor, report: Report) -> Search:
    """The state the files tell. In fixed order the last block is dropped: it is asked again, and comes out the same.

    So is what follows a trial that is missing.
    """
    settled, asked = plan.folder.settled(), plan.folder.asked()
    block = 0
    if plan.space.search.order == "fixed":
        settled = [trial for index, trial in enumerate(settled) if trial.number == index]
        block = max((trial.block for trial in settled), default=0)
        settled = [trial for trial in settled if trial.block < block]
        asked = []
    known = {trial.number for trial in settled}
    queue = deque(trial for trial in asked if trial.number not in known)
    tried = {trial.published for trial in settled} | {trial.published for trial in queue}
    next_number = max(known | {trial.number for trial in queue}, default=-1) + 1
    for name, params in plan.space.published.items():
        if name not in tried:
            queue.append(Asked(-1, dict(params), "", {}, name))
    search = Search(plan, executor, report, new_study(plan.space, settled), queue, next_number, block)
    for trial in settled:
        _remember(search, trial)
    idle = settled[-PATIENCE:]
    if len(idle) == PATIENCE and all(trial.duplicate_of is not None or trial.state == "infeasible" for trial in idle):
        search.exhausted = _untried(search) is None  # as the last drive ended; nothing more is asked
    return search


def _drive_freely(search: Search) -> None:
    search.study.sampler = _sampler(search)
    while True:
        while len(search.running) < search.executor.workers and search.wants_more:
            _start(search, _next(search))
        if not search.running:
            break
        for outcome in search.executor.wait(POLL_SECONDS):
            _finish(search, outcome)
        _say(search)


def _drive_blocks(search: Search) -> None:
    size = search.plan.space.search.block
    while search.wants_more:
        search.study.sampler = _sampler(search)
        first = search.next_number
        while len(search.running) < size and search.wants_more:
            _start(search, _next(search))
        outcomes: list[Outcome] = []
        under_way = len(search.running)
        while len(outcomes) < under_way:
            outcomes += search.executor.wait(POLL_SECONDS)
            _say(search)
        order = list(search.running)
        for outcome in sorted(outcomes, key=lambda outcome: order.index(outcome.key)):
            _finish(search, outcome)
        search.block += 1
        if search.next_number == first:
            break


def _sampler(search: Search) -> optuna.samplers.BaseSampler:
    record = search.plan.space.search
    return make_sampler(record.sampler, record.seed, search.next_number)


@dataclass(frozen=True)
class Proposal:
    """One trial that was asked: what it is and what it costs, or why it cannot be."""

    trial: Asked
    optuna_number: int
    spec: Spec | None
    constraints: Mapping[str, float]
    reason: str | None


def _next(search: Search) -> Proposal | None:
    """The next trial that is worth a worker; settles on the way what is infeasible or known."""
    for _ in range(PATIENCE):
        proposal = _ask(search)
        if _is_new(search, proposal):
            return proposal
    return _draw_untried(search)


def _draw_untried(search: Search) -> Proposal | None:
    """A feasible candidate the sampler did not come to, drawn at random; None where all were tried."""
    params = _untried(search)
    if params is None:
        search.exhausted = True
        return None
    search.queue.append(Asked(-1, params, "", {}))
    proposal = _ask(search)
    return proposal if _is_new(search, proposal) else None


def _untried(search: Search) -> dict[str, Any] | None:
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
        if known.reason is None and known.candidate not in {*search.by_candidate, *search.running}:
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
    except SpecError as error:
        trial.set_constraint("network", 1.0)
        asked = Asked(number, trial.params, "", {}, published, search.block)
        return Proposal(asked, trial.number, None, {"network": 1.0}, "; ".join(error.lines))
    for name, value in facts.excess.items():
        trial.set_constraint(name, value)
    asked = Asked(number, trial.params, facts.candidate, facts.cost, published, search.block)
    return Proposal(asked, trial.number, spec, facts.excess, facts.reason)


def _is_new(search: Search, proposal: Proposal) -> bool:
    """Whether a worker is needed; otherwise the trial is settled here, or joins the one under way."""
    trial = proposal.trial
    if trial.candidate in search.by_candidate:
        _settle(search, _duplicate(search.by_candidate[trial.candidate], trial), proposal.optuna_number)
        return False
    if proposal.reason is not None or proposal.spec is None:
        settled = Settled(
            trial.number, trial.params, trial.candidate, "infeasible", trial.cost, published=trial.published,
            block=trial.block, reason=proposal.reason, constraints=proposal.constraints,
        )  # fmt: skip
        _settle(search, settled, proposal.optuna_number)
        return False
    if trial.candidate in search.running:
        search.running[trial.candidate].append((trial, proposal.optuna_number))
        return False
    return True


def _start(search: Search, proposal: Proposal | None) -> None:
    """Hands a candidate to a worker."""
    if proposal is None or proposal.spec is None:
        return
    plan, trial = search.plan, proposal.trial
    store = plan.folder.candidate(trial.candidate)
    store.write("spec.yaml", spec_yaml(proposal.spec))
    write_json(store, "recipe.json", plan.recipe.model_dump(mode="json"))
    store.write("labels.txt", "".join(f"{name}\n" for name in plan.classes))
    plan.folder.ask(trial)
    search.running[trial.candidate] = [(trial, proposal.optuna_number)]
    payload = {
        "spec": spec_yaml(proposal.spec),
        "recipe": plan.recipe.model_dump(mode="json"),
        "data": plan.data,
        "digest": plan.data_digest,
        "store": store.url,
    }
    search.executor.submit(trial.candidate, payload)


def _finish(search: Search, outcome: Outcome) -> None:
    """Settles the trials of a candidate that came back. Raises RunError for a fault that would meet every other."""
    if outcome.result is not None and "stop" in outcome.result:
        raise RunError(f"{outcome.result['stop']}; nothing is lost: mend it and give the same command again")
    (first, number), *others = search.running.pop(outcome.key)
    trial = _settled(search.plan, first, outcome)
    _settle(search, trial, number)
    for asked, number in others:
        _settle(search, _duplicate(trial, asked), number)


def _settled(plan: Plan, asked: Asked, outcome: Outcome) -> Settled:
    excess = {name: limit.excess(asked.cost[name]) for name, limit in plan.space.limits.items()}
    common: dict[str, Any] = {"published": asked.published, "block": asked.block, "constraints": excess}
    if outcome.result is None:
        epochs = len(read_json(plan.folder.candidate(asked.candidate), CURVE) or ())
        return Settled(
            asked.number, asked.params, asked.candidate, "failed", asked.cost, epochs, reason=outcome.error, **common
        )
    measured = {**asked.cost, **outcome.result["metrics"]}
    epochs, seconds = outcome.result["epochs"], outcome.result["seconds"]
    return Settled(asked.number, asked.params, asked.candidate, "complete", measured, epochs, seconds, **common)


def _duplicate(known: Settled, asked: Asked) -> Settled:
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


def _settle(search: Search, trial: Settled, optuna_number: int) -> None:
    """Writes a trial's outcome, then tells the study."""
    search.plan.folder.settle(trial)
    tell(search.study, search.plan.space, optuna_number, trial)
    _remember(search, trial)
    search.news.append(trial)


def _remember(search: Search, trial: Settled) -> None:
    if trial.duplicate_of is None and trial.candidate:
        search.by_candidate[trial.candidate] = trial


def _say(search: Search) -> None:
    folder = search.plan.folder
    running = {
        trials[0][0].number: len(read_json(folder.candidate(candidate), CURVE) or ())
        for candidate, trials in search.running.items()
    }
    search.report(Progress(tuple(search.news), running))
    search.news.clear()
