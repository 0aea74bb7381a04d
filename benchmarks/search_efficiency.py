"""Epochs of training until a search has 95 % of a table's hypervolume: ours against random and Optuna's defaults.

    python benchmarks/search_efficiency.py [SPACE TABLE] [--sampler NAME] [--rungs N] [--eta N] [--seeds 20] [--json]

TABLE has every network of SPACE trained (`archsearch tabulate`), so that searches are replayed. Peers train every
candidate in full and are not charged for one they ask again; ours is asked one candidate after the other, without the
space's published networks, and goes on with larger `trials` where it has ended below the share. A seed of the search
takes the table's training seeds in turn. The hypervolume is of the space's objectives over the box down to the worst
values of the table; the floor is training the fewest networks that have 95 %, greedily chosen, known beforehand. Beside
it, what chance leaves to be known: all trainings with another seed known beforehand for nothing; one after the other is
trained in full what adds the most hypervolume by those.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is there; its threads wait for each other

import numpy as np
import optuna
from claims import claim, parser, print_claims

from archsearch.front.dominance import Floats
from archsearch.front.hypervolume import hypervolume, reference_point
from archsearch.search.driver import drive
from archsearch.search.executors import Outcome
from archsearch.search.folder import RunFolder
from archsearch.search.plan import Plan
from archsearch.search.table import Replay, Table, read_table
from archsearch.space.file import read_space
from archsearch.space.space import SearchRecord, Space
from archsearch.spec.cost import metrics
from archsearch.spec.spec import digest, lower
from archsearch.store import open_store

ROOT = Path(__file__).parent.parent
SHARE = 0.95
AIMS = {"random": 0.25, "tpe": 0.5, "nsga2": 0.5}
Training = tuple[int, str | None]  # epochs, and the network where it was a whole training


@dataclass(frozen=True)
class Truth:
    """What a table says of every network of a space for one seed of training."""

    space: Space
    epochs: int
    points: dict[str, tuple[float, ...]]  # network -> objectives after the whole training

    @property
    def maximize(self) -> list[bool]:
        """For each objective, whether more is better."""
        return [direction == "maximize" for direction in self.space.objectives.values()]

    def volume(self, networks: list[str]) -> float:
        """The hypervolume of some networks, in units of all networks'."""
        every: Floats = np.array(list(self.points.values()))
        worst = reference_point(every, self.maximize)
        some = np.array([self.points[name] for name in networks]).reshape(-1, every.shape[1])
        return hypervolume(some, self.maximize, worst) / hypervolume(every, self.maximize, worst)

    def floor(self) -> int:
        """Epochs of the fewest whole trainings that have the share, chosen greedily."""
        chosen: list[str] = []
        while self.volume(chosen) < SHARE:
            chosen.append(max(self.points, key=lambda name: self.volume([*chosen, name])))
        return len(chosen) * self.epochs

    def informed(self, other: "Truth") -> int:
        """Epochs of whole trainings until the share, in the order in which they would be best by another seed's."""
        chosen: list[str] = []
        front: list[str] = []
        while self.volume(chosen) < SHARE:
            left = [name for name in self.points if name not in chosen]
            best = max(left, key=lambda name: other.volume([*front, name]))
            if front and other.volume([*front, best]) <= other.volume(front):
                front = []  # what is left of the other's has a front of its own
                continue
            front.append(best)
            chosen.append(best)
        return len(chosen) * self.epochs


def truth(space: Space, table: Table, seed: int) -> Truth:
    """The objectives of every network of a space."""
    points = {}
    for positions in space.all_positions():
        graph = lower(space.spec_at(positions))
        row = table.rows[digest(graph), seed, table.recipe.epochs]
        known = {**metrics(graph), **row["metrics"]}
        points[digest(graph)] = tuple(known[name] for name in space.objectives)
    return Truth(space, table.recipe.epochs, points)


def needed(trainings: list[Training], known: Truth) -> int:
    """Epochs until the whole trainings have the share; those of all trainings where they never do."""
    spent, whole = 0, []
    for epochs, network in trainings:
        spent += epochs
        if network is not None:
            whole.append(network)
            if known.volume(whole) >= SHARE:
                return spent
    return spent


class Enough(Exception):
    """The share is reached."""


class Recorded(Replay):
    """A replay by one worker that keeps what it was asked, in order. Raises Enough when that has the share."""

    def __init__(self, table: Table, known: Truth) -> None:
        super().__init__(table)
        self._known = known
        self.trainings: list[Training] = []
        self._asked: dict[str, str] = {}
        self._had: dict[str, int] = {}  # epochs

    def submit(self, key: str, payload: dict[str, Any]) -> None:
        """Looks a training up."""
        self._asked[key] = self.network(payload["spec"])
        super().submit(key, payload)

    def wait(self, timeout_seconds: float | None = None) -> list[Outcome]:
        """The next outcome."""
        outcomes = super().wait(timeout_seconds)
        for outcome in outcomes:
            assert outcome.result is not None, outcome.error
            epochs, key = outcome.result["epochs"], outcome.key
            whole = epochs == self.table.recipe.epochs
            self.trainings.append((epochs - self._had.get(key, 0), self._asked[key] if whole else None))
            self._had[key] = epochs
            if whole and self._known.volume([name for _, name in self.trainings if name]) >= SHARE:
                raise Enough
        return outcomes


def ours(space: Space, table: Table, known: Truth, seed: int, train_seed: int, how: SearchRecord) -> list[Training]:
    """A search by our engine, until it has the share."""
    search = how.model_copy(update={"seed": seed, "trials": space.size})
    space = replace(space, search=search, published={})
    recipe = table.recipe.model_copy(update={"seed": train_seed})
    folder = RunFolder(open_store(f"memory://replays/{seed}"))
    folder.store.delete("")
    executor = Recorded(table, known)
    classes = tuple(table.data["classes"])
    with suppress(Enough):
        for factor in range(1, how.eta ** (how.rungs - 1) + 1):  # until all of the space is trained to the end
            drive(Plan(space, recipe, "", table.data["digest"], classes, folder, factor * space.size), executor)
    return executor.trainings


def peer(sampler: Callable[[int], optuna.samplers.BaseSampler], known: Truth, seed: int) -> list[Training]:
    """Optuna's documented loop: ask, train in full, tell."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=list(known.space.objectives.values()), sampler=sampler(seed))
    trainings: dict[str, int] = {}
    whole: list[str] = []
    while known.volume(whole) < SHARE and len(study.trials) < 20 * known.space.size:
        trial = study.ask()
        network = digest(lower(known.space.draw(trial)))
        trainings.setdefault(network, known.epochs)
        whole = list(trainings)
        study.tell(trial, known.points[network])
    return [(epochs, network) for network, epochs in trainings.items()]


PEERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed),
}


def main() -> None:
    """Prints a table, or JSON: epochs of each strategy, and ours over each peer's of the same seed."""
    options = parser(__doc__)
    options.add_argument("space", type=Path, nargs="?", default=ROOT / "search_spaces" / "table.yaml")
    options.add_argument("table", type=Path, nargs="?", default=ROOT / "runs" / "table" / "utd_mhad_depth.json")
    options.add_argument("--seeds", type=int, default=20)
    options.add_argument("--sampler", default="surrogate")
    options.add_argument("--rungs", type=int, default=3)
    options.add_argument("--eta", type=int, default=3)
    given = options.parse_args()
    how = SearchRecord(sampler=given.sampler, rungs=given.rungs, eta=given.eta)
    table = read_table(given.table)
    space = read_space(given.space).for_classes(len(table.data["classes"]))
    seeds = sorted({seed for _, seed, _ in table.rows})
    known = {seed: truth(space, table, seed) for seed in seeds}
    spent: dict[str, list[int]] = {name: [] for name in ("floor", "informed", "ours", *PEERS)}
    for seed in range(given.seeds):
        train_seed = seeds[seed % len(seeds)]
        here = known[train_seed]
        spent["floor"].append(here.floor())
        spent["informed"].append(here.informed(known[seeds[(seed + 1) % len(seeds)]]))
        spent["ours"].append(needed(ours(space, table, here, seed, train_seed, how), here))
        for name, sampler in PEERS.items():
            spent[name].append(needed(peer(sampler, here, seed), here))
    if not given.json:
        for name, epochs in spent.items():
            low, middle, high = np.quantile(epochs, [0.25, 0.5, 0.75])
            print(f"{name:8} epochs to {SHARE:.0%}: {middle:.0f} (middle half {low:.0f} to {high:.0f})")
    claims = [
        claim(
            f"epochs to {SHARE:.0%} of the hypervolume over {name}'s",
            [a / b for a, b in zip(spent["ours"], spent[name], strict=True)],
            AIMS[name],
            below=True,
        )
        for name in PEERS
    ]
    print_claims(claims, given.json)


if __name__ == "__main__":
    main()
