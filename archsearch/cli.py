"""The commands. stdout is the result, stderr is progress; each command imports what it needs.

Exit codes: 0 done, 1 a fault the user can act on (one line each), 2 wrong usage, 130 interrupted.
"""

import json
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.errors import ArchsearchError, SpecError

if TYPE_CHECKING:
    from archsearch.spec.spec import Spec

app = typer.Typer(
    name="archsearch",
    help="Search and surgery for video networks, on your own clips and your own machine.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: importing rich takes longer than all the rest
)
INTERRUPTED = 130
SECONDS_UNSEEN = 2.0  # work that ends sooner shows no progress
data_app = typer.Typer(help="Data sets: demo clips.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="print JSON")]
SpecArgument = Annotated[str, typer.Argument(help="a preset's name or a YAML file")]
Clip = Annotated[str | None, typer.Option(help="the clip's size as CxTxHxW, e.g. 3x16x112x112")]
Classes = Annotated[int | None, typer.Option(min=1, help="number of classes")]
RunArgument = Annotated[str, typer.Argument(help="a run folder")]
DataArgument = Annotated[Path, typer.Argument(metavar="DATA", help="a folder of lists or of class folders")]
RecipeOption = Annotated[Path | None, typer.Option(help="a recipe's YAML file")]
Seed = Annotated[int | None, typer.Option(min=0, help="instead of the recipe's")]


class ExecutorName(StrEnum):
    """Where candidates train."""

    serial = "serial"
    processes = "processes"
    ray = "ray"


def main() -> None:
    """Runs the command line; a user's fault is one line each on stderr and exit code 1."""
    try:
        app()
    except ArchsearchError as error:
        for line in error.lines:
            print(line, file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer turns Ctrl-C into it, and says nothing
            print("interrupted; the same command goes on from here", file=sys.stderr)
        raise
    except OSError as error:  # a disk that is full, a folder that may not be written
        print(f"{error.filename or 'the result'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)


@app.command()
def presets(as_json: Json = False) -> None:
    """List the published networks there are."""
    from archsearch.spec.presets import PRESETS

    if as_json:
        _print_json(list(PRESETS))
        return
    from archsearch.report.networks import presets_table

    _print(presets_table({name: make() for name, make in PRESETS.items()}))


@app.command()
def show(
    spec: SpecArgument,
    clip: Clip = None,
    classes: Classes = None,
    nodes: Annotated[bool, typer.Option("--nodes", help="node by node")] = False,
    yaml: Annotated[bool, typer.Option("--yaml", help="print the spec as YAML")] = False,
    check: Annotated[bool, typer.Option("--check", help="count with fvcore, too")] = False,
    as_json: Json = False,
) -> None:
    """Show a network stage by stage, with what it costs."""
    from archsearch.report.networks import nodes_table, spec_json, spec_table
    from archsearch.spec.spec import lower, spec_yaml

    network = _load(spec, clip, classes)
    if check:
        _check(network, as_json)
    elif yaml:
        print(spec_yaml(network), end="")
    elif as_json:
        _print_json(spec_json(network))
    else:
        _print(nodes_table(lower(network)) if nodes else spec_table(network))


@app.command()
def compare(left: SpecArgument, right: SpecArgument, clip: Clip = None, as_json: Json = False) -> None:
    """Compare two networks stage by stage."""
    from archsearch.report.networks import compare_json, compare_table

    networks = _load(left, clip, None), _load(right, clip, None)
    if as_json:
        _print_json(compare_json(*networks))
    else:
        _print(compare_table(*networks))


@app.command()
def space(
    file: Annotated[Path, typer.Argument(help="a search space's YAML file")],
    sample: Annotated[int, typer.Option(min=0, help="print N random networks of it")] = 0,
    enumerate_all: Annotated[bool, typer.Option("--enumerate", help="cost every network, however many")] = False,
    figure: Annotated[Path | None, typer.Option(help="draw the distribution of cost, .png or .svg")] = None,
    as_json: Json = False,
) -> None:
    """Check a search space, size it, and cost what is in it."""
    from archsearch.report.networks import space_costs, space_json, space_table
    from archsearch.space.file import read_space

    found = read_space(file)
    if sample:
        _print_json([found.choices(positions) for positions in found.sample_positions(sample)])
        return
    with _reporting() as report:
        started = time.monotonic()
        costs = space_costs(found, enumerate_all=enumerate_all, report=_if_slow(report, "costing networks"))
        seconds = time.monotonic() - started
    if enumerate_all:
        _say(f"{costs.counted:,} networks in {seconds:.3g} s, {costs.counted / seconds:,.0f} a second")
    data = space_json(found, costs)
    if as_json:
        _print_json(data)
    else:
        _print(space_table(found, data))
    if figure is not None:
        from archsearch.report.figures import distribution_figure
        from archsearch.report.networks import published_marks

        title = f"{found.name}: {len(costs.macs):,} networks{'' if costs.whole else ', drawn at random'}"
        distribution_figure(costs.macs, costs.params, figure, title, published_marks(found), found.limits)


@data_app.command("make")
def data_make(
    folder: Annotated[Path, typer.Argument(help="where to write them")],
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Make the demo clips: shapes that move, turn and grow, in exact time-reversed pairs."""
    from archsearch.video.demo import make_demo

    with _reporting() as report:
        make_demo(folder, seed, lambda done, total: report("making clips", done, total, ""))
    print(folder)


@app.command()
def train(
    spec: SpecArgument,
    data: DataArgument,
    out: Annotated[str, typer.Option(help="a new folder, or one to go on with")],
    recipe: RecipeOption = None,
    clip: Clip = None,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Train one network; the same command goes on after an interruption."""
    from archsearch.training.single import train_single

    network = _load(spec, clip, None)
    with _reporting() as report:
        result = train_single(network, data, out, _recipe(recipe, seed), report, _say)
    _print_result(result, as_json)


@app.command()
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

    _print_result(evaluate_single(run, data, split, views, reverse), as_json)


@app.command()
def search(
    space_file: Annotated[Path, typer.Argument(metavar="SPACE", help="a search space's YAML file")],
    data: DataArgument,
    out: Annotated[str, typer.Option(help="the run folder: a path or a URL")],
    recipe: RecipeOption = None,
    trials: Annotated[int | None, typer.Option(min=1, help="candidates to train, instead of the space's")] = None,
    workers: Annotated[int, typer.Option(min=1, help="candidates at once")] = 2,
    executor: Annotated[ExecutorName, typer.Option(help="where they train")] = ExecutorName.processes,
    ray: Annotated[str | None, typer.Option(help="a Ray cluster's address; none: a Ray is started here")] = None,
) -> None:
    """Search a space on a data set; the same command resumes."""
    from archsearch.report.search import search_with_progress
    from archsearch.search.launch import Workers

    crew = Workers("ray" if ray is not None else executor.value, workers, ray)
    search_with_progress(space_file, data, out, _recipe(recipe, None), trials, crew)


@app.command()
def status(run: RunArgument, as_json: Json = False) -> None:
    """How far a search is."""
    from archsearch.search.results import read_status

    data = read_status(run)
    if as_json:
        _print_json(data)
        return
    trials = ", ".join(f"{count} {state}" for state, count in data["trials"].items() if count) or "no trials yet"
    print(f"{data['run']}: {trials}; {data['duplicates']} answered from known ones")
    print(f"{data['epochs']} epochs, {data['seconds']:.0f} worker seconds, hypervolume {data['hypervolume']:.3f}")


@app.command()
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
        _print_json(results.as_json())
        return
    from archsearch.report.front import front_csv, front_table

    if csv:
        print(front_csv(results), end="")
    else:
        _print(front_table(results, show_all))


def _load(name: str, clip: str | None, classes: int | None) -> "Spec":
    from archsearch.spec.presets import load_spec
    from archsearch.spec.spec import lower, with_classes, with_clip

    network = load_spec(name)
    if clip is not None:
        network = with_clip(network, _parse_clip(clip))
    if classes is not None:
        network = with_classes(network, classes)
    lower(network)
    return network


def _parse_clip(text: str) -> tuple[int, int, int, int]:
    sides = text.lower().split("x")
    if len(sides) != 4 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise SpecError(f"--clip {text}: should be CxTxHxW, four positive integers such as 3x16x112x112")
    c, t, h, w = map(int, sides)
    return c, t, h, w


def _recipe(path: Path | None, seed: int | None) -> Any:
    from archsearch.training.recipe import Recipe, read_recipe

    recipe = Recipe() if path is None else read_recipe(path)
    return recipe if seed is None else recipe.model_copy(update={"seed": seed})


def _check(network: "Spec", as_json: bool) -> None:
    from dataclasses import asdict

    from archsearch.nets.check import check_against_fvcore

    check = check_against_fvcore(network)
    if as_json:
        _print_json({**asdict(check), "agrees": check.agrees})
    else:
        print(f"macs    {check.macs:>16,}   fvcore's convolutions and linear maps {check.fvcore_macs:>16,}")
        print(f"params  {check.params:>16,}   torch's                               {check.torch_params:>16,}")
        print(f"fvcore also counts {check.other or 'nothing'}; it does not count {check.uncounted or 'nothing'}")
    if not check.agrees:
        raise SpecError(f"{network.name}: the counts differ; this is a fault of archsearch")


def _reporting() -> Any:
    from archsearch.report.progress import reporting

    return reporting()


def _if_slow(report: Any, what: str) -> Callable[[int, int], None]:
    """Reports (done, total) once work has taken two seconds and is not at its end."""
    started, shown = time.monotonic(), False

    def watch(done: int, total: int) -> None:
        nonlocal shown
        shown = shown or (done < total and time.monotonic() - started > SECONDS_UNSEEN)
        if shown:
            report(what, done, total, "")

    return watch


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _print(table: Any) -> None:
    """A table, at most 100 columns wide."""
    from rich.console import Console

    console = Console()
    console.width = min(console.width, 100) if console.is_terminal else 100
    console.print(table)


def _print_json(data: Any) -> None:
    print(json.dumps(data))


def _print_result(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(result)
        return
    for name, value in result.items():
        if isinstance(value, dict):
            for key, number in value.items():
                print(f"{name}.{key}: {number:.4f}")
        else:
            print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")
