"""What our driver takes beside Optuna alone: milliseconds an ask and tell, and memory, with many trials stored already.

    python benchmarks/driver.py [--space SPACE] [--trials 100 1000 10000] [--next 30] [--times 5] [--json]

Both sides know the same trials, drawn at random from the feasible networks of the space with made-up accuracies, and
have the same sampler. Ours is a whole `drive` in a run folder on disk, whose candidates come back at once; timed is all
that happens between two of them: asking, building and costing the network, looking for it among those known, writing
its files and the trial's, telling. The peers are Optuna's documented loop (ask, suggest, constraints for the space's
limits, tell; all values made up) on a study in memory, which is lost with its process, and on Optuna's journal file,
which is not. Every measurement is a process of its own, the sides in turn. Memory is what Python has allocated for the
study and the driver (tracemalloc).
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from claims import Claim, claim, parser, print_claims
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from archsearch.search.driver import drive
from archsearch.search.executors import Outcome
from archsearch.search.folder import RunFolder, Settled
from archsearch.search.plan import Plan, check
from archsearch.search.study import as_trial, make_sampler
from archsearch.space.file import read_space
from archsearch.space.space import SearchRecord
from archsearch.store import open_store
from archsearch.training.recipe import Recipe

SAMPLERS = ("tpe", "nsga2")
SIDES = ("ours", "memory", "journal")
TIME, MEMORY = 1.2, 1.3
EPOCHS = 27
ASKS_WATCHED = 3  # while memory is traced, which is slow


def values(seed: Any) -> dict[str, float]:
    """Made-up metrics, a function of the seed alone."""
    loss = random.Random(str(seed)).random()
    return {"top1": 1 - loss, "loss": loss, "train_loss": loss}


def plan_of(given: argparse.Namespace, trials: int) -> Plan:
    """The plan of a search in the given folder, without the published networks."""
    search = SearchRecord(sampler=given.sampler, trials=trials)
    space = replace(read_space(given.space), search=search, published={})
    classes = tuple(f"class {place}" for place in range(10))
    folder = RunFolder(open_store(str(given.folder)))
    return Plan(space.for_classes(10), Recipe(epochs=EPOCHS), "", "0" * 12, classes, folder, trials)


def fill(given: argparse.Namespace) -> None:
    """Writes settled trials, `given.stored` of them, into an empty run folder."""
    plan, known = plan_of(given, 1), set[str]()
    for positions in plan.space.sample_positions(100 * given.stored, seed=1):
        facts = check(plan, plan.space.spec_at(positions))
        if facts.reason is None and facts.candidate not in known:
            metrics = facts.cost | values(facts.candidate)
            params = plan.space.choices(positions)
            plan.folder.settle(Settled(len(known), params, facts.candidate, "complete", metrics, EPOCHS, 60.0))
            known.add(facts.candidate)
        if len(known) == given.stored:
            return
    raise SystemExit(f"{given.space}: has fewer than {given.stored} feasible networks")


class Instant:
    """An executor whose candidates come back at once."""

    workers = 1

    def __init__(self) -> None:
        self.stamps: list[float] = []
        self._done: list[Outcome] = []

    def submit(self, key: str, payload: Mapping[str, Any]) -> None:
        """Makes an outcome up."""
        self.stamps.append(time.perf_counter())
        self._done.append(Outcome(key, {"epochs": EPOCHS, "metrics": values(key), "seconds": 60.0}, None))

    def wait(self, timeout_seconds: float | None = None) -> list[Outcome]:
        """What was handed in."""
        done, self._done = self._done, []
        return done

    def places(self) -> dict[str, str]:
        """Nowhere."""
        return {}

    def lines(self) -> list[tuple[str, str]]:
        """None."""
        return []


def ours(given: argparse.Namespace) -> float:
    """Seconds for an ask and tell of our driver."""
    executor = Instant()
    plan = plan_of(given, given.stored + given.next + 1)
    drive(plan, executor)  # type: ignore[arg-type]
    asks = len(plan.folder.settled()) - given.stored - 1  # some are infeasible or known, and bring no candidate
    return float((executor.stamps[-1] - executor.stamps[0]) / asks)


def optunas(given: argparse.Namespace) -> float:
    """Seconds for an ask and tell of Optuna's loop, on a study in memory or on a journal file."""
    plan = plan_of(given, 1)
    storage = JournalStorage(JournalFileBackend(str(given.folder / "journal"))) if given.side == "journal" else None
    directions = list(plan.space.objectives.values())
    study = optuna.create_study(storage=storage, directions=directions, sampler=make_sampler(plan.space, 0))
    study.add_trials([as_trial(plan.space, trial) for trial in plan.folder.settled()])
    started = 0.0
    for _ in range(given.next + 1):  # the first is left out, as of ours
        trial = study.ask()
        for parameter in plan.space.parameters:
            parameter.suggest(trial)
        for limit in plan.space.limits:
            trial.set_constraint(limit, -1.0)
        study.tell(trial, [random.random() for _ in directions])
        started = started or time.perf_counter()
    return (time.perf_counter() - started) / int(given.next)


def one_side(given: argparse.Namespace) -> None:
    """Prints milliseconds, or megabytes."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    side = ours if given.side == "ours" else optunas
    if not given.traced:
        print(1000 * side(given))
        return
    given.next = ASKS_WATCHED
    tracemalloc.start()
    side(given)
    print(tracemalloc.get_traced_memory()[1] / 1e6)


def measured(given: argparse.Namespace, side: str, *, traced: bool) -> float:
    """One side in a process of its own, on a copy of the folder."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(given.folder, copy, dirs_exist_ok=True)
        told = {"side": side, "folder": copy, "space": given.space, "sampler": given.sampler}
        told |= {"stored": given.stored, "next": given.next}
        words = [word for name, value in told.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, __file__, *words, *(["--traced"] if traced else [])]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compared(given: argparse.Namespace) -> list[Claim]:
    """The claims of one sampler and number of stored trials."""
    turns = [[measured(given, side, traced=False) for side in SIDES] for _ in range(given.times)]
    sizes = [measured(given, side, traced=True) for side in SIDES[:2]]
    if not given.json:
        own, memory, journal = np.median(turns, axis=0)
        print(
            f"{given.sampler:6} {given.stored:>6,} stored: {own:7.1f} ms; Optuna in memory {memory:7.1f}, "
            f"on a journal {journal:7.1f}; {sizes[0]:5.1f} MB for {sizes[1]:5.1f}",
            flush=True,
        )
    where = f"{given.sampler}, {given.stored:,} stored"
    return [
        claim(f"ask and tell over Optuna's in memory, {where}", [own / its for own, its, _ in turns], TIME, below=True),
        claim(f"ask and tell over Optuna's journal, {where}", [own / its for own, _, its in turns], TIME, below=True),
        claim(f"memory over Optuna's, {where}", [sizes[0] / sizes[1]], MEMORY, below=True),
    ]


def main() -> None:
    """Measures all sides in turn, and prints."""
    options = parser(__doc__)
    options.add_argument("--space", type=Path, default=Path("search_spaces/free.yaml"))
    options.add_argument("--trials", type=int, nargs="+", default=[100, 1_000, 10_000], help="stored before")
    options.add_argument("--next", type=int, default=30, help="asks that are timed")
    options.add_argument("--times", type=int, default=5)
    options.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    for name, kind in {"side": str, "sampler": str, "stored": int, "folder": Path}.items():
        options.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    options.add_argument("--traced", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.side:
        one_side(given)
        return
    claims: list[Claim] = []
    for stored in given.trials:
        with tempfile.TemporaryDirectory() as folder:
            here = {**vars(given), "stored": stored, "folder": Path(folder)}
            fill(argparse.Namespace(**{**here, "sampler": "random"}))
            for sampler in given.samplers:
                claims += compared(argparse.Namespace(**{**here, "sampler": sampler}))
    print_claims(claims, given.json)


if __name__ == "__main__":
    main()
