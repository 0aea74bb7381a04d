"""What a trained network has learned: analyse kernels, time, frames, curve, features."""

from pathlib import Path
from typing import Annotated

import typer

from archsearch.cli.shared import DataArgument, Json, print_json, print_table, reporting, say
from archsearch.cli.training import numbers
from archsearch.errors import ArchsearchError

Run = Annotated[str, typer.Argument(metavar="RUN", help="a network's folder with weights")]
Split = Annotated[str, typer.Option(help="train, val or test")]
Views = Annotated[int | None, typer.Option(min=1, help="clips a video, instead of the recipe's")]
Figure = Annotated[Path | None, typer.Option(help="draw it, .png or .svg")]


def kernels(run: Run, figure: Figure = None, as_json: Json = False) -> None:
    """Show how convolutions over time spread their weight over frames."""
    from archsearch.report.analysis import kernels_json, kernels_table
    from archsearch.training.analysis import kernels_single

    network, taps = kernels_single(run)
    data = kernels_json(network, taps)
    if as_json:
        print_json(data)
    else:
        print_table(kernels_table(data))
    if figure is not None:
        from archsearch.report.analysis_figures import kernels_figure

        kernels_figure(taps, figure, f"{network}: weight over time")


def time(
    run: Run,
    data: DataArgument,
    split: Split = "val",
    views: Views = None,
    figure: Figure = None,
    as_json: Json = False,
) -> None:
    """Score clips played forwards and backwards, class by class."""
    from archsearch.report.analysis import time_table
    from archsearch.training.analysis import time_single

    with reporting() as report:
        found = time_single(run, data, split, views, report)
    if as_json:
        print_json(found)
    else:
        print_table(time_table(found))
    if figure is not None:
        from archsearch.report.analysis_figures import time_figure

        time_figure(found, figure)


def frames(
    run: Run,
    data: DataArgument,
    lengths: Annotated[str, typer.Option("--frames", help="of a clip, with commas between")] = "4,8,16,32",
    split: Split = "val",
    views: Views = None,
    figure: Figure = None,
    as_json: Json = False,
) -> None:
    """Score clips of several lengths with the same weights."""
    from archsearch.report.analysis import frames_table
    from archsearch.training.analysis import frames_single

    counts = numbers("--frames", lengths, int, "4,8,16")
    if min(counts) < 1:
        raise ArchsearchError(f"--frames {lengths}: a clip has 1 frame or more")
    with reporting() as report:
        found = frames_single(run, data, split, counts, views, report)
    if as_json:
        print_json(found)
    else:
        print_table(frames_table(found))
    if figure is not None:
        from archsearch.report.analysis_figures import frames_figure

        frames_figure(found, figure)


def curve(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="folders of trainings or candidates")],
    figure: Figure = None,
    as_json: Json = False,
) -> None:
    """Show how far training runs ahead of validation, epoch by epoch."""
    from archsearch.report.analysis import curve_table
    from archsearch.training.analysis import curve_single

    found = curve_single(runs)
    if as_json:
        print_json(found)
    else:
        print_table(curve_table(found))
    if figure is not None:
        from archsearch.report.analysis_figures import curve_figure

        curve_figure(found, figure)


def features(
    run: Run,
    data: DataArgument,
    stages: Annotated[str | None, typer.Option(help="names with commas between, as stem,res3,res5")] = None,
    split: Split = "val",
    seed: Annotated[int, typer.Option(min=0, help="of the layout")] = 0,
    figure: Figure = None,
    as_json: Json = False,
) -> None:
    """Lay videos out by what they are after some stages (t-SNE)."""
    from archsearch.report.analysis import features_table
    from archsearch.training.analysis import features_json, features_single, need_scikit_learn

    need_scikit_learn()
    names = [] if stages is None else [name.strip() for name in stages.split(",")]
    with reporting() as report:
        found = features_single(run, data, split, names, report, say)
    facts = {"split": split, **features_json(found, seed)}
    if as_json:
        print_json(facts)
    else:
        print_table(features_table(facts))
    if figure is not None:
        from archsearch.report.analysis_figures import features_figure

        features_figure(facts, figure)
