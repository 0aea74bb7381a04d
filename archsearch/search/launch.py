"""Starting a search from files, or going on with it: the same call."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from archsearch.errors import SpaceError
from archsearch.files import dump_yaml, read_yaml
from archsearch.search.driver import Report, drive
from archsearch.search.executors import open_executor
from archsearch.search.folder import RunFolder, digest_data
from archsearch.search.plan import Plan, digest_recipe
from archsearch.search.worker import train_candidate
from archsearch.space.file import read_space
from archsearch.space.space import Space
from archsearch.spec.spec import spec_yaml
from archsearch.store import open_store
from archsearch.training.clips import sampling_for, split_of
from archsearch.training.recipe import Recipe, short_side
from archsearch.video.dataset import Dataset, read_dataset
from archsearch.video.pack import Pack, open_pack

PackReport = Callable[[int, int], None]


@dataclass(frozen=True)
class Workers:
    """Who trains: where, and how many at once."""

    executor: Literal["serial", "processes", "ray"] = "processes"
    count: int = 2
    ray_address: str | None = None


def prepare(
    space_file: Path, data: Path, out: str, recipe: Recipe, trials: int | None, report: PackReport
) -> tuple[Plan, Dataset, Pack]:
    """Reads space and data, packs the clips once, and claims the run folder.

    Raises SpaceError, DataError, and RunError for a folder that belongs to another search.
    """
    written = read_space(space_file)
    dataset = read_dataset(data)
    space = written.for_classes(len(dataset.classes))
    clip = next(iter(space.base.inputs.values()))
    sampling_for(space.base, recipe, dataset.classes)
    pack = open_pack(dataset, short_side(recipe, clip.h, clip.w), max_broken=recipe.max_broken, report=report)
    for name in ("train", "val"):
        split_of(pack, name)
    folder = RunFolder(open_store(out if "://" in out else str(Path(out).resolve())))
    identity = {
        "name": space.name,
        "objectives": dict(space.objectives),
        "space": _space_digest(space_file, written),
        "recipe": digest_recipe(recipe),
        "data": {"digest": pack.digest, "classes": list(dataset.classes)},
        "data_name": dataset.name,
    }
    files = {
        "space.yaml": space_file.read_text(encoding="utf-8"),
        "recipe.yaml": dump_yaml(recipe.model_dump(mode="json")),
    }
    with folder.driving():
        folder.claim(identity, files)
    place = str(dataset.root.resolve())
    count = trials or space.search.trials
    return Plan(space, recipe, place, pack.digest, dataset.classes, folder, count), dataset, pack


def _space_digest(file: Path, space: Space) -> str:
    """Of what the file says but its number of trials, which may grow, and of its base, which may be another file."""
    data = read_yaml(file, SpaceError)
    data["search"] = {name: value for name, value in data.get("search", {}).items() if name != "trials"}
    return digest_data([data, spec_yaml(space.base)])


def run(plan: Plan, workers: Workers, report: Report) -> bool:
    """Drives the search to its end; whether that came with the end of the space.

    Raises RunError where another driver holds the folder.
    """
    with (
        plan.folder.driving(),
        open_executor(
            workers.executor,
            train_candidate,
            workers.count,
            threads=plan.recipe.threads,
            ray_address=workers.ray_address,
            gpus=1.0 if plan.recipe.device == "cuda" else 0.0,
        ) as executor,
    ):
        return drive(plan, executor, report)
