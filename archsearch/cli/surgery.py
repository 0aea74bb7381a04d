"""Operating on a trained network: surgery."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.shared import Json, load, print_json, print_table, reporting
from archsearch.errors import SurgeryError

if TYPE_CHECKING:
    from archsearch.spec.spec import Spec


def surgery(
    source: Annotated[str, typer.Argument(metavar="RUN", help="a network's folder with weights")],
    to: Annotated[str | None, typer.Option(help="the new network: a preset's name or a YAML file")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="instead: fields of the old one, as 'res*.conv=2d'")
    ] = None,
    out: Annotated[str | None, typer.Option(help="a new folder")] = None,
    data: Annotated[Path | None, typer.Option(help="clips to fit approximated sites on; labels are not read")] = None,
    inflate: Annotated[str, typer.Option(help="what 2D kernels become in 3D: centre or mean")] = "centre",
    rename: Annotated[list[str] | None, typer.Option(help="a moved block, as res3.2=res3.1; res3.1= is new")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan only")] = False,
    as_json: Json = False,
) -> None:
    """Turn a trained network into another one of its family, and keep what it learned."""
    from archsearch.nets.surgery.plan import plan
    from archsearch.report.surgery import plan_table
    from archsearch.training.operation import describe, operate, target_of

    if inflate not in ("centre", "mean"):
        raise SurgeryError(f"--inflate {inflate}: should be centre or mean")
    if (to is None) == (not settings):
        raise SurgeryError("give either --to SPEC or --set FIELD=VALUE")
    old, new = target_of(source, load(to, None, None) if to else _with_settings(source, settings or []))
    moved = {name: other or None for name, _, other in (entry.partition("=") for entry in rename or [])}
    if dry_run:
        facts = describe(old, new, plan(old, new, moved, inflate))  # type: ignore[arg-type]
    else:
        if out is None:
            raise SurgeryError("--out is missing: a new folder for the network (or --dry-run)")
        with reporting() as report:
            facts = operate(source, new, out, data=data, rename=moved, inflate=inflate, report=report)  # type: ignore[arg-type]
    if as_json:
        print_json(facts)
    else:
        print_table(plan_table(facts))


def _with_settings(source: str, entries: list[str]) -> "Spec":
    """The network of a folder with fields set: `pattern.field=value`, values as in YAML. Raises SpecError."""
    from archsearch.errors import SpecError
    from archsearch.files import parse_yaml
    from archsearch.space.choices import with_settings
    from archsearch.spec.presets import load_spec

    settings: dict[str, Any] = {}
    places: dict[str, str] = {}
    for entry in entries:
        path, _, text = entry.partition("=")
        places[path] = f"--set {entry}"
        settings.pop(path, None)  # given again it is set again, after those between
        settings[path] = parse_yaml(f"value: {text}", places[path], SpecError)["value"]
    return with_settings(load_spec(source), settings, places.__getitem__)
