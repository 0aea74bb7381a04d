"""A table of a space: every network trained before, so that ways to search are compared without training.

A table is one JSON file: the data set, the recipe, and a row for each training with its network's digest, choices,
seed, epochs, metrics, seconds and curve. It is made of run folders, and answers where workers would train.
"""

import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from archsearch.errors import RunError, SpecError
from archsearch.files import parse_yaml, write_whole
from archsearch.search.executors import Outcome, Payload
from archsearch.search.fields import check_result, rows_of
from archsearch.search.folder import RunFolder, Settled
from archsearch.search.plan import run_recipe
from archsearch.spec.spec import digest, lower, parse_spec
from archsearch.store import Store, open_store, read_json
from archsearch.training.loop import reading
from archsearch.training.recipe import Recipe

Key = tuple[str, int, int]  # network, seed, epochs
CURVE = ("train_loss", "val_loss", "val_top1", "seconds")


@dataclass(frozen=True)
class Table:
    """What was trained, by network, seed and epochs; `recipe` is that of the longest training."""

    data: Mapping[str, Any]  # {"digest", "classes"}
    recipe: Recipe
    rows: Mapping[Key, Mapping[str, Any]]


def write_table(runs: Sequence[str], path: Path) -> int:
    """Writes the table of some runs on one data set; returns how many trainings it has.

    Trainings that paused are left out, and those that began with weights of others, since what came of them is not
    the network's alone. Raises RunError for no run folder, for one whose values are not of trainings or whose
    candidates are gone, for runs on different data, and for recipes that differ by more than their seed and the
    length of their schedule.
    """
    found: list[tuple[Recipe, dict[str, Any]]] = []
    rows: list[dict[str, Any]] = []
    for run in runs:
        folder = RunFolder(open_store(run))
        identity = folder.identity()
        if identity is None:
            raise RunError(f"{run}: is no run folder (it has no run.json)")
        if "values" in identity:
            raise RunError(f"{run}: its values are of a table or of shared weights; a table is made of trainings")
        recipe = run_recipe(folder)
        found.append((recipe, identity["data"]))
        if (_whatever(recipe), identity["data"]) != (_whatever(found[0][0]), found[0][1]):
            raise RunError(f"{run}: has another recipe or data set than {runs[0]}; a table is of one")
        rows += [_row(store, trial, recipe.seed) for trial, store in _trainings(folder)]
    longest = max((recipe for recipe, _ in found), key=lambda recipe: recipe.epochs)
    lines = ",\n".join(json.dumps(row) for row in rows)
    head = json.dumps({"data": found[0][1], "recipe": longest.model_dump(mode="json", exclude_defaults=True)})
    write_whole(path, f'{head[:-1]}, "rows": [\n{lines}\n]}}\n')
    return len(rows)


def _trainings(folder: RunFolder) -> Iterator[tuple[Settled, Store]]:
    """Every training that was finished: its trial, and the folder of the candidate."""
    for trial in folder.settled():
        if trial.duplicate_of is None and trial.inherited is None and trial.state == "complete":
            yield trial, folder.candidate(trial.candidate)


def _whatever(recipe: Recipe) -> dict[str, Any]:
    """What does not change with the seed and the length of the schedule."""
    share = {"warmup_share": round(recipe.warmup_epochs / recipe.epochs, 3)}
    return recipe.model_dump(exclude={"seed", "epochs", "warmup_epochs"}) | share


def _row(candidate: Store, trial: Settled, seed: int) -> dict[str, Any]:
    spec = candidate.read("spec.yaml")
    result, curve = read_json(candidate, "result.json"), read_json(candidate, "curve.json")
    if spec is None or result is None or curve is None:
        raise RunError(f"{candidate.url}: the training of trial {trial.number} is no longer there")
    result, curve = check_result(result, f"{candidate.url}/result.json"), rows_of(curve, f"{candidate.url}/curve.json")
    if not all(set(CURVE) <= epoch.keys() for epoch in curve):
        raise RunError(f"{candidate.url}/curve.json: an epoch has not all of {', '.join(CURVE)}; leave this run out")
    return {
        "network": _network(spec.decode(errors="replace"), f"{candidate.url}/spec.yaml"),
        "choices": trial.params,
        "seed": seed,
        **result,
        "curve": {name: [epoch[name] for epoch in curve] for name in CURVE},
    }


def _network(text: str, place: str = "candidate") -> str:
    return digest(lower(parse_spec(parse_yaml(text, place, SpecError), place)))


def read_table(path: Path) -> Table:
    """What `write_table` wrote. Raises RunError for anything else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        rows = {(row["network"], row["seed"], row["epochs"]): row for row in data["rows"]}
        return Table(data["data"], Recipe.model_validate(data["recipe"]), rows)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise RunError(f"{path}: is no table of `archsearch tabulate` ({reason})") from None


class Replay:
    """An executor that answers from a table; `workers` train side by side in the table's own seconds.

    `seconds` is the clock: when the last outcome came, had all been trained.
    """

    def __init__(self, table: Table, workers: int = 1) -> None:
        self.workers = workers
        self.seconds = 0.0
        self.table = table
        self._free = [0.0] * workers  # when each worker has done what it has
        self._due: list[tuple[float, int, Outcome]] = []
        self._submitted = 0
        self._spent: dict[str, float] = {}  # seconds, of each key

    def submit(self, key: str, payload: Payload) -> None:
        """Looks a training up; it is due when the table says it took so long."""
        outcome = self._outcome(key, payload)
        spent = outcome.result["seconds"] if outcome.result else 0.0
        due = max(self.seconds, heapq.heappop(self._free)) + spent - self._spent.get(key, 0.0)
        self._spent[key] = spent
        heapq.heappush(self._free, due)
        heapq.heappush(self._due, (due, self._submitted, outcome))
        self._submitted += 1

    def wait(self, timeout_seconds: float | None = None) -> list[Outcome]:
        """The outcome that is due next."""
        if not self._due:
            return []
        self.seconds, _, outcome = heapq.heappop(self._due)
        return [outcome]

    def lines(self) -> list[tuple[str, str]]:
        """A table warns of nothing."""
        return []

    def places(self) -> dict[str, str]:
        """Nothing runs."""
        return {}

    def close(self) -> None:
        """Forgets what is due."""
        self._due.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @staticmethod
    def network(text: str) -> str:
        """What a table knows a network by, from its YAML."""
        return _network(text)

    def _outcome(self, key: str, payload: Payload) -> Outcome:
        recipe = payload["recipe"]
        row = self.table.rows.get((self.network(payload["spec"]), recipe["seed"], recipe["epochs"]))
        if row is None:
            return Outcome(
                key, None, f"the table has no such network at {recipe['epochs']} epochs, seed {recipe['seed']}"
            )
        if "until" not in payload:
            return Outcome(key, {name: row[name] for name in ("epochs", "metrics", "seconds")}, None)
        curve = [dict(zip(row["curve"], epoch, strict=True)) for epoch in zip(*row["curve"].values(), strict=True)]
        return Outcome(key, reading(curve, payload["until"]), None)
