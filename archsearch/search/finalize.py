"""Finalising: the front of a search is trained from scratch again with fresh seeds, and scored on `test` once.

final/<hash>/<seed>/         a training as a candidate's folder has it, and test.json: which test videos are right
final.json                   what `finalize` gives

The seed that a candidate was selected with is not among them: it would flatter what it has selected.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from archsearch.errors import RunError
from archsearch.front.dominance import front
from archsearch.front.results import Candidate, Results
from archsearch.search.executors import Executor, Outcome
from archsearch.search.folder import RunFolder
from archsearch.search.plan import run_recipe
from archsearch.search.results import read_results
from archsearch.store import open_store, read_json, write_json
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


def finalize(run: str, data: Path, seeds: int, executor: Executor, report: Report = lambda *_: None) -> dict[str, Any]:
    """Trains every finalist `seeds` times and writes final.json: means, spreads, test intervals and the front of them.

    What is finished is not trained again. Raises RunError where another process does the same, for a run without a
    front or on other data, where a fault would meet every training, as data without `test`, and where none succeeds.
    """
    results = read_results(run)
    members = finalists(results)
    folder = RunFolder(open_store(run if "://" in run else str(Path(run).resolve())))
    recipe = run_recipe(folder)
    jobs = {
        f"{candidate.hash}/{recipe.seed + number}": _payload(folder, candidate, recipe, recipe.seed + number, data)
        for candidate in members
        for number in range(1, seeds + 1)
    }
    with RunFolder(folder.store.at(FOLDER)).driving() as held:

        def report_held(done: int, total: int, said: str) -> None:
            held()
            report(done, total, said)

        outcomes = _run(jobs, folder, executor, recipe.epochs, report_held)
    rows = [_row(candidate, results, outcomes) for candidate in members]
    trained = [row for row in rows if row["trained"]]
    if not trained:
        raise RunError(f"{run}: no finalist could be trained: {rows[0]['failed'][0]}")
    values = [[row["metrics"][name] for name in results.objectives] for row in trained]
    found = {
        "run": results.run,
        "objectives": dict(results.objectives),
        "seeds": [recipe.seed + number for number in range(1, seeds + 1)],
        "candidates": rows,
        "front": [trained[place]["id"] for place in front(values, results.maximize)],
    }
    write_json(folder.store, FINAL, found)
    return found


def _payload(folder: RunFolder, candidate: Candidate, recipe: Recipe, seed: int, data: Path) -> dict[str, Any]:
    identity = folder.identity() or {}
    return {
        "spec": (folder.candidate(candidate.hash).read("spec.yaml") or b"").decode(),
        "recipe": recipe.model_copy(update={"seed": seed}).model_dump(mode="json"),
        "data": str(data.resolve()),
        "digest": identity["data"]["digest"],
        "store": folder.store.at(f"{FOLDER}/{candidate.hash}/{seed}").url,
    }


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
            done = sum(len(read_json(folder.store.at(f"{FOLDER}/{key}"), CURVE) or ()) for key in jobs)
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
            row.setdefault("spread", {})[name] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        hits = np.array([result["hits"] for result in found])
        row |= {"test_top1": float(hits.mean()), "test_interval": two_way_interval(hits)}
    return row
