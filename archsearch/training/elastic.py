"""Training shared weights: one set of tensors for all networks of a family (see `archsearch.nets.elastic`).

Each step trains four networks on the same clips: the largest, the smallest and two drawn ones (the sandwich rule of
Yu & Huang 2019). The largest learns the labels, the others what the largest says (in-place distillation); gradients
add up. Everything else is the recipe's, but for precision: shared weights are trained in float32, since a lower one
would have to prove itself for each network.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archsearch.errors import RecipeError
from archsearch.nets.elastic import Elastic, Member, Mix, read_off
from archsearch.spec.cost import total_cost
from archsearch.spec.spec import Spec, digest, lower
from archsearch.store import Store, read_json, write_json
from archsearch.training.checkpoint import CHECKPOINT, load_weights, save_weights
from archsearch.training.clips import sampling_for, split_of
from archsearch.training.evaluate import Scores, score
from archsearch.training.loop import (
    ADVICE,
    RESULT,
    Epoch,
    NotFinite,
    Training,
    check_here,
    go_on,
    save_training,
    told,
    train_epoch,
)
from archsearch.training.operation import calibration_clips
from archsearch.training.optimiser import (
    Gradients,
    State,
    averaged,
    count_hits,
    fresh_state,
    loss_of,
    part_sizes,
)
from archsearch.training.recipe import Recipe
from archsearch.video.pack import Pack

DRAWN = 2  # networks of a step beside the largest and the smallest
KEPT = 64  # members whose code is kept
MACS = "macs.json"  # multiply-adds of all forwards of each epoch


@dataclass(frozen=True)
class Family:
    """The networks that share weights: the ends, some that together have every tensor, and how others are drawn."""

    largest: Spec
    smallest: Spec
    cover: Sequence[Spec]
    draw: Callable[[np.random.Generator], Spec]


def train_shared(
    family: Family,
    recipe: Recipe,
    pack: Pack,
    store: Store,
    report: Callable[[Epoch], None] = lambda _: None,
    mix: Mix = "sum",
) -> tuple[Elastic, dict[str, Any]]:
    """Trains shared weights into `store`; returns them and the result.

    Writes curve.json, macs.json, weights.safetensors and result.json. Goes on from the last checkpoint; a finished
    training is read. The curve is the largest network's. The result has the epochs, the largest network's metrics, the
    seconds, and `macs`: multiply-adds of all forwards in training. Raises TrainingError, RecipeError for frozen norms,
    SpecError for a drawn network that is not of the family.
    """
    if recipe.frozen_norm:
        raise RecipeError("recipe, frozen_norm: shared weights have no statistics of norms to keep; set it to false")
    check_here(recipe)
    recipe = in_float32(recipe)
    torch.set_num_threads(recipe.threads)
    shared = Elastic(map(lower, family.cover), recipe.seed, mix).to(recipe.device)
    result: dict[str, Any] | None = read_json(store, RESULT)
    if result is not None:
        load_weights(store, shared)
        store.delete(CHECKPOINT)
        return shared, result
    with told(family.largest.name, recipe):
        result = _train(family, shared, recipe, pack, store, report)
    return shared, result


def _train(
    family: Family, shared: Elastic, recipe: Recipe, pack: Pack, store: Store, report: Callable[[Epoch], None]
) -> dict[str, Any]:
    sampling = sampling_for(family.largest, recipe, pack.classes)
    clips = calibration_clips(family.largest, recipe, pack)
    quick = recipe.model_copy(update={"views": 1})
    training = Training(fresh_state(shared, family.largest, recipe), [])
    go_on(training, recipe, store)
    macs: list[int] = (read_json(store, MACS) or [])[: len(training.curve)]
    sandwiches, name = _Sandwiches(family, shared, recipe), family.largest.name
    for epoch in range(len(training.curve), recipe.epochs):
        started = time.perf_counter()
        trained = train_epoch(training, recipe, pack, sampling, epoch, name, sandwiches.of_epoch(epoch))
        with averaged(training.state):
            _, scores = score_member(shared, family.largest, quick, pack, clips)
        if not math.isfinite(scores.loss):
            raise NotFinite(f"{name}: the validation loss became {scores.loss} in epoch {epoch + 1}; {ADVICE}")
        seconds = round(time.perf_counter() - started, 3)
        training.curve.append(Epoch(epoch, *trained, scores.loss, scores.top1, seconds, recipe.precision))
        write_json(store, MACS, macs := [*macs, sandwiches.macs])  # before the checkpoint, which says how many count
        save_training(training, recipe, store)
        report(training.curve[-1])
    if training.state.average is not None:
        shared.load_state_dict(training.state.average)
    save_weights(store, shared)
    _, scores = score_member(shared, family.largest, recipe, pack, clips)
    result = {
        "epochs": recipe.epochs,
        "metrics": scores.as_json(),
        "seconds": round(sum(epoch.seconds for epoch in training.curve), 3),
        "macs": sum(macs),
    }
    write_json(store, RESULT, result)
    store.delete(CHECKPOINT)
    return result


def in_float32(recipe: Recipe) -> Recipe:
    """The recipe that shared weights are trained and read off by."""
    return recipe.model_copy(update={"precision": "fp32", "compile": False})


def score_member(
    shared: Elastic, spec: Spec, recipe: Recipe, pack: Pack, clips_NCTHW: Sequence[Tensor]
) -> tuple[nn.Module, Scores]:
    """A candidate read off the shared weights, its norms estimated on clips, and what it scores on `val`."""
    net = read_off(shared, lower(spec), spec.name, clips_NCTHW)
    return net, score(net, split_of(pack, "val"), sampling_for(spec, recipe, pack.classes), recipe)


class _Sandwiches:
    """The networks of each step, a function of (seed, epoch, step), and their gradients."""

    def __init__(self, family: Family, shared: Elastic, recipe: Recipe) -> None:
        self.family, self.shared, self.seed = family, shared, recipe.seed
        self.macs = 0  # multiply-adds of all forwards of the epoch that was begun last, until now
        self._members: dict[str, tuple[Member, int]] = {}  # with the macs of a clip

    def of_epoch(self, epoch: int) -> Callable[[int], Gradients]:
        """What adds the gradients of each step of an epoch."""
        self.macs = 0
        return lambda step: self._gradients([self._member(spec) for spec in self.specs(epoch, step)])

    def specs(self, epoch: int, step: int) -> list[Spec]:
        """The largest, the smallest, and those that are drawn."""
        rng = np.random.default_rng([self.seed, epoch, step])
        return [self.family.largest, self.family.smallest, *(self.family.draw(rng) for _ in range(DRAWN))]

    def _member(self, spec: Spec) -> tuple[Member, int]:
        graph = lower(spec)
        key = digest(graph)
        if key not in self._members:
            if len(self._members) >= KEPT:
                self._members.clear()
            self._members[key] = Member(self.shared, graph, spec.name), total_cost(graph).macs
        return self._members[key]

    def _gradients(self, members: Sequence[tuple[Member, int]]) -> Gradients:
        largest, *others = [member for member, _ in members]

        def add(_: State, recipe: Recipe, clip: Tensor, label: Tensor, size: int) -> tuple[float, int]:
            self.macs += size * sum(macs for _, macs in members)
            total, hits = 0.0, 0
            parts = part_sizes(len(clip), recipe)
            for clips, labels in zip(clip.split(parts), label.split(parts), strict=True):  # type: ignore[no-untyped-call]
                logits = largest(self.shared, clips)
                loss = loss_of(logits, labels, recipe) * (len(labels) / size)
                loss.backward()  # type: ignore[no-untyped-call]
                for other in others:
                    taught = distillation(other(self.shared, clips), logits.detach(), recipe)
                    (taught * (len(labels) / size)).backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
                hits += count_hits(logits.detach(), labels)
            return total, hits

        return add


def distillation(logits_NC: Tensor, teacher_NC: Tensor, recipe: Recipe) -> Tensor:
    """Cross-entropy with what a teacher says, in nats: over the classes, or of each class where the loss is binary."""
    if recipe.loss == "binary":
        return F.binary_cross_entropy_with_logits(logits_NC, teacher_NC.sigmoid())
    return F.cross_entropy(logits_NC, teacher_NC.softmax(1))
