"""Training one network, epoch by epoch, from wherever it stopped.

Everything is a function of (spec, recipe, data): batches are drawn from (seed, epoch), the learning rate from the
step, and a checkpoint holds the rest. So a training that was killed and goes on draws the same numbers, and gives the
same bits where the kernels of the device do: those of a CPU.
"""

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from archsearch.errors import RecipeError, RunError, TrainingError
from archsearch.nets.build import build
from archsearch.nets.fast import fastest_precision, prove_bf16
from archsearch.spec.spec import Spec
from archsearch.store import Store, read_json, write_json
from archsearch.training.checkpoint import CHECKPOINT, START, load_checkpoint, save_checkpoint, save_weights
from archsearch.training.clips import batch_sizes, epoch_batches, sampling_for, split_of
from archsearch.training.evaluate import score
from archsearch.training.events import check_events, write_events
from archsearch.training.finetune import training_mode
from archsearch.training.optimiser import Gradients, State, averaged, fresh_state, part_sizes, scaler_for, step
from archsearch.training.processes import all_rows, count, leads, number, own_part, own_store, summed, with_shared_norms
from archsearch.training.recipe import Recipe
from archsearch.training.schedule import learning_rate
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
class Training:
    """What changes as epochs pass."""

    state: State
    curve: list[Epoch]


def train(
    spec: Spec,
    recipe: Recipe,
    pack: Pack,
    store: Store,
    report: Callable[[Epoch], None] = lambda _: None,
    until: int | None = None,
) -> dict[str, Any]:
    """Trains a network into `store` (curve.json, weights.safetensors, result.json) and returns the result.

    Goes on from the last checkpoint in `store`; a finished training is answered from its result. One that is to pause
    after `until` epochs leaves its checkpoint, and returns what was read then. A step that is not finite in bfloat16 is
    tried again in float32 from the last checkpoint. Raises TrainingError (not finite, out of memory), DataError.
    """
    store = own_store(store)
    found = trained_before(store, until)
    if found is not None:
        if until is None:
            store.delete(CHECKPOINT)  # a kill may have come between the two
        return found
    with told(spec.name, recipe):
        return _train_finite(spec, recipe, pack, store, report, until)


def trained_before(store: Store, until: int | None) -> dict[str, Any] | None:
    """The result of a finished training, or the reading of one that has come to `until`; None for neither.

    Raises RunError for a curve that is none.
    """
    if until is None:
        result: dict[str, Any] | None = read_json(store, RESULT)
        return result
    curve = read_json(store, CURVE) or []
    if not isinstance(curve, list) or not all(isinstance(epoch, dict) for epoch in curve):
        raise RunError(f"{store.url}/{CURVE}: should be a list of epochs; delete it and run the same command again")
    return reading(curve, until) if len(curve) >= until else None


def reading(curve: Sequence[Mapping[str, Any]], epochs: int) -> dict[str, Any]:
    """What a training has shown after so many epochs, as a result has it: the losses, and one view of each video."""
    last = curve[epochs - 1]
    measured = {"top1": last["val_top1"], "loss": last["val_loss"], "train_loss": last["train_loss"]}
    return {"epochs": epochs, "metrics": measured, "seconds": round(sum(row["seconds"] for row in curve[:epochs]), 3)}


@contextmanager
def told(name: str, recipe: Recipe) -> Iterator[None]:
    """What torch raises, as users can act on it. Raises TrainingError."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise TrainingError(f"{name}: a norm sees one value a channel at batch {recipe.batch}; raise it") from None
    except (MemoryError, RuntimeError) as error:
        if _is_of_compiler(error):
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise TrainingError(f"{name}: torch cannot compile it here ({reason}); set compile to false") from None
        if not is_out_of_memory(error):
            raise
        raise TrainingError(f"{name}: out of memory at batch {recipe.batch}; lower it in the recipe") from None


def _train_finite(
    spec: Spec, recipe: Recipe, pack: Pack, store: Store, report: Callable[[Epoch], None], until: int | None
) -> dict[str, Any]:
    """In the recipe's precision, or from the last checkpoint on in float32."""
    while (result := _train(spec, recipe, pack, store, report, until)) is None:
        gc.collect()  # networks are cycles, and two may not fit into memory
        recipe = _in_precision(recipe, "fp32")
    return result


def _in_precision(recipe: Recipe, precision: str) -> Recipe:
    return recipe.model_copy(update={"precision": precision})


def _train(
    spec: Spec, recipe: Recipe, pack: Pack, store: Store, report: Callable[[Epoch], None], until: int | None
) -> dict[str, Any] | None:
    """The result, or a reading; None where a step was not finite in less than float32. Raises NotFinite in float32."""
    torch.set_num_threads(recipe.threads)
    sampling = sampling_for(spec, recipe, pack.classes)
    validation = split_of(pack, "val")
    automatic = recipe.precision == "auto"
    recipe = _in_precision(recipe, fastest_precision(recipe.device)) if automatic else recipe
    training = _start(spec, recipe, store)
    state, curve = training.state, training.curve
    if curve and (automatic or curve[-1].precision == "fp32"):  # whoever fell back stays there, interrupted or not
        recipe = _in_precision(recipe, curve[-1].precision)
        state.scaler = scaler_for(recipe)
    try:
        _train_epochs(training, spec.name, recipe, pack, sampling, store, report, until or recipe.epochs)
    except NotFinite:
        if recipe.precision == "fp32":
            raise
        return None
    if until is not None:
        return reading([asdict(epoch) for epoch in curve], until)
    with averaged(state) as net:
        scores = score(net, validation, sampling, recipe)
        save_weights(store, net)
    seconds = round(sum(epoch.seconds for epoch in curve), 3)
    measured = {**scores.as_json(), "train_loss": curve[-1].train_loss}
    result = {"epochs": len(curve), "metrics": measured, "seconds": seconds}
    write_json(store, RESULT, result)
    store.delete(CHECKPOINT)
    return result


def _train_epochs(
    training: Training,
    name: str,
    recipe: Recipe,
    pack: Pack,
    sampling: Sampling,
    store: Store,
    report: Callable[[Epoch], None],
    until: int,
) -> None:
    """The epochs that are left up to `until`, each with a checkpoint after it. Raises NotFinite."""
    state, curve = training.state, training.curve
    validation, quick = split_of(pack, "val"), recipe.model_copy(update={"views": 1})
    if recipe.precision == "bf16":
        _prove(state, recipe, pack, sampling)
    if recipe.compile:
        state.net.compile(dynamic=False)  # code for each shape, whatever came before: the same bits after a resume
    for epoch in range(len(curve), until):
        started = time.perf_counter()
        lr, loss, top1 = train_epoch(training, recipe, pack, sampling, epoch, name)
        with averaged(state) as net:
            scores = score(net, validation, sampling, quick)
        val_loss = summed(scores.loss)[0] / count()  # one number for all processes, whose schedules follow it
        if not math.isfinite(val_loss):
            raise NotFinite(f"{name}: the validation loss became {val_loss} in epoch {epoch + 1}; {ADVICE}")
        seconds = round(time.perf_counter() - started, 3)
        curve.append(Epoch(epoch, lr, loss, top1, val_loss, scores.top1, seconds, recipe.precision))
        save_training(training, recipe, store)
        report(curve[-1])


def _prove(state: State, recipe: Recipe, pack: Pack, sampling: Sampling) -> None:
    """Lower precision at every size of batch that the network trains on here; it is scored in float32."""
    split = split_of(pack, "train")
    clip, _ = next(epoch_batches(split, sampling, recipe, 0))  # the largest
    own = [len(range(size)[own_part(size)]) for size in batch_sizes(split, recipe)]
    sizes = {size for clips in own for size in part_sizes(clips, recipe)}
    prove_bf16(state.net, *(clip[:size] for size in sorted(sizes, reverse=True)))


def _start(spec: Spec, recipe: Recipe, store: Store) -> Training:
    """A fresh network, the one `start.safetensors` holds, or the one of the last checkpoint."""
    check_here(recipe)
    net = with_shared_norms(build(spec, seed=recipe.seed), recipe).to(recipe.device)
    start = store.read(START)
    if start is not None:
        net.load_state_dict(load_tensors(start))
    if recipe.channels_last:
        net = net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    training = Training(fresh_state(net, spec, recipe), [])
    go_on(training, recipe, store)
    return training


def check_here(recipe: Recipe) -> None:
    """Raises RecipeError for a device that torch does not see, MissingExtra where events cannot be written."""
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("recipe, device: torch sees no cuda device here; take cpu")
    if recipe.tensorboard:
        check_events()


def go_on(training: Training, recipe: Recipe, store: Store) -> None:
    """Seeds random numbers, and takes over the last checkpoint in `store`, if there is one.

    This training is the only one that writes there; what a killed one left half-written goes.
    """
    store.sweep()
    torch.manual_seed(recipe.seed + number())  # processes drop out differently
    saved = load_checkpoint(store)
    if saved is not None:
        training.state.restore(saved)
        torch.set_rng_state(_own_row(saved["rng"]))
        if "cuda_rng" in saved:
            torch.cuda.set_rng_state(_own_row(saved["cuda_rng"]))
        training.curve.extend(Epoch(**epoch) for epoch in saved["curve"])
        _write_curve(training, recipe, store)


def _own_row(states: Tensor) -> Tensor:
    """This process's of what `all_rows` gave, also of another number of processes."""
    rows = states.view(-1, states.shape[-1])
    return rows[number() % len(rows)]


def save_training(training: Training, recipe: Recipe, store: Store) -> None:
    """Writes the checkpoint and the curve of a training, after an epoch."""
    saved = training.state.as_saved()
    saved |= {"rng": all_rows(torch.get_rng_state()), "curve": [asdict(epoch) for epoch in training.curve]}
    if recipe.device == "cuda":
        saved["cuda_rng"] = all_rows(torch.cuda.get_rng_state())
    save_checkpoint(store, saved)
    _write_curve(training, recipe, store)


def _write_curve(training: Training, recipe: Recipe, store: Store) -> None:
    """The curve as JSON, and as events if asked, for those who do not read checkpoints."""
    rows = [asdict(epoch) for epoch in training.curve]
    write_json(store, CURVE, rows)
    if recipe.tensorboard and leads():
        write_events(store, rows)


def train_epoch(
    training: Training,
    recipe: Recipe,
    pack: Pack,
    sampling: Sampling,
    epoch: int,
    name: str,
    gradients: Callable[[int], Gradients | None] = lambda _: None,
) -> tuple[float, float, float]:
    """One pass over the training clips: (last learning rate, mean loss, clip top-1).

    `gradients` gives what adds the gradients of each step, by its place in the epoch; None: the network's own loss.
    """
    split = split_of(pack, "train")
    sizes = batch_sizes(split, recipe)
    before = [entry.val_loss for entry in training.curve]
    losses, hits = 0.0, 0
    training_mode(training.state.net, recipe)
    lr = 0.0
    batches = zip(epoch_batches(split, sampling, recipe, epoch, pack.classes), sizes, strict=True)
    for place, ((clip, label), size) in enumerate(batches):
        lr = learning_rate(recipe, epoch + place / len(sizes), len(sizes), before)
        loss, right = step(training.state, recipe, clip, label, lr, size, gradients(place))
        if not math.isfinite(loss):
            raise NotFinite(
                f"{name}: the loss or its gradient became {loss} in epoch {epoch + 1}, step {place + 1}; {ADVICE}"
            )
        losses += loss * size
        hits += right
    return lr, losses / len(split), hits / len(split)


def _is_of_compiler(error: BaseException) -> bool:
    """Whether torch.compile raised it."""
    return any(kind.__module__.startswith(("torch._dynamo", "torch._inductor")) for kind in type(error).__mro__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch or Python says that memory ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    )
