"""Latency predicted before any training: a walk that sums the measured times of a network's sites.

A table holds, for one device and setting, the milliseconds of each site that was measured, and the constant and the
scale that fit their sum to the latency of whole networks. Nothing here imports torch.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, ValidationError, model_validator

from archsearch.errors import RunError, SpecError
from archsearch.files import Record
from archsearch.spec.fields import Flag, Positive
from archsearch.spec.graph import Graph
from archsearch.spec.sites import Site, sites

VERSION = 1  # of the file's form
BY_ONNX = ("onnxruntime", "openvino")  # devices that are runtimes of their own
LATENCY = "latency_ms"  # the metric: milliseconds of one forward of a batch
NonNegative = Annotated[float, Field(ge=0)]


class Setting(Record):
    """How networks run where they are timed: always inference, in channels-last layout."""

    device: Literal["cpu", "cuda", "onnxruntime", "openvino"] = "cpu"  # the last two run ONNX on the CPU
    batch: Positive = 1  # clips of one forward
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # below fp32 by autocast
    compiled: Flag = False  # by torch.compile
    threads: Positive = 1  # of the CPU

    @model_validator(mode="after")
    def _check(self) -> "Setting":
        if self.device in BY_ONNX and (self.precision != "fp32" or self.compiled):
            raise ValueError(f"device {self.device} runs fp32, not compiled")
        if self.device == "cpu" and self.precision == "fp16":
            raise ValueError("precision fp16 needs device cuda; torch's CPU kernels take a hundred times as long")
        return self

    def __str__(self) -> str:
        compiled = ", compiled" if self.compiled else ""
        threads = "" if self.device == "cuda" else f", {self.threads} thread{'s' * (self.threads > 1)}"
        return f"{self.device}, batch {self.batch}, {self.precision}{compiled}{threads}"


class SiteTime(Record):
    """A measured site: what it took, and by what another of its kind is judged to be near it."""

    ms: NonNegative  # of the fastest run, which other processes disturbed least
    kind: str
    features: tuple[Annotated[int, Field(ge=1)], ...]


class Errors(Record):
    """How far predictions are from what was measured: |predicted / measured - 1| over networks not fitted on."""

    networks: int
    median: NonNegative
    max: NonNegative
    interpolated: NonNegative  # the mean share of a prediction that comes from sites the table lacks


class Table(Record):
    """Measured sites of one space on one device."""

    version: int
    space: str
    setting: Setting
    processor: str  # what it was measured on
    software: str
    load: NonNegative  # the machine's load average while it was measured
    rounds: Positive
    constant_ms: float
    scale: float
    sites: Mapping[str, SiteTime]
    held_out: Errors | None = None


class Prediction(NamedTuple):
    """Milliseconds of one forward, and which share of them comes from sites that the table lacks."""

    ms: float
    interpolated: float


def predict(table: Table, graph: Graph) -> Prediction:
    """The latency of a network. Raises SpecError naming a site of a kind that the table has nothing of."""
    known = lacking = 0.0
    for site in sites(graph):
        timed = table.sites.get(site.key)
        if timed is not None:
            known += timed.ms
        else:
            lacking += _interpolated(table, site)
    total = known + lacking
    return Prediction(table.constant_ms + table.scale * total, lacking / total if total else 0.0)


def _interpolated(table: Table, site: Site) -> float:
    """The time of the nearest measured site of the kind, times by how much more this one computes and moves."""
    kind, features = site.kind, site.features
    steps = [(_steps(timed.features, features), timed.ms) for timed in table.sites.values() if timed.kind == kind]
    if not steps:
        raise SpecError(f"the latency table of {table.space} has nothing like the site '{site.key}' ({kind})")
    (macs, moved, *_), ms = min(steps, key=lambda step: sum(map(abs, step[0])))
    return ms * math.exp((macs + moved) / 2)


def _steps(known: tuple[int, ...], asked: tuple[int, ...]) -> list[float]:
    """Logarithms of how many times each feature is more."""
    return [math.log(new / old) for old, new in zip(known, asked, strict=True)]


def write_table(table: Table) -> str:
    """The table as JSON, a line for each site."""
    data = table.model_dump(mode="json")
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(site)}" for key, site in data.pop("sites").items())
    return f'{json.dumps(data, indent=1)[:-2]},\n "sites": {{\n{lines}\n}}}}\n'


def read_table(path: Path, **expected: object) -> Table:
    """What `write_table` wrote. Raises RunError for anything else, and for one of a setting other than `expected`."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, dict) and data.get("version") != VERSION:
            raise RunError(f"{path}: is a latency table of version {data.get('version')}; this reads version {VERSION}")
        table = Table.model_validate(data)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, ValidationError):
        raise RunError(f"{path}: is no latency table of `archsearch latency calibrate`") from None
    for name, value in expected.items():
        if getattr(table.setting, name) != value:
            raise RunError(f"{path}: was measured with {name} {getattr(table.setting, name)}, not {value}")
    return table
