"""What commands share: options, and how results reach the terminal. stdout is the result, stderr is progress."""

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from archsearch.spec.spec import Spec


def preset_names(beginning: str) -> list[str]:
    """The presets that a shell completes a word to; where there are none, it goes on with files."""
    from archsearch.spec.presets import PRESETS

    return [name for name in PRESETS if name.startswith(beginning)]


Json = Annotated[bool, typer.Option("--json", help="print JSON")]
SpecArgument = Annotated[str, typer.Argument(help="a preset's name or a YAML file", autocompletion=preset_names)]
Clip = Annotated[str | None, typer.Option(help="the clip's size: CxTxHxW, e.g. 3x16x112x112; TxHxW of several inputs")]
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
        network = with_clip(network, _sides(clip), f"--clip {clip}")
    if classes is not None:
        network = with_classes(network, classes)
    lower(network)
    return network


def _sides(text: str) -> list[int]:
    """The numbers of CxTxHxW; 0, which no side has, for what is none."""
    return [int(side) if re.fullmatch("[0-9]{1,9}", side) else 0 for side in text.lower().split("x")]


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


def print_line(line: str) -> None:
    """One line on stdout, at once."""
    print(line, flush=True)


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
