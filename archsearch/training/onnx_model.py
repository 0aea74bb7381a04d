"""A network in ONNX with what its model.json says of it, read without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archsearch.errors import MissingExtra, RunError
from archsearch.files import shorten
from archsearch.store import open_store
from archsearch.training.model_json import LABELS, MODEL, ONNX, Model, fits, read_facts

FLOAT = "tensor(float)"


@dataclass(frozen=True, eq=False)
class Onnx:
    """A session of ONNX Runtime, and its facts. `channels` are those of each input."""

    facts: Model
    session: Any

    @property
    def channels(self) -> tuple[int, ...]:
        """The channels of each input."""
        return tuple(given.shape[0] for given in self.facts.inputs)

    def scores(self, clips_NTHWC: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes) of uint8 clips, the channels of all inputs behind each other."""
        clips = np.ascontiguousarray(clips_NTHWC.transpose(0, 4, 1, 2, 3), np.float32)
        parts = np.split(clips, np.cumsum(self.channels)[:-1], axis=1)
        feeds = {given.name: np.ascontiguousarray(part) for given, part in zip(self.facts.inputs, parts, strict=True)}
        (found,) = self.session.run([self.facts.output.name], feeds)
        return np.asarray(found, np.float64)


def read_onnx(place: str, threads: int = 0) -> Onnx:
    """The network of a folder's model.onnx, or of a path to a .onnx file with its model.json and labels.txt beside.

    `threads` as ONNX Runtime takes them, 0 for its own choice. Raises RunError for what is missing, unreadable or of
    another network, MissingExtra without ONNX Runtime.
    """
    if "://" in place:
        raise RunError(f"{place}: --runtime onnx reads a folder of this machine; copy it")
    file = Path(place) if place.endswith(".onnx") else Path(place, ONNX)
    facts = _facts(file.parent)
    content = open_store(str(file.parent)).read(file.name)
    if content is None:
        raise RunError(f"{file}: is missing; `archsearch export` writes one")
    known = facts.files.get(file.name)
    if known is not None and not fits(known, content):
        raise RunError(f"{file}: is not the file that {MODEL} was written with (sha256 differs); export it again")
    found = Onnx(facts, _session(file, threads))
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


def _session(file: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("--runtime onnx needs ONNX Runtime: pip install 'archsearch[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # a fault is told by what is raised
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as fault:
        reason = shorten(" ".join(str(fault).split()), 200)[1:-1]
        raise RunError(f"{file}: no network that ONNX Runtime can run ({reason})") from None


def _check(file: Path, found: Onnx) -> None:
    """Raises RunError where the graph takes or gives other things than model.json says."""
    facts = found.facts
    wanted = {given.name: list(given.shape) for given in facts.inputs}
    takes = {given.name: list(given.shape[1:]) for given in found.session.get_inputs()}
    if takes != wanted or any(given.type != FLOAT for given in found.session.get_inputs()):
        raise RunError(f"{file}: takes {_told(takes)}; {MODEL} says {_told(wanted)} of floats: another network's file")
    gives = {given.name: list(given.shape[1:]) for given in found.session.get_outputs()}
    if gives.get(facts.output.name) != [len(facts.labels)]:
        rule = f"{facts.output.name} {[len(facts.labels)]}, a score for each label"
        raise RunError(f"{file}: gives {_told(gives)}; {MODEL} says {rule}: another network's file")
    if any(given.range != (0, 255) for given in facts.inputs):
        raise RunError(f"{file}: {MODEL} wants pixels of another range than 0 to 255; export it again")


def _told(shapes: dict[str, list[Any]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())
