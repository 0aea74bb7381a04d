"""What is searched, and what is known of a candidate before any training."""

from dataclasses import dataclass
from itertools import pairwise

from archsearch.errors import RecipeError
from archsearch.files import parse_yaml, read_record
from archsearch.search.folder import RunFolder, digest_data, digest_text
from archsearch.search.halving import rung_epochs
from archsearch.space.space import Space
from archsearch.spec.spec import Spec, digest, lower
from archsearch.training.recipe import Recipe


@dataclass(frozen=True)
class Plan:
    """What is searched, with what, on what, and where it is kept."""

    space: Space
    recipe: Recipe
    data: str  # the data set's place, as workers find it
    data_digest: str
    classes: tuple[str, ...]
    folder: RunFolder
    trials: int  # distinct candidates to train

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs after which a candidate that goes on to the end is read."""
        return rung_epochs(self.space.search, self.recipe.epochs)

    @property
    def epochs(self) -> int:
        """Of all trainings together, where as many candidates go on as each rung has room for."""
        eta, steps = self.space.search.eta, [after - before for before, after in pairwise((0, *self.rungs))]
        return sum(epochs * max(1, self.trials // eta**place) for place, epochs in enumerate(steps))

    @property
    def most_epochs(self) -> int:
        """The same with those of the published networks, which are trained to the end whatever they read."""
        further = self.recipe.epochs * len(self.space.published) if len(self.rungs) > 1 else 0
        return self.epochs + further


@dataclass(frozen=True)
class Check:
    """A network's candidate, its cost, how far each limit is exceeded, and why it is infeasible, if it is."""

    candidate: str
    cost: dict[str, float]
    excess: dict[str, float]
    reason: str | None


def digest_recipe(recipe: Recipe) -> str:
    """Of what differs from the defaults: a new field of recipes leaves the digests of old ones as they are."""
    return digest_data(recipe.model_dump(mode="json", exclude_defaults=True))


def check(plan: Plan, spec: Spec) -> Check:
    """Costs a network and compares it with the limits. Raises SpecError for one that cannot be."""
    graph = lower(spec)
    cost = plan.space.metrics(graph)
    limits = plan.space.limits
    excess = {name: limit.excess(cost[name]) for name, limit in limits.items()}
    broken = [
        f"{name} {cost[name]:.4g} is outside its limit ({limits[name]})" for name, over in excess.items() if over > 0
    ]
    candidate = digest_text(digest(graph), digest_recipe(plan.recipe), plan.data_digest)
    return Check(candidate, cost, excess, ", ".join(broken) or None)


def run_recipe(folder: RunFolder) -> Recipe:
    """The recipe of a run, from its folder. Raises RecipeError for one that is damaged, or of a newer version."""
    place, faults = f"{folder.store.url}/recipe.yaml", list[str]()
    text = (folder.store.read("recipe.yaml") or b"").decode(errors="replace")
    recipe = read_record(Recipe, parse_yaml(text, place, RecipeError), place, faults)
    if recipe is None:
        raise RecipeError(*faults)
    return recipe
