"""One network of a front, and why: limits, the best, the knee, or what replaces a known design; and a thinner front.

Limits come first, over all networks that were trained to the end; the front is that of the networks within them. So a
limit on what is no objective may bring in networks that others dominate: these others are outside, and cannot be had.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from archsearch.errors import RunError
from archsearch.files import near_name
from archsearch.front.dominance import Floats, costs
from archsearch.front.hypervolume import hypervolume
from archsearch.front.results import Candidate, Results
from archsearch.spec.cost import METRICS
from archsearch.spec.latency import LATENCY

COSTS = frozenset({*METRICS, LATENCY})  # they span orders of magnitude: twice as much is as far at either end
MARGIN = 1.0  # in ranges of the front, beyond its worst: a straight front keeps its ends (Ishibuchi et al. 2018)


@dataclass(frozen=True)
class Bound:
    """A limit on a metric: at most, or at least, so much."""

    metric: str
    value: float
    most: bool

    def excess(self, candidate: Candidate) -> float:
        """How far a network is outside, as a share of the limit; 0 inside, infinite where the metric is unknown."""
        value = candidate.metrics.get(self.metric, math.nan)
        if math.isnan(value):
            return math.inf
        over = value - self.value if self.most else self.value - value
        return max(0.0, over / abs(self.value) if self.value else over)

    def __str__(self) -> str:
        return f"{self.metric} {'max' if self.most else 'min'} {self.value:g}"


@dataclass(frozen=True)
class Final:
    """What fresh seeds found of a network: means and spreads of so many trainings; none where all have failed."""

    trained: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    spread: Mapping[str, float] = field(default_factory=dict)  # standard deviations over seeds


Finals = Mapping[str, Final]  # by the hash of a candidate


@dataclass(frozen=True)
class Neighbour:
    """A network next to the chosen one: the limits it is outside of, and which differences may be chance."""

    candidate: Candidate
    outside: tuple[Bound, ...]
    noise: Mapping[str, bool]  # of the objectives that both have spreads of


@dataclass(frozen=True)
class Choice:
    """The network chosen, why, what is next to it, and the front it was chosen from, cheapest first."""

    chosen: Candidate
    why: str
    cheaper: Neighbour | None
    better: Neighbour | None
    members: tuple[Candidate, ...]


def choose(
    results: Results,
    bounds: Sequence[Bound] = (),
    finals: Finals | None = None,
    *,
    knee: bool = False,
    like: Candidate | None = None,
) -> Choice:
    """The network of the front within the limits that is best by the first objective, its knee, or as good as `like`.

    As good as `like`: the cheapest (by the objective that fronts are ordered by) among those at least as good in all
    other objectives. `finals` take the place of the search's values. Raises RunError where there is no front, where a
    limit is on no metric of the run, and, naming what is nearest, where nothing is within the limits.
    """
    finals = finals or {}
    _check(results, bounds)
    known = measured(results, finals)
    members = _front(results, known, bounds, finals)
    within = f" within {', '.join(map(str, bounds))}" if bounds else ""
    if not members:
        raise RunError(f"{results.run}: no network is{within}; {_nearest(known.complete(), bounds)}")
    front = f"{len(members)} on the front{within}"
    if like is not None:
        chosen, why = _replacing(known, members, like, front)
    elif knee:
        chosen, why = _knee(known, members, front)
    else:
        chosen, why = _best(known, members), f"the best {next(iter(results.objectives))} of {front}"
    whole = _front(results, known, (), finals)
    axes = (cost_axis(results), merit_axis(results))
    cheaper, better = (_next(known, (members, whole), chosen, axis, bounds, finals) for axis in axes)
    return Choice(chosen, why, cheaper, better, members)


def measured(results: Results, finals: Finals) -> Results:
    """The results with the means over fresh seeds where they are known; what failed under all of them has failed."""
    candidates = []
    for candidate in results.candidates:
        final = finals.get(candidate.hash)
        if final is not None and final.trained:
            candidate = replace(candidate, metrics={**candidate.metrics, **final.metrics})
        elif final is not None:
            candidate = replace(candidate, state="failed", reason="could not be trained again")
        candidates.append(candidate)
    return replace(results, candidates=tuple(candidates))


def _front(results: Results, known: Results, bounds: Sequence[Bound], finals: Finals) -> tuple[Candidate, ...]:
    """The front within the limits, cheapest first.

    Networks are compared by the search's values first, then by final means with those that have them: a seed that
    flattered what the search has left behind should not bring it back beside values that flatter nobody.
    """
    inside = {c.id: c for c in known.complete() if not any(bound.excess(c) for bound in bounds)}
    selected = tuple(candidate for candidate in results.candidates if candidate.id in inside)
    ids = {candidate.id for candidate in replace(results, candidates=selected).front()}
    again = tuple(c for c in inside.values() if c.id in ids or c.hash in finals)
    return replace(known, candidates=again).front()


def _check(results: Results, bounds: Sequence[Bound]) -> None:
    complete = results.complete()
    if not complete:
        raise RunError(f"{results.run}: has no front yet; `archsearch status` says how far it is")
    names = list(dict.fromkeys([*results.objectives, *(name for c in complete for name in c.metrics)]))
    for bound in bounds:
        if bound.metric not in names:
            near = near_name(bound.metric, names)
            raise RunError(f"{results.run}: no metric '{bound.metric}'{near}; there are: {', '.join(names)}")


def _nearest(candidates: Sequence[Candidate], bounds: Sequence[Bound]) -> str:
    """The network that breaks the limits least, by the one it breaks most."""
    best = min(candidates, key=lambda candidate: max(bound.excess(candidate) for bound in bounds))
    broken = [bound for bound in bounds if bound.excess(best)]
    if any(math.isinf(bound.excess(best)) for bound in broken):
        return "none has all of these metrics"
    texts = [f"{b.metric} {best.metrics[b.metric]:.4g}, {100 * b.excess(best):.3g} % outside {b}" for b in broken]
    return f"nearest is #{best.id} with {' and '.join(texts)}"


def cost_axis(results: Results) -> int:
    """The objective that fronts are ordered by: the last one to be minimised, else the last."""
    minimised = [index for index, more in enumerate(results.maximize) if not more]
    return minimised[-1] if minimised else len(results.objectives) - 1


def merit_axis(results: Results) -> int:
    """What is paid for: the first objective, or the second where the first is the cost."""
    axis = cost_axis(results)
    return 1 if axis == 0 and len(results.objectives) > 1 else 0


def _best(results: Results, members: Sequence[Candidate]) -> Candidate:
    """The best by the first objective; of equal ones the cheapest, which comes first."""
    return members[int(costs(results.values(members), results.maximize)[:, 0].argmin())]


def losses(results: Results, members: Sequence[Candidate]) -> Floats:
    """Every objective as a share of the members' range, 0 the best and 1 the worst: (members, objectives).

    Costs by their logarithm. An objective in which all are equal is 0.
    """
    values = costs(results.values(members), results.maximize)
    for index, name in enumerate(results.objectives):
        if name in COSTS and not results.maximize[index] and (values[:, index] > 0).all():
            values[:, index] = np.log(values[:, index])
    finite = np.isfinite(values)
    low, high = values.min(axis=0, where=finite, initial=np.inf), values.max(axis=0, where=finite, initial=-np.inf)
    differ = high > low
    shares: Floats = np.clip((values - np.where(differ, low, 0)) / np.where(differ, high - low, 1), 0, 1) * differ
    return shares


def _knee(results: Results, members: Sequence[Candidate], front: str) -> tuple[Candidate, str]:
    """The member farthest from the line through the ends of the front, towards the best of both (Das 1999).

    In losses between 0 and 1 that line is where they add up to 1, so the knee is where their sum is least: a small gain
    in one objective would cost much of the other (Branke et al. 2004). With more objectives the sum stands for the
    plane through the points that are worst in one objective alone. Where no member of two objectives is on the near
    side of the line, nothing stands out, and the best by the first objective is chosen.
    """
    sums = losses(results, members).sum(axis=1)
    first = next(iter(results.objectives))
    flat = sums.min() >= 1 - 1e-9 and len(results.objectives) == 2
    if flat or len(np.unique(results.values(members), axis=0)) < 3:
        return _best(results, members), f"the best {first}, since nothing stands out of {front}"
    return members[int(sums.argmin())], f"the knee of {front}"


def _replacing(results: Results, members: Sequence[Candidate], like: Candidate, front: str) -> tuple[Candidate, str]:
    """The cheapest member that is at least as good as a network in all objectives but the cost."""
    target = next((c for c in results.complete() if c.id == like.id), None)
    name = like.published or f"#{like.id}"
    if target is None:
        own = next((c for c in results.candidates if c.id == like.id), like)
        reason = f": {own.reason}" if own.reason else ""
        raise RunError(f"{results.run}: {name} is no measure for others, since it is {own.state}{reason}")
    names = list(results.objectives)
    cost = names.pop(cost_axis(results))
    bounds = [Bound(each, target.metrics[each], results.objectives[each] == "minimize") for each in names]
    good = [member for member in members if not any(bound.excess(member) for bound in bounds)]
    if not good:
        wanted = ", ".join(map(str, bounds))
        raise RunError(f"{results.run}: none of {front} is as good as {name} ({wanted}); {_nearest(members, bounds)}")
    wanted = " and ".join(f"{bound.metric} of {bound.value:.4g}" for bound in bounds)
    return good[0], f"the cheapest by {cost} of {front} with {name}'s {wanted} or better" if wanted else f"as {name}"


def _next(
    results: Results,
    fronts: tuple[Sequence[Candidate], Sequence[Candidate]],
    chosen: Candidate,
    axis: int,
    bounds: Sequence[Bound],
    finals: Finals,
) -> Neighbour | None:
    """The member that is next better in one objective, within the limits or, if there is none, on the whole front."""
    other = merit_axis(results) if axis == cost_axis(results) else cost_axis(results)
    own = costs(results.values([chosen]), results.maximize)[0]
    for members in fronts:
        values = costs(results.values(members), results.maximize)
        below = [index for index in range(len(members)) if values[index, axis] < own[axis]]
        if below:
            found = members[max(below, key=lambda index: (values[index, axis], -values[index, other]))]
            outside = tuple(bound for bound in bounds if bound.excess(found))
            return Neighbour(found, outside, noise(results, chosen, found, finals))
    return None


def noise(results: Results, one: Candidate, other: Candidate, finals: Finals) -> dict[str, bool]:
    """Whether two networks differ by no more than chance would have it, for each objective with two spreads.

    Two means over seeds, by Student's t at 95 % with the spread of each; a spread is of two seeds at least.
    """
    a, b = finals.get(one.hash), finals.get(other.hash)
    if a is None or b is None or min(a.trained, b.trained) < 2:
        return {}
    quantile = _student(a.trained + b.trained - 2)
    return {
        name: abs(a.metrics[name] - b.metrics[name])
        <= quantile * math.sqrt(a.spread[name] ** 2 / a.trained + b.spread[name] ** 2 / b.trained)
        for name in results.objectives
        if name in a.spread and name in b.spread
    }


def _student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, 3 % low at 2 degrees of freedom (Abramowitz & Stegun 26.7.5)."""
    z = 1.959964
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + math.fsum(term / float(freedom) ** power for power, term in enumerate(terms, start=1))


def thin(results: Results, members: Sequence[Candidate], count: int, keep: Candidate) -> tuple[Candidate, ...]:
    """`count` members of a front that dominate the most together, `keep` always among them; in the order of the front.

    The volume is that of `losses`, up to `MARGIN` beyond the worst. Exact for two objectives, by dynamic programming
    (Auger et al. 2009); for more the member that adds most is added each time, which is at least 63 % of what the best
    ones add (Nemhauser et al. 1978). Of equal members one is taken.
    """
    points = losses(results, members)
    place = next(index for index, member in enumerate(members) if member.id == keep.id)
    _, first, group = np.unique(points, axis=0, return_index=True, return_inverse=True)
    group = group.reshape(-1)
    first[group[place]] = place
    distinct, kept = points[first], int(group[place])
    best = _best_of_two if distinct.shape[1] == 2 else _greedy
    taken = best(distinct, min(count, len(distinct)), kept)
    return tuple(members[index] for index in sorted(int(first[number]) for number in taken))


def volume(points: Floats) -> float:
    """What points (n, objectives) of `losses` dominate."""
    sides = points.shape[1]
    return hypervolume(points, [False] * sides, np.full(sides, 1 + MARGIN))


def _best_of_two(points: Floats, count: int, keep: int) -> list[int]:
    """The subset with the most volume, of points (n, 2) that rise in the first loss and fall in the second.

    `gain[p, i]` is what point i adds when p - 1 is the one before it, or none for p = 0: a strip from i to the limit.
    No step may pass over `keep`.
    """
    limit, place = 1 + MARGIN, np.arange(len(points))
    tops = np.concatenate([[limit], points[:, 1]])
    gain = (limit - points[:, 0]) * (tops[:, None] - points[:, 1])
    before = np.arange(-1, len(points))[:, None]
    gain[(before >= place) | ((before < keep) & (place > keep))] = -np.inf
    reached, steps = gain[0], []
    for _ in range(count - 1):
        ways = reached[:, None] + gain[1:]
        steps.append(ways.argmax(axis=0))
        reached = ways.max(axis=0)
    taken = [keep + int(reached[keep:].argmax())]
    for step in reversed(steps):
        taken.append(int(step[taken[-1]]))
    return taken


def _greedy(points: Floats, count: int, keep: int) -> list[int]:
    taken = [keep]
    while len(taken) < count:
        rest = [index for index in range(len(points)) if index not in taken]
        taken.append(max(rest, key=lambda index: volume(points[[*taken, index]])))
    return taken
