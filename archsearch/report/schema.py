"""JSON Schema (draft 2020-12) of the YAML files people write, so that editors complete and check them.

Made of the records that read the files. What a schema cannot say is left to the readers: a network that cannot be, one
field that contradicts another, a pattern that matches no stage. Numbers written as text (`trials: "24"`), which some
fields are read from, are faults here.
"""

import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic.json_schema import models_json_schema

from archsearch.files import Record
from archsearch.space.choices import CLIP_FIELDS, Factor, Range, Scale, Vary
from archsearch.space.file import SpaceRecord
from archsearch.space.latency import Timing
from archsearch.space.space import SCORES, TRAINED_METRICS, Direction, Limit, SearchRecord
from archsearch.spec.cost import METRICS
from archsearch.spec.latency import LATENCY
from archsearch.spec.presets import PRESETS
from archsearch.spec.spec import Spec
from archsearch.spec.stages import STAGES
from archsearch.training.recipe import Recipe

Schema = dict[str, Any]
DRAFT = "https://json-schema.org/draft/2020-12/schema"
POSITIVE = {"type": "integer", "minimum": 1}
SPACE_RECORDS = (SpaceRecord, SearchRecord, Limit, Timing, Vary, Factor, Scale, Range)


def spec_schema() -> Schema:
    """Of a spec's file."""
    return _file("spec", *_spec())


def recipe_schema() -> Schema:
    """Of a recipe's file."""
    definitions = _definitions(Recipe)
    return _file("recipe", definitions.pop("Recipe"), definitions)


def space_schema() -> Schema:
    """Of a space's file. A base written there needs no name, and values are checked by the field they are of."""
    base, definitions = _spec()
    base["required"].remove("name")
    definitions |= _definitions(*SPACE_RECORDS) | {"Base": {**base, "title": "base"}}
    space = definitions.pop("SpaceRecord")
    fields = _field_schemas(definitions, base["properties"]["clip"])
    _complete_vary(definitions["Vary"], fields)
    definitions["Limit"]["anyOf"] = [_given("min"), _given("max")]
    for name in ("Scale", "Range"):
        definitions[name]["title"] = f"{{{', '.join(definitions[name]['properties'])}}}"
    properties = space["properties"]
    files = {"type": "string", "pattern": r"\.ya?ml$", "description": "a spec's file"}
    properties["base"] |= {"anyOf": [{"enum": list(PRESETS)}, files, _ref("Base")]}
    properties["set"] = _set(fields)
    properties["vary"] = {"type": "array", "items": _ref("Vary"), "minItems": 1, "description": "what is searched"}
    properties["objectives"] |= _objectives()
    properties["limits"] |= _only(dict.fromkeys((*METRICS, LATENCY), _ref("Limit")))
    properties["published"]["items"] = {"enum": list(PRESETS)}
    properties["latency"] |= {"anyOf": [{"type": "null"}, _latency(definitions.pop("Timing"))]}
    properties["search"] = _ref("SearchRecord")
    space["required"].append("vary")
    return _file("space", space, definitions)


SCHEMAS = {"spec": spec_schema, "space": space_schema, "recipe": recipe_schema}


def _file(name: str, schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    return {"$schema": DRAFT, **schema, "title": f"archsearch {name}", "$defs": dict(definitions)}


def _spec() -> tuple[Schema, dict[str, Schema]]:
    """The schema of a spec, and the definitions that it refers to: one of them for each kind of stage."""
    definitions = _definitions(Spec, *STAGES.values())
    spec = definitions.pop("Spec")
    definitions.pop("Stage")
    for kind, record in STAGES.items():
        stage = definitions[record.__name__]
        stage["title"] = kind
        stage["required"] = ["kind", *stage["required"]]
    kinds = [_ref(record.__name__) for record in STAGES.values()]
    spec["properties"]["stages"] = {"type": "array", "items": {"oneOf": kinds}, "minItems": 1}
    return spec, definitions


def _definitions(*records: type[Record]) -> dict[str, Schema]:
    """The records and all that they hold, by name, as they are written in files."""
    _, schema = models_json_schema([(record, "validation") for record in records], by_alias=True)
    return {name: _tidy(definition) for name, definition in schema["$defs"].items()}


def _tidy(schema: Any) -> Any:
    """A schema without fields' titles, which repeat their names, and with no key beside those of a pattern."""
    if isinstance(schema, list):
        return [_tidy(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _tidy(value) for key, value in schema.items()}
    for entry in plain.get("properties", {}).values():
        entry.pop("title", None)
    return {"additionalProperties": False, **plain} if "patternProperties" in plain else plain


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _only(properties: Mapping[str, Schema]) -> Schema:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _given(field: str) -> Schema:
    """Where a field is there, and is not null."""
    return {"properties": {field: {"not": {"type": "null"}}}, "required": [field]}


def _field_schemas(definitions: Mapping[str, Schema], clip: Schema) -> dict[str, Schema]:
    """What each field that may vary takes, in any of the kinds that have it."""
    found: dict[str, list[Schema]] = {}
    for record in STAGES.values():
        for name, schema in definitions[record.__name__]["properties"].items():
            rule = {key: value for key, value in schema.items() if key != "default"}
            if name not in ("kind", "name", "from") and rule not in found.setdefault(name, []):
                found[name].append(rule)
    one = {name: rules[0] if len(rules) == 1 else {"anyOf": rules} for name, rules in found.items()}
    clips = {key: value for key, value in clip.items() if key != "default"}
    return {"clip": clips, "clip.frames": POSITIVE, "clip.size": POSITIVE, **one}


def _set(fields: Mapping[str, Schema]) -> Schema:
    """`set`: a value or a factor for each `pattern.field`."""
    rules = {
        f"^{re.escape(name)}$" if name in CLIP_FIELDS else rf"^.+\.{name}$": {"anyOf": [schema, _ref("Factor")]}
        for name, schema in fields.items()
    }
    text = "fields that are fixed for all networks, as `res*.depth: 1` or `'*.width': {scale: 0.25}`"
    return {"type": "object", "description": text, "patternProperties": rules, "additionalProperties": False}


def _complete_vary(vary: Schema, fields: Mapping[str, Schema]) -> None:
    """A line of `vary`: exactly one way, with values that differ and that the field can have."""
    properties, ways = vary["properties"], ("prefix", "each", "tied")
    properties["field"] = {"enum": list(fields), "description": "a field of stages, or of the clip"}
    for way in ways:
        number = {"minItems": 2, "maxItems": 2} if way == "prefix" else {"minItems": 1}
        values = {"type": "array", "uniqueItems": True, **number}
        factors = {"type": "object", "properties": {"scale": values}}
        scale = {**_ref("Scale"), "allOf": [factors]}
        properties[way]["anyOf"] = [values, _ref("Range"), scale, {"type": "null"}]
    vary["oneOf"] = [_given(way) for way in ways]
    vary["allOf"] = [
        {
            "if": {"properties": {"field": {"const": name}}, "required": ["field"]},
            "then": {"properties": {way: {"items": schema} for way in ways}},
        }
        for name, schema in fields.items()
    ]


def _objectives() -> Schema:
    direction = {"enum": list(get_args(Direction))}
    known = dict.fromkeys((*TRAINED_METRICS, *METRICS, LATENCY, *SCORES), direction)
    return {**_only(known), "minProperties": 1, "maxProperties": 4}


def _latency(timing: Schema) -> Schema:
    """A setting to measure under, or a table and what its setting must be; a table has no rounds."""
    table = {"type": "string", "description": "a file of `archsearch latency calibrate`"}
    timing["properties"] = {"table": table, **timing["properties"]}
    return {**timing, "dependentSchemas": {"table": {"properties": {"rounds": False}}}}
