"""The command line: exit codes, one line for a fault, JSON with the keys it promises, stdout for results alone."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import pytest
import yaml
from conftest import curves_in, run_search, write_tiny

from archsearch.spec.spec import parse_spec
from archsearch.video import demo


@pytest.fixture
def fault(cli):
    """The line of a command that fails: exit code 1, nothing on stdout."""

    def run(*args, lines=1):
        code, out, said = cli(*args)
        assert code == 1, said
        assert out == ""
        assert len(said) == lines, said
        return said[0] if lines == 1 else said

    return run


@pytest.fixture
def as_json(cli):
    def run(*args):
        code, out, said = cli(*args, "--json")
        assert (code, said) == (0, [])
        return json.loads(out)

    return run


@pytest.fixture(scope="module")
def searched(clips, tmp_path_factory):
    """A finished search of five candidates, one of them infeasible."""
    folder = tmp_path_factory.mktemp("searched")
    run_search(*write_tiny(folder, {"limits": {"gmacs": {"max": 0.0098}}}), clips, folder / "run")
    return folder / "run"


@pytest.fixture
def copied(clips, tmp_path):
    """The tiny clips, to be damaged."""
    shutil.copytree(clips, tmp_path / "data")
    return tmp_path / "data"


def tiny_spec(folder):
    path = folder / "net.yaml"
    path.write_text(
        "name: net\nclip: [3, 4, 32, 32]\nstages:\n"
        "  - {kind: conv, name: stem, width: 8, kernel: [3, 7, 7], stride: [1, 2, 2]}\n"
        "  - {kind: residual, name: res2, depth: 1, width: 8, stride: 2}\n"
        "  - {kind: head, name: head, classes: 400}\n"
    )
    return path


# Faults.


def test_an_unknown_preset(fault, clips, tmp_path):
    for command in (["show", "r3d_81"], ["compare", "r3d_18", "r3d_81"], ["train", "r3d_81", clips, "--out", tmp_path]):
        assert "there is no preset 'r3d_81'; did you mean 'r3d_18'?" in fault(*command)


@pytest.mark.parametrize(
    "clip", ["16x112x112", "3x16x112", "3x0x112x112", "3xax112x112", "-3x16x112x112", "", "3x-1x2x2"]
)
def test_a_bad_clip(fault, clip):
    assert "should be CxTxHxW" in fault("show", "r3d_18", f"--clip={clip}")


def test_a_feature_map_that_becomes_empty(fault, tmp_path):
    spec = tiny_spec(tmp_path)
    spec.write_text(spec.read_text().replace("stride: [1, 2, 2]}", "stride: [1, 2, 2], padding: 0}"))
    line = fault("show", spec, "--clip", "3x2x32x32")
    assert "stem" in line


def test_folders_that_are_not_there(fault, tmp_path, write_files):
    space, _ = write_files()
    for command in (["train", tiny_spec(tmp_path), tmp_path / "nowhere"], ["search", space, tmp_path / "nowhere"]):
        assert "nowhere: no such folder" in fault(*command, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_runs_that_are_none(fault, cli, tmp_path, clips):
    for place in (tmp_path, tmp_path / "nowhere", clips):
        for command in ("status", "front"):
            assert f"{place}: is no run folder (it has no run.json)" in fault(command, place)
        assert "is no trained network's folder" in fault("evaluate", place, clips)
    assert "no such file" in fault("space", tmp_path / "nowhere.yaml")
    assert "is a directory" in fault("space", tmp_path).lower()


def test_a_class_without_videos(fault, copied, tmp_path, write_files):
    data = copied / "train"  # class folders alone
    for video in (data / "left").iterdir():
        video.unlink()
    line = fault("search", write_files()[0], data, "--out", tmp_path / "run")
    assert "train/left: class folder without videos" in line
    assert not (tmp_path / "run").exists()


def empty(path):
    path.write_bytes(b"")


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def audio_only(path):
    path.unlink()
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))


@pytest.mark.parametrize(
    ("damage", "reason"), [(empty, "empty"), (truncated, "not a video"), (audio_only, "no video stream, only audio")]
)
@pytest.mark.parametrize("share", ["all", "some"])
def test_broken_videos(fault, copied, tmp_path, write_files, damage, reason, share):
    videos = sorted(copied.rglob("*.mp4"))
    total = len(videos)
    chosen = videos if share == "all" else videos[:6]
    for path in chosen:
        damage(path)
    line = fault("search", write_files()[0], copied, "--out", tmp_path / "run")
    assert f"{len(chosen)} of {total} videos are broken" in line
    assert sum(str(path) in line for path in chosen) == 3  # the first three are named
    assert reason in line
    assert not (tmp_path / "run").exists()


def test_five_mistakes_in_a_space_are_five_lines(fault, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "name: bad\n"
        "base: r3d_18\n"
        "vary:\n"
        "  - {field: widht, stages: [res2], tied: {scale: [1, 2]}}\n"
        "  - {field: conv, stages: [rse3], each: [2d, 3d]}\n"
        "objectives: {top2: maximize}\n"
        "limits: {gmacs: {mx: 3}}\n"
        "published: [mc9_18]\n"
    )
    lines = fault("space", path, lines=5)
    assert all(line.startswith(f"{path}, ") for line in lines)
    for mistake in ("'width'", "'res3'", "'top1'", "'max'", "mc"):
        assert sum(f"did you mean {mistake}" in line or mistake in line for line in lines) >= 1


def test_mistakes_in_a_recipe(fault, clips, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("epochs: 0\noptimiser: sgd\nlr: fast\n")
    lines = fault("train", tiny_spec(tmp_path), clips, "--out", tmp_path / "run", "--recipe", path, lines=3)
    assert any("did you mean 'optimizer'?" in line for line in lines)


@pytest.mark.parametrize(
    "args",
    [
        ["nonsense"],
        ["show"],
        ["show", "r3d_18", "--nonsense"],
        ["show", "r3d_18", "--classes", "0"],
        ["search", "a.yaml", "b"],
        ["search", "a.yaml", "b", "--out", "c", "--executor", "cloud"],
        ["search", "a.yaml", "b", "--out", "c", "--workers", "0"],
    ],
)
def test_wrong_usage(cli, args):
    code, out, said = cli(*args)
    assert code == 2
    assert out == ""
    assert said


def test_a_fault_of_another_process_is_a_line_too(tmp_path):
    """The installed command: exit codes as a shell sees them."""
    command = Path(sys.executable).with_name("archsearch")
    done = subprocess.run([command, "status", tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1


# What programs read.


def test_show_has_the_published_numbers(as_json):
    shown = as_json("show", "r3d_18", "--clip", "3x16x112x112")
    assert set(shown) == {"name", "clip", "classes", "params", "macs", "activations", "memory_bytes", "stages"}
    assert (shown["name"], shown["clip"], shown["classes"]) == ("r3d_18", [3, 16, 112, 112], 400)
    assert (shown["params"], shown["macs"]) == (33371472, 40696553472)
    assert [stage["name"] for stage in shown["stages"]] == ["stem", "res2", "res3", "res4", "res5", "head"]
    for stage in shown["stages"]:
        assert set(stage) == {"name", "kind", "conv", "output", "params", "macs"}
    assert shown["stages"][0]["output"] == [64, 16, 56, 56]
    assert sum(stage["macs"] for stage in shown["stages"]) == shown["macs"]


def test_show_yaml_is_a_spec(cli, as_json, tmp_path):
    code, out, _ = cli("show", "mc3_18", "--classes", "27", "--clip", "3x8x56x56", "--yaml")
    assert code == 0
    (tmp_path / "mc3.yaml").write_text(out)
    assert as_json("show", tmp_path / "mc3.yaml") == as_json("show", "mc3_18", "--classes", 27, "--clip", "3x8x56x56")


def test_presets_are_names_that_show_knows(as_json):
    names = as_json("presets")
    assert {"r3d_18", "r2plus1d_34", "mc3_18", "fr2d_18"} <= set(names)
    assert as_json("show", names[-1])["name"] == names[-1]


def test_space_has_its_keys(as_json, write_files):
    found = as_json("space", write_files({"limits": {"gmacs": {"max": 0.0075}}})[0])
    assert {"name", "size", "choices", "macs", "feasible"} <= set(found)
    assert set(found["macs"]) == {"min", "median", "max"}
    assert (found["name"], found["size"]) == ("tiny", 32)
    assert 0 < found["feasible"] < 32
    assert found["macs"]["min"] < 0.0075e9 < found["macs"]["max"]


def test_front_and_status_have_their_keys(as_json, searched):
    front = as_json("front", searched)
    assert set(front) == {"objectives", "candidates", "front", "published"}
    assert front["objectives"] == {"top1": "maximize", "gmacs": "minimize"}
    for candidate in front["candidates"]:
        keys = {"id", "hash", "choices", "metrics", "epochs", "state"}
        assert set(candidate) == keys | ({"reason"} if candidate["state"] == "infeasible" else set())
        assert {"gmacs"} <= set(candidate["metrics"])
    states = [candidate["state"] for candidate in front["candidates"]]
    assert states.count("complete") == 5
    assert set(front["published"]) == {"fr2d_18", "r3d_18"}
    assert set(front["front"]) <= {c["id"] for c in front["candidates"] if c["state"] == "complete"}
    status = as_json("status", searched)
    assert set(status) == {"run", "trials", "duplicates", "epochs", "seconds", "hypervolume"}
    assert set(status["trials"]) == {"complete", "stopped", "infeasible", "running", "failed"}
    assert (status["trials"]["complete"], status["epochs"]) == (5, 10)
    assert status["trials"]["infeasible"] == states.count("infeasible") >= 1
    assert 0 < status["hypervolume"] <= 1


def test_front_as_csv_parses(cli, as_json, searched):
    code, out, _ = cli("front", searched, "--csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    front = as_json("front", searched)
    assert [int(row["id"]) for row in rows] == [candidate["id"] for candidate in front["candidates"]]
    assert [int(row["id"]) for row in rows if row["on_front"] == "true"] == sorted(front["front"])
    for row, candidate in zip(rows, front["candidates"], strict=True):
        assert row["res3.conv"] == candidate["choices"]["res3.conv"]
        assert float(row["gmacs"]) == candidate["metrics"]["gmacs"]


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_front_as_a_figure(cli, searched, tmp_path, ending):
    code, out, _ = cli("front", searched, "--figure", tmp_path / f"front.{ending}")
    assert code == 0
    assert out
    content = (tmp_path / f"front.{ending}").read_bytes()
    assert content.startswith(b"\x89PNG") if ending == "png" else b"<svg" in content


@pytest.mark.parametrize("ending", ["front.txt", "file/front.png"])
def test_a_figure_that_cannot_be_written(fault, searched, tmp_path, ending):
    (tmp_path / "file").write_text("not a folder")
    assert str(tmp_path / ending.partition("/")[0]) in fault("front", searched, "--figure", tmp_path / ending)


@pytest.mark.parametrize("args", [["front"], ["front", "--all"], ["status"]])
def test_tables_fit_in_a_hundred_columns(cli, searched, args):
    code, out, said = cli(*args, searched)
    assert (code, said) == (0, [])
    assert max(map(len, out.splitlines())) <= 100 or args == ["status"]


# Training.


def test_train_evaluate_and_backwards(cli, as_json, fault, clips, tmp_path, write_files):
    _, recipe = write_files()
    command = ["train", tiny_spec(tmp_path), clips, "--out", tmp_path / "run", "--recipe", recipe]
    code, out, _ = cli(*command, "--json")
    assert code == 0
    result = json.loads(out)
    assert set(result) == {"epochs", "metrics", "seconds"}
    assert parse_spec(yaml.safe_load((tmp_path / "run" / "spec.yaml").read_text()), "spec").classes == 4

    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert as_json(*command) == result  # at once
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before

    scores = as_json("evaluate", tmp_path / "run", clips)
    trained = {"train_loss": json.loads((tmp_path / "run" / "curve.json").read_text())[-1]["train_loss"]}
    assert {name: scores[name] for name in ("top1", "clip_top1", "loss")} | trained == result["metrics"]
    assert (scores["split"], scores["videos"], scores["views"], scores["reverse"]) == ("val", 12, 2, False)
    assert set(scores["classes"]) == {"right", "left", "clockwise", "counterclockwise"}
    backwards = as_json("evaluate", tmp_path / "run", clips, "--reverse")
    assert backwards["reverse"]
    assert backwards["loss"] != scores["loss"]
    assert as_json("evaluate", tmp_path / "run", clips, "--split", "test", "--views", 1)["videos"] == 8

    assert "no 'tset' split; did you mean 'test'?" in fault("evaluate", tmp_path / "run", clips, "--split", "tset")
    assert "another recipe" in fault(*command, "--seed", 1)
    assert "another spec" in fault(*command, "--clip", "3x4x30x30")


def test_other_classes_than_it_was_trained_on(cli, fault, clips, copied, tmp_path, write_files):
    _, recipe = write_files(recipe={"epochs": 1, "warmup_epochs": 0})
    command = ["train", tiny_spec(tmp_path), clips, "--out", tmp_path / "run", "--recipe", recipe]
    code, out, _ = cli(*command)
    assert code == 0
    assert "metrics.top1: 0." in out
    for split in ("train", "val", "test"):
        (copied / split / "left").rename(copied / split / "links")
    assert "has classes" in fault("evaluate", tmp_path / "run", copied)
    assert "another data" in fault("train", tiny_spec(tmp_path), copied, "--out", tmp_path / "run", "--recipe", recipe)


def test_data_make_says_where(cli, fault, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "CLIPS", {"train": 2, "val": 1, "test": 1})  # of each class; the real set takes longer
    for _ in range(2):
        code, out, said = cli("data", "make", tmp_path / "demo")
        assert (code, out, said) == (0, f"{tmp_path / 'demo'}\n", [])
    assert len(list((tmp_path / "demo").rglob("*.mp4"))) == 24
    assert "is no demo set of seed 1" in fault("data", "make", tmp_path / "demo", "--seed", 1)


# Searches.


def test_a_search_says_on_stderr_what_it_does(cli, clips, tmp_path, write_files):
    space, recipe = write_files()
    command = ["search", space, clips, "--out", tmp_path / "run", "--recipe", recipe, "--executor", "serial"]
    code, out, said = cli(*command, "--trials", 2)
    assert (code, out) == (0, "")
    assert [line.split()[:2] for line in said[:2]] == [["#0", "complete"], ["#1", "complete"]]
    assert len(said) == 3
    assert "archsearch front" in said[2]


@pytest.mark.parametrize(
    ("command", "line"),
    [("bench", "interrupted"), ("share", "interrupted; the same command goes on from here")],
)
def test_only_commands_that_resume_say_so(cli, monkeypatch, command, line):
    monkeypatch.setattr("archsearch.cli.app", lambda: sys.exit(130))
    assert cli(command) == (130, "", [line])


def test_a_recipe_of_a_newer_version_is_a_line(fault, clips, searched, tmp_path):
    shutil.copytree(searched, tmp_path / "run")
    with (tmp_path / "run" / "recipe.yaml").open("a") as file:
        file.write("epocs: 3\n")
    for command in (
        ["finalize", tmp_path / "run", clips],
        ["tabulate", tmp_path / "run", "--out", tmp_path / "t.json"],
    ):
        assert "run/recipe.yaml: unknown field 'epocs'; did you mean 'epochs'?" in fault(*command)


def test_a_replay_refuses_what_it_would_not_look_at(cli, clips, tmp_path, write_files):
    command = ["search", write_files()[0], "--replay", tmp_path / "table.json", "--out", tmp_path / "run"]
    for given in (clips, "--gpus=1", "--executor=serial", "--ray=auto", "--resource=a=1"):
        code, _, said = cli(*command, given)
        assert code == 2
        assert "nothing is trained with --replay" in " ".join(said)


@pytest.mark.slow
def test_an_interrupted_search_says_so_and_goes_on(clips, tmp_path, write_files):
    space, recipe = write_files({"search": {"trials": 2}}, {"epochs": 12})
    command = [sys.executable, "-c", "from archsearch.cli import main; main()", "search", space, clips]
    command += ["--out", tmp_path / "run", "--recipe", recipe]
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        process = subprocess.Popen([*map(str, command)], stdout=out, stderr=err, start_new_session=True)
    deadline = time.monotonic() + 120
    while not any(len(curve) >= 2 for curve in curves_in(tmp_path / "run").values()):
        assert process.poll() is None, (tmp_path / "err").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
    assert process.wait(30) == 130
    said = [
        line for line in (tmp_path / "err").read_text().splitlines() if not line.startswith(("packing:", "searching:"))
    ]
    assert said == ["interrupted; the same command goes on from here"]
    assert (tmp_path / "out").read_text() == ""
    recorded = curves_in(tmp_path / "run")
    run_search(space, recipe, clips, tmp_path / "run")
    curves = curves_in(tmp_path / "run")
    assert [len(curve) for curve in curves.values()] == [12, 12]
    for name, curve in recorded.items():
        assert curves[name][: len(curve)] == curve
