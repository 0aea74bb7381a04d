"""Several labels a video: targets, scores against scikit-learn, training, search and fusion."""

import json

import numpy as np
import pytest
import torch
from conftest import run_search, write_tiny
from sklearn import metrics

from archsearch.errors import DataError, RecipeError
from archsearch.search.launch import Wish, prepare
from archsearch.search.results import read_results
from archsearch.search.worker import train_candidate
from archsearch.spec.spec import spec_yaml, with_classes
from archsearch.store import open_store, read_json
from archsearch.training.clips import epoch_batches, sampling_for, split_of
from archsearch.training.evaluate import Scores, evaluation_json
from archsearch.training.fusion import fuse_files, read_scores, write_scores
from archsearch.training.loop import train
from archsearch.training.recipe import Recipe
from archsearch.training.single import evaluate_single, train_single
from archsearch.video.dataset import read_dataset
from archsearch.video.decode import encode
from archsearch.video.pack import open_pack

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES = ("right", "left", "red", "blue")  # of each pair, a video has one
VIDEOS = {"train": 10, "val": 4, "test": 2}  # of each of the four combinations
RECIPE = {"epochs": 14, "batch": 8, "warmup_epochs": 1, "views": 1, "flip": False, "lr": 8e-3, "label_smoothing": 0.0}


def recipe(**changes):
    return Recipe(**{"loss": "binary", **RECIPE, **changes})


def draw(rng, motion, colour):
    """A bar, red or blue, that moves right or left over a ground of noise: (8, 40, 40, 3)."""
    frames = np.repeat(rng.integers(0, 90, (1, 40, 40, 3)), 8, axis=0)
    start, top = rng.integers(0, 40), rng.integers(0, 20)
    for time, frame in enumerate(frames):
        columns = (start + (2, -2)[motion] * time + np.arange(8)) % 40
        frame[top : top + 20, columns, (0, 2)[colour]] = 250
    return frames.astype(np.uint8)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two attributes that know nothing of each other: which way, and which colour."""
    root = tmp_path_factory.mktemp("several") / "clips"
    (root / "clips").mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(CLASSES))
    for split, count in VIDEOS.items():
        rows = []
        for number in range(4 * count):
            motion, colour = divmod(number % 4, 2)
            name = f"clips/{split}{number}.mp4"
            encode(root / name, draw(np.random.default_rng([len(split), number]), motion, colour))
            rows.append(f"{name} {motion},{2 + colour}")
        (root / f"{split}.csv").write_text("\n".join(rows))
    return root


@pytest.fixture(scope="module")
def pack(clips):
    return open_pack(read_dataset(clips), 38, multi_label=True)


@pytest.fixture(scope="module")
def run(spec, clips, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("runs") / "net")
    train_single(spec, clips, folder, recipe(), lambda *_: None)
    return folder


def made(videos=50, classes=7, seed=0):
    """Scores of up to three labels a video, with ties; nothing is of class 3."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((videos, classes), np.uint8)
    for row in labels:
        row[rng.choice([0, 1, 2, 4, 5, 6], rng.integers(1, 4), replace=False)] = 1
    probabilities = np.clip(rng.uniform(0.05, 0.6, (videos, 2, classes)) + 0.3 * labels[:, None], 0, 1).round(1)
    return Scores(probabilities, labels, tuple(f"{number}.mp4" for number in range(videos)), binary=True)


def names_of(count):
    return tuple(f"class {number}" for number in range(count))


# Targets.


def batches(spec, pack, **changes):
    made = recipe(**changes)
    split = split_of(pack, "train")
    return list(epoch_batches(split, sampling_for(spec, made, pack.classes), made, 0, pack.classes))


def test_targets_are_rows_of_0_and_1(spec, pack):
    split = split_of(pack, "train")
    order = np.random.default_rng([0, 0]).permutation(len(split))
    rows = torch.cat([target for _, target in batches(spec, pack)])
    wanted = torch.tensor([[float(label in split.label_sets[video]) for label in range(4)] for video in order])
    assert rows.dtype == torch.float32
    assert torch.equal(rows, wanted)
    assert wanted.sum(1).unique().tolist() == [2]
    for changes in ({"mixup": 0.4}, {"cutmix": 1.0}):
        mixed = torch.cat([target for _, target in batches(spec, pack, **changes)])
        assert torch.allclose(mixed.sum(1), torch.full((len(mixed),), 2.0))
        assert ((mixed > 0.01) & (mixed < 0.99)).any()


def test_mirroring_and_reversing_move_every_label(spec, pack):
    still = batches(spec, pack, reverse=1e-9)  # varied clips, none of them changed
    both = {"right": "left", "red": "blue"}
    turned = batches(spec, pack, reverse=1.0, reverse_map=both)
    for (_, before), (_, after) in zip(still, turned, strict=True):
        assert torch.equal(after, before[:, [1, 0, 3, 2]])
    mirrored = torch.cat([rows for _, rows in batches(spec, pack, flip=True, flip_map={"right": "left"})])
    before = torch.cat([rows for _, rows in still])
    moved = (mirrored != before).any(1)
    assert 0 < moved.sum() < len(moved)
    assert torch.equal(mirrored[moved], before[moved][:, [1, 0, 2, 3]])


@pytest.mark.parametrize("changes", [{}, {"jitter": 0.5}], ids=["plain", "varied"])
def test_any_label_forbids_mirroring(spec, pack, changes):
    plain = batches(spec, pack, **changes)
    free, red, all_but = (
        batches(spec, pack, flip=True, flip_except=names, **changes) for names in ((), ("red",), ("red", "blue"))
    )
    for (clip, rows), (_, _), (some, _), (none, _) in zip(plain, free, red, all_but, strict=True):
        assert torch.equal(none, clip)
        changed = (some != clip).flatten(1).any(1)
        assert not (changed & (rows[:, 2] > 0)).any()
    assert any((some != clip).any() for (clip, _), (some, _) in zip(plain, red, strict=True))
    assert any((some != clip).any() for (clip, _), (some, _) in zip(red, free, strict=True))


# Numbers.


def test_numbers_are_those_of_scikit_learn():
    scores = made()
    mean, labels = scores.probabilities.mean(1), scores.labels
    found = evaluation_json(scores, names_of(7))
    ranked = {label: metrics.average_precision_score(labels[:, label], mean[:, label]) for label in (0, 1, 2, 4, 5, 6)}
    assert found["class_ap"] == pytest.approx({f"class {label}": value for label, value in ranked.items()})
    assert found["map"] == pytest.approx(np.mean(list(ranked.values())))
    assert 0.3 < found["map"] < 0.99  # or the test could not fail
    assert found["loss"] == pytest.approx(
        np.mean([metrics.log_loss(labels[:, label], mean[:, label], labels=[0, 1]) for label in range(7)])
    )
    assert found["top1"] == np.mean([row[value.argmax()] for row, value in zip(labels, mean, strict=True)])
    assert found["top1"] < found["top5"] <= 1
    assert found["class_videos"] == {f"class {label}": int(labels[:, label].sum()) for label in ranked}
    assert found.keys().isdisjoint({"confusion", "confused", "ece", "classes", "mean_class_top1"})


def test_scores_by_hand():
    scores = Scores(
        np.array([[[0.9, 0.2, 0.6], [0.1, 0.2, 0.6]], [[0.3, 0.7, 0.1], [0.3, 0.1, 0.5]]]),
        np.array([[1, 0, 1], [1, 0, 0]]),
        binary=True,
    )
    assert scores.top1 == 0.5  # means 0.5 0.2 0.6, of classes 0 and 2, and 0.3 0.4 0.3, of class 0
    assert scores.clip_top1 == 0.5
    likely = [0.5, 0.8, 0.6, 0.3, 0.6, 0.7]
    assert scores.loss == pytest.approx(-np.log(likely).mean())
    assert scores.class_ap() == {0: 1.0, 2: 1.0}


def test_one_label_a_video_and_each_class_on_its_own(spec, tmp_path, request):
    single = request.getfixturevalue("clips").parent / "single"
    one = {"train": ("right", "left"), "val": ("left", "right")}
    for split, names in one.items():
        for number, name in enumerate(names):
            (single / split / name).mkdir(parents=True, exist_ok=True)
            encode(single / split / name / "0.mp4", draw(np.random.default_rng(number), number, 0))
    train_single(spec, single, str(tmp_path / "run"), recipe(epochs=1, warmup_epochs=0), lambda *_: None)
    found = evaluate_single(str(tmp_path / "run"), single, "val", None, False, keep=tmp_path / "s.json")
    assert {"map", "confusion", "ece"} <= found.keys()
    scores, _ = read_scores(tmp_path / "s.json")
    assert scores.binary
    assert scores.labels.shape == (2,)
    assert scores.loss == pytest.approx(metrics.log_loss(scores.marks.ravel(), scores.mean.ravel()))


# Training.


def test_a_network_learns_both_attributes(run, clips):
    found = read_json(open_store(run), "result.json")["metrics"]
    assert found.keys() == {"top1", "clip_top1", "loss", "map", "train_loss"}
    assert found["map"] > 0.85  # of chance: 0.5
    assert found["top1"] > 0.85
    assert found["loss"] < 0.5
    by_class = evaluate_single(run, clips, "val", None, False)["class_ap"]
    assert min(by_class[name] for name in ("right", "left")) > 0.7
    curve = read_json(open_store(run), "curve.json")
    assert curve[-1]["train_top1"] > 0.85
    assert curve[-1]["train_loss"] < curve[0]["train_loss"]


class Interrupted(Exception):
    pass


def stop(epoch):
    raise Interrupted


@pytest.mark.parametrize("changes", [{}, {"mixup": 0.3, "reverse": 0.5, "reverse_map": {"right": "left"}}], ids=str)
def test_a_resumed_training_is_the_same_to_the_bit(spec, pack, tmp_path, changes):
    whole, parts = (open_store(str(tmp_path / name)) for name in ("whole", "parts"))
    made = recipe(epochs=2, warmup_epochs=0, **changes)
    train(spec, made, pack, whole)
    with pytest.raises(Interrupted):
        train(spec, made, pack, parts, stop)
    train(spec, made, pack, parts)
    assert parts.read("weights.safetensors") == whole.read("weights.safetensors")
    assert read_json(parts, "result.json")["metrics"] == read_json(whole, "result.json")["metrics"]


def test_cross_entropy_is_refused_in_one_line(cli, spec, clips, tmp_path):
    (tmp_path / "net.yaml").write_text(spec_yaml(spec))
    line = f"{clips}: videos have several labels: set `loss: binary` in the recipe, or list one label a video"
    assert cli("train", tmp_path / "net.yaml", clips, "--out", tmp_path / "run") == (1, "", [line])
    space, plain = write_tiny(tmp_path)
    assert cli("search", space, clips, "--out", tmp_path / "found", "--recipe", plain) == (1, "", [line])


# Evaluation.


def test_evaluate_and_fuse(cli, run, clips, tmp_path):
    call = ("evaluate", run, clips, "--scores", tmp_path / "s.npz")
    code, out, err = cli(*call, "--json")
    assert (code, err) == (0, [])
    data = json.loads(out)
    assert data["class_names"] == list(CLASSES)
    assert data["class_videos"] == dict.fromkeys(CLASSES, 8)
    assert "confusion" not in data
    code, out, _ = cli(*call)
    rows = [line.split() for line in out.splitlines()]
    assert ["mean", "average", "precision", f"{data['map']:.4f}"] in [row[:4] for row in rows]
    assert ["left", "8", f"{data['class_ap']['left']:.3f}"] in rows
    assert "calibration" not in out
    code, _, err = cli(*call, "--figure", tmp_path / "c.svg")
    assert (code, len(err)) == (1, 1)
    assert "videos have several labels" in err[0]
    scores, _ = read_scores(tmp_path / "s.npz")
    assert scores.labels.tolist() == ([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]] * 4)
    assert (scores.map, scores.loss) == pytest.approx((data["map"], data["loss"]))
    code, out, _ = cli("fuse", tmp_path / "s.npz", tmp_path / "s.npz")
    assert code == 0
    fused = next(line.split() for line in out.splitlines() if line.split()[:1] == ["fused"])
    assert fused[-1] == f"{data['map']:.3f}"


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_label_sets_are_kept_and_fused(tmp_path, suffix):
    one, other = made(), made(seed=1)
    other = Scores(other.probabilities, one.labels, one.names, binary=True)
    order = np.random.default_rng(2).permutation(50)
    shuffled = Scores(other.probabilities[order], other.labels[order], tuple(other.names[n] for n in order), True)
    paths = tmp_path / f"one{suffix}", tmp_path / f"other{suffix}"
    for path, scores in zip(paths, (one, shuffled), strict=True):
        write_scores(path, scores, names_of(7))
    found, classes = read_scores(paths[0])
    assert np.array_equal(found.labels, one.labels)
    assert np.array_equal(found.mean, one.mean)
    assert (found.binary, classes) == (True, names_of(7))
    mean = (one.mean + 2 * other.mean) / 3
    precision = [metrics.average_precision_score(one.labels[:, c], mean[:, c]) for c in (0, 1, 2, 4, 5, 6)]
    fused = fuse_files(paths, [1, 2])
    assert fused["fused"]["map"] == pytest.approx(np.mean(precision))
    assert fused["alone"][1]["map"] == pytest.approx(other.map)
    assert fused["alone"][1]["map"] != fused["alone"][0]["map"]


def test_files_that_do_not_go_together(tmp_path):
    scores = made()
    path = tmp_path / "s.json"
    write_scores(path, scores, names_of(7))
    fields = json.loads(path.read_text())
    moved = 1 - scores.labels
    soft = scores.mean / scores.mean.sum(1, keepdims=True)
    for changes, line in (
        ({"labels": moved.tolist()}, "has another class for 0.mp4 than"),
        ({"binary": False, "probabilities": soft.tolist()}, "has probabilities of another loss than"),
        ({"labels": (2 * scores.labels).tolist()}, "labels should be whole numbers from 0 to 1"),
        ({"probabilities": (scores.mean + 1).tolist()}, "probabilities should be from 0 to 1"),
        ({"labels": scores.labels[:, 1:].tolist()}, "50 names, 7 classes and labels"),
        ({"binary": False}, "sum to 1"),
    ):
        (tmp_path / "t.json").write_text(json.dumps({**fields, **changes}))
        with pytest.raises(DataError, match=line) as caught:
            fuse_files([path, tmp_path / "t.json"])
        assert len(caught.value.lines) == 1


def test_analyses_of_several_labels(cli, run, clips):
    code, out, _ = cli("analyse", "time", run, clips, "--json")
    assert code == 0
    assert json.loads(out)["videos"] == 16
    assert {row["videos"] for row in json.loads(out)["classes"].values()} == {8}
    line = f"{clips}: videos have several labels, and a map of classes needs one each"
    assert cli("analyse", "features", run, clips)[::2] == (1, [line])


# Search.


def test_a_search_finds_by_mean_average_precision(cli, clips, tmp_path):
    changes = {"objectives": {"map": "maximize", "gmacs": "minimize"}, "search": {"trials": 2, "order": "fixed"}}
    space, made = write_tiny(tmp_path, {**changes, "published": []}, {"loss": "binary", "epochs": 2})
    run_search(space, made, clips, tmp_path / "run")
    results = read_results(str(tmp_path / "run"))
    assert len(results.complete()) == 2
    assert all({"map", "top1", "loss"} <= candidate.metrics.keys() for candidate in results.complete())
    code, out, _ = cli("front", tmp_path / "run", "--json")
    assert code == 0
    assert json.loads(out)["objectives"]["map"] == "maximize"
    assert cli("front", tmp_path / "run", "--figure", tmp_path / "f.svg")[0] == 0
    plain = write_tiny(tmp_path, changes)[1]
    with pytest.raises(RecipeError, match="objectives: map is of classes on their own; set `loss: binary`"):
        prepare(space, clips, str(tmp_path / "other"), Recipe(), Wish(), lambda *_: None)
    assert plain.exists()


def test_a_worker_without_a_pack_decodes_by_itself(spec, clips, pack, tmp_path, monkeypatch):
    monkeypatch.setenv("ARCHSEARCH_CACHE", str(tmp_path / "cache"))
    payload = {
        "spec": spec_yaml(with_classes(spec, 4)),
        "recipe": recipe(epochs=1, warmup_epochs=0).model_dump(mode="json"),
        "data": str(clips),
        "digest": pack.digest,
        "store": str(tmp_path / "candidate"),
    }
    assert train_candidate(payload)["metrics"].keys() == {"top1", "clip_top1", "loss", "map", "train_loss"}
