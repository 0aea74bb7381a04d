"""How a space knows the latency of its networks: predicted by a table, or measured by the search."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archsearch.errors import RunError
from archsearch.files import read_record
from archsearch.spec.fields import Positive
from archsearch.spec.graph import Graph
from archsearch.spec.latency import LATENCY, Setting, Table, predict, read_table

SAID_FROM = 0.01  # the interpolated share of a prediction from which on it is said


class Timing(Setting):
    """Latency is measured: under this setting, the median of so many runs of each network."""

    rounds: Positive = 20


def read_latency(data: Any, where: str, folder: Path, faults: list[str]) -> Table | Timing | None:
    """What a space says of latency: `{table: FILE}`, whose setting other fields may insist on, or a setting itself."""
    if not (isinstance(data, dict) and "table" in data):
        return None if data is None else read_record(Timing, data, where, faults)
    expected = {name: value for name, value in data.items() if name != "table"}
    if read_record(Setting, expected, where, faults) is None:
        return None
    try:
        return read_table(folder / str(data["table"]), **expected)
    except RunError as error:
        faults += [f"{where}: {line}" for line in error.lines]
        return None


def predicted(latency: Table | Timing | None, graph: Graph) -> Mapping[str, float]:
    """`latency_ms` of a network, where there is a table, and which share of it is interpolated, where that is much.

    Raises SpecError for a network that the table cannot tell anything of.
    """
    if not isinstance(latency, Table):
        return {}
    ms, interpolated = predict(latency, graph)
    return {LATENCY: ms} | ({"latency_interpolated": interpolated} if interpolated >= SAID_FROM else {})
