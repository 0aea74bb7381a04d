"""Weights that exist: state dicts of other projects in and out, every tensor placed by name and shape.

Files are read without executing anything: safetensors, or torch's format with `weights_only`.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import takewhile
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
from archsearch.nets.dialects import DIALECTS, IMAGES, Dialect, Layout, layout_of
from archsearch.nets.images import Inflate, Inflation, are_of_images, inflate_twin
from archsearch.spec.basic import HeadStage
from archsearch.spec.presets import PRESETS, preset
from archsearch.spec.spec import Spec, with_classes
from archsearch.spec.tensors import COUNTER, Shape

WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model")  # a checkpoint's key that holds the tensors
PREFIXES = ("module.", "_orig_mod.", "model.")
SHOWN = 4  # names in one line
NAME_LENGTH = 80  # of a name that is shown
State = dict[str, Tensor]


@dataclass(frozen=True)
class Imported:
    """A network with weights from a file, and what was noticed."""

    spec: Spec
    state: State  # by our names
    dialect: Dialect
    placed: int  # tensors that are the file's
    fresh: int  # tensors of the network that are not
    remarks: tuple[str, ...]
    inflation: Inflation | None = None  # of an image network's weights; there `fresh` counts tensors of the 2D network


def import_weights(
    path: Path,
    spec: Spec,
    *,
    dialect: str | None = None,
    classes: int | None = None,
    partial: bool = False,
    inflate: Inflate | None = None,
) -> Imported:
    """The weights of a file, placed in the network of `spec`; those of an image network are inflated (see `images`).

    The dialect is detected unless named. What is missing, left over or of another shape is an error unless `partial`:
    then it stays as freshly initialised. A classifier of another size stays as the file has it, or is replaced by a
    fresh one where `classes` asks for it. Raises WeightsError, one line for each fault.
    """
    state, remarks = read_state(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if inflate is not None and not are_of_images(shapes):
        raise WeightsError(f"{path}: is no file of an image network, whose kernels are 2D; there is nothing to inflate")
    layout = _with_classes_of(_detect(path, spec, shapes, dialect, partial), shapes)
    faults = _faults(path, layout, shapes)
    if faults and not partial:
        raise WeightsError(*faults, *_hint(path, layout, shapes))
    placed = {ours: state[name] for name, (ours, shape) in layout.places.items() if shapes.get(name) == shape}
    if all(name.endswith(COUNTER) for name in placed):
        raise WeightsError(f"{path}: no tensor fits {spec.name} in {layout.dialect.about} layout", *faults)
    remarks += _notes(layout, state, placed)
    final, placed, said = _classified(layout.spec, placed, spec.classes, classes)
    whole = _complete(final, placed)
    counts = len(placed), len(whole) - len(placed)
    found = Imported(final, whole, layout.dialect, *counts, (*remarks, *said, *faults))
    return _inflated(found, spec, inflate or "centre") if layout.dialect.images else found


def _notes(layout: Layout, state: State, placed: State) -> list[str]:
    """What of a file stays out although nothing is wrong."""
    notes = []
    counters = sum(ours.endswith(COUNTER) and ours not in placed for ours, _ in layout.places.values())
    if counters:
        notes.append(f"{counters} batch counters are not in the file; they start at 0")
    alone = [name for name in state if layout.leaves(name)]
    return [*notes, f"{len(alone)} left alone, of auxiliary classifiers: {_some(alone)}"] if alone else notes


def _classified(spec: Spec, placed: State, known: int, wanted: int | None) -> tuple[Spec, State, list[str]]:
    """Network and tensors for as many classes as are wanted, and what is said of it; `known` is the preset's number."""
    if wanted is not None and wanted != spec.classes:
        backbone = {name: tensor for name, tensor in placed.items() if not name.startswith("head.linear.")}
        said = f"classifier: a fresh one for {wanted} classes instead of {spec.classes}"
        return with_classes(spec, wanted), backbone, [said]
    kept = "head.linear.weight" in placed and spec.classes != known
    return spec, placed, [f"classifier: {spec.classes} classes, as in the file"] if kept else []


def _inflated(found: Imported, spec: Spec, rule: Inflate) -> Imported:
    """The network of video itself, from its twin with an image network's weights."""
    spec = found.dialect.rules(with_classes(spec, found.spec.classes))
    state, inflation = inflate_twin(found.spec, found.state, spec, rule)
    remarks = (*found.remarks, *inflation.remarks(spec))
    return replace(found, spec=spec, state=state, remarks=remarks, inflation=inflation)


def export_weights(spec: Spec, state: State, dialect: str) -> State:
    """The same weights under another project's names and shapes. Raises WeightsError where it has no such network."""
    places = export_layout(spec, dialect).places
    return {theirs: state[ours].reshape(shape).contiguous().clone() for theirs, (ours, shape) in places.items()}


def export_layout(spec: Spec, dialect: str) -> Layout:
    """How a project keeps a network. Raises WeightsError where it has no such network, or only one of images."""
    if any(dialect == known.name for known in IMAGES):
        raise WeightsError(f"{spec.name}: weights of {dialect} are only read: their layout has no place for time")
    found = _dialects(dialect)
    layouts = [layout for known in found if (layout := _layout(known, spec)) is not None]
    if not layouts:
        raise WeightsError(f"{spec.name}: {dialect} has no network of this kind")
    return layouts[0]


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
    if not data:
        raise WeightsError(f"{path}: holds no tensors")
    others = [name for name, value in data.items() if not isinstance(value, Tensor)]
    if others:
        raise WeightsError(f"{path}: holds no state dict; no tensor: {_some(others)}")
    state = {str(name): tensor.detach() for name, tensor in data.items()}
    for prefix in (*PREFIXES, *PREFIXES):  # compiled and spread over devices, in either order
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


def looks_like(state: Mapping[str, Shape], near: str = "") -> tuple[str, str, float]:
    """The preset and dialect whose tensors a file's are most like, and the share that fit.

    Of equals it is the preset whose name begins most like `near`: another depth of the same family.
    """
    known = _known(are_of_images(state))
    name, layout = max(known, key=lambda at: (at[1].agreement(state), _shared_beginning(near, at[0])))
    return name, layout.dialect.about, _with_classes_of(layout, state).agreement(state)


def _shared_beginning(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@cache
def _known(images: bool) -> list[tuple[str, Layout]]:
    """Every preset in every layout that it is kept in."""
    return [(name, layout) for name in PRESETS for layout in _layouts(preset(name), images)]


def _layout(dialect: Dialect, spec: Spec) -> Layout | None:
    if not isinstance(spec.stages[-1], HeadStage) or not dialect.fits(spec):
        return None
    try:
        return layout_of(dialect, spec)
    except WeightsError:
        return None


def _layouts(spec: Spec, images: bool) -> Iterator[Layout]:
    dialects = IMAGES if images else DIALECTS
    yield from (layout for dialect in dialects if (layout := _layout(dialect, spec)) is not None)


def _detect(path: Path, spec: Spec, shapes: Mapping[str, Shape], name: str | None, partial: bool) -> Layout:
    """The layout that agrees best with a file."""
    images = are_of_images(shapes)
    layouts = list(_layouts(spec, images))
    if name is not None:
        layouts = [layout for dialect in _dialects(name) if (layout := _forced(dialect, spec)) is not None]
        layouts = [layout for layout in layouts if layout.dialect.images == images]
    if not layouts:
        of = " of images" if images else ""
        raise WeightsError(f"{spec.name}: no known project has a network{of} of this kind")
    best = max(layouts, key=lambda layout: layout.agreement(shapes))
    if best.agreement(shapes) < 0.5 and not partial:
        other, about, share = looks_like(shapes, spec.name)
        hint = f"it looks like {other} ({about})" if share > 0.5 else "it looks like no network known here"
        raise WeightsError(f"{path}: is not {spec.name} in {best.dialect.about} layout; {hint}")
    return best


def _dialects(name: str) -> list[Dialect]:
    """The layouts of one project."""
    found = [dialect for dialect in (*DIALECTS, *IMAGES) if dialect.name == name]
    if not found:
        known = list(dict.fromkeys(dialect.name for dialect in (*DIALECTS, *IMAGES)))
        raise WeightsError(f"there is no dialect '{name}'{near_or_all(name, known)}")
    return found


def _forced(dialect: Dialect, spec: Spec) -> Layout | None:
    """The layout of a dialect that was named, whatever it usually fits."""
    return _layout(replace(dialect, fits=lambda _: True), spec)


def _with_classes_of(layout: Layout, shapes: Mapping[str, Shape]) -> Layout:
    """The layout for as many classes as the classifier of a file tells apart."""
    for theirs, (ours, shape) in layout.places.items():
        found = shapes.get(theirs, ())
        if ours == "head.linear.weight" and len(found) == len(shape) and found[0] not in (0, shape[0]):
            return layout_of(layout.dialect, with_classes(layout.spec, found[0]))
    return layout


def _hint(path: Path, layout: Layout, shapes: Mapping[str, Shape]) -> list[str]:
    """The network that a file fits better, if there is one."""
    other, about, share = looks_like(shapes, layout.spec.name)
    return [f"{path}: it looks like {other} ({about})"] if share > max(0.5, layout.agreement(shapes)) else []


def _faults(path: Path, layout: Layout, shapes: Mapping[str, Shape]) -> list[str]:
    missing, left_over = layout.missing(shapes), layout.left_over(shapes)
    wrong = [
        f"{_shown(name)} is {_size(shapes[name])} instead of {_size(shape)}"
        for name, (_, shape) in layout.places.items()
        if name in shapes and shapes[name] != shape
    ]
    faults = {"missing": _some(missing), "left over": _some(left_over), "of another shape": _some(wrong, str)}
    counts = (len(missing), len(left_over), len(wrong))
    return [f"{path}: {n} {what}: {names}" for n, (what, names) in zip(counts, faults.items(), strict=True) if n]


def _complete(spec: Spec, placed: State) -> State:
    """A whole state: what was placed, the rest freshly initialised; no two tensors share memory."""
    fresh = build(spec, seed=0).state_dict()
    return {
        name: placed[name].reshape(tensor.shape).clone(memory_format=torch.contiguous_format)
        if name in placed
        else tensor
        for name, tensor in fresh.items()
    }


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    if path.suffix == ".safetensors" or content[8:9] == b"{":
        try:
            return dict(load_tensors(content))
        except (SafetensorError, ValueError, KeyError) as error:
            raise WeightsError(f"{path}: not a whole safetensors file: {_shown(error)}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about its own formats
            data = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        pickled = content.startswith((b"PK", b"\x80"))
        raise WeightsError(f"{path}: {_reason(str(error), pickled)}") from None
    if not isinstance(data, Mapping):
        raise WeightsError(f"{path}: holds a {type(data).__name__}, not a state dict")
    return dict(data)


def _reason(message: str, pickled: bool) -> str:
    """What torch says, as a user can act on it."""
    if "TorchScript" in message:
        return "is a TorchScript archive, which holds code; save the state_dict() of the model instead"
    if pickled and "Unsupported" in message:
        named = re.search(r"(?:GLOBAL|global:?|class) ([\w.]+\.\w+)", message)
        what = f" ({_shown(named[1])})" if named else ""
        return f"holds code or objects{what}, not only tensors; it is not read. Save model.state_dict() instead"
    return "is no whole file of torch's format or safetensors: it is cut, or something else"


def _as_floats(path: Path, state: State, remarks: list[str]) -> State:
    """All in float32 but batch counters. Raises WeightsError for other types, and for what is no plain array."""
    odd = [name for name, tensor in state.items() if tensor.layout != torch.strided or tensor.device.type != "cpu"]
    if odd:
        raise WeightsError(f"{path}: {len(odd)} without plain values (sparse, or of no device): {_some(odd)}")
    halves = {name: tensor for name, tensor in state.items() if tensor.dtype in (torch.float16, torch.bfloat16)}
    wrong = [
        f"{_shown(name)} is {str(tensor.dtype).removeprefix('torch.')}"
        for name, tensor in state.items()
        if tensor.dtype is not (torch.int64 if name.endswith(COUNTER) else torch.float32) and name not in halves
    ]
    if wrong:
        what = "of another type than float32 (counters int64)"
        raise WeightsError(f"{path}: {len(wrong)} {what}: {_some(wrong, str)}")
    if halves:
        remarks.append(f"{len(halves)} tensors in half precision, widened to float32")
    state = state | {name: tensor.float() for name, tensor in halves.items()}
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        remarks.append(f"{len(broken)} tensors hold nan or inf: {_some(broken)}")
    return state


def _size(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "one number"


def _shown(name: object) -> str:
    """A name of a file, which may hold anything, on one line and not too long."""
    text = repr(str(name))[1:-1]
    return text if len(text) <= NAME_LENGTH else f"{text[: NAME_LENGTH - 3]}..."


def _some(names: Sequence[object], show: Callable[[object], str] = _shown) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(show, names[:SHOWN])) + more
