"""Two searches of one space, on other clips or by other recipes: how alike they rank it, and where they differ."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archsearch.errors import RunError
from archsearch.front.dominance import Floats, ranks
from archsearch.front.results import Candidate, Results

DRAWS = 2_000  # of a bootstrap over networks
Key = tuple[tuple[str, Any], ...]


def kendall_tau(x: Floats, y: Floats) -> float:
    """Kendall's tau-b of two columns of numbers (1945): 1 for one order, -1 for opposite ones, NaN for a constant."""
    above = np.triu_indices(len(x), 1)
    a, b = (np.sign(column[:, None] - column[None])[above] for column in (x, y))
    norm = float(np.sqrt((a != 0).sum() * (b != 0).sum()))
    return float(a @ b) / norm if norm else float("nan")


def compare_runs(left: Results, right: Results) -> dict[str, Any]:
    """What two runs say of the networks that both have trained to the end.

    Networks are the same where their choices are. `tau` is Kendall's of each metric that is measured by training, with
    a 95 % interval over networks; `fronts` has the members of each front with their rank in the other run (0 is its
    front); `choices` the mean of the first objective for each option of each choice in both runs, over common networks.
    A tau of a constant is None. Raises RunError where a run does not know the first objective of the other.
    """
    _check_objectives(left, right)
    _check_objectives(right, left)
    ours, theirs = _by_choices(left), _by_choices(right)
    common = [key for key in ours if key in theirs]
    pairs = [(ours[key], theirs[key]) for key in common]
    first = next(iter(left.objectives))
    measured = [name for name in ("top1", "map", "loss") if all(name in c.metrics for pair in pairs for c in pair)]
    return {
        "runs": [left.run, right.run],
        "networks": [len(ours), len(theirs)],
        "common": len(common),
        "tau": {name: _tau(pairs, name) for name in measured} if len(common) > 2 else {},
        "objective": first,
        "fronts": [_elsewhere(left, theirs, right), _elsewhere(right, ours, left)],
        "choices": _options(pairs, first),
    }


def _check_objectives(run: Results, other: Results) -> None:
    first = next(iter(run.objectives))
    if any(first not in candidate.metrics for candidate in other.complete()):
        raise RunError(
            f"{run.run} is after {', '.join(run.objectives)}, {other.run} after {', '.join(other.objectives)}, "
            f"and does not know {first}"
        )


def _by_choices(results: Results) -> dict[Key, Candidate]:
    return {_key(candidate): candidate for candidate in results.complete()}


def _key(candidate: Candidate) -> Key:
    return tuple(sorted(candidate.choices.items()))


def _tau(pairs: Sequence[tuple[Candidate, Candidate]], name: str) -> dict[str, Any]:
    values = np.array([[candidate.metrics[name] for candidate in pair] for pair in pairs])
    tau = kendall_tau(*values.T)
    if np.isnan(tau):
        return {"tau": None, "interval": None}
    rng = np.random.default_rng(0)
    drawn = [kendall_tau(*values[rng.integers(len(values), size=len(values))].T) for _ in range(DRAWS)]
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return {"tau": tau, "interval": [float(low), float(high)]}


def _elsewhere(results: Results, known: Mapping[Key, Candidate], other: Results) -> list[dict[str, Any]]:
    """The members of a front, and what and where they are in the other run."""
    complete = other.complete()
    rank = dict(zip((c.id for c in complete), _ranks(other, complete), strict=True))
    found = []
    for member in results.front():
        there = known.get(_key(member))
        found.append(
            {
                "id": member.id,
                "choices": dict(member.choices),
                "metrics": {name: member.metrics[name] for name in results.objectives},
                "there": None if there is None else {name: there.metrics.get(name) for name in results.objectives},
                "rank": None if there is None else int(rank[there.id]),
            }
        )
    return found


def _ranks(results: Results, candidates: Sequence[Candidate]) -> NDArray[np.intp]:
    return ranks(results.values(candidates), results.maximize)


def _options(pairs: Sequence[tuple[Candidate, Candidate]], name: str) -> dict[str, dict[str, list[float]]]:
    """Choice -> option -> the mean of a metric in both runs, over the networks that have it."""
    found: dict[str, dict[str, list[float]]] = {}
    for choice in sorted({choice for left, _ in pairs for choice in left.choices}):
        for option in sorted({str(left.choices[choice]) for left, _ in pairs if choice in left.choices}):
            own = [pair for pair in pairs if str(pair[0].choices.get(choice)) == option]
            means = [float(np.mean([pair[side].metrics[name] for pair in own])) for side in (0, 1)]
            found.setdefault(choice, {})[option] = means
    return found
