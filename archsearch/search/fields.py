"""What the fields of a run's files may hold: a file that says another thing is a fault that names field and value.

What a search writes is always right; files are also copied half, edited by hand and handed on by others. A candidate's
hash names a folder, so nothing but a hash may stand there.
"""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError

from archsearch.errors import RunError
from archsearch.files import Record, read_record, shorten

HASH = re.compile(r"[A-Za-z0-9]{0,64}")  # empty of a network that cannot be
T = TypeVar("T")


def _number(value: Any) -> float:
    """A number that floats can hold, as it is: whole ones stay whole."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            float(value)
            return value
    except OverflowError:
        pass
    raise ValueError(f"{shorten(value)} is not a number")


def _seconds(value: Any) -> float:
    if not math.isfinite(_number(value)) or value < 0:
        raise ValueError(f"{shorten(value)} is not a number of seconds")
    return float(value)


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise ValueError(f"{shorten(value)} is not a whole number, 0 or more")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{shorten(value)} is not text")
    return value


def _hash(value: Any) -> str:
    if not isinstance(value, str) or not HASH.fullmatch(value):
        raise ValueError(f"{shorten(value)} is not a candidate's hash, letters and digits")
    return value


def _option(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{shorten(value)} is not a choice")
    if not isinstance(value, str | bool | None):
        try:
            return _number(value)
        except ValueError:
            raise ValueError(f"{shorten(value)} is not a choice: text, a number, true, false or null") from None
    return value


Number = Annotated[float, PlainValidator(_number)]  # NaN where it was not measured
Seconds = Annotated[float, PlainValidator(_seconds)]
Whole = Annotated[int, PlainValidator(_whole)]
Text = Annotated[str, PlainValidator(_text)]
Hash = Annotated[str, PlainValidator(_hash)]
Choice = Annotated[Any, PlainValidator(_option)]


def _rung(value: Any) -> Mapping[str, Any]:
    """What was read after some epochs: {"epochs", "metrics", "seconds"}."""
    if not isinstance(value, dict) or not isinstance(value.get("metrics"), dict):
        raise ValueError(f"{shorten(value)} is not a rung: epochs, metrics and seconds")
    _whole(value.get("epochs"))
    _seconds(value.get("seconds"))
    for metric in value["metrics"].values():
        _number(metric)
    return value


Rung = Annotated[Mapping[str, Any], PlainValidator(_rung)]


class DataSet(Record):
    """The data set of a run."""

    model_config = ConfigDict(extra="ignore")

    digest: Text
    classes: tuple[Text, ...]


class Identity(Record):
    """What run.json says at least."""

    model_config = ConfigDict(extra="ignore")

    name: Text
    objectives: Annotated[dict[Text, Literal["maximize", "minimize"]], Field(min_length=1, description="objectives")]
    data: DataSet
    data_name: Text | None = None
    values: Text | None = None


class Finalist(Record):
    """A network in final.json, as far as it is read."""

    model_config = ConfigDict(extra="ignore")

    id: Whole
    hash: Hash
    metrics: dict[Text, Number]
    trained: Whole
    published: Text | None = None
    choices: dict[Text, Choice] = Field(default_factory=dict)
    selected: dict[Text, Number] = Field(default_factory=dict)
    spread: dict[Text, Number] = Field(default_factory=dict)
    test_top1: Number = math.nan
    test_interval: tuple[Number, Number] = (math.nan, math.nan)
    seeds: tuple[Whole, ...] = ()
    failed: tuple[Text, ...] = ()
    start: Literal["scratch", "inherited"] = "scratch"


class Finalists(Record):
    """What final.json says at least."""

    model_config = ConfigDict(extra="ignore")

    candidates: tuple[Finalist, ...]
    front: tuple[Whole, ...] = ()
    seeds: tuple[Whole, ...] = ()
    objectives: dict[Text, Literal["maximize", "minimize"]] = Field(default_factory=dict)


def is_final(found: Any) -> bool:
    """Whether this is what `archsearch finalize` writes, all that may be there right."""
    try:
        Finalists.model_validate(found)
    except ValidationError:
        return False
    return True


def check_identity(found: Any, place: str) -> None:
    """Raises RunError where run.json does not say what a run is."""
    faults: list[str] = []
    if read_record(Identity, found, place, faults) is None:
        raise RunError(*(f"{fault}; it does not say what the run is, and was changed by hand" for fault in faults))


def read_fields(kind: TypeAdapter[T], data: Any, place: str) -> T:
    """`data` as a record of a trial. Raises RunError for the first field that is wrong."""
    if not isinstance(data, dict):
        raise _no_record(place, f"expected fields, got {shorten(data)}")
    try:
        return kind.validate_python(data)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ", ".join(shorten(str(part))[1:-1] for part in fault["loc"])
        if fault["type"] == "unexpected_keyword_argument":
            rule = f"unknown field '{field}'; it was changed by hand, or a newer archsearch wrote it and can read it"
            raise RunError(f"{place}: {rule}") from None
        if fault["type"] == "missing":
            raise _no_record(place, f"field '{field}' is missing") from None
        said = fault["ctx"]["error"] if fault["type"] == "value_error" else f"{shorten(fault['input'])}: {fault['msg']}"
        raise _no_record(place, f"{field}: {said}") from None


def _no_record(place: str, reason: str) -> RunError:
    return RunError(f"{place}: is no record of a trial ({reason}); delete it and give the same command again")


def check_result(data: Any, place: str) -> dict[str, Any]:
    """What a training has found: {"epochs", "metrics", "seconds"} and more. Raises RunError for anything else."""
    try:
        _rung(data)
    except ValueError:
        raise RunError(f"{place}: is no result of a training; delete it and give the same command again") from None
    found: dict[str, Any] = data
    return found


def rows_of(data: Any, place: str) -> list[dict[str, Any]]:
    """A list of fields, as a curve is; none where there is no file. Raises RunError for anything else."""
    if data is None:
        return []
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise RunError(f"{place}: is no list of fields; delete it and give the same command again")
    return data
