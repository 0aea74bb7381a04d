"""Weights of other projects: weights import, weights export."""

from pathlib import Path
from typing import Annotated

import typer

from archsearch.cli.shared import Classes, Json, print_json, say
from archsearch.errors import WeightsError


def import_file(
    file: Annotated[Path, typer.Argument(help="a state dict: .safetensors, .pt or .pth")],
    preset: Annotated[str, typer.Option("--as", help="the network it is of: a preset's name or a YAML file")],
    out: Annotated[str | None, typer.Option(help="a new folder; by default the file's name beside it")] = None,
    dialect: Annotated[str | None, typer.Option(help="whose layout it is, where that cannot be detected")] = None,
    classes: Classes = None,
    partial: Annotated[bool, typer.Option("--partial", help="take what fits; the rest is freshly initialised")] = False,
    inflate: Annotated[
        str | None, typer.Option(help="what 2D kernels of an image network become: centre (by default) or mean")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read weights of another project into a network's folder, every tensor placed by name and shape."""
    from archsearch.spec.presets import load_spec
    from archsearch.training.exchange import import_network

    if inflate not in (None, "centre", "mean"):
        raise WeightsError(f"--inflate {inflate}: should be centre or mean")
    if out is None and not file.suffix:
        raise WeightsError(f"{file}: its name has no ending to leave off; give --out a folder")
    folder = out if out is not None else str(file.with_suffix(""))
    options = {"dialect": dialect, "classes": classes, "partial": partial, "inflate": inflate}
    facts = import_network(file, load_spec(preset), folder, **options)  # type: ignore[arg-type]
    for remark in facts["remarks"]:
        say(f"{file}: {remark}")
    if as_json:
        print_json(facts)
    else:
        print(f"{folder}: {facts['network']}, {facts['placed']} tensors from {facts['about']} layout")


def export_file(
    run: Annotated[str, typer.Argument(help="a network's folder")],
    dialect: Annotated[str, typer.Option("--as", help="torchvision, vmz, kylemin, piergiaj, hassony2, hara, ...")],
    out: Annotated[Path | None, typer.Option(help="a file: .safetensors, .pt or .pth")] = None,
) -> None:
    """Write a network's weights under another project's names."""
    from archsearch.training.exchange import export_network

    print(export_network(run, dialect, out, say))
