"""Training and scoring one network in a folder of its own, with the same layout as a search's candidates."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from archsearch.errors import DataError, RecipeError, RunError, SpecError
from archsearch.files import parse_yaml, read_record
from archsearch.nets.build import build
from archsearch.spec.basic import HeadStage
from archsearch.spec.cost import node_costs
from archsearch.spec.spec import Spec, lower, parse_spec, spec_yaml, with_classes, with_sides
from archsearch.store import Store, open_store, read_json, write_json
from archsearch.training.checkpoint import START, load_weights, read_weights, save_state
from archsearch.training.clips import packed, sampling_for, split_of
from archsearch.training.evaluate import Scores, evaluation_json, score
from archsearch.training.fusion import check_kind, write_scores
from archsearch.training.loop import Epoch, train
from archsearch.training.processes import first_alone, leads, own_store
from archsearch.training.recipe import Recipe
from archsearch.video.dataset import read_dataset
from archsearch.video.pack import Pack, remarks

Report = Callable[[str, int, int, str], None]  # what, done, of how many, status
Say = Callable[[str], None]


def train_single(
    spec: Spec,
    data: Path,
    out: str,
    recipe: Recipe,
    report: Report,
    say: Say = lambda _: None,
    start: str | None = None,
) -> dict[str, Any]:
    """Trains a network on a data set into the folder `out`, or goes on there; returns the result.

    `start` is the folder of a network whose weights it starts from, pixels normalised as there. Of several processes
    (see `archsearch.training.processes.together`) the first packs, writes and reports.
    Raises DataError, TrainingError, and RunError for a folder of another network, recipe or data set.
    """
    if not leads():
        report, say = _silent, _silent
    store = own_store(open_store(out))
    with first_alone():
        if start is not None:
            spec, recipe = _as_started(spec, recipe, open_store(start), say)
        pack = open_clips(spec, recipe, data, report, say)
        spec = with_classes(spec, len(pack.classes))
        begin = None if start is None else start_state(spec, open_store(start), recipe.seed, say, recipe.start_share)
        write_network(store, spec, recipe, pack, start)
        if begin is not None and store.read(START) is None:
            save_state(store, begin, START)

    def trained(epoch: Epoch) -> None:
        status = f"loss {epoch.train_loss:.3f}, val top1 {epoch.val_top1:.3f}"
        report("training", epoch.epoch + 1, recipe.epochs, status)

    return train(spec, recipe, pack, store, trained)


def _silent(*_: object) -> None:
    """Says nothing: another process does."""


def _as_started(spec: Spec, recipe: Recipe, source: Store, say: Say) -> tuple[Spec, Recipe]:
    """The norm rule, padding and pixel normalisation that weights were made with."""
    theirs, made, _ = read_network(source)
    pixels = {"mean": made.mean, "std": made.std}
    if (recipe.mean, recipe.std) != (made.mean, made.std):
        say(f"{source.url}: pixels are normalised as for its weights, mean {made.mean}, std {made.std}")
    return (
        spec.model_copy(update={"norm": theirs.norm, "padding": theirs.padding}),
        recipe.model_copy(update=pixels),
    )


def start_state(
    spec: Spec, source: Store, seed: int, say: Say = lambda _: None, share: float = 1.0
) -> dict[str, torch.Tensor]:
    """The weights of a folder for the same network; a classifier of another size is fresh.

    Kernels of convolutions are `share` of those and 1 - `share` of fresh ones: what was learned on little data or for
    another task is a better start then (Ash & Adams 2020, shrink and perturb). Raises RunError where anything else
    does not fit.
    """
    state = build(spec, seed=seed).state_dict()
    tensors = read_weights(source)
    fit = {name for name, tensor in tensors.items() if name in state and tensor.shape == state[name].shape}
    heads = {f"{stage.name}.linear" for stage in spec.stages if isinstance(stage, HeadStage)}
    wrong = [name for name in tensors.keys() | state.keys() if name not in fit and name.rpartition(".")[0] not in heads]
    if wrong:
        raise RunError(f"{source.url}: {len(wrong)} tensors do not fit {spec.name}, e.g. {min(wrong)}")
    if len(fit) < len(state):
        say(f"{source.url}: the classifier is fresh, for {spec.classes} classes")
    begin = {name: tensors[name] if name in fit else tensor for name, tensor in state.items()}
    kernels = {name for name in fit if state[name].ndim == 5}
    return begin | {name: state[name].lerp(tensors[name], share) for name in kernels if share < 1}


def write_network(store: Store, spec: Spec, recipe: Recipe, pack: Pack, start: str | None = None) -> None:
    """Writes what a trained network's folder says besides its weights, or checks that it says the same."""
    facts = {"spec": spec_yaml(spec), "recipe": recipe.model_dump(mode="json"), "data": pack.digest}
    facts |= {"start": start} if start is not None else {}
    if store.read("run.json") is not None:
        raise RunError(f"{store.url}: is a search's run folder; give --out a folder of its own")
    known = read_json(store, "network.json")
    if known is not None:
        known["recipe"] = {**Recipe().model_dump(mode="json"), **known["recipe"]}  # fields that are new since
        differ = [name for name in facts | known if known.get(name) != facts.get(name)]
        if differ:
            raise RunError(
                f"{store.url}: holds a training with another {' and '.join(differ)}; give --out a new folder"
            )
        return
    store.write("spec.yaml", spec_yaml(spec))
    write_json(store, "recipe.json", recipe.model_dump(mode="json"))
    store.write("labels.txt", "".join(f"{name}\n" for name in pack.classes))
    write_json(store, "network.json", facts)


def open_clips(
    spec: Spec, recipe: Recipe, data: Path, report: Report = lambda *_: None, say: Say = lambda _: None
) -> Pack:
    """The pack a network's clips are cut from; `say` hears how the data set was split and what was left out."""
    dataset = read_dataset(data)
    pack = packed(dataset, spec, recipe, report)
    for line in remarks(dataset, pack):
        say(line)
    return pack


def evaluate_single(
    run: str,
    data: Path,
    split: str,
    views: int | None,
    reverse: bool,
    *,
    crops: int = 1,
    frames: int | None = None,
    keep: Path | None = None,
    report: Report = lambda *_: None,
) -> dict[str, Any]:
    """What `archsearch evaluate` prints: see `score_single`. `keep` is where the scores are written, for fusion."""
    if keep is not None:
        check_kind(keep)  # before anything long
    scores, labels = score_single(run, data, split, views, reverse, crops=crops, frames=frames, report=report)
    if keep is not None:
        write_scores(keep, scores, labels)
    spec, _, _ = read_network(open_store(run))
    facts = {
        "network": spec.name,
        "split": split,
        "videos": len(scores.labels),
        "views": scores.probabilities.shape[1] // crops,
        "crops": crops,
        "frames": next(iter(spec.inputs.values())).t if frames is None else frames,
        "reverse": reverse,
    }
    return {**facts, **evaluation_json(scores, labels)}


def score_single(
    run: str,
    data: Path,
    split: str,
    views: int | None = None,
    reverse: bool = False,
    *,
    crops: int = 1,
    frames: int | None = None,
    report: Report = lambda *_: None,
) -> tuple[Scores, tuple[str, ...]]:
    """Scores a trained network's folder on a split of a data set with the same classes; with the classes' names.

    Every video is seen by `views` clips at 1 or 3 `crops` each, of the network's number of frames or of `frames`.
    A network that was trained on a GPU is scored on the CPU where there is none, and the status of `report` says so.
    Raises RunError for a folder without a trained network or for scores that are not finite, DataError for other
    classes or a missing split, SpecError where the network's weights do not take clips of `frames`.
    """
    store = open_store(run)
    spec, recipe, labels = read_network(store)
    spec = spec if frames is None else at_frames(spec, frames)
    recipe = recipe if views is None else recipe.model_copy(update={"views": views})
    recipe, remark = on_device_here(recipe)
    pack = open_clips(spec, recipe, data, report)
    if pack.classes != labels:
        raise DataError(f"{data}: has classes {', '.join(pack.classes)}; {run} was trained on {', '.join(labels)}")
    net = _trained(store, spec, recipe)
    torch.set_num_threads(recipe.threads)
    sampling, videos = sampling_for(spec, recipe, labels), split_of(pack, split)
    progress = partial(_say_scored, report, remark)
    scores = score(net, videos, sampling, recipe, reverse=reverse, crops=crops, report=progress)
    if not np.isfinite(scores.probabilities).all():
        raise RunError(f"{run}: what the network says of some videos is not finite")
    return scores, labels


def _say_scored(report: Report, status: str, done: int, total: int) -> None:
    report("scoring", done, total, status)


def on_device_here(recipe: Recipe) -> tuple[Recipe, str]:
    """The recipe on the CPU where torch sees no cuda device, and a remark that says so; else as it is, and nothing."""
    if recipe.device == "cpu" or torch.cuda.is_available():
        return recipe, ""
    return recipe.model_copy(update={"device": "cpu"}), "on the CPU: torch sees no cuda device here"


def _trained(store: Store, spec: Spec, recipe: Recipe) -> torch.nn.Module:
    """The network of a folder on the recipe's device, in its memory format."""
    net = build(spec, seed=recipe.seed).to(recipe.device)
    load_weights(store, net)
    return net.to(memory_format=torch.channels_last_3d) if recipe.channels_last else net  # type: ignore[call-overload]


def at_frames(spec: Spec, frames: int) -> Spec:
    """The same network, with the same weights, for clips of another number of frames.

    Networks that average over time take any. Raises SpecError where weights or feature maps would not fit.
    """
    clip = next(iter(spec.inputs.values()))
    other = with_sides(spec, (frames, clip.h, clip.w))
    try:
        fresh = node_costs(lower(other))
    except SpecError as error:
        raise SpecError(*(f"at {frames} frames, {line}" for line in error.lines)) from None
    for name, cost in node_costs(lower(spec)).items():
        if fresh[name].params != cost.params:
            raise SpecError(
                f"{spec.name}: its weights are for clips of {clip.t} frames: at {frames}, {name} would have "
                f"{fresh[name].params:,} parameters, not {cost.params:,}; a network that averages over time takes any"
            )
    return other


def read_network(store: Store) -> tuple[Spec, Recipe, tuple[str, ...]]:
    """Spec, recipe and class names of a trained network's folder."""
    texts = {name: store.read(name) for name in ("spec.yaml", "recipe.json", "labels.txt")}
    missing = [name for name, content in texts.items() if content is None]
    if missing:
        raise RunError(f"{store.url}: is no trained network's folder; it has no {', '.join(missing)}")
    source = f"{store.url}/spec.yaml"
    for name, content in texts.items():
        _check_text(f"{store.url}/{name}", content or b"")
    spec = parse_spec(parse_yaml((texts["spec.yaml"] or b"").decode(), source, SpecError), source)
    faults: list[str] = []
    known = read_json(store, "recipe.json", "copy the folder again")
    recipe = read_record(Recipe, known, f"{store.url}/recipe.json", faults)
    if recipe is None:
        raise RecipeError(*faults)
    return spec, recipe, tuple((texts["labels.txt"] or b"").decode().splitlines())


def _check_text(place: str, content: bytes) -> None:
    """Raises RunError for what is no text."""
    try:
        content.decode()
    except UnicodeDecodeError as fault:
        raise RunError(f"{place}, byte {fault.start}: not UTF-8; the file is damaged, copy the folder again") from None
