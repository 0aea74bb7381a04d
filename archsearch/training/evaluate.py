"""Scoring a network: what it says of every video, how often it is right, how sure it is, and several together."""

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from archsearch.errors import DataError
from archsearch.files import write_whole
from archsearch.training.clips import view_batches
from archsearch.training.recipe import Recipe
from archsearch.video.clips import Sampling
from archsearch.video.pack import PackedSplit

Floats = NDArray[np.floating[Any]]
CROPS = {1: (0.5,), 3: (0.0, 0.5, 1.0)}  # places along the longer side: the centre; left, centre and right
BINS = 15  # of the expected calibration error, as Guo et al. 2017
DRAWS = 10_000  # of a bootstrap
PAIRS = 10  # of classes that are confused most
KINDS = (".npz", ".json")  # of files of scores


@dataclass(frozen=True)
class Scores:
    """What a network says of every video of a split: probabilities (videos, views, classes), labels and names."""

    probabilities: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...] = ()

    @property
    def mean(self) -> Floats:
        """The mean probabilities over the views: (videos, classes)."""
        mean: Floats = self.probabilities.mean(1)
        return mean

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Whether the class with the highest mean probability is the right one: (videos)."""
        hits: NDArray[np.bool_] = self.mean.argmax(1) == self.labels
        return hits

    @property
    def top1(self) -> float:
        """Video top-1: the class with the highest mean probability over the views."""
        return float(self.hits.mean())

    @property
    def top5(self) -> float:
        """Video top-5: the right class is among the five of the highest mean probability (of five or fewer: 1)."""
        first = np.argsort(-self.mean, axis=1, kind="stable")[:, :5]
        return float((first == self.labels[:, None]).any(1).mean())

    @property
    def clip_top1(self) -> float:
        """Clip top-1: every view on its own."""
        return float((self.probabilities.argmax(2) == self.labels[:, None]).mean())

    @property
    def loss(self) -> float:
        """Cross-entropy of the mean probabilities, in nats."""
        right = self.mean[np.arange(len(self.labels)), self.labels]
        return float(-np.log(np.maximum(right, 1e-12)).mean())

    @property
    def ece(self) -> float:
        """Expected calibration error (Guo et al. 2017, equation 3): |accuracy - confidence| in 15 equal bins.

        The confidence of a video is its highest mean probability; bins are open below, (0, 1/15], ..., and each
        counts by its share of the videos.
        """
        confidence = self.mean.max(1)
        bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
        excess = np.bincount(bins, weights=self.hits - confidence, minlength=BINS)
        return float(np.abs(excess).sum() / len(confidence))

    def class_top1(self, classes: tuple[str, ...]) -> dict[str, float]:
        """Video top-1 of every class that occurs."""
        hits = self.hits
        present = [label for label in range(len(classes)) if (self.labels == label).any()]
        return {classes[label]: float(hits[self.labels == label].mean()) for label in present}

    def confusion(self) -> NDArray[np.int64]:
        """How many videos of a class (row) are taken for a class (column): (classes, classes)."""
        count = self.probabilities.shape[2]
        cells = np.bincount(self.labels * count + self.mean.argmax(1), minlength=count * count)
        return cells.reshape(count, count)

    def as_json(self) -> dict[str, Any]:
        """The three numbers."""
        return {"top1": self.top1, "clip_top1": self.clip_top1, "loss": self.loss}


def evaluation_json(scores: Scores, classes: tuple[str, ...]) -> dict[str, Any]:
    """Every number of a scoring, by class, too; `confusion` has a row for each of `class_names`, as its columns."""
    by_class, confusion = scores.class_top1(classes), scores.confusion()
    return {
        **scores.as_json(),
        "top1_interval": bootstrap_interval(scores.hits),
        "top5": scores.top5,
        "mean_class_top1": float(np.mean(list(by_class.values()))),
        "ece": scores.ece,
        "classes": by_class,
        "class_videos": {name: int(confusion[classes.index(name)].sum()) for name in by_class},
        "class_names": list(classes),
        "confusion": confusion.tolist(),
        "confused": _confused(confusion, classes),
    }


def _confused(confusion: NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]]:
    """The most frequent mistakes, by number of videos, then by share of their class."""
    wrong = [(int(row), int(column)) for row, column in np.argwhere(confusion) if row != column]
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    wrong.sort(key=lambda pair: (-confusion[pair], -shares[pair]))
    return [
        {"class": classes[a], "said": classes[b], "videos": int(confusion[a, b]), "share": float(shares[a, b])}
        for a, b in wrong[:PAIRS]
    ]


def bootstrap_interval(values: NDArray[Any], seed: int = 0) -> list[float]:
    """The middle 95 % of the mean of `values` (videos) over draws of as many videos with replacement: [low, high].

    The percentile bootstrap (Efron 1979). Values few in number, as right or wrong, are drawn by how often each occurs.
    """
    distinct, counts = np.unique(values.astype(np.float64), return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=DRAWS)
    low, high = np.quantile(drawn @ distinct / len(values), (0.025, 0.975))
    return [float(low), float(high)]


def score(
    net: nn.Module,
    split: PackedSplit,
    sampling: Sampling,
    recipe: Recipe,
    *,
    reverse: bool = False,
    crops: int = 1,
    report: Callable[[int, int], None] = lambda *_: None,
) -> Scores:
    """Scores a split with the recipe's evenly spaced views, each at 1 or 3 `crops`; `reverse` plays clips backwards.

    `report(clips, of how many)` is called after each batch, where it takes more than a moment. Raises DataError for
    another number of crops.
    """
    if crops not in CROPS:
        raise DataError(f"{crops} crops: should be 1 (the centre) or 3 (left, centre and right)")
    done = 0
    total = len(split) * recipe.views * crops
    was_training = net.training
    net.eval()
    views = []
    with torch.no_grad():
        for view, crop in ((view, crop) for view in range(recipe.views) for crop in CROPS[crops]):
            batches = []
            for clip in view_batches(split, sampling, recipe, view, reverse=reverse, crop=crop):
                batches.append(_probabilities(net, clip, recipe))
                done += len(clip)
                report(done, total)
            views.append(torch.cat(batches))
    net.train(was_training)
    return Scores(torch.stack(views, 1).numpy(), np.asarray(split.labels), split.names)


def _probabilities(net: nn.Module, clip_NCTHW: Tensor, recipe: Recipe) -> Tensor:
    with torch.autocast(recipe.device, torch.bfloat16, enabled=recipe.precision == "bf16"):
        logits = net(clip_NCTHW)
    return F.softmax(logits.double(), 1).cpu()


def check_kind(path: Path) -> None:
    """Raises DataError where a file of scores would have another ending than .npz or .json."""
    if path.suffix not in KINDS:
        raise DataError(f"{path}: a file of scores ends in {' or '.join(KINDS)}, not '{path.suffix}'")


def write_scores(path: Path, scores: Scores, classes: tuple[str, ...]) -> None:
    """Writes names, labels, classes and mean probabilities (videos, classes), whole; nothing in it is code."""
    check_kind(path)
    fields: dict[str, Any] = {"names": list(scores.names), "classes": list(classes)}
    fields |= {"labels": scores.labels.tolist(), "probabilities": scores.mean.tolist()}
    if path.suffix == ".json":
        write_whole(path, json.dumps(fields) + "\n")
        return
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: np.array(field) for name, field in fields.items()})
    write_whole(path, buffer.getvalue())


def read_scores(path: Path) -> tuple[Scores, tuple[str, ...]]:
    """What `write_scores` wrote, as scores of one view; with the classes' names. Raises DataError for anything else."""
    check_kind(path)
    try:
        if path.suffix == ".npz":
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
                fields = {name: archive[name] for name in archive.files}
        else:
            fields = json.loads(path.read_text(encoding="utf-8"))
        names, classes = (tuple(map(str, fields[name])) for name in ("names", "classes"))
        labels, mean = np.asarray(fields["labels"]), np.asarray(fields["probabilities"], np.float64)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, LookupError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise DataError(f"{path}: is no file of `archsearch evaluate --scores` ({reason})") from None
    rule = _broken_rule(names, classes, labels, mean)
    if rule:
        raise DataError(f"{path}: is no file of scores: {rule}")
    return Scores(mean[:, None], labels, names), classes


def _broken_rule(names: Sequence[str], classes: Sequence[str], labels: NDArray[Any], mean: Floats) -> str | None:
    """What is wrong with the fields of a file of scores, if anything."""
    if not names or len(set(names)) != len(names):
        return "names of videos should be one or more, each once"
    if labels.shape != (len(names),) or mean.shape != (len(names), len(classes)):
        return f"{len(names)} names, {len(classes)} classes, labels {labels.shape} and probabilities {mean.shape}"
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(classes):
        return f"labels should be whole numbers from 0 to {len(classes) - 1}"
    if not (mean >= 0).all() or not np.allclose(mean.sum(1), 1, atol=1e-3):  # nan fails the first
        return "probabilities of a video should be 0 or more and sum to 1"
    return None


def fuse(members: Sequence[Scores], weights: Sequence[float]) -> Scores:
    """The weighted mean of several networks' mean probabilities (Simonyan & Zisserman 2014), as scores of one view."""
    mean = sum(weight * scores.mean for weight, scores in zip(weights, members, strict=True)) / sum(weights)
    return Scores(np.asarray(mean)[:, None], members[0].labels, members[0].names)


def fuse_files(paths: Sequence[Path], weights: Sequence[float] | None = None) -> dict[str, Any]:
    """What `archsearch fuse` prints: each file of scores alone, all fused, and what that gains on the same videos.

    `gain_interval` is a paired bootstrap over videos. Raises DataError for fewer than two files, for scores of other
    videos or classes, and for weights that are not one positive number each.
    """
    weights = [1.0] * len(paths) if weights is None else weights
    if len(paths) < 2:
        raise DataError("fusion needs two files of scores or more")
    if len(weights) != len(paths) or not all(0 < weight < np.inf for weight in weights):
        raise DataError(f"weights {list(weights)}: should be {len(paths)} positive numbers, one for each file")
    first, classes = read_scores(paths[0])
    members = [first, *(_aligned(path, paths[0], first, classes) for path in paths[1:])]
    fused = fuse(members, weights)
    alone = [
        {
            "scores": str(path),
            "weight": float(weight),
            **_brief(scores),
            "gain": fused.top1 - scores.top1,
            "gain_interval": bootstrap_interval(fused.hits.astype(int) - scores.hits),
        }
        for path, weight, scores in zip(paths, weights, members, strict=True)
    ]
    return {"videos": len(first.labels), "classes": len(classes), "alone": alone, "fused": _brief(fused)}


def _aligned(path: Path, other: Path, first: Scores, classes: tuple[str, ...]) -> Scores:
    """The scores of a file in the order of the first one's videos."""
    scores, theirs = read_scores(path)
    if theirs != classes:
        odd = sorted(set(theirs) ^ set(classes))
        raise DataError(f"{path}: has other classes than {other}" + (f", e.g. '{odd[0]}'" if odd else ", in order"))
    odd = sorted(set(scores.names) ^ set(first.names))
    if odd:
        raise DataError(f"{path}: has other videos than {other}: {len(odd)} are in one of them only, e.g. {odd[0]}")
    places = {name: place for place, name in enumerate(scores.names)}
    order = np.array([places[name] for name in first.names])
    differ = np.flatnonzero(scores.labels[order] != first.labels)
    if len(differ):
        raise DataError(f"{path}: has another class for {first.names[differ[0]]} than {other}")
    return Scores(scores.probabilities[order], first.labels, first.names)


def _brief(scores: Scores) -> dict[str, Any]:
    return {"top1": scores.top1, "top1_interval": bootstrap_interval(scores.hits), "top5": scores.top5}
