"""A search as it is watched: what is packed, which candidates train, what came out."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archsearch.errors import RunError
from archsearch.files import plain
from archsearch.report.front import choices_text, quantity
from archsearch.report.progress import Row, reporting, track
from archsearch.search.folder import Settled
from archsearch.search.launch import Wish, Workers, prepare, prepare_replay, replay, run
from archsearch.search.plan import Plan
from archsearch.search.proposals import EXHAUSTIVE
from archsearch.search.state import Progress, Report, Standing
from archsearch.search.table import read_table
from archsearch.training.recipe import Recipe
from archsearch.video.pack import remarks


def search_with_progress(space_file: Path, data: Path, out: str, recipe: Recipe, wish: Wish, workers: Workers) -> None:
    """Prepares and runs a search, with a bar and a line for each settled candidate on stderr."""
    with reporting() as report:
        plan, dataset, pack = prepare(space_file, data, out, recipe, wish, report)
    for line in remarks(dataset, pack):
        _say(line)
    with _watching(plan) as watch:
        exhausted = run(plan, workers, watch)
    _say(_summary(plan, out, exhausted))


def replay_with_progress(
    space_file: Path, table_file: Path, out: str, recipe: Recipe | None, wish: Wish, workers: int
) -> None:
    """The same, answered from a table of trainings."""
    table = read_table(table_file)
    plan = prepare_replay(space_file, table, out, recipe, wish)
    with _watching(plan) as watch:
        exhausted, seconds = replay(plan, table, workers, watch)
    _say(f"{_summary(plan, out, exhausted)}; training it would have taken {seconds / 60:.1f} minutes")


def _summary(plan: Plan, out: str, exhausted: bool) -> str:
    """One line at the end. Raises RunError where nothing was trained to the end."""
    settled = plan.folder.settled()
    states = Counter("duplicate" if trial.duplicate_of is not None else trial.state for trial in settled)
    counts = ", ".join(f"{count} {state}" for state, count in states.items()) or "no trials"
    whole = plan.space.size <= EXHAUSTIVE
    searched = "the space has no other" if whole else f"{EXHAUSTIVE} random draws found no other"
    end = f"; {searched} candidate within its limits" if exhausted else ""
    if not exhausted and states["complete"] + states["stopped"] + states["failed"] < plan.trials:
        end = f"; the {plan.epochs} epochs that halving spends on {plan.trials} trials are spent"
    if not states["complete"]:
        raise RunError(
            f"{out}: nothing was trained to the end ({counts}{end}); `archsearch front {out} --all` says why"
        )
    return f"done: {counts}{end}; `archsearch front {out}` shows the front"


@contextmanager
def _watching(plan: Plan) -> Iterator[Report]:
    """A bar that counts epochs, those of earlier starts included, and a line for each candidate."""
    seen: dict[int, int] = {}
    with track(plan.most_epochs, "searching") as advance:

        def report(progress: Progress) -> None:
            for trial in progress.settled:
                if trial.duplicate_of is None and (trial.state in ("complete", "failed") or trial.published):
                    _say(_line(trial, plan))
            trained = [trial for trial in progress.settled if trial.duplicate_of is None]
            for number, line in progress.lines:
                _say(f"#{number} {line}")
            counts = {number: standing.epochs for number, standing in progress.running.items()}
            counts |= {trial.number: trial.epochs for trial in trained}
            new = sum(max(0, epochs - seen.get(number, 0)) for number, epochs in counts.items())
            seen.update(counts)
            rows = [_row(number, standing, plan.recipe.epochs) for number, standing in progress.running.items()]
            advance(new, rows, status="")

        for trial in plan.folder.settled():
            if trial.duplicate_of is None and trial.epochs:
                seen[trial.number] = trial.epochs
        advance(sum(seen.values()))
        yield report


def _row(number: int, standing: Standing, epochs: int) -> Row:
    """`#7 3/10`, and `loss 0.412 top1 0.812 10.0.0.7 pid 4711` so far."""
    known = {"loss": standing.last.get("val_loss"), "top1": standing.last.get("val_top1")}
    read = [f"{name} {value:.3f}" for name, value in known.items() if value is not None]
    return Row(f"#{number}", standing.epochs, epochs, " ".join([*read, standing.place or "waits"]))


def _line(trial: Settled, plan: Plan) -> str:
    """`#7 complete: top1 0.812, gmacs 0.121 (34 s) mc3_18 res3.conv=2d`"""
    if trial.state != "complete":
        return plain(f"#{trial.number} {trial.state}: {trial.reason}")
    measured = ", ".join(f"{name} {quantity(name, trial.metrics[name])}" for name in plan.space.objectives)
    name = f" {trial.published}" if trial.published else ""
    choices = choices_text(trial.params, list(trial.params))
    return f"#{trial.number} complete ({trial.seconds:.0f} s): {measured}{name} {choices}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
