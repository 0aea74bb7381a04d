"""Networks for other programs: one function of pixels to scores, as a torch.export program, ONNX or OpenVINO.

`served` puts normalisation before a network and softmax or sigmoid behind it; what it gives is exported for any batch,
and compared with what it was made of before anybody keeps it.
"""

import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from archsearch.errors import ArchsearchError, MissingExtra, RunError
from archsearch.nets.runtimes import NO_ONNX, NO_OPENVINO, Loaded
from archsearch.spec.graph import Size

OUTPUT, BATCH = "scores", "batch"
TRACED = 2  # clips of the batch that is traced: of one, torch takes the batch for a constant
TOLERANCE = 1e-4  # of scores, which are from 0 to 1
LEAST_OPSET = 18  # of the exporter's own operators
Kind = Literal["softmax", "sigmoid"]
Clips = tuple[Tensor, ...]
Call = Callable[[Clips], np.ndarray]  # batches of every input, to scores (N, classes)


class Scaling(NamedTuple):
    """How an input is normalised, channel by channel: (x - mean) / std."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Difference:
    """The largest difference of two ways to the same scores, alone and as a share of the largest score."""

    absolute: float
    relative: float


class Normalise(nn.Module):
    """(x - mean) / std of each channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, scaling: Scaling) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(scaling.mean).view(1, -1, 1, 1, 1))
        self.register_buffer("std", torch.tensor(scaling.std).view(1, -1, 1, 1, 1))

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        """The same shape."""
        return (x_NCTHW - self.mean) / self.std


def served(net: nn.Module, scalings: Mapping[str, Scaling], kind: Kind) -> fx.GraphModule:
    """A network as its users call it: a batch of each input as it was decoded, to scores (N, classes)."""
    root, traced = nn.Module(), fx.Graph()
    root.add_module("net", net.cpu().float().requires_grad_(False))
    root.add_module("output", nn.Softmax(1) if kind == "softmax" else nn.Sigmoid())
    given = [traced.placeholder(name, type_expr=Tensor) for name in scalings]
    clips = []
    for place, (scaling, x) in enumerate(zip(scalings.values(), given, strict=True)):
        root.add_module(f"normalise{place}", Normalise(scaling))
        clips.append(traced.call_module(f"normalise{place}", (x,)))
    traced.output(traced.call_module("output", (traced.call_module("net", tuple(clips)),)))
    return fx.GraphModule(root, traced, class_name="Served").eval()


def random_clips(sizes: Sequence[Size], batch: int, seed: int = 0) -> Clips:
    """Bytes as floats, 0 ... 255, for each input: (N, C, T, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, 256, (batch, *size), generator=generator).float() for size in sizes)


def to_program(module: nn.Module, sizes: Sequence[Size]) -> ExportedProgram:
    """A module of one batch for each input as a torch.export program for any number of clips.

    Raises RunError where torch cannot export it.
    """
    batch = Dim(BATCH, min=1)
    clips = random_clips(sizes, TRACED)
    try:
        with quiet():
            program = torch.export.export(module.eval(), clips, dynamic_shapes=tuple({0: batch} for _ in clips))
    except Exception as error:  # the exporter raises what its many parts do
        raise RunError(f"torch cannot export the network: {_first_line(error)}") from None
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # folders of the machine that exports
    return program


def to_pt2(program: ExportedProgram) -> bytes:
    """A program as a file that torch.export.load reads."""
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(program, buffer)
    return buffer.getvalue()


def to_onnx(
    source: ExportedProgram | nn.Module,
    clips: Clips = (),
    names: Sequence[str] | None = None,
    opset: int | None = None,
) -> bytes:
    """A program, or a module for batches of just the size of `clips`, in ONNX.

    Raises MissingExtra without the exporter's packages, RunError for an opset that it does not write.
    """
    if find_spec("onnxscript") is None or find_spec("onnx") is None:
        raise MissingExtra(NO_ONNX)
    check_opset(opset)
    options: dict[str, Any] = {} if names is None else {"input_names": list(names), "output_names": [OUTPUT]}
    try:
        with quiet():
            made = torch.onnx.export(source, clips, dynamo=True, verbose=False, opset_version=opset, **options)
    except (torch.onnx.errors.OnnxExporterError, ValueError) as error:
        raise RunError(f"torch cannot write the network as ONNX: {_first_line(error)}") from None
    assert made is not None
    proto = made.model_proto
    for node in proto.graph.node:
        del node.metadata_props[:]  # names folders of the machine that exports
    for value in (*proto.graph.input, *proto.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:  # a symbol of torch's own
                size.dim_param = BATCH
    model: bytes = proto.SerializeToString()
    return model


def check_opset(opset: int | None) -> None:
    """Raises RunError for an opset that torch does not write."""
    if opset is not None and opset < LEAST_OPSET:
        raise RunError(f"opset {opset}: torch writes {LEAST_OPSET} and later")


@contextmanager
def quiet() -> Iterator[None]:
    """The exporter warns of what its users cannot change."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def torch_call(module: Callable[..., Tensor]) -> Call:
    """A module or a program's module, in float32 on the CPU."""

    def call(clips: Clips) -> np.ndarray:
        with torch.no_grad():
            scores: np.ndarray = module(*clips).numpy()
        return scores

    return call


def runtime_call(network: Loaded) -> Call:
    """A network that a runtime has loaded."""
    return lambda clips: network(*(clip.numpy() for clip in clips))


def to_openvino(model: bytes) -> dict[str, bytes]:
    """A model in ONNX as OpenVINO's pair of files. Raises MissingExtra where it is not installed."""
    try:
        openvino = import_module("openvino")
    except ImportError:
        raise MissingExtra(NO_OPENVINO) from None
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source.onnx")
        source.write_bytes(model)
        openvino.save_model(openvino.convert_model(source), Path(folder, "model.xml"), compress_to_fp16=False)
        return {name: Path(folder, name).read_bytes() for name in ("model.xml", "model.bin")}


def difference(wanted: np.ndarray, found: np.ndarray) -> Difference:
    """How far scores are from those wanted; infinite where shapes differ or anything is not finite."""
    if wanted.shape != found.shape or not np.isfinite(wanted).all() or not np.isfinite(found).all():
        return Difference(float("inf"), float("inf"))
    absolute = float(np.abs(wanted - found).max())
    return Difference(absolute, absolute / max(float(np.abs(wanted).max()), 1e-12))


def checked(name: str, wanted: Call, found: Call, batches: Sequence[Clips]) -> Difference:
    """The largest difference over some batches. Raises ArchsearchError where it is not below TOLERANCE."""
    differences = [difference(wanted(clips), found(clips)) for clips in batches]
    worst = max(differences, key=lambda each: each.absolute)
    if not worst.absolute < TOLERANCE:
        raise ArchsearchError(
            f"{name}: its scores are off by {worst.absolute:.2g} of what torch gives, {TOLERANCE:g} or more"
        )
    return worst


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
