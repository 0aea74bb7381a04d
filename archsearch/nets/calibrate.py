"""A latency table of a space: the sites of its networks measured once each, and fitted to whole networks.

Each time is that of the fastest run: on a busy machine it repeats to a few percent where medians do not. Networks that
the fit has not seen say how far predictions are off.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from archsearch.errors import SpaceError, SpecError
from archsearch.front.dominance import Floats
from archsearch.nets.build import build, build_graph, initialise
from archsearch.nets.latency import WARM_UP, Report, interleaved, load
from archsearch.nets.runners import Run, machine, runner, threads
from archsearch.space.space import Space
from archsearch.spec.cost import FLOAT_BYTES, total_cost
from archsearch.spec.latency import VERSION, Errors, Setting, SiteTime, Table, predict
from archsearch.spec.sites import Site, sites
from archsearch.spec.spec import Spec, digest, lower

DRAWN = 2000  # combinations at most whose sites are looked for
SITES = 1000  # measured at most, the most frequent; predictions of the others are interpolated
GROUP_BYTES = 2**31  # of the inputs and weights that are held at once and run in turn


class Drawn(NamedTuple):
    """What was found in a space: its sites by how many networks have them, and networks to measure whole."""

    sites: Mapping[Site, int]
    networks: tuple[Spec, ...]


def calibrate(
    space: Space, setting: Setting, rounds: int = 20, networks: int = 24, report: Report = lambda *_: None
) -> Table:
    """Measures a space's sites, and `networks` of its networks: half of them to fit on, the others to judge by.

    Raises SpaceError for a space of fewer than four networks, and what `archsearch.nets.runners.runner` raises.
    """
    drawn = draw(space, networks)
    if len(drawn.networks) < 4:
        raise SpaceError(f"{space.name}: has {len(drawn.networks)} networks; a latency table needs four or more")
    chosen = sorted(drawn.sites, key=lambda site: -drawn.sites[site])[:SITES]
    processor, software = machine(setting)
    with threads(setting.threads):
        best = _best([*chosen, *drawn.networks], setting, rounds, report)
    times = {
        site.key: SiteTime(ms=ms, kind=site.kind, features=site.features)
        for site, ms in zip(chosen, best, strict=False)
    }
    table = Table(
        version=VERSION, space=space.name, setting=setting, processor=processor, software=software, load=load(),
        rounds=rounds, constant_ms=0, scale=1, sites=times,
    )  # fmt: skip
    return _fitted(table, drawn.networks, np.array(best[len(chosen) :]))


def draw(space: Space, networks: int) -> Drawn:
    """The sites of up to 2,000 combinations, and so many distinct networks, always the same ones."""
    every = space.size <= DRAWN
    found: Counter[Site] = Counter()
    distinct: dict[str, Spec] = {}
    for positions in space.all_positions() if every else space.sample_positions(DRAWN):
        try:
            spec = space.spec_at(positions)
            graph = lower(spec)
        except SpecError:
            continue
        found.update(set(sites(graph)))
        distinct.setdefault(digest(graph), spec)
    order = np.random.default_rng(0).permutation(len(distinct))[:networks]
    known = list(distinct.values())
    return Drawn(found, tuple(known[place] for place in order))


def _best(subjects: Sequence[Site | Spec], setting: Setting, rounds: int, report: Report) -> list[float]:
    """Milliseconds of the fastest run of each; what fits into memory together runs in turn."""
    groups = [*_groups(subjects, setting.batch)]
    total, best = (WARM_UP + rounds) * len(subjects), []
    done = 0
    for group in groups:
        runs = {str(place): _runner(subject, setting) for place, subject in enumerate(group)}
        times = interleaved(runs, rounds, partial(_count, report, done, len(group), total))
        done += (WARM_UP + rounds) * len(group)
        best += [min(ms) for ms in times.values()]
    return best


def _count(report: Report, before: int, size: int, total: int, number: int, _: int) -> None:
    """Reports runs of all groups, for so many rounds of one of them."""
    report(before + number * size, total)


def _groups(subjects: Sequence[Site | Spec], batch: int) -> Iterator[list[Site | Spec]]:
    """Subjects in order, in groups of bounded memory."""
    group: list[Site | Spec] = []
    held = 0
    for subject in subjects:
        size = _held_bytes(subject, batch)
        if group and held + size > GROUP_BYTES:
            yield group
            group, held = [], 0
        group.append(subject)
        held += size
    yield group


def _held_bytes(subject: Site | Spec, batch: int) -> int:
    """Inputs and weights, roughly: of a site, all it moves is more than these."""
    if isinstance(subject, Site):
        return FLOAT_BYTES * batch * sum(size.elements for size in subject.reads) + subject.features[1]
    inputs = batch * sum(size.elements for size in subject.inputs.values())
    return FLOAT_BYTES * (inputs + total_cost(lower(subject)).params)


def _runner(subject: Site | Spec, setting: Setting) -> Run:
    if isinstance(subject, Spec):
        return runner(build(subject, seed=0), [*subject.inputs.values()], setting)
    net = build_graph(subject.graph)
    initialise(net)
    return runner(net, subject.reads, setting, lower=not subject.clip)


def _fitted(table: Table, networks: Sequence[Spec], best_ms: Floats) -> Table:
    """The table with constant and scale of every other network, and the errors of the rest."""
    plain = [predict(table, lower(spec)) for spec in networks]
    sums = np.array([prediction.ms for prediction in plain])
    constant, scale = fit(sums[::2], best_ms[::2])
    error = np.abs((constant + scale * sums[1::2]) / best_ms[1::2] - 1)
    held_out = Errors(
        networks=len(error), median=round(float(np.median(error)), 4), max=round(float(error.max()), 4),
        interpolated=round(float(np.mean([prediction.interpolated for prediction in plain[1::2]])), 4),
    )  # fmt: skip
    return table.model_copy(update={"constant_ms": constant, "scale": scale, "held_out": held_out})


def fit(sums: Floats, measured: Floats) -> tuple[float, float]:
    """The constant (0 or more) and the scale of sums with the least squared relative errors."""
    ratio = sums / measured
    (constant, scale), *_ = np.linalg.lstsq(np.stack([1 / measured, ratio], axis=1), np.ones(len(ratio)))
    if constant < 0 or scale <= 0:  # noise, where networks are tiny
        constant, scale = 0.0, ratio.sum() / (ratio**2).sum()
    return float(constant), float(scale)
