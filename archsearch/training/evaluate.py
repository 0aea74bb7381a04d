"""Scoring a network: clip and video top-1, and loss."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archsearch.training.clips import view_batches
from archsearch.training.recipe import Recipe
from archsearch.video.clips import Sampling
from archsearch.video.pack import PackedSplit


@dataclass(frozen=True)
class Scores:
    """What a network says of every video of a split: probabilities (videos, views, classes), and the labels."""

    probabilities: np.ndarray
    labels: np.ndarray

    @property
    def top1(self) -> float:
        """Video top-1: the class with the highest mean probability over the views."""
        return float((self.probabilities.mean(1).argmax(1) == self.labels).mean())

    @property
    def clip_top1(self) -> float:
        """Clip top-1: every view on its own."""
        return float((self.probabilities.argmax(2) == self.labels[:, None]).mean())

    @property
    def loss(self) -> float:
        """Cross-entropy of the mean probabilities, in nats."""
        right = self.probabilities.mean(1)[np.arange(len(self.labels)), self.labels]
        return float(-np.log(np.maximum(right, 1e-12)).mean())

    def class_top1(self, classes: tuple[str, ...]) -> dict[str, float]:
        """Video top-1 of every class that occurs."""
        hits = self.probabilities.mean(1).argmax(1) == self.labels
        present = [label for label in range(len(classes)) if (self.labels == label).any()]
        return {classes[label]: float(hits[self.labels == label].mean()) for label in present}

    def as_json(self) -> dict[str, Any]:
        """The three numbers."""
        return {"top1": self.top1, "clip_top1": self.clip_top1, "loss": self.loss}


def score(
    net: nn.Module,
    split: PackedSplit,
    sampling: Sampling,
    recipe: Recipe,
    *,
    reverse: bool = False,
) -> Scores:
    """Scores a split with the recipe's evenly spaced views; `reverse` plays every clip backwards."""
    was_training = net.training
    net.eval()
    views = []
    with torch.no_grad():
        for view in range(recipe.views):
            batches = view_batches(split, sampling, recipe, view, reverse=reverse)
            views.append(torch.cat([_probabilities(net, clip, recipe) for clip in batches]))
    net.train(was_training)
    return Scores(torch.stack(views, 1).numpy(), np.asarray(split.labels))


def _probabilities(net: nn.Module, clip_NCTHW: Tensor, recipe: Recipe) -> Tensor:
    with torch.autocast(recipe.device, torch.bfloat16, enabled=recipe.precision == "bf16"):
        logits = net(clip_NCTHW)
    return F.softmax(logits.double(), 1).cpu()
