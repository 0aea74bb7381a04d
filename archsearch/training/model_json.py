"""What model.json says of a model folder, and the names of its files; read without torch."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from archsearch.errors import RunError
from archsearch.files import Record, read_record, shorten
from archsearch.store import Store, read_json
from archsearch.video.flow import Method

VERSION: Literal[1] = 1  # of model.json's form
MODEL, CARD, LABELS = "model.json", "MODEL.md", "labels.txt"
ONNX, INT8, PROGRAM = "model.onnx", "model_int8.onnx", "model.pt2"
LEAST_SIDE = 8  # pixels of a frame's short side, as in recipes

Count = Annotated[int, Field(ge=1)]
Span = Annotated[int, Field(ge=1, le=100_000)]  # frames, views, pixels: more is a damaged file
NonNegative = Annotated[float, Field(ge=0)]


class Input(Record):
    """What one input of the network takes: `shape` is [C, T, H, W] of a clip, batches come before it."""

    name: str
    shape: tuple[Span, Span, Span, Span]
    dtype: Literal["float32"] = "float32"
    range: tuple[float, float] = (0.0, 255.0)
    layout: Literal["NCTHW"] = "NCTHW"
    holds: Literal["rgb", "flow"] = "rgb"


class Output(Record):
    """What comes out: scores (batch, classes), which sum to 1 or are each for itself."""

    name: str
    kind: Literal["softmax", "sigmoid"]


class Cut(Record):
    """How a video becomes clips: frames at a short side, `stride` apart, so many evenly spaced clips a video."""

    stride: Span | Literal["spread"]
    short_side: Annotated[int, Field(ge=LEAST_SIDE, le=100_000)]
    views: Span
    flow: Method | None = None  # the method, where an input holds flow
    flow_bound: Annotated[float, Field(gt=0)] | None = None  # pixels at the short side that 127 steps stand for


class Check(Record):
    """The largest difference of a file's scores from torch's, alone and as a share of the largest score."""

    file: str
    clips: str
    difference: NonNegative
    relative: NonNegative


class Speed(Record):
    """One forward as it was measured; `load` is the machine's load average then."""

    file: str
    device: str
    processor: str
    software: str
    batch: Count
    threads: Count
    median_ms: NonNegative
    p95_ms: NonNegative
    best_ms: NonNegative
    load: NonNegative
    memory_bytes: int | None = None  # that a forward needs beyond the library, at most


class Sum(Record):
    """A file of the folder."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Model(Record):
    """What model.json says."""

    version: Literal[1] = VERSION
    name: str
    inputs: Annotated[tuple[Input, ...], Field(min_length=1)]
    output: Output
    labels: Annotated[tuple[str, ...], Field(min_length=1)]
    sampling: Cut
    cost: Mapping[str, float]
    accuracy: Mapping[str, Any]
    latency: tuple[Speed, ...]
    files: Mapping[str, Sum]
    checks: tuple[Check, ...]
    training: Mapping[str, Any]
    limits: tuple[str, ...]
    commands: tuple[str, ...]
    versions: Mapping[str, str]


def read_facts(store: Store) -> Model | None:
    """What a folder's model.json says, or None where there is none. Raises RunError for another version, or faults."""
    facts, place = read_json(store, MODEL, "export the model again"), f"{store.url}/{MODEL}"
    if facts is None:
        return None
    if isinstance(facts, dict) and facts.get("version") != VERSION:
        raise RunError(f"{place}: is of version {shorten(facts.get('version'))}; this reads version {VERSION}")
    faults: list[str] = []
    model = read_record(Model, facts, place, faults)
    if model is None:
        raise RunError(*faults)
    return model


def fits(told: Sum, content: bytes) -> bool:
    """Whether a file with this content is the one that is told of."""
    return len(content) == told.bytes and hashlib.sha256(content).hexdigest() == told.sha256


def sums(files: Mapping[str, bytes]) -> dict[str, Sum]:
    """Sizes and digests of files."""
    return {
        name: Sum(bytes=len(content), sha256=hashlib.sha256(content).hexdigest()) for name, content in files.items()
    }


def to_json(model: Model) -> bytes:
    """model.json's content."""
    return (json.dumps(model.model_dump(mode="json"), indent=1) + "\n").encode()
