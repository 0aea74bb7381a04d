"""Making a model folder: a trained network exported, checked, scored and timed, with what is known of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from archsearch.errors import DataError, MissingExtra, RunError
from archsearch.nets.export import (
    OUTPUT,
    Call,
    check_opset,
    runtime_call,
    to_onnx,
    to_openvino,
    to_program,
    to_pt2,
    torch_call,
)
from archsearch.nets.quantise import to_int8
from archsearch.nets.runners import threads
from archsearch.nets.runtimes import NO_ONNX, NO_OPENVINO, load_onnxruntime
from archsearch.spec.cost import peak_memory_bytes, total_cost
from archsearch.spec.spec import Spec, lower
from archsearch.store import LocalStore, Store, open_store, read_json
from archsearch.training.clips import pack_side, sampling_for, split_of
from archsearch.training.evaluate import bootstrap_interval
from archsearch.training.loop import RESULT
from archsearch.training.model import NETWORK, check_place, put_model
from archsearch.training.model_json import (
    CARD,
    INT8,
    LEAST_SIDE,
    MODEL,
    ONNX,
    PROGRAM,
    Check,
    Cut,
    Input,
    Model,
    Output,
    Speed,
    sums,
    to_json,
)
from archsearch.training.serving import Network, checks, decoded_batches, read_served, score_served, speeds
from archsearch.training.single import open_clips
from archsearch.versions import versions
from archsearch.video.clips import RGB
from archsearch.video.flow import default_bound
from archsearch.video.pack import Pack

Report = Callable[[str, int, int, str], None]
Say = Callable[[str], None]
Card = Callable[[Model, Spec], str]  # MODEL.md's text
CALIBRATION = 64  # training clips that ranges of 8 bits are taken from, at most
ROUNDS = 10  # of timing
PACKAGES = ("archsearch", "torch", "onnx", "onnxscript", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Wish:
    """What a model folder is to have besides the network, the program and ONNX."""

    int8: bool = False
    openvino: bool = False
    opset: int | None = None
    rounds: int = ROUNDS  # of timing; 0: not timed


@dataclass(frozen=True)
class Known:
    """What is known of a network from elsewhere."""

    accuracy: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


def write_model(
    source: Store,
    target: Store,
    wish: Wish,
    known: Known,
    card: Card,
    data: Path | None = None,
    report: Report = lambda *_: None,
    say: Say = lambda _: None,
) -> Model:
    """Writes the model folder `target` of the trained network in `source`; `card` gives MODEL.md.

    With `data` files are compared on its clips, too, and scored on `val`; `test` is not touched. Raises
    ArchsearchError where a file's scores are not torch's, RunError, DataError, MissingExtra; then nothing is written.
    """
    check_place_of(target)
    _check_wish(wish, data)
    network = _network(source)
    pack = None if data is None else _clips_of(network, data, report, say)
    files = {name: source.read(name) or b"" for name in NETWORK}
    with threads(network.recipe.threads):
        report("exporting", 0, 3, PROGRAM)
        made = _exported(network, wish, pack, report, say)
        report("exporting", 2, 3, "checking")
        compared = checks(network, made, pack)
        report("exporting", 3, 3, "")
        accuracy = {**known.accuracy, **(_accuracy(network, made, pack, report) if pack is not None else {})}
    timed = speeds(network, made, wish.rounds, lambda done, total: report("timing", done, total, ""))
    files |= made
    model = _facts(network, known, accuracy, compared, timed, files, _trained_on(source, known, data, pack))
    put_model(target, files | {MODEL: to_json(model), CARD: card(model, network.spec).encode()})
    return model


def check_place_of(target: Store) -> None:
    """Raises RunError where a model folder may not be written on this machine."""
    if "://" not in target.url:
        check_place(target.url)


def _check_wish(wish: Wish, data: Path | None) -> None:
    """Raises RunError or MissingExtra for what cannot be had, before anything long."""
    check_opset(wish.opset)
    if wish.int8 and data is None:
        raise RunError("--int8 takes its ranges from training clips: give --data")
    if wish.int8 and not _has_onnx():
        raise MissingExtra(NO_ONNX)
    if wish.openvino and find_spec("openvino") is None:
        raise MissingExtra(NO_OPENVINO)
    if wish.openvino and not _has_onnx():
        raise MissingExtra(NO_ONNX)


def _network(source: Store) -> Network:
    """The network of a folder. Raises RunError for clips cut from smaller frames than videos are read at."""
    network = read_served(source)
    side = pack_side(network.spec, network.recipe)
    if side < LEAST_SIDE:
        rule = f"clips cut from frames of {side} pixels; a model folder's have a short side of {LEAST_SIDE} or more"
        raise RunError(f"{source.url}: {network.spec.name} reads {rule}")
    return network


def _has_onnx() -> bool:
    return all(find_spec(name) is not None for name in ("onnx", "onnxscript", "onnxruntime"))


def _clips_of(network: Network, data: Path, report: Report, say: Say) -> Pack:
    """The pack of a data set. Raises DataError where its classes are others; numbers stand for any names."""
    pack = open_clips(network.spec, network.recipe, data, report, say)
    if pack.classes != network.labels:
        theirs = ", ".join(pack.classes[:5])
        raise DataError(f"{data}: has classes {theirs}, ...; the network's are {', '.join(network.labels[:5])}, ...")
    return pack


def _exported(network: Network, wish: Wish, pack: Pack | None, report: Report, say: Say) -> dict[str, bytes]:
    """Every file that computes scores, by its name."""
    program = to_program(network.module, network.sizes)
    files = {PROGRAM: to_pt2(program)}
    if not _has_onnx():
        say(f"no {ONNX}: {NO_ONNX}")
        return files
    report("exporting", 1, 3, ONNX)
    names = list(network.spec.inputs)
    files[ONNX] = to_onnx(program, names=names, opset=wish.opset)
    if wish.int8 and pack is not None:
        clips = decoded_batches(network, split_of(pack, "train"), CALIBRATION)
        files[INT8] = to_int8(files[ONNX], names, clips)
    if wish.openvino:
        files |= to_openvino(files[ONNX])
    return files


def _accuracy(network: Network, files: Mapping[str, bytes], pack: Pack, report: Report) -> dict[str, Any]:
    """What was measured on `val`, by the file that was scored."""
    calls: dict[str, Call] = {}
    if ONNX in files:
        calls["val_onnx"] = runtime_call(load_onnxruntime(files[ONNX], network.recipe.threads))
    else:
        calls["val_torch"] = torch_call(network.module)
    if INT8 in files:
        calls["val_int8"] = runtime_call(load_onnxruntime(files[INT8], network.recipe.threads))
    split, found = split_of(pack, "val"), {}
    for name, call in calls.items():
        scores = score_served(call, network, split, lambda done, total: report("scoring", done, total, ""))
        found[name] = {
            **scores.as_json(),
            "top1_interval": bootstrap_interval(scores.hits),
            "videos": len(split),
            "views": network.recipe.views,
        }
    return found


def known_accuracy(source: Store) -> dict[str, Any]:
    """What a trained folder says of its own accuracy: on `val` when it was trained, on `test` where that was scored."""
    found = dict((read_json(source, MODEL) or {}).get("accuracy", {}))
    result, tested = read_json(source, RESULT), read_json(source, "test.json")
    if isinstance(result, dict) and isinstance(result.get("metrics"), dict):
        found["val"] = {name: value for name, value in result["metrics"].items() if name != "train_loss"}
    if isinstance(tested, dict) and "hits" in tested:
        hits = np.array(tested["hits"])
        interval = bootstrap_interval(hits)
        found["test"] = {"top1": float(hits.mean()), "top1_interval": interval, "videos": len(hits), "seeds": 1}
    return found


def _trained_on(source: Store, known: Known, data: Path | None, pack: Pack | None) -> dict[str, Any]:
    """What is known of the training; `clips` were given here, and are its data set where that is known to be one."""
    if data is None or pack is None:
        return dict(known.training)
    videos = {"data": data.name, "videos": len(pack.splits.get("train", ()))}
    same = pack.digest in _digests(source)
    return {**known.training, "clips": data.name, **(videos if same else {})}


def _digests(source: Store) -> list[Any]:
    """Of the data set that a folder, or the run it lies in, was trained on."""
    found = [(read_json(source, "network.json") or {}).get("data")]
    if isinstance(source, LocalStore):
        for place in list(Path(source.url).absolute().parents)[:3]:
            run = read_json(LocalStore(str(place)), "run.json")
            found += [run["data"].get("digest")] if isinstance(run, dict) and "data" in run else []
    return [digest for digest in found if digest]


def _facts(
    network: Network,
    known: Known,
    accuracy: Mapping[str, Any],
    compared: tuple[Check, ...],
    timed: tuple[Speed, ...],
    files: Mapping[str, bytes],
    training: Mapping[str, Any],
) -> Model:
    spec = network.spec
    return Model(
        name=spec.name,
        inputs=tuple(
            Input(name=name, shape=tuple(size), holds="rgb" if size.c == RGB else "flow")
            for name, size in spec.inputs.items()
        ),
        output=Output(name=OUTPUT, kind=network.kind),
        labels=network.labels,
        sampling=_cut(network),
        cost=_cost(spec),
        accuracy=accuracy,
        latency=timed,
        files=sums(files),
        checks=compared,
        training=training,
        limits=known.limits,
        commands=known.commands,
        versions=versions(PACKAGES),
    )


def _cost(spec: Spec) -> dict[str, float]:
    """Of one clip."""
    graph = lower(spec)
    total = total_cost(graph)
    numbers = {"params": total.params, "activations": total.activations, "maps_bytes": peak_memory_bytes(graph)}
    return {"gmacs": total.macs / 1e9, **numbers}


def _cut(network: Network) -> Cut:
    spec, recipe = network.spec, network.recipe
    side, flow = pack_side(spec, recipe), any(size.c != RGB for size in network.sizes)
    return Cut(
        stride=sampling_for(spec, recipe, network.labels).stride,
        short_side=side,
        views=recipe.views,
        flow=recipe.flow if flow else None,
        flow_bound=(recipe.flow_bound or default_bound(side)) if flow else None,
    )


def export_network(
    run: str,
    out: str,
    wish: Wish,
    commands: tuple[str, ...],
    card: Card,
    data: Path | None = None,
    report: Report = lambda *_: None,
    say: Say = lambda _: None,
) -> Model:
    """Writes the model folder `out` of a trained network's folder, or of a model folder (see `write_model`)."""
    source = open_store(run)
    check_place(out)
    known = Known(known_accuracy(source), _training(source), (), commands)
    return write_model(source, open_store(out), wish, known, card, data, report, say)


def _training(source: Store) -> dict[str, Any]:
    """What a folder says of how its weights came about."""
    before = read_json(source, MODEL)
    if isinstance(before, dict):
        return dict(before.get("training", {}))
    found: dict[str, Any] = {}
    recipe, result = read_json(source, "recipe.json"), read_json(source, RESULT)
    if isinstance(result, dict):
        found |= {"epochs": result.get("epochs")}
        found |= {"seed": recipe.get("seed", 0)} if isinstance(recipe, dict) else {}
    origin = read_json(source, "origin.json")
    if isinstance(origin, dict):
        found["weights_from"] = str(origin.get("about") or origin.get("source") or "another network")
    return found
