"""One forward of a network on a device, as a call that gives its milliseconds."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import processor

import torch
from torch import Tensor, fx, nn

from archsearch.errors import ArchsearchError, MissingExtra
from archsearch.nets.export import to_onnx
from archsearch.nets.fold import folded
from archsearch.nets.runtimes import NO_ONNX, NO_OPENVINO, load_network
from archsearch.spec.graph import Size
from archsearch.spec.latency import BY_ONNX, Setting

Run = Callable[[], float]  # one forward; its milliseconds
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def runner(net: fx.GraphModule, reads: Sequence[Size], setting: Setting, lower: bool = False) -> Run:
    """A network of random input on a device; `lower`: its input has the setting's precision already.

    Raises ArchsearchError where there is no such device here, and MissingExtra without its runtime.
    """
    check_device(setting)
    dtype = DTYPES[setting.precision] if lower else torch.float32
    clips = [torch.randn(setting.batch, *size).to(dtype, memory_format=torch.channels_last_3d) for size in reads]
    if setting.device in BY_ONNX:
        return runtime_runner(onnx_model(net, reads, setting), reads, setting)
    net = folded(net).to(setting.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    forward = _forward(net, [clip.to(setting.device) for clip in clips], setting)
    return _cuda_timed(forward) if setting.device == "cuda" else _timed(forward)


def check_device(setting: Setting) -> None:
    """Raises ArchsearchError where there is no such device here."""
    if setting.device == "cuda" and not torch.cuda.is_available():
        raise ArchsearchError("device cuda: torch finds no GPU here; take cpu, onnxruntime or openvino")


def _forward(net: nn.Module, clips: list[Tensor], setting: Setting) -> Callable[[], object]:
    call = torch.compile(net) if setting.compiled else net
    dtype, enabled = DTYPES[setting.precision], setting.precision != "fp32"

    def forward() -> object:
        with torch.inference_mode(), torch.autocast(setting.device, dtype, enabled=enabled):
            return call(*clips)

    return forward


def _timed(forward: Callable[[], object]) -> Run:
    def run() -> float:
        started = time.perf_counter()
        forward()
        return 1000 * (time.perf_counter() - started)

    return run


def _cuda_timed(forward: Callable[[], object]) -> Run:
    event: Callable[..., torch.cuda.Event] = torch.cuda.Event
    start, end = event(enable_timing=True), event(enable_timing=True)

    def run() -> float:
        torch.cuda.synchronize()
        start.record()
        forward()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end))

    return run


def runtime_runner(model: bytes, reads: Sequence[Size], setting: Setting) -> Run:
    """A network in ONNX, of random input, by the runtime that the device names. Raises MissingExtra without it."""
    network = load_network(setting.device, model, setting.threads)
    clips = [torch.randn(setting.batch, *size).numpy() for size in reads]
    return _timed(lambda: network(*clips))


def onnx_model(net: nn.Module, reads: Sequence[Size], setting: Setting) -> bytes:
    """A network in ONNX for batches of this size. Raises MissingExtra without the exporter's packages."""
    return to_onnx(net.eval(), tuple(torch.randn(setting.batch, *size) for size in reads))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads for torch in a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def machine(setting: Setting) -> tuple[str, str]:
    """The processor that a setting runs on, and the software that runs there."""
    if setting.device == "cuda":
        check_device(setting)
        return torch.cuda.get_device_name(), f"torch {torch.__version__}"
    name = setting.device if setting.device in BY_ONNX else "torch"
    try:
        return _cpu_name(), f"{name} {version(name)}"
    except PackageNotFoundError:
        raise MissingExtra(NO_OPENVINO if name == "openvino" else NO_ONNX) from None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor())
