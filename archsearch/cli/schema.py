"""Schemas of the files people write: schema."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class FileKind(StrEnum):
    """What is written in YAML."""

    spec = "spec"
    space = "space"
    recipe = "recipe"


def schema(
    kind: Annotated[FileKind, typer.Argument(metavar="spec|space|recipe", help="the kind of file")],
    out: Annotated[Path | None, typer.Option(help="write it to a file, .json")] = None,
) -> None:
    """Print the JSON Schema of a kind of file, for editors to complete and check it by."""
    from archsearch.files import write_whole
    from archsearch.report.schema import SCHEMAS

    text = json.dumps(SCHEMAS[kind.value](), indent=1) + "\n"
    if out is None:
        print(text, end="")
    else:
        write_whole(out, text)
