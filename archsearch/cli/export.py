"""Networks for other programs: export."""

from pathlib import Path
from typing import Annotated

import typer

from archsearch.cli.shared import Json, print_json, print_line, reporting, say


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="a trained network's folder, or a model folder")],
    out: Annotated[str | None, typer.Option(help="the model folder; by default RUN's name and _model, here")] = None,
    data: Annotated[Path | None, typer.Option(help="clips to compare and score on: val; train for --int8")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="8-bit whole numbers, too; needs --data")] = False,
    openvino: Annotated[bool, typer.Option("--openvino", help="OpenVINO's files, too")] = False,
    opset: Annotated[int | None, typer.Option(help="of ONNX, 18 or later")] = None,
    as_json: Json = False,
) -> None:
    """Write a model folder: ONNX, a torch.export program, what goes in and comes out, a card; checked against torch."""
    from archsearch.report.model import card, model_lines
    from archsearch.training.exporting import Wish, export_network

    folder = f"{Path(run).absolute().name}_model" if out is None else out
    options = {"--out": folder, "--data": data, "--opset": opset}
    given = [f"{name} {value}" for name, value in options.items() if value is not None]
    given += [name for name, flag in (("--int8", int8), ("--openvino", openvino)) if flag]
    command = " ".join(["archsearch export", run, *given])
    with reporting() as report:
        model = export_network(run, folder, Wish(int8, openvino, opset), (command,), card, data, report, say)
    if as_json:
        print_json(model.model_dump(mode="json") | {"folder": folder})
        return
    for line in model_lines(model, folder):
        print_line(line)
