"""Evaluation: numbers against hand and scikit-learn, crops and lengths of clips, confusion, curves, fusion."""

import json
import shutil

import numpy as np
import pytest
import torch
from sklearn import metrics

from archsearch.cli.shared import print_table
from archsearch.errors import DataError, RunError, SpecError
from archsearch.nets.build import build
from archsearch.report.evaluation import evaluation_table, fusion_table
from archsearch.spec.presets import load_spec
from archsearch.spec.spec import spec_yaml, with_clip
from archsearch.store import open_store, read_json, write_json
from archsearch.training.analysis import curve_single, frames_single
from archsearch.training.checkpoint import load_weights, save_weights
from archsearch.training.clips import as_clip, sampling_for, split_of
from archsearch.training.evaluate import (
    CROPS,
    Scores,
    bootstrap_interval,
    evaluation_json,
    fuse,
    score,
)
from archsearch.training.fusion import fuse_files, read_scores, write_scores
from archsearch.training.recipe import Recipe
from archsearch.training.single import at_frames, evaluate_single, read_network, score_single, train_single
from archsearch.video.clips import Sampling, frame_indices, view_batch
from archsearch.video.pack import PackedSplit

pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = Recipe(epochs=2, batch=8, warmup_epochs=0, views=2, flip=False, lr=4e-3)


@pytest.fixture(scope="module")
def run(spec, clips, tmp_path_factory):
    """A trained network of 4 frames; its videos have 8."""
    folder = str(tmp_path_factory.mktemp("runs") / "net")
    train_single(spec, clips, folder, RECIPE, lambda *_: None)
    return folder


def made(videos=60, views=3, classes=7, skill=1.0, seed=0):
    """Scores of a network that is right now and then."""
    labels = np.random.default_rng(99).integers(0, classes, videos)
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(videos, views, classes)) + rng.normal(size=(videos, 1, classes))
    logits[np.arange(videos), :, labels] += skill
    probabilities = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    return Scores(probabilities, labels, tuple(f"val/{number}.mp4" for number in range(videos)))


def names_of(classes):
    return tuple(f"class {number}" for number in range(classes))


# --- numbers


def test_numbers_are_those_of_scikit_learn():
    scores = made()
    found = evaluation_json(scores, names_of(7))
    mean, labels = scores.probabilities.mean(1), scores.labels
    said = mean.argmax(1)
    assert 0.2 < found["top1"] < 0.9  # or the test could not fail
    assert found["top1"] == pytest.approx(metrics.accuracy_score(labels, said))
    assert found["top5"] == pytest.approx(metrics.top_k_accuracy_score(labels, mean, k=5))
    assert found["top1"] < found["top5"] < 1
    assert found["mean_class_top1"] == pytest.approx(metrics.balanced_accuracy_score(labels, said))
    assert found["mean_class_top1"] != pytest.approx(found["top1"])
    assert found["loss"] == pytest.approx(metrics.log_loss(labels, mean))
    assert found["confusion"] == metrics.confusion_matrix(labels, said).tolist()
    recall = metrics.recall_score(labels, said, average=None)
    assert list(found["classes"].values()) == pytest.approx(recall.tolist())
    assert list(found["class_videos"].values()) == np.bincount(labels).tolist()


def test_a_class_without_videos_counts_nowhere_but_in_the_matrix():
    scores = Scores(np.array([[[0.8, 0.1, 0.1]], [[0.1, 0.1, 0.8]], [[0.6, 0.3, 0.1]]]), np.array([0, 0, 2]))
    found = evaluation_json(scores, ("a", "b", "c"))
    assert found["confusion"] == [[1, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert found["classes"] == {"a": 0.5, "c": 0.0}
    assert found["class_videos"] == {"a": 2, "c": 1}
    assert found["mean_class_top1"] == 0.25
    assert found["top5"] == 1
    assert found["confused"] == [
        {"class": "c", "said": "a", "videos": 1, "share": 1.0},
        {"class": "a", "said": "c", "videos": 1, "share": 0.5},
    ]


def test_the_calibration_error_by_hand():
    confidences, right = [0.7, 0.72, 0.95, 0.95, 0.55, 0.6], [1, 0, 1, 1, 0, 1]
    labels = np.array([0 if hit else 1 for hit in right])
    scores = Scores(np.array([[[c, 1 - c]] for c in confidences]), labels)
    # bins of 1/15: 0.7 and 0.72 are in (10/15, 11/15], both 0.95 in (14/15, 1], 0.55 and 0.6 in (8/15, 9/15]
    by_hand = (2 / 6) * abs(0.5 - 0.71) + (2 / 6) * abs(1 - 0.95) + (2 / 6) * abs(0.5 - 0.575)
    assert scores.ece == pytest.approx(by_hand)
    sure = Scores(np.array([[[1.0, 0.0]], [[0.0, 1.0]]]), np.array([0, 0]))
    assert sure.ece == pytest.approx(0.5)
    total = 0.0
    many = made(400)
    top, hit = many.probabilities.mean(1).max(1), many.probabilities.mean(1).argmax(1) == many.labels
    for low in np.arange(15) / 15:
        inside = (top > low) & (top <= low + 1 / 15)
        total += abs((hit[inside].astype(float) - top[inside]).sum()) / 400
    assert many.ece == pytest.approx(total)


def test_the_interval_is_that_of_drawn_videos():
    values = made(80, skill=0.5).hits
    low, high = bootstrap_interval(values)
    rng = np.random.default_rng(5)
    means = [rng.choice(values, len(values)).mean() for _ in range(4000)]
    assert [low, high] == pytest.approx(np.quantile(means, (0.025, 0.975)), abs=0.013)  # one video of 80
    assert low < values.mean() < high
    assert bootstrap_interval(values) == [low, high]
    assert bootstrap_interval(np.ones(9)) == [1, 1]
    differences = np.array([1, 0, 0, -1, 1, 1, 0, 0, 1, 0] * 5)
    low, high = bootstrap_interval(differences)
    means = [rng.choice(differences, 50).mean() for _ in range(4000)]
    assert [low, high] == pytest.approx(np.quantile(means, (0.025, 0.975)), abs=0.021)


# --- views, crops, lengths


@pytest.fixture
def shapes(tmp_path):
    """A wide, a tall and a square video of random pixels."""
    sizes = np.array([(6, 10, 17), (5, 18, 10), (7, 11, 11)])
    ends = np.cumsum(sizes.prod(1) * 3)
    content = np.random.default_rng(0).integers(0, 256, ends[-1], np.uint8)
    (tmp_path / "frames.u8").write_bytes(content.tobytes())
    return PackedSplit(
        ("wide", "tall", "square"), np.arange(3), sizes, ends - sizes.prod(1) * 3, tmp_path / "frames.u8"
    )


@pytest.mark.parametrize(
    ("crop", "corners"),
    [
        (CROPS[3][0], [(1, 0), (0, 1), (2, 0)]),
        (CROPS[1][0], [(1, 5), (5, 1), (2, 2)]),
        (CROPS[3][2], [(1, 9), (10, 1), (2, 3)]),
    ],
    ids=["left", "centre", "right"],
)
def test_crops_lie_along_the_longer_side(shapes, crop, corners):
    sampling = Sampling(3, 8, 8, 1)
    batch = view_batch(shapes, np.arange(3), sampling, 1, 2, crop=crop)
    for video, (top, left) in enumerate(corners):
        frames = shapes.frames(video)
        places = frame_indices(len(frames), 3, 1, 0.75)
        assert np.array_equal(batch[video], frames[places, top : top + 8, left : left + 8])
    if crop == 0.5:
        assert np.array_equal(batch, view_batch(shapes, np.arange(3), sampling, 1, 2))


def weighed(run, pack, length, places):
    """Probabilities (videos, views * crops, classes), with clips cut here, the crop at `places` of (top, left)."""
    store = open_store(run)
    spec, recipe, _ = read_network(store)
    net = build(with_clip(spec, (3, length, 32, 32))).eval()
    load_weights(store, net)
    rows = []
    for view in range(recipe.views):
        for top, left in places:
            split = split_of(pack, "val")
            batch = []
            for video in range(len(split)):
                frames = split.frames(video)
                chosen = frame_indices(len(frames), length, recipe.stride, (view + 0.5) / recipe.views)
                batch.append(frames[chosen, top : top + 32, left : left + 32])
            with torch.no_grad():
                rows.append(net(as_clip(np.stack(batch), recipe)).double().softmax(1).numpy())
    return np.stack(rows, 1)


@pytest.mark.parametrize("length", [4, 7])
@pytest.mark.parametrize(("crops", "places"), [(1, [(3, 3)]), (3, [(3, 0), (3, 3), (3, 6)])])
def test_scores_are_those_of_clips_cut_by_hand(run, clips, pack, length, crops, places):
    assert pack.splits["val"].frames(0).shape == (8, 38, 38, 3)
    scores, classes = score_single(run, clips, "val", crops=crops, frames=None if length == 4 else length)
    expected = weighed(run, pack, length, places)
    assert scores.probabilities.shape == (12, 2 * crops, 4)
    assert np.allclose(scores.probabilities, expected, atol=1e-5)
    assert (scores.names, classes) == (pack.splits["val"].names, pack.classes)
    if crops == 3:
        assert np.ptp(expected[:, :3], axis=1).max() > 1e-4  # crops differ, or the test could not fail


def test_one_centre_crop_gives_the_bits_it_always_gave(run, clips, spec, pack):
    net = build(spec, seed=0)
    sampling = sampling_for(spec, RECIPE, pack.classes)
    split = split_of(pack, "val")
    plain = score(net, split, sampling, RECIPE)
    net.eval()
    with torch.no_grad():
        for view in range(2):
            old = [
                net(as_clip(view_batch(split, np.arange(start, min(start + 8, 12)), sampling, view, 2), RECIPE))
                for start in (0, 8)
            ]
            assert np.array_equal(plain.probabilities[:, view], torch.cat(old).double().softmax(1).numpy())
    net.train()
    assert np.array_equal(score(net, split, sampling, RECIPE, crops=3).probabilities[:, 1::3], plain.probabilities)
    with pytest.raises(DataError, match="2 crops: should be 1"):
        score(net, split, sampling, RECIPE, crops=2)


def test_progress_counts_clips(run, clips):
    said = []
    score_single(run, clips, "val", crops=3, report=lambda *row: said.append(row))
    assert [done for _, done, _, _ in said] == [start + step for start in range(0, 72, 12) for step in (8, 12)]
    assert {(what, total) for what, _, total, _ in said} == {("scoring", 72)}


def test_a_network_trained_on_a_gpu_is_scored_where_there_is_none(run, clips, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    shutil.copytree(run, tmp_path / "run")
    store = open_store(str(tmp_path / "run"))
    write_json(store, "recipe.json", {**read_json(store, "recipe.json"), "device": "cuda"})
    said = []
    scores, _ = score_single(store.url, clips, "val", report=lambda *row: said.append(row))
    assert np.array_equal(scores.probabilities, score_single(run, clips, "val")[0].probabilities)
    assert {status for _, _, _, status in said} == {"on the CPU: torch sees no cuda device here"}
    frames_single(store.url, clips, "val", [2], report=lambda *row: said.append(row))
    assert said[-1][3] == "2 frames, on the CPU: torch sees no cuda device here"


def test_which_networks_take_other_lengths():
    assert at_frames(load_spec("r3d_18"), 32).clip == (3, 32, 112, 112)
    assert at_frames(load_spec("i3d"), 16).clip[1] == 16
    for name, site in (("c3d", "head.hidden1"), ("r2d_18", "stem.conv")):
        network = load_spec(name)
        with pytest.raises(SpecError, match=rf"weights are for clips of 16 frames: at 32, {site} would have") as caught:
            at_frames(network, 32)
        assert len(caught.value.lines) == 1


# --- the command


def test_evaluate(cli, run, clips, tmp_path):
    call = ("evaluate", run, clips, "--crops", 3, "--views", 1, "--frames", 8)
    code, out, err = cli(*call, "--json", "--figure", tmp_path / "c.svg", "--scores", tmp_path / "s.npz")
    assert (code, err) == (0, [])
    data = json.loads(out)
    assert [data[name] for name in ("network", "videos", "views", "crops", "frames")] == ["net", 12, 1, 3, 8]
    picture = (tmp_path / "c.svg").read_text()
    assert all(f"{name} (3)" in picture for name in data["classes"])
    scores, classes = read_scores(tmp_path / "s.npz")
    assert evaluation_json(scores, classes)["confusion"] == data["confusion"]
    assert scores.loss == pytest.approx(data["loss"])
    code, out, _ = cli(*call)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    rows = [line.split() for line in out.splitlines()]
    assert ["top-1", f"{data['top1']:.4f}"] in [row[:2] for row in rows]
    for name, top1 in data["classes"].items():
        assert [name, "3", f"{top1:.3f}"] in rows
    for pair in data["confused"]:
        assert [pair["class"], pair["said"], str(pair["videos"]), f"{pair['share']:.3f}"] in rows


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--crops", 2), "2 crops: should be 1 (the centre) or 3 (left, centre and right)"),
        (("--scores", "s.pkl"), "s.pkl: a file of scores ends in .npz or .json, not '.pkl'"),
        (("--split", "vale"), "the data set has no 'vale' split; did you mean 'val'?"),
    ],
)
def test_what_evaluate_cannot_do(cli, run, clips, options, line):
    assert cli("evaluate", run, clips, *options) == (1, "", [line])


def test_weights_that_are_not_finite_are_one_line(clips, spec, tmp_path):
    train_single(spec, clips, str(tmp_path / "run"), RECIPE.model_copy(update={"epochs": 1}), lambda *_: None)
    store = open_store(str(tmp_path / "run"))
    net = build(spec)
    net.get_submodule("head.linear").weight.data[:] = np.nan
    save_weights(store, net)
    with pytest.raises(RunError, match="of some videos is not finite"):
        evaluate_single(store.url, clips, "val", None, False)


def test_tables_of_long_names_fit(capsys):
    names = tuple(f"[bold]a class of a name that goes on and on and on {'x' * 60} {number}" for number in range(7))
    facts = {"network": "net", "split": "val", "videos": 60, "views": 3, "crops": 3, "frames": 16, "reverse": True}
    print_table(evaluation_table({**facts, **evaluation_json(made(), names)}))
    row = {"top1": 0.5, "top1_interval": [0.4, 0.6], "top5": 0.9}
    gain = {"gain": 0.1, "gain_interval": [-0.01, 0.2]}
    alone = [{"scores": "/somewhere/" * 9 + "rgb.npz", "weight": 1.5, **row, **gain}] * 2
    print_table(fusion_table({"videos": 60, "classes": 7, "alone": alone, "fused": row}))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    assert "[bold]" in out


# --- lengths


def test_analyse_frames(cli, run, clips, tmp_path):
    call = ("analyse", "frames", run, clips, "--frames", "8,2,4")
    code, out, err = cli(*call, "--json", "--figure", tmp_path / "f.png")
    assert (code, err) == (0, [])
    data = json.loads(out)
    assert [row["frames"] for row in data["lengths"]] == [2, 4, 8]
    assert (data["trained"], data["videos"], data["views"]) == (4, 12, 2)
    assert data == frames_single(run, clips, "val", [2, 4, 8])
    own = evaluate_single(run, clips, "val", None, False)
    for name in ("top1", "top1_interval", "top5", "clip_top1", "loss"):
        assert data["lengths"][1][name] == own[name]
    assert data["lengths"][2]["loss"] != own["loss"]
    assert data["lengths"][2]["gmacs"] == pytest.approx(2 * data["lengths"][1]["gmacs"], rel=0.01)
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = cli(*call)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    rows = [line.split() for line in out.splitlines() if "to" in line.split()]
    assert [(row[0], row[2], row[-1]) for row in rows] == [
        (str(row["frames"]), f"{row['top1']:.3f}", f"{row['loss']:.3f}") for row in data["lengths"]
    ]
    assert cli(*call[:-1], "4;8")[::2] == (1, ["--frames 4;8: should be numbers with commas between, as 4,8,16"])
    assert cli(*call[:-1], "0,8")[::2] == (1, ["--frames 0,8: a clip has 1 frame or more"])


# --- curves


def curve_of(folder, spec, rows):
    folder.mkdir()
    (folder / "spec.yaml").write_text(spec_yaml(spec))
    (folder / "recipe.json").write_text("{}")
    (folder / "labels.txt").write_text("a\nb\n")
    names = ("train_loss", "val_loss", "train_top1", "val_top1")
    entries = [{"epoch": number, **dict(zip(names, row, strict=True))} for number, row in enumerate(rows)]
    (folder / "curve.json").write_text(json.dumps(entries))
    return str(folder)


ROWS = [(2.0, 40.0, 0.2, 0.1), (1.0, 1.5, 0.6, 0.5), (0.5, 1.25, 0.8, 0.5), (0.25, 1.5, 1.0, 0.4)]


def test_gaps_by_hand(spec, tmp_path):
    found = curve_single([curve_of(tmp_path / "deep", spec, ROWS)])["runs"][0]
    assert found["network"] == "net"
    assert (found["best"]["epoch"], found["best"]["loss_gap"], found["last"]["epoch"]) == (3, 0.75, 4)
    assert found["best"]["top1_gap"] == pytest.approx(0.3)
    assert found["last"]["loss_gap"] == 1.25
    assert found["last"]["top1_gap"] == pytest.approx(0.6)


def test_analyse_curve(cli, run, spec, tmp_path):
    other = curve_of(tmp_path / "other", spec, ROWS)
    code, out, err = cli("analyse", "curve", run, other, "--figure", tmp_path / "c.png")
    assert (code, err) == (0, [])
    assert max(map(len, out.splitlines())) <= 100
    rows = [line.split() for line in out.splitlines()]
    assert ["other", "best", "3", "0.500", "1.250", "+0.750", "0.800", "0.500", "+0.300"] in rows
    assert ["last", "4", "0.250", "1.500", "+1.250", "1.000", "0.400", "+0.600"] in rows
    code, out, _ = cli("analyse", "curve", run, other, "--json")
    trained = json.loads(out)["runs"][0]
    recorded = json.loads(open_store(run).read("curve.json"))
    assert [row["val_loss"] for row in trained["epochs"]] == [row["val_loss"] for row in recorded]


def test_folders_without_a_curve(cli, spec, tmp_path):
    code, _, err = cli("analyse", "curve", tmp_path)
    assert (code, len(err)) == (1, 1)
    assert "has no curve.json" in err[0]
    for number, content in enumerate(("[]", '{"a": 1}', '[{"val_loss": 1}]', "[3]")):
        folder = curve_of(tmp_path / str(number), spec, ROWS)
        (tmp_path / str(number) / "curve.json").write_text(content)
        with pytest.raises(RunError, match="should be a list of epochs"):
            curve_single([folder])


# --- fusion


@pytest.fixture
def streams(tmp_path):
    """Two networks' scores of the same videos, the second file in another order."""
    rgb = made(40, skill=1.0)
    flow = made(40, skill=1.3, seed=1)
    order = np.random.default_rng(1).permutation(40)
    mixed = Scores(flow.probabilities[order], flow.labels[order], tuple(flow.names[place] for place in order))
    paths = tmp_path / "rgb.npz", tmp_path / "flow.json"
    for path, scores in zip(paths, (rgb, mixed), strict=True):
        write_scores(path, scores, names_of(7))
    return paths, rgb, flow


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_files_of_scores_are_read_as_written(tmp_path, suffix):
    scores = made()
    write_scores(tmp_path / f"s{suffix}", scores, names_of(7))
    found, classes = read_scores(tmp_path / f"s{suffix}")
    assert np.array_equal(found.probabilities[:, 0], scores.probabilities.mean(1))
    assert (found.labels.tolist(), found.names, classes) == (scores.labels.tolist(), scores.names, names_of(7))
    write_scores(tmp_path / f"t{suffix}", scores, names_of(7))
    assert (tmp_path / f"t{suffix}").read_bytes() == (tmp_path / f"s{suffix}").read_bytes()


def test_fusion_is_the_weighted_mean_by_name(streams):
    paths, rgb, flow = streams
    mean = (rgb.probabilities.mean(1) + 1.5 * flow.probabilities.mean(1)) / 2.5
    hits = mean.argmax(1) == rgb.labels
    found = fuse_files(paths, [1, 1.5])
    assert found["fused"]["top1"] == pytest.approx(hits.mean())
    assert found["fused"]["top5"] == pytest.approx(metrics.top_k_accuracy_score(rgb.labels, mean, k=5))
    for row, scores in zip(found["alone"], (rgb, flow), strict=True):
        assert row["top1"] == pytest.approx(scores.top1)
        assert row["gain"] == pytest.approx(hits.mean() - scores.top1)
        assert row["gain_interval"] == bootstrap_interval(hits.astype(int) - scores.hits.astype(int))
    assert found["fused"]["top1"] != fuse_files(paths, [1, 1000])["fused"]["top1"] == flow.top1
    assert np.allclose(fuse([rgb, flow], [2, 3]).mean, mean)


def test_a_network_fused_with_itself_gains_nothing(streams):
    (path, _), rgb, _ = streams
    found = fuse_files([path, path])
    assert found["fused"]["top1"] == rgb.top1
    assert [(row["gain"], row["gain_interval"]) for row in found["alone"]] == [(0, [0, 0])] * 2


def test_fuse(cli, streams):
    paths, *_ = streams
    code, out, err = cli("fuse", *paths, "--weights", "1,1.5", "--json")
    assert (code, err, json.loads(out)) == (0, [], fuse_files(paths, [1, 1.5]))
    code, out, _ = cli("fuse", *paths)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    fused = next(line.split() for line in out.splitlines() if line.split()[:1] == ["fused"])
    assert fused[1] == f"{fuse_files(paths)['fused']['top1']:.3f}"
    assert cli("fuse", paths[0])[::2] == (1, ["fusion needs two files of scores or more"])
    for weights in ("1", "1,0", "1,-1", "1,nan", "1,inf", "1,2,3"):
        code, _, err = cli("fuse", *paths, "--weights", weights)
        assert (code, len(err)) == (1, 1)
        assert "should be 2 positive numbers, one for each file" in err[0]
    assert "should be numbers with commas" in cli("fuse", *paths, "--weights", "1;2")[2][0]


def test_scores_of_other_videos_or_classes(streams, tmp_path):
    (path, _), rgb, _ = streams
    other = tmp_path / "other.npz"

    def fault(scores, classes):
        write_scores(other, scores, classes)
        with pytest.raises(DataError) as caught:
            fuse_files([path, other])
        assert len(caught.value.lines) == 1
        return str(caught.value)

    assert "has other classes than" in fault(rgb, (*names_of(6), "odd"))
    assert "in order" in fault(rgb, names_of(7)[::-1])
    fewer = Scores(rgb.probabilities[1:], rgb.labels[1:], rgb.names[1:])
    assert "1 are in one of them only, e.g. val/0.mp4" in fault(fewer, names_of(7))
    moved = Scores(rgb.probabilities, (rgb.labels + (np.arange(40) == 7)) % 7, rgb.names)
    assert "has another class for val/7.mp4 than" in fault(moved, names_of(7))


GOOD = {"names": ["a", "b"], "classes": ["x", "y"], "labels": [0, 1], "probabilities": [[0.5, 0.5], [0.1, 0.9]]}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1]",
        "{}",
        "[[",
        json.dumps({**GOOD, "names": ["a", "a"]}),
        json.dumps({**GOOD, "names": []}),
        json.dumps({**GOOD, "labels": [0, 2]}),
        json.dumps({**GOOD, "labels": [0.5, 1]}),
        json.dumps({**GOOD, "labels": [0]}),
        json.dumps({**GOOD, "probabilities": [[0.5, 0.5], [0.1]]}),
        json.dumps({**GOOD, "probabilities": [[0.5, 0.5], [0.1, 0.8]]}),
        json.dumps({**GOOD, "probabilities": [[0.5, 0.5], [float("nan"), 0.9]]}),
        json.dumps({**GOOD, "classes": 3}),
    ],
)
def test_files_that_are_no_scores_are_one_line(tmp_path, content):
    (tmp_path / "good.json").write_text(json.dumps(GOOD))
    read_scores(tmp_path / "good.json")
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(DataError, match=r"bad\.json: is no file of") as caught:
        read_scores(tmp_path / "bad.json")
    assert len(str(caught.value).splitlines()) == 1


def test_archives_that_are_no_scores_are_one_line(tmp_path):
    bad = tmp_path / "bad.npz"
    with pytest.raises(DataError, match="No such file"):
        read_scores(bad)
    np.savez(tmp_path / "code.npz", names=np.array([{"a": 1}], dtype=object))
    np.save(tmp_path / "one.npy", np.ones(3))
    whole = (tmp_path / "code.npz").read_bytes()
    for content in (b"", b"no", whole, whole[: len(whole) // 2], (tmp_path / "one.npy").read_bytes()):
        bad.write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.npz: is no file of") as caught:
            read_scores(bad)
        assert len(str(caught.value).splitlines()) == 1
