"""Latency: bench, latency calibrate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.shared import Classes, Clip, Json, load, print_json, print_table, reporting
from archsearch.errors import ArchsearchError

if TYPE_CHECKING:
    from archsearch.spec.latency import Setting

Device = Annotated[str, typer.Option(help="cpu, cuda, onnxruntime or openvino")]
Threads = Annotated[int, typer.Option(min=1, help="of the CPU")]


def bench(
    specs: Annotated[list[str], typer.Argument(metavar="SPEC...", help="presets' names or YAML files")],
    clip: Clip = None,
    classes: Classes = None,
    device: Device = "cpu",
    batch: Annotated[str, typer.Option(help="clips of a forward, with commas between")] = "1",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16, with commas between")] = "fp32",
    compiled: Annotated[bool, typer.Option("--compiled", help="by torch.compile")] = False,
    threads: Threads = 1,
    rounds: Annotated[int, typer.Option(min=1, help="timed runs of each network")] = 30,
    figure: Annotated[Path | None, typer.Option(help="draw it, .png or .svg")] = None,
    as_json: Json = False,
) -> None:
    """Measure networks side by side: latency, clips a second, memory."""
    settings = [
        setting_of("bench", device=device, batch=size, precision=name, compiled=compiled, threads=threads)
        for name in dict.fromkeys(precision.split(","))
        for size in dict.fromkeys(batch.split(","))
    ]
    networks = {name: load(name, clip, classes) for name in specs}
    from archsearch.report.latency import bench_figure, bench_json, bench_table

    with reporting() as report:

        def watch(what: str) -> Any:
            return lambda done, total: report(what, done, total, "")

        data = bench_json(networks, settings, rounds, watch("timing"), watch("weighing"))
    if as_json:
        print_json(data)
    else:
        print_table(bench_table(data))
    if figure is not None:
        bench_figure(data, figure)


def calibrate(
    space_file: Annotated[Path, typer.Argument(metavar="SPACE", help="a search space's YAML file")],
    out: Annotated[Path, typer.Option(help="the table, .json")],
    device: Device = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="clips of a forward")] = 1,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16")] = "fp32",
    threads: Threads = 1,
    rounds: Annotated[int, typer.Option(min=1, help="timed runs of each site")] = 30,
    networks: Annotated[int, typer.Option(min=4, help="whole networks to fit on and to judge by")] = 24,
    as_json: Json = False,
) -> None:
    """Measure the sites of a space's networks: a table that predicts latency before any training."""
    setting = setting_of("latency calibrate", device=device, batch=batch, precision=precision, threads=threads)
    from archsearch.files import write_whole
    from archsearch.nets.calibrate import calibrate
    from archsearch.report.latency import calibration_json, calibration_text
    from archsearch.space.file import read_untimed
    from archsearch.spec.latency import write_table

    space = read_untimed(space_file)
    with reporting() as report:
        table = calibrate(space, setting, rounds, networks, lambda done, total: report("timing", done, total, ""))
    write_whole(out, write_table(table))
    if as_json:
        print_json(calibration_json(table))
    else:
        print(calibration_text(table))


def setting_of(command: str, **fields: Any) -> "Setting":
    """The setting of a command's options. Raises ArchsearchError with one line for every fault."""
    from archsearch.files import read_record
    from archsearch.spec.latency import Setting

    faults: list[str] = []
    if isinstance(fields["batch"], str) and fields["batch"].isdigit():
        fields["batch"] = int(fields["batch"])
    setting = read_record(Setting, fields, command, faults)
    if setting is None:
        raise ArchsearchError(*faults)
    return setting
