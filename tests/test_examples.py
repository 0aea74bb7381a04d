"""The examples run from top to bottom, as scripts, on clips that are given or made."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import archsearch

EXAMPLES = sorted((Path(archsearch.__file__).parent.parent / "examples").glob("*.py"))
WRITTEN = {
    "compare_the_designs": ("designs/speed.png", "designs/confusion.png", "designs/mc3_18/weights.safetensors"),
    "cut_a_trained_network": ("cut/tuned/weights.safetensors", "cut/model/model.onnx", "cut/model/MODEL.md"),
    "search_on_my_clips": ("search/space.png", "search/front.png", "search/run/run.json", "search/confusion.png"),
}


def run_example(path, folder, *args):
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-W", "error::DeprecationWarning:archsearch", str(path), *map(str, args)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in WRITTEN[path.stem]:
        assert (folder / "example" / name).stat().st_size > 0
    return done.stdout


def test_every_example_is_run():
    assert [path.stem for path in EXAMPLES] == sorted(WRITTEN)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_notebook_that_says_what_it_does(path):
    text = path.read_text()
    cells = text.split("# %%")
    assert text.startswith("# %% [markdown]\n# # ")
    assert sum(cell.startswith(" [markdown]") for cell in cells) >= 4
    assert max(map(len, text.splitlines())) <= 120
    for cell in cells[1:]:
        lines = cell.splitlines()[1:]
        if cell.startswith(" [markdown]"):
            assert all(line.startswith("#") or not line for line in lines)
            assert len(lines) <= 15
        else:
            ast.parse("\n".join(lines))  # whole on its own
    used = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute) and is_api(node.value)}
    assert used
    assert used <= set(archsearch.__all__)


def is_api(node):
    return isinstance(node, ast.Name) and node.id == "a"


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES[:2], ids=lambda path: path.stem)
def test_an_example_runs_on_a_folder(path, demo, tmp_path):
    said = run_example(path, tmp_path, demo)
    assert f"clips: {demo}" in said
    assert "top-1" in said
    assert not (tmp_path / "example" / "clips").exists()


@pytest.mark.slow
def test_a_search_runs_on_clips_that_it_makes_and_goes_on(tmp_path):
    said = run_example(EXAMPLES[2], tmp_path)
    assert "on the front" in said
    assert "played backwards: " in said
    assert (tmp_path / "example" / "clips" / "test" / "left").is_dir()
    again = run_example(EXAMPLES[2], tmp_path)
    assert again == said  # everything is there, and nothing is trained again
