"""The networks of a run as a page has them: stage by stage, as YAML, with curves; what many share is written once.

A table's entries are known by their place in it. Networks come from the run's space and their choices, so that a run
without candidates' folders has them too; where the space cannot be read here, from the folders of some.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from archsearch.errors import ArchsearchError, RunError, SpaceError, SpecError
from archsearch.files import dump_yaml, parse_yaml
from archsearch.search.folder import RunFolder
from archsearch.space.choices import option_name
from archsearch.space.file import parse_space
from archsearch.space.space import Space
from archsearch.spec.kept import stage_result
from archsearch.spec.spec import Spec, parse_spec, reads_of, spec_data
from archsearch.store import LocalStore, read_json

CURVE = ("train_loss", "val_loss", "train_top1", "val_top1")
DIGITS = 6  # of a metric on a page


@dataclass
class Shared:
    """Texts and stages that many networks share, each once."""

    stages: list[dict[str, Any]] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    _places: dict[Hashable, int] = field(default_factory=dict)

    def place(self, table: list[Any], key: Hashable, entry: Any) -> int:
        """Where an entry is in one of the tables; `entry` is called where it is not there yet."""
        key = (id(table), key)
        if key not in self._places:
            self._places[key] = len(table)
            table.append(entry())
        return self._places[key]


def run_space(folder: RunFolder, classes: int) -> Space | str:
    """The space of a run for its data, or why it cannot be read where the run lies now."""
    text = (folder.store.read("space.yaml") or b"").decode(errors="replace")
    place = Path(folder.store.url) if isinstance(folder.store, LocalStore) else Path()
    try:
        return parse_space(parse_yaml(text, "space.yaml", SpaceError), "space.yaml", place).for_classes(classes)
    except ArchsearchError as error:
        return error.lines[0]


class Drawer:
    """Draws networks of a space from choices as trials have them."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._places = [
            {_typed(option_name(option)): place for place, option in enumerate(parameter.options)}
            for parameter in space.parameters
        ]

    def spec(self, choices: Mapping[str, Any]) -> Spec | None:
        """The network, or None where the choices are none of the space's or contradict each other."""
        positions = [
            places.get(_typed(choices[parameter.path])) if parameter.path in choices else 0
            for parameter, places in zip(self._space.parameters, self._places, strict=True)
        ]
        known = tuple(position for position in positions if position is not None)
        try:
            return self._space.spec_at(known) if len(known) == len(positions) else None
        except SpecError:
            return None


def _typed(value: Any) -> tuple[str, Any]:
    """True is not 1, and 1.0 is."""
    return ("bool" if isinstance(value, bool) else "value"), value


def kept_spec(folder: RunFolder, candidate: str) -> Spec | None:
    """The network that a candidate's folder holds, or None where there is none that can be read."""
    text = folder.candidate(candidate).read("spec.yaml")
    try:
        return parse_spec(parse_yaml((text or b"").decode(), "spec.yaml", SpecError), "spec.yaml")
    except (SpecError, UnicodeDecodeError):
        return None


def network_row(spec: Spec, shared: Shared) -> list[Any] | None:
    """A network in few numbers: [head, [stage, size, macs, params] of each stage]; None for one that cannot be."""
    sizes = dict(spec.inputs)
    previous = next(iter(sizes))
    rows: list[Any] = []
    try:
        for stage in spec.stages:
            reads = tuple(sizes[name] for name in reads_of(stage, previous))
            sizes[stage.name], cost = stage_result(stage, reads, spec.padding == "same")
            size = str(sizes[stage.name])
            own = shared.place(shared.stages, stage, lambda stage=stage: _stage(stage))
            rows.append([own, shared.place(shared.sizes, size, lambda size=size: size), cost.macs, cost.params])
            previous = stage.name
    except (SpecError, ValidationError, KeyError):
        return None
    key = (spec.name, str(spec.clip), str(spec.norm), spec.padding)
    return [shared.place(shared.heads, key, lambda: _head(spec)), rows]


def _head(spec: Spec) -> str:
    """The YAML of a spec before its stages."""
    data = spec_data(spec.model_copy(update={"stages": ()}))
    return dump_yaml({name: value for name, value in data.items() if name != "stages"})


def _stage(stage: Any) -> dict[str, Any]:
    """A stage as a picture needs it: what every one has, the fields that are not at their defaults, and its YAML."""
    fields = stage.model_dump(mode="json", exclude_defaults=True, by_alias=True)
    data = {"kind": stage.kind, **fields}
    shown = {name: getattr(stage, name, None) for name in ("conv", "depth", "width", "gate")}
    shown["gate"] = bool(shown["gate"])
    return {
        "name": stage.name,
        "kind": stage.kind,
        **{name: value for name, value in shown.items() if value},
        "fields": {name: value for name, value in fields.items() if name != "name"},
        "yaml": dump_yaml([data]),
    }


def curves_of(folder: RunFolder, candidates: Iterable[str]) -> tuple[dict[str, dict[str, list[float]]], list[str]]:
    """The curves of some candidates by hash, and the hashes whose file is there and cannot be read."""
    found: dict[str, dict[str, list[float]]] = {}
    broken = []
    for candidate in candidates:
        try:
            rows = read_json(folder.candidate(candidate), "curve.json")
            if rows:
                found[candidate] = _columns(rows)
        except (RunError, TypeError, ValueError, AttributeError):
            broken.append(candidate)
    return found, broken


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    return {name: [rounded(row[name]) for row in rows] for name in CURVE if all(name in row for row in rows)}


def rounded(value: float) -> float:
    """Six digits are more than any measurement has; whole numbers stay."""
    return value if isinstance(value, int) else float(f"{float(value):.{DIGITS}g}")
