"""A network in ONNX with what its model.json says of it, read without torch."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field

from archsearch.errors import MissingExtra, RunError
from archsearch.files import Record, read_record, shorten
from archsearch.store import open_store, read_json
from archsearch.video.flow import Method

VERSION = 1
MODEL, ONNX, LABELS = "model.json", "model.onnx", "labels.txt"
FLOAT = "tensor(float)"
Count = Annotated[int, Field(ge=1)]


class Part(Record):
    """A record of which only some fields are read."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Input(Part):
    """An input of the network: a clip's [C, T, H, W] in pixels of `range`."""

    name: str
    shape: tuple[Count, Count, Count, Count]
    range: tuple[float, float] = (0.0, 255.0)


class Output(Part):
    """Scores (batch, classes), which sum to 1 (softmax) or are each for itself (sigmoid)."""

    name: str
    kind: Literal["softmax", "sigmoid"]


class Cut(Part):
    """How clips are cut from a video."""

    stride: Count | Literal["spread"]
    short_side: Annotated[int, Field(ge=8)]
    views: Count = 1
    flow: Method | None = None
    flow_bound: Annotated[float, Field(gt=0)] | None = None


class Facts(Part):
    """What is read of model.json."""

    version: Literal[1]
    inputs: Annotated[tuple[Input, ...], Field(min_length=1)]
    output: Output
    labels: Annotated[tuple[str, ...], Field(min_length=1)]
    sampling: Cut
    files: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Onnx:
    """A session of ONNX Runtime, and its facts. `channels` are those of each input."""

    facts: Facts
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
    try:
        content = file.read_bytes()
    except OSError as fault:
        reason = fault.strerror or fault
        raise RunError(f"{file}: cannot be read ({reason}); `archsearch export` writes one") from None
    known = facts.files.get(file.name)
    told = known.get("sha256") if isinstance(known, dict) else None
    if told is not None and told != hashlib.sha256(content).hexdigest():
        raise RunError(f"{file}: is not the file that {MODEL} was written with (sha256 differs); export it again")
    found = Onnx(facts, _session(file, threads))
    _check(file, found)
    return found


def _facts(folder: Path) -> Facts:
    store, place = open_store(str(folder)), str(folder / MODEL)
    data = read_json(store, MODEL)
    if data is None:
        raise RunError(f"{folder}: has no {MODEL} beside the ONNX file; `archsearch export` writes both")
    if isinstance(data, dict) and data.get("version") != VERSION:
        raise RunError(f"{place}: is of version {shorten(data.get('version'))}; this reads version {VERSION}")
    faults: list[str] = []
    facts = read_record(Facts, data, place, faults)
    if facts is None:
        raise RunError(*faults)
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
