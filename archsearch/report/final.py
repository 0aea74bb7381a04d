"""Finalised networks: their training as it is watched, and what came out as a table."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from archsearch.report.analysis import between
from archsearch.report.front import choices_text, quantity
from archsearch.report.networks import empty_table
from archsearch.report.progress import track
from archsearch.search.finalize import finalists, finalize
from archsearch.search.folder import RunFolder
from archsearch.search.launch import Workers, crew
from archsearch.search.plan import run_recipe
from archsearch.search.results import read_results
from archsearch.search.worker import train_finalist
from archsearch.store import open_store


def finalize_with_progress(run: str, data: Path, seeds: int, workers: Workers) -> dict[str, Any]:
    """Finalises a run, with a bar of epochs on stderr; gives what `finalize` does."""
    finalists(read_results(run))  # or its fault, before anything long
    recipe = run_recipe(RunFolder(open_store(run)))
    seen = 0
    with crew(workers, train_finalist, recipe) as executor, track(None, "finalising") as advance:

        def report(done: int, total: int, said: str) -> None:
            nonlocal seen
            advance(done - seen, status=f"{done}/{total} epochs {said}")
            seen = done
            if ": " in said:
                print(said, file=sys.stderr, flush=True)

        return finalize(run, data, seeds, executor, report)


def final_table(found: Mapping[str, Any]) -> Table:
    """A row for each network: what it was selected by, its mean over fresh seeds, and `test`."""
    table = empty_table(f"{found['run']}: {len(found['front'])} on the front over {len(found['seeds'])} fresh seeds")
    table.add_column("id", justify="right")
    for name in found["objectives"]:
        table.add_column(name, justify="right")
    for name in ("selected\nby", "test top-1", "95 %"):
        table.add_column(name, justify="right")
    table.add_column("design", overflow="fold")
    first = next(iter(found["objectives"]))
    for row in sorted(found["candidates"], key=lambda row: row["id"] not in found["front"]):
        cells = [str(row["id"]), *(_mean(row, name) for name in found["objectives"])]
        cells.append(quantity(first, row["selected"][first]))
        tested = row["trained"] > 0
        cells += [f"{row['test_top1']:.3f}", between(row["test_interval"])] if tested else ["-", "failed"]
        last = row["id"] == found["front"][-1] if found["front"] else False
        name = row["published"] or choices_text(row["choices"], list(row["choices"]))
        table.add_row(*map(Text, (*cells, name)), end_section=last)
    table.caption = Text("below the line: not on the front of the means; test intervals are over seeds and videos")
    return table


def _mean(row: Mapping[str, Any], name: str) -> str:
    spread = row.get("spread", {}).get(name)
    text = quantity(name, row["metrics"][name])
    return text if spread is None else f"{text} ± {spread:.3f}"
