"""Training one network, epoch by epoch, from wherever it stopped.

Everything is a function of (spec, recipe, data): batches are drawn from (seed, epoch), the learning rate from the
step, and a checkpoint holds the rest. So a training that was killed and goes on gives the same bits.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor, nn
from torch.nn import functional as F

from archsearch.errors import RecipeError, TrainingError
from archsearch.nets.build import build
from archsearch.nets.fast import prove_bf16
from archsearch.spec.spec import Spec
from archsearch.store import Store, read_json, write_json
from archsearch.training.checkpoint import CHECKPOINT, START, load_checkpoint, save_checkpoint, save_weights
from archsearch.training.clips import epoch_batches, sampling_for, split_of, steps_per_epoch
from archsearch.training.evaluate import score
from archsearch.training.finetune import parameter_groups, training_mode
from archsearch.training.recipe import Recipe
from archsearch.video.clips import Sampling
from archsearch.video.pack import Pack

CURVE, RESULT = "curve.json", "result.json"
ADVICE = "try a lower lr"


@dataclass(frozen=True)
class Epoch:
    """One epoch: losses in nats, clip top-1 in training, one view of each video in validation, wall-clock seconds."""

    epoch: int
    lr: float
    train_loss: float
    train_top1: float
    val_loss: float
    val_top1: float
    seconds: float
    precision: str


class NotFinite(TrainingError):
    """The loss became inf or nan."""


@dataclass
class State:
    """What training changes: the network, its optimiser, and the epochs so far."""

    net: nn.Module
    optimizer: torch.optim.Optimizer
    curve: list[Epoch]


def train(
    spec: Spec, recipe: Recipe, pack: Pack, store: Store, report: Callable[[Epoch], None] = lambda _: None
) -> dict[str, Any]:
    """Trains a network into `store` (curve.json, weights.safetensors, result.json) and returns the result.

    Goes on from the last checkpoint in `store`; a finished training is answered from its result. A step that is not
    finite in bfloat16 is tried again in float32 from the last checkpoint. Raises TrainingError (not finite, out of
    memory), DataError.
    """
    done: dict[str, Any] | None = read_json(store, RESULT)
    if done is not None:
        store.delete(CHECKPOINT)  # a kill may have come between the two
        return done
    try:
        return _train_finite(spec, recipe, pack, store, report)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise TrainingError(f"{spec.name}: a norm sees one value a channel at batch {recipe.batch}; raise it") from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(f"{spec.name}: out of memory at batch {recipe.batch}; lower it in the recipe") from None


def _train_finite(
    spec: Spec, recipe: Recipe, pack: Pack, store: Store, report: Callable[[Epoch], None]
) -> dict[str, Any]:
    """In the recipe's precision, or from the last checkpoint on in float32."""
    try:
        return _train(spec, recipe, pack, store, report)
    except NotFinite:
        if recipe.precision == "fp32":
            raise
        return _train(spec, _in_fp32(recipe), pack, store, report)


def _in_fp32(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"precision": "fp32"})


def _train(spec: Spec, recipe: Recipe, pack: Pack, store: Store, report: Callable[[Epoch], None]) -> dict[str, Any]:
    torch.set_num_threads(recipe.threads)
    sampling = sampling_for(spec, recipe, pack.classes)
    validation = split_of(pack, "val")
    state = _start(spec, recipe, store)
    if state.curve and state.curve[-1].precision == "fp32":  # whoever fell back stays there, interrupted or not
        recipe = _in_fp32(recipe)
    quick = recipe.model_copy(update={"views": 1})
    if recipe.precision == "bf16":
        clip, _ = next(epoch_batches(split_of(pack, "train"), sampling, recipe, 0))
        prove_bf16(state.net, clip, *([clip[1:]] if len(clip) > 1 else []))  # batches differ by one clip at most
    for epoch in range(len(state.curve), recipe.epochs):
        started = time.perf_counter()
        lr, loss, top1 = _train_epoch(state, recipe, pack, sampling, epoch, spec.name)
        scores = score(state.net, validation, sampling, quick)
        if not math.isfinite(scores.loss):
            raise NotFinite(f"{spec.name}: the validation loss became {scores.loss} in epoch {epoch + 1}; {ADVICE}")
        seconds = round(time.perf_counter() - started, 3)
        state.curve.append(Epoch(epoch, lr, loss, top1, scores.loss, scores.top1, seconds, recipe.precision))
        _save(state, store)
        report(state.curve[-1])
    scores = score(state.net, validation, sampling, recipe)
    seconds = round(sum(epoch.seconds for epoch in state.curve), 3)
    result = {"epochs": len(state.curve), "metrics": scores.as_json(), "seconds": seconds}
    save_weights(store, state.net)
    write_json(store, RESULT, result)
    store.delete(CHECKPOINT)
    return result


def _start(spec: Spec, recipe: Recipe, store: Store) -> State:
    """A fresh network, the one `start.safetensors` holds, or the one of the last checkpoint."""
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("recipe, device: torch sees no cuda device here; take cpu")
    net = build(spec, seed=recipe.seed).to(recipe.device)
    start = store.read(START)
    if start is not None:
        net.load_state_dict(load_tensors(start))
    if recipe.channels_last:
        net = net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    state = State(net, _optimizer(net, spec, recipe), [])
    torch.manual_seed(recipe.seed)
    saved = load_checkpoint(store)
    if saved is not None:
        net.load_state_dict(saved["net"])
        state.optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["rng"])
        state.curve = [Epoch(**epoch) for epoch in saved["curve"]]
        _write_curve(state, store)
    return state


def _save(state: State, store: Store) -> None:
    saved = {
        "net": state.net.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "curve": [asdict(epoch) for epoch in state.curve],
    }
    save_checkpoint(store, saved)
    _write_curve(state, store)


def _write_curve(state: State, store: Store) -> None:
    """The curve as JSON, for those who do not read checkpoints."""
    write_json(store, CURVE, [asdict(epoch) for epoch in state.curve])


def _optimizer(net: nn.Module, spec: Spec, recipe: Recipe) -> torch.optim.Optimizer:
    groups = parameter_groups(net, [stage.name for stage in spec.stages], recipe)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=True)


def _train_epoch(
    state: State, recipe: Recipe, pack: Pack, sampling: Sampling, epoch: int, name: str
) -> tuple[float, float, float]:
    """One pass over the training clips: (last learning rate, mean loss, clip top-1)."""
    split = split_of(pack, "train")
    steps = steps_per_epoch(split, recipe)
    losses, hits = 0.0, 0
    training_mode(state.net, recipe)
    lr = 0.0
    for step, (clip, label) in enumerate(epoch_batches(split, sampling, recipe, epoch, pack.classes)):
        lr = learning_rate(recipe, epoch + step / steps, steps)
        loss, logits = _step(state, recipe, clip, label, lr)
        if not math.isfinite(loss):
            raise NotFinite(
                f"{name}: the loss or its gradient became {loss} in epoch {epoch + 1}, step {step + 1}; {ADVICE}"
            )
        losses += loss * len(label)
        hits += int((logits.argmax(1) == (label.argmax(1) if label.ndim > 1 else label)).sum())
    return lr, losses / len(split), hits / len(split)


def _step(state: State, recipe: Recipe, clip: Tensor, label: Tensor, lr: float) -> tuple[float, Tensor]:
    for group in state.optimizer.param_groups:
        group["lr"] = lr * group.get("factor", 1.0)  # not in checkpoints from before
    state.optimizer.zero_grad(set_to_none=True)
    with torch.autocast(recipe.device, torch.bfloat16, enabled=recipe.precision == "bf16"):
        logits = state.net(clip)
    loss = F.cross_entropy(logits.float(), label, label_smoothing=recipe.label_smoothing)
    loss.backward()  # type: ignore[no-untyped-call]
    if recipe.clip_norm is not None:
        norm = nn.utils.clip_grad_norm_(state.net.parameters(), recipe.clip_norm)
        if not math.isfinite(norm):
            return float(norm), logits
    state.optimizer.step()
    return float(loss.detach()), logits.detach()


def learning_rate(recipe: Recipe, epoch: float, steps: int) -> float:
    """Linear warm-up from 0, then half a cosine to 0; `epoch` counts with its fraction, `steps` are one epoch's."""
    if epoch < recipe.warmup_epochs:
        return recipe.lr * min(1.0, (epoch + 1 / steps) / recipe.warmup_epochs)
    done = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * done))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch or Python says that memory ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    )
