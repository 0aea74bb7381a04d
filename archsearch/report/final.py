"""Finalised networks: their training as it is watched, and what came out as a table."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from archsearch.report.analysis import between
from archsearch.report.front import choices_text, quantity
from archsearch.report.model import card
from archsearch.report.networks import empty_table
from archsearch.report.progress import reporting, track
from archsearch.search.finalize import chosen, finalize
from archsearch.search.folder import RunFolder
from archsearch.search.launch import Workers, crew
from archsearch.search.models import write_models
from archsearch.search.plan import run_recipe
from archsearch.search.results import read_results
from archsearch.search.worker import train_finalist
from archsearch.store import open_store


def finalize_with_progress(
    run: str, data: Path, seeds: int, workers: Workers, only: Sequence[str] = (), inherit: bool = False
) -> dict[str, Any]:
    """Finalises a run, with a bar of epochs on stderr; gives what `finalize` does, and `models`, folders by name."""
    members = chosen(read_results(run), only)  # or its fault, before anything long
    recipe = run_recipe(RunFolder(open_store(run)))
    seen = 0
    with crew(workers, train_finalist, recipe) as executor, track(None, "finalising") as advance:

        def report(done: int, total: int, said: str) -> None:
            nonlocal seen
            advance(done - seen, status=f"{done}/{total} epochs {said}")
            seen = done
            if ": " in said:
                print(said, file=sys.stderr, flush=True)

        found = finalize(run, data, seeds, executor, report, only=only, inherit=inherit)
    start = "inherited" if inherit else "scratch"
    wanted = [(candidate.hash, start) for candidate in members]
    commands = _commands(run, data, seeds, only, inherit)
    with reporting() as reported:
        models = write_models(run, found, wanted, card, commands, report=reported, say=_say)
    return found | {"models": models}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _commands(run: str, data: Path, seeds: int, only: Sequence[str], inherit: bool) -> tuple[str, ...]:
    """What was given to search and to finalise, as far as the run's folder knows."""
    identity = RunFolder(open_store(run)).identity() or {}
    verb = "share" if identity.get("values") == "shared" else "search"
    options = "".join(f" --only {name}" for name in only) + (" --inherit" if inherit else "")
    return (
        f"archsearch {verb} {run}/space.yaml {data} --recipe {run}/recipe.yaml --out {run}",
        f"archsearch finalize {run} {data} --seeds {seeds}{options}",
    )


def final_table(found: Mapping[str, Any]) -> Table:
    """A row for each network: what it was selected by, its mean over fresh seeds, and `test`."""
    seeds = "/".join(map(str, sorted({len(row.get("seeds", found["seeds"])) for row in found["candidates"]})))
    plural = "" if seeds == "1" else "s"
    table = empty_table(f"{found['run']}: {len(found['front'])} on the front over {seeds} fresh seed{plural}")
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
        name += " (inherited)" if row.get("start") == "inherited" else ""
        table.add_row(*map(Text, (*cells, name)), end_section=last)
    below = len(found["candidates"]) > len(found["front"])
    told = "below the line: not on the front of the means; " if below else ""
    table.caption = Text(f"{told}test intervals are over seeds and videos")
    return table


def _mean(row: Mapping[str, Any], name: str) -> str:
    spread = row.get("spread", {}).get(name)
    text = quantity(name, row["metrics"][name])
    return text if spread is None else f"{text} ± {spread:.3f}"
