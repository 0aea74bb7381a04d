"""Data, training and scoring of one network: data make, train, evaluate."""

from pathlib import Path
from typing import Annotated

import typer

from archsearch.cli.shared import (
    Clip,
    DataArgument,
    Json,
    RecipeOption,
    Seed,
    SpecArgument,
    load,
    print_result,
    recipe_of,
    reporting,
    say,
)


def data_make(
    folder: Annotated[Path, typer.Argument(help="where to write them")],
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Make the demo clips: shapes that move, turn and grow, in exact time-reversed pairs."""
    from archsearch.video.demo import make_demo

    with reporting() as report:
        make_demo(folder, seed, lambda done, total: report("making clips", done, total, ""))
    print(folder)


def train(
    spec: SpecArgument,
    data: DataArgument,
    out: Annotated[str, typer.Option(help="a new folder, or one to go on with")],
    recipe: RecipeOption = None,
    start: Annotated[str | None, typer.Option("--from", help="the folder of a network with weights")] = None,
    clip: Clip = None,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Train one network; the same command goes on after an interruption."""
    from archsearch.training.single import train_single

    network = load(spec, clip, None)
    with reporting() as report:
        result = train_single(network, data, out, recipe_of(recipe, seed), report, say, start)
    print_result(result, as_json)


def evaluate(
    run: Annotated[str, typer.Argument(help="a trained network's folder")],
    data: DataArgument,
    split: Annotated[str, typer.Option(help="train, val or test")] = "val",
    views: Annotated[int | None, typer.Option(min=1, help="clips a video, instead of the recipe's")] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="play every clip backwards")] = False,
    as_json: Json = False,
) -> None:
    """Score a trained network on a split."""
    from archsearch.training.single import evaluate_single

    print_result(evaluate_single(run, data, split, views, reverse), as_json)
