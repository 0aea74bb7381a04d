"""A network in ONNX on the CPU, by one of the runtimes that read such files. Nothing here imports torch."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from archsearch.errors import ArchsearchError, MissingExtra, RunError
from archsearch.files import shorten

NO_ONNX = "ONNX needs its packages: pip install 'archsearch[onnx]'"
NO_OPENVINO = "OpenVINO needs its package: pip install 'archsearch[openvino]'"
FLOAT = "float"
Shape = Sequence[int | str | None]  # a side that is not fixed has a name, or none


@dataclass(frozen=True)
class Port:
    """What a network takes or gives: its shape and the type of its numbers."""

    shape: Shape
    dtype: str


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network that is ready: inputs and outputs by name, and a forward of arrays by the names of inputs.

    Several threads may run it at once.
    """

    takes: Mapping[str, Port]
    gives: Mapping[str, Port]
    run: Callable[[Mapping[str, np.ndarray]], Sequence[np.ndarray]]

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        """The first output of arrays in the order of the inputs."""
        return self.run(dict(zip(self.takes, arrays, strict=True)))[0]


def load_onnxruntime(model: bytes, threads: int) -> Loaded:
    """By ONNX Runtime, on so many threads or (0) as many as it likes. Raises MissingExtra, RunError for no network."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra(NO_ONNX) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # a fault is told by what is raised
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as fault:  # its errors have no common class
        raise RunError(f"no network that ONNX Runtime can run ({_reason(fault)})") from None
    takes, gives = (
        {port.name: Port(port.shape, port.type.removeprefix("tensor(").removesuffix(")")) for port in ports}
        for ports in (session.get_inputs(), session.get_outputs())
    )
    return Loaded(takes, gives, lambda given: session.run(None, dict(given)))


def load_openvino(model: bytes, threads: int, weights: bytes = b"") -> Loaded:
    """By OpenVINO in float32: ONNX, or its own form with its weights. `threads`, errors: see `load_onnxruntime`."""
    try:
        openvino: Any = import_module("openvino")
    except ImportError:
        raise MissingExtra(NO_OPENVINO) from None
    hints = {"INFERENCE_PRECISION_HINT": "f32"} | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
    core = openvino.Core()
    try:
        compiled = core.compile_model(core.read_model(model, weights), "CPU", hints)
    except Exception as fault:
        raise RunError(f"no network that OpenVINO can run ({_reason(fault)})") from None
    takes, gives = (
        {port.any_name: Port(_sides(port.partial_shape), _plain(port.element_type)) for port in ports}
        for ports in (compiled.inputs, compiled.outputs)
    )
    requests = threading.local()  # one of them answers one thread at a time

    def run(given: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        if not hasattr(requests, "own"):
            requests.own = compiled.create_infer_request()
        return list(requests.own.infer(dict(given)).values())

    return Loaded(takes, gives, run)


RUNTIMES: Mapping[str, Callable[[bytes, int], Loaded]] = {"onnxruntime": load_onnxruntime, "openvino": load_openvino}


def load_network(runtime: str, model: bytes, threads: int) -> Loaded:
    """A network in ONNX by the runtime of that name. Raises ArchsearchError."""
    if runtime not in RUNTIMES:
        raise ArchsearchError(f"runtime {runtime}: should be one of {', '.join(RUNTIMES)}")
    return RUNTIMES[runtime](model, threads)


def _sides(shape: Any) -> Shape:
    return [None if side.is_dynamic else side.get_length() for side in shape]


def _plain(element_type: Any) -> str:
    name: str = element_type.get_type_name()
    return FLOAT if name == "f32" else name


def _reason(fault: Exception) -> str:
    return shorten(" ".join(str(fault).split()), 200)[1:-1]
