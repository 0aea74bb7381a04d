"""One step of training: losses and gradients of a batch in parts, the optimiser, and averaged weights."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archsearch.nets.recompute import recomputing
from archsearch.spec.spec import Spec
from archsearch.training.finetune import parameter_groups
from archsearch.training.processes import count, shared, summed, waiting
from archsearch.training.recipe import Recipe

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class State:
    """What training changes. `model` is the network as several processes share it, or the network itself."""

    net: nn.Module
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # of the loss, in fp16 alone: small gradients would be 0 there
    average: dict[str, Tensor] | None  # weights and norm statistics, where the recipe averages them
    steps: int = 0  # that the average has followed

    def as_saved(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        saved = {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}
        saved |= {"scaler": self.scaler.state_dict()} if self.scaler.is_enabled() else {}
        return saved | ({} if self.average is None else {"average": self.average, "steps": self.steps})

    def restore(self, saved: dict[str, Any]) -> None:
        """Takes over what `as_saved` gave."""
        self.net.load_state_dict(saved["net"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.scaler.is_enabled() and "scaler" in saved:
            self.scaler.load_state_dict(saved["scaler"])
        for name, mean in (self.average or {}).items():
            mean.copy_(saved["average"][name])
        self.steps = saved.get("steps", 0)


def fresh_state(net: nn.Module, spec: Spec, recipe: Recipe) -> State:
    """Before the first step."""
    average = None if recipe.ema is None else {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = optimizer_for(net, spec, recipe)  # before sharing, which leaves out what is frozen
    return State(net, shared(net), optimizer, scaler_for(recipe), average)


def scaler_for(recipe: Recipe) -> torch.amp.GradScaler:
    """What scales the loss in fp16, and does nothing in any other precision."""
    return torch.amp.GradScaler(recipe.device, enabled=recipe.precision == "fp16")


def optimizer_for(net: nn.Module, spec: Spec, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser. Raises RecipeError for stages that the network has not."""
    groups = parameter_groups(net, [stage.name for stage in spec.stages], recipe)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


Gradients = Callable[[State, Recipe, Tensor, Tensor, int], tuple[float, int]]  # of a batch: its mean loss and hits


def step(
    state: State, recipe: Recipe, clip: Tensor, label: Tensor, lr: float, size: int, gradients: Gradients | None = None
) -> tuple[float, int]:
    """One step on a batch of `size` clips, of which `clip` is this process's part: (mean loss in nats, hits).

    `gradients` adds those of something else than the network's own loss. A loss that is not finite says so of the
    gradient, too; the weights stay as they are where only the latter is not.
    """
    for group in state.optimizer.param_groups:
        group["lr"] = lr * group.get("factor", 1.0)  # not in checkpoints from before
    state.optimizer.zero_grad(set_to_none=True)
    loss, hits = (gradients or _gradients)(state, recipe, clip, label, size)
    state.scaler.unscale_(state.optimizer)
    if recipe.clip_norm is not None:
        norm = nn.utils.clip_grad_norm_(state.net.parameters(), recipe.clip_norm)
        if not (math.isfinite(norm) or state.scaler.is_enabled()):  # a scaler leaves such a step out on its own
            return float(norm), hits
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.average is not None and recipe.ema is not None:
        _move(state.average, state.net, min(recipe.ema, (1 + state.steps) / (10 + state.steps)))
        state.steps += 1
    return loss, hits


def _gradients(state: State, recipe: Recipe, clip: Tensor, label: Tensor, size: int) -> tuple[float, int]:
    """Sums gradients over the parts, each weighted by its clips, so that they are those of the batch's mean loss."""
    total, hits = 0.0, 0
    parts = part_sizes(len(clip), recipe)
    for number, (clips, labels) in enumerate(zip(clip.split(parts), label.split(parts), strict=True), 1):  # type: ignore[no-untyped-call]
        with waiting(state.model, last=number == len(parts)):
            with (
                torch.autocast(recipe.device, HALF.get(recipe.precision), enabled=recipe.precision in HALF),
                recomputing() if recipe.recompute else nullcontext(),
            ):
                logits = state.model(clips)
            loss = loss_of(logits, labels, recipe) * (len(labels) / size)
            state.scaler.scale(loss * count()).backward()  # type: ignore[no-untyped-call]  # processes average their gradients
        total += float(loss.detach())
        hits += count_hits(logits.detach(), labels)
    mean, right = summed(total, hits)
    return mean, int(right)


def count_hits(logits_NC: Tensor, target: Tensor) -> int:
    """How many clips have their highest logit at their class, or at one that no other has a larger share of."""
    said = logits_NC.argmax(1)
    if target.ndim == 1:
        return int((said == target).sum())
    return int((target.gather(1, said[:, None]).squeeze(1) == target.amax(1)).sum())


def part_sizes(clips: int, recipe: Recipe) -> list[int]:
    """The clips of each part that a batch goes through the network in; they differ by one at most."""
    parts = min(recipe.accumulate, clips)
    return [clips // parts + (place < clips % parts) for place in range(parts)]


def loss_of(logits_NC: Tensor, target: Tensor, recipe: Recipe) -> Tensor:
    """The mean loss over clips, in nats; `target` is a class each (N), or a share of each class (N, classes).

    Cross-entropy over the classes, or binary: the mean over the classes of each one's own, for clips of several
    classes or none. Smoothing moves targets towards 1 / classes, or 1 / 2.
    """
    logits_NC = logits_NC.float()
    if recipe.loss == "cross-entropy":
        return F.cross_entropy(logits_NC, target, label_smoothing=recipe.label_smoothing)
    if target.ndim == 1:
        target = F.one_hot(target, logits_NC.shape[1])
    smooth = target.to(logits_NC) * (1 - recipe.label_smoothing) + recipe.label_smoothing / 2
    return F.binary_cross_entropy_with_logits(logits_NC, smooth)


@torch.no_grad()
def _move(average: dict[str, Tensor], net: nn.Module, decay: float) -> None:
    """average = decay * average + (1 - decay) * now; counters are taken as they are."""
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


@contextmanager
def averaged(state: State) -> Iterator[nn.Module]:
    """The network with the averaged weights inside, where there are any; its own ones after."""
    if state.average is None:
        yield state.net
        return
    own = {name: value.clone() for name, value in state.net.state_dict().items()}
    state.net.load_state_dict(state.average)
    try:
        yield state.net
    finally:
        state.net.load_state_dict(own)
