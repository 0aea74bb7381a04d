"""What networks promise without a training of each: score."""

from typing import Annotated

import typer

from archsearch.cli.shared import Classes, Clip, Json, load, print_json, print_table, reporting
from archsearch.errors import ArchsearchError
from archsearch.files import near_or_all


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
