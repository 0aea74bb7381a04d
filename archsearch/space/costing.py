"""What the combinations of a space cost, by the million: each distinct stage is counted once, the rest is sums.

A stage's cost and output are a function of its record and the sizes it reads. So, stage by stage, combinations that
agree in both make a group; one of each group is counted, and the whole group gets the result.
"""

import itertools
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from archsearch.errors import SpecError
from archsearch.space.choices import Settings, assign
from archsearch.space.space import Limit, Space
from archsearch.spec.cost import METRICS
from archsearch.spec.graph import Size
from archsearch.spec.kept import stage_result
from archsearch.spec.spec import Spec, lower, reads_of

CHUNK = 2**14  # combinations at once: few enough for a processor's cache
SUMMED = tuple(name for name in METRICS if name != "memory_mb")  # what the stages' results add up to
FIRST = ""  # the first input of a clip, whatever its name
DENSE = 8  # codes to a row up to which groups are found in a table

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Result = tuple[int, int, int, int]  # the number of the size that a stage gives, its macs, params and activations
NO_SIZE = 0  # the number of the size that an impossible stage gives
IMPOSSIBLE: Result = (NO_SIZE, 0, 0, 0)


@dataclass(frozen=True)
class Costs:
    """macs (batch 1), params and activations (elements) of combinations: (combinations) each.

    NaN where choices contradict each other. Floats neither wrap around nor, below 2**53, round.
    """

    macs: Floats
    params: Floats
    activations: Floats

    @property
    def valid(self) -> Bools:
        """Which combinations are networks: (combinations)."""
        return ~np.isnan(self.macs)


def chunks(space: Space, size: int = CHUNK) -> Iterator[Ints]:
    """Every combination in the order of `all_positions`, as option positions (at most `size`, parameters)."""
    counts = [len(parameter.options) for parameter in space.parameters]
    for start in range(0, space.size, size):
        rest = np.arange(start, min(start + size, space.size), dtype=np.intp)
        columns = np.empty((len(counts), len(rest)), dtype=np.intp)
        for place, count in reversed([*enumerate(counts)]):
            higher = rest // count
            columns[place] = rest - higher * count
            rest = higher
        yield columns.T


def samples(space: Space, count: int, size: int = CHUNK) -> Iterator[Ints]:
    """As many random combinations, always the same ones: option positions (at most `size`, parameters) at a time."""
    drawn = space.sample_positions(count)
    while rows := list(itertools.islice(drawn, size)):
        yield np.array(rows, dtype=np.intp)


def within_limits(space: Space, positions: Ints, costs: Costs) -> Bools:
    """Which combinations are networks within all limits: (combinations).

    What is no sum over stages (`memory_mb`, `latency_ms`): where it is limited, what passes the other limits is lowered
    one by one.
    """
    inside = costs.valid
    values = dict(zip(SUMMED, (costs.macs / 1e9, costs.params, costs.activations), strict=True))
    for name in space.limits.keys() & values.keys():
        inside &= _between(space.limits[name], values[name])
    others = space.limits.keys() - values.keys()
    for place in np.flatnonzero(inside) if others else ():
        inside[place] = _within(space, tuple(positions[place].tolist()), others)
    return inside


def _within(space: Space, positions: tuple[int, ...], names: Set[str]) -> bool:
    """Whether a network is within some limits; not where a table cannot tell its latency."""
    try:
        known = space.metrics(lower(space.spec_at(positions)))
    except SpecError:
        return False
    return all(space.limits[name].excess(known[name]) <= 0 for name in names)


def _between(limit: Limit, values: Floats) -> Bools:
    above, below = values >= (limit.min or 0.0), values <= (limit.max or np.inf)
    return np.asarray(above & below)


class Coster:
    """Costs combinations of one space, and keeps what it has counted from call to call."""

    def __init__(self, space: Space) -> None:
        self._same = space.base.padding == "same"
        self._sizes: list[Size | None] = [None]  # all that a stage reads or gives, by number
        self._numbers: dict[Size | None, int] = {None: NO_SIZE}
        self._clip = _Part(space, "")
        self._parts = [_Part(space, stage.name) for stage in space.base.stages]
        self._results: list[dict[tuple[int, ...], Result]] = [{} for _ in self._parts]

    def costs(self, positions: Ints) -> Costs:
        """The costs of combinations, given as option positions (combinations, parameters)."""
        totals = np.zeros((len(SUMMED), len(positions)))
        possible = np.ones(len(positions), dtype=bool)
        outputs = self._inputs(positions)  # the numbers of sizes (combinations), by stage
        missing = np.full(len(positions), NO_SIZE)  # an input that some option of a clip does not have
        previous = FIRST
        for part, known in zip(self._parts, self._results, strict=True):
            reads = [outputs.get(name, missing) for name in reads_of(part.base.stages[0], previous)]
            columns = [*part.variants(positions), *reads]
            ones, groups = _groups(columns, len(positions))
            keys = _rows(columns, ones)
            known |= {key: self._count(part, key) for key in keys if key not in known}
            table = np.array([known[key] for key in keys], dtype=np.float64).reshape(-1, len(IMPOSSIBLE))
            previous = part.base.stages[0].name
            outputs[previous] = table[:, 0].astype(np.intp)[groups]
            possible &= outputs[previous] != NO_SIZE
            for total, values in zip(totals, table[:, 1:].T, strict=True):
                total += values[groups]
        totals[:, ~possible] = np.nan
        return Costs(*totals)

    def _inputs(self, positions: Ints) -> dict[str, Ints]:
        """The numbers of the inputs' sizes (combinations), by name."""
        variants = self._clip.variants(positions)
        ones, groups = _groups(variants, len(positions))
        clips = [self._clip.spec(chosen).inputs for chosen in _rows(variants, ones)]
        sizes = {name: [clip.get(name) for clip in clips] for clip in clips for name in clip}
        sizes[FIRST] = [next(iter(clip.values())) for clip in clips]
        return {name: np.array([self._number(size) for size in found])[groups] for name, found in sizes.items()}

    def _count(self, part: "_Part", key: tuple[int, ...]) -> Result:
        """What a stage gives and costs; `key` is its variants, then the numbers of the sizes it reads."""
        numbers = key[part.width :]
        reads = tuple(size for size in (self._sizes[number] for number in numbers) if size)
        if len(reads) < len(numbers):  # what it reads cannot be
            return IMPOSSIBLE
        try:
            size, cost = stage_result(part.spec(key[: part.width]).stages[0], reads, self._same)
        except (ValidationError, SpecError):
            return IMPOSSIBLE
        return self._number(size), cost.macs, cost.params, cost.activations

    def _number(self, size: Size | None) -> int:
        if size not in self._numbers:
            self._numbers[size] = len(self._sizes)
            self._sizes.append(size)
        return self._numbers[size]


class _Part:
    """What may vary in one stage, or in the clip (""), and only what differs there.

    A prefix over ten stages has eleven options, of which one stage sees two.
    """

    def __init__(self, space: Space, name: str) -> None:
        stages = tuple(stage for stage in space.base.stages if stage.name == name)
        self.base = space.base.model_copy(update={"stages": stages})
        self._columns: list[tuple[int, Ints]] = []  # a parameter's place, and which variant each option is
        self._variants: list[list[Settings]] = []
        self._specs: dict[tuple[int, ...], Spec] = {}
        for place, parameter in enumerate(space.parameters):
            own = [{target: value for target, value in s.items() if target[0] == name} for s in parameter.settings]
            if any(own):
                distinct = {repr(settings): settings for settings in own}
                numbers = {text: number for number, text in enumerate(distinct)}
                self._columns.append((place, np.array([numbers[repr(settings)] for settings in own])))
                self._variants.append([*distinct.values()])

    @property
    def width(self) -> int:
        """How many parameters matter here."""
        return len(self._columns)

    def variants(self, positions: Ints) -> list[Ints]:
        """Of each parameter that matters here, the variant that is chosen: (combinations) each."""
        return [variant_of[positions[:, place]] for place, variant_of in self._columns]

    def spec(self, chosen: tuple[int, ...]) -> Spec:
        """The stage, alone in a spec, with the chosen variants. Raises pydantic's ValidationError."""
        if chosen not in self._specs:
            settings: Settings = {}
            for variants, number in zip(self._variants, chosen, strict=True):
                settings |= variants[number]
            self._specs[chosen] = assign(self.base, settings)
        return self._specs[chosen]


def _rows(columns: Sequence[Ints], places: Ints) -> list[tuple[int, ...]]:
    """The rows at some places (n): n tuples of one number from each column."""
    picked = np.array([column[places] for column in columns], dtype=np.intp).reshape(len(columns), len(places))
    return [tuple(row) for row in picked.T.tolist()]


def _groups(columns: Sequence[Ints], count: int) -> tuple[Ints, Ints]:
    """Groups of rows that agree in all columns (count): the place of one row of each, and the group of each row."""
    codes, span = np.zeros(count, dtype=np.intp), 1
    for column in columns:
        width = int(column.max(initial=0)) + 1
        if span * width > 2**62:
            codes = np.unique(codes, return_inverse=True)[1]
            span = count
        codes, span = codes * width + column, span * width
    if span > DENSE * count:
        _, ones, groups = np.unique(codes, return_index=True, return_inverse=True)
        return ones, groups
    seat = np.full(span, -1)  # a table of all codes is faster than sorting
    seat[codes] = np.arange(count)
    taken = np.flatnonzero(seat >= 0)
    ones = seat[taken]
    seat[taken] = np.arange(len(taken))
    return ones, seat[codes]
