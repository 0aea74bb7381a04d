"""Inheritance: a candidate begins with the weights of the nearest finished one, and is trained for a few epochs."""

from optuna.trial import FixedTrial

from archsearch.errors import SurgeryError
from archsearch.nets.surgery.plan import plan as surgery_plan
from archsearch.search.folder import Settled
from archsearch.search.plan import Plan
from archsearch.search.state import Search
from archsearch.spec.cost import node_costs
from archsearch.spec.spec import Spec, lower
from archsearch.training.checkpoint import WEIGHTS
from archsearch.training.recipe import Recipe

RATE = 0.1  # of the recipe's learning rate: what is there should stay (docs/surgery.md)
LOOKED_AT = 12  # finished candidates that differ in the fewest choices
REACH = 0.8  # share of the multiply-adds in sites that are fitted or new, above which a start from chance is as good


def nearest(search: Search, params: dict[str, object], spec: Spec) -> str | None:
    """The finished candidate with the least to fit, of those that differ in the fewest choices; None where none helps.

    Candidates trained from chance come first where two are as near.
    """
    finished = [trial for trial in search.by_candidate.values() if trial.state == "complete"]
    finished.sort(key=lambda trial: (_differences(trial, params), trial.inherited is not None, trial.number))
    near = [trial for trial in finished[:LOOKED_AT] if WEIGHTS in search.plan.folder.candidate(trial.candidate).names()]
    ways = [
        (_to_fit(search.plan.space.draw(FixedTrial(trial.params)), spec), place) for place, trial in enumerate(near)
    ]
    share, place = min(ways, default=(1.0, 0))
    return near[place].candidate if share <= REACH else None


def _differences(trial: Settled, params: dict[str, object]) -> int:
    return sum(trial.params.get(name) != value for name, value in params.items())


def _to_fit(old: Spec, new: Spec) -> float:
    """The share of the new network's multiply-adds in sites that surgery cannot keep as they are."""
    costs = node_costs(lower(new))
    if old.inputs != new.inputs:
        return 1.0
    try:
        edits = surgery_plan(old, new)
    except SurgeryError:
        return 1.0
    lost = sum(costs[edit.site].macs for edit in edits if edit.verdict in ("approximate", "new"))
    return lost / max(1, sum(cost.macs for cost in costs.values()))


def training_of(plan: Plan, parent: str | None) -> tuple[Recipe, tuple[int, ...]]:
    """A candidate's recipe and the epochs of its rungs; there is one for a candidate that inherits from `parent`."""
    if parent is None:
        return plan.recipe, plan.rungs
    recipe = inherited_recipe(plan.recipe, plan.space.search.inherit)
    return recipe, (recipe.epochs,)


def inherited_recipe(recipe: Recipe, share: float) -> Recipe:
    """A short schedule at a low rate, without a warm-up, that ends annealed."""
    epochs = max(1, round(recipe.epochs * share))
    return recipe.model_copy(
        update={"epochs": epochs, "warmup_epochs": 0.0, "lr": recipe.lr * RATE, "milestones": (0.5,)}
    )
