"""Networks and spaces: presets, show, compare, space."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.shared import Classes, Clip, Json, SpecArgument, load, print_json, print_table, reporting, say
from archsearch.errors import SpecError

if TYPE_CHECKING:
    from archsearch.spec.spec import Spec

Compared = Annotated[str, typer.Argument(help="a preset's name, a YAML file, or both run folders")]
SECONDS_UNSEEN = 2.0  # work that ends sooner shows no progress


def presets(as_json: Json = False) -> None:
    """List the published networks there are."""
    from archsearch.spec.presets import PRESETS

    if as_json:
        print_json(list(PRESETS))
        return
    from archsearch.report.networks import presets_table

    print_table(presets_table({name: make() for name, make in PRESETS.items()}))


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
    from archsearch.report.network_data import spec_json
    from archsearch.spec.spec import lower, spec_yaml

    network = load(spec, clip, classes)
    if check:
        _check(network, as_json)
    elif yaml:
        print(spec_yaml(network), end="")
    elif as_json:
        print_json(spec_json(network))
    else:
        from archsearch.report.networks import nodes_table, spec_table

        print_table(nodes_table(lower(network)) if nodes else spec_table(network))


def compare(left: Compared, right: Compared, clip: Clip = None, as_json: Json = False) -> None:
    """Compare two networks stage by stage, or two runs of one space: how alike they rank it, and their fronts."""
    if all((Path(name) / "run.json").exists() or "://" in name for name in (left, right)):
        _compare_runs(left, right, as_json)
        return
    from archsearch.report.network_data import compare_json
    from archsearch.report.networks import compare_table

    networks = load(left, clip, None), load(right, clip, None)
    if as_json:
        print_json(compare_json(*networks))
    else:
        print_table(compare_table(*networks))


def _compare_runs(left: str, right: str, as_json: bool) -> None:
    from archsearch.front.compare import compare_runs
    from archsearch.report.compare import compare_runs_table
    from archsearch.search.results import read_both

    data = compare_runs(*read_both(left, right))
    if as_json:
        print_json(data)
    else:
        print_table(compare_runs_table(data))


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
        print_json([found.choices(positions) for positions in found.sample_positions(sample)])
        return
    with reporting() as report:
        started = time.monotonic()
        costs = space_costs(found, enumerate_all=enumerate_all, report=_if_slow(report, "costing networks"))
        seconds = time.monotonic() - started
    if enumerate_all:
        say(f"{costs.counted:,} networks in {seconds:.3g} s, {costs.counted / seconds:,.0f} a second")
    data = space_json(found, costs)
    if as_json:
        print_json(data)
    else:
        print_table(space_table(found, data))
    if figure is not None:
        from archsearch.report.distribution import distribution_figure
        from archsearch.report.networks import published_marks

        title = f"{found.name}: {len(costs.macs):,} networks{'' if costs.whole else ', drawn at random'}"
        distribution_figure(costs.macs, costs.params, figure, title, published_marks(found), found.limits)


def _check(network: "Spec", as_json: bool) -> None:
    from dataclasses import asdict

    from archsearch.nets.check import check_against_fvcore

    check = check_against_fvcore(network)
    if as_json:
        print_json({**asdict(check), "agrees": check.agrees})
    else:
        print(f"macs    {check.macs:>16,}   fvcore's convolutions and linear maps {check.fvcore_macs:>16,}")
        print(f"params  {check.params:>16,}   torch's                               {check.torch_params:>16,}")
        print(f"fvcore also counts {check.other or 'nothing'}; it does not count {check.uncounted or 'nothing'}")
    if not check.agrees:
        raise SpecError(f"{network.name}: the counts differ; this is a fault of archsearch")


def _if_slow(report: Any, what: str) -> Callable[[int, int], None]:
    """Reports (done, total) once work has taken two seconds and is not at its end."""
    started, shown = time.monotonic(), False

    def watch(done: int, total: int) -> None:
        nonlocal shown
        shown = shown or (done < total and time.monotonic() - started > SECONDS_UNSEEN)
        if shown:
            report(what, done, total, "")

    return watch
