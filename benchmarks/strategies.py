"""Real searches at equal wall-clock: which way of spending the same minutes leaves the best front.

    python benchmarks/strategies.py SPACE DATA --recipe RECIPE --finals RUN ... --work FOLDER [--minutes 30] [--seeds 3]

For each seed all ways run at the same time with a worker each, so that whatever else the machine does meets all of
them, and are interrupted after so many minutes. Each starts from nothing, without the published networks. What a way
has chosen is the front of its own values of `val`; what that is worth is the hypervolume of its members' accuracy on
`test` after training from scratch with other seeds, in units of that of all networks. The runs of FINALS have every
network of SPACE trained by the same recipe with those seeds; seeds of the search's trainings begin at 10. Beside it the
front that the values of `val` of one whole run of FINALS choose, worth what the others of FINALS say: what a search
would have after training everything once. Whatever is finished is kept in FOLDER.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from archsearch.front.hypervolume import hypervolume, reference_point
from archsearch.report.progress import track
from archsearch.search.results import read_results, read_status
from archsearch.spec.spec import digest, lower, read_spec
from archsearch.training.single import evaluate_single

HALVING = {"sampler": "surrogate", "rungs": 3, "eta": 3}
WAYS: Mapping[str, Mapping[str, Any]] = {
    "from scratch": {"sampler": "tpe"},  # the defaults
    "MO-ASHA": HALVING,
    "MO-ASHA, inheritance": {**HALVING, "inherit": 0.2},
    "weight sharing": {},
}
SHARED = "weight sharing"
FIRST_SEED = 10
Finals = Mapping[str, Mapping[str, float]]  # network -> run of FINALS -> accuracy on test


def network_in(run: str, candidate: str) -> str:
    """The digest of a candidate's network."""
    return digest(lower(read_spec(Path(run) / "candidates" / candidate / "spec.yaml")))


def finals(runs: Sequence[str], data: Path, kept: Path) -> Finals:
    """Every network's accuracy on test, as each run has trained it; measured once."""
    found: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.exists() else {}
    for run in runs:
        for candidate in read_results(run).complete():
            own = found.setdefault(network_in(run, candidate.hash), {})
            if run not in own:
                folder = str(Path(run) / "candidates" / candidate.hash)
                own[run] = evaluate_single(folder, data, "test", None, False)["top1"]
                kept.write_text(json.dumps(found))
    return found


class Worth:
    """The hypervolume of networks by their mean accuracy on test over some runs, in units of all networks'."""

    def __init__(self, found: Finals, costs: Mapping[str, float], runs: Sequence[str]) -> None:
        self._points = {name: (float(np.mean([own[run] for run in runs])), costs[name]) for name, own in found.items()}
        every = np.array(list(self._points.values()))
        self._worst = reference_point(every, (True, False))
        self._all = hypervolume(every, (True, False), self._worst)

    def of(self, networks: Sequence[str]) -> float:
        """The share that these have."""
        if not networks:
            return 0.0
        points = np.array([self._points[name] for name in networks])
        return hypervolume(points, (True, False), self._worst) / self._all


def start(way: str, seed: int, given: argparse.Namespace, folder: Path) -> subprocess.Popen[bytes]:
    """Begins with one way of searching, in the folder."""
    space = yaml.safe_load(given.space.read_text())
    space |= {"published": [], "search": {"trials": given.trials, "seed": seed, **WAYS[way]}}
    recipe = yaml.safe_load(given.recipe.read_text()) | {"seed": FIRST_SEED + seed}
    folder.mkdir(parents=True, exist_ok=True)
    for name, record in (("space", space), ("recipe", recipe)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(record))
    words = ["share" if way == SHARED else "search", folder / "space.yaml", given.data]
    words += ["--recipe", folder / "recipe.yaml", "--out", folder / "run"]
    words += [] if way == SHARED else ["--workers", 1]
    command = [sys.executable, "-c", "from archsearch.cli import main; main()", *map(str, words)]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def run_all(seed: int, given: argparse.Namespace) -> dict[str, Path]:
    """All ways side by side, for so many minutes; the folder of each."""
    folders = {way: given.work / f"{way.replace(', ', '_').replace(' ', '_')}_{seed}" for way in WAYS}
    if all((folder / "done").exists() for folder in folders.values()):
        return folders
    started = {way: start(way, seed, given, folder) for way, folder in folders.items()}
    with track(given.minutes, f"seed {seed}: minutes") as advance:
        for _ in range(given.minutes):
            time.sleep(60)
            advance()
    for child in started.values():
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGINT)
        child.wait()
    for folder in folders.values():
        (folder / "done").write_text("")
    return folders


def chosen(folder: Path) -> list[str]:
    """The networks on the front that a way has found."""
    run = str(folder / "run")
    return [network_in(run, member.hash) for member in read_results(run).front()]


def spent(folder: Path) -> str:
    """How many networks have values, and epochs."""
    status = read_status(str(folder / "run"))
    trials = status["trials"]
    stopped = f", {trials['stopped'] + trials['running']} paused" if trials["stopped"] + trials["running"] else ""
    return f"{trials['complete']} whole{stopped}; {status['epochs']} epochs"


def whole_tables(found: Finals, costs: Mapping[str, float], runs: Sequence[str]) -> list[float]:
    """What the front of each whole run is worth by what the others have trained."""
    values = []
    for run in runs:
        members = [network_in(run, member.hash) for member in read_results(run).front()]
        values.append(Worth(found, costs, [other for other in runs if other != run]).of(members))
    return values


def main() -> None:
    """Runs what is missing and prints a table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("space", type=Path)
    options.add_argument("data", type=Path)
    options.add_argument("--recipe", type=Path, required=True)
    options.add_argument("--finals", nargs="+", required=True, metavar="RUN")
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--minutes", type=int, default=30)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--trials", type=int, default=64, help="candidates a search may ask for")
    given = options.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would theirs
    folders = [run_all(seed, given) for seed in range(given.seeds)]
    found = finals(given.finals, given.data, given.work / "test.json")
    costs = {
        network_in(given.finals[0], each.hash): each.metrics["gmacs"]
        for each in read_results(given.finals[0]).complete()
    }
    worth = Worth(found, costs, given.finals)
    print(f"| {given.minutes} minutes | hypervolume, seed by seed | mean | spent |\n|---|---|---|---|")
    for way in WAYS:
        values = [worth.of(chosen(own[way])) for own in folders]
        listed = ", ".join(f"{value:.3f}" for value in values)
        print(f"| {way} | {listed} | {np.mean(values):.3f} | {' / '.join(spent(own[way]) for own in folders)} |")
    values = whole_tables(found, costs, given.finals)
    print(f"| (all networks trained once) | {', '.join(f'{v:.3f}' for v in values)} | {np.mean(values):.3f} | |")


if __name__ == "__main__":
    main()
