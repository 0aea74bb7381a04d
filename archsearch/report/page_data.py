"""What the page of a search shows, as plain data: read from the run's files, written as columns to stay small.

`networks` holds a column for each fact, by place; `designs`, `curves`, `rungs` and the rest point into it. NaN and
infinity, which JSON lacks, are None.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from archsearch.errors import RunError
from archsearch.front.growth import EXACT, growth, nearest_design
from archsearch.front.importance import METHOD, importance, option_label
from archsearch.front.results import SAME, Candidate, Results
from archsearch.report.drawing import axis_of
from archsearch.report.page_networks import Drawer, Shared, curves_of, kept_spec, network_row, rounded, run_space
from archsearch.search.fields import is_final
from archsearch.search.folder import RunFolder, Settled
from archsearch.search.results import STATES, read_results
from archsearch.space.space import Space
from archsearch.store import open_store, read_json
from archsearch.versions import versions

BEST = 200  # networks off the front whose curves are on the page
PACKAGES = ("archsearch", "torch", "numpy", "optuna", "plotly")


def page_data(run: str) -> dict[str, Any]:
    """Everything a page shows of a run, plain enough for JSON.

    Raises RunError for a folder that is no run, and for damaged files of trials; damaged curves are named instead.
    """
    results = read_results(run)
    folder = RunFolder(open_store(run))
    identity = folder.identity() or {}
    data_set = identity.get("data") or {}
    settled = folder.settled()
    space = run_space(folder, len(data_set.get("classes", ())))
    kept = _kept(results)
    found: dict[str, Any] = {
        "run": run,
        "name": results.run,
        "values": identity.get("values"),
        "objectives": dict(results.objectives),
        "counts": _counts(results, settled),
        "networks": _networks(results, settled),
        "rungs": _rungs(results, settled),
        "designs": _designs(results, space),
        "growth": _growth(results, settled),
        "importance": _importance(results),
        "final": _final(folder),
        "data": {"name": identity.get("data_name"), "digest": data_set.get("digest"),
                 "classes": list(data_set.get("classes", ()))},
        "reproduce": _reproduce(folder, identity, results),
    }  # fmt: skip
    metrics = list(found["networks"]["metrics"])
    found["axes"] = {name: list(axis_of(name)) for name in metrics}
    return found | _drawn(results, folder, space, found["designs"], kept) | _nearest(results, found["designs"])


def _counts(results: Results, settled: Sequence[Settled]) -> dict[str, Any]:
    states: Counter[str] = Counter(candidate.state for candidate in results.candidates)
    return {
        "states": {state: states[state] for state in STATES},
        "duplicates": sum(trial.duplicate_of is not None for trial in settled),
        "epochs": sum(candidate.epochs for candidate in results.candidates),
        "seconds": round(sum(trial.seconds for trial in settled), 1),
    }


def _networks(results: Results, settled: Sequence[Settled]) -> dict[str, Any]:
    """Columns over all candidates, in the order of their numbers."""
    own = results.candidates
    seconds = {trial.number: trial.seconds for trial in settled}
    metrics = list(dict.fromkeys([*results.objectives, *(name for c in own for name in c.metrics)]))
    choices = list(dict.fromkeys(name for c in own for name in c.choices))
    place = {candidate.id: index for index, candidate in enumerate(own)}
    dominators = results.dominators()
    complete = {candidate.id for candidate in results.complete()}
    return {
        "id": [c.id for c in own],
        "hash": [c.hash for c in own],
        "state": [c.state for c in own],
        "complete": [int(c.id in complete) for c in own],
        "epochs": [c.epochs for c in own],
        "seconds": [seconds.get(c.id) for c in own],
        "published": {index: c.published for index, c in enumerate(own) if c.published},
        "reason": {index: c.reason for index, c in enumerate(own) if c.reason},
        "inherited": {index: c.inherited for index, c in enumerate(own) if c.inherited},
        "front": [place[c.id] for c in results.front()],
        "dominated_by": {place[one]: place[by] for one, by in dominators.items()},
        "metrics": {name: [finite(c.metrics.get(name)) for c in own] for name in metrics},
        "choices": {name: _choice([c.choices.get(name) for c in own]) for name in choices},
    }


def finite(value: Any) -> float | None:
    """A number that JSON has, shortened; else None."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return rounded(value) if known else None


def _choice(values: Sequence[Any]) -> dict[str, list[Any]]:
    """`options`: the labels; `values`: the place of each network's, -1 where it never met the choice."""
    met = {option_label(value): value for value in values if value is not None}
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in met.values())
    labels = sorted(met, key=lambda label: met[label]) if numbers else sorted(met)
    place = {label: index for index, label in enumerate(labels)}
    return {"options": labels, "values": [-1 if v is None else place[option_label(v)] for v in values]}


def _rungs(results: Results, settled: Sequence[Settled]) -> list[list[Any]]:
    """What was read of stopped candidates at their last rung: [network, epochs, metrics]."""
    place = {candidate.id: index for index, candidate in enumerate(results.candidates)}
    found = []
    for trial in settled:
        if trial.state == "stopped" and trial.duplicate_of is None and trial.rungs and trial.number in place:
            last = trial.rungs[-1]
            read = {**trial.metrics, **last.get("metrics", {})}
            metrics = {name: finite(value) for name, value in read.items()}
            found.append([place[trial.number], last.get("epochs"), metrics])
    return found


def _designs(results: Results, space: Space | str) -> list[dict[str, Any]]:
    """The published designs, of the space and of the run: choices, and the network's place where it was tried."""
    place = {candidate.id: index for index, candidate in enumerate(results.candidates)}
    tried = results.published()
    by_id = {candidate.id: candidate for candidate in results.candidates}
    named = {} if isinstance(space, str) else {name: dict(own) for name, own in space.published.items()}
    named = {name: dict(by_id[tried[name]].choices) if name in tried else own for name, own in named.items()}
    named |= {name: dict(by_id[one].choices) for name, one in tried.items() if name not in named}
    return [
        {"name": name, "choices": own, "network": place[tried[name]] if name in tried else None}
        for name, own in named.items()
    ]


def _nearest(results: Results, designs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each network, the nearest design but itself and in how many choices they differ: [design, number] or None."""
    choices = {design["name"]: design["choices"] for design in designs}
    names = list(choices)
    rows: list[list[int] | None] = []
    for candidate in results.candidates:
        own = set(candidate.published.split(SAME)) if candidate.published else set[str]()
        others = {name: one for name, one in choices.items() if name not in own} if own else choices
        best = nearest_design(candidate.choices, others)
        rows.append(None if best is None else [names.index(best[0]), best[1]])
    return {"nearest": rows}


def _growth(results: Results, settled: Sequence[Settled]) -> dict[str, Any]:
    """Hypervolume after each candidate that was trained, against epochs and worker seconds spent until then."""
    by_id = {candidate.id: candidate for candidate in results.candidates}
    complete = {candidate.id for candidate in results.complete()}
    spent = [t for t in settled if t.duplicate_of is None and t.state != "infeasible" and t.number in by_id]
    values = results.values([by_id[trial.number] for trial in spent])
    values[[trial.number not in complete for trial in spent]] = np.nan
    volumes = growth(values, results.maximize)
    return {
        "number": [trial.number for trial in spent],
        "epochs": np.cumsum([trial.epochs for trial in spent], dtype=np.int64).tolist(),
        "seconds": [round(float(s), 1) for s in np.cumsum([trial.seconds for trial in spent], dtype=np.float64)],
        "volume": [round(float(volume), 5) for volume in volumes],
        "exact": len(results.objectives) <= EXACT,
    }


def _importance(results: Results) -> dict[str, Any]:
    """What choices do to the objectives, and to parameters where all have them."""
    complete = results.complete()
    wanted = list(dict.fromkeys([*results.objectives, "gmacs", "params"]))
    names = [n for n in wanted if n in results.objectives or (complete and all(n in c.metrics for c in complete))]
    metrics = {name: [c.metrics[name] for c in complete] for name in names} if complete else {}
    found = importance([c.choices for c in complete], metrics)
    return {"method": METHOD, "metrics": _plain([asdict(entry) for entry in found])}


def _plain(data: Any) -> Any:
    """Plain data with rounded numbers, and None for those that JSON lacks."""
    if isinstance(data, dict):
        return {name: _plain(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    return finite(data) if isinstance(data, float) else data


def _final(folder: RunFolder) -> dict[str, Any] | None:
    """What `archsearch finalize` wrote, or None. Raises RunError for another thing."""
    found = read_json(folder.store, "final.json")
    if found is None:
        return None
    needed = {"choices", "selected"}
    if not (is_final(found) and all(needed <= row.keys() for row in found["candidates"])):
        raise RunError(
            f"{folder.store.url}/final.json: is no result of `archsearch finalize`; delete it and run it again"
        )
    plain: dict[str, Any] = _plain(found)
    return plain


def _kept(results: Results) -> list[Candidate]:
    """Whose curves a page has: the front, the published designs, and the best by the first objective."""
    first, more = next(iter(results.objectives.items()))
    known = [c for c in results.candidates if math.isfinite(c.metrics.get(first, math.nan))]
    best = sorted(known, key=lambda c: -c.metrics[first] if more == "maximize" else c.metrics[first])[:BEST]
    marked = [candidate for candidate in results.candidates if candidate.published]
    return list({candidate.id: candidate for candidate in [*results.front(), *marked, *best]}.values())


def _drawn(
    results: Results,
    folder: RunFolder,
    space: Space | str,
    designs: Sequence[Mapping[str, Any]],
    kept: Sequence[Candidate],
) -> dict[str, Any]:
    """Networks stage by stage, curves by place, and what is not there."""
    shared = Shared()
    drawer = None if isinstance(space, str) else Drawer(space)
    ids = {candidate.id for candidate in kept}

    def row(choices: Mapping[str, Any], candidate: Candidate | None) -> list[Any] | None:
        spec = drawer.spec(choices) if drawer else None
        if spec is None and candidate is not None and candidate.id in ids and candidate.hash:
            spec = kept_spec(folder, candidate.hash)
        return None if spec is None else network_row(spec, shared)

    rows = [row(candidate.choices, candidate) for candidate in results.candidates]
    drawn = [rows[d["network"]] if d["network"] is not None else row(d["choices"], None) for d in designs]
    place = {candidate.hash: index for index, candidate in enumerate(results.candidates)}
    curves, broken = curves_of(folder, [candidate.hash for candidate in kept if candidate.hash])
    return {
        "drawn": {"networks": rows, "designs": drawn, "stages": shared.stages, "sizes": shared.sizes,
                  "heads": shared.heads, "fault": space if isinstance(space, str) else None},
        "curves": {place[name]: curve for name, curve in curves.items()},
        "curves_of": {"best": BEST, "wanted": len(kept), "broken": broken},
    }  # fmt: skip


def _reproduce(folder: RunFolder, identity: Mapping[str, Any], results: Results) -> dict[str, Any]:
    """The files, commands and versions that lead to such a run again."""
    trained = sum(candidate.state != "infeasible" for candidate in results.candidates)
    values, data = identity.get("values"), "DATA"
    common = "--recipe recipe.yaml --out again"
    if values == "shared":
        commands = [f"archsearch share space.yaml {data} {common}"]
    elif values == "table":
        commands = [f"archsearch search space.yaml --replay TABLE {common} --trials {trained}"]
    else:
        commands = [f"archsearch search space.yaml {data} {common} --trials {trained}"]
    commands += [f"archsearch finalize again {data}", "archsearch report again"]
    texts = {name: (folder.store.read(name) or b"").decode(errors="replace") for name in ("space.yaml", "recipe.yaml")}
    digests = {name: identity.get(name) for name in ("space", "recipe")}
    return {"commands": commands, "files": texts, "digests": digests, "versions": versions(PACKAGES)}
