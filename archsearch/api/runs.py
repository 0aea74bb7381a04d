"""Searches: a new one, one that goes on, and what a run has found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType

from archsearch.api.given import ExecutorName, Network, Place, crew_of, heard, recipe_of
from archsearch.api.shown import Drawn, Shown, as_html, as_text, facts_table, lines_text
from archsearch.errors import RunError
from archsearch.front.results import Results
from archsearch.spec.spec import Spec

if TYPE_CHECKING:
    from rich.table import Table

    from archsearch.front.choose import Bound
    from archsearch.search.executors import RayOptions
    from archsearch.training.recipe import Recipe


@dataclass(frozen=True, eq=False, repr=False)
class Chosen(Shown):
    """One network of a front: `data` as `archsearch choose --json` has it, with `chosen`, `why` and its neighbours.

    `shared`: its values were read off shared weights, and `finalize` trains it. `lines` say what `data` says, and
    `representatives` is the table of those that `thin` asked for.
    """

    shared: bool
    lines: tuple[str, ...]
    representatives: "Table | None"

    @property
    def folder(self) -> str:
        """Where its spec, recipe, labels and, in a run that kept them, weights lie; `train` and `surgery` take it."""
        return str(self.data["folder"])


@dataclass(frozen=True, repr=False)
class Run:
    """A run folder, a path or a URL. It is read anew by every method, so a search may be under way.

    >>> run = archsearch.load_run("runs/utd_mhad_depth")
    >>> run.choose(knee=True, at_most={"gmacs": 0.1})["chosen"]["id"]
    25
    """

    place: str

    def __repr__(self) -> str:
        return as_text(self._table())

    def _repr_html_(self) -> str:
        return as_html(self._table())

    def _table(self) -> RenderableType:
        return Group(self.status()._table(), self.front()._table())

    @property
    def results(self) -> Results:
        """Every candidate with its choices, metrics, state; plain records. Raises RunError."""
        from archsearch.search.results import read_results

        return read_results(self.place)

    def status(self) -> Shown:
        """How far it is: `trials` by state, `epochs`, `seconds` of workers, `hypervolume` (0 to 1). Raises RunError."""
        from archsearch.search.results import read_status

        data = read_status(self.place)
        return Shown(data, partial(facts_table, data))

    def front(self, all_candidates: bool = False) -> Drawn:
        """The Pareto front, cheapest first, below it the published designs, or all candidates. Raises RunError.

        `data` has `candidates`, `front` (their ids), `published` (name to id) and `objectives`. `plot` draws every
        complete candidate; its Figure can be saved or drawn into.
        """
        from archsearch.report.figures import front_figure
        from archsearch.report.front import front_table

        results = self.results
        return Drawn(results.as_json(), partial(front_table, results, all_candidates), partial(front_figure, results))

    def choose(
        self,
        *,
        at_most: Mapping[str, float] | None = None,
        at_least: Mapping[str, float] | None = None,
        knee: bool = False,
        like: Network | None = None,
        thin: int | None = None,
    ) -> Chosen:
        """One network of the front within limits on metrics, and why: the best by the first objective.

        Or, with `knee`, where the front bends most; or the cheapest that is as good as the network `like`, a
        preset, a file or a candidate's folder that was tried. `thin` adds so many networks that stand for the front,
        as `data["representatives"]`. Means over fresh seeds, where `finalize` was run, take the place of the
        search's values. Raises RunError where nothing is within the limits, naming what is nearest.
        """
        from archsearch.front.choose import Bound

        if knee and like is not None:
            raise RunError("choose: give one of knee and like")
        if isinstance(like, Spec):
            raise RunError("choose: like: give a name, a file or a folder, not a spec")
        bounds = [Bound(name, value, True) for name, value in (at_most or {}).items()]
        bounds += [Bound(name, value, False) for name, value in (at_least or {}).items()]
        return choose_within(self.place, bounds, knee=knee, like=None if like is None else str(like), thin=thin)

    def finalize(
        self,
        data: Place,
        *,
        seeds: int = 3,
        only: Sequence[str] = (),
        inherit: bool = False,
        workers: int = 2,
        executor: ExecutorName = "processes",
        ray: "RayOptions | None" = None,
        progress: bool = True,
    ) -> Shown:
        """Trains the front and the published designs again with fresh seeds, and scores them on `test`, once.

        `only` names networks by number, published name or hash instead; with `inherit` they begin with their
        candidates' weights. `data["candidates"]` has means, `spread` and `test_interval` (95 %), `data["models"]` the
        model folders by name. The same call goes on after an interruption. Raises RunError, DataError, TrainingError.
        """
        from archsearch.report.final import final_table, finalize_with_progress

        crew = crew_of(executor, workers, ray)
        with heard(progress):
            found = finalize_with_progress(self.place, Path(data), seeds, crew, only, inherit)
        return Shown(found, partial(final_table, found))

    def report(self, out: Place | None = None, markdown: Place | None = None) -> list[Path]:
        """Writes the run as one page that opens from disk, and as Markdown if asked; gives the files.

        `out` is by default report.html in the run folder; with `markdown` alone no page is written. Raises RunError,
        and MissingExtra where plotly is not installed.
        """
        written: list[Path] = []
        if out is not None or markdown is None:
            from archsearch.report.page import page_place, write_page

            written.append(page_place(self.place) if out is None else Path(out))
            write_page(self.place, written[0])
        if markdown is not None:
            from archsearch.report.page_markdown import write_markdown

            written += write_markdown(self.place, Path(markdown))
        return written


def choose_within(
    place: str, bounds: "Sequence[Bound]", *, knee: bool = False, like: str | None = None, thin: int | None = None
) -> Chosen:
    """What `Run.choose` gives, within any number of limits."""
    from archsearch.front.choose import choose, measured
    from archsearch.front.choose import thin as thinned
    from archsearch.report.choose import choice_json, choice_lines, find_tried, read_finals, representatives_table
    from archsearch.search.results import is_shared, read_results

    results, finals = read_results(place), read_finals(place)
    target = None if like is None else find_tried(place, results, like)
    choice = choose(results, bounds, finals, knee=knee, like=target)
    known = measured(results, finals)
    few = None if thin is None else thinned(known, choice.members, thin, choice.chosen)
    lines = choice_lines(place, known, choice, finals, [bound.metric for bound in bounds])
    table = None if few is None else representatives_table(known, few, len(choice.members), choice.chosen)
    return Chosen(
        choice_json(place, known, choice, finals, few),
        lambda: lines_text(lines) if table is None else Group(lines_text(lines), table),
        shared=is_shared(place) and choice.chosen.hash not in finals,
        lines=tuple(lines),
        representatives=table,
    )


def load_run(run: Place) -> Run:
    """The run in a folder or at a URL. Raises RunError for one that is no run.

    >>> archsearch.load_run("runs/utd_mhad_depth").front()["front"]
    [19, 18, 25, 2]
    """
    found = Run(str(run))
    _ = found.results
    return found


def search(
    space: Place,
    data: Place,
    *,
    out: Place,
    recipe: "Recipe | Mapping[str, Any] | Place | None" = None,
    trials: int | None = None,
    sampler: str | None = None,
    workers: int = 2,
    executor: ExecutorName = "processes",
    ray: "RayOptions | None" = None,
    progress: bool = True,
) -> Run:
    """Searches a space on a data set into the run folder `out`; the same call goes on after an interruption.

    `space` is a YAML file, `data` a folder of lists or of class folders, `recipe` a file, its fields, or a Recipe.
    `trials` and `sampler` stand instead of the space's; `workers` candidates train at once, in processes of this
    machine, one after another in this process (`serial`), or on a Ray cluster. Raises SpaceError, RecipeError,
    DataError, and RunError for a folder of another search or where nothing could be trained.

    >>> archsearch.search("search_spaces/demo.yaml", "clips", out="run", recipe={"epochs": 8}).front().plot("front.png")
    """
    from archsearch.report.search import search_with_progress
    from archsearch.search.launch import Wish

    crew = crew_of(executor, workers, ray)
    with heard(progress):
        wish = Wish(trials, sampler)
        search_with_progress(Path(space), Path(data), str(out), recipe_of(recipe), wish, crew)
    return load_run(out)
