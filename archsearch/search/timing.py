"""Measured latency in a search: the driver times new candidates itself, at moments when none of the search trains.

candidates/<hash>/latency.json keeps what came out, so that a search that goes on does not measure again.
"""

from dataclasses import asdict, replace

from archsearch.errors import SpecError
from archsearch.files import parse_yaml
from archsearch.nets.latency import measure
from archsearch.nets.runners import machine
from archsearch.search.executors import Outcome
from archsearch.search.executors.base import one_line
from archsearch.search.state import Search
from archsearch.space.latency import Timing
from archsearch.spec.latency import LATENCY, Setting
from archsearch.spec.spec import parse_spec
from archsearch.store import read_json, write_json

FILE = "latency.json"


def waits(search: Search, name: str) -> bool:
    """Whether a new candidate has to be timed before it trains; then it waits for its turn."""
    if not isinstance(search.plan.space.latency, Timing):
        return False
    known = read_json(search.plan.folder.candidate(name), FILE)
    if known is not None:
        _note(search, name, known[LATENCY])
        return False
    search.entrants[name].under_way = True
    search.untimed.append(name)
    return True


def time_waiting(search: Search) -> list[str]:
    """Times all candidates that wait, in turn, unless one of the search trains; those that may train now.

    One that cannot be timed fails. Raises ArchsearchError where the space's device is not there.
    """
    if not search.untimed or search.training:
        return []
    names, search.untimed = search.untimed, []
    return names if _time(search, names) else [name for name in names if _time(search, [name])]


def _time(search: Search, names: list[str]) -> bool:
    """Times candidates by turns; whether all of them can run here. One alone that cannot fails."""
    timing = search.plan.space.latency
    assert isinstance(timing, Timing)
    setting = Setting(**timing.model_dump(exclude={"rounds"}))
    processor, software = machine(setting)
    specs = {
        name: parse_spec(parse_yaml(search.entrants[name].spec, "candidate", SpecError), "candidate") for name in names
    }
    try:
        found = measure(specs, setting, timing.rounds)
    except (RuntimeError, MemoryError) as error:
        if len(names) == 1:
            search.answers.append(Outcome(names[0], None, one_line(f"latency: {type(error).__name__}: {error}")))
        return False
    for name, latency in found.items():
        facts = {LATENCY: latency.median_ms, **asdict(latency), "together": len(names), "rounds": timing.rounds}
        facts |= {"setting": setting.model_dump(mode="json"), "processor": processor, "software": software}
        write_json(search.plan.folder.candidate(name), FILE, facts)
        _note(search, name, latency.median_ms)
    return True


def _note(search: Search, name: str, latency_ms: float) -> None:
    """Enters a candidate's latency among what is known of it."""
    trials = search.entrants[name].trials
    asked, trial = trials[0]
    trials[0] = replace(asked, cost={**asked.cost, LATENCY: latency_ms}), trial
