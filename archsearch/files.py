"""Reading files people write, and writing files whole.

A fault is one line `file, place: value and rule; did you mean ...?`, and all faults of a file come at once.
"""

import difflib
import os
import re
import tempfile
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from archsearch.errors import FileFault


class Record(BaseModel):
    """A frozen record of a file: unknown fields are faults, and a field's description is its rule in errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


R = TypeVar("R", bound=Record)


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and reads `1e-5` as a number, as YAML 1.2 does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a list cannot be a key", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), "-+0123456789")


def read_yaml(path: Path, fault: type[FileFault]) -> dict[str, Any]:
    """The mapping a YAML file holds. Raises `fault` for a missing, unreadable, empty or malformed file."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path), fault)
    except FileNotFoundError:
        near = near_name(path.name, (p.name for p in path.parent.glob("*.y*ml")))
        raise fault(f"{path}: no such file{near}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise fault(f"{path}: cannot be read as a YAML file: {error}") from None


def parse_yaml(text: str, source: str, fault: type[FileFault]) -> dict[str, Any]:
    """The mapping a YAML text holds; `source` names it in errors."""
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise fault(f"{source}{place}: {error.problem or 'not valid YAML'}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise fault(f"{source}: not valid YAML: {str(error).splitlines()[0]}") from None
    if data is None:
        raise fault(f"{source}: the file is empty")
    if not isinstance(data, dict):
        raise fault(f"{source}: expected `field: value` lines, got {shorten(data)}")
    return data


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump_yaml(data: Any) -> str:
    """YAML with fields in their own order; what holds only plain values sits on one line."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=110, default_flow_style=None)


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all: a temporary name in the same folder, then a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def near_name(name: object, known: Iterable[str]) -> str:
    """`; did you mean 'width'?` when a known name is near, else nothing."""
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def near_or_all(name: object, known: Iterable[str]) -> str:
    """The near name, or, where none is near, the names there are."""
    names = list(known)
    return near_name(name, names) or f"; there are: {', '.join(names)}"


def shorten(value: object, limit: int = 60) -> str:
    """A value as an error shows it."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def read_record(model: type[R], data: Any, where: str, faults: list[str]) -> R | None:
    """`data` as a flat record, or None with one line for every fault appended to `faults`."""
    if not isinstance(data, dict):
        faults.append(f"{where}: expected fields, got {shorten(data)}")
        return None
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults.extend(_fault_lines(model, error, where))
        return None


def _fault_lines(model: type[Record], error: ValidationError, where: str) -> list[str]:
    """One line a field, whatever number of ways pydantic tried to read it."""
    lines: dict[str, str] = {}
    names = {info.alias or name: info for name, info in model.model_fields.items()}
    for fault in error.errors():
        field = str(fault["loc"][0]) if fault["loc"] else ""
        if field in lines and field:
            continue
        if fault["type"] == "extra_forbidden":
            lines[field] = f"{where}: unknown field '{field}'{near_or_all(field, names)}"
        elif fault["type"] == "missing" and len(fault["loc"]) == 1:
            lines[field] = f"{where}: field '{field}' is missing"
        elif fault["type"] == "value_error":
            lines[field] = f"{where}: {f'{field}: ' if field else ''}{fault['ctx']['error']}"
        else:
            info = names.get(field) or model.model_fields.get(field)
            lines[field] = f"{where}: {field}: {_rule(fault, info.description if info else None, error)}"
    return list(lines.values())


def _rule(fault: Any, description: str | None, error: ValidationError) -> str:
    """The value and the rule it breaks; a field's own description beats pydantic's words."""
    value = fault["input"]
    if fault["type"] == "literal_error":
        known = re.findall(r"'([^']+)'", fault["ctx"]["expected"])
        return f"{shorten(value)} is not one of {', '.join(known)}{near_name(value, known)}"
    tried = [f for f in error.errors() if f["loc"][:1] == fault["loc"][:1]]
    if description and (len(tried) > 1 or "type" in fault["type"] or "parsing" in fault["type"]):
        outer = min(tried, key=lambda f: len(f["loc"]))["input"]
        return f"{shorten(outer)} is not {description}"
    message = fault["msg"].removeprefix("Input should be ")
    return f"{shorten(value)} should be {message}" if message != fault["msg"] else f"{shorten(value)}: {message}"
