"""Searches: search, status, front."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from archsearch.cli.shared import DataArgument, Json, RecipeOption, RunArgument, print_json, print_table, recipe_of


class ExecutorName(StrEnum):
    """Where candidates train."""

    serial = "serial"
    processes = "processes"
    ray = "ray"


def search(
    space_file: Annotated[Path, typer.Argument(metavar="SPACE", help="a search space's YAML file")],
    out: Annotated[str, typer.Option(help="the run folder: a path or a URL")],
    data: Annotated[Path | None, typer.Argument(metavar="DATA", help="a folder of lists or of class folders")] = None,
    recipe: RecipeOption = None,
    trials: Annotated[int | None, typer.Option(min=1, help="candidates to train, instead of the space's")] = None,
    sampler: Annotated[str | None, typer.Option(help="what proposes them, instead of the space's")] = None,
    workers: Annotated[int, typer.Option(min=1, help="candidates at once")] = 2,
    executor: Annotated[ExecutorName, typer.Option(help="where they train")] = ExecutorName.processes,
    ray: Annotated[str | None, typer.Option(help="a Ray cluster's address; none: a Ray is started here")] = None,
    replay: Annotated[Path | None, typer.Option(help="a table of trainings that answers, instead of DATA")] = None,
) -> None:
    """Search a space on a data set; the same command resumes."""
    from archsearch.report.search import replay_with_progress, search_with_progress
    from archsearch.search.launch import Wish, Workers

    wish = Wish(trials, sampler)
    if replay is not None:
        given = None if recipe is None else recipe_of(recipe, None)
        replay_with_progress(space_file, replay, out, given, wish, workers)
    elif data is None:
        raise typer.BadParameter("give DATA, or --replay with a table", param_hint="DATA")
    else:
        crew = Workers("ray" if ray is not None else executor.value, workers, ray)
        search_with_progress(space_file, data, out, recipe_of(recipe, None), wish, crew)


def finalize(
    run: RunArgument,
    data: DataArgument,
    seeds: Annotated[int, typer.Option(min=1, help="trainings of each network, with fresh seeds")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="trainings at once")] = 2,
    executor: Annotated[ExecutorName, typer.Option(help="where they train")] = ExecutorName.processes,
    ray: Annotated[str | None, typer.Option(help="a Ray cluster's address")] = None,
    as_json: Json = False,
) -> None:
    """Train the front and the published networks again from scratch, and score them on `test`, once."""
    from archsearch.report.final import final_table, finalize_with_progress
    from archsearch.search.launch import Workers

    crew = Workers("ray" if ray is not None else executor.value, workers, ray)
    found = finalize_with_progress(run, data, seeds, crew)
    if as_json:
        print_json(found)
    else:
        print_table(final_table(found))


def tabulate(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="run folders of one data set")],
    out: Annotated[Path, typer.Option(help="the table, .json")],
) -> None:
    """Every training of some runs as a table that `search --replay` answers from."""
    from archsearch.search.table import write_table

    print(f"{out}: {write_table(runs, out)} trainings")


def status(run: RunArgument, as_json: Json = False) -> None:
    """How far a search is."""
    from archsearch.search.results import read_status

    data = read_status(run)
    if as_json:
        print_json(data)
        return
    trials = ", ".join(f"{count} {state}" for state, count in data["trials"].items() if count) or "no trials yet"
    print(f"{data['run']}: {trials}; {data['duplicates']} answered from known ones")
    print(f"{data['epochs']} epochs, {data['seconds']:.0f} worker seconds, hypervolume {data['hypervolume']:.3f}")


def front(
    run: RunArgument,
    csv: Annotated[bool, typer.Option("--csv", help="every candidate as CSV")] = False,
    figure: Annotated[Path | None, typer.Option(help="draw it, .png or .svg")] = None,
    show_all: Annotated[bool, typer.Option("--all", help="every candidate, not the front alone")] = False,
    as_json: Json = False,
) -> None:
    """The Pareto front of a search, the published networks marked."""
    from archsearch.search.results import read_results

    results = read_results(run)
    if figure is not None:
        from archsearch.report.figures import front_figure

        front_figure(results, figure)
    if as_json:
        print_json(results.as_json())
        return
    from archsearch.report.front import front_csv, front_table

    if csv:
        print(front_csv(results), end="")
    else:
        print_table(front_table(results, show_all))
