"""Analyses of trained networks: kernels, clips played backwards, features; against numbers found in other ways."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from archsearch.errors import DataError, MissingExtra
from archsearch.files import parse_yaml
from archsearch.nets.build import build
from archsearch.nets.taps import by_stage, temporal_taps
from archsearch.report.analysis import kernels_json, kernels_table, time_table
from archsearch.report.analysis_figures import curve_figure, features_figure, kernels_figure, time_figure
from archsearch.report.evaluation_figures import confusion_figure
from archsearch.spec.spec import SpecError, parse_spec
from archsearch.store import open_store, read_json, write_json
from archsearch.training import analysis
from archsearch.training.analysis import Features, features_json, features_single, knn_top1, time_single
from archsearch.training.checkpoint import load_weights
from archsearch.training.clips import as_clip, sampling_for
from archsearch.training.recipe import Recipe
from archsearch.training.single import read_network, train_single
from archsearch.video.clips import view_batch

pytestmark = pytest.mark.usefixtures("one_thread")

STAGES = """
name: tiny
clip: [3, 4, 32, 32]
stages:
  - {kind: conv, name: stem, width: 8, kernel: [3, 5, 5], stride: [1, 2, 2], conv: KIND}
  - {kind: residual, name: res2, depth: 1, width: 8, stride: [1, 2, 2], conv: KIND}
  - {kind: residual, name: res3, depth: 1, width: 12, stride: [1, 2, 2], conv: KIND}
  - {kind: residual, name: res4, depth: 1, width: 16, stride: [1, 2, 2], conv: KIND}
  - {kind: head, name: head, classes: 4}
"""
RECIPE = Recipe(batch=8, warmup_epochs=0, views=2, flip=False, lr=4e-3)


def spec_of(kind):
    return parse_spec(parse_yaml(STAGES.replace("KIND", kind), "tiny.yaml", SpecError), "tiny.yaml")


@pytest.fixture(scope="module")
def runs(clips, tmp_path_factory):
    """A trained network that sees time, and one that does not."""
    folders = {}
    for kind, epochs in (("3d", 6), ("2d", 1)):
        folders[kind] = str(tmp_path_factory.mktemp("runs") / kind)
        recipe = RECIPE.model_copy(update={"epochs": epochs})
        train_single(spec_of(kind), clips, folders[kind], recipe, lambda *_: None)
    return folders


@pytest.fixture
def mixed():
    """Kernels of known shares: in a plain site, in the temporal half of a separable one, and a 2d site."""
    text = """
name: mixed
clip: [3, 8, 16, 16]
stages:
  - {kind: conv, name: plain, width: 4, kernel: [3, 3, 3], conv: 3d}
  - {kind: conv, name: halves, width: 4, kernel: [5, 3, 3], conv: separable}
  - {kind: conv, name: flat, width: 4, kernel: [3, 3, 3], conv: 2d}
  - {kind: conv, name: even, width: 4, kernel: [4, 1, 1], conv: 3d}
  - {kind: head, name: head, classes: 2}
"""
    net = build(parse_spec(parse_yaml(text, "mixed.yaml", SpecError), "mixed.yaml"), seed=0)
    with torch.no_grad():
        signs = torch.tensor([1.0, -1.0, 1.0]).view(1, 3, 1, 1)
        for filter_, taps in enumerate(([1, 2, 1], [0, 1, 0], [3, 1, 0], [0, 0, 0])):
            net.plain.conv.weight[filter_] = torch.tensor(taps).view(1, 3, 1, 1) * signs * (filter_ + 1)
        net.halves.conv.temporal.weight[:] = torch.tensor([0.0, 0, 1, 0, 3]).view(1, 5, 1, 1)
    return net


# --- kernels


def test_shares_are_those_of_known_kernels(mixed):
    plain, halves, even = temporal_taps(mixed)
    assert [plain.site, halves.site, even.site] == ["plain.conv", "halves.conv", "even.conv"]
    assert (plain.stage, plain.offsets, halves.offsets) == ("plain", (-1, 0, 1), (-2, -1, 0, 1, 2))
    assert even.offsets == (-1, 0, 1, 2)
    expected = [[0.25, 0.5, 0.25], [0, 1, 0], [0.75, 0.25, 0]]  # the filter of zeros is left out
    assert np.allclose(plain.shares, expected, atol=1e-12)
    assert np.allclose(halves.shares, [[0, 0, 0.25, 0, 0.75]] * 4)
    assert np.allclose(even.shares.sum(1), 1)


def test_a_stage_is_its_filters_together_whatever_their_kernels():
    spec = spec_of("3d")
    net = build(spec, seed=1)
    taps = temporal_taps(net)
    stages = {stage.stage: stage for stage in by_stage(taps)}
    assert list(stages) == ["stem", "res2", "res3", "res4"]
    for name, stage in stages.items():
        members = [module.weight for at, module in net.named_modules() if at.startswith(f"{name}.") and "conv" in at]
        parts = [w.abs().sum((1, 3, 4)) / w.abs().sum((1, 2, 3, 4))[:, None] for w in members if w.shape[2] > 1]
        assert np.allclose(stage.shares, torch.cat(parts).detach().numpy(), atol=1e-6)
    unlike = by_stage([taps[0], analysis.Taps("stem.x", "stem", (-2, -1, 0, 1, 2), np.full((1, 5), 0.2))])[0]
    assert unlike.offsets == (-2, -1, 0, 1, 2)
    assert np.allclose(unlike.shares[0], [0, *taps[0].shares[0], 0])
    assert np.allclose(unlike.shares.sum(1), 1)


def test_kernels_as_json(mixed):
    data = kernels_json("mixed", temporal_taps(mixed))
    plain = data["layers"][0]
    shares = np.array([[0.25, 0.5, 0.25], [0, 1, 0], [0.75, 0.25, 0]])
    assert {name: plain[name] for name in ("site", "stage", "filters", "offsets")} == {
        "site": "plain.conv",
        "stage": "plain",
        "filters": 3,
        "offsets": [-1, 0, 1],
    }
    assert np.allclose(plain["mean"], shares.mean(0))
    assert np.allclose(plain["quartiles"], [[0.125, 0.25, 0.5], [0.375, 0.5, 0.75], [0, 0, 0.125]])
    assert [stage["stage"] for stage in data["stages"]] == ["plain", "halves", "even"]


def test_a_convolution_of_zeros_has_no_shares(mixed, tmp_path):
    with torch.no_grad():
        mixed.plain.conv.weight[:] = 0
    taps = temporal_taps(mixed)
    data = kernels_json("mixed", taps)
    assert (data["layers"][0]["filters"], data["layers"][0]["mean"]) == (0, [])
    kernels_table(data)
    kernels_figure(taps, tmp_path / "a.png", "mixed")
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_frames_far_from_the_middle_share_a_column(cli_text):
    taps = [analysis.Taps("stem.conv", "stem", tuple(range(-7, 9)), np.full((3, 16), 1 / 16))]
    text = cli_text(kernels_table(kernels_json("r2d", taps)))
    row = next(line.split() for line in text.splitlines() if "stem.conv" in line)
    assert row == ["stem.conv", "3", "0.250", *["0.062"] * 7, "0.312"]
    assert "farther than 4" in text


@pytest.fixture
def cli_text(capsys):
    """What the command line prints of a table."""

    def text(table):
        from archsearch.cli.shared import print_table

        capsys.readouterr()
        print_table(table)
        return capsys.readouterr().out

    return text


def test_analyse_kernels(cli, runs, tmp_path):
    code, out, err = cli("analyse", "kernels", runs["3d"], "--figure", tmp_path / "k.png", "--json")
    assert (code, err) == (0, [])
    data = json.loads(out)
    assert list(data) == ["network", "layers", "stages"]
    assert [stage["filters"] for stage in data["stages"]] == [8, 16, 24, 32]
    assert (tmp_path / "k.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = cli("analyse", "kernels", runs["3d"])
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    row = next(line.split() for line in out.splitlines() if "all of res4" in line)
    assert row[3:] == ["32", *(f"{share:.3f}" for share in data["stages"][-1]["mean"])]


def test_a_network_without_kernels_over_time_says_so(cli, runs, tmp_path):
    code, out, err = cli("analyse", "kernels", runs["2d"])
    assert (code, out) == (1, "")
    assert err == [f"{runs['2d']}: no convolution of tiny spans more than one frame; it has no temporal kernels"]
    code, _, err = cli("analyse", "kernels", tmp_path)
    assert code == 1
    assert "no trained network" in err[0]


# --- time


def chosen(run, pack, split, flipped):
    """The class of every video by a network's folder, from clips flipped here."""
    store = open_store(run)
    spec, recipe, labels = read_network(store)
    net = build(spec).eval()
    load_weights(store, net)
    total = 0
    for view in range(recipe.views):
        videos = np.arange(len(pack.splits[split]))
        batch = view_batch(pack.splits[split], videos, sampling_for(spec, recipe, labels), view, recipe.views)
        with torch.no_grad():
            total += net(as_clip(batch[:, ::-1].copy() if flipped else batch, recipe)).double().softmax(1).numpy()
    return total.argmax(1)


def test_time_is_top1_of_clips_flipped_by_hand(runs, clips, pack):
    split = "train"
    found = time_single(runs["3d"], clips, split, None)
    truth = pack.splits[split].labels
    ways = {"forwards": chosen(runs["3d"], pack, split, False), "backwards": chosen(runs["3d"], pack, split, True)}
    assert not np.array_equal(*ways.values())  # or the test could not fail
    for way, classes in ways.items():
        assert found[way] == pytest.approx((classes == truth).mean())
        for label, name in enumerate(pack.classes):
            assert found["classes"][name][way] == pytest.approx((classes == truth)[truth == label].mean())
    assert found["same"] == pytest.approx((ways["forwards"] == ways["backwards"]).mean())
    assert found["difference"] == pytest.approx(found["backwards"] - found["forwards"])
    assert (found["videos"], found["views"], found["split"]) == (len(truth), 2, split)
    differences = [row["difference"] for row in found["classes"].values()]
    assert differences == sorted(differences)


def test_a_network_blind_to_time_scores_the_same_both_ways(runs, clips):
    found = time_single(runs["2d"], clips, "train", 1)  # one view: its frames are the same ones backwards
    assert found["same"] == 1
    assert all(row["difference"] == 0 for row in found["classes"].values())


def test_analyse_time(cli, runs, clips, tmp_path):
    call = ("analyse", "time", runs["3d"], clips)
    code, out, err = cli(*call, "--json", "--views", 1, "--figure", tmp_path / "t.svg")
    assert (code, err) == (0, [])
    data = json.loads(out)
    assert (data["split"], data["videos"], data["views"]) == ("val", 12, 1)
    picture = (tmp_path / "t.svg").read_text()
    assert all(f"{name} (3)" in picture for name in data["classes"])
    code, out, _ = cli(*call)
    rows = [line.split() for line in out.splitlines()]
    assert code == 0
    assert [row[0] for row in rows if len(row) == 5 and row[1] in ("3", "12")] == [*time_classes(runs, clips), "all"]
    code, _, err = cli(*call, "--split", "vale")
    assert (code, err) == (1, ["the data set has no 'vale' split; did you mean 'val'?"])


def time_classes(runs, clips):
    return list(time_single(runs["3d"], clips, "val", None)["classes"])


# --- features


def test_features_are_what_a_hook_sees(runs, clips, pack):
    found = features_single(runs["3d"], clips, "val", ["res2", "res4", "head"])
    store = open_store(runs["3d"])
    spec, recipe, labels = read_network(store)
    net = build(spec).eval()
    load_weights(store, net)
    seen = {}
    for name, place in {"res2": "res2.0.act2", "res4": "res4.0.act2"}.items():
        module = net.get_submodule(place if place in dict(net.named_modules()) else place.replace("act2", "act"))
        module.register_forward_hook(lambda _module, _in, out, name=name: seen.setdefault(name, []).append(out.clone()))
    sampling = sampling_for(spec, recipe, labels)
    for view in range(recipe.views):
        with torch.no_grad():
            logits = net(as_clip(view_batch(pack.splits["val"], np.arange(12), sampling, view, recipe.views), recipe))
        seen.setdefault("head", []).append(logits)
    for name, maps in seen.items():
        means = [each.mean((2, 3, 4)) if each.ndim == 5 else each for each in maps]
        assert np.allclose(found.stages[name], torch.stack(means).mean(0).numpy(), atol=1e-5)
    assert {name: x.shape for name, x in found.stages.items()} == {"res2": (12, 8), "res4": (12, 16), "head": (12, 4)}
    assert found.labels.tolist() == pack.splits["val"].labels.tolist()


def test_features_of_a_network_trained_on_a_gpu_where_there_is_none(runs, clips, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    shutil.copytree(runs["3d"], tmp_path / "run")
    store = open_store(str(tmp_path / "run"))
    write_json(store, "recipe.json", {**read_json(store, "recipe.json"), "device": "cuda"})
    said = []
    found = features_single(store.url, clips, "val", ["head"], say=said.append)
    assert np.array_equal(found.stages["head"], features_single(runs["3d"], clips, "val", ["head"]).stages["head"])
    assert said == [f"{store.url}: on the CPU: torch sees no cuda device here"]


def test_the_default_stages_are_the_first_a_middle_and_the_last(runs, clips):
    assert list(features_single(runs["3d"], clips, "val").stages) == ["stem", "res2", "res4"]


def blobs(classes=3, videos=12, spread=0.1):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), videos)
    return rng.normal(size=(classes, 6))[labels] + spread * rng.normal(size=(len(labels), 6)), labels


@pytest.mark.parametrize("spread", [0.1, 1.5])
def test_neighbours_vote_without_the_video_itself(spread):
    features, labels = blobs(spread=spread)
    hits = []
    for video, label in enumerate(labels):
        distance = np.linalg.norm(features - features[video], axis=1)
        distance[video] = np.inf
        hits.append(np.bincount(labels[np.argsort(distance)[:5]]).argmax() == label)
    assert knn_top1(features, labels) == pytest.approx(np.mean(hits))
    assert knn_top1(features, labels) == 1 or spread > 1


def test_the_map_keeps_neighbours_and_is_a_function_of_the_seed():
    features, labels = blobs()
    found = Features({"res5": features}, labels, ("a", "b", "c"), tuple(map(str, range(len(labels)))))
    data = features_json(found, 0)
    assert knn_top1(np.array(data["stages"]["res5"]["points"]), labels) == 1
    assert data["labels"][12] == "b"
    assert data["largest_class"] == pytest.approx(1 / 3)
    assert features_json(found, 0) == data
    assert features_json(found, 1)["stages"]["res5"]["points"] != data["stages"]["res5"]["points"]


@pytest.mark.parametrize("features", [np.zeros((5, 3)), np.arange(5.0)[:, None]], ids=["all alike", "one channel"])
def test_a_map_of_few_videos_and_of_features_without_a_plane(features):
    found = Features({"stem": features}, np.array([0, 0, 1, 1, 1]), ("a", "b"), tuple("12345"))
    assert np.isfinite(features_json(found, 0)["stages"]["stem"]["points"]).all()
    fewer = Features({"stem": features[:4]}, found.labels[:4], found.classes, found.names[:4])
    with pytest.raises(DataError, match="5 videos or more; the split has 4"):
        features_json(fewer, 0)


def test_analyse_features(cli, runs, clips, tmp_path):
    call = ("analyse", "features", runs["3d"], clips)
    code, out, err = cli(*call, "--stages", "stem,res4", "--figure", tmp_path / "f.svg", "--json")
    assert (code, err) == (0, [])
    data = json.loads(out)
    assert list(data["stages"]) == ["stem", "res4"]
    assert set(data["stages"]["stem"]) == {"channels", "knn_top1", "points"}
    assert np.array(data["stages"]["res4"]["points"]).shape == (12, 2)
    assert len(data["labels"]) == len(data["videos"]) == 12
    picture = (tmp_path / "f.svg").read_text()
    assert all(name in picture for name in ("stem: ", "res4: ", *data["labels"]))
    code, out, _ = cli(*call)
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows if len(row) == 3 and row[1].isdigit()] == ["stem", "res2", "res4"]


def test_what_features_cannot_do(cli, runs, clips, tmp_path, monkeypatch):
    call = ("analyse", "features", runs["3d"], clips)
    assert cli(*call, "--stages", "rse4")[::2] == (1, ["tiny: there is no stage 'rse4'; did you mean 'res4'?"])
    code, _, err = cli(*call, "--figure", tmp_path / "f.jpg")
    assert code == 1
    assert ".png or .svg" in err[0]
    monkeypatch.setitem(sys.modules, "sklearn", None)
    code, _, err = cli(*call)
    assert (code, err) == (
        1,
        [str(MissingExtra("analyse features needs scikit-learn: pip install 'archsearch[analysis]'"))],
    )


# --- figures of many classes


@pytest.fixture
def drawn(monkeypatch):
    """Figures as they were written, laid out."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **more: (figures.append(self), save(self, *args, **more))
    )
    return figures


def names_of(count):
    return [
        f"class {number} of a $ng name that goes on" if number % 7 == 0 else f"class {number}"
        for number in range(count)
    ]


def check_texts(figure, texts):
    """Inside the picture, and none over another."""
    figure.draw_without_rendering()
    boxes = np.array([text.get_window_extent().extents for text in texts])
    width, height = figure.bbox.size
    assert (boxes[:, :2] > -1).all()
    assert (boxes[:, 2] < width + 1).all()
    assert (boxes[:, 3] < height + 1).all()
    low, high = np.maximum(boxes[:, None, :2], boxes[None, :, :2]), np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    assert ((high - low > 1).all(2).sum(1) == 1).all()


@pytest.mark.parametrize("stages", [1, 4])
@pytest.mark.parametrize("count", [2, 64])
def test_a_figure_of_features_has_room_for_classes(drawn, tmp_path, count, stages):
    labels = [name for name in names_of(count) for _ in range(3)]
    points = np.random.default_rng(0).normal(size=(len(labels), 2)).tolist()
    maps = {f"res{number}": {"points": points, "knn_top1": 0.5} for number in range(stages)}
    features_figure({"split": "val", "neighbours": 5, "labels": labels, "stages": maps}, tmp_path / "f.svg")
    legend = drawn[0].legends[0]
    assert len(legend.get_texts()) == count
    check_texts(drawn[0], legend.get_texts())
    looks = {(handle.get_color(), handle.get_marker()) for handle in legend.get_lines()}
    assert len(looks) == count
    assert drawn[0].bbox.height < 2 * drawn[0].bbox.width


@pytest.mark.parametrize("count", [2, 64])
def test_a_figure_of_time_has_room_for_classes(drawn, tmp_path, cli_text, count):
    row = {"videos": 8, "forwards": 0.75, "backwards": 0.25, "difference": -0.5}
    data = {"split": "val", "views": 1, "same": 0.5, **row, "classes": dict.fromkeys(names_of(count), row)}
    time_figure(data, tmp_path / "t.svg")
    labels = [label for axes in drawn[0].axes for label in axes.get_yticklabels()]
    assert len(labels) == count
    check_texts(drawn[0], [*labels, *drawn[0].legends[0].get_texts(), *(axes.xaxis.label for axes in drawn[0].axes)])
    assert max(map(len, cli_text(time_table(data)).splitlines())) <= 100


@pytest.mark.parametrize("stages", [1, 6])
def test_a_figure_of_kernels_has_room_for_stages(drawn, tmp_path, stages):
    rng = np.random.default_rng(0)
    shares = [rng.dirichlet(np.ones(3 + 4 * (number == 0)), size=20) for number in range(stages)]
    offsets = [tuple(range(-(x.shape[1] // 2), x.shape[1] // 2 + 1)) for x in shares]
    taps = [analysis.Taps(f"mixed{k}.conv", f"mixed{k}", offsets[k], shares[k]) for k in range(stages)]
    kernels_figure(taps, tmp_path / "k.png", "s3d")
    figure = drawn[0]
    assert len(figure.axes) == stages
    texts = [*figure.legends[0].get_texts(), *(axes.title for axes in figure.axes)]
    check_texts(figure, [*texts, *(axes.xaxis.label for axes in figure.axes if axes.get_xlabel())])
    tops = [np.quantile(x, 0.95, axis=0).max() for x in shares]
    assert all(axes.get_ylim()[0] == 0 and axes.get_ylim()[1] >= max(tops) for axes in figure.axes)


@pytest.mark.parametrize("count", [2, 30, 101])
def test_a_figure_of_confusion_has_room_for_classes(drawn, tmp_path, count):
    rng = np.random.default_rng(0)
    counts = np.array([rng.multinomial(37, rng.dirichlet(0.1 + 50 * np.eye(count)[row])) for row in range(count)])
    counts[1] = 0  # a class without videos
    data = {"network": "net", "split": "val", "top1": 0.5, "class_names": names_of(count)}
    confusion_figure({**data, "confusion": counts.tolist()}, tmp_path / "c.svg")
    axes = drawn[0].axes[0]
    rows, columns = axes.get_yticklabels(), axes.get_xticklabels()
    assert [len(rows), len(columns)] == [count, count]
    check_texts(drawn[0], [*rows, *columns, axes.xaxis.label, axes.yaxis.label])
    cell = axes.get_window_extent().height / count
    assert [int(text.get_text()) for text in axes.texts] == counts[counts > 0].tolist()
    assert max(text.get_window_extent().width for text in axes.texts) <= cell
    assert min(text.get_fontsize() for text in axes.texts) >= 3.5
    assert {text.get_position()[::-1] for text in axes.texts} == set(map(tuple, np.argwhere(counts).tolist()))


@pytest.mark.parametrize("count", [1, 3, 6])
def test_curves_stand_side_by_side(drawn, tmp_path, count):
    rows = [(2.0, 40.0, 0.2, 0.1), *[(1.0, 1.5, 0.6, 0.5), (0.5, 1.2, 0.8, 0.5), (0.2, 1.5, 1.0, 0.4)] * 5]
    epochs = [{"epoch": k + 1, **dict(zip(analysis.CURVES, row, strict=True))} for k, row in enumerate(rows)]
    runs = [{"run": f"runs/depth{k}/", "epochs": epochs, "best": epochs[2], "last": epochs[-1]} for k in range(count)]
    curve_figure({"runs": runs}, tmp_path / "c.png")
    axes = drawn[0].axes
    losses = [each for each in axes if each.get_title()]
    assert len(axes) == 2 * count
    assert [each.get_title() for each in losses] == [f"depth{k}" for k in range(count)]
    assert {each.get_ylim() for each in losses} == {losses[0].get_ylim()}
    assert 2 < losses[0].get_ylim()[1] < 4  # the peak of 40 does not flatten the rest
    assert any("peaks are cut" in each.get_ylabel() for each in losses)
    train, val, best = losses[-1].lines
    assert [line.get_ydata().tolist() for line in (train, val)] == [[row[0] for row in rows], [row[1] for row in rows]]
    assert [best.get_xdata()[0], best.get_ydata()[0]] == [3, 1.2]
    check_texts(drawn[0], [*drawn[0].legends[0].get_texts(), *(each.title for each in losses)])
