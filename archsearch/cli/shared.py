"""What commands share: options, and how results reach the terminal. stdout is the result, stderr is progress."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.errors import SpecError

if TYPE_CHECKING:
    from archsearch.spec.spec import Spec

Json = Annotated[bool, typer.Option("--json", help="print JSON")]
SpecArgument = Annotated[str, typer.Argument(help="a preset's name or a YAML file")]
Clip = Annotated[str | None, typer.Option(help="the clip's size as CxTxHxW, e.g. 3x16x112x112")]
Classes = Annotated[int | None, typer.Option(min=1, help="number of classes")]
RunArgument = Annotated[str, typer.Argument(help="a run folder")]
DataArgument = Annotated[Path, typer.Argument(metavar="DATA", help="a folder of lists or of class folders")]
RecipeOption = Annotated[Path | None, typer.Option(help="a recipe's YAML file")]
Seed = Annotated[int | None, typer.Option(min=0, help="instead of the recipe's")]


def load(name: str, clip: str | None, classes: int | None) -> "Spec":
    """The network of a preset, a file or a folder, for another clip or other classes. Raises SpecError."""
    from archsearch.spec.presets import load_spec
    from archsearch.spec.spec import lower, with_classes, with_clip

    network = load_spec(name)
    if clip is not None:
        if len(network.inputs) > 1:
            raise SpecError(f"--clip {clip}: {name} reads {', '.join(network.inputs)}; write their sizes in a file")
        network = with_clip(network, parse_clip(clip))
    if classes is not None:
        network = with_classes(network, classes)
    lower(network)
    return network


def parse_clip(text: str) -> tuple[int, int, int, int]:
    """CxTxHxW as four numbers. Raises SpecError."""
    sides = text.lower().split("x")
    if len(sides) != 4 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise SpecError(f"--clip {text}: should be CxTxHxW, four positive integers such as 3x16x112x112")
    c, t, h, w = map(int, sides)
    return c, t, h, w


def recipe_of(path: Path | None, seed: int | None) -> Any:
    """The recipe of a file, or the default one; a seed given here beats it."""
    from archsearch.training.recipe import Recipe, read_recipe

    recipe = Recipe() if path is None else read_recipe(path)
    return recipe if seed is None else recipe.model_copy(update={"seed": seed})


def reporting() -> Any:
    """Progress on stderr while a block runs; see `archsearch.report.progress`."""
    from archsearch.report.progress import reporting

    return reporting()


def say(line: str) -> None:
    """One line on stderr."""
    print(line, file=sys.stderr)


def print_table(table: Any) -> None:
    """A table, at most 100 columns wide."""
    from rich.console import Console

    console = Console()
    console.width = min(console.width, 100) if console.is_terminal else 100
    console.print(table)


def print_json(data: Any) -> None:
    """Data as one line of JSON."""
    print(json.dumps(data))


def print_result(result: dict[str, Any], as_json: bool) -> None:
    """What a training or a scoring found, line by line or as JSON."""
    if as_json:
        print_json(result)
        return
    for name, value in result.items():
        if isinstance(value, dict):
            for key, number in value.items():
                print(f"{name}.{key}: {number:.4f}")
        else:
            print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")
