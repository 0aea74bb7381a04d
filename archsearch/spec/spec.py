"""A spec: a name, its inputs and a short list of stage records. `lower` makes it a graph."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny

from archsearch.errors import SpecError
from archsearch.files import Record, dump_yaml, near_or_all, read_record, read_yaml, shorten
from archsearch.spec.basic import AverageStage, HeadStage
from archsearch.spec.builder import Builder
from archsearch.spec.fields import Positive, Stage
from archsearch.spec.graph import Graph, Norm, Op, Size, attributes
from archsearch.spec.stages import STAGES

Clip = tuple[Positive, Positive, Positive, Positive]
Clips = Annotated[Mapping[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Clip], Field(min_length=1)]
CLIP_RULE = "four positive integers [channels, frames, height, width], or one such list for each named input"


class NormRecord(Record):
    """Every batch norm's epsilon, and how fast its running statistics follow."""

    eps: Annotated[float, Field(gt=0)] = 1e-5
    momentum: Annotated[float, Field(gt=0, le=1)] = 0.1


class Spec(Record):
    """A network as data. `stages` read each other in order, or by name through `from`."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", description="letters, digits and _ . + -")]
    clip: Annotated[Clip | Clips, Field(description=CLIP_RULE)]
    norm: NormRecord = NormRecord()
    padding: Annotated[
        Literal["symmetric", "same"], Field(description="symmetric ((k - 1) // 2) or same (TensorFlow's)")
    ] = "symmetric"
    stages: tuple[SerializeAsAny[Stage], ...]

    def stage(self, name: str) -> Stage:
        """The stage of that name; raises SpecError with a near name."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        known = [stage.name for stage in self.stages]
        raise SpecError(f"{self.name}: there is no stage '{name}'{near_or_all(name, known)}")

    @property
    def classes(self) -> int:
        """How many classes the head tells apart (0 without a head)."""
        return next((s.classes for s in reversed(self.stages) if isinstance(s, HeadStage)), 0)

    @property
    def inputs(self) -> dict[str, Size]:
        """The size of each input; a single one is named `clip`."""
        clips = self.clip if isinstance(self.clip, Mapping) else {"clip": self.clip}
        return {name: Size(*clip) for name, clip in clips.items()}


def lower(spec: Spec) -> Graph:
    """The graph of a spec. Raises SpecError naming the stage whose feature map becomes empty or does not fit."""
    graph = builder(spec, spec.name)
    for name, size in spec.inputs.items():
        graph.input(name, size)
    outputs = {name: name for name in spec.inputs}
    previous = next(iter(outputs))
    for stage in spec.stages:
        reads = []
        for name in reads_of(stage, previous):
            if name not in outputs:
                raise SpecError(f"{graph.source}, stage {stage.name}: from: {_no_earlier(name, outputs)}")
            reads.append(outputs[name])
        graph.stages[stage.name] = outputs[stage.name] = append_stage(graph, stage, reads)
        previous = stage.name
    return graph.graph()


def builder(spec: Spec, source: str) -> Builder:
    """An empty graph under the rules of a spec."""
    return Builder(source, Norm(spec.norm.eps, spec.norm.momentum), spec.padding == "same")


def reads_of(stage: Stage, previous: str) -> tuple[str, ...]:
    """The stages or inputs a stage reads: the one before it, or those it names."""
    return (stage.from_,) if isinstance(stage.from_, str) else (stage.from_ or (previous,))


def append_stage(graph: Builder, stage: Stage, reads: list[str]) -> str:
    """Appends a stage that reads these nodes; returns its last node."""
    return stage.append(graph, reads[0] if len(reads) == 1 else stage.merge(graph, reads))


def digest(graph: Graph) -> str:
    """What a network is known by: 16 hex digits of its nodes, so that two ways to write one network are one."""
    text = "\n".join(f"{node.name} {op_text(node.op)} {node.inputs}" for node in graph.nodes.values())
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def op_text(op: Op) -> str:
    """An operation without the attributes that are at their default: a new attribute leaves old digests as they are."""
    values = [
        f"{name}={value!r}" for name, default in attributes(op).items() if (value := getattr(op, name)) != default
    ]
    return f"{type(op).__name__}({', '.join(values)})"


def read_spec(path: Path) -> Spec:
    """The spec a YAML file holds. Raises SpecError with one line for every fault."""
    return parse_spec(read_yaml(path, SpecError), str(path))


def parse_spec(data: Mapping[str, Any], source: str) -> Spec:
    """A mapping as a spec; `source` names it in errors. Lowers it once, so that a spec that exists can be built."""
    faults: list[str] = []
    entries = data.get("stages", ())
    if not isinstance(entries, list | tuple) or not entries:
        rule = (
            f"stages: {shorten(entries)} is not a list of stages" if "stages" in data else "field 'stages' is missing"
        )
        faults.append(f"{source}: {rule}")
        entries = ()
    stages = [parse_stage(entry, index, source, faults) for index, entry in enumerate(entries)]
    known = tuple(stage for stage in stages if stage is not None)
    spec = read_record(Spec, {**data, "stages": known}, source, faults)
    if spec is not None:
        pairs = zip(entries, stages, strict=True)
        unread = {str(entry.get("name")) for entry, stage in pairs if stage is None and isinstance(entry, dict)}
        faults += _wiring_faults(spec, source, unread)
    if faults or spec is None:
        raise SpecError(*faults)
    try:
        lower(spec)
    except SpecError as error:
        raise SpecError(*(line.replace(spec.name, source, 1) for line in error.lines)) from None
    return spec


def parse_stage(entry: Any, index: int, source: str, faults: list[str]) -> Stage | None:
    """One stage record, or None with its faults appended."""
    if isinstance(entry, Stage):
        return entry
    name = entry.get("name") if isinstance(entry, dict) else None
    where = f"{source}, stage {shorten(name)[1:-1] if isinstance(name, str) else f'number {index + 1}'}"
    if not isinstance(entry, dict):
        faults.append(f"{where}: expected fields, got {shorten(entry)}")
        return None
    if "kind" not in entry:
        faults.append(f"{where}: field 'kind' is missing; there are: {', '.join(STAGES)}")
        return None
    kind = entry["kind"]
    if not isinstance(kind, str) or kind not in STAGES:
        faults.append(f"{where}: unknown kind {shorten(kind)}{near_or_all(kind, STAGES)}")
        return None
    return read_record(STAGES[kind], entry, where, faults)


def _no_earlier(read: str, seen: Iterable[str]) -> str:
    return f"{shorten(read)} is no earlier stage{near_or_all(read, seen)}"


def _wiring_faults(spec: Spec, source: str, unread: Set[str]) -> list[str]:
    """Names given twice, and `from` that names no earlier stage; `unread` stages have faults of their own."""
    faults = []
    seen = list(spec.inputs)
    heads = {stage.name for stage in spec.stages if isinstance(stage, HeadStage)}
    for previous, stage in zip((None, *spec.stages), spec.stages, strict=False):
        reads = (stage.from_,) if isinstance(stage.from_, str) else (stage.from_ or ())
        if not isinstance(stage, AverageStage) and heads & set(reads or ([previous.name] if previous else [])):
            faults.append(f"{source}, stage {stage.name}: reads a head, which gives classes and no feature map")
        faults += [
            f"{source}, stage {stage.name}: from: {_no_earlier(read, seen)}"
            for read in reads
            if read not in seen and read not in unread
        ]
        if stage.name in seen:
            faults.append(f"{source}, stage {stage.name}: the name is given twice")
        seen.append(stage.name)
    return faults


def spec_yaml(spec: Spec) -> str:
    """The spec as YAML: only fields that differ from their default; reads back to an equal spec."""
    return dump_yaml(spec_data(spec))


def spec_data(spec: Spec) -> dict[str, Any]:
    """The spec as plain data: only fields that differ from their default."""
    head = spec.model_dump(mode="json", exclude_defaults=True, exclude={"stages"})
    stages = [
        {
            "kind": stage.model_dump()["kind"],
            **stage.model_dump(mode="json", exclude_defaults=True, by_alias=True),
        }
        for stage in spec.stages
    ]
    return {**head, "stages": stages}


def with_classes(spec: Spec, classes: int) -> Spec:
    """The same network for another number of classes."""
    stages = tuple(
        stage.model_copy(update={"classes": classes}) if isinstance(stage, HeadStage) else stage
        for stage in spec.stages
    )
    return spec.model_copy(update={"stages": stages})


def with_clip(spec: Spec, sides: Sequence[int], where: str | None = None) -> Spec:
    """The same network for clips of (channels, frames, height, width), or of (frames, height, width) of all its inputs.

    The latter where it has several; their channels stay. Raises SpecError for other sides, told of in `where`.
    """
    several = len(spec.inputs) > 1
    if len(sides) != (3 if several else 4) or not all(isinstance(side, int) and side > 0 for side in sides):
        rule = "CxTxHxW, four positive integers (c, t, h, w) such as 3x16x112x112"
        if several:
            inputs = ", ".join(spec.inputs)
            rule = f"TxHxW for {spec.name}, which reads {inputs}: three positive integers (t, h, w) such as 16x112x112"
        raise SpecError(f"{where or f'clip {tuple(sides)}'}: should be {rule}")
    return with_sides(spec, sides) if several else spec.model_copy(update={"clip": tuple(sides)})


def with_sides(spec: Spec, sides: Sequence[int]) -> Spec:
    """The same network for clips of other (frames, height, width): of each input, whose channels stay."""
    clips = {name: (size.c, *sides) for name, size in spec.inputs.items()}
    return spec.model_copy(update={"clip": clips if isinstance(spec.clip, Mapping) else next(iter(clips.values()))})
