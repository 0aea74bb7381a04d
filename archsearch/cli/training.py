"""Data, training and scoring of one network: data make, train, evaluate; scores of several: fuse."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from archsearch.cli.shared import (
    Clip,
    DataArgument,
    Json,
    RecipeOption,
    Seed,
    SpecArgument,
    load,
    print_json,
    print_result,
    print_table,
    recipe_of,
    reporting,
    say,
)
from archsearch.errors import ArchsearchError

N = TypeVar("N", int, float)


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
    """Train one network; the same command goes on after an interruption. Under torchrun, several processes train it."""
    from archsearch.training.processes import leads, together
    from archsearch.training.single import train_single

    network, made = load(spec, clip, None), recipe_of(recipe, seed)
    with together(made.device), reporting() as report:
        result = train_single(network, data, out, made, report, say, start)
        leading = leads()
    if leading:
        print_result(result, as_json)


def evaluate(
    run: Annotated[str, typer.Argument(help="a trained network's folder")],
    data: DataArgument,
    split: Annotated[str, typer.Option(help="train, val or test")] = "val",
    views: Annotated[int | None, typer.Option(min=1, help="clips a video, instead of the recipe's")] = None,
    crops: Annotated[int, typer.Option(help="1 (centre) or 3 along the longer side, of each clip")] = 1,
    frames: Annotated[int | None, typer.Option(min=1, help="a clip's, instead of the network's")] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="play every clip backwards")] = False,
    scores: Annotated[Path | None, typer.Option(help="keep them for fuse, .npz or .json")] = None,
    figure: Annotated[Path | None, typer.Option(help="draw who is taken for whom, .png or .svg")] = None,
    as_json: Json = False,
) -> None:
    """Score a trained network on a split."""
    from archsearch.report.evaluation import evaluation_table
    from archsearch.training.single import evaluate_single

    with reporting() as report:
        found = evaluate_single(
            run, data, split, views, reverse, crops=crops, frames=frames, keep=scores, report=report
        )
    if as_json:
        print_json(found)
    else:
        print_table(evaluation_table(found))
    if figure is not None:
        from archsearch.report.evaluation_figures import confusion_figure

        confusion_figure(found, figure)


def fuse(
    scores: Annotated[list[Path], typer.Argument(metavar="SCORES...", help="two files of evaluate --scores, or more")],
    weights: Annotated[str | None, typer.Option(help="one for each file, as 1,1.5")] = None,
    as_json: Json = False,
) -> None:
    """Average the scores of several networks, e.g. of RGB and of flow."""
    from archsearch.report.evaluation import fusion_table
    from archsearch.training.fusion import fuse_files

    found = fuse_files(scores, None if weights is None else numbers("--weights", weights, float, "1,1.5"))
    if as_json:
        print_json(found)
    else:
        print_table(fusion_table(found))


def numbers(option: str, text: str, kind: Callable[[str], N], example: str) -> list[N]:
    """Numbers with commas between. Raises ArchsearchError."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ArchsearchError(f"{option} {text}: should be numbers with commas between, as {example}") from None
