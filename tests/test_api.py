"""The Python API: the same answers as the commands', results that show themselves, the project's own errors."""

import doctest
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure
from rich.console import Group
from rich.text import Text

import archsearch as a
from archsearch import api, errors
from archsearch.api.shown import as_html, as_text, facts_table
from archsearch.nets.build import build
from archsearch.nets.weights import export_weights, write_state
from archsearch.report.networks import empty_table
from archsearch.spec.spec import spec_yaml

ROOT = Path(a.__file__).parent.parent
KEPT = ROOT / "runs" / "utd_mhad_depth"
RECIPE = {"epochs": 1, "batch": 8, "warmup_epochs": 0.5, "views": 2, "flip": False}
HOSTILE = "<script>alert(1)</script>\x1b[31m[bold]&\u202e"


def answered(cli, *args):
    """What a command prints with --json."""
    code, out, lines = cli(*args, "--json")
    assert code == 0, lines
    return json.loads(out)


def cells(page):
    """The texts of all cells of a page of HTML, row by row; it has to be well-formed."""
    root = ElementTree.fromstring(f"<div>{page}</div>")
    return [[cell.text or "" for cell in row] for row in root.iter("tr")]


def test_importing_it_loads_nothing_heavy():
    code = (
        "import sys, archsearch\n"
        "assert callable(archsearch.search) and archsearch.__version__\n"
        "heavy = {'torch', 'optuna', 'matplotlib', 'ray', 'rich', 'numpy', 'pydantic', 'yaml', 'av', 'plotly'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert archsearch.show('r3d_18')['params'] == 33371472\n"
        "repr(archsearch.load_run(sys.argv[1])), archsearch.read_space(sys.argv[2]).data\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, KEPT, ROOT / "search_spaces/demo.yaml"], check=True)


def test_every_verb_is_there_and_no_other_name():
    assert sorted(a.__all__) == sorted([*api.__all__, "ArchsearchError"])
    assert dir(a) == sorted([*a.__all__, "__version__"])
    for name in api.__all__:
        assert name == "search" or getattr(a, name) is getattr(api, name)
        assert getattr(a, name).__doc__ == getattr(api, name).__doc__
    assert a.ArchsearchError is errors.ArchsearchError
    with pytest.raises(AttributeError, match="'archsearch' has no attribute 'serch'"):
        a.serch  # noqa: B018


@pytest.mark.parametrize("name", ["Run", "compare", "load_run", "load_spec", "presets", "read_space", "show"])
def test_the_examples_of_docstrings_are_true(monkeypatch, name):
    monkeypatch.chdir(ROOT)
    found = doctest.DocTestFinder(recurse=False).find(getattr(api, name), name, globs={"archsearch": a})
    assert sum(len(each.examples) for each in found) > 0
    for each in found:
        assert doctest.DocTestRunner(optionflags=doctest.REPORT_ONLY_FIRST_FAILURE).run(each).failed == 0


def test_the_reference_is_that_of_the_docstrings():
    spec = importlib.util.spec_from_file_location("api_reference", ROOT / "docs" / "api_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert set(module.FUNCTIONS) == set(api.__all__) - {"Run"}
    _, _, written = module.PAGE.read_text().partition(module.MARK)
    assert written.strip() == module.reference().strip(), "python docs/api_reference.py writes it anew"


def test_networks_are_as_the_commands_tell_them(cli):
    assert a.show("r2plus1d_18", clip=(3, 8, 56, 56), classes=7).data == answered(
        cli, "show", "r2plus1d_18", "--clip", "3x8x56x56", "--classes", 7
    )
    assert a.compare("i3d", "s3d").data == answered(cli, "compare", "i3d", "s3d")
    assert list(a.presets().data) == answered(cli, "presets")
    file = ROOT / "search_spaces" / "small.yaml"
    assert a.read_space(file).data == answered(cli, "space", file)
    assert a.read_space(file).sample(3) == json.loads(cli("space", file, "--sample", 3)[1])
    two = a.compare(KEPT, str(KEPT))
    assert two.data == answered(cli, "compare", KEPT, KEPT)


def test_a_table_is_the_command_s(cli):
    assert repr(a.show("r3d_18")).split() == cli("show", "r3d_18")[1].split()
    assert repr(a.show("r3d_18", nodes=True)).split() == cli("show", "r3d_18", "--nodes")[1].split()
    assert repr(a.load_run(KEPT).front()).split() == cli("front", KEPT)[1].split()
    everyone = repr(a.load_run(KEPT).front(all_candidates=True))
    assert everyone.split() == cli("front", KEPT, "--all")[1].split()
    assert len(everyone.splitlines()) > 20
    chosen = a.load_run(KEPT).choose(at_most={"gmacs": 0.1}, thin=3)
    assert repr(chosen).split() == cli("choose", KEPT, "--max", "gmacs=0.1", "--thin", 3)[1].split()


def test_settings_are_those_of_surgery_s_option():
    spec = a.load_spec("r3d_18", settings={"res[45].conv": "2d", "res2.width": 32, "clip.frames": 8} | {})
    assert [stage.conv for stage in spec.stages[:-1]] == ["3d", "3d", "3d", "2d", "2d"]
    assert spec.stage("res2").width == 32


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"res9.conv": "2d"}, "settings, res9.conv: 'res9' matches no stage of r3d_18; did you mean 'res5'?"),
        ({"res2.konv": "2d"}, "settings, res2.konv: no stage of r3d_18 has a field 'konv'; did you mean 'conv'?"),
        ({"res2.conv": "5d"}, "settings, res2.conv, stage res2: conv: '5d' is not one of 2d, 3d, 2+1d, separable"),
    ],
)
def test_wrong_settings(settings, line):
    with pytest.raises(errors.SpecError) as fault:
        a.load_spec("r3d_18", settings={**settings, "stem.nothing": 1})
    assert fault.value.lines[0] == line
    assert len(fault.value.lines) == 2


@pytest.mark.parametrize(
    ("call", "error", "line"),
    [
        (lambda: a.load_spec("r3d_19"), errors.SpecError, "there is no preset 'r3d_19'; did you mean 'r3d_18'?"),
        (
            lambda: a.show("r3d_18", clip=(3, 16)),
            errors.SpecError,
            r"clip \(3, 16\): should be CxTxHxW, .*\(c, t, h, w\)",
        ),
        (lambda: a.show("r3d_18", clip=(3, 0, 9, 9)), errors.SpecError, r"clip \(3, 0, 9, 9\): should be"),
        (lambda: a.load_run(ROOT / "docs"), errors.RunError, "is no run folder"),
        (lambda: a.load_run(KEPT).choose(at_most={"gmac": 1}), errors.RunError, "did you mean 'gmacs'?"),
        (lambda: a.load_run(KEPT).choose(at_most={"gmacs": 0.01}), errors.RunError, "nearest is #19"),
        (lambda: a.load_run(KEPT).choose(knee=True, like="r3d_18"), errors.RunError, "one of knee and like"),
        (lambda: a.load_run(KEPT).front().plot("x.gif"), errors.ArchsearchError, "ends in .png or .svg"),
        (lambda: a.read_space("nothing.yaml"), errors.SpaceError, "nothing.yaml: no such file"),
        (lambda: a.bench(), errors.ArchsearchError, "name at least one network"),
        (lambda: a.bench("r3d_18", batches=[0]), errors.ArchsearchError, "bench: batch: 0"),
        (lambda: a.train("r3d_18", "x", out="y", recipe={"epoch": 1}), errors.RecipeError, "did you mean 'epochs'?"),
        (lambda: a.surgery("x"), errors.SurgeryError, "either a network or settings"),
        (lambda: a.predict("x", "y", runtime="tf"), errors.ArchsearchError, "runtime tf: should be one of torch, onnx"),
        (lambda: a.import_weights("weights", "r3d_18"), errors.WeightsError, "no ending to leave off"),
    ],
)
def test_faults_are_the_project_s_own(tmp_path, monkeypatch, call, error, line):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=line):
        call()
    assert not list(tmp_path.iterdir())


def test_the_run_that_is_kept(cli, tmp_path):
    run = a.load_run(KEPT)
    assert run.status().data == answered(cli, "status", KEPT)
    assert run.front().data == answered(cli, "front", KEPT)
    for options, words in [
        ({}, []),
        ({"knee": True}, ["--knee"]),
        ({"like": "r3d_18"}, ["--like", "r3d_18"]),
        ({"at_most": {"gmacs": 0.07}, "at_least": {"top1": 0.7}}, ["--max", "gmacs=0.07", "--min", "top1=0.7"]),
        ({"thin": 2}, ["--thin", 2]),
    ]:
        choice = run.choose(**options)
        assert choice.data == answered(cli, "choose", KEPT, *words)
        assert choice.folder == f"{KEPT}/candidates/{choice['chosen']['hash']}"
        assert not choice.shared
        assert (choice.representatives is None) == ("thin" not in options)
        assert f"why: {choice['why']}" in " ".join(map(str.strip, choice.lines))
    assert len(run.results.candidates) == 24
    assert len(run.results.front()) == 4
    assert repr(run).count("4 on the front") == 1
    assert "trials.complete" in repr(run)
    written = run.report(tmp_path / "page.html", tmp_path / "page.md")
    assert [path.name for path in written][:2] == ["page.html", "page.md"]
    assert all(p.exists() for p in written)
    assert next(path.suffix for path in run.report(markdown=tmp_path / "b.md")) == ".md"


def test_figures(cli, tmp_path):
    drawn = a.load_run(KEPT).front()
    figure = drawn.plot()
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")
    figure.axes[0].set_title("mine")  # it is the caller's
    drawn.plot(tmp_path / "api.svg")
    cli("front", KEPT, "--figure", tmp_path / "cli.svg")
    assert (tmp_path / "api.svg").read_bytes() == (tmp_path / "cli.svg").read_bytes()
    space = a.read_space(ROOT / "search_spaces" / "demo.yaml")
    assert isinstance(space.plot(tmp_path / "space.png"), Figure)
    assert (tmp_path / "space.png").stat().st_size > 10_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["api.svg", "cli.svg", "space.png"]


def test_names_that_do_harm_are_spelled_out(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(KEPT, folder)
    identity = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**identity, "name": HOSTILE}))
    run = a.load_run(folder)
    for text in (repr(run), repr(run.front()), repr(run.choose(thin=2))):
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "\\x1b[31m[bold]" in text
    page = run._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[31m[bold]&amp;\\u202e" in page
    assert ["19", "0.739", "0.0348", "225k"] in [row[:4] for row in cells(page)]


def test_html_of_every_kind_of_part():
    table = empty_table(HOSTILE)
    for name, way in (("left <", "left"), ("number", "right")):
        table.add_column(name, justify=way)
    table.add_row("[bold]marked[/bold]", Text("[bold]as it is"), end_section=True)
    table.add_row("<b>", "2\n3")
    table.caption = Text("below & out")
    page = as_html(Group(table, Text("after <it>"), facts_table({"a": {"b": 0.5}, "c<": 1})))
    assert cells(page)[:3] == [["left <", "number"], ["marked", "[bold]as it is"], ["<b>", "2\n3"]]
    assert cells(page)[4:] == [["a.b", "0.5000"], ["c<", "1"]]
    assert "<pre>after &lt;it&gt;</pre>" in page
    assert "<p>below &amp; out</p>" in page
    assert page.count("border-bottom") == 2
    assert page.count("text-align:right") == 3
    assert max(map(len, as_text(Text("word " * 100)).splitlines())) <= 100


def test_a_search_is_the_command_s(cli, clips, tmp_path, write_files, capsys):
    space, recipe = write_files(
        {"search": {"trials": 2, "order": "fixed", "block": 2}}, {"epochs": 1, "warmup_epochs": 0.5}
    )
    run = a.search(space, clips, out=tmp_path / "api", recipe=recipe, executor="serial", progress=False)
    assert capsys.readouterr() == ("", "")
    code, _, lines = cli("search", space, clips, "--out", tmp_path / "cli", "--recipe", recipe, "--executor", "serial")
    assert code == 0, lines
    assert run.front().data == answered(cli, "front", tmp_path / "cli")
    import archsearch.search.launch as rooms  # the package of that name is still one

    assert rooms.Wish
    assert isinstance(a.search, type(sys))
    again = a.search(space, clips, out=tmp_path / "api", recipe=recipe, executor="serial", trials=3)
    assert "done: 3 complete" in capsys.readouterr().err
    assert again == run
    assert run.status()["trials"]["complete"] == 3
    with pytest.raises(errors.RunError):
        a.search(space, clips, out=tmp_path / "api", recipe={**RECIPE, "seed": 5}, executor="serial", progress=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, clips, spec):
    folder = tmp_path_factory.mktemp("trained") / "net"
    found = a.train(spec, clips, out=folder, recipe=RECIPE, seed=3, progress=False)
    assert set(found["metrics"]) >= {"top1", "loss"}
    assert f"{found['metrics']['top1']:.4f}" in repr(found)
    assert str(folder) in repr(found)
    return folder


def test_training_is_the_command_s(cli, clips, spec, trained, tmp_path):
    (tmp_path / "net.yaml").write_text(spec_yaml(spec))
    (tmp_path / "recipe.yaml").write_text(json.dumps({**RECIPE, "seed": 3}))
    found = answered(
        cli, "train", tmp_path / "net.yaml", clips, "--out", tmp_path / "cli", "--recipe", tmp_path / "recipe.yaml"
    )
    again = a.train(spec, clips, out=trained, recipe=RECIPE, seed=3, progress=False)
    assert again["metrics"] == found["metrics"]
    assert (trained / "weights.safetensors").read_bytes() == (tmp_path / "cli" / "weights.safetensors").read_bytes()
    with pytest.raises(errors.RunError, match="holds a training with another recipe"):
        a.train(spec, clips, out=trained, recipe=RECIPE, seed=4, progress=False)
    tuned = a.train(
        trained, clips, out=tmp_path / "tuned", recipe={**RECIPE, "lr": 1e-9}, start=trained, progress=False
    )
    assert tuned["epochs"] == 1


def test_scoring_is_the_command_s(cli, clips, trained, tmp_path, capsys):
    found = a.evaluate(trained, clips, split="test", reverse=True, scores=tmp_path / "s.npz", progress=False)
    assert capsys.readouterr() == ("", "")
    assert found.data == answered(cli, "evaluate", trained, clips, "--split", "test", "--reverse")
    assert (tmp_path / "s.npz").exists()
    assert isinstance(found.plot(), Figure)
    a.evaluate(trained, clips)
    assert "scoring: 24/24" in capsys.readouterr().err


def test_surgery_is_the_command_s(cli, clips, trained, tmp_path):
    planned = a.surgery(trained, settings={"res*.conv": "2d"})
    assert planned.data == answered(cli, "surgery", trained, "--set", "res*.conv=2d", "--dry-run")
    assert "approximate" in repr(planned)
    assert ["res2.0.conv1", "approximate"] in [row[:2] for row in cells(planned._repr_html_())]
    a.surgery(trained, settings={"res*.conv": "2d"}, out=tmp_path / "api", data=clips, progress=False)
    code, *_ = cli("surgery", trained, "--set", "res*.conv=2d", "--out", tmp_path / "cli", "--data", clips)
    assert code == 0
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("api", "cli")]
    assert weights[0] == weights[1]
    shorter = a.surgery(trained, settings={"res3.conv": "2d", "clip.frames": 3})
    words = [f"--set={each}" for each in ("res3.conv=2d", "clip.frames=3", "res*.conv=3d", "res3.conv=2d")]
    assert shorter.data == answered(cli, "surgery", trained, *words, "--dry-run")
    assert shorter["macs"]["after"] < planned["macs"]["before"]
    code, _, lines = cli("surgery", trained, "--set", "res9.conv=2d", "--set", "clip.frames=0", "--dry-run")
    assert code == 1
    assert lines[0].startswith("--set res9.conv=2d: 'res9' matches no stage of net")
    assert lines[1] == "--set clip.frames=0: clip.frames: 0 is not a positive integer"
    wanted = a.load_spec(trained, settings={"res3.width": 12})
    assert a.surgery(trained, wanted)["params"]["after"] < planned["params"]["before"]


def test_predictions_are_the_command_s(cli, clips, trained, tmp_path):
    videos = [clips / "test" / "left" / "0.mp4", clips / "test" / "right" / "1.mp4"]
    found = a.predict(trained, videos, top=2, progress=False)
    assert found["videos"] == answered(cli, "predict", trained, *videos, "--top", 2)["videos"]
    assert not found["failed"]
    along = a.predict(trained, str(videos[0]), every=0.2, seconds=0.3, progress=False)
    told = answered(cli, "predict", trained, videos[0], "--every", 0.2, "--seconds", 0.3)
    assert along["videos"] == told["videos"]
    assert "segments" in repr(along)
    assert a.predict(trained, clips / "test", progress=False)["videos"][0]["scores"][0].keys() == {"label", "score"}


def test_a_video_that_is_none_is_told_and_the_next_one_goes_on(clips, trained, tmp_path):
    broken = tmp_path / "a[bold]\x1b<b>.mp4"
    broken.write_bytes(b"nothing")
    found = a.predict(trained, [broken, tmp_path / "missing.mp4", clips / "test" / "left" / "0.mp4"], progress=False)
    assert [each["video"] for each in found["failed"]] == [str(broken), str(tmp_path / "missing.mp4")]
    assert len(found["videos"]) == 1
    assert "\x1b" not in repr(found)
    assert "could not be read" in repr(found)
    assert "<b>" not in found._repr_html_()


def test_weights_are_imported(cli, tmp_path):
    small = {"stem.width": 8, "res2.width": 8, "res3.width": 8, "res4.width": 8, "res5.width": 8}
    spec = a.load_spec("r3d_18", clip=(3, 4, 32, 32), classes=4, settings=small)
    (tmp_path / "net.yaml").write_text(spec_yaml(spec))
    write_state(tmp_path / "w.safetensors", export_weights(spec, build(spec, seed=1).state_dict(), "torchvision"))
    found = a.import_weights(tmp_path / "w.safetensors", spec)
    assert found["folder"] == str(tmp_path / "w")
    assert found["fresh"] == 0
    assert "preprocessing" in repr(found)
    file = tmp_path / "w.safetensors"
    told = answered(cli, "weights", "import", file, "--as", tmp_path / "net.yaml", "--out", tmp_path / "x")
    assert {**told, "folder": found["folder"]} == found.data
    assert a.show(tmp_path / "w")["params"] == a.show(spec)["params"]


@pytest.mark.slow
def test_a_model_folder_is_written(clips, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = a.export(trained, data=clips, progress=False)
    assert found["folder"] == "net_model"
    assert {"model.onnx", "model.pt2"} <= found["files"].keys()
    assert "archsearch.export(" in (tmp_path / "net_model" / "MODEL.md").read_text()
    assert "net_model" in repr(found)
    assert found["accuracy"]["val_onnx"]["videos"] == 12
    video = clips / "test" / "left" / "0.mp4"
    torch_says, onnx_says = (
        a.predict(tmp_path / "net_model", video, runtime=name, progress=False) for name in ("torch", "onnx")
    )
    for one, other in zip(torch_says["videos"][0]["scores"], onnx_says["videos"][0]["scores"], strict=True):
        assert one["label"] == other["label"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_bench_measures_and_draws_also_in_a_script_without_a_guard(tmp_path, spec):
    (tmp_path / "net.yaml").write_text(spec_yaml(spec))
    (tmp_path / "script.py").write_text(
        "print('began')\n"
        "import archsearch as a\n"
        "found = a.bench('net.yaml', 'net.yaml', rounds=2, progress=False)\n"
        "found.plot('bench.png')\n"
        "print([row['name'] for row in found['networks']])\n"
        "assert all(row['median_ms'] > 0 and row['peak_memory_bytes'] > 0 for row in found['networks'])\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["began", "['net.yaml', 'net.yaml (2)']"]
    assert (tmp_path / "bench.png").exists()


@pytest.mark.slow
def test_a_run_is_finalised(cli, clips, tmp_path, write_files):
    space, recipe = write_files(
        {"search": {"trials": 2, "order": "fixed", "block": 2}}, {"epochs": 1, "warmup_epochs": 0.5}
    )
    run = a.search(space, clips, out=tmp_path / "run", recipe=recipe, executor="serial", progress=False)
    found = run.finalize(clips, seeds=1, executor="serial", progress=False)
    assert found["seeds"] == [1]
    assert set(found["models"])
    assert "1 fresh seed\n" in "\n".join(line.rstrip() for line in repr(found).splitlines())
    assert "±" not in repr(found)  # one training has no spread
    assert not any("spread" in row for row in found["candidates"])
    assert run.choose()["chosen"]["seeds"] == 1
    again = answered(cli, "finalize", run.place, clips, "--seeds", 1, "--executor", "serial")
    assert again["candidates"] == found["candidates"]


def test_the_demo_clips_are_made_once(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("archsearch.video.demo.CLIPS", {"train": 1, "val": 1, "test": 1})
    demo = a.make_demo(tmp_path / "demo")
    assert "making clips: 18/18" in capfd.readouterr().err
    assert a.make_demo(demo) == tmp_path / "demo"
    assert capfd.readouterr().err == ""
    with pytest.raises(errors.DataError):
        a.make_demo(demo.parent, progress=False)
