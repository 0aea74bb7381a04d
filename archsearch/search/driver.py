"""The driver: one loop asks and tells a study, workers are tasks, limits are checked before any worker is touched.

Two orders. `async`: a free worker gets the next candidate at once. `fixed`: candidates are asked in blocks and told
in the order of asking, so that the whole search is a function of (space, recipe, data, seed) on any executor, with
any number of kills: a search that was cut short is asked all over again, and what is finished answers from its folder.

With rungs (see `halving`) a candidate is first trained by a complete schedule of a few epochs, and goes on to a longer
one where it is among the best; published networks go on in any case. With `inherit` it begins with the weights of the
nearest finished one instead, where there is one (see `inheritance`).
"""

from contextlib import suppress
from typing import Any

from archsearch.errors import RunError
from archsearch.search.executors import Executor, Outcome
from archsearch.search.fields import check_result, rows_of
from archsearch.search.folder import Asked, Settled
from archsearch.search.guide import goes_on, has_model
from archsearch.search.halving import promoted
from archsearch.search.inheritance import nearest, training_of
from archsearch.search.plan import Plan
from archsearch.search.proposals import Proposal, next_proposal
from archsearch.search.restore import restore
from archsearch.search.state import Entrant, Progress, Report, Search, Standing, duplicate, note_rung, settle
from archsearch.search.study import make_sampler, tell_rung
from archsearch.search.timing import time_waiting, waits
from archsearch.spec.spec import Spec, spec_yaml
from archsearch.store import Store, read_json, write_json
from archsearch.training.loop import CURVE, RESULT, trained_before
from archsearch.training.operation import ORIGIN

POLL_SECONDS = 1.0


def drive(plan: Plan, executor: Executor, report: Report = lambda _: None) -> bool:
    """Runs a search until `plan.trials` distinct candidates are settled, from wherever the folder stands.

    Returns whether it ended before, because the space has no other feasible candidate.
    """
    search = restore(plan, executor, report)
    if plan.space.search.order == "fixed":
        _drive_blocks(search)
    else:
        _drive_freely(search)
    for name in list(search.entrants):
        _stop(search, name)
    _say(search)
    return search.exhausted


def _drive_freely(search: Search) -> None:
    search.study.sampler = make_sampler(search.plan.space, search.next_number)
    while True:
        while len(search.running) < search.executor.workers:
            name = None if search.untimed else _promoted(search)
            if name is not None:
                _train(search, name)
            elif not (search.wants_more and _enter(search, next_proposal(search))):
                break
        if not search.running:
            break
        for outcome in _outcomes(search):
            _finish(search, outcome)
        _say(search)


def _drive_blocks(search: Search) -> None:
    size = search.plan.space.search.block
    while search.wants_more:
        search.study.sampler = make_sampler(search.plan.space, search.next_number)
        first = search.next_number
        while len(search.running) < size and search.wants_more:
            _enter(search, next_proposal(search))
        _finish_in_order(search)
        while _go_on(search):
            _finish_in_order(search)
        search.block += 1
        if search.next_number == first:
            break


def _go_on(search: Search) -> bool:
    """Hands out the next rung of everything that is promoted; whether there was anything."""
    while (name := _promoted(search)) is not None:
        _train(search, name)
    return bool(search.running)


def _finish_in_order(search: Search) -> None:
    """Waits for everything under way, and takes it in the order in which it was handed out."""
    order = list(search.running)
    outcomes: list[Outcome] = []
    while len(outcomes) < len(order):
        outcomes += _outcomes(search)
        _say(search)
    for outcome in sorted(outcomes, key=lambda outcome: order.index(outcome.key)):
        _finish(search, outcome)


def _outcomes(search: Search) -> list[Outcome]:
    """What is finished: what needed no worker first. Before that, latency is measured if nothing trains."""
    for name in time_waiting(search):
        _train(search, name)
    if search.answers:
        found, search.answers = search.answers, []
        return found
    found = search.executor.wait(POLL_SECONDS)
    search.training -= {outcome.key for outcome in found}
    return found


def _promoted(search: Search) -> str | None:
    """The candidate that goes on next: a published one, what the model says, or the best of the highest rung."""
    waiting = {name: entrant for name, entrant in search.entrants.items() if not entrant.under_way}
    for name, entrant in waiting.items():
        if any(asked.published for asked, _ in entrant.trials):
            return name
    if search.plan.space.search.sampler == "surrogate" and has_model(search):
        return goes_on(search)
    maximize = [direction == "maximize" for direction in search.plan.space.objectives.values()]
    for place in reversed(range(len(search.rungs))):
        here = {name for name, entrant in waiting.items() if len(entrant.results) == place + 1}
        gone = frozenset(search.rungs[place].keys() - here)
        best = promoted(search.rungs[place], gone, search.plan.space.search.eta, maximize)
        if best is not None:
            return best
    return None


def _enter(search: Search, proposal: Proposal | None) -> bool:
    """Begins with a candidate, if there is one."""
    if proposal is None or proposal.spec is None:
        return False
    plan, trial = search.plan, proposal.trial
    store = plan.folder.candidate(trial.candidate)
    parent = _parent(search, proposal.trial, proposal.spec, store)
    entrant = Entrant([(trial, proposal.asked)], spec_yaml(proposal.spec), *training_of(plan, parent), parent)
    store.write("spec.yaml", entrant.spec)
    write_json(store, "recipe.json", entrant.recipe.model_dump(mode="json"))
    store.write("labels.txt", "".join(f"{name}\n" for name in plan.classes))
    plan.folder.ask(trial)
    search.entrants[trial.candidate] = entrant
    if not waits(search, trial.candidate):
        _train(search, trial.candidate)
    return True


def _parent(search: Search, trial: Asked, spec: Spec, store: Store) -> str | None:
    """Whose weights a candidate begins with; once chosen it stays so. Published networks begin with chance."""
    if not search.plan.space.search.inherit:
        return None
    origin = read_json(store, ORIGIN)
    if origin is None:
        parent = None if trial.published else nearest(search, trial.params, spec)
        origin = {"from": parent}
        write_json(store, ORIGIN, origin)
    found: str | None = origin["from"]
    return found


def _train(search: Search, name: str) -> None:
    """Hands a candidate's next rung to a worker, or answers it from what an earlier drive has left."""
    plan, entrant = search.plan, search.entrants[name]
    entrant.under_way = True
    store = plan.folder.candidate(name)
    known = search.earlier.get(entrant.first.number)
    fails_here = known is not None and known.state == "failed" and len(known.rungs) == len(entrant.results)
    if known is not None and known.candidate == name and fails_here:
        search.answers.append(Outcome(name, None, known.reason))
        return
    until = None if entrant.next_stop == entrant.recipe.epochs else entrant.next_stop
    result = trained_before(store, until)
    if result is not None:
        found = check_result(result, f"{store.url}/{RESULT if until is None else CURVE}")
        search.answers.append(Outcome(name, found, None))
        return
    payload: dict[str, Any] = {
        "spec": entrant.spec,
        "recipe": entrant.recipe.model_dump(mode="json"),
        "data": plan.data,
        "digest": plan.data_digest,
        "store": store.url,
    }
    if until is not None:
        payload["until"] = until
    if entrant.parent is not None:
        payload["parent"] = plan.folder.candidate(entrant.parent).url
    search.training.add(name)
    search.executor.submit(name, payload)


def _finish(search: Search, outcome: Outcome) -> None:
    """Takes what came back: a rung, or the end. Raises RunError for a fault that would meet every other candidate."""
    if outcome.result is not None and "stop" in outcome.result:
        raise RunError(f"{outcome.result['stop']}; nothing is lost: mend it and give the same command again")
    entrant = search.entrants[outcome.key]
    entrant.under_way = False
    if outcome.result is None:
        _settle_all(search, outcome.key, "failed", outcome.error)
        return
    entrant.results.append(outcome.result)
    rung = len(entrant.results) - 1
    if rung == len(entrant.stops) - 1:
        _settle_all(search, outcome.key, "complete")
        return
    metrics = {**entrant.first.cost, **outcome.result["metrics"]}
    note_rung(search, outcome.key, rung, metrics)
    for _, trial in entrant.trials:
        tell_rung(trial, rung, metrics)


def _stop(search: Search, name: str) -> None:
    """A candidate that was not among the best ends where it is."""
    rung = len(search.entrants[name].results)
    _settle_all(search, name, "stopped", f"not among the best after {search.plan.rungs[rung - 1]} epochs")


def _settle_all(search: Search, name: str, state: Any, reason: str | None = None) -> None:
    """Settles every trial that asked for a candidate."""
    entrant = search.entrants.pop(name)
    (_, trial), *others = entrant.trials
    settled = _settled(search.plan, entrant, state, reason)
    settle(search, settled, trial)
    for asked, other in others:
        settle(search, duplicate(settled, asked), other)


def _settled(plan: Plan, entrant: Entrant, state: Any, reason: str | None) -> Settled:
    asked, results = entrant.first, entrant.results
    epochs = results[-1]["epochs"] if results else 0
    if state == "failed":
        epochs = max(epochs, len(_curve(plan, asked.candidate)))
    return Settled(
        asked.number,
        asked.params,
        asked.candidate,
        state,
        {**asked.cost, **(results[-1]["metrics"] if results else {})},
        epochs,
        results[-1]["seconds"] if results else 0.0,
        published=asked.published,
        block=asked.block,
        reason=reason,
        constraints={name: limit.excess(asked.cost[name]) for name, limit in plan.space.limits.items()},
        inherited=entrant.parent,
        rungs=tuple(results[:-1] if state == "complete" else results),
    )


def _say(search: Search) -> None:
    places = search.executor.places()
    for name, entrant in search.running.items():
        with suppress(RunError, OSError):  # what cannot be read now stays as it was
            search.standings[name] = _standing(search.plan, entrant, places.get(name))
    running = {
        entrant.first.number: search.standings[name]
        for name, entrant in search.running.items()
        if name in search.standings
    }
    lines = tuple((search.number(name), line) for name, line in search.executor.lines())
    search.report(Progress(tuple(search.news), running, lines))
    search.news.clear()


def _standing(plan: Plan, entrant: Entrant, place: str | None) -> Standing:
    curve = _curve(plan, entrant.first.candidate)
    return Standing(len(curve), curve[-1] if curve else {}, place)


def _curve(plan: Plan, candidate: str) -> list[dict[str, Any]]:
    """The epochs of a candidate so far. Raises RunError for a file that is no curve."""
    store = plan.folder.candidate(candidate)
    return rows_of(read_json(store, CURVE), f"{store.url}/{CURVE}")
