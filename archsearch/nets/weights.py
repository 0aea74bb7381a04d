"""Weights that exist: state dicts of other projects in and out, every tensor placed by name and shape.

Files are read without executing anything: safetensors, or torch's format with `weights_only`.
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from archsearch.errors import WeightsError
from archsearch.files import near_or_all, write_whole
from archsearch.nets.build import build
from archsearch.nets.dialects import DIALECTS, Dialect
from archsearch.spec.basic import HeadStage
from archsearch.spec.presets import PRESETS, preset
from archsearch.spec.spec import Spec, lower, with_classes
from archsearch.spec.tensors import COUNTER, Shape, tensor_shapes

WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model")  # a checkpoint's key that holds the tensors
PREFIXES = ("module.", "_orig_mod.", "model.")
SHOWN = 4  # names in one line
State = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """How a dialect keeps one network: their name -> (our name, their shape), in our order."""

    dialect: Dialect
    spec: Spec  # with the dialect's norm and padding
    places: Mapping[str, tuple[str, Shape]]

    def missing(self, state: Mapping[str, Shape]) -> list[str]:
        """Their names that a file lacks; batch counters may be missing (files older than them)."""
        return [name for name in self.places if name not in state and not name.endswith(COUNTER)]

    def left_over(self, state: Mapping[str, Shape]) -> list[str]:
        """Names of a file that have no place."""
        return [name for name in state if name not in self.places]

    def agreement(self, state: Mapping[str, Shape]) -> float:
        """The share of tensors, of file and network together, that fit by name and shape."""
        fit = sum(self.places[name][1] == shape for name, shape in state.items() if name in self.places)
        return fit / max(1, len(self.places.keys() | state.keys()))


@dataclass(frozen=True)
class Imported:
    """A network with weights from a file, and what was noticed."""

    spec: Spec
    state: State  # by our names
    dialect: Dialect
    placed: int  # tensors that are the file's; the others are fresh
    remarks: tuple[str, ...]


def import_weights(
    path: Path, spec: Spec, *, dialect: str | None = None, classes: int | None = None, partial: bool = False
) -> Imported:
    """The weights of a file, placed in the network of `spec`.

    The dialect is detected unless named. What is missing, left over or of another shape is an error unless `partial`:
    then it stays as freshly initialised. A classifier of another size stays as the file has it, or is replaced by a
    fresh one where `classes` asks for it. Raises WeightsError, one line for each fault.
    """
    state, remarks = read_state(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    layout = _detect(path, spec, shapes, dialect, partial)
    head = next((theirs for theirs, (ours, _) in layout.places.items() if ours == "head.linear.weight"), None)
    if head in state and len(shapes[head]) == len(layout.places[head][1]):
        layout = layout_of(layout.dialect, with_classes(layout.spec, shapes[head][0]))
    faults = _faults(path, layout, shapes)
    if faults and not partial:
        other, about, share = looks_like(shapes)
        hint = (f"{path}: it fits {other} ({about})",) if share == 1 else ()
        raise WeightsError(*faults, *hint)
    placed = {ours: state[name] for name, (ours, shape) in layout.places.items() if shapes.get(name) == shape}
    whole = classes is None or classes == layout.spec.classes
    if not whole:
        remarks.append(f"classifier: {layout.spec.classes} classes in the file; a fresh one for {classes}")
        placed = {name: tensor for name, tensor in placed.items() if not name.startswith("head.linear.")}
    elif layout.spec.classes != spec.classes:
        remarks.append(f"classifier: {layout.spec.classes} classes, as in the file")
    final = layout.spec if whole else with_classes(layout.spec, classes or 0)
    return Imported(final, _complete(final, placed), layout.dialect, len(placed), (*remarks, *faults))


def export_weights(spec: Spec, state: State, dialect: str) -> State:
    """The same weights under another project's names and shapes. Raises WeightsError where it has no such network."""
    found = [known for known in DIALECTS if known.name == dialect]
    if not found:
        names = list(dict.fromkeys(known.name for known in DIALECTS))
        raise WeightsError(f"there is no dialect '{dialect}'{near_or_all(dialect, names)}")
    layouts = [layout for known in found if (layout := _layout(known, spec)) is not None]
    if not layouts:
        raise WeightsError(f"{spec.name}: {dialect} has no network of this kind")
    kept = layouts[0].dialect
    return {
        theirs: state[ours].reshape(shape).contiguous().clone()
        for theirs, (ours, shape) in layout_of(kept, spec).places.items()
    }


def read_state(path: Path) -> tuple[State, list[str]]:
    """The tensors of a file, unwrapped and without prefixes, and what was noticed. Raises WeightsError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}") from None
    if not content:
        raise WeightsError(f"{path}: the file is empty")
    data = _parse(path, content)
    remarks = []
    wrapper = next((key for key in WRAPPERS if isinstance(data.get(key), Mapping)), None)
    if wrapper is not None:
        data, others = data[wrapper], [key for key in data if key != wrapper]
        remarks.append(f"read from '{wrapper}'" + (f"; left alone: {_some(others)}" if others else ""))
    others = [str(name) for name, value in data.items() if not isinstance(value, Tensor)]
    if others or not data:
        raise WeightsError(f"{path}: holds no state dict: {_some(others) or 'nothing'} is no tensor")
    state = {str(name): tensor for name, tensor in data.items()}
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
            remarks.append(f"prefix '{prefix}' taken off")
    return _as_floats(path, state, remarks), remarks


def write_state(path: Path, state: State) -> None:
    """Writes a state dict whole: safetensors, or torch's format where the name ends in .pt or .pth."""
    if path.suffix in (".pt", ".pth"):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_whole(path, buffer.getvalue())
    elif path.suffix == ".safetensors":
        write_whole(path, save_tensors(state))
    else:
        raise WeightsError(f"{path}: the name should end in .safetensors, .pt or .pth")


def layout_of(dialect: Dialect, spec: Spec) -> Layout:
    """How a dialect keeps a network that it has. Raises WeightsError for a part that it has no name for."""
    spec = spec.model_copy(update={"norm": dialect.norm, "padding": dialect.padding})
    rename = dialect.rename(spec)
    places: dict[str, tuple[str, Shape]] = {}
    for ours, shape in tensor_shapes(lower(spec)).items():
        module, _, leaf = ours.rpartition(".")
        theirs = rename(module)
        if theirs is None:
            raise WeightsError(f"{spec.name}: {dialect.about} has no counterpart of {module}")
        conv = leaf == "weight" and re.fullmatch(dialect.convolutions, module) is not None
        places[f"{theirs}.{leaf}"] = (ours, (*shape, 1, 1, 1) if conv else shape)
    return Layout(dialect, spec, places)


def looks_like(state: Mapping[str, Shape]) -> tuple[str, str, float]:
    """The preset and dialect whose tensors a file's are most like, and the share that fit."""
    best = ("", "", 0.0)
    for name in PRESETS:
        for layout in _layouts(preset(name)):
            share = layout.agreement(state)
            best = max(best, (name, layout.dialect.about, share), key=lambda found: found[2])
    return best


def _layout(dialect: Dialect, spec: Spec) -> Layout | None:
    if not isinstance(spec.stages[-1], HeadStage) or not dialect.fits(spec):
        return None
    try:
        return layout_of(dialect, spec)
    except WeightsError:
        return None


def _layouts(spec: Spec) -> Iterator[Layout]:
    yield from (layout for dialect in DIALECTS if (layout := _layout(dialect, spec)) is not None)


def _detect(path: Path, spec: Spec, shapes: Mapping[str, Shape], name: str | None, partial: bool) -> Layout:
    """The layout that agrees best with a file."""
    layouts = list(_layouts(spec))
    if name is not None:
        known = list(dict.fromkeys(dialect.name for dialect in DIALECTS))
        if name not in known:
            raise WeightsError(f"there is no dialect '{name}'{near_or_all(name, known)}")
        layouts = [layout for dialect in DIALECTS if dialect.name == name and (layout := _forced(dialect, spec))]
    if not layouts:
        raise WeightsError(f"{spec.name}: no known project has a network of this kind")
    best = max(layouts, key=lambda layout: layout.agreement(shapes))
    if best.agreement(shapes) < 0.5 and not partial:
        other, about, share = looks_like(shapes)
        hint = f"it looks like {other} ({about})" if share > 0.5 else "it looks like no network known here"
        raise WeightsError(f"{path}: is not {spec.name} in {best.dialect.about} layout; {hint}")
    return best


def _forced(dialect: Dialect, spec: Spec) -> Layout | None:
    """The layout of a dialect that was named, whatever it usually fits."""
    return _layout(replace(dialect, fits=lambda _: True), spec)


def _faults(path: Path, layout: Layout, shapes: Mapping[str, Shape]) -> list[str]:
    missing, left_over = layout.missing(shapes), layout.left_over(shapes)
    wrong = [
        f"{name} is {_size(shapes[name])} instead of {_size(shape)}"
        for name, (_, shape) in layout.places.items()
        if name in shapes and shapes[name] != shape
    ]
    faults = {"missing": missing, "left over": left_over, "of another shape": wrong}
    return [f"{path}: {len(found)} {what}: {_some(found)}" for what, found in faults.items() if found]


def _complete(spec: Spec, placed: State) -> State:
    """A whole state: what was placed, the rest freshly initialised."""
    fresh = build(spec, seed=0).state_dict()
    return {name: placed.get(name, tensor).reshape(tensor.shape).contiguous() for name, tensor in fresh.items()}


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    if path.suffix == ".safetensors" or content[8:9] == b"{":
        try:
            return dict(load_tensors(content))
        except (SafetensorError, ValueError, KeyError) as error:
            raise WeightsError(f"{path}: not a whole safetensors file: {error}") from None
    try:
        data = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"{path}: {_reason(str(error))}") from None
    if not isinstance(data, Mapping):
        raise WeightsError(f"{path}: holds a {type(data).__name__}, not a state dict")
    return dict(data)


def _reason(message: str) -> str:
    """What torch says, as a user can act on it."""
    if "TorchScript" in message:
        return "is a TorchScript archive, which holds code; save the state_dict() of the model instead"
    if "Unsupported" in message or "GLOBAL" in message or "WeightsUnpickler" in message:
        named = re.search(r"(?:GLOBAL|global) ([\w.]+)", message)
        what = f" ({named[1]})" if named else ""
        return f"holds code or objects{what}, not only tensors; it is not read. Save model.state_dict() instead"
    return "is no whole file of torch's format or safetensors: it is cut, or something else"


def _as_floats(path: Path, state: State, remarks: list[str]) -> State:
    """All in float32 but batch counters."""
    halves = {name: tensor for name, tensor in state.items() if tensor.dtype in (torch.float16, torch.bfloat16)}
    wrong = [
        f"{name} is {str(tensor.dtype).removeprefix('torch.')}"
        for name, tensor in state.items()
        if tensor.dtype is not (torch.int64 if name.endswith(COUNTER) else torch.float32) and name not in halves
    ]
    if wrong:
        raise WeightsError(f"{path}: {len(wrong)} of another type than float32 (counters int64): {_some(wrong)}")
    if halves:
        remarks.append(f"{len(halves)} tensors in half precision, widened to float32")
    return state | {name: tensor.float() for name, tensor in halves.items()}


def _size(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "one number"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
