"""Scoring a network: what it says of every video, how often it is right, how sure it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from archsearch.errors import DataError
from archsearch.training.clips import view_batches
from archsearch.training.recipe import Recipe
from archsearch.video.clips import Sampling
from archsearch.video.pack import PackedSplit

Floats = NDArray[np.floating[Any]]
CROPS = {1: (0.5,), 3: (0.0, 0.5, 1.0)}  # places along the longer side: the centre; left, centre and right
BINS = 15  # of the expected calibration error, as Guo et al. 2017
DRAWS = 10_000  # of a bootstrap
PAIRS = 10  # of classes that are confused most


@dataclass(frozen=True)
class Scores:
    """What a network says of every video of a split: probabilities (videos, views, classes), labels and names.

    `labels` are a class each (videos), or 0 or 1 for each class (videos, classes) where videos have several. With
    `binary` every class is right or wrong on its own, and the probabilities of a video do not sum to 1.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...] = ()
    binary: bool = False

    @property
    def mean(self) -> Floats:
        """The mean probabilities over the views: (videos, classes)."""
        mean: Floats = self.probabilities.mean(1)
        return mean

    @property
    def marks(self) -> NDArray[np.bool_]:
        """Whether a video is of a class: (videos, classes)."""
        if self.labels.ndim == 2:
            return self.labels.astype(bool)
        marks: NDArray[np.bool_] = self.labels[:, None] == np.arange(self.probabilities.shape[2])
        return marks

    def _right(self, said: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether videos are of the classes `said` of them, both (videos, n)."""
        return np.take_along_axis(self.marks, said, axis=1)

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Whether a video is of the class with the highest mean probability (videos): Hit@1 of Sports-1M and others."""
        return self._right(self.mean.argmax(1)[:, None])[:, 0]

    @property
    def top1(self) -> float:
        """Video top-1: the class with the highest mean probability over the views."""
        return float(self.hits.mean())

    @property
    def top5(self) -> float:
        """Video top-5: a right class is among the five of the highest mean probability (of five or fewer: 1)."""
        first = np.argsort(-self.mean, axis=1, kind="stable")[:, :5]
        return float(self._right(first).any(1).mean())

    @property
    def clip_top1(self) -> float:
        """Clip top-1: every view on its own."""
        return float(self._right(self.probabilities.argmax(2)).mean())

    @property
    def loss(self) -> float:
        """Cross-entropy of the mean probabilities, in nats; binary: the mean over the classes of each one's own."""
        if self.binary:
            likely = np.where(self.marks, self.mean, 1 - self.mean)
            return float(-np.log(np.maximum(likely, 1e-12)).mean())
        right = self.mean[np.arange(len(self.labels)), self.labels]
        return float(-np.log(np.maximum(right, 1e-12)).mean())

    @property
    def map(self) -> float:
        """Mean average precision: the mean of `class_ap` over the classes that occur."""
        return float(np.mean(list(self.class_ap().values())))

    def class_ap(self) -> dict[int, float]:
        """Average precision of every class that occurs, by its number: how far its videos come before the others."""
        marks, mean = self.marks, self.mean
        return {
            int(label): average_precision(marks[:, label], mean[:, label]) for label in np.flatnonzero(marks.any(0))
        }

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
        """Video top-1 over the videos of every class that occurs."""
        hits, marks = self.hits, self.marks
        return {classes[label]: float(hits[marks[:, label]].mean()) for label in np.flatnonzero(marks.any(0))}

    def confusion(self) -> NDArray[np.int64]:
        """How many videos of a class (row) are taken for a class (column): (classes, classes); of one label a video."""
        count = self.probabilities.shape[2]
        cells = np.bincount(self.labels * count + self.mean.argmax(1), minlength=count * count)
        return cells.reshape(count, count)

    def as_json(self) -> dict[str, Any]:
        """The three numbers, and `map` of binary scores."""
        found = {"top1": self.top1, "clip_top1": self.clip_top1, "loss": self.loss}
        return found | ({"map": self.map} if self.binary else {})


def average_precision(marks: NDArray[np.bool_], scores: Floats) -> float:
    """Of one class, right (videos) by score (videos): precision at each threshold by the recall that it adds.

    Videos of equal scores pass a threshold together, as in scikit-learn. At least one video must be of the class.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # of the videos of each score
    right = np.cumsum(marks[order])[last]
    return float(np.diff(right, prepend=0) @ (right / (last + 1)) / right[-1])


def fuse(members: Sequence[Scores], weights: Sequence[float]) -> Scores:
    """The weighted mean of several networks' mean probabilities (Simonyan & Zisserman 2014), as scores of one view."""
    mean = sum(weight * scores.mean for weight, scores in zip(weights, members, strict=True)) / sum(weights)
    return replace(members[0], probabilities=np.asarray(mean)[:, None])


def evaluation_json(scores: Scores, classes: tuple[str, ...]) -> dict[str, Any]:
    """Every number of a scoring, by class, too; `confusion` has a row for each of `class_names`, as its columns.

    Where videos have several labels, classes have an average precision, and nothing is said of what needs a single one.
    """
    common = {**scores.as_json(), "top1_interval": bootstrap_interval(scores.hits), "top5": scores.top5}
    if scores.labels.ndim == 2:
        videos, found = scores.marks.sum(0), scores.class_ap()
        return {
            **common,
            "class_ap": {classes[label]: ap for label, ap in found.items()},
            "class_videos": {classes[label]: int(videos[label]) for label in found},
            "class_names": list(classes),
        }
    by_class, confusion = scores.class_top1(classes), scores.confusion()
    return {
        **common,
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


def two_way_interval(values: NDArray[Any], seed: int = 0) -> list[float]:
    """The middle 95 % of the mean of `values` (seeds, videos) over draws of seeds and of videos: [low, high].

    Seeds and videos are both drawn with replacement, so the interval says how other seeds and other videos of the same
    kind would change the number.
    """
    rng = np.random.default_rng(seed)
    seeds, videos = values.shape
    rows = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS) / seeds
    columns = rng.multinomial(videos, np.full(videos, 1 / videos), size=DRAWS) / videos
    low, high = np.quantile(((rows @ values) * columns).sum(1), (0.025, 0.975))
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

    In float32: lower precision has proved itself for the batches of a training alone. `report(clips, of how many)` is
    called after each batch, where it takes more than a moment. Raises DataError for another number of crops.
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
    probabilities = torch.stack(views, 1).numpy()
    labels = _label_rows(split, probabilities.shape[2]) if split.label_sets else np.asarray(split.labels)
    return Scores(probabilities, labels, split.names, recipe.loss == "binary")


def _label_rows(split: PackedSplit, classes: int) -> NDArray[np.uint8]:
    """0 or 1 for each class: (videos, classes)."""
    rows = np.zeros((len(split), classes), np.uint8)
    for row, labels in zip(rows, split.label_sets, strict=True):
        row[list(labels)] = 1
    return rows


def _probabilities(net: nn.Module, clip_NCTHW: Tensor, recipe: Recipe) -> Tensor:
    logits = net(clip_NCTHW)
    probabilities: Tensor = logits.double().sigmoid() if recipe.loss == "binary" else F.softmax(logits.double(), 1)
    return probabilities.cpu()
