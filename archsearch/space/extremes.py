"""The ends of a space, and few networks of it that together have every tensor that any of them has."""

from collections.abc import Iterator
from itertools import combinations, product

from archsearch.errors import SpaceError, SpecError
from archsearch.space.space import Space
from archsearch.spec.cost import total_cost
from archsearch.spec.graph import Conv, parts
from archsearch.spec.spec import Spec, lower

WHOLE = 512  # networks up to which all of a space are looked at
Positions = tuple[int, ...]


def largest(space: Space) -> Spec:
    """Every choice at the option with the most kernels over space and time at once, then with the most parameters.

    Raises SpaceError where no network of the space can be.
    """
    return space.spec_at(_end(space, 1))


def smallest(space: Space) -> Spec:
    """Every choice at the option with the fewest of those. Raises SpaceError as `largest` does."""
    return space.spec_at(_end(space, -1))


def cover(space: Space) -> Iterator[Spec]:
    """All networks of a small space; else the largest with every pair of choices at every pair of options.

    What a network has depends on two choices at most (a shortcut, on the widths on both sides of it).
    """
    for positions in space.all_positions() if space.size <= WHOLE else _pairs(space):
        try:
            spec = space.spec_at(positions)
            lower(spec)
        except SpecError:
            continue
        yield spec


def _pairs(space: Space) -> Iterator[Positions]:
    base = _end(space, 1)
    options = [range(len(parameter.options)) for parameter in space.parameters]
    yield base
    for a, b in combinations(range(len(base)), 2):
        for at_a, at_b in product(options[a], options[b]):
            yield tuple({a: at_a, b: at_b}.get(place, own) for place, own in enumerate(base))


def _end(space: Space, sign: int) -> Positions:
    """Choice by choice, the others as they are by then."""
    found = _any(space)
    for place, parameter in enumerate(space.parameters):
        options = [(*found[:place], option, *found[place + 1 :]) for option in range(len(parameter.options))]
        weighed = [(weight, positions) for positions in options if (weight := _weight(space, positions))]
        found = max(weighed, key=lambda pair: tuple(sign * part for part in pair[0]))[1]
    return found


def _any(space: Space) -> Positions:
    """The first combination there is that can be."""
    for positions in space.all_positions() if space.size <= WHOLE else space.sample_positions(WHOLE):
        if _weight(space, positions):
            return positions
    raise SpaceError(f"{space.name}: none of {WHOLE} combinations of choices is a network")


def _weight(space: Space, positions: Positions) -> tuple[int, int] | None:
    """Kernels over space and time at once, and parameters; None for what cannot be."""
    try:
        graph = lower(space.spec_at(positions))
    except SpecError:
        return None
    sites = [(node.op, graph.input_sizes(node)[0].c) for node in graph.nodes.values() if isinstance(node.op, Conv)]
    kernels = [part.kernel for op, c_in in sites for part in parts(op, c_in)]
    return sum(t > 1 and h * w > 1 for t, h, w in kernels), total_cost(graph).params
