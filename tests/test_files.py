"""Files people write: what is wrong comes as lines; files we write are whole."""

import os
import subprocess
import sys
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, model_validator

from archsearch import files
from archsearch.errors import ArchsearchError, RecipeError, SpecError
from archsearch.files import (
    Record,
    dump_yaml,
    near_name,
    near_or_all,
    parse_yaml,
    read_record,
    read_yaml,
    sweep,
    write_whole,
)


def fault_of(text):
    with pytest.raises(SpecError) as caught:
        parse_yaml(text, "f.yaml", SpecError)
    (line,) = caught.value.lines
    assert len(line.splitlines()) == 1
    return line


WRONG = {
    "": "f.yaml: the file is empty",
    "# a comment": "f.yaml: the file is empty",
    "- 1\n- 2": "f.yaml: expected `field: value` lines, got [1, 2]",
    "just text": "f.yaml: expected `field: value` lines, got 'just text'",
    "a: 1\nb: 2\na: 3": "f.yaml, line 3, column 1: 'a' is given twice",
    "a: {b: 1, b: 2}": "f.yaml, line 1, column 11: 'b' is given twice",
    "a: 1\n\tb: 2": "f.yaml, line 2, column 1: found character '\\t' that cannot start any token",
    "a: [1, 2": "f.yaml, line 1, column 9: expected ',' or ']'",
    "a: 'x": "f.yaml, line 1, column 6: found unexpected end of stream",
    "[1, 2]: 3": "f.yaml, line 1, column 1: a list cannot be a key",
    "a: *b": "f.yaml, line 1, column 4: found undefined alias 'b'",
    "a: !!python/object/apply:os.system [ls]": "f.yaml, line 1, column 4: could not determine a constructor for",
    "a: !!python/name:os.system": "f.yaml, line 1, column 4: could not determine a constructor for the tag",
    "--- {a: 1}\n--- {b: 2}": "f.yaml, line 2, column 1: but found another document",
    "a: \0": "f.yaml: not valid YAML: unacceptable character #x0000",
    "a: !!bool maybe": "f.yaml: not valid YAML: ",
    "a: !!int ''": "f.yaml: not valid YAML: ",
    "a: !!timestamp never": "f.yaml: not valid YAML: ",
    "a: 2020-99-99": "f.yaml: not valid YAML: month must be in 1..12",
    "a: " + 5000 * "9": "f.yaml: not valid YAML: Exceeds the limit",
    "a: " + 3000 * "[": "f.yaml: not valid YAML: nested too deeply",
    "a: &a [*a]": "f.yaml: too large, with its aliases spelled out",
}


@pytest.mark.parametrize("text", WRONG, ids=[said[8:40] for said in WRONG.values()])
def test_a_malformed_file_is_one_line(text):
    assert fault_of(text).startswith(WRONG[text])


def test_aliases_are_shared_values_but_no_bombs():
    assert parse_yaml("a: &k [3, 3]\nb: *k", "f", SpecError) == {"a": [3, 3], "b": [3, 3]}
    assert parse_yaml("a: &k {x: 1}\nb: {<<: *k, y: 2}", "f", SpecError)["b"] == {"x": 1, "y": 2}
    lists = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    maps = ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 40)]
    for bomb in (lists, maps):
        assert fault_of("\n".join(bomb)) == "f.yaml: too large, with its aliases spelled out"


@pytest.mark.parametrize("text", ["1e-5", "1E+3", "2.e4", "-1.5e3", ".5e1", "3e5"])
def test_exponents_are_numbers(text):
    value = parse_yaml(f"a: {text}", "f", SpecError)["a"]
    assert isinstance(value, float)
    assert value == float(text)


@pytest.mark.parametrize("text", ["e5", "1e", "1e5x", "2e-1e3", "2d", "1.2.3e4"])
def test_what_only_looks_like_an_exponent_is_text(text):
    assert parse_yaml(f"a: {text}", "f", SpecError) == {"a": text}


def test_a_missing_file_has_a_near_name(tmp_path):
    (tmp_path / "stagewise.yaml").write_text("a: 1")
    with pytest.raises(RecipeError, match=r"stagewize\.yaml: no such file; did you mean 'stagewise\.yaml'\?$"):
        read_yaml(tmp_path / "stagewize.yaml", RecipeError)
    with pytest.raises(RecipeError, match=r"nowhere/a\.yaml: no such file$"):
        read_yaml(tmp_path / "nowhere" / "a.yaml", RecipeError)


@pytest.mark.parametrize("name", ["binary", "folder", "null\0byte", 400 * "long"])
def test_what_is_no_text_file_is_one_line(tmp_path, name):
    (tmp_path / "binary").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SpecError) as caught:
        read_yaml(tmp_path / name, SpecError)
    (line,) = caught.value.lines
    assert "cannot be read as a YAML file: " in line
    assert len(line) < 400


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.dictionaries(st.text(min_size=1, max_size=4), plain, min_size=1, max_size=3))
def test_dumped_yaml_reads_back(data):
    assert parse_yaml(dump_yaml(data), "f", SpecError) == data


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.text(alphabet="ab01:-[]{}&*!<|>'\"#,?%\n\t ", max_size=30))
def test_any_text_is_a_mapping_or_one_line(text):
    try:
        assert isinstance(parse_yaml(text, "f.yaml", SpecError), dict)
    except SpecError as error:
        (line,) = error.lines
        assert line.startswith("f.yaml")


# --- records


class Inner(Record):
    low: Annotated[int, Field(ge=0)] = 0
    high: int = 1

    @model_validator(mode="after")
    def _check(self):
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class Outer(Record):
    width: int
    mode: Literal["fast", "slow"] = "fast"
    inner: Inner = Inner()
    choice: Annotated[int | tuple[int, int] | Literal["auto"], Field(description="a number, two of them or auto")] = 1
    from_: Annotated[str | None, Field(alias="from", description="a name")] = None


def record_faults(data):
    faults = []
    record = read_record(Outer, data, "f.yaml, here", faults)
    assert (record is None) == bool(faults)
    return [fault.removeprefix("f.yaml, here") for fault in faults]


def test_a_record_that_is_right():
    assert record_faults({"width": 3, "from": "x", "inner": {"low": 1}, "choice": [1, 2]}) == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, ": field 'width' is missing"),
        ({"width": 1, "widht": 2}, ": unknown field 'widht'; did you mean 'width'?"),
        ({"width": 1, "zzz": 2}, ": unknown field 'zzz'; there are: width, mode, inner, choice, from"),
        ({"width": 1, "mode": "fats"}, ": mode: 'fats' is not one of fast, slow; did you mean 'fast'?"),
        ({"width": 1, "mode": ["fast"]}, ": mode: ['fast'] is not one of fast, slow"),
        ({"width": 1, "choice": [1, "x"]}, ": choice: "),
        ({"width": 1, "choice": "atuo"}, " is not a number, two of them or auto; did you mean 'auto'?"),
        ({"width": 1, "choice": {"a": 1}}, ": choice: {'a': 1} is not a number, two of them or auto"),
        ({"width": 1, "from": 3}, ": from: 3 is not a name"),
        ({"width": 1, "inner": {"low": -1}}, ", inner: low: -1 should be greater than or equal to 0"),
        ({"width": 1, "inner": {"lw": 1}}, ", inner: unknown field 'lw'; did you mean 'low'?"),
        ({"width": 1, "inner": {"low": 3}}, ": inner: low 3 is above high 1"),
        ({"width": None}, ": width: None should be a valid integer"),
        ({"width": "a" * 500}, ": width: 'aaa"),
        ([1], ": expected fields, got [1]"),
        (None, ": expected fields, got None"),
        ({"width": 1, 3: 4}, "3: Keys should be strings"),
        ({"width": 1, "a\nb": 4}, ": unknown field 'a\\nb'"),
    ],
)
def test_a_faulty_field_is_one_line(data, said):
    (line,) = record_faults(data)
    assert said in line
    assert len(line.splitlines()) == 1
    assert len(line) < 200


def test_all_faults_of_a_record_at_once():
    lines = record_faults({"mode": 1, "inner": {"low": -1, "hihg": 2}, "choice": "x", "extra": 1})
    assert len(lines) == 6


def test_records_stand_on_their_own():
    assert Outer(width=1) == Outer(width=1)
    with pytest.raises(ValueError, match="frozen"):
        Outer(width=1).width = 2


def test_near_names():
    assert near_name("widht", ["width", "depth"]) == "; did you mean 'width'?"
    assert near_name("zzz", ["width"]) == ""
    assert near_name(None, []) == ""
    assert near_or_all("zzz", ["width", "depth"]) == "; there are: width, depth"
    assert near_or_all("deth", iter(["width", "depth"])) == "; did you mean 'depth'?"


def test_errors_cross_process_borders():
    import pickle

    error = pickle.loads(pickle.dumps(SpecError("one", "two")))
    assert (type(error), error.lines, str(error)) == (SpecError, ("one", "two"), "one\ntwo")
    assert isinstance(error, ArchsearchError)


# --- writing


def test_write_whole_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_whole(path, "é")
    assert path.read_bytes() == "é".encode()
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["b.txt"]


def test_what_killed_writers_leave_is_swept_and_nothing_else(tmp_path):
    write_whole(tmp_path / "a.txt", "whole")
    (tmp_path / ".hidden").touch()
    (tmp_path / "b.part").touch()
    killed = [sys.executable, "-c", KILLED, str(tmp_path / "a.txt")]
    assert subprocess.run(killed, check=False).returncode == -9
    assert len(os.listdir(tmp_path)) == 4
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "a.txt", "b.part"]
    assert (tmp_path / "a.txt").read_text() == "whole"
    sweep(tmp_path / "nowhere")


KILLED = """
import os, sys
from pathlib import Path
from archsearch.files import write_whole
os.replace = lambda *_: os.kill(os.getpid(), 9)
write_whole(Path(sys.argv[1]), "new")
"""


@pytest.mark.parametrize("broken", ["replace", "chmod", "content"])
def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch, broken):
    path = tmp_path / "a.txt"
    write_whole(path, "old")

    def fail(*_):
        raise KeyboardInterrupt

    if broken != "content":
        monkeypatch.setattr(files.os, broken, fail)
    with pytest.raises((KeyboardInterrupt, UnicodeEncodeError)):
        write_whole(path, "\ud800" if broken == "content" else "new")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["a.txt"]
    assert path.read_text() == "old"
