"""Weights of image networks in networks of video: the same network in 2D, and its weights inflated.

A network's *twin* is itself with every convolution in 2D: an image network over the frames it keeps. A file of images
fits the twin tensor by tensor, and surgery does the rest, so that its rules and verdicts are those of any 2d -> 3d.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from torch import Tensor

from archsearch.nets.surgery.kernels import Inflate as Inflate
from archsearch.nets.surgery.plan import Edit, Verdict
from archsearch.nets.surgery.transfer import transfer
from archsearch.spec.basic import PoolStage
from archsearch.spec.fields import Stage, resolve_stride
from archsearch.spec.spec import Spec
from archsearch.spec.tensors import Shape

State = dict[str, Tensor]
PLAIN: dict[str, Any] = {"conv": "2d", "gate": False, "shift": 0}  # what image networks are, of fields a stage may have


@dataclass(frozen=True)
class Inflation:
    """How the weights of an image network came into one of video: the rule, and what became of each site."""

    rule: Inflate
    edits: tuple[Edit, ...]

    @property
    def verdicts(self) -> dict[str, int]:
        """How many sites there are of each verdict."""
        counts = Counter(edit.verdict for edit in self.edits)
        return {verdict: counts[verdict] for verdict in get_args(Verdict) if counts[verdict]}

    def remarks(self, spec: Spec) -> list[str]:
        """What a user has to know, a line each."""
        counts = ", ".join(f"{count} {verdict}" for verdict, count in self.verdicts.items())
        lines = [f"weights of images, inflated by '{self.rule}': sites {counts}"]
        if not isinstance(spec.stages[1], PoolStage):
            lines.append(f"the image network pools behind its stem, {spec.name} does not: its maps are larger")
        return lines


def are_of_images(shapes: Mapping[str, Shape]) -> bool:
    """Whether tensors are an image network's: kernels of four dimensions, (out, in, h, w), and none of five."""
    dims = {len(shape) for shape in shapes.values()}
    return 4 in dims and 5 not in dims


def without_time(shape: Shape) -> Shape:
    """(out, in, 1, h, w) -> (out, in, h, w); other shapes stay."""
    return shape[:2] + shape[3:] if len(shape) == 5 else shape


def twin(spec: Spec) -> Spec:
    """The network with every convolution in 2D, without gates and shifts; strides and pools over time stay."""
    return spec.model_copy(update={"stages": tuple(map(_in_2d, spec.stages))})


def _in_2d(stage: Stage) -> Stage:
    fields = type(stage).model_fields
    update = {name: value for name, value in PLAIN.items() if name in fields}
    if "conv" in fields and "stride" in fields:  # an integer would follow the kind
        update["stride"] = resolve_stride(getattr(stage, "stride"), getattr(stage, "conv"))  # noqa: B009
    return stage.model_copy(update=update)


def inflate_twin(twin: Spec, state: State, spec: Spec, rule: Inflate) -> tuple[State, Inflation]:
    """The weights of a network of video, made of its twin's.

    `centre` puts a 2D kernel in the middle of time and zeros around it: the scores are the image network's, of the
    frames that strides keep. `mean` repeats it N times and divides by N (Carreira & Zisserman 2017): the same on still
    clips only, and there but for the zeros that pad a clip's ends.
    """
    found, edits = transfer(twin, state, spec, inflate=rule)
    return found, Inflation(rule, tuple(edits))
