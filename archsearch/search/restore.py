"""Where a drive begins: what is known, what is under way and what is to be asked first, from the files of a run."""

from collections import deque

from archsearch.search.executors import Executor
from archsearch.search.folder import Asked, Settled
from archsearch.search.inheritance import training_of
from archsearch.search.plan import Plan
from archsearch.search.proposals import PATIENCE, untried
from archsearch.search.scoring import first_choices
from archsearch.search.state import Entrant, Queued, Report, Search, note_rung, remember
from archsearch.search.study import new_study, tell_rung
from archsearch.spec.spec import spec_yaml


def restore(plan: Plan, executor: Executor, report: Report) -> Search:
    """The state the files tell. In fixed order everything is asked again, and comes out the same."""
    earlier = plan.folder.settled()
    fixed = plan.space.search.order == "fixed"
    told, asked = ([], []) if fixed else (earlier, plan.folder.asked())
    next_number = max([-1, *(trial.number for trial in told), *(trial.number for trial in asked)]) + 1
    exhausted = _is_exhausted(plan, told, next_number)
    ended = exhausted or _trained(told) >= plan.trials
    settled = [trial for trial in told if ended or trial.state != "stopped"]
    stopped = [trial for trial in told if not ended and trial.state == "stopped"]
    queue = _queue(plan, told, asked)
    search = Search(plan, executor, report, new_study(plan.space, settled), queue, next_number)
    search.rungs = tuple({} for _ in plan.rungs[:-1])
    search.earlier = {trial.number: trial for trial in earlier}
    search.exhausted = exhausted
    for trial in settled:
        remember(search, trial)
    for trial in stopped:
        _take_back(search, trial)
    return search


def _is_exhausted(plan: Plan, told: list[Settled], seed: int) -> bool:
    """Whether the last drive ended with the space; then nothing more is asked."""
    idle = told[-PATIENCE:]
    if len(idle) < PATIENCE or any(trial.duplicate_of is None and trial.state != "infeasible" for trial in idle):
        return False
    return untried(plan, {trial.candidate for trial in told}, seed) is None


def _trained(told: list[Settled]) -> int:
    """Distinct candidates that were trained."""
    return sum(trial.duplicate_of is None and trial.state != "infeasible" for trial in told)


def _queue(plan: Plan, told: list[Settled], asked: list[Asked]) -> deque[Queued]:
    """What was under way, then the published networks, then those that a score chose; those that are not known."""
    known = {trial.number for trial in told}
    left = [trial for trial in asked if trial.number not in known]
    queue = deque(Queued(trial.params, trial.published, trial.number) for trial in left)
    begun = [*(Queued(trial.params, trial.published) for trial in told), *queue]
    tried = {trial.published for trial in begun}
    queue.extend(Queued(params, name) for name, params in plan.space.published.items() if name not in tried)
    params_begun = [trial.params for trial in begun]
    queue.extend(Queued(params) for params in first_choices(plan) if params not in params_begun)
    return queue


def _take_back(search: Search, trial: Settled) -> None:
    """A candidate that was stopped waits where it stood: among more of them it may go on."""
    plan = search.plan
    search.study.enqueue_trial(trial.params)
    told = search.study.ask()
    spec = plan.space.draw(told)
    for name, excess in (trial.constraints or {}).items():
        told.set_constraint(name, excess)
    asked = Asked(trial.number, trial.params, trial.candidate, trial.metrics, trial.published, trial.block)
    fresh = Entrant([], spec_yaml(spec), *training_of(plan, None), results=[dict(rung) for rung in trial.rungs])
    search.entrants.setdefault(trial.candidate, fresh).trials.append((asked, told))
    for rung, result in enumerate(trial.rungs):
        metrics = {**trial.metrics, **result["metrics"]}
        note_rung(search, trial.candidate, rung, metrics)
        tell_rung(told, rung, metrics)
