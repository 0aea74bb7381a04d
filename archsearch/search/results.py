"""What a run has found so far, read from its files alone; torch is not imported."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from archsearch.errors import RunError
from archsearch.files import plain
from archsearch.front.hypervolume import normalised_hypervolume
from archsearch.front.results import SAME, Candidate, Results
from archsearch.search.fields import rows_of
from archsearch.search.folder import Asked, RunFolder, Settled
from archsearch.store import open_store, read_json

STATES = ("complete", "stopped", "infeasible", "running", "failed")


def read_results(run: str) -> Results:
    """Every distinct candidate of a run. Raises RunError for a folder that is no run."""
    folder = RunFolder(open_store(run))
    identity = folder.identity()
    if identity is None:
        raise RunError(f"{run}: is no run folder (it has no run.json); `archsearch search ... --out {run}` starts one")
    settled = {trial.number: trial for trial in folder.settled()}
    names = _names(settled.values())
    candidates = [_candidate(trial, names) for trial in settled.values() if trial.duplicate_of is None]
    for asked in folder.asked():
        if asked.number not in settled:
            candidates.append(_unsettled(folder, asked))
    candidates.sort(key=lambda candidate: candidate.id)
    objectives = {_line(name): direction for name, direction in identity["objectives"].items()}
    return Results(_line(identity["name"]), objectives, tuple(candidates))


def read_both(left: str, right: str) -> tuple[Results, Results]:
    """The results of two runs; where both have one name, under as much of their places as tells them apart."""
    first, second = read_results(left), read_results(right)
    if first.run != second.run:
        return first, second
    names = told_apart(left, right)
    return replace(first, run=_line(names[0])), replace(second, run=_line(names[1]))


def told_apart(left: str, right: str) -> tuple[str, str]:
    """The ends of two paths, of as many parts as differ."""
    one, other = (place.rstrip("/").split("/") for place in (left, right))
    tails = (("/".join(one[-n:]), "/".join(other[-n:])) for n in range(1, max(len(one), len(other)) + 1))
    return next(((mine, its) for mine, its in tails if mine != its), (left, right))


def _names(trials: Iterable[Settled]) -> dict[str, str]:
    """What each published candidate is called; several that are one network by all of their names."""
    names: dict[str, list[str]] = {}
    for trial in trials:
        if trial.published and trial.candidate:
            names.setdefault(trial.candidate, []).append(_line(trial.published))
    return {candidate: SAME.join(own) for candidate, own in names.items()}


def _candidate(trial: Settled, names: Mapping[str, str]) -> Candidate:
    published = names.get(trial.candidate, trial.published)
    return Candidate(
        trial.number,
        trial.candidate,
        _plain(trial.params),
        _plain(trial.metrics),
        trial.epochs,
        trial.state,
        None if published is None else _line(published),
        None if trial.reason is None else _line(trial.reason),
        trial.inherited,
    )


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same, names and texts as a terminal may have them."""
    return {_line(name): _line(value) if isinstance(value, str) else value for name, value in data.items()}


def _unsettled(folder: RunFolder, asked: Asked) -> Candidate:
    """A candidate that a worker has, or that waits after a rung for whether it is among the best."""
    store = folder.candidate(asked.candidate)
    epochs = len(rows_of(read_json(store, "curve.json"), f"{store.url}/curve.json"))
    published = None if asked.published is None else _line(asked.published)
    return Candidate(
        asked.number, asked.candidate, _plain(asked.params), _plain(asked.cost), epochs, "running", published
    )


def read_status(run: str) -> dict[str, Any]:
    """How far a run is: trials by state, epochs and worker seconds spent, and the normalised hypervolume."""
    results = read_results(run)
    counts: Counter[str] = Counter(candidate.state for candidate in results.candidates)
    complete = results.complete()
    settled = RunFolder(open_store(run)).settled()
    volume = normalised_hypervolume(results.values(complete), results.maximize) if complete else 0.0
    return {
        "run": results.run,
        "trials": {state: counts[state] for state in STATES},
        "duplicates": sum(trial.duplicate_of is not None for trial in settled),
        "epochs": sum(candidate.epochs for candidate in results.candidates),
        "seconds": round(float(np.sum([trial.seconds for trial in settled])), 1),
        "hypervolume": round(volume, 4),
        **_shared(run),
    }


def _shared(run: str) -> dict[str, Any]:
    """What the training of shared weights took, where values are read off them (see `sharing`)."""
    result = read_json(open_store(run), "shared/result.json")
    try:
        return {} if result is None else {"shared": {"epochs": int(result["epochs"]), "seconds": result["seconds"] + 0}}
    except (KeyError, TypeError, ValueError):
        place = f"{run.rstrip('/')}/shared/result.json"
        raise RunError(f"{place}: does not say epochs and seconds; delete it and give the same command again") from None


def is_shared(run: str) -> bool:
    """Whether a run's values are read off shared weights, and not of trainings."""
    return (RunFolder(open_store(run)).identity() or {}).get("values") == "shared"


def _line(text: str) -> str:
    """A name or a reason as a terminal may have it, on one line."""
    return plain(re.sub(r"\s+", " ", text))
