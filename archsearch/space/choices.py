"""What a space may choose: fields of stages picked by name pattern, varied in one of three ways.

- `prefix: [a, b]`: the first k stages take a, the rest b. One integer, from 0 to the number of stages.
- `each: [...]`: every stage on its own.
- `tied: [...]`: one value for all.

A choice is a list of values, `{low, high, step}`, or `{scale: [...]}` of the base's value.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Protocol

from pydantic import Field, ValidationError, model_validator

from archsearch.errors import SpecError
from archsearch.files import Record, near_or_all, read_record, shorten
from archsearch.spec.fields import Positive, Stage
from archsearch.spec.spec import Spec, lower

CLIP_FIELDS = ("clip", "clip.frames", "clip.size")
CHOICE_RULE = "a list of values, {low, high, step} or {scale: [...]}"
OPTIONS_LIMIT = 1000  # of one choice

Targets = tuple[tuple[str, str], ...]  # (stage, field); the stage of a clip's field is ""
Settings = dict[tuple[str, str], Any]  # the value of each


class Range(Record):
    """low, low + step, ... up to high."""

    low: Annotated[int, Field(strict=True)]
    high: Annotated[int, Field(strict=True)]
    step: Positive = 1

    @model_validator(mode="after")
    def _check(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if (self.high - self.low) // self.step >= OPTIONS_LIMIT:
            raise ValueError(f"there are more than {OPTIONS_LIMIT} values from {self.low} to {self.high}")
        return self

    def values(self) -> tuple[int, ...]:
        """All of them."""
        return tuple(range(self.low, self.high + 1, self.step))


class Scale(Record):
    """Factors of the base's value, rounded to the nearest whole number of 1 or more."""

    scale: tuple[Annotated[float, Field(gt=0)], ...]


class Factor(Record):
    """A factor of the base's whole number, in `set`."""

    scale: Annotated[float, Field(gt=0)]


Values = tuple[Any, ...]
Choice = Annotated[Range | Scale | Values | None, Field(description=CHOICE_RULE)]


class Vary(Record):
    """One line of `vary`."""

    field: str
    stages: Annotated[tuple[str, ...] | None, Field(description="a list of stage names or patterns, as res*")] = None
    name: str | None = None
    prefix: Choice = None
    each: Choice = None
    tied: Choice = None

    @model_validator(mode="after")
    def _check(self) -> "Vary":
        ways = [way for way in ("prefix", "each", "tied") if getattr(self, way) is not None]
        if len(ways) != 1:
            raise ValueError(f"give one of prefix, each, tied; got {' and '.join(ways) or 'none'}")
        options = self.options
        if any(option in options[:place] for place, option in enumerate(options)) or not options:
            raise ValueError(f"{self.way}: {shorten(list(options))} should be values that differ")
        if self.way == "prefix" and len(options) != 2:
            raise ValueError(f"prefix: {shorten(list(options))} should be two values, of the first stages and the rest")
        return self

    @property
    def way(self) -> str:
        """prefix, each or tied."""
        return next(way for way in ("prefix", "each", "tied") if getattr(self, way) is not None)

    @property
    def choice(self) -> Any:
        """The choice, as it was written."""
        return getattr(self, self.way)

    @property
    def options(self) -> Values:
        """The values, or the factors of a scale."""
        choice = self.choice
        return choice.values() if isinstance(choice, Range) else choice.scale if isinstance(choice, Scale) else choice

    @property
    def scaled(self) -> bool:
        """Whether options are factors of the base's value."""
        return isinstance(self.choice, Scale)


class Trial(Protocol):
    """What a space asks for values: an Optuna trial, live, frozen or fixed."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int: ...
    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


@dataclass(frozen=True)
class Parameter:
    """One searched choice: its path, what it may be, and what each option sets."""

    path: str
    options: Values
    settings: tuple[Settings, ...]  # of each option
    step: int = 0  # between options that are a range of integers; 0: they are names

    def suggest(self, trial: Trial) -> int:
        """Asks a trial; returns the option's position. What has one option is not asked."""
        if len(self.options) == 1:
            return 0
        if self.step:
            low: int = self.options[0]
            value = trial.suggest_int(self.path, low, self.options[-1], step=self.step)
            return (value - low) // self.step
        names = [option_name(option) for option in self.options]
        name: Any = trial.suggest_categorical(self.path, names)
        return names.index(name)

    def position(self, spec: Spec) -> int | None:
        """The option under which a spec's fields are as they are, or None."""
        return next((position for position, settings in enumerate(self.settings) if _holds(spec, settings)), None)


def _holds(spec: Spec, settings: Settings) -> bool:
    """Whether setting fields to these values, as records read them, changes nothing."""
    if not {stage for stage, _ in settings} <= {"", *(stage.name for stage in spec.stages)}:
        return False
    try:
        return assign(spec, settings) == spec
    except ValidationError:
        return False


def option_name(option: Any) -> Any:
    """An option as a trial parameter: plain values as they are, lists and fields as text."""
    return option if isinstance(option, str | int | float | bool | None) else json.dumps(option)


def parameters_of(vary: Vary, base: Spec, targets: Targets) -> list[Parameter]:
    """The parameters of one line: `each` has one a stage, `prefix` and `tied` have one."""
    options = vary.options
    step = vary.choice.step if isinstance(vary.choice, Range) else 0

    def setting(target: tuple[str, str], option: Any) -> Any:
        return scaled(read_field(base, *target), option) if vary.scaled else freeze(option)

    if vary.way == "each":
        return [
            Parameter(
                ".".join(filter(None, target)), options, tuple({target: setting(target, o)} for o in options), step
            )
            for target in targets
        ]
    if vary.way == "tied":
        settings = tuple({target: setting(target, option) for target in targets} for option in options)
        return [Parameter(vary.name or _path(vary), options, settings, step)]
    first, rest = options
    cuts = tuple(
        {target: setting(target, first if index < cut else rest) for index, target in enumerate(targets)}
        for cut in range(len(targets) + 1)
    )
    return [Parameter(vary.name or f"{_path(vary)}.prefix", tuple(range(len(cuts))), cuts, 1)]


def _path(vary: Vary) -> str:
    return f"{','.join(vary.stages)}.{vary.field}" if vary.stages else vary.field


def scaled(value: Any, factor: float) -> int:
    """A base's number times a factor, rounded, at least 1."""
    return int(max(1, round(value * factor)))


def freeze(value: Any) -> Any:
    """Lists as tuples, as records hold them."""
    if isinstance(value, dict):
        return {name: freeze(entry) for name, entry in value.items()}
    return tuple(freeze(entry) for entry in value) if isinstance(value, list) else value


def find_targets(spec: Spec, field: str, patterns: tuple[str, ...] | None, where: str, faults: list[str]) -> Targets:
    """The (stage, field) pairs that patterns pick, in the order of the stages; faults for what is not there."""
    if field in CLIP_FIELDS:
        if patterns:
            faults.append(f"{where}: {field} belongs to no stage; leave out `stages`")
        return (("", field),)
    names = [stage.name for stage in spec.stages]
    known = sorted({name for stage in spec.stages for name in type(stage).model_fields} - {"kind", "name", "from_"})
    if field not in known:
        faults.append(
            f"{where}: no stage of {spec.name} has a field '{field}'{near_or_all(field, [*known, *CLIP_FIELDS])}"
        )
        return ()
    if not patterns:
        faults.append(f"{where}: field 'stages' is missing: a list of stage names or patterns such as res*")
        return ()
    picked = [stage for stage in spec.stages if any(fnmatchcase(stage.name, pattern) for pattern in patterns)]
    for pattern in patterns:
        matched = [stage for stage in picked if fnmatchcase(stage.name, pattern)]
        if not matched:
            faults.append(f"{where}: '{pattern}' matches no stage of {spec.name}{near_or_all(pattern, names)}")
        elif not any(field in type(stage).model_fields for stage in matched):
            faults.append(f"{where}: stage {matched[0].name} has no field '{field}'")
    return tuple((stage.name, field) for stage in picked if field in type(stage).model_fields)


def read_field(spec: Spec, stage: str, field: str) -> Any:
    """The value of a field of a stage, or of the clip."""
    if stage:
        return getattr(spec.stage(stage), field)
    first = next(iter(spec.inputs.values()))
    return {"clip.frames": first.t, "clip.size": first.h}.get(field, spec.clip)


def assign(spec: Spec, settings: Mapping[tuple[str, str], Any], name: str | None = None) -> Spec:
    """The spec with fields set. Raises pydantic's ValidationError where a stage cannot have such a value."""
    changes: dict[str, dict[str, Any]] = {}
    for (stage, field), value in settings.items():
        changes.setdefault(stage, {})[field] = value
    clip = spec.clip
    for field, value in changes.pop("", {}).items():
        clip = _with_clip_field(clip, field, value)
    stages = tuple(
        _with_fields(stage, changes[stage.name]) if stage.name in changes else stage for stage in spec.stages
    )
    return spec.model_copy(update={"stages": stages, "clip": clip, "name": name or spec.name})


def assign_checked(base: Spec, settings: Settings, where: str, faults: list[str]) -> Spec:
    """`base` with settings; a fault for each value that a stage refuses, and for a network that cannot be."""
    good: Settings = {}
    for stage in dict.fromkeys(stage for stage, _ in settings):
        changes = {field: value for (owner, field), value in settings.items() if owner == stage}
        record = base.stage(stage) if stage else base
        sides = {field: changes.pop(field) for field in ("clip.frames", "clip.size") if field in changes}
        wrong = [
            f"{where}: {field}: {shorten(value)} is not a positive integer"
            for field, value in sides.items()
            if not isinstance(value, int) or isinstance(value, bool) or value < 1
        ]
        place = f"{where}, stage {stage}" if stage else where
        if not wrong and read_record(type(record), {**record.__dict__, **changes}, place, wrong) is not None:
            good |= {(stage, field): value for field, value in (changes | sides).items()}
        faults += wrong
    return assign(base, good)


def with_settings(spec: Spec, settings: Mapping[str, Any], place: Callable[[str], str]) -> Spec:
    """The spec with fields set in order, as {"res*.conv": "2d", "clip.frames": 8}.

    `place` is what errors call a setting by its path. Raises SpecError with one line for every fault.
    """
    faults: list[str] = []
    for path, value in settings.items():
        pattern, _, field = path.rpartition(".")
        if path in CLIP_FIELDS:
            targets = find_targets(spec, path, None, place(path), faults)
        else:
            targets = find_targets(spec, field, (pattern,), place(path), faults)
        spec = assign_checked(spec, dict.fromkeys(targets, freeze(value)), place(path), faults)
    if faults:
        raise SpecError(*faults)
    lower(spec)
    return spec


def _with_fields(stage: Stage, fields: dict[str, Any]) -> Stage:
    return type(stage).model_validate({**stage.__dict__, **fields})


def _with_clip_field(clip: Any, field: str, value: Any) -> Any:
    if field == "clip":
        return value
    if isinstance(clip, Mapping):
        return {name: _with_clip_field(size, field, value) for name, size in clip.items()}
    c, t, h, w = clip
    return (c, value, h, w) if field == "clip.frames" else (c, t, value, value)
