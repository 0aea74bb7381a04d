"""Spaces: what the files contain, what each way to vary means, and what a faulty file is told."""

import itertools
from pathlib import Path

import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from archsearch.errors import ArchsearchError, SpaceError, SpecError
from archsearch.space.choices import option_name
from archsearch.space.file import parse_space, read_space
from archsearch.space.space import Limit
from archsearch.spec.cost import total_cost
from archsearch.spec.presets import preset
from archsearch.spec.spec import digest, lower, parse_spec, spec_yaml, with_classes, with_clip

FILES = sorted((Path(__file__).parent.parent / "search_spaces").glob("*.yaml"))
CONV = {"field": "conv", "stages": ["stem", "res*"], "each": ["2d", "3d"]}
NAMES = ("stem", "res2", "res3", "res4", "res5")


def space_of(*vary, base="r3d_18", folder=Path("."), **fields):
    return parse_space({"name": "s", "base": base, "vary": list(vary), **fields}, "s.yaml", folder)


def lines_of(*vary, error=SpaceError, **fields):
    with pytest.raises(error) as caught:
        space_of(*vary, **fields)
    assert all(len(line.splitlines()) == 1 for line in caught.value.lines)
    return caught.value.lines


def values(space, field):
    """What a field is in every stage that has it, for each combination."""
    specs = [space.spec_at(positions) for positions in space.all_positions()]
    return [tuple(getattr(stage, field) for stage in spec.stages if hasattr(stage, field)) for spec in specs]


def with_set(name, data, base):
    """A preset under a file's `set`, by other means than the space's own: with the clip and classes of the base.

    A side of the clip that varies is the preset's own, unless it is set.
    """
    entries = data.get("set", {})
    spec = with_classes(preset(name), base.classes)
    varied = {vary["field"] for vary in data.get("vary", [])}
    (c, t, h, w), own = base.clip, spec.clip
    t = own[1] if "clip.frames" in varied and "clip" not in entries else t
    h, w = own[2:] if "clip.size" in varied else (h, w)
    spec = spec.model_copy(update={"clip": (c, t, h, w)})
    for path, value in entries.items():
        pattern, _, field = path.rpartition(".")
        if path.startswith("clip"):
            continue
        stages = []
        for stage in spec.stages:
            picked = stage.name == pattern or (pattern.endswith("*") and stage.name.startswith(pattern[:-1]))
            old = getattr(stage, field, None)
            if picked and old is not None:
                factor = value.get("scale") if isinstance(value, dict) else None
                new = max(1, round(old * factor)) if factor and isinstance(old, int) else old if factor else value
                stage = stage.model_copy(update={field: new})
            stages.append(stage)
        spec = spec.model_copy(update={"stages": tuple(stages)})
    return spec


# --- the files of the repository


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_contains_its_published_networks(path):
    space = read_space(path)
    data = yaml.safe_load(path.read_text())
    assert data["name"] == path.stem
    assert list(space.published) == data["published"]
    for name, choices in space.published.items():
        drawn = space.draw(FixedTrial(choices))
        assert digest(lower(drawn)) == digest(lower(with_set(name, data, space.base))), name
        assert drawn.name == space.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_random_draws_build_and_can_be_found_again(path):
    check_draws(read_space(path), 4)


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_many_random_draws_build_and_can_be_found_again(path):
    check_draws(read_space(path), 30)


def check_draws(space, count):
    from archsearch.nets.build import build_graph

    light = space.for_classes(5)
    drawn = list(light.sample_positions(count, seed=1))
    assert drawn == list(light.sample_positions(count, seed=1)) != list(light.sample_positions(count, seed=2))
    for number, positions in enumerate(drawn):
        spec = light.spec_at(positions)
        graph = lower(spec)
        assert spec.classes == 5
        assert parse_spec(yaml.safe_load(spec_yaml(spec)), "again") == spec
        assert light.draw(FixedTrial(light.choices(positions))) == spec
        found = light.positions(spec)
        assert digest(lower(light.spec_at(found))) == digest(graph)
        if len({digest(lower(light.spec_at(other))) for other in neighbours(light, positions)}) > 1:
            assert found == positions
        if number < 2:
            net = build_graph(graph)
            assert sum(p.numel() for p in net.parameters()) == total_cost(graph).params


def neighbours(space, positions):
    """The combinations that differ in one choice, and itself."""
    for place, parameter in enumerate(space.parameters):
        for other in range(len(parameter.options)):
            yield (*positions[:place], other, *positions[place + 1 :])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_study_may_propose_every_draw(path):
    space = read_space(path)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(5):
        trial = study.ask()
        spec = space.draw(trial)
        assert set(trial.params) == {p.path for p in space.parameters if len(p.options) > 1}
        assert space.draw(FixedTrial(trial.params)) == spec
        study.tell(trial, 0.0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_size_is_what_enumeration_counts(path):
    space = read_space(path)
    everything = list(itertools.islice(space.all_positions(), 5000))
    assert len(everything) == len(set(everything)) == min(space.size, 5000)
    if space.size <= 5000:
        assert everything == sorted(itertools.product(*(range(len(p.options)) for p in space.parameters)))


# --- the three ways


def test_prefix_is_one_cut():
    space = space_of({"field": "conv", "stages": ["stem", "res*"], "prefix": ["3d", "2d"]})
    assert values(space, "conv") == [("3d",) * k + ("2d",) * (5 - k) for k in range(6)]
    (cut,) = space.parameters
    assert (cut.path, cut.options, space.size) == ("stem,res*.conv.prefix", (0, 1, 2, 3, 4, 5), 6)
    for k, name in enumerate(["mc2_18", "mc3_18", "mc4_18", "mc5_18"], start=1):
        assert digest(lower(space.draw(FixedTrial({cut.path: k})))) == digest(lower(preset(name)))


def test_prefix_follows_the_order_of_stages_and_not_of_patterns():
    space = space_of({"field": "depth", "stages": ["res5", "res2"], "name": "cut", "prefix": [4, 7]})
    assert values(space, "depth") == [(7, 2, 2, 7), (4, 2, 2, 7), (4, 2, 2, 4)]


def test_each_stage_on_its_own():
    space = space_of({"field": "depth", "stages": ["res[23]"], "each": [1, 2, 3]})
    assert [p.path for p in space.parameters] == ["res2.depth", "res3.depth"]
    assert values(space, "depth") == [(a, b, 2, 2) for a, b in itertools.product((1, 2, 3), repeat=2)]


def test_tied_is_one_value_for_all():
    space = space_of({"field": "depth", "stages": ["res*"], "name": "depth", "tied": [1, 3]})
    assert values(space, "depth") == [(1, 1, 1, 1), (3, 3, 3, 3)]
    assert space.parameters[0].path == "depth"
    assert space.draw(FixedTrial({"depth": 3})) == space.spec_at((1,))


def test_scale_is_of_the_base_after_set():
    vary = {"field": "width", "stages": ["stem", "res*"], "name": "width", "tied": {"scale": [0.5, 1, 1.5]}}
    base = (64, 64, 128, 256, 512)
    assert values(space_of(vary), "width") == [tuple(round(w * f) for w in base) for f in (0.5, 1, 1.5)]
    small = space_of(vary, set={"*.width": {"scale": 0.125}})
    assert values(small, "width") == [tuple(round(w / 8 * f) for w in base) for f in (0.5, 1, 1.5)]
    tiny = space_of(vary, set={"*.width": {"scale": 1e-9}})
    assert set(values(tiny, "width")) == {(1,) * 5, (2,) * 5}


def test_range_is_low_step_high():
    space = space_of({"field": "depth", "stages": ["res2"], "each": {"low": 1, "high": 8, "step": 3}})
    assert [depths[0] for depths in values(space, "depth")] == [1, 4, 7]
    assert space.draw(FixedTrial({"res2.depth": 4})) == space.spec_at((1,))
    trial = optuna.create_study().ask()
    space.draw(trial)
    (distribution,) = trial.distributions.values()
    assert (distribution.low, distribution.high, distribution.step) == (1, 7, 3)


def test_clip_fields():
    space = space_of(
        {"field": "clip.frames", "tied": [8, 16]}, {"field": "clip.size", "tied": [56, 112]}, set={"clip.size": 64}
    )
    clips = [space.spec_at(positions).clip for positions in space.all_positions()]
    assert clips == [(3, 8, 56, 56), (3, 8, 112, 112), (3, 16, 56, 56), (3, 16, 112, 112)]
    assert space.base.clip == (3, 16, 64, 64)
    sizes = {"field": "clip", "tied": [[3, 8, 56, 56], [3, 4, 32, 48]]}
    whole = space_of(sizes, published=["r3d_18"], set={"clip": [3, 4, 32, 48]})
    assert whole.published == {"r3d_18": {"clip": "[3, 4, 32, 48]"}}
    assert whole.draw(FixedTrial({"clip": "[3, 4, 32, 48]"})).clip == (3, 4, 32, 48)


def test_options_that_are_no_plain_values():
    space = space_of(
        {"field": "bottleneck", "stages": ["res2"], "each": [None, 0.25]},
        {"field": "gate", "stages": ["res3"], "each": [False, {"pool": "time"}, {"pool": "space"}]},
        {"field": "kernel", "stages": ["stem"], "each": [[3, 7, 7], ["frames", 7, 7]]},
    )
    names = [[option_name(option) for option in parameter.options] for parameter in space.parameters]
    assert all(len(set(options)) == len(options) for options in names)
    for positions in space.all_positions():
        spec = space.spec_at(positions)
        assert space.draw(FixedTrial(space.choices(positions))) == spec
        assert space.positions(spec) == positions


def test_what_has_one_option_is_not_asked():
    space = space_of({"field": "depth", "stages": ["res*"], "each": [1]}, {**CONV, "each": ["2d", "3d"]})
    assert (space.size, len(space.choices((0,) * 9))) == (32, 5)
    assert space.draw(FixedTrial(space.choices((0,) * 9))) == space.spec_at((0,) * 9)


def test_set_by_pattern_exact_name_and_scale():
    space = space_of(CONV, set={"res*.depth": 1, "*.width": {"scale": 0.5}, "res[45].gate": {"pool": "time"}})
    stages = {stage.name: stage for stage in space.base.stages}
    assert [stages[name].width for name in NAMES] == [32, 32, 64, 128, 256]
    assert [stages[name].depth for name in NAMES[1:]] == [1, 1, 1, 1]
    assert [bool(stages[name].gate) for name in NAMES] == [False, False, False, True, True]
    assert stages["stem"].mid == 45
    assert stages["head"] == preset("r3d_18").stages[-1]
    both = space_of(CONV, base="torchvision_r2plus1d_18", set={"res2.mid": "conv", "res2.bottleneck": 0.25})
    assert both.base.stage("res2").bottleneck == 0.25


def test_classes_come_from_the_data():
    space = space_of(CONV, published=["r3d_18"])
    other = space.for_classes(7)
    assert (space.base.classes, other.base.classes) == (400, 7)
    assert other.draw(FixedTrial(other.published["r3d_18"])).classes == 7


def test_positions_of_a_network_that_is_not_there():
    space = space_of(CONV)
    assert space.positions(preset("r2plus1d_18")) is None
    assert space.positions(preset("r3d_34")) is None
    assert space.positions(with_clip(preset("r3d_18"), (3, 8, 56, 56))) is None
    assert space.positions(preset("r3d_18")) == (1,) * 5
    other = parse_spec(
        {"name": "n", "clip": [3, 8, 8, 8], "stages": [{"kind": "head", "name": "h", "classes": 2}]}, "n"
    )
    assert space.positions(other) is None


def test_choices_that_contradict_each_other():
    space = space_of(
        {"field": "temporal_start", "stages": ["res2"], "each": [0, 2]},
        {"field": "depth", "stages": ["res2"], "each": [3, 1]},
        base="r3d_34",
    )
    assert space.size == 4
    with pytest.raises(SpecError, match=r"^s: temporal_start 2 leaves no block of 1 that sees time") as caught:
        space.spec_at((1, 1))
    assert len(caught.value.lines) == 1
    assert all(space.spec_at(positions) for positions in ((0, 0), (0, 1), (1, 0)))


def test_a_base_in_a_file_and_a_base_in_place(tmp_path):
    (tmp_path / "net.yaml").write_text(spec_yaml(preset("r2d_18")))
    from_file = space_of(CONV | {"stages": ["res*"]}, base="net.yaml", folder=tmp_path)
    assert from_file.base == preset("r2d_18")
    assert from_file.draw(FixedTrial(from_file.choices((0,) * 4))).name == "s"
    data = yaml.safe_load(spec_yaml(preset("r2d_18")))
    del data["name"]
    assert space_of(CONV | {"stages": ["res*"]}, base=data).base.stages == from_file.base.stages
    assert lines_of(CONV, base="nett.yaml", folder=tmp_path)[0].endswith("no such file; did you mean 'net.yaml'?")


# --- limits


@pytest.mark.parametrize(
    ("limit", "value", "inside"),
    [
        ({"max": 2}, 2, True),
        ({"max": 2}, 2.0001, False),
        ({"min": 2}, 2, True),
        ({"min": 2}, 1.9999, False),
        ({"min": 1, "max": 2}, 1.5, True),
        ({"min": 1, "max": 2}, 0.5, False),
        ({"min": 1, "max": 2}, 3, False),
        ({"min": 0}, 0, True),
    ],
)
def test_the_sign_of_an_excess(limit, value, inside):
    assert (Limit(**limit).excess(value) <= 0) is inside


def test_an_excess_grows_with_the_distance():
    limit = Limit(min=10, max=20)
    assert limit.excess(30) == pytest.approx(0.5)
    assert limit.excess(5) == pytest.approx(0.5)
    assert limit.excess(25) < limit.excess(30)


@pytest.mark.parametrize("limit", [{}, {"max": 0}, {"max": -1}, {"min": -1}, {"min": 3, "max": 2}, 3, None, [1], "1"])
def test_a_limit_that_is_none(limit):
    (line,) = lines_of(CONV, limits={"gmacs": limit})
    assert line.startswith("s.yaml, limits, gmacs: ")


# --- faults

FIVE = {
    "in every part": (
        {
            "name": "a b",
            "base": "r3d_81",
            "vary": [{"field": "conv", "stagse": ["stem"], "each": ["2d", "3d"]}],
            "objectives": {"top": "maximize"},
            "limits": {"gmac": {"max": 1}},
        },
        [
            "s.yaml: name: 'a b' is not letters, digits and _ . + -",
            "objectives: unknown metric 'top'; did you mean 'top1'?",
            "limits: 'gmac' is not known before training; did you mean 'gmacs'?",
            "base: there is no preset 'r3d_81'; did you mean 'r3d_18'?",
            "vary 1: unknown field 'stagse'; did you mean 'stages'?",
        ],
    ),
    "in vary": (
        {
            "name": "s",
            "base": "r3d_18",
            "vary": [
                {"field": "cnov", "stages": ["res*"], "each": ["2d"]},
                {"field": "conv", "stages": ["rse2"], "each": ["2d"]},
                {"field": "width", "stages": ["res2"], "each": {"low": 4, "high": 2}},
                {"field": "depth", "stages": ["res*"], "tied": [1, "two"]},
                {"field": "conv", "stages": ["res3"], "each": ["2d"], "tied": ["3d"]},
            ],
        },
        [
            "vary 1 (cnov): no stage of r3d_18 has a field 'cnov'; did you mean 'conv'?",
            "vary 2 (conv): 'rse2' matches no stage of r3d_18; did you mean 'res2'?",
            "vary 3: each: low 4 is not below high 2",
            "vary 4 (depth), stage res2: depth: 'two' should be a valid integer",
            "vary 5: give one of prefix, each, tied; got each and tied",
        ],
    ),
    "in set, search and published": (
        {
            "name": "s",
            "base": "r3d_18",
            "vary": [CONV],
            "set": {"res*.dpeth": 1, "stem.width": -4, "clip.frames": True},
            "search": {"sampler": "tpee"},
            "published": ["r3d_81"],
        },
        [
            "search: sampler: 'tpee' is not one of tpe, nsga2, nsga3, gp, cmaes, evolution, surrogate, random, "
            "grid; did you mean 'tpe'?",
            "set, res*.dpeth: no stage of r3d_18 has a field 'dpeth'; did you mean 'depth'?",
            "set, stage stem: width: -4 should be greater than or equal to 1",
            "set: clip.frames: True is not a positive integer",
            "published: there is no preset 'r3d_81'; did you mean 'r3d_18'?",
        ],
    ),
    "in types": (
        {"name": [1], "vary": 3, "set": [], "limits": 3, "published": 5, "base": "r3d_18"},
        ["name: [1]", "set: []", "vary: 3", "limits: 3", "published: 5", "field 'vary' is missing or empty"],
    ),
    "in a base in place": (
        {
            "name": "s",
            "base": {"clip": 3, "stages": [{"kind": "conv", "name": "a", "widht": 1}, {"kind": "hed", "name": "b"}]},
            "vary": [CONV],
        },
        [
            "base, stage a: field 'width' is missing",
            "base, stage a: unknown field 'widht'; did you mean 'width'?",
            "base, stage b: unknown kind 'hed'; did you mean 'head'?",
            "base: clip: 3 is not four positive integers",
        ],
    ),
}


@pytest.mark.parametrize("name", FIVE)
def test_every_fault_of_a_file_is_one_line(name):
    data, said = FIVE[name]
    with pytest.raises(SpaceError) as caught:
        parse_space(data, "s.yaml", Path("."))
    lines = caught.value.lines
    for part in said:
        assert sum(part in line for line in lines) == 1, (part, lines)
    assert len(lines) == len(said), lines


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "s.yaml: the file is empty"),
        ("- 1", "s.yaml: expected `field: value` lines"),
        ("name: s\nname: t", "s.yaml, line 2, column 1: 'name' is given twice"),
        ("name: s\n\tbase: x", "s.yaml, line 2, column 1: found character"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path, text, said):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(SpaceError) as caught:
        read_space(path)
    (line,) = caught.value.lines
    assert said in line


WRONG = [
    ([CONV], {"base": ""}, "s.yaml: base: '' is not a preset's name"),
    ([CONV], {"set": {"clip": {"scale": 0.5}}}, "set, clip: (3, 16, 112, 112) is no whole number to scale"),
    ([CONV], {"set": {"*.width": {"scale": "x"}}}, "set, *.width: scale: 'x' should be"),
    ([CONV], {"set": {"*.width": {"scale": float("inf")}}}, "set, *.width: scale: inf should be"),
    ([CONV], {"set": {"*.width": {"scale": -1}}}, "set, *.width: scale: -1 should be greater than 0"),
    ([CONV], {"set": {"res2.temporal": "entry"}}, "set, stage res2: temporal: entry is of blocks with a bottleneck"),
    ([CONV, CONV | {"stages": ["res2"]}], {}, "vary 2 (conv): res2.conv is varied already by vary 1"),
    ([CONV | {"each": ["2d", "2d"]}], {}, "vary 1: each: ['2d', '2d'] should be values that differ"),
    ([CONV | {"each": []}], {}, "vary 1: each: [] should be values that differ"),
    ([CONV | {"stages": None}], {}, "vary 1 (conv): field 'stages' is missing"),
    ([{"field": "conv", "stages": ["res*"], "prefix": ["2d"]}], {}, "vary 1: prefix: ['2d'] should be two values"),
    ([{"field": "classes", "stages": ["res2"], "each": [1]}], {}, "(classes): stage res2 has no field 'classes'"),
    ([{"field": "clip.size", "stages": ["stem"], "tied": [8]}], {}, "(clip.size): clip.size belongs to no stage"),
    ([{"field": "conv", "stages": ["stem"], "each": {"scale": [1]}}], {}, "stem.conv is '3d', not a whole number"),
    ([{"field": "width", "stages": ["stem"], "each": {"low": 1, "high": 10**9}}], {}, "more than 1000 values"),
    ([CONV], {"objectives": {}}, "objectives: there are 0; give one to four"),
    ([CONV], {"published": ["r2plus1d_18"]}, "'r2plus1d_18' is not in the space: no option of stem.conv gives it"),
    ([CONV], {"published": ["r3d_34"]}, "published: 'r3d_34' is not in the space: its res2.depth is 3, the base's 2"),
    (
        [CONV | {"stages": ["res*"], "tied": ["2d", "3d"], "each": None, "name": "k"}, CONV | {"stages": ["stem"],
         "tied": ["2d", "3d"], "each": None, "name": "k"}],
        {}, "vary: two choices are named 'k'",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("vary", "fields", "said"), WRONG, ids=[said[:40] for _, _, said in WRONG])
def test_one_fault_is_one_line(vary, fields, said):
    (line,) = lines_of(*vary, **fields)
    assert line.startswith("s.yaml")
    assert said in line


# --- whatever a file says

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["res2", "2d", "", "r3d_18", "*"])
keys = st.sampled_from(["scale", "low", "high", "field", "stages", "each", "*.width", "clip", "pool"]) | scalars
hostile = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)
FIELDS = ("name", "base", "set", "vary", "objectives", "limits", "published", "search")
LINES = st.fixed_dictionaries(
    {"field": st.sampled_from(["conv", "width", "gate", "bottleneck", "clip", "clip.frames", "kernel"])},
    optional={
        "stages": st.just(["res2"]) | hostile,
        "each": hostile,
        "tied": st.lists(hostile, max_size=3),
        "prefix": st.lists(hostile, min_size=2, max_size=2),
    },
)
SETS = st.dictionaries(st.sampled_from(["*.width", "clip", "clip.size", "res*.gate", "stem.mid", "x"]), hostile)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.dictionaries(st.sampled_from(FIELDS), hostile, max_size=2)
    | st.fixed_dictionaries({"vary": st.lists(LINES, min_size=1, max_size=2)})
    | st.fixed_dictionaries({"set": SETS})
)
def test_any_file_is_a_space_or_lines(data):
    data = {"name": "s", "base": "r3d_18", "vary": [CONV], **data}
    lines = faults_of(data)
    assert lines != ()
    assert all(line and len(line.splitlines()) == 1 for line in lines or ())


def faults_of(data):
    """The lines of a space's faults, or None where it is a space that can be drawn from."""
    try:
        space = parse_space(data, "s.yaml", Path("."))
        lower(space.draw(FixedTrial(space.choices((0,) * len(space.parameters)))))
    except ArchsearchError as error:
        return error.lines
    return None
