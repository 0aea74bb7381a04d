"""The commands. stdout is the result, stderr is progress; each command imports what it needs.

Exit codes: 0 done, 1 a fault the user can act on (one line each), 2 wrong usage, 130 interrupted.
"""

import os
import sys
from collections.abc import Callable

import typer

from archsearch.cli import (
    analyse,
    choosing,
    data,
    estimates,
    export,
    latency,
    networks,
    predicting,
    reporting,
    schema,
    searching,
    surgery,
    training,
    weights,
)
from archsearch.errors import ArchsearchError

INTERRUPTED = 130
RESUMED = {"search", "share", "finalize", "train"}  # commands that go on where they were cut short
app = typer.Typer(
    name="archsearch",
    help="Search and surgery for video networks, on your own clips and your own machine.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: importing rich takes longer than all the rest
)
data_app = typer.Typer(help="Data sets: demo clips, checks, packs.", no_args_is_help=True)
data_app.command("make")(training.data_make)
data_app.command("check")(data.check)
data_app.command("pack")(data.pack)
weights_app = typer.Typer(help="Weights of other projects, in and out.", no_args_is_help=True)
weights_app.command("import")(weights.import_file)
weights_app.command("export")(weights.export_file)
analyse_app = typer.Typer(help="What a trained network has learned.", no_args_is_help=True)
analyse_app.command("kernels")(analyse.kernels)
analyse_app.command("time")(analyse.time)
analyse_app.command("frames")(analyse.frames)
analyse_app.command("curve")(analyse.curve)
analyse_app.command("features")(analyse.features)
latency_app = typer.Typer(help="Latency tables of search spaces.", no_args_is_help=True)
latency_app.command("calibrate")(latency.calibrate)
COMMANDS: tuple[Callable[..., None], ...] = (
    networks.presets,
    networks.show,
    networks.compare,
    networks.space,
    schema.schema,
    latency.bench,
    estimates.score,
    training.train,
    training.evaluate,
    training.fuse,
    predicting.predict,
    surgery.surgery,
    searching.search,
    estimates.share,
    searching.status,
    searching.front,
    reporting.report,
    choosing.choose,
    searching.dashboard,
    searching.finalize,
    export.export,
    searching.tabulate,
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(data_app, name="data")
app.add_typer(weights_app, name="weights")
app.add_typer(analyse_app, name="analyse")
app.add_typer(latency_app, name="latency")


def main() -> None:
    """Runs the command line; a user's fault is one line each on stderr and exit code 1."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of numpy: its threads would wait for the workers
    try:
        app()
    except ArchsearchError as error:
        for line in error.lines:
            _complain(line)
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer turns Ctrl-C into it, and says nothing
            goes_on = "; the same command goes on from here" if RESUMED.intersection(sys.argv[1:2]) else ""
            print(f"interrupted{goes_on}", file=sys.stderr)
        raise
    except OSError as error:  # a disk that is full, a folder that may not be written
        _complain(f"{error.filename or 'the result'}: {error.strerror or error}")
        sys.exit(1)


def _complain(line: str) -> None:
    """One line on stderr, whatever it cites of a file."""
    from archsearch.files import plain

    print(plain(line), file=sys.stderr)
