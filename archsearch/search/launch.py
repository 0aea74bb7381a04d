"""Starting a search from files, or going on with it: the same call."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from archsearch.errors import RecipeError, SpaceError
from archsearch.files import dump_yaml, read_record, read_yaml
from archsearch.search.driver import drive
from archsearch.search.executors import Executor, RayOptions, Work, open_executor
from archsearch.search.folder import RunFolder, digest_data
from archsearch.search.plan import Plan, digest_recipe
from archsearch.search.scoring import choose_first
from archsearch.search.state import Progress, Report
from archsearch.search.table import Replay, Table
from archsearch.search.worker import train_candidate
from archsearch.space.file import read_space
from archsearch.space.space import SearchRecord, Space, sampler_fault
from archsearch.spec.latency import Table as LatencyTable
from archsearch.spec.latency import write_table
from archsearch.spec.spec import spec_yaml
from archsearch.store import open_store
from archsearch.training.clips import PackReport, packed, sampling_for, split_of
from archsearch.training.recipe import Recipe
from archsearch.video.dataset import Dataset, read_dataset
from archsearch.video.pack import Pack


@dataclass(frozen=True)
class Workers:
    """Who trains: where, and how many at once."""

    executor: Literal["serial", "processes", "ray"] = "processes"
    count: int = 2
    ray: RayOptions = field(default_factory=RayOptions)  # without GPUs: one where the device is cuda


@dataclass(frozen=True)
class Wish:
    """What a command says besides files; candidates to train and the sampler instead of the space's."""

    trials: int | None = None
    sampler: str | None = None
    shared: bool = False  # values are read off shared weights, see `sharing`


def prepare(
    space_file: Path, data: Path, out: str, recipe: Recipe, wish: Wish, report: PackReport
) -> tuple[Plan, Dataset, Pack]:
    """Reads space and data, packs the clips once, and claims the run folder.

    Raises SpaceError, DataError, RecipeError, and RunError for a folder that belongs to another search.
    """
    written = _measurable(space_file, recipe, wish)
    dataset = read_dataset(data)
    space = written.for_classes(len(dataset.classes))
    sampling_for(space.base, recipe, dataset.classes)
    pack = packed(dataset, space.base, recipe, report)
    for name in ("train", "val"):
        split_of(pack, name)
    known = {"digest": pack.digest, "classes": list(dataset.classes)}
    marks = {"values": "shared"} if wish.shared else {}
    folder = _claimed(space_file, written, out, recipe, known, {"data_name": dataset.name, **marks})
    place = str(dataset.root.resolve())
    count = wish.trials or space.search.trials
    plan = Plan(space, recipe, place, pack.digest, dataset.classes, folder, count)
    if not wish.shared:
        choose_first(plan, report)
    return plan, dataset, pack


def prepare_replay(space_file: Path, table: Table, out: str, recipe: Recipe | None, wish: Wish) -> Plan:
    """The plan of a search that a table answers; the table's recipe, unless another is given.

    Raises SpaceError, RecipeError, and RunError for a folder that belongs to another search.
    """
    recipe = recipe or table.recipe
    written = _measurable(space_file, recipe, wish)
    if written.search.inherit:
        raise SpaceError(f"{space_file}, search: inherit: a table has no weights to begin with; leave it out")
    classes = tuple(table.data["classes"])
    marks = {"data_name": "replay", "values": "table"}
    folder = _claimed(space_file, written, out, recipe, dict(table.data), marks)
    space = written.for_classes(len(classes))
    plan = Plan(space, recipe, "", table.data["digest"], classes, folder, wish.trials or space.search.trials)
    choose_first(plan, lambda *_: None)
    return plan


def _claimed(
    space_file: Path, space: Space, out: str, recipe: Recipe, data: dict[str, Any], marks: dict[str, str]
) -> RunFolder:
    """The run folder, made this search's or known to be it."""
    folder = RunFolder(open_store(out if "://" in out else str(Path(out).resolve())))
    identity = {
        "name": space.name,
        "objectives": dict(space.objectives),
        "space": _space_digest(space_file, space),
        "recipe": digest_recipe(recipe),
        "data": data,
        **marks,
    }
    files = {
        "space.yaml": space_file.read_text(encoding="utf-8"),
        "recipe.yaml": dump_yaml(recipe.model_dump(mode="json")),
    }
    folder.check_free(files)  # before a lock is left there
    with folder.driving():
        folder.claim(identity, files)
    return folder


def _measurable(space_file: Path, recipe: Recipe, wish: Wish) -> Space:
    """The space of a file. Raises SpaceError, and RecipeError for an objective that such trainings do not measure."""
    space = read_space(space_file)
    if wish.sampler is not None:
        faults: list[str] = []
        given = {**space.search.model_dump(), "sampler": wish.sampler}
        search = read_record(SearchRecord, given, f"{space_file} with --sampler {wish.sampler}", faults)
        if search is None:
            raise SpaceError(*faults)
        space = replace(space, search=search)
        if fault := sampler_fault(space):
            raise SpaceError(f"{space_file}, {fault}")
    if "map" in space.objectives and recipe.loss != "binary":
        raise RecipeError(f"{space_file}, objectives: map is of classes on their own; set `loss: binary` in the recipe")
    return space


def _space_digest(file: Path, space: Space) -> str:
    """Of what the file says but its number of trials, which may grow, and of its base, which may be another file."""
    data = read_yaml(file, SpaceError)
    data["search"] = {name: value for name, value in data.get("search", {}).items() if name != "trials"}
    if space.search.sampler != data["search"].get("sampler", SearchRecord().sampler):
        data["search"]["sampler"] = space.search.sampler
    table = [write_table(space.latency)] if isinstance(space.latency, LatencyTable) else []
    return digest_data([data, spec_yaml(space.base), *table])


def replay(plan: Plan, table: Table, workers: int, report: Report = lambda _: None) -> tuple[bool, float]:
    """Drives a search that a table answers: whether the space ended, and the seconds it would have taken."""
    with plan.folder.driving() as held, Replay(table, workers) as executor:
        return drive(plan, executor, _held(held, report)), executor.seconds


def run(plan: Plan, workers: Workers, report: Report) -> bool:
    """Drives the search to its end; whether that came with the end of the space.

    Raises RunError where another driver holds the folder, or takes it over meanwhile.
    """
    with plan.folder.driving() as held, crew(workers, train_candidate, plan.recipe) as executor:
        return drive(plan, executor, _held(held, report))


def _held(held: Callable[[], None], report: Report) -> Report:
    """The report of a driver that ends as soon as another one holds its folder."""

    def report_held(progress: Progress) -> None:
        held()
        report(progress)

    return report_held


def crew(workers: Workers, work: Work, recipe: Recipe) -> Executor:
    """The executor that workers are, for trainings by a recipe."""
    return open_executor(
        workers.executor,
        work,
        workers.count,
        threads=recipe.threads,
        ray=replace(workers.ray, gpus=1) if recipe.device == "cuda" and not workers.ray.gpus else workers.ray,
    )
