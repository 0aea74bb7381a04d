"""Searches: search, status, front."""

from pathlib import Path
from typing import Annotated

import typer

from archsearch.cli.crew import Executor, ExecutorName, Gpus, MemoryGb, Ray, RayEnv, Resource, crew_of, refuse
from archsearch.cli.shared import (
    DataArgument,
    Json,
    RecipeOption,
    RunArgument,
    print_json,
    print_line,
    print_table,
    recipe_of,
    say,
)


def search(
    space_file: Annotated[Path, typer.Argument(metavar="SPACE", help="a search space's YAML file")],
    out: Annotated[str, typer.Option(help="the run folder: a path or a URL")],
    data: Annotated[Path | None, typer.Argument(metavar="DATA", help="a folder of lists or of class folders")] = None,
    recipe: RecipeOption = None,
    trials: Annotated[int | None, typer.Option(min=1, help="candidates to train, instead of the space's")] = None,
    sampler: Annotated[str | None, typer.Option(help="what proposes them, instead of the space's")] = None,
    workers: Annotated[int, typer.Option(min=1, help="candidates at once")] = 2,
    executor: Executor = ExecutorName.processes,
    ray: Ray = None,
    ray_env: RayEnv = None,
    gpus: Gpus = None,
    memory_gb: MemoryGb = None,
    resource: Resource = None,
    replay: Annotated[Path | None, typer.Option(help="a table of trainings that answers, instead of DATA")] = None,
) -> None:
    """Search a space on a data set; the same command resumes."""
    from archsearch.report.search import replay_with_progress, search_with_progress
    from archsearch.search.launch import Wish

    wish = Wish(trials, sampler)
    if replay is not None:
        elsewhere = executor is not ExecutorName.processes
        refuse("nothing is trained with --replay", {"DATA": data, "--executor": elsewhere, "--ray": ray,
               "--ray-env": ray_env, "--gpus": gpus, "--memory-gb": memory_gb, "--resource": resource})  # fmt: skip
        given = None if recipe is None else recipe_of(recipe, None)
        replay_with_progress(space_file, replay, out, given, wish, workers)
    elif data is None:
        raise typer.BadParameter("give DATA, or --replay with a table", param_hint="DATA")
    else:
        crew = crew_of(executor, workers, ray, ray_env, gpus, memory_gb, resource)
        search_with_progress(space_file, data, out, recipe_of(recipe, None), wish, crew)


def finalize(
    run: RunArgument,
    data: DataArgument,
    seeds: Annotated[int, typer.Option(min=1, help="trainings of each network, with fresh seeds")] = 3,
    only: Annotated[
        list[str] | None, typer.Option(help="a network's number or name, instead of the front; may be given again")
    ] = None,
    inherit: Annotated[
        bool, typer.Option("--inherit", help="begin with the candidates' weights, and not from scratch")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="trainings at once")] = 2,
    executor: Executor = ExecutorName.processes,
    ray: Ray = None,
    ray_env: RayEnv = None,
    gpus: Gpus = None,
    memory_gb: MemoryGb = None,
    resource: Resource = None,
    as_json: Json = False,
) -> None:
    """Train the front and the published networks again, score them on `test`, once; a model folder of each."""
    from archsearch.report.final import final_table, finalize_with_progress

    crew = crew_of(executor, workers, ray, ray_env, gpus, memory_gb, resource)
    found = finalize_with_progress(run, data, seeds, crew, only or (), inherit)
    if as_json:
        print_json(found)
    else:
        print_table(final_table(found))
        for name, place in found["models"].items():
            print_line(f"{name}: {place}")


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
    if "shared" in data:
        print(f"read off shared weights: {data['shared']['epochs']} epochs, {data['shared']['seconds']:.0f} seconds")


def dashboard(
    run: RunArgument,
    port: Annotated[int, typer.Option(min=0, max=65535, help="on this machine alone; 0: any that is free")] = 8080,
) -> None:
    """Look at a search in a browser, with Optuna Dashboard; Ctrl-C ends it."""
    from archsearch.search.dashboard import serve

    serve(run, port, print_line)


def front(
    run: RunArgument,
    csv: Annotated[bool, typer.Option("--csv", help="every candidate as CSV")] = False,
    figure: Annotated[Path | None, typer.Option(help="draw it, .png or .svg")] = None,
    show_all: Annotated[bool, typer.Option("--all", help="every candidate, not the front alone")] = False,
    as_json: Json = False,
) -> None:
    """The Pareto front of a search, the published networks marked."""
    from archsearch.search.results import is_shared, read_results

    results = read_results(run)
    if is_shared(run):
        say(f"{run}: values are read off shared weights; `archsearch finalize` trains the front")
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
