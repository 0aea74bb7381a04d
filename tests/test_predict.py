"""Predictions: the scores of evaluation, windows, ONNX without torch, labelled copies, cameras, and faults."""

import csv
import hashlib
import io
import json
import logging
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import nn

from archsearch.cli.shared import print_table
from archsearch.errors import RunError, SpecError, VideoError
from archsearch.files import parse_yaml
from archsearch.nets.build import build
from archsearch.nets.runtimes import load_network
from archsearch.report.predict import Found, captions, plain, segments, videos_table, windows_table
from archsearch.spec.spec import parse_spec, spec_yaml
from archsearch.store import open_store, write_json
from archsearch.training.checkpoint import read_weights, save_weights
from archsearch.training.clips import normalised, pack_side
from archsearch.training.predict import Scored, onnx_model, score_videos, torch_model
from archsearch.training.recipe import Recipe
from archsearch.training.single import read_network, score_single
from archsearch.video import children, reading
from archsearch.video.decode import decode, encode
from archsearch.video.demo import draw_clip
from archsearch.video.label import draw, label_copy
from archsearch.video.sources import Source

pytestmark = pytest.mark.usefixtures("one_thread")
LABELS = ("clockwise", "counterclockwise", "left", "right")  # of the tiny clips
RECIPE = {"epochs": 2, "batch": 8, "warmup_epochs": 1, "views": 2, "flip": False}
TWO = """
name: two
clip: {rgb: [3, 4, 32, 32], flow: [4, 4, 32, 32]}
stages:
  - {kind: conv, name: a, from: rgb, width: 4, kernel: [1, 5, 5], stride: [1, 2, 2]}
  - {kind: conv, name: b, from: flow, width: 4, kernel: [3, 5, 5], stride: [1, 2, 2]}
  - {kind: residual, name: res2, from: [a, b], depth: 1, width: 8, stride: 2}
  - {kind: head, name: head, classes: 4}
"""


def write_net(folder, spec, labels=LABELS, **recipe):
    """The folder of a network of random weights, which says something else of every clip."""
    store = open_store(str(folder))
    net = build(spec, seed=3)
    with torch.no_grad():
        for name, weights in net.named_parameters():
            if "linear.weight" in name:
                weights.mul_(30)
    store.write("spec.yaml", spec_yaml(spec))
    write_json(store, "recipe.json", Recipe(**{**RECIPE, **recipe}).model_dump(mode="json"))
    store.write("labels.txt", "".join(f"{name}\n" for name in labels))
    save_weights(store, net)
    return str(folder)


@pytest.fixture(scope="module")
def run(spec, tmp_path_factory):
    return write_net(tmp_path_factory.mktemp("runs") / "net", spec)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """6 seconds of 48 x 64 pixels at 15 frames a second."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    parts = [draw_clip(np.random.default_rng(seed), "right")[:, 8:56, 4:68] for seed in range(6)]
    encode(path, np.concatenate(parts)[:90], intra_only=False)
    return path


def predicted(cli, *args):
    code, out, err = cli("predict", *args, "--json")
    return code, json.loads(out), err


def by_label(rows):
    return {row["label"]: row["score"] for row in rows}


# --- whole videos


@pytest.mark.parametrize("changes", [{}, {"stride": 2, "views": 3}, {"stride": 5}, {"loss": "binary"}])
def test_scores_are_those_of_evaluation(cli, clips, spec, tmp_path, changes):
    net = write_net(tmp_path / "net", spec, **changes)
    scores, labels = score_single(net, clips, "val")
    assert np.ptp(scores.mean, axis=0).min() > 1e-2  # or the test could not fail
    code, data, _ = predicted(cli, net, clips / "val", "--top", 4)
    assert code == 0
    got = {Path(row["video"]).relative_to(clips / "val").as_posix(): by_label(row["scores"]) for row in data["videos"]}
    assert len(got) == len(scores.names) == 12
    for name, wanted in zip(scores.names, scores.mean, strict=True):
        assert got[name.removeprefix("val/")] == pytest.approx(dict(zip(labels, wanted, strict=True)), abs=1e-5)


def test_scores_of_optical_flow_are_those_of_evaluation(clips, tmp_path):
    pytest.importorskip("cv2")
    spec = parse_spec(parse_yaml(TWO, "two.yaml", SpecError), "two.yaml")
    net = write_net(tmp_path / "net", spec, stride=2, views=3)
    scores, _ = score_single(net, clips, "val")
    assert np.ptp(scores.mean, axis=0).min() > 1e-2
    sources = [Source(clips / "val" / name.removeprefix("val/"), name) for name in scores.names]
    for found, wanted in zip(score_videos(torch_model(net), sources), scores.mean, strict=True):
        assert found.scores == pytest.approx(wanted, abs=1e-5)


def test_a_table_of_the_best_labels_is_printed(cli, run, clips):
    code, out, _ = cli("predict", run, clips / "val" / "left", "--top", 2)
    assert code == 0
    lines = [line for line in out.splitlines() if line.strip()]
    assert max(map(len, lines)) <= 100
    assert sum(any(f" {label} " in line for label in LABELS) for line in lines) == 6


def test_a_broken_video_is_told_and_the_others_go_on(cli, run, clips, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(clips / "val" / "left", folder)
    (folder / "a.mp4").write_bytes(b"nothing of a video")
    code, data, err = predicted(cli, run, folder, tmp_path / "none.mp4", "--csv", tmp_path / "out.csv")
    assert code == 1
    assert len(data["videos"]) == 3
    assert [Path(row["video"]).name for row in data["failed"]] == ["a.mp4", "none.mp4"]
    assert len(err) == 2
    assert "a.mp4: not a video that can be read" in err[0]
    assert "none.mp4: no such file" in err[1]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert len(rows) == 12
    assert {row["rank"] for row in rows} == {"1", "2", "3", "4"}
    before = (tmp_path / "out.csv").read_bytes()
    code, out, err = cli("predict", run, folder, "--csv", tmp_path / "out.csv")
    assert (code, out) == (1, "")
    assert "out.csv: exists" in err[0]
    assert (tmp_path / "out.csv").read_bytes() == before


def test_names_cannot_write_to_the_terminal(cli, spec, clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nasty = ("\x1b[31mred", "[bold]b[/bold]", 'q"uo,te', "../up")
    net = write_net(tmp_path / "net", spec, nasty)
    video = Path("[blink]\x1b[2J\n.mp4")
    shutil.copy(clips / "val" / "left" / "0.mp4", video)
    code, out, _ = cli("predict", net, video, "--csv", tmp_path / "a.csv")
    assert code == 0
    assert "\x1b" not in out
    assert "[bold]b[/bold]" in out
    assert "\\x1b[31mred" in out
    assert "[blink]\\x1b[2J\\n.mp4" in out
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == set(nasty)
    assert {row["video"] for row in rows} == {str(video)}
    video.write_bytes(b"broken")
    code, _, err = cli("predict", net, video)
    assert code == 1
    assert len(err) == 1
    assert "\x1b" not in err[0]
    assert plain("a\udcff") == "a\\udcff"


CRASHING = """
import os, signal
from archsearch.video import serving


def crashing(real):
    def stream(source, argument, tick):
        for number, answer in enumerate(real(source, argument, tick)):
            if source.path.name == "bad.mp4" and number == (2 if real.__name__ == "_along" else 0):
                os.kill(os.getpid(), signal.SIGSEGV)
            yield answer

    return stream


serving.STREAMS = {name: crashing(real) for name, real in serving.STREAMS.items()}
serving.serve()
"""


def test_a_video_on_which_ffmpeg_crashes_is_told_and_the_others_go_on(cli, run, film, tmp_path, monkeypatch):
    monkeypatch.setattr(children, "COMMAND", (sys.executable, "-c", CRASHING))
    names = [str(tmp_path / name) for name in ("a.mp4", "bad.mp4", "c.mp4")]
    for name in names:
        shutil.copy(film, name)
    reason = f"{names[1]}: decoding crashed (SIGSEGV); encode it again or leave it out"
    code, data, err = predicted(cli, run, tmp_path)
    assert (code, len(err)) == (1, 1)
    assert data["failed"] == [{"video": names[1], "reason": reason}]
    assert [row["video"] for row in data["videos"]] == [names[0], names[2]]
    assert by_label(data["videos"][0]["scores"]) == pytest.approx(by_label(data["videos"][1]["scores"]), abs=1e-5)
    code, data, err = predicted(cli, run, tmp_path, "--windows")
    assert (code, len(err)) == (1, 1)
    assert data["failed"] == [{"video": names[1], "reason": reason}]
    assert [len(row["windows"]) for row in data["videos"]] == [5, 2, 5]
    for one, other in zip(data["videos"][1]["windows"], data["videos"][0]["windows"], strict=False):
        assert one["begin"] == other["begin"]
        assert by_label(one["scores"]) == pytest.approx(by_label(other["scores"]), abs=1e-5)


# --- windows


def test_windows_of_a_film(cli, run, film, tmp_path):
    code, data, _ = predicted(cli, run, film, "--windows", "--top", 4, "--csv", tmp_path / "w.csv")
    assert code == 0
    (video,) = data["videos"]
    assert [(row["begin"], row["end"]) for row in video["windows"]] == [(begin, begin + 2) for begin in range(5)]
    cut = tmp_path / "cut.mp4"
    encode(cut, decode(film)[15:45], intra_only=False, qp=0)  # the second window as a film of its own
    alone = predicted(cli, run, cut, "--every", 5, "--top", 4)[1]["videos"][0]["windows"]
    assert len(alone) == 1
    assert by_label(alone[0]["scores"]) == pytest.approx(by_label(video["windows"][1]["scores"]), abs=0.05)
    assert video["segments"][0]["begin"] == 0
    assert video["segments"][-1]["end"] == 6
    assert sum(row["windows"] for row in video["segments"]) == 5
    rows = list(csv.DictReader(io.StringIO((tmp_path / "w.csv").read_text())))
    assert len(rows) == 20
    assert (rows[4]["begin"], rows[4]["end"]) == ("1.000", "3.000")
    code, out, _ = cli("predict", run, film, "--every", 0.5)
    assert "0:00:04.0" in out
    assert "segments" in out
    assert max(map(len, out.splitlines())) <= 100


def test_a_short_video_is_one_window(cli, run, clips):
    _, data, _ = predicted(cli, run, clips / "val" / "left" / "0.mp4", "--windows")
    (window,) = data["videos"][0]["windows"]
    assert (window["begin"], window["end"]) == (0, pytest.approx(8 / 15, abs=1e-3))


def test_what_a_film_has_before_it_breaks_off_is_kept(cli, run, film, tmp_path):
    whole, cut = tmp_path / "whole.mkv", tmp_path / "cut.mkv"
    encode(tmp_path / "whole.mp4", np.concatenate([decode(film)] * 3), intra_only=False)
    with av.open(str(tmp_path / "whole.mp4")) as given, av.open(str(whole), "w") as target:
        stream = target.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
    code, data, err = predicted(cli, run, cut, film, tmp_path / ("x" * 300), "--windows")
    assert code == 1
    assert [row["video"] for row in data["videos"]] == [str(cut), str(film)]
    assert 1 < len(data["videos"][0]["windows"]) < 8
    assert [row["video"] for row in data["failed"]] == [str(cut), str(tmp_path / ("x" * 300))]
    assert any("less than half" in line for line in err)


def test_seconds_are_refused_where_frames_are_a_fixed_number_apart(cli, spec, film, tmp_path):
    net = write_net(tmp_path / "net", spec, stride=3)
    code, _, err = cli("predict", net, film, "--seconds", 3)
    assert code == 1
    assert "--seconds 3: this network reads 4 frames, 3 apart" in err[0]
    _, data, _ = predicted(cli, net, film, "--windows")
    assert data["videos"][0]["windows"][1]["end"] == pytest.approx(1 + 10 / 15)


def test_flow_along_a_film(cli, film, tmp_path):
    pytest.importorskip("cv2")
    net = write_net(tmp_path / "net", parse_spec(parse_yaml(TWO, "two.yaml", SpecError), "two.yaml"))
    _, data, _ = predicted(cli, net, film, "--windows")
    assert len(data["videos"][0]["windows"]) >= 4


def parts_of(*rows):
    return [Scored(begin, begin + 2, np.array(scores)) for begin, scores in enumerate(rows)]


def test_neighbouring_windows_of_a_label_are_one_segment():
    parts = parts_of([0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.6, 0.4])
    assert segments(parts, ("a", "b"), False, 1.0) == [
        {"label": "a", "begin": 0, "end": 2.5, "score": pytest.approx(0.8), "windows": 2},
        {"label": "b", "begin": 2.5, "end": 3.5, "score": pytest.approx(0.8), "windows": 1},
        {"label": "a", "begin": 3.5, "end": 5, "score": pytest.approx(0.6), "windows": 1},
    ]
    assert [end for end, _ in captions(parts, ("a", "b"), 1.0)] == [1.5, 2.5, 3.5, 5]


def test_segments_of_several_labels_overlap_and_gaps_part_them():
    several = segments(parts_of([0.9, 0.6], [0.7, 0.3]), ("a", "b"), True, 1.0)
    assert [(row["label"], row["begin"], row["end"]) for row in several] == [("a", 0, 3), ("b", 0, 1.5)]
    apart = [Scored(0, 2, np.array([0.9, 0.1])), Scored(50, 52, np.array([0.9, 0.1]))]
    assert [(row["begin"], row["end"]) for row in segments(apart, ("a", "b"), False, 1.0)] == [(0, 2), (50, 52)]


# --- ONNX


class Served(nn.Module):
    """Pixels 0 to 255 to probabilities."""

    def __init__(self, net, recipe):
        super().__init__()
        self.net, self.recipe = net.eval(), recipe

    def forward(self, clip):
        return self.net(normalised(clip, self.recipe)).softmax(1)


@pytest.fixture(scope="module")
def onnx(run, tmp_path_factory):
    """A model folder: model.onnx, model.json and labels.txt."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("onnx")
    spec, recipe, labels = read_network(open_store(run))
    net = build(spec, seed=0)
    net.load_state_dict(read_weights(open_store(run)))
    recipe = recipe.model_copy(update={"channels_last": False})
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(
            Served(net, recipe),
            (torch.rand(2, 3, 4, 32, 32) * 255,),
            input_names=["clip"],
            output_names=["scores"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    (folder / "model.onnx").write_bytes(made.model_proto.SerializeToString())
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in labels))
    write_facts(folder, pack_side(spec, recipe))
    return folder


def write_facts(folder, side=38, **changes):
    facts = {
        "version": 1,
        "name": "net",
        "inputs": [{"name": "clip", "shape": [3, 4, 32, 32], "range": [0, 255]}],
        "output": {"name": "scores", "kind": "softmax"},
        "labels": list(LABELS),
        "sampling": {"stride": "spread", "short_side": side, "views": 2},
        **{name: {} for name in ("cost", "accuracy", "files", "training", "versions")},
        **dict.fromkeys(("latency", "checks", "limits", "commands"), ()),
        **changes,
    }
    (folder / "model.json").write_text(json.dumps(facts))


RUNTIMES = ("onnx", "openvino")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_says_what_torch_says(cli, run, onnx, clips, film, runtime):
    need(runtime)
    for place in (onnx, onnx / "model.onnx"):
        _, data, _ = predicted(cli, place, clips / "val" / "left", "--runtime", runtime, "--top", 4)
        _, wanted, _ = predicted(cli, run, clips / "val" / "left", "--top", 4)
        for one, other in zip(data["videos"], wanted["videos"], strict=True):
            assert by_label(one["scores"]) == pytest.approx(by_label(other["scores"]), abs=1e-4)
    _, data, _ = predicted(cli, onnx / "model.onnx", film, "--windows", "--runtime", runtime)
    _, wanted, _ = predicted(cli, run, film, "--windows")
    for one, other in zip(data["videos"][0]["windows"], wanted["videos"][0]["windows"], strict=True):
        assert by_label(one["scores"]) == pytest.approx(by_label(other["scores"]), abs=1e-4)


def need(runtime):
    """`onnx` itself has been waited for by the fixture."""
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="the extra `openvino` is not installed")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_runtime_answers_several_threads_at_once(onnx, runtime):
    need(runtime)
    network = load_network(runtime, (onnx / "model.onnx").read_bytes(), 1)
    clips = np.random.default_rng(0).uniform(0, 255, (16, 2, 3, 4, 32, 32)).astype(np.float32)
    wanted = [network(clip) for clip in clips]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            found = list(pool.map(network, clips))
            assert all(np.array_equal(mine, its) for mine, its in zip(found, wanted, strict=True))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_does_without_torch(onnx, film, runtime):
    need(runtime)
    code = (
        "import sys\nfrom archsearch.cli import main\n"
        f"sys.argv = ['archsearch', 'predict', {str(onnx)!r}, {str(film)!r}, '--runtime', {runtime!r}, '--json']\n"
        "try:\n    main()\nexcept SystemExit as error:\n    assert not error.code\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["videos"][0]["scores"]) == 4


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"inputs": [{"name": "clip", "shape": [3, 8, 32, 32], "range": [0, 255]}]}, "takes clip"),
        ({"inputs": [{"name": "film", "shape": [3, 4, 32, 32], "range": [0, 255]}]}, "takes clip"),
        ({"labels": ["a", "b"]}, "other labels"),
        ({"version": 7}, "of version 7"),
        ({"sampling": {"stride": 0, "short_side": 38, "views": 2}}, "sampling: stride"),
        ({"sampling": {"stride": 2, "short_side": 7, "views": 2}}, "sampling: short_side"),
        ({"sampling": {"stride": 2, "short_side": 38, "views": 2, "flow": "lucas"}}, "sampling: flow"),
        ({"labels": []}, "labels"),
        ({"pixels": 3}, "unknown field 'pixels'"),
        ({"files": {"model.onnx": {"bytes": 7, "sha256": hashlib.sha256(b"another").hexdigest()}}}, "sha256"),
        ({"inputs": [{"name": "clip", "shape": [3, 4, 32, 32], "range": [0, 1]}]}, "another range"),
    ],
)
def test_onnx_of_another_network_is_refused(onnx, tmp_path, changes, rule):
    for name in ("model.onnx", "labels.txt"):
        shutil.copy(onnx / name, tmp_path)
    write_facts(tmp_path, **changes)
    with pytest.raises(RunError, match=rule) as fault:
        onnx_model(str(tmp_path))
    assert len(fault.value.lines) == 1


def test_onnx_of_other_classes_or_none_at_all_is_refused(onnx, run, tmp_path):
    shutil.copy(onnx / "model.onnx", tmp_path)
    write_facts(tmp_path, labels=["a", "b"])
    with pytest.raises(RunError, match="a score for each label"):
        onnx_model(str(tmp_path))
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(RunError, match="no network that ONNX Runtime can run"):
        onnx_model(str(tmp_path))
    need("openvino")
    with pytest.raises(RunError, match="no network that OpenVINO can run"):
        onnx_model(str(tmp_path), "openvino")


def test_onnx_without_its_facts_is_refused(run):
    with pytest.raises(RunError, match=r"has no model\.json"):
        onnx_model(run)


# --- labelled copies


def test_a_labelled_copy_has_the_frames_and_a_band(cli, run, film, tmp_path):
    out = tmp_path / "copy.mp4"
    code, _, _ = cli("predict", run, film, "--windows", "--label", out)
    assert code == 0
    straight, copy = decode(film).astype(int), decode(out).astype(int)
    assert copy.shape == straight.shape
    change = np.abs(copy - straight).mean((0, 2, 3))
    assert change[:28].max() < 12 < change[-10:].min()  # h264 loses a little everywhere
    assert [path.name for path in tmp_path.iterdir()] == ["copy.mp4"]
    before = out.read_bytes()
    code, _, err = cli("predict", run, film, "--label", out)
    assert code == 1
    assert "copy.mp4: exists" in err[0]
    assert out.read_bytes() == before


def test_copies_of_several_go_to_a_folder_under_names_of_their_own(cli, run, clips, tmp_path):
    inputs = [clips / "val" / "left" / "0.mp4", clips / "val" / "right" / "0.mp4"]
    code, _, err = cli("predict", run, *inputs, "--label", tmp_path / "one.mp4")
    assert code == 2
    assert "one file" in " ".join(err)
    code, _, _ = cli("predict", run, *inputs, "--label", tmp_path / "out")
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0-2.mp4", "0.mp4"]


def test_a_copy_of_a_broken_video_leaves_nothing(tmp_path, film):
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(film.read_bytes()[:3000])
    with pytest.raises(VideoError, match=r"cut\.mp4"):
        label_copy(Source(cut, str(cut)), tmp_path / "copy.mp4", [(9.0, "x")])
    assert [path.name for path in tmp_path.iterdir()] == ["cut.mp4"]


def test_text_is_drawn_within_the_frame():
    frame = np.full((48, 64, 3), 100, np.uint8)
    short, long = draw(frame, "a"), draw(frame, "a label of many words 0.99")
    assert (short[:30] == 100).all()
    assert (short[-4:] < 100).any()
    assert (long > 200).sum() > (short > 200).sum() > 0
    assert (frame == 100).all()


# --- cameras


def test_a_camera_is_a_line_a_window(cli, run, film, monkeypatch):
    monkeypatch.setitem(reading.CAMERAS, sys.platform, (None, str(film)))
    code, out, _ = cli("predict", run, "0", "--top", 1)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [f"0:00:0{begin}.0" for begin in range(5)]
    _, out, _ = cli("predict", run, "0", "--every", 2, "--json")
    assert [json.loads(line)["begin"] for line in out.splitlines()] == [0, 2, 4]


def test_no_camera_is_one_line(cli, run, monkeypatch, tmp_path):
    monkeypatch.setitem(reading.CAMERAS, sys.platform, (None, str(tmp_path / "video{}")))
    code, out, err = cli("predict", run, "7")
    assert (code, out) == (1, "")
    assert len(err) == 1
    assert "camera 7" in err[0]
    assert "video7 cannot be opened" in err[0]
    assert cli("predict", run, "0", "other.mp4")[0] == 2


def test_ctrl_c_ends_a_camera(cli, run, film, monkeypatch):
    monkeypatch.setitem(reading.CAMERAS, sys.platform, (None, str(film)))
    from archsearch.report import predict as report

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "live_line", interrupted)
    code, out, err = cli("predict", run, "0")
    assert (code, out, err) == (0, "", ["camera 0: ended"])


# --- usage


def test_what_is_no_model_is_told(cli, tmp_path, film):
    code, _, err = cli("predict", tmp_path, film)
    assert code == 1
    assert "is no trained network's folder" in err[0]
    assert cli("predict", tmp_path, film, "--runtime", "tensorrt")[0] == 2


def test_tables_fit(capsys):
    long = "x" * 150
    found = Found(long, (Scored(0, 2, np.array([0.5, 0.5])),) * 40)
    print_table(videos_table([found], (long, "b"), 2))
    print_table(windows_table(found, (long, "b"), 2, 1.0, False))
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100
