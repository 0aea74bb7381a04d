"""Latency measured: networks run in turn, so that a slow minute of the machine hits all of them alike."""

import gc
import multiprocessing
import os
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from archsearch.errors import ArchsearchError, SpecError
from archsearch.files import parse_yaml
from archsearch.nets.build import build
from archsearch.nets.processes import main_hidden
from archsearch.nets.runners import Run, check_device, onnx_model, runner, runtime_runner, threads
from archsearch.spec.latency import BY_ONNX, Setting
from archsearch.spec.spec import Spec, parse_spec, spec_yaml

WARM_UP = 3  # runs of each network that are not counted: caches, lazy kernels, compilation
Report = Callable[[int, int], None]  # runs done, of how many


@dataclass(frozen=True)
class Latency:
    """One forward of a batch: median and 95th percentile of single runs, and the least disturbed one."""

    median_ms: float
    p95_ms: float
    best_ms: float
    spread: float  # the middle half of the runs, as a share of the median
    throughput: float  # clips a second
    load: float  # of the machine: how many processes wanted a processor in the last minute


def measure(
    specs: Mapping[str, Spec], setting: Setting, rounds: int = 30, report: Report = lambda *_: None
) -> dict[str, Latency]:
    """The latency of freshly initialised networks in inference; every round runs each of them once.

    Raises ArchsearchError where there is no such device here, MissingExtra without the package of one.
    """
    with threads(setting.threads):
        runs = {name: runner(build(spec, seed=0), [*spec.inputs.values()], setting) for name, spec in specs.items()}
        times = interleaved(runs, rounds, report)
    return {name: summary(ms, setting.batch, load()) for name, ms in times.items()}


def interleaved(runs: Mapping[str, Run], rounds: int, report: Report = lambda *_: None) -> dict[str, list[float]]:
    """Milliseconds of so many runs of each, a run of every one in each round, after the warm-up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    total = WARM_UP + rounds
    with _no_garbage():
        for number in range(total):
            for name, run in runs.items():
                ms = run()
                if number >= WARM_UP:
                    times[name].append(ms)
            report(number + 1, total)
    return times


def summary(times_ms: Sequence[float], batch: int, load: float) -> Latency:
    """Statistics of single runs of a batch."""
    best, low, median, high, p95 = (float(value) for value in np.quantile(times_ms, [0, 0.25, 0.5, 0.75, 0.95]))
    return Latency(median, p95, best, (high - low) / median, 1000 * batch / median, load)


def load() -> float:
    """The machine's load average of the last minute; this process counts in it."""
    return round(os.getloadavg()[0], 2)


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Collected before, not in the middle of a run."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def peak_memory_bytes(spec: Spec, setting: Setting) -> int:
    """What a network and a forward of a batch need beyond the library itself: weights, maps, workspace; not compiled.

    On CPU of a process of its own, by how much its resident set has grown at most; on CUDA what torch has allocated.
    Raises ArchsearchError where that process dies.
    """
    setting = setting.model_copy(update={"compiled": False})
    if setting.device == "cuda":
        check_device(setting)
        return _cuda_peak(spec, setting)
    exported = setting.device in BY_ONNX
    model = onnx_model(build(spec, seed=0), [*spec.inputs.values()], setting) if exported else None
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", __name__])
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_grow, args=(spec_yaml(spec), setting.model_dump_json(), model, writer))
    with main_hidden():
        process.start()
    writer.close()
    try:
        answer: int | tuple[str, ...] = reader.recv()
    except EOFError:
        process.join()
        raise ArchsearchError(f"{spec.name}: the process died that measures its memory ({process.exitcode})") from None
    process.join()
    if not isinstance(answer, int):
        raise ArchsearchError(*answer)
    return answer


def _cuda_peak(spec: Spec, setting: Setting) -> int:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    runner(build(spec, seed=0), [*spec.inputs.values()], setting)()
    return torch.cuda.max_memory_allocated() - before


def _grow(spec_text: str, setting_text: str, model: bytes | None, writer: Any) -> None:
    """In the process of its own: sends bytes, or the lines of an error."""
    setting = Setting.model_validate_json(setting_text)
    spec = parse_spec(parse_yaml(spec_text, "network", SpecError), "network")
    reads = [*spec.inputs.values()]
    torch.conv3d(torch.randn(1, 1, 1, 1, 1), torch.randn(1, 1, 1, 1, 1))  # the library's own code, loaded before
    before = _most_resident()
    try:
        with threads(setting.threads):
            run = runtime_runner(model, reads, setting) if model else runner(build(spec, seed=0), reads, setting)
            run()
    except ArchsearchError as error:
        writer.send(error.lines)
    else:
        writer.send(_most_resident() - before)


def _most_resident() -> int:
    """Bytes of the largest resident set so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
