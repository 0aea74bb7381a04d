"""Imports go only downward, and what needs no torch does not load it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import archsearch

ROOT = Path(archsearch.__file__).parent
ROOMS = (
    *("errors", "files", "store", "versions", "spec", "space", "front"),
    *("nets", "video", "training", "search", "report", "api", "cli"),
)
HEAVY = {"torch", "optuna", "ray", "matplotlib", "sklearn"}
TORCHLESS = ["spec", "space", "front"]


def room_of(module):
    return module.split(".")[1] if module.count(".") else ""


def imports_of(path):
    """The modules of archsearch that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "archsearch")


def test_every_file_is_in_a_room():
    found = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in ROOT.rglob("*.py")}
    assert found - {"__init__", "__main__"} <= set(ROOMS)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_only_downward(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if room.startswith("__"):
        return
    for module in imports_of(path):
        other = room_of(module)
        assert other in ROOMS, f"imports {module}"
        assert ROOMS.index(other) <= ROOMS.index(room), f"{room} imports {module}"


def loaded_by(code):
    """Which heavy packages stand in memory after some code, in a fresh process."""
    report = f"{code}\nimport sys\nprint(*sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_what_needs_no_torch_does_not_load_it():
    files = sorted(path for room in TORCHLESS for path in (ROOT / room).glob("*.py"))
    modules = [f"archsearch.{path.parent.name}.{path.stem}" for path in files if path.stem != "__init__"]
    assert len(modules) > 8
    modules += ["archsearch.files", "archsearch.store", "archsearch.cli", "archsearch.search.results"]
    modules += ["archsearch.report.networks", "archsearch.training.onnx_model", "archsearch.api.predicting"]
    assert loaded_by(f"import {', '.join(modules)}") & {"torch", "ray"} == set()


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom archsearch.cli import main\nsys.argv = ['archsearch', '--help']\n"
        "try:\n    main()\nexcept SystemExit as error:\n    assert not error.code"
    )
    assert loaded_by(code) == set()


def test_show_loads_nothing_heavy():
    code = "import sys\nfrom archsearch.cli import main\nsys.argv = ['archsearch', 'show', 'r3d_18', '--json']\n"
    assert loaded_by(f"{code}try:\n    main()\nexcept SystemExit as error:\n    assert not error.code") == set()
