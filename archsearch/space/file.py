"""Space files: YAML to a space, with every fault of the file at once."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from archsearch.errors import SpaceError, SpecError
from archsearch.files import Record, near_or_all, read_record, read_yaml, shorten
from archsearch.space.choices import (
    Factor,
    Parameter,
    Settings,
    Targets,
    Vary,
    assign,
    assign_checked,
    find_targets,
    freeze,
    parameters_of,
    read_field,
    scaled,
)
from archsearch.space.latency import Timing, read_latency
from archsearch.space.space import SCORES, TRAINED_METRICS, Direction, Limit, SearchRecord, Space, sampler_fault
from archsearch.spec.cost import METRICS
from archsearch.spec.latency import LATENCY, Table
from archsearch.spec.presets import preset
from archsearch.spec.spec import Spec, parse_spec, read_spec, with_classes

LATENCY_RULE = "say how it is known: `latency: {table: FILE}` or `latency: {device: cpu}`"


class SpaceRecord(Record):
    """A space file, flat; `vary`, `limits` and `set` are read entry by entry."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", description="letters, digits and _ . + -")]
    base: Annotated[
        Annotated[str, Field(min_length=1)] | dict[str, Any],
        Field(description="a preset's name, a spec's YAML file or a spec"),
    ]
    set: dict[str, Any] = Field({})
    vary: tuple[Any, ...] = ()
    objectives: dict[str, Any] = Field({"top1": "maximize", "gmacs": "minimize"})
    limits: dict[str, Any] = Field({})
    published: tuple[str, ...] = ()
    latency: dict[str, Any] | None = Field(None, description="{table: FILE} or {device, batch, ...}")
    search: dict[str, Any] = Field({})


def read_space(path: Path) -> Space:
    """The space a YAML file holds. Raises SpaceError with one line for every fault."""
    return parse_space(read_yaml(path, SpaceError), str(path), path.parent)


def read_untimed(path: Path) -> Space:
    """The same of a space whose latency table is yet to be made: without that table, and without a limit it tells."""
    data = read_yaml(path, SpaceError)
    limits = data.get("limits", {})
    if isinstance(limits, dict):
        limits = {name: limit for name, limit in limits.items() if name != LATENCY}
    return parse_space({**data, "limits": limits, "latency": {}}, str(path), path.parent)


def parse_space(data: Mapping[str, Any], source: str, folder: Path) -> Space:
    """A mapping as a space; a base that is a file is looked for in `folder`."""
    faults: list[str] = []
    record = read_record(SpaceRecord, data, source, faults)
    record = record or _what_is_readable(data, source)
    search = read_record(SearchRecord, record.search, f"{source}, search", faults)
    latency = read_latency(record.latency, f"{source}, latency", folder, faults)
    objectives = _objectives(record, source, faults)
    limits = _limits(record, source, latency, faults)
    base = _base(record, source, folder, faults)
    faults += [f"{source}, published: {fault}" for name in record.published for fault in _unknown_preset(name)]
    if base is None:
        faults += [fault for index, entry in enumerate(record.vary) for fault in _entry_faults(entry, index, source)]
        raise SpaceError(*faults)
    fixed = _fix(base, record, f"{source}, set", faults)
    parameters = _parameters(fixed, record, source, faults)
    if faults or search is None:
        raise SpaceError(*faults)
    space = Space(record.name, fixed, parameters, objectives, limits, {}, search, latency)
    published = _published(space, record, source, faults)
    if fault := sampler_fault(space):
        faults.append(f"{source}, search: {fault}")
    if faults:
        raise SpaceError(*faults)
    return replace(space, published=published)


def _what_is_readable(data: Mapping[str, Any], source: str) -> SpaceRecord:
    """The fields that are right, so that the others' faults do not hide theirs."""
    record = SpaceRecord.model_construct(name="space", base="")
    for field in SpaceRecord.model_fields.keys() & data.keys():
        candidate = read_record(SpaceRecord, {"name": "space", "base": "space", field: data[field]}, source, [])
        record = record.model_copy(update={field: getattr(candidate, field)}) if candidate else record
    return record


def _objectives(record: SpaceRecord, source: str, faults: list[str]) -> dict[str, Direction]:
    known = (*TRAINED_METRICS, *METRICS, LATENCY, *SCORES)
    for name, direction in record.objectives.items():
        if name not in known:
            faults.append(f"{source}, objectives: unknown metric '{name}'{near_or_all(name, known)}")
        if name == LATENCY and record.latency is None:
            faults.append(f"{source}, objectives: {LATENCY}: {LATENCY_RULE}")
        if direction not in ("maximize", "minimize"):
            faults.append(f"{source}, objectives: {name}: {shorten(direction)} is not maximize or minimize")
    if not 1 <= len(record.objectives) <= 4:
        faults.append(f"{source}, objectives: there are {len(record.objectives)}; give one to four")
    return dict(record.objectives)


def _limits(record: SpaceRecord, source: str, latency: Table | Timing | None, faults: list[str]) -> dict[str, Limit]:
    limits = {}
    known = (*METRICS, LATENCY)
    for name, entry in record.limits.items():
        if name in SCORES:
            faults.append(f"{source}, limits: '{name}' is a score: it may be an objective, and has no limits")
        elif name not in known:
            faults.append(f"{source}, limits: '{name}' is not known before training{near_or_all(name, known)}")
        elif name == LATENCY and record.latency is None:
            faults.append(f"{source}, limits: {LATENCY}: {LATENCY_RULE}")
        elif name == LATENCY and isinstance(latency, Timing):
            faults.append(f"{source}, limits: {LATENCY} is measured; a limit needs `latency: {{table: FILE}}`")
        limit = read_record(Limit, entry, f"{source}, limits, {name}", faults)
        if limit is not None:
            limits[name] = limit
    return limits


def _base(record: SpaceRecord, source: str, folder: Path, faults: list[str]) -> Spec | None:
    try:
        if isinstance(record.base, dict):
            return parse_spec({"name": record.name, **record.base}, f"{source}, base")
        if record.base.endswith((".yaml", ".yml")):
            return read_spec(folder / record.base)
        return preset(record.base) if record.base else None
    except SpecError as error:
        faults += error.lines if isinstance(record.base, dict) else [f"{source}, base: {line}" for line in error.lines]
        return None


def _entry_faults(entry: Any, index: int, source: str) -> list[str]:
    """The faults of a line of `vary` that can be told without a base."""
    faults: list[str] = []
    read_record(Vary, entry, f"{source}, vary {index + 1}", faults)
    return faults


def _fix(base: Spec, record: SpaceRecord, where: str, faults: list[str]) -> Spec:
    """`base` with the values of `set`: {pattern.field: value or {scale: factor}}."""
    settings: Settings = {}
    for path, value in record.set.items():
        stage, _, field = path.rpartition(".")
        clip = path in ("clip", "clip.frames", "clip.size")
        targets = find_targets(base, path if clip else field, None if clip else (stage,), f"{where}, {path}", faults)
        if not (isinstance(value, dict) and "scale" in value):
            settings |= dict.fromkeys(targets, freeze(value))
            continue
        factor = read_record(Factor, value, f"{where}, {path}", faults)
        values = {target: read_field(base, *target) for target in targets}
        numbers = {target: old for target, old in values.items() if isinstance(old, int) and not isinstance(old, bool)}
        if targets and not numbers and field != "mid":  # which may be the name of a rule, that follows the widths
            faults.append(f"{where}, {path}: {shorten(next(iter(values.values())))} is no whole number to scale")
        if factor is not None:
            settings |= {target: scaled(old, factor.scale) for target, old in numbers.items()}
    return assign_checked(base, settings, where, faults)


def _parameters(base: Spec, record: SpaceRecord, source: str, faults: list[str]) -> tuple[Parameter, ...]:
    parameters: list[Parameter] = []
    taken: dict[tuple[str, str], int] = {}
    for number, entry in enumerate(record.vary, start=1):
        where = f"{source}, vary {number}"
        vary = read_record(Vary, entry, where, faults)
        if vary is None:
            continue
        where = f"{where} ({vary.field})"
        targets = find_targets(base, vary.field, vary.stages, where, faults)
        for target in targets:
            if target in taken:
                faults.append(f"{where}: {'.'.join(target).strip('.')} is varied already by vary {taken[target]}")
            taken[target] = number
        if _scales_numbers(vary, base, targets, where, faults):
            found = parameters_of(vary, base, targets)
            faults += _option_faults(base, found, where)
            parameters += found
    paths = [] if faults else [parameter.path for parameter in parameters]
    faults += [
        f"{source}, vary: two choices are named '{path}'" for path in dict.fromkeys(paths) if paths.count(path) > 1
    ]
    if not record.vary:
        faults.append(f"{source}: field 'vary' is missing or empty: nothing to search")
    return tuple(parameters)


def _scales_numbers(vary: Vary, base: Spec, targets: Targets, where: str, faults: list[str]) -> bool:
    """Whether a scale has whole numbers to scale."""
    for target in targets if vary.scaled else ():
        value = read_field(base, *target)
        if isinstance(value, bool) or not isinstance(value, int):
            faults.append(f"{where}: scale: {'.'.join(target)} is {shorten(value)}, not a whole number")
            return False
    return True


def _option_faults(base: Spec, parameters: list[Parameter], where: str) -> list[str]:
    """One line for each value that a field cannot take, whatever number of stages would take it."""
    seen: dict[tuple[str, str], str] = {}
    for parameter in parameters:
        for settings in parameter.settings:
            for target, value in settings.items():
                faults: list[str] = []
                assign_checked(base, {target: value}, where, faults)
                if faults:
                    seen.setdefault((target[1], repr(value)), faults[0])
    return list(seen.values())


def _published(space: Space, record: SpaceRecord, source: str, faults: list[str]) -> dict[str, Mapping[str, Any]]:
    """The choices of each published network, under the same `set` and clip as the base."""
    found: dict[str, Mapping[str, Any]] = {}
    for name in record.published:
        spec = preset(name)
        inner: list[str] = []
        spec = _fix(spec, record, f"{source}, published {name}, set", inner)
        spec = with_classes(spec.model_copy(update={"norm": space.base.norm}), space.base.classes)
        spec = assign(spec, _clip_settings(record, space.base))
        try:
            positions = None if inner else space.positions(spec)
        except SpecError as error:
            faults += [f"{source}, published: {line}" for line in error.lines]
            continue
        if positions is None:
            faults.append(f"{source}, published: '{name}' is not in the space{_difference(space, spec)}")
            continue
        found[name] = space.choices(positions)
    return found


def _clip_settings(record: SpaceRecord, base: Spec) -> Settings:
    """The base's clip, but for what `set` gives anyhow and the sides that vary, where a network keeps its own."""
    varied = {entry.get("field") for entry in record.vary if isinstance(entry, dict)}
    if "clip" in record.set or "clip" in varied:
        return {}
    if not varied & {"clip.frames", "clip.size"}:
        return {("", "clip"): base.clip}
    return {("", side): read_field(base, "", side) for side in ("clip.frames", "clip.size") if side not in varied}


def _unknown_preset(name: str) -> tuple[str, ...]:
    try:
        preset(name)
    except SpecError as error:
        return error.lines
    return ()


def _difference(space: Space, spec: Spec) -> str:
    """Where a network first leaves the space."""
    free = {target for parameter in space.parameters for settings in parameter.settings for target in settings}
    names = {stage.name for stage in space.base.stages}
    for stage in spec.stages:
        if stage.name not in names:
            return f": the base has no stage {stage.name}"
        other = space.base.stage(stage.name)
        for field in type(stage).model_fields:
            value = getattr(stage, field)
            if (stage.name, field) not in free and getattr(other, field, None) != value:
                return (
                    f": its {stage.name}.{field} is {shorten(value)}, the base's {shorten(getattr(other, field, None))}"
                )
    stuck = [parameter.path for parameter in space.parameters if parameter.position(spec) is None]
    return f": no option of {stuck[0]} gives it" if stuck else ": no choice gives its fields"
