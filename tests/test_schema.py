"""JSON Schemas of the files people write: they accept what the readers do, and refuse what is written wrongly."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import NET, RECIPE, SPACE
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from archsearch.errors import ArchsearchError, RecipeError, SpaceError, SpecError
from archsearch.files import parse_yaml, read_record
from archsearch.report.schema import SCHEMAS
from archsearch.space.file import parse_space
from archsearch.spec.presets import PRESETS
from archsearch.spec.spec import Spec, parse_spec, spec_data, spec_yaml
from archsearch.spec.stages import STAGES
from archsearch.training.recipe import Recipe

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed (the extra `dev`)")

ROOT = Path(__file__).parents[1]
VALIDATORS = {kind: jsonschema.Draft202012Validator(make()) for kind, make in SCHEMAS.items()}
FILES = {
    "spec": sorted(ROOT.glob("runs/*/candidates/*/spec.yaml"))[:12],
    "space": sorted([*ROOT.glob("search_spaces/*.yaml"), *ROOT.glob("runs/*/space.yaml")]),
    "recipe": sorted([*ROOT.glob("recipes/*.yaml"), *ROOT.glob("runs/*/recipe.yaml")]),
}
BY_HAND = """
name: by_hand
base:
  clip: {rgb: [3, 8, 32, 32], flow: [2, 8, 32, 32]}
  norm: {eps: 1e-3}
  stages:
    - {kind: conv, name: stem, from: rgb, width: 8, kernel: [frames, 7, 7], padding: [0, 3, 3], norm: inner, gate: true}
    - {kind: conv, name: side, from: [flow], width: 8, kernel: [frames, 7, 7], padding: [0, 3, 3]}
    - {kind: head, name: head, from: [stem, side], classes: 4}
set: {"s*.width": 16, stem.mid: {scale: 0.5}}
vary:
  - {field: width, stages: [stem], each: {low: 8, high: 32, step: 8}}
  - {field: gate, stages: [stem], tied: [false, true, {pool: time, bias: true}], prefix: null, name: gates}
  - {field: clip.size, tied: [32, 48]}
objectives: {loss: minimize, latency_ms: minimize, zen: maximize}
limits: {params: {min: 10, max: 1e6}, memory_mb: {max: 500}}
latency: {device: onnxruntime, batch: 2, rounds: 5}
search: {sampler: evolution, trials: 3, rungs: 2, inherit: 0.1, first: 2, first_by: zen}
"""


def read(kind, data):
    """The faults that the reader of such a file finds."""
    data = copy.deepcopy(data)
    try:
        if kind == "recipe":
            faults = []
            read_record(Recipe, data, "file", faults)
            return faults
        parse_spec(data, "file") if kind == "spec" else parse_space(data, "file", ROOT)
    except ArchsearchError as error:
        return list(error.lines)
    return []


@pytest.mark.parametrize("kind", SCHEMAS)
def test_they_are_schemas_of_the_draft_they_name(kind):
    schema = VALIDATORS[kind].schema
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)
    json.dumps(schema, allow_nan=False)
    references = {word for word in json.dumps(schema).split('"') if word.startswith("#/$defs/")}
    assert {word.removeprefix("#/$defs/") for word in references} == set(schema["$defs"])


@pytest.mark.parametrize("kind", SCHEMAS)
def test_files_that_come_along_are_valid(kind):
    assert len(FILES[kind]) > 5
    for path in FILES[kind]:
        errors = list(VALIDATORS[kind].iter_errors(parse_yaml(path.read_text(), str(path), SpecError)))
        assert not errors, f"{path}: {errors[0]}"


def test_every_preset_is_valid():
    for name, make in PRESETS.items():
        data = parse_yaml(spec_yaml(make()), name, SpecError)
        errors = list(VALIDATORS["spec"].iter_errors(data))
        assert not errors, f"{name}: {errors[0]}"


def test_what_is_rarely_written_is_valid():
    by_hand = parse_yaml(BY_HAND, "by_hand", SpaceError)
    assert read("space", by_hand) == []
    assert list(VALIDATORS["space"].iter_errors(by_hand)) == []
    net = parse_yaml(NET, "net", SpecError)
    table = {
        **SPACE,
        "base": {key: net[key] for key in ("clip", "stages")},
        "latency": {"table": "a.json", "threads": 1},
    }
    assert list(VALIDATORS["space"].iter_errors(table)) == []
    recipe = {"milestones": [3, 0.5], "schedule": "steps", "stride": [1, 4], "lr_factors": {"res*": 0.1}, "ema": None}
    assert read("recipe", recipe) == []
    assert list(VALIDATORS["recipe"].iter_errors(recipe)) == []


def changed(data, path, value):
    data = copy.deepcopy(data)
    *way, last = path
    place = data
    for step in way:
        place = place[step]
    place[last] = value
    return data


STAGE = ("stages", 1)
BROKEN = [
    ("spec", ("widht",), 3),
    ("spec", ("clip",), [3, 4, 32]),
    ("spec", ("clip",), {"Rgb": [3, 4, 32, 32]}),
    ("spec", ("name",), "a b"),
    ("spec", ("padding",), "valid"),
    ("spec", ("norm",), {"eps": 0}),
    ("spec", ("stages",), []),
    ("spec", ("stages",), {}),
    ("spec", (*STAGE, "kind"), "residal"),
    ("spec", (*STAGE, "widht"), 8),
    ("spec", (*STAGE, "growth"), 8),  # a field of another kind
    ("spec", (*STAGE, "width"), 0),
    ("spec", (*STAGE, "width"), "wide"),
    ("spec", (*STAGE, "depth"), 1001),
    ("spec", (*STAGE, "conv"), "3D"),
    ("spec", (*STAGE, "stride"), [1, 2]),
    ("spec", (*STAGE, "kernel"), [3, "frames", 3]),
    ("spec", (*STAGE, "gate"), {"pool": "all"}),
    ("spec", (*STAGE, "from"), [3]),
    ("spec", ("stages", 3, "pool"), ["all", 1]),
    ("recipe", ("epochs",), 0),
    ("recipe", ("epocs",), 3),
    ("recipe", ("optimizer",), "adam"),
    ("recipe", ("lr",), 0),
    ("recipe", ("flip",), "no"),
    ("recipe", ("mean",), [0.5, 0.5]),
    ("recipe", ("milestones",), []),
    ("recipe", ("milestones",), [1.5]),
    ("recipe", ("lr_factors",), {"res*": 0}),
    ("recipe", ("stride",), "all"),
    ("space", ("base",), "r3d_19"),
    ("space", ("base",), {"clip": [3, 4, 32, 32]}),
    ("space", ("set", "res*.depht"), 1),
    ("space", ("set", "depth"), 1),
    ("space", ("set", "res*.depth"), "deep"),
    ("space", ("set", "*.width"), {"scale": 0}),
    ("space", ("vary",), []),
    ("space", ("vary", 0, "field"), "con"),
    ("space", ("vary", 0, "prefix"), ["2d", "3d"]),  # beside `each`
    ("space", ("vary", 0, "each"), ["2d", "2d"]),
    ("space", ("vary", 0, "each"), ["2d", "4d"]),
    ("space", ("vary", 0, "each"), {"low": 1}),
    ("space", ("vary", 0), {"field": "conv", "stages": ["res*"]}),
    ("space", ("vary", 0), {"field": "conv", "stages": ["res*"], "prefix": ["2d"]}),
    ("space", ("vary", 0), {"field": "depth", "stages": ["res*"], "each": [1, 0]}),
    ("space", ("vary", 0), {"field": "clip", "tied": [[3, 4, 32, 32], [3, 4, 32]]}),
    ("space", ("objectives",), {}),
    ("space", ("objectives",), {"top2": "maximize"}),
    ("space", ("objectives",), {"top1": "up"}),
    ("space", ("limits",), {"top1": {"min": 0.5}}),
    ("space", ("limits",), {"gmacs": {}}),
    ("space", ("limits",), {"gmacs": 3}),
    ("space", ("published",), ["r3d"]),
    ("space", ("latency",), {"device": "tpu"}),
    ("space", ("latency",), {"table": "none.json", "rounds": 3}),
    ("space", ("search", "sampler"), "random_search"),
    ("space", ("search", "eta"), 1),
]
VALID = {"spec": parse_yaml(NET, "net", SpecError), "recipe": RECIPE, "space": SPACE}


@pytest.mark.parametrize(("kind", "path", "value"), BROKEN, ids=lambda value: str(value).replace("/", ""))
def test_what_is_written_wrongly_is_refused_by_both(kind, path, value):
    data = changed(VALID[kind], path, value)
    assert read(kind, data), "the reader accepts it"
    assert list(VALIDATORS[kind].iter_errors(data)), "the schema accepts it"


@pytest.mark.parametrize("kind", ["spec", "space"])
def test_what_is_missing_is_refused_by_both(kind):
    assert (read(kind, VALID[kind]), list(VALIDATORS[kind].iter_errors(VALID[kind]))) == ([], [])
    for field in VALID[kind]:
        rest = {name: value for name, value in VALID[kind].items() if name != field}
        assert bool(read(kind, rest)) == bool(list(VALIDATORS[kind].iter_errors(rest))), field


@pytest.mark.parametrize("kind", STAGES)
def test_a_fault_of_a_stage_is_told_by_its_kind_alone(kind):
    """Of the ten alternatives nine fail at `kind`, which tells an editor whose fault to show."""
    spec = next(make() for make in PRESETS.values() if kind in kinds(make()))
    data = json.loads(json.dumps(spec_data(spec)))
    place = kinds(spec).index(kind)
    (error,) = VALIDATORS["spec"].iter_errors(changed(data, ("stages", place, "widht"), 3))
    assert list(error.path) == ["stages", place]
    branches = {branch: [e for e in error.context if e.schema_path[0] == branch] for branch in range(len(STAGES))}
    own = [faults for faults in branches.values() if not any(list(fault.path) == ["kind"] for fault in faults)]
    assert [[fault.message for fault in faults] for faults in own] == [
        ["Additional properties are not allowed ('widht' was unexpected)"]
    ]


def kinds(spec):
    return [stage.kind for stage in spec.stages]


def test_records_are_described_and_fields_that_are():
    definitions = VALIDATORS["spec"].schema["$defs"]
    for kind, record in STAGES.items():
        assert definitions[record.__name__]["title"] == kind
        assert definitions[record.__name__]["description"].startswith(record.__doc__.split("\n")[0])
        assert definitions[record.__name__]["additionalProperties"] is False
    assert definitions["ConvStage"]["properties"]["stride"]["description"].startswith("a positive integer or three")
    for kind in SCHEMAS:
        assert VALIDATORS[kind].schema["title"] == f"archsearch {kind}"
        assert VALIDATORS[kind].schema["description"]


# no texts of numbers and no whole numbers with a point: some fields are read from these, no schema tells the latter
VALUES = st.one_of(
    st.integers(-2, 40),
    st.sampled_from([0.25, 0.5, 1.5, -0.5, 1e7 + 0.5, 10**7]),
    st.sampled_from(["", "3d", "2+1d", "conv", "all", "frames", "res*", "stem", "maximize", "A b", "r3d_18", "cosine"]),
    st.sampled_from([None, True, False, [], {}, [3], [1, 2, 2], [0.5, 0.5, 0.5], ["res*"], {"scale": 0.5}, {"max": 1}]),
    st.sampled_from([{"low": 1, "high": 3}, {"scale": [0.5, 1]}, [2, [1, 2, 2]], {"pool": "time"}, [1, 2, 3, 4]]),
)


def paths(data, path=()):
    yield path
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in entries:
        yield from paths(value, (*path, key))


@st.composite
def mutants(draw, kind, sources):
    """A valid file with one or two places replaced, taken away, or given a field that may be another's."""
    data = copy.deepcopy(draw(st.sampled_from(sources)))
    names = sorted({name for record in STAGES.values() for name in record.model_fields} - {"from_", "kind"})
    names += ["from", "trials", "max", "each", "prefix", "eps", "res*.depth", "gmacs", "widht", *Recipe.model_fields]
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(sorted(paths(data), key=str)))
        place, value = data, copy.deepcopy(draw(VALUES))
        for step in path[:-1]:
            place = place[step]
        target = place[path[-1]] if path else data
        if isinstance(target, dict) and (not path or draw(st.booleans())):
            target[draw(st.sampled_from(names))] = value
        elif path and draw(st.integers(0, 3)) == 0:
            del place[path[-1]]
        elif path:
            place[path[-1]] = value
    return data


def written_wrongly(record, data):
    """Whether a record refuses data for more than a contradiction, read strictly as JSON is."""
    try:
        record.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        return any(fault["type"] != "value_error" for fault in error.errors())
    return False


@given(mutants("recipe", [RECIPE, *(parse_yaml(p.read_text(), "", RecipeError) for p in FILES["recipe"])]))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_a_recipe_is_valid_just_where_its_record_reads_it(data):
    assert VALIDATORS["recipe"].is_valid(data) != written_wrongly(Recipe, data)


SPECS = [json.loads(json.dumps(spec_data(PRESETS[name]()))) for name in ("r3d_18", "s3d_g", "x3d_s", "two_stream_i3d")]
SMALL = [{**spec, "stages": spec["stages"][:3] + spec["stages"][-2:]} for spec in SPECS]  # the ends, which may not fit


@given(mutants("spec", [VALID["spec"], *SMALL]))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_a_spec_is_valid_just_where_its_records_read_it(data):
    stages = data.get("stages")
    wrong = written_wrongly(Spec, {**data, "stages": []}) or not isinstance(stages, list) or not stages
    wrong = wrong or any(
        not isinstance(stage, dict)
        or not isinstance(stage.get("kind"), str)
        or stage["kind"] not in STAGES
        or written_wrongly(STAGES[stage["kind"]], stage)
        for stage in stages
    )
    assert VALIDATORS["spec"].is_valid(data) != wrong


FORM = (
    "unknown field",
    "unknown metric",
    "unknown kind",
    "expected fields",
    "is not one of",
    "is not known before training",
    "is not maximize",
    "there is no preset",
    "give one to four",
    "give min, max or both",
    "give one of prefix, each, tied",
)  # of what is written, not of what it means
SPACES = [
    SPACE,
    parse_yaml(BY_HAND, "", SpaceError),
    parse_yaml((ROOT / "search_spaces/mcx.yaml").read_text(), "", SpaceError),
]


@given(mutants("space", SPACES))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_valid_space_has_faults_of_meaning_alone(data):
    faults = read("space", data)
    if VALIDATORS["space"].is_valid(data):
        ranges = [line["field"] for line in data["vary"] if any(isinstance(value, dict) for value in line.values())]
        wrong = [line for line in faults if any(form in line for form in FORM)]
        assert not [line for line in wrong if not any(f"({field})" in line for field in ranges)]  # a range of `conv`
    else:
        assert faults


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_command_prints_or_writes_it(cli, kind, tmp_path):
    code, out, err = cli("schema", kind)
    assert (code, err) == (0, [])
    assert json.loads(out) == VALIDATORS[kind].schema
    file = tmp_path / "new" / f"{kind}.json"
    assert cli("schema", kind, "--out", file)[:2] == (0, "")
    assert file.read_text() == out


def test_other_files_have_none(cli):
    code, out, err = cli("schema", "weights")
    assert (code, out) == (2, "")
    assert "'spec', 'space', 'recipe'" in err[-1]


@pytest.fixture
def installed(tmp_path):
    """A folder with this archsearch as a command, and the environment of a shell that finds it there."""
    file = tmp_path / "archsearch"
    file.write_text(f"#!{sys.executable}\nfrom archsearch.cli import main\nmain()\n")
    file.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}


def test_shells_complete_commands_kinds_and_presets(installed):
    def completed(*words):
        place = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
        environment = {**installed, **place, "_ARCHSEARCH_COMPLETE": "complete_bash"}
        done = subprocess.run(["archsearch"], env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    assert completed("archsearch", "sche") == ["schema"]
    assert completed("archsearch", "schema", "sp") == ["spec", "space"]
    assert completed("archsearch", "show", "r3d") == ["r3d_18", "r3d_34"]
    assert completed("archsearch", "show", "search_sp") == []  # bash goes on with files, as it was told to


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_runs_the_completion_it_is_given(installed):
    lines = [
        'eval "$(_ARCHSEARCH_COMPLETE=source_bash archsearch)"',
        "COMP_WORDS=(archsearch train x3d_); COMP_CWORD=2",
        "_archsearch_completion archsearch",
        'echo "${COMPREPLY[@]}"',
        "complete -p archsearch",
    ]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], env=installed, capture_output=True, text=True, check=True)
    offered, registered = done.stdout.splitlines()
    assert offered.split() == ["x3d_xs", "x3d_s", "x3d_m", "x3d_l"]
    assert registered == "complete -o default -F _archsearch_completion archsearch"
