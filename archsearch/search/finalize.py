"""Finalising: the front of a search is trained again with fresh seeds, and scored on `test` once.

final/<hash>/<seed>/            a training as a candidate's folder has it, and test.json: which test videos are right
final/<hash>/<seed>_inherited/  the same, where it began with the candidate's own weights, and not from scratch
final.json                      what `finalize` gives; networks of several calls add up

The seed that a candidate was selected with is not among them: it would flatter what it has selected.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from archsearch.errors import RunError
from archsearch.files import near_name, shorten
from archsearch.front.dominance import front
from archsearch.front.results import SAME, Candidate, Results
from archsearch.search.executors import Executor, Outcome
from archsearch.search.fields import is_final, rows_of
from archsearch.search.folder import RunFolder
from archsearch.search.plan import run_recipe
from archsearch.search.results import read_results
from archsearch.store import open_store, read_json, write_json
from archsearch.training.checkpoint import WEIGHTS
from archsearch.training.evaluate import two_way_interval
from archsearch.training.loop import CURVE
from archsearch.training.recipe import Recipe

FINAL = "final.json"
FOLDER = "final"  # with a lock of its own: the search may go on
Report = Callable[[int, int, str], None]  # epochs, of how many, what was just done
POLL_SECONDS = 1.0


def finalists(results: Results) -> list[Candidate]:
    """The front, and the published networks that were trained to the end, in the order of the front.

    Raises RunError where there is no front.
    """
    published = set(results.published().values())
    members = list(results.front())
    if not members:
        raise RunError(f"{results.run}: has no front yet; `archsearch status` says how far it is")
    return members + [c for c in results.complete() if c.id in published and c not in members]


def chosen(results: Results, only: Sequence[str]) -> list[Candidate]:
    """The finalists, or the networks named in `only`: by number, by the name of a published one, or by hash.

    Raises RunError for one that is not there or was not trained to the end.
    """
    if not only:
        return finalists(results)
    complete = results.complete()
    known = {name: candidate for candidate in complete for name in _names(candidate)}
    found: dict[int, Candidate] = {}
    for name in only:
        if name not in known:
            state = next((c.state for c in results.candidates if name in _names(c)), None)
            rule = "is not there" if state is None else f"is {state}, and was not trained to the end"
            hint = near_name(name, known) or "; `archsearch front --all` lists them"
            raise RunError(f"{results.run}: network {shorten(name)} {rule}{hint}")
        found[known[name].id] = known[name]
    return list(found.values())


def _names(candidate: Candidate) -> list[str]:
    """What a candidate may be called."""
    published = candidate.published.split(SAME) if candidate.published else []
    return [str(candidate.id), candidate.hash, *published]


def finalize(
    run: str,
    data: Path,
    seeds: int,
    executor: Executor,
    report: Report = lambda *_: None,
    *,
    only: Sequence[str] = (),
    inherit: bool = False,
) -> dict[str, Any]:
    """Trains every finalist `seeds` times and writes final.json: means, spreads, test intervals and the front of them.

    `only` names the networks instead; with `inherit` they begin with their candidates' weights. What is finished is not
    trained again, and networks of earlier calls stay. Raises RunError where another process does the same, for a run
    without a front or such a network, for a fault that meets every training, and where none succeeds.
    """
    members = chosen(results := read_results(run), only)
    folder = RunFolder(open_store(run if "://" in run else str(Path(run).resolve())))
    recipe = run_recipe(folder)
    fresh = [recipe.seed + number for number in range(1, seeds + 1)]
    jobs = _jobs(folder, members, recipe, fresh, data, inherit)
    with RunFolder(folder.store.at(FOLDER)).driving() as held:

        def report_held(done: int, total: int, said: str) -> None:
            held()
            report(done, total, said)

        _before(folder, results)  # or its fault, before anything long
        for key, payload in jobs.items():
            _describe(folder, key, payload)
        outcomes = _run(jobs, folder, executor, recipe.epochs, report_held)
    facts = {"seeds": fresh, "start": "inherited" if inherit else "scratch"}
    rows = [_row(candidate, results, outcomes) | facts for candidate in members]
    found = _together(results, rows, _before(folder, results), fresh)
    write_json(folder.store, FINAL, found)
    return found


def _before(folder: RunFolder, results: Results) -> list[dict[str, Any]]:
    """What earlier calls have finished. Raises RunError for a file that would be overwritten and is not theirs."""
    found = read_json(folder.store, FINAL)
    if found is None:
        return []
    needed, names = {"choices", "published", "selected"}, set(results.objectives)
    if not is_final(found) or not all(
        needed <= row.keys() and names <= row["selected"].keys() & row["metrics"].keys() for row in found["candidates"]
    ):
        rule = "is no result of `archsearch finalize`; move it away and give the same command again"
        raise RunError(f"{folder.store.url}/{FINAL}: {rule}")
    rows: list[dict[str, Any]] = found["candidates"]
    return rows


def _together(
    results: Results, rows: list[dict[str, Any]], known: list[dict[str, Any]], seeds: list[int]
) -> dict[str, Any]:
    """This call's rows, those of other networks that earlier calls finished, and the front of all. Raises RunError."""
    if not any(row["trained"] for row in rows):
        raise RunError(f"{results.run}: no finalist could be trained: {rows[0]['failed'][0]}")
    taken = {(row["hash"], row["start"]) for row in rows}
    rows = rows + [row for row in known if (row["hash"], row.get("start", "scratch")) not in taken]
    trained = [row for row in rows if row["trained"]]
    values = [[row["metrics"][name] for name in results.objectives] for row in trained]
    return {
        "run": results.run,
        "objectives": dict(results.objectives),
        "seeds": seeds,
        "candidates": rows,
        "front": list(dict.fromkeys(trained[place]["id"] for place in front(values, results.maximize))),
    }


def _jobs(
    folder: RunFolder, members: Sequence[Candidate], recipe: Recipe, seeds: Sequence[int], data: Path, inherit: bool
) -> dict[str, dict[str, Any]]:
    """Every training by its place. Raises RunError where a candidate has no weights to begin with."""
    for candidate in members:
        if inherit and WEIGHTS not in folder.candidate(candidate.hash).names():
            raise RunError(
                f"{folder.store.url}: candidate {candidate.id} has no {WEIGHTS} to begin with; leave out --inherit"
            )
    return {
        _key(candidate.hash, seed, inherit): _payload(folder, candidate, recipe, seed, data, inherit)
        for candidate in members
        for seed in seeds
    }


def _key(name: str, seed: int, inherit: bool) -> str:
    """The place of a training in `final`. Raises RunError for a hash that is none."""
    if not name.isalnum():
        raise RunError(f"{shorten(name)}: is no candidate's hash; a trial's file was changed by hand")
    return f"{name}/{seed}{'_inherited' if inherit else ''}"


def _payload(
    folder: RunFolder, candidate: Candidate, recipe: Recipe, seed: int, data: Path, inherit: bool
) -> dict[str, Any]:
    identity, own = folder.identity() or {}, folder.candidate(candidate.hash)
    payload = {
        "spec": (own.read("spec.yaml") or b"").decode(),
        "recipe": recipe.model_copy(update={"seed": seed}).model_dump(mode="json"),
        "data": str(data.resolve()),
        "digest": identity["data"]["digest"],
        "store": folder.store.at(f"{FOLDER}/{_key(candidate.hash, seed, inherit)}").url,
    }
    return payload | ({"parent": own.url} if inherit else {})


def _describe(folder: RunFolder, key: str, payload: dict[str, Any]) -> None:
    """What a trained network's folder says besides its weights."""
    store, classes = folder.store.at(f"{FOLDER}/{key}"), (folder.identity() or {})["data"]["classes"]
    if store.read("spec.yaml") is None:
        store.write("labels.txt", "".join(f"{name}\n" for name in classes))
        write_json(store, "recipe.json", payload["recipe"])
        store.write("spec.yaml", payload["spec"])


def _run(
    jobs: dict[str, dict[str, Any]], folder: RunFolder, executor: Executor, epochs: int, report: Report
) -> dict[str, Outcome]:
    """Every job's outcome. Raises RunError for a fault that is none of a network's."""
    for key, payload in jobs.items():
        executor.submit(key, payload)
    outcomes: dict[str, Outcome] = {}
    done = 0
    while len(outcomes) < len(jobs):
        said = []
        for outcome in executor.wait(POLL_SECONDS):
            if outcome.result is not None and "stop" in outcome.result:
                raise RunError(f"{outcome.result['stop']}; nothing is lost: mend it and give the same command again")
            outcomes[outcome.key] = outcome
            said.append(outcome.key if outcome.error is None else f"{outcome.key}: {outcome.error}")
        said += [f"{key}: {line}" for key, line in executor.lines()]
        with suppress(RunError, OSError):  # how far they are is no reason to stop
            done = sum(len(rows_of(read_json(folder.store.at(f"{FOLDER}/{key}"), CURVE), key)) for key in jobs)
        for line in said or [""]:
            report(done, epochs * len(jobs), line)
    return outcomes


def _row(candidate: Candidate, results: Results, outcomes: dict[str, Outcome]) -> dict[str, Any]:
    """What the trainings of one network say together; costs are as they were."""
    own = [outcome for key, outcome in outcomes.items() if key.startswith(f"{candidate.hash}/")]
    found = [outcome.result for outcome in own if outcome.result is not None]
    row: dict[str, Any] = {
        "id": candidate.id,
        "hash": candidate.hash,
        "published": candidate.published,
        "choices": dict(candidate.choices),
        "selected": {name: candidate.metrics[name] for name in results.objectives},
        "metrics": dict(candidate.metrics),
        "trained": len(found),
        "failed": [outcome.error for outcome in own if outcome.error is not None],
    }
    if found:
        for name in found[0]["metrics"]:
            values = [result["metrics"][name] for result in found]
            row["metrics"][name] = float(np.mean(values))
            if len(values) > 1:
                row.setdefault("spread", {})[name] = float(np.std(values, ddof=1))
        hits = np.array([result["hits"] for result in found])
        row |= {"test_top1": float(hits.mean()), "test_interval": two_way_interval(hits)}
    return row
