"""Training-free scores in a search: as objectives, and to choose what is tried first.

Scores are of a space's seed and of Gaussian clips, so that a search that goes on finds the same ones.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from optuna.trial import FixedTrial

from archsearch.errors import SpecError, TrainingError
from archsearch.nets.scores import BATCH
from archsearch.nets.scores import SCORES as FUNCTIONS
from archsearch.search.fields import rows_of
from archsearch.search.plan import Plan, check
from archsearch.space.space import SCORES
from archsearch.spec.spec import Spec
from archsearch.store import read_json, write_json
from archsearch.training.loop import is_out_of_memory

FIRST = "first.json"
DRAWS = 100  # of each candidate that is wanted, at most: most of a space may be outside its limits
Report = Callable[[str, int, int, str], None]  # what, done, of how many, status


def objective_scores(plan: Plan, spec: Spec) -> dict[str, float]:
    """The scores among a space's objectives. Raises SpecError for a network that has none, TrainingError."""
    return {name: _score(plan, name, spec) for name in plan.space.objectives if name in SCORES}


def choose_first(plan: Plan, report: Report) -> None:
    """Writes the choices of the best by the space's score of so many feasible draws, best first; once in a run."""
    wish, store = plan.space.search, plan.folder.store
    if not wish.first or store.read(FIRST) is not None:
        return
    scored: list[tuple[float, dict[str, Any]]] = []
    for choices, spec in _feasible(plan, wish.first_of):
        try:
            scored.append((_score(plan, wish.first_by, spec), choices))
        except (SpecError, TrainingError):
            continue
        report("scoring", len(scored), wish.first_of, "")
    scored.sort(key=lambda pair: -pair[0])
    write_json(store, FIRST, [choices for _, choices in scored[: wish.first]])


def first_choices(plan: Plan) -> list[dict[str, Any]]:
    """What `choose_first` wrote."""
    return rows_of(read_json(plan.folder.store, FIRST), f"{plan.folder.store.url}/{FIRST}")


def _score(plan: Plan, name: str, spec: Spec) -> float:
    """Raises SpecError for a network that has no such score, TrainingError where memory runs out."""
    torch.set_num_threads(plan.recipe.threads)  # their number changes bits
    try:
        return FUNCTIONS[name](spec, plan.space.search.seed, BATCH, None)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(f"{spec.name}: out of memory at its {name}, of {BATCH} clips") from None


def _feasible(plan: Plan, count: int) -> Iterator[tuple[dict[str, Any], Spec]]:
    """Distinct candidates within the limits, drawn at random, without the published ones; fewer where there are."""
    space = plan.space
    known = {check(plan, spec).candidate for spec in _published(plan)}
    seen: set[tuple[int, ...]] = set()
    for positions in space.sample_positions(count * DRAWS, seed=space.search.seed):
        if positions in seen:
            continue
        seen.add(positions)
        try:
            spec = space.spec_at(positions)
            facts = check(plan, spec)
        except SpecError:
            continue
        if facts.reason is None and facts.candidate not in known:
            known.add(facts.candidate)
            yield space.choices(positions), spec
            count -= 1
        if not count:
            return


def _published(plan: Plan) -> Iterator[Spec]:
    for choices in plan.space.published.values():
        yield plan.space.draw(FixedTrial(dict(choices)))
