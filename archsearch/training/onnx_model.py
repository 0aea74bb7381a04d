"""A network in ONNX with what its model.json says of it, read without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archsearch.errors import RunError
from archsearch.nets.runtimes import FLOAT, Loaded, load_network
from archsearch.store import open_store
from archsearch.training.model_json import LABELS, MODEL, ONNX, Model, fits, read_facts


@dataclass(frozen=True, eq=False)
class Onnx:
    """A network that a runtime has loaded, and its facts."""

    facts: Model
    network: Loaded

    @property
    def channels(self) -> tuple[int, ...]:
        """The channels of each input."""
        return tuple(given.shape[0] for given in self.facts.inputs)

    def scores(self, clips_NTHWC: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes) of uint8 clips, the channels of all inputs behind each other."""
        clips = np.ascontiguousarray(clips_NTHWC.transpose(0, 4, 1, 2, 3), np.float32)
        parts = np.split(clips, np.cumsum(self.channels)[:-1], axis=1)
        feeds = {given.name: np.ascontiguousarray(part) for given, part in zip(self.facts.inputs, parts, strict=True)}
        place = list(self.network.gives).index(self.facts.output.name)
        return np.asarray(self.network.run(feeds)[place], np.float64)


def read_onnx(place: str, runtime: str = "onnxruntime") -> Onnx:
    """The network of a folder's model.onnx, or of a path to a .onnx file with its model.json and labels.txt beside.

    Raises RunError for what is missing, unreadable or of another network, MissingExtra without the runtime.
    """
    if "://" in place:
        raise RunError(f"{place}: ONNX is read from a folder of this machine; copy it")
    file = Path(place) if place.endswith(".onnx") else Path(place, ONNX)
    facts = _facts(file.parent)
    content = open_store(str(file.parent)).read(file.name)
    if content is None:
        raise RunError(f"{file}: is missing; `archsearch export` writes one")
    known = facts.files.get(file.name)
    if known is not None and not fits(known, content):
        raise RunError(f"{file}: is not the file that {MODEL} was written with (sha256 differs); export it again")
    try:
        found = Onnx(facts, load_network(runtime, content, threads=0))
    except RunError as fault:
        raise RunError(f"{file}: {fault.lines[0]}") from None
    _check(file, found)
    return found


def _facts(folder: Path) -> Model:
    store, place = open_store(str(folder)), str(folder / MODEL)
    facts = read_facts(store)
    if facts is None:
        raise RunError(f"{folder}: has no {MODEL} beside the ONNX file; `archsearch export` writes both")
    labels = store.read(LABELS)
    if labels is not None and tuple(labels.decode(errors="replace").splitlines()) != facts.labels:
        raise RunError(f"{place}: names other labels than {LABELS}")
    if len({given.shape[1:] for given in facts.inputs}) > 1:
        raise RunError(f"{place}: its inputs differ in frames, height or width; one clip does not")
    return facts


def _check(file: Path, found: Onnx) -> None:
    """Raises RunError where the graph takes or gives other things than model.json says."""
    facts = found.facts
    wanted = {given.name: list(given.shape) for given in facts.inputs}
    takes = {name: list(port.shape[1:]) for name, port in found.network.takes.items()}
    if takes != wanted or any(port.dtype != FLOAT for port in found.network.takes.values()):
        raise RunError(f"{file}: takes {_told(takes)}; {MODEL} says {_told(wanted)} of floats: another network's file")
    gives = {name: list(port.shape[1:]) for name, port in found.network.gives.items()}
    if gives.get(facts.output.name) != [len(facts.labels)]:
        rule = f"{facts.output.name} {[len(facts.labels)]}, a score for each label"
        raise RunError(f"{file}: gives {_told(gives)}; {MODEL} says {rule}: another network's file")
    if any(given.range != (0, 255) for given in facts.inputs):
        raise RunError(f"{file}: {MODEL} wants pixels of another range than 0 to 255; export it again")


def _told(shapes: dict[str, list[Any]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())
