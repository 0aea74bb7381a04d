"""Options that say who trains: here or on Ray, how many at once, and what each asks of its machine."""

import math
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.errors import FileFault

if TYPE_CHECKING:
    from archsearch.search.launch import Workers


OTHERWISE = {"CPU": "the recipe's threads", "GPU": "--gpus", "memory": "--memory-gb"}  # what Ray knows by itself


class ExecutorName(StrEnum):
    """Where candidates train."""

    serial = "serial"
    processes = "processes"
    ray = "ray"


Executor = Annotated[ExecutorName, typer.Option(help="where they train")]
Ray = Annotated[str | None, typer.Option(help="a Ray cluster's address; none: a Ray is started here")]
RayEnv = Annotated[Path | None, typer.Option(help="Ray's runtime environment for workers, .yaml or .json")]
Gpus = Annotated[float | None, typer.Option(min=0, help="GPUs of each on Ray: a share below 1, or a whole number")]
MemoryGb = Annotated[float | None, typer.Option(min=0, help="memory Ray sets aside for each, in 10^9 bytes")]
Resource = Annotated[list[str] | None, typer.Option(metavar="NAME=AMOUNT", help="of Ray's own resources, for each")]


def crew_of(
    executor: ExecutorName,
    count: int,
    address: str | None,
    env: Path | None,
    gpus: float | None,
    memory_gb: float | None,
    resource: list[str] | None,
) -> "Workers":
    """The workers that these options describe. Raises FileFault for an environment that cannot be read."""
    from archsearch.files import read_yaml
    from archsearch.search.executors import RayOptions
    from archsearch.search.launch import Workers

    if executor is ExecutorName.serial:
        refuse("goes with --executor ray", {"--ray": address})
    of_ray = {"--ray-env": env, "--gpus": gpus, "--memory-gb": memory_gb, "--resource": resource}
    if executor is not ExecutorName.ray and address is None:
        refuse("goes with --executor ray or --ray ADDRESS", of_ray)
        return Workers("serial" if executor is ExecutorName.serial else "processes", count)
    for name, value in {"--gpus": gpus, "--memory-gb": memory_gb}.items():
        if value is not None and not math.isfinite(value):
            raise typer.BadParameter(f"{value}: should be a number", param_hint=name)
    values: dict[str, Any] = {} if env is None else read_yaml(env, FileFault)
    return Workers("ray", count, RayOptions(address, values, gpus or 0, memory_gb or 0, _amounts(resource or [])))


def refuse(rule: str, options: Mapping[str, object]) -> None:
    """Raises BadParameter, with the rule, for the first of some options that is given."""
    for name, value in options.items():
        if value:
            raise typer.BadParameter(rule, param_hint=name)


def _amounts(texts: list[str]) -> dict[str, float]:
    """`name=2` as {"name": 2.0}. Raises BadParameter."""
    amounts = {}
    for text in texts:
        name, _, amount = text.partition("=")
        if name in OTHERWISE:
            raise typer.BadParameter(f"{text}: that is for {OTHERWISE[name]}", param_hint="--resource")
        try:
            amounts[name] = float(amount)
        except ValueError:
            raise typer.BadParameter(f"{text}: should be NAME=AMOUNT", param_hint="--resource") from None
        if not name or not 0 < amounts[name] < math.inf:
            raise typer.BadParameter(f"{text}: should be NAME=AMOUNT, above 0", param_hint="--resource")
    return amounts
