"""What a trained network has learned: kernels in time, clips backwards or of other lengths, curves, features."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from archsearch.errors import DataError, MissingExtra, RunError
from archsearch.nets.build import build
from archsearch.nets.layers import Mean
from archsearch.nets.taps import Taps, temporal_taps
from archsearch.spec.basic import HeadStage
from archsearch.spec.cost import total_cost
from archsearch.spec.spec import Spec, lower
from archsearch.store import Store, open_store, read_json
from archsearch.training.checkpoint import load_weights
from archsearch.training.clips import sampling_for, split_of, view_batches
from archsearch.training.evaluate import bootstrap_interval
from archsearch.training.loop import CURVE
from archsearch.training.single import Report, Say, at_frames, on_device_here, open_clips, read_network, score_single

Floats = NDArray[np.floating[Any]]
CURVES = ("train_loss", "val_loss", "train_top1", "val_top1")  # of an epoch
NEIGHBOURS = 5  # of a video, that vote on its class
FEWEST = 5  # videos; among fewer there are no neighbourhoods
PERPLEXITY = 30.0  # how many neighbours t-SNE minds (van der Maaten & Hinton 2008: 5 to 50), where there are enough


def kernels_single(run: str) -> tuple[str, list[Taps]]:
    """The name of a folder's network, and its convolutions over time. Raises RunError where there are none."""
    store = open_store(run)
    spec, _, _ = read_network(store)
    taps = temporal_taps(_with_weights(store, spec))
    if not taps:
        raise RunError(f"{run}: no convolution of {spec.name} spans more than one frame; it has no temporal kernels")
    return spec.name, taps


def time_single(
    run: str, data: Path, split: str, views: int | None, report: Report = lambda *_: None
) -> dict[str, Any]:
    """What `archsearch analyse time` prints: top-1 of clips played forwards and backwards (Xie et al. 2018, section 4).

    Classes come in the order of their difference, backwards - forwards; `same` is the share of videos that get the
    same class both ways. Raises what `score_single` does.
    """
    (forwards, labels), (backwards, _) = (
        score_single(run, data, split, views, reverse, report=report) for reverse in (False, True)
    )
    chosen = [scores.probabilities.mean(1).argmax(1) for scores in (forwards, backwards)]
    counts = dict(zip(labels, forwards.marks.sum(0).tolist(), strict=True))
    there, back = forwards.class_top1(labels), backwards.class_top1(labels)
    classes = {name: _both_ways(counts[name], there[name], back[name]) for name in there}
    return {
        "split": split,
        "views": forwards.probabilities.shape[1],
        **_both_ways(len(forwards.labels), forwards.top1, backwards.top1),
        "same": float((chosen[0] == chosen[1]).mean()),
        "classes": dict(sorted(classes.items(), key=lambda item: item[1]["difference"])),
    }


def _both_ways(videos: int, forwards: float, backwards: float) -> dict[str, Any]:
    return {"videos": videos, "forwards": forwards, "backwards": backwards, "difference": backwards - forwards}


def frames_single(
    run: str,
    data: Path,
    split: str,
    frames: Sequence[int],
    views: int | None = None,
    report: Report = lambda *_: None,
) -> dict[str, Any]:
    """What `archsearch analyse frames` prints: one network's scores with clips of several lengths, shortest first.

    `gmacs` are of one clip. Raises what `score_single` does, before anything is scored where a length does not fit.
    """
    spec, _, _ = read_network(open_store(run))
    lengths = {count: at_frames(spec, count) for count in sorted(set(frames))}
    rows: list[dict[str, Any]] = []
    videos = seen = 0
    for count, other in lengths.items():
        scores, _ = score_single(run, data, split, views, frames=count, report=_with_status(report, f"{count} frames"))
        videos, seen, _ = scores.probabilities.shape
        facts = {"frames": count, "gmacs": total_cost(lower(other)).macs / 1e9}
        interval = {"top1_interval": bootstrap_interval(scores.hits), "top5": scores.top5}
        rows.append({**facts, **scores.as_json(), **interval})
    trained = next(iter(spec.inputs.values())).t
    return {"network": spec.name, "split": split, "videos": videos, "views": seen, "trained": trained, "lengths": rows}


def _with_status(report: Report, status: str) -> Report:
    return lambda what, done, total, own: report(what, done, total, ", ".join(filter(None, (status, own))))


def curve_single(runs: Sequence[str]) -> dict[str, Any]:
    """What `archsearch analyse curve` prints: losses (nats) and top-1 of several trainings, epoch by epoch.

    The gaps are val_loss - train_loss and train_top1 - val_top1, so that more is worse; `best` is the epoch of the
    highest val_top1, of several the one with the lowest val_loss. Raises RunError for a folder without a curve.
    """
    return {"runs": [_curve(run) for run in runs]}


def _curve(run: str) -> dict[str, Any]:
    store = open_store(run)
    recorded = read_json(store, CURVE)
    if recorded is None:
        raise RunError(f"{run}: has no {CURVE}; give the folder of a training, or of a search's candidate")
    spec, _, _ = read_network(store)
    try:
        epochs = [{name: float(entry[name]) for name in CURVES} for entry in recorded]
    except (TypeError, KeyError, ValueError):
        epochs = []
    if not epochs:
        raise RunError(f"{run}/{CURVE}: should be a list of epochs, each with {', '.join(CURVES)}")
    rows = [{"epoch": number, **epoch, **_gaps(epoch)} for number, epoch in enumerate(epochs, start=1)]
    best = max(rows, key=lambda row: (row["val_top1"], -row["val_loss"]))
    return {"run": run, "network": spec.name, "epochs": rows, "best": best, "last": rows[-1]}


def _gaps(epoch: dict[str, float]) -> dict[str, float]:
    loss, top1 = epoch["val_loss"] - epoch["train_loss"], epoch["train_top1"] - epoch["val_top1"]
    return {"loss_gap": loss, "top1_gap": top1}


@dataclass(frozen=True)
class Features:
    """What every video of a split is after some stages: {stage: (videos, channels)}; `labels` (videos) of `classes`."""

    stages: dict[str, Floats]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    names: tuple[str, ...]


def features_single(
    run: str,
    data: Path,
    split: str,
    stages: Sequence[str] = (),
    report: Report = lambda *_: None,
    say: Say = lambda _: None,
) -> Features:
    """The mean over all places and the recipe's views of what stages of a folder's network give (default: three).

    The data set may have other classes than the network's. Raises SpecError for a stage that is not there, DataError
    for a missing split and for several labels a video, RunError for features that are not finite.
    """
    store = open_store(run)
    spec, recipe, labels = read_network(store)
    recipe, remark = on_device_here(recipe)
    if remark:
        say(f"{run}: {remark}")
    net = _with_weights(store, spec, stages or _spread(spec)).to(recipe.device).eval()
    sampling = sampling_for(spec, recipe, labels)
    pack = open_clips(spec, recipe, data, report, say)
    clips = split_of(pack, split)
    if clips.label_sets:
        raise DataError(f"{data}: videos have several labels, and a map of classes needs one each")
    torch.set_num_threads(recipe.threads)
    views: list[dict[str, Tensor]] = []
    for view in range(recipe.views):
        batches = [_means(net, clip) for clip in view_batches(clips, sampling, recipe, view)]
        views.append({stage: torch.cat([batch[stage] for batch in batches]) for stage in batches[0]})
    means = {stage: torch.stack([view[stage] for view in views]).mean(0).numpy() for stage in views[0]}
    wrong = [stage for stage, mean in means.items() if not np.isfinite(mean).all()]
    if wrong:
        raise RunError(f"{run}: what {wrong[0]} gives is not finite")
    return Features(means, clips.labels, pack.classes, clips.names)


def _with_weights(store: Store, spec: Spec, features: Sequence[str] = ()) -> fx.GraphModule:
    """The network of a folder, as `build` gives it."""
    net = build(spec, features)
    load_weights(store, net)
    return net


def _spread(spec: Spec) -> list[str]:
    """The first stage, one in the middle and the last one before the head; the head where it is all there is."""
    names = [stage.name for stage in spec.stages if not isinstance(stage, HeadStage)] or [spec.stages[-1].name]
    return list(dict.fromkeys(names[place] for place in (0, (len(names) - 1) // 2, -1)))


@torch.no_grad()
def _means(net: fx.GraphModule, clip_NCTHW: Tensor) -> dict[str, Tensor]:
    """{stage: (N, C)}, in float32."""
    _, features = net(clip_NCTHW)
    return {stage: Mean()(feature).cpu() for stage, feature in features.items()}


def features_json(found: Features, seed: int) -> dict[str, Any]:
    """What `archsearch analyse features` prints: how far each stage tells the classes apart, and a map of the videos.

    `knn_top1` is the share of videos whose 5 nearest others, by Euclidean distance of features, vote for their class;
    it is taken before t-SNE (van der Maaten & Hinton 2008), which lays the videos out as `points` (videos, 2). Raises
    DataError for fewer than 5 videos, MissingExtra without scikit-learn.
    """
    need_scikit_learn()
    if len(found.labels) < FEWEST:
        raise DataError(f"t-SNE needs {FEWEST} videos or more; the split has {len(found.labels)}")
    stages = {
        name: {"channels": x.shape[1], "knn_top1": knn_top1(x, found.labels), "points": embed(x, seed).tolist()}
        for name, x in found.stages.items()
    }
    largest = np.bincount(found.labels).max() / len(found.labels)
    return {
        "seed": seed,
        "neighbours": NEIGHBOURS,
        "largest_class": float(largest),
        "stages": stages,
        "labels": [found.classes[label] for label in found.labels],
        "videos": list(found.names),
    }


def need_scikit_learn() -> None:
    """Raises MissingExtra where scikit-learn is not installed."""
    if find_spec("sklearn") is None:
        raise MissingExtra("analyse features needs scikit-learn: pip install 'archsearch[analysis]'")


def knn_top1(features: Floats, labels: NDArray[np.int64]) -> float:
    """Top-1 of a vote of the nearest other videos: features (n, c), labels (n)."""
    from sklearn.neighbors import KNeighborsClassifier

    voters = KNeighborsClassifier(min(NEIGHBOURS, len(labels) - 1)).fit(features, labels)
    return float(voters.score(None, labels))  # None: everyone by the others


def embed(features: Floats, seed: int) -> Floats:
    """t-SNE of features (n, c) from a random start: (n, 2). What other seeds show, too, is no accident of the start."""
    from sklearn.manifold import TSNE

    drawn = TSNE(perplexity=min(PERPLEXITY, (len(features) - 1) / 3), init="random", random_state=seed)
    points: Floats = drawn.fit_transform(features)
    return points
