"""Model folders: written whole or not at all, and what does not belong together is one line."""

import hashlib
import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import archsearch
from archsearch.errors import DataError, RunError
from archsearch.nets.export import runtime_call
from archsearch.nets.runtimes import load_onnxruntime
from archsearch.report.model import card, escaped
from archsearch.spec.spec import spec_yaml, with_clip
from archsearch.store import open_store, write_json
from archsearch.training.checkpoint import save_weights
from archsearch.training.clips import split_of
from archsearch.training.exporting import Wish, export_network
from archsearch.training.model import FILES, check_place, model_file, read_model
from archsearch.training.model_json import INT8, MODEL, ONNX, PROGRAM, Model
from archsearch.training.recipe import Recipe
from archsearch.training.serving import read_served, score_served
from archsearch.training.single import evaluate_single, score_single

pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
QUICK = Wish(rounds=1)
PLAIN = {"epochs": 1, "warmup_epochs": 0, "views": 2, "batch": 8, "flip": False}


def write_trained(store, spec, classes, **recipe):
    """A folder as a training leaves it, with weights that chance drew."""
    from archsearch.nets.build import build

    made = Recipe(**{**PLAIN, **recipe})
    store.write("spec.yaml", spec_yaml(spec))
    write_json(store, "recipe.json", made.model_dump(mode="json"))
    store.write("labels.txt", "".join(f"{name}\n" for name in classes))
    save_weights(store, build(spec, seed=1))
    return store


@pytest.fixture(autouse=True)
def single(one_thread):
    """Networks this small are slower on several threads."""


@pytest.fixture(scope="module")
def trained(spec, pack, tmp_path_factory):
    store = write_trained(open_store(str(tmp_path_factory.mktemp("trained") / "net")), spec, pack.classes)
    hits = [1, 0, 1, 1]
    write_json(store, "test.json", {"top1": 0.75, "videos": ["a", "b", "c", "d"], "hits": hits})
    return store.url


@pytest.fixture(scope="module")
def folder(trained, clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "net"
    wish = Wish(int8=True, rounds=2)
    model = export_network(trained, str(out), wish, ("archsearch export it",), card, clips)
    return out, model


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder[0], tmp_path / "copy")


def test_a_folder_says_what_is_in_it(folder, pack, spec):
    out, made = folder
    model, _, recipe = read_model(str(out))
    assert model == made
    assert {path.name for path in out.iterdir()} == {*model.files, MODEL, "MODEL.md"} <= set(FILES)
    for name, told in model.files.items():
        content = (out / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (told.bytes, told.sha256)
    assert [(each.name, each.shape, each.holds) for each in model.inputs] == [("clip", (3, 4, 32, 32), "rgb")]
    assert (model.output.name, model.output.kind, model.labels) == ("scores", "softmax", pack.classes)
    assert (model.sampling.stride, model.sampling.short_side, model.sampling.views) == ("spread", 38, 2)
    assert recipe.views == 2
    assert model.accuracy["test"]["top1"] == 0.75
    checks = {(check.file, check.clips) for check in model.checks}
    assert checks >= {(name, kind) for name in (PROGRAM, ONNX) for kind in ("random, batches of 1 and 3", "12 of val")}
    assert all(check.difference < 1e-4 for check in model.checks if check.file != INT8)
    assert {each.file for each in model.latency} == {PROGRAM, ONNX, INT8}
    assert all(each.median_ms > 0 and each.load >= 0 for each in model.latency)
    assert model.latency[0].memory_bytes > 0


def test_its_onnx_scores_videos_as_evaluate_does(folder, trained, clips, pack):
    out, model = folder
    scores, _ = score_single(trained, clips, "val")
    call = runtime_call(load_onnxruntime((out / ONNX).read_bytes(), 1))
    found = score_served(call, read_served(open_store(trained)), split_of(pack, "val"), lambda *_: None)
    assert np.abs(found.probabilities - scores.probabilities).max() < 1e-5
    assert model.accuracy["val_onnx"]["top1"] == scores.top1
    assert model.accuracy["val_onnx"]["videos"] == len(split_of(pack, "val"))
    assert abs(model.accuracy["val_int8"]["loss"] - scores.loss) < 0.1


def test_it_is_a_trained_folder_for_other_commands(folder, trained, clips):
    assert evaluate_single(str(folder[0]), clips, "val", None, False) == evaluate_single(
        trained, clips, "val", None, False
    )


def test_the_card_has_the_numbers_and_escapes_names(folder, spec):
    out, model = folder
    text = (out / "MODEL.md").read_text()
    assert text == card(model, spec)
    for part in ("# net", "0.750", "short", "38 pixels", f"{model.files[ONNX].bytes:,}", "`archsearch export it`"):
        assert part in text
    hostile = model.model_copy(update={"labels": ("<script>alert(1)</script>", "a|b\n# c", "`d`", "[e](f)")})
    text = card(hostile, spec)
    assert "<script>" not in text
    assert "a\\|b \\# c" in text
    assert escaped("[e](f)") == "\\[e\\](f)"


@pytest.mark.slow
def test_two_inputs_are_said(pack, tmp_path):
    from test_export import SHAPES

    from archsearch.spec.spec import parse_spec, with_classes

    spec = with_classes(parse_spec(SHAPES["two inputs, (2+1)D"], "net.yaml"), 4)
    store = write_trained(open_store(str(tmp_path / "net")), spec, pack.classes, loss="binary", flow_bound=4.0)
    model = export_network(store.url, str(tmp_path / "model"), Wish(rounds=0), (), card)
    assert [(each.name, each.shape[0], each.holds) for each in model.inputs] == [("rgb", 3, "rgb"), ("flow", 2, "flow")]
    assert (model.sampling.flow, model.sampling.flow_bound) == ("farneback", 4.0)
    assert model.output.kind == "sigmoid"
    text = (tmp_path / "model" / "MODEL.md").read_text()
    assert "as `flow`: optical flow (farneback)" in text
    assert "128 + 127 d / 4" in text


def changed(copy, name, content):
    (copy / name).write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("weights.safetensors", lambda old: old[:-100], "weights.safetensors: is not the file that model.json"),
        ("spec.yaml", lambda old: old.replace(b"width: 16", b"width: 24"), "spec.yaml: is not the file"),
        ("labels.txt", lambda old: old + b"more\n", "labels.txt: is not the file"),
        (MODEL, lambda old: b"[]", "expected fields"),
        (MODEL, lambda old: b"{", "not valid JSON"),
        (MODEL, lambda old: old.replace(b'"version": 1', b'"version": 7'), "is of version 7; this reads version 1"),
        (MODEL, lambda old: old.replace(b'"name": "net"', b'"nam": "net"'), "unknown field 'nam'; did you mean 'name'"),
    ],
)
def test_a_changed_model_folder_is_one_line_and_makes_none(copy, tmp_path, cli, name, damage, said):
    changed(copy, name, damage((copy / name).read_bytes()))
    with pytest.raises(RunError, match=said):
        read_model(str(copy))
    code, _, lines = cli("export", copy, "--out", tmp_path / "out")
    assert code == 1
    assert said in " ".join(lines)
    assert not (tmp_path / "out").exists()


def test_frames_too_small_to_be_read_are_refused_before_anything_long(pack, spec, tmp_path):
    store = write_trained(open_store(str(tmp_path / "net")), with_clip(spec, (3, 4, 5, 5)), pack.classes)
    with pytest.raises(RunError, match="cut from frames of 6 pixels; a model folder's have a short side of 8 or more"):
        export_network(store.url, str(tmp_path / "model"), QUICK, (), card)
    assert not (tmp_path / "model").exists()


def test_an_onnx_of_another_network_is_refused(copy):
    changed(copy, ONNX, (copy / ONNX).read_bytes()[:-1] + b"x")
    model, _, _ = read_model(str(copy))
    with pytest.raises(RunError, match=r"model.onnx: is not the file .* \(sha256 differs\)"):
        model_file(open_store(str(copy)), model, ONNX)
    (copy / ONNX).unlink()
    with pytest.raises(RunError, match=r"model.onnx: is missing"):
        model_file(open_store(str(copy)), model, ONNX)
    with pytest.raises(RunError, match=r"has no model.xml; it has spec.yaml"):
        model_file(open_store(str(copy)), model, "model.xml")


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("weights.safetensors", lambda old: old[:-100], "not a whole safetensors file"),
        ("weights.safetensors", lambda old: b"", "not a whole safetensors file"),
        ("spec.yaml", lambda old: old.replace(b"width: 16", b"width: 24"), "does not fit the network beside it"),
        ("labels.txt", lambda old: old + b"more\n", "labels.txt: has 5 names; net tells 4 classes apart"),
        ("labels.txt", lambda old: old.splitlines(True)[0] * 4, "stands there twice"),
        ("spec.yaml", lambda old: old.replace(b"name: net", b"name: ../../up"), "is not letters, digits and _ . + -"),
        ("spec.yaml", lambda old: old.replace(b"name: net", b"name: <script>"), "is not letters, digits and _ . + -"),
    ],
)
def test_a_changed_trained_folder_is_one_line_and_replaces_nothing(trained, copy, tmp_path, cli, name, damage, said):
    source = shutil.copytree(trained, tmp_path / "source")
    changed(source, name, damage((source / name).read_bytes()))
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    code, _, lines = cli("export", source, "--out", copy)
    assert code == 1
    assert said in lines[-1]
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "source"]


def test_only_model_folders_are_replaced(trained, copy, tmp_path):
    for place in (trained, str(tmp_path), "s3://bucket/model"):
        with pytest.raises(RunError):
            check_place(place)
    (copy / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"holds notes.txt, which is no part of a model folder"):
        check_place(str(copy))
    (tmp_path / "link").symlink_to(copy)
    with pytest.raises(RunError, match="is no folder"):
        check_place(str(tmp_path / "link"))
    (tmp_path / "empty").mkdir()
    check_place(str(tmp_path / "empty"))


@pytest.mark.slow
def test_a_model_folder_is_exported_again_in_its_place(copy, tmp_path, cli):
    inode = copy.stat().st_ino
    code, out, _ = cli("export", copy, "--out", copy, "--json")
    assert code == 0
    made = json.loads(out)
    assert copy.stat().st_ino != inode
    assert made["accuracy"]["test"]["top1"] == 0.75
    assert INT8 not in made["files"]
    assert not (copy / INT8).exists()
    assert (
        Model.model_validate({name: value for name, value in made.items() if name != "folder"})
        == read_model(str(copy))[0]
    )
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_check_that_fails_writes_nothing(trained, tmp_path, monkeypatch, cli):
    from archsearch.training import exporting

    def another(program, **options):
        network = read_served(open_store(trained))
        network.module.get_submodule("net.head.linear").weight.neg_()
        return made(exporting.to_program(network.module, network.sizes), **options)

    made = exporting.to_onnx
    monkeypatch.setattr(exporting, "to_onnx", another)
    code, _, lines = cli("export", trained, "--out", tmp_path / "out")
    assert code == 1
    assert lines[-1].startswith("model.onnx: its scores are off by ")
    assert not list(tmp_path.iterdir())


def test_without_onnx_there_is_a_program_and_a_line(trained, tmp_path, monkeypatch):
    from archsearch.training import exporting

    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    said = []
    model = export_network(trained, str(tmp_path / "m"), Wish(rounds=0), (), card, say=said.append)
    assert said == ["no model.onnx: ONNX needs its packages: pip install 'archsearch[onnx]'"]
    assert ONNX not in model.files
    assert PROGRAM in model.files
    assert "torch.export.load" in (tmp_path / "m" / "MODEL.md").read_text()


def test_what_is_asked_for_in_vain_is_said_first(trained, tmp_path, cli, clips):
    openvino = [] if find_spec("openvino") else [(("--openvino",), "archsearch[openvino]")]
    for options, said in (
        (("--int8",), "--int8 takes its ranges from training clips: give --data"),
        *openvino,
        (("--opset", 3), "opset 3: torch writes 18 and later"),
        (("--data", tmp_path / "none"), "none"),
    ):
        code, _, lines = cli("export", trained, "--out", tmp_path / "out", *options)
        assert (code, len(lines)) == (1, 1)
        assert said in lines[0]
    assert not (tmp_path / "out").exists()


def test_clips_of_other_classes_are_one_line(trained, clips, tmp_path):
    other = shutil.copytree(trained, tmp_path / "net")
    (other / "labels.txt").write_text("a\nb\nc\nd\n")
    with pytest.raises(DataError, match=r"has classes .*; the network's are a, b, c, d"):
        export_network(str(other), str(tmp_path / "out"), QUICK, (), card, clips)


def test_no_file_names_folders_of_the_machine_that_made_it(folder):
    home = str(Path(archsearch.__file__).parent).encode()
    for path in folder[0].iterdir():
        content = path.read_bytes()
        assert home not in content, path.name
        assert b"site-packages" not in content, path.name


def test_a_folder_for_openvino_says_what_torch_says(trained, clips, tmp_path):
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    made = export_network(trained, str(tmp_path / "net"), Wish(openvino=True, rounds=1), ("it",), card, clips)
    checks = [check for check in made.checks if check.file == "model.xml"]
    assert {"model.xml", "model.bin"} <= made.files.keys()
    assert checks
    assert all(check.difference < 1e-4 for check in checks)
