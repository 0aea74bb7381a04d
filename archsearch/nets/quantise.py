"""Networks in 8-bit whole numbers: ONNX Runtime's static quantisation, its ranges taken from clips."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from archsearch.errors import MissingExtra
from archsearch.nets.export import Clips, quiet
from archsearch.nets.runtimes import NO_ONNX

COMPUTES = ("Conv", "Gemm", "MatMul")  # quantised; the rest moves little and loses accuracy


def to_int8(model: bytes, names: Sequence[str], batches: Iterable[Clips]) -> bytes:
    """A model in ONNX with 8-bit weights of each output channel, and 8-bit maps in ranges met on `batches` (QDQ).

    Raises MissingExtra without ONNX Runtime.
    """
    try:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError:
        raise MissingExtra(NO_ONNX) from None

    with tempfile.TemporaryDirectory() as folder, quiet():
        given, plain, made = (Path(folder, f"{name}.onnx") for name in ("given", "plain", "made"))
        given.write_bytes(model)
        quant_pre_process(given, plain, skip_symbolic_shape=True)
        quantize_static(
            plain,
            made,
            _reader(CalibrationDataReader, names, batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(COMPUTES),
            per_channel=True,
            reduce_range=True,  # without VNNI, sums of two products of 8 bits do not fit
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return made.read_bytes()


def _reader(base: type, names: Sequence[str], batches: Iterable[Clips]) -> Any:
    """What ONNX Runtime takes one batch after another from."""
    left: Iterator[Clips] = iter(batches)

    def get_next(_: Any) -> dict[str, Any] | None:
        clips = next(left, None)
        return None if clips is None else {name: clip.numpy() for name, clip in zip(names, clips, strict=True)}

    return type("Reader", (base,), {"get_next": get_next})()
