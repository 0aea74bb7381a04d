"""A search to hand on: report."""

from pathlib import Path
from typing import Annotated

import typer

from archsearch.cli.shared import Json, RunArgument, print_json, print_line


def report(
    run: RunArgument,
    out: Annotated[Path | None, typer.Option(help="the page, .html; none: report.html in the run folder")] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Markdown, .md, with figures beside it; alone it comes instead of the page")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a search as one page that opens in any browser, or as Markdown with figures; prints what was written."""
    for path, suffixes, option in ((out, (".html", ".htm"), "--out"), (markdown, (".md",), "--markdown")):
        if path is not None and path.suffix.lower() not in suffixes:
            raise typer.BadParameter(f"{path} does not end in {suffixes[0]}", param_hint=option)
    if as_json:
        if out is not None or markdown is not None:
            raise typer.BadParameter("prints what a page shows and writes nothing; leave out --out and --markdown")
        from archsearch.report.page_data import page_data

        print_json(page_data(run))
        return
    if out is not None or markdown is None:
        from archsearch.report.page import page_place, write_page

        place = page_place(run) if out is None else out
        write_page(run, place)
        print_line(str(place))
    if markdown is not None:
        from archsearch.report.page_markdown import write_markdown

        for path in write_markdown(run, markdown):
            print_line(str(path))
