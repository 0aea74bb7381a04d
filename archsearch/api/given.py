"""What callers give, as the rooms below take it: networks, clips, recipes, workers; and how much a call says."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from archsearch.errors import RecipeError
from archsearch.files import read_record
from archsearch.spec.spec import Spec

if TYPE_CHECKING:
    from archsearch.search.executors import RayOptions
    from archsearch.search.launch import Workers
    from archsearch.training.recipe import Recipe

Place = str | os.PathLike[str]
Network = Spec | Place  # a spec, a preset's name, a YAML file, or a trained network's folder
Clip = tuple[int, ...]
ExecutorName = Literal["serial", "processes", "ray"]
Report = Callable[[str, int, int, str], None]


def spec_of(network: Network, clip: Clip | None = None, classes: int | None = None) -> Spec:
    """A network, for another clip or other classes. Raises SpecError."""
    from archsearch.spec.presets import load_spec
    from archsearch.spec.spec import lower, with_classes, with_clip

    spec = network if isinstance(network, Spec) else load_spec(os.fspath(network))
    spec = spec if clip is None else with_clip(spec, tuple(clip))
    spec = spec if classes is None else with_classes(spec, classes)
    lower(spec)
    return spec


def set_fields(spec: Spec, settings: Mapping[str, Any]) -> Spec:
    """A network with fields set, as {"res*.conv": "2d"}. Raises SpecError with one line for every fault."""
    from archsearch.space.choices import with_settings

    return with_settings(spec, settings, lambda path: f"settings, {path}")


def recipe_of(recipe: "Recipe | Mapping[str, Any] | Place | None", seed: int | None = None) -> "Recipe":
    """A recipe as it is, of fields, of a file, or the default one; a `seed` beats its own. Raises RecipeError."""
    from archsearch.training.recipe import Recipe, read_recipe

    if recipe is None or isinstance(recipe, Mapping):
        faults: list[str] = []
        made = read_record(Recipe, dict(recipe or {}), "recipe", faults)
        if made is None:
            raise RecipeError(*faults)
    else:
        made = recipe if isinstance(recipe, Recipe) else read_recipe(Path(recipe))
    return made if seed is None else made.model_copy(update={"seed": seed})


def crew_of(executor: ExecutorName, count: int, ray: "RayOptions | None") -> "Workers":
    """Who trains; `ray` implies its executor."""
    from archsearch.search.executors import RayOptions
    from archsearch.search.launch import Workers

    return Workers("ray" if ray is not None else executor, count, RayOptions() if ray is None else ray)


@contextmanager
def heard(progress: bool) -> Iterator[Report]:
    """Bars and remarks on stderr while a block runs; without `progress` nothing that is said there is heard."""
    from archsearch.report.progress import reporting

    with ExitStack() as stack:
        if not progress:
            stack.enter_context(redirect_stderr(stack.enter_context(Path(os.devnull).open("w"))))
        yield stack.enter_context(reporting())
