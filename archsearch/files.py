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


TEXT_LIMIT = 1_000_000  # characters of one file; as many take half a minute to read
NODES_LIMIT = 100_000  # of one file, every alias spelled out: a few lines of aliases could fill the memory


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and reads `1e-5` as a number, as YAML 1.2 does."""

    def get_single_node(self) -> yaml.Node | None:
        root = super().get_single_node()
        count, pending = 0, [root] if root else []
        while pending:
            node = pending.pop()
            count += 1
            if count > NODES_LIMIT:
                raise yaml.constructor.ConstructorError(None, None, "too large, with its aliases spelled out")
            if isinstance(node, yaml.SequenceNode):
                pending += node.value
            elif isinstance(node, yaml.MappingNode):
                pending += [part for pair in node.value for part in pair]
        return root

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a list cannot be a key", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), "-+.0123456789"
)


def read_yaml(path: Path, fault: type[FileFault]) -> dict[str, Any]:
    """The mapping a YAML file holds. Raises `fault` for a missing, unreadable, empty or malformed file."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path), fault)
    except FileNotFoundError:
        near = near_name(path.name, (p.name for p in path.parent.glob("*.y*ml")))
        raise fault(f"{path}: no such file{near}") from None
    except (OSError, ValueError) as error:  # bytes that are not UTF-8; a name with a null byte
        reason = getattr(error, "strerror", None) or error
        raise fault(f"{shorten(str(path), 200)[1:-1]}: cannot be read as a YAML file: {reason}") from None


def parse_yaml(text: str, source: str, fault: type[FileFault]) -> dict[str, Any]:
    """The mapping a YAML text holds; `source` names it in errors."""
    if len(text) > TEXT_LIMIT:
        raise fault(f"{source}: too large: {len(text):,} characters, the limit is {TEXT_LIMIT:,}")
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise fault(f"{source}{place}: {error.problem or 'not valid YAML'}") from None
    except RecursionError:
        raise fault(f"{source}: not valid YAML: nested too deeply") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        # PyYAML lets through whatever Python raises for a tag that does not fit its value, as `!!bool maybe`
        raise fault(f"{source}: not valid YAML: {str(error).partition(chr(10))[0]}") from None
    if data is None:
        raise fault(f"{source}: the file is empty")
    if not isinstance(data, dict):
        raise fault(f"{source}: expected `field: value` lines, got {shorten(data)}")
    return data


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # libyaml's, where it was built
    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump_yaml(data: Any) -> str:
    """YAML with fields in their own order; what holds only plain values sits on one line."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=110, default_flow_style=None)


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all: a temporary name in the same folder, then a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise _of(path, error) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise _of(path, error) from None
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _of(path: Path, error: OSError) -> OSError:
    """The same about the file that is meant: the temporary one is nobody's business."""
    return OSError(error.errno, error.strerror, str(path)) if error.errno else error


def sweep(folder: Path) -> None:
    """Removes the temporary files that killed calls of `write_whole` left in a folder; nobody may be writing there."""
    for left in folder.glob(".*.part"):
        left.unlink(missing_ok=True)


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


def plain(text: str) -> str:
    """A text on one line, as a terminal may have it: what does not print is spelled out, as \\x1b."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def is_line(text: str) -> bool:
    """Whether a file of lines can hold a text as one of them."""
    try:
        return text.encode().decode().splitlines() == [text]
    except UnicodeEncodeError:  # of a file's name that is not UTF-8
        return False


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
    found: dict[tuple[str, str], tuple[type[Record], list[Any]]] = {}
    for fault in error.errors():
        owner, place, loc = _innermost(model, where, fault["loc"])
        field = str(loc[0]) if loc else ""
        found.setdefault((place, field), (owner, []))[1].append({**fault, "loc": loc})
    return [f"{place}: {_fault(owner, field, faults)}" for (place, field), (owner, faults) in found.items()]


def _innermost(model: type[Record], where: str, loc: tuple[Any, ...]) -> tuple[type[Record], str, tuple[Any, ...]]:
    """The record inside records that a fault is about, its place, and the fault's location in it."""
    info = model.model_fields.get(str(loc[0])) if len(loc) > 1 else None
    if info and isinstance(info.annotation, type) and issubclass(info.annotation, Record):
        return _innermost(info.annotation, f"{where}, {loc[0]}", loc[1:])
    return model, where, loc


def _fault(model: type[Record], field: str, faults: list[Any]) -> str:
    """What is wrong with one field."""
    fault = faults[0]
    names = {info.alias or name: info for name, info in model.model_fields.items()}
    if fault["type"] == "extra_forbidden" and len(fault["loc"]) == 1:
        return f"unknown field {shorten(field)}{near_or_all(field, names)}"
    if fault["type"] == "missing" and len(fault["loc"]) == 1:
        return f"field '{field}' is missing"
    if fault["type"] == "value_error":
        return f"{field}: {fault['ctx']['error']}" if field else str(fault["ctx"]["error"])
    info = names.get(field) or model.model_fields.get(field)
    return f"{shorten(field)[1:-1]}: {_rule(faults, info.description if info else None)}"


def _rule(faults: list[Any], description: str | None) -> str:
    """The value and the rule it breaks; a field's own description beats pydantic's words."""
    fault = faults[0]
    literals = [f for f in faults if f["type"] == "literal_error"]
    known = [name for f in literals for name in re.findall(r"'([^']+)'", f["ctx"]["expected"])]
    near = near_name(fault["input"], known) if isinstance(fault["input"], str) else ""
    if description and (len(faults) > 1 or re.search("type|parsing|pattern|missing|too_", fault["type"])):
        return f"{shorten(min(faults, key=lambda f: len(f['loc']))['input'])} is not {description}{near}"
    if literals:
        return f"{shorten(fault['input'])} is not one of {', '.join(known)}{near}"
    message = fault["msg"].removeprefix("Input should be ")
    return f"{shorten(fault['input'])}{' should be' if message != fault['msg'] else ':'} {message}"
