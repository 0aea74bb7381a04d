"""What networks promise without a training of each: score, share."""

from pathlib import Path
from typing import Annotated

import typer

from archsearch.cli.shared import (
    Classes,
    Clip,
    DataArgument,
    Json,
    RecipeOption,
    load,
    print_json,
    print_table,
    recipe_of,
    reporting,
    say,
)
from archsearch.errors import ArchsearchError


def score(
    specs: Annotated[list[str], typer.Argument(metavar="SPEC...", help="presets' names or YAML files")],
    scores: Annotated[str | None, typer.Option("--score", help="with commas between; none: all of them")] = None,
    clip: Clip = None,
    classes: Classes = None,
    batch: Annotated[int, typer.Option(min=1, help="clips of noise that naswot and zen look at")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="of weights and clips")] = 0,
    as_json: Json = False,
) -> None:
    """Score untrained networks: naswot, synflow, zen, entropy; higher promises more."""
    from archsearch.files import near_or_all
    from archsearch.space.space import SCORES

    names = list(SCORES) if scores is None else [name.strip() for name in scores.split(",")]
    for name in names:
        if name not in SCORES:
            raise ArchsearchError(f"--score {scores}: there is no score '{name}'{near_or_all(name, SCORES)}")
    networks = [load(spec, clip, classes) for spec in specs]
    from archsearch.report.scores import scores_json, scores_table

    with reporting() as report:
        found = scores_json(networks, names, seed, batch, lambda done, total: report("scoring", done, total, ""))
    if as_json:
        print_json(found)
    else:
        print_table(scores_table(found))


def share(
    space_file: Annotated[Path, typer.Argument(metavar="SPACE", help="a search space's YAML file")],
    data: DataArgument,
    out: Annotated[str, typer.Option(help="the run folder: a path or a URL")],
    recipe: RecipeOption = None,
    candidates: Annotated[int | None, typer.Option(min=1, help="to read off; none: all, 1000 of a large space")] = None,
) -> None:
    """Train shared weights for a whole space and read its networks off them; the same command resumes."""
    from archsearch.search.launch import Wish, prepare
    from archsearch.search.sharing import share as share_weights
    from archsearch.video.pack import remarks

    with reporting() as report:
        plan, dataset, pack = prepare(space_file, data, out, recipe_of(recipe, None), Wish(shared=True), report)
        for line in remarks(dataset, pack):
            say(line)
        count = share_weights(plan, pack, candidates, report)
    say(f"done: {count} networks read off; `archsearch front {out}` shows the front")
