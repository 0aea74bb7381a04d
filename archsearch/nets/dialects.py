"""How other projects name and keep the weights of networks that are presets here.

A dialect is one function from our module path (`res2.0.conv1`) to theirs (`layer1.0.conv1.0`), and what has to travel
with the weights: norm rule, padding, preprocessing. Sources are named beside each.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from archsearch.errors import WeightsError
from archsearch.nets.images import twin, without_time
from archsearch.nets.renames import (
    googlenet,
    hara,
    hara_dense,
    hassony2,
    image_dense,
    is_inception,
    is_residual,
    kinds,
    kylemin,
    old_image_dense,
    piergiaj,
    pytorchvideo,
    torchvision_resnet,
    torchvision_s3d,
)
from archsearch.spec.basic import ConvStage
from archsearch.spec.fields import resolve_kernel
from archsearch.spec.spec import NormRecord, Spec, lower
from archsearch.spec.tensors import COUNTER, Shape, tensor_shapes

Rgb = tuple[float, float, float]
NORM = NormRecord()


@dataclass(frozen=True)
class Preprocessing:
    """RGB frames of 0 ... 1 become (x - mean) / std; `frames` of them, `stride` apart, cut to the clip's size."""

    mean: Rgb
    std: Rgb
    short_side: int | None = None  # frames are scaled to it first; None: not stated
    stride: int | None = None
    source: str = ""


@dataclass(frozen=True)
class Dialect:
    """One project's layout. `rename` gives their module for ours, or None where it has none."""

    name: str
    about: str
    fits: Callable[[Spec], bool]  # whether the project has such a network at all
    rename: Callable[[Spec], Callable[[str], str | None]]
    preprocessing: Preprocessing
    convolutions: str = "$^"  # a pattern of our linear modules that are 1x1x1 convolutions there
    norm: NormRecord = NORM
    padding: Literal["symmetric", "same"] = "symmetric"
    symmetric_stem: bool = False  # the first convolution is padded alike at both ends, whatever the rule
    images: bool = False  # a network of images: kernels have no time axis; read only
    left_alone: str = "(?!)"  # a pattern of their tensors that have no place in a network of video

    def rules(self, spec: Spec) -> Spec:
        """The network under the project's norm and padding."""
        first, *rest = spec.stages
        if self.symmetric_stem and isinstance(first, ConvStage):
            t, h, w = resolve_kernel(first.kernel, next(iter(spec.inputs.values())).t)
            first = first.model_copy(update={"padding": ((t - 1) // 2, (h - 1) // 2, (w - 1) // 2)})
        return spec.model_copy(update={"norm": self.norm, "padding": self.padding, "stages": (first, *rest)})


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
        return [name for name in state if name not in self.places and not self.leaves(name)]

    def leaves(self, name: str) -> bool:
        """Whether their tensor is one that a network of video has no use for."""
        return re.fullmatch(self.dialect.left_alone, name) is not None

    def agreement(self, state: Mapping[str, Shape]) -> float:
        """The share of tensors, of file and network together, that fit by name and shape; without batch counters."""
        names = {name for name in (*self.places, *self.left_over(state)) if not name.endswith(COUNTER)}
        fit = sum(name in self.places and self.places[name][1] == state.get(name) for name in names)
        return fit / max(1, len(names))


KINETICS = Preprocessing(
    (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989), 128, None, "torchvision's metadata"
)
ONE_TO_ONE = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), None, None, "values of -1 ... 1")


def _is_hara(spec: Spec) -> bool:
    return is_residual(spec) and getattr(spec.stages[0], "kernel", None) == 7


def _is_tran(spec: Spec) -> bool:
    return is_residual(spec) and getattr(spec.stages[0], "kernel", None) == (3, 7, 7)


def _is_vmz(spec: Spec) -> bool:
    """Deeper than torchvision's, or with its own rule for inner channels."""
    first = next(stage for stage in spec.stages if stage.name == "res2")
    rule = getattr(first, "mid", None), getattr(first, "conv", None)
    return getattr(first, "depth", 2) != 2 or rule == ("conv", "2+1d")


def _is_pytorchvideo(spec: Spec) -> bool:
    names = {stage.name for stage in spec.stages}
    shifted = any(getattr(stage, "shift", 0) for stage in spec.stages)
    resnet = is_residual(spec) and getattr(spec.stages[-1], "pool", "mean") != "mean" and not shifted
    return len(spec.inputs) == 1 and (resnet or {"stem_space", "stem_time", "last"} <= names)


def _is_dense(spec: Spec) -> bool:
    return "dense" in kinds(spec)


def _is_hara_2018(spec: Spec) -> bool:
    """What only the branch of the paper has: shortcut A, pre-activation, grouped, wide behind a narrow stem."""
    stage = next(stage for stage in spec.stages if stage.name == "res2")
    groups, order = getattr(stage, "groups", 1), getattr(stage, "order", "")
    narrow = getattr(stage, "bottleneck", None) == 0.5 and getattr(spec.stages[0], "width", 0) == 64
    return groups != 1 or order == "norm-act-conv" or narrow or getattr(stage, "shortcut", "") == "pad"


HARA = Preprocessing((0.4345, 0.4051, 0.3775), (0.2768, 0.2713, 0.2737), 112, 1, "mean.py of the master branch")
HARA_2018 = Preprocessing(
    (114.7748 / 255, 107.7354 / 255, 99.4750 / 255),
    (1 / 255,) * 3,
    112,
    1,
    "values of 0 ... 255 less ActivityNet's mean",
)
PYTORCHVIDEO = Preprocessing((0.45,) * 3, (0.225,) * 3, 256, None, "pytorchvideo's model zoo")
S3D_NORM = NormRecord(eps=1e-3, momentum=1e-3)

DIALECTS = (
    Dialect(
        "torchvision",
        "torchvision's VideoResNet",
        lambda spec: _is_tran(spec) and not _is_vmz(spec),
        torchvision_resnet,
        KINETICS,
    ),
    Dialect(
        "vmz",
        "VMZ's VideoResNet",
        lambda spec: _is_tran(spec) and _is_vmz(spec),
        torchvision_resnet,
        KINETICS,
        norm=NormRecord(eps=1e-3),
    ),
    Dialect("torchvision", "torchvision's S3D", is_inception, torchvision_s3d, KINETICS, r"head\.linear", S3D_NORM),
    Dialect("kylemin", "kylemin's S3D", is_inception, kylemin, ONE_TO_ONE, r"head\.linear", S3D_NORM),
    Dialect(
        "piergiaj",
        "piergiaj's I3D",
        is_inception,
        piergiaj,
        ONE_TO_ONE,
        r"head\.linear",
        NormRecord(eps=1e-3, momentum=1e-2),
        "same",
    ),
    Dialect(
        "hassony2",
        "hassony2's I3D",
        is_inception,
        hassony2,
        ONE_TO_ONE,
        r"head\.linear",
        NormRecord(eps=1e-3),
        "same",
    ),
    Dialect("hara", "Hara's 3D-ResNets", lambda spec: _is_hara(spec) and not _is_hara_2018(spec), hara, HARA),
    Dialect(
        "hara2018", "Hara's 3D-ResNets, 2018", lambda spec: _is_hara(spec) and _is_hara_2018(spec), hara, HARA_2018
    ),
    Dialect("hara", "Hara's DenseNet", _is_dense, hara_dense, HARA),
    Dialect(
        "pytorchvideo",
        "pytorchvideo's",
        _is_pytorchvideo,
        pytorchvideo,
        PYTORCHVIDEO,
        r"head\.hidden1|res\d\.\d+\.gate\.\w+",
    ),
)

IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), None, None, "torchvision's metadata")
GOOGLENET = replace(ONE_TO_ONE, source="torchvision's transform_input: values of -1 ... 1")

IMAGES = (  # their max pools keep what is left of a window at the far end: `same`, where sides are even
    Dialect("images", "torchvision's and timm's ResNet", is_residual, hara, IMAGENET, images=True),
    Dialect(
        "images",
        "torchvision's GoogLeNet",
        is_inception,
        googlenet,
        GOOGLENET,
        norm=NormRecord(eps=1e-3),
        padding="same",
        symmetric_stem=True,
        images=True,
        left_alone=r"aux[12]\..+",
    ),
    Dialect("images", "torchvision's and timm's DenseNet", _is_dense, image_dense, IMAGENET, images=True),
    Dialect("images", "torchvision's older DenseNet", _is_dense, old_image_dense, IMAGENET, images=True),
)


def layout_of(dialect: Dialect, spec: Spec) -> Layout:
    """How a dialect keeps a network that it has. Raises WeightsError for a part that it has no name for."""
    spec = dialect.rules(twin(spec) if dialect.images else spec)
    rename = dialect.rename(spec)
    places: dict[str, tuple[str, Shape]] = {}
    for ours, shape in tensor_shapes(lower(spec)).items():
        module, _, leaf = ours.rpartition(".")
        theirs = rename(module)
        if theirs is None:
            raise WeightsError(f"{spec.name}: {dialect.about} has no counterpart of {module}")
        conv = leaf == "weight" and re.fullmatch(dialect.convolutions, module) is not None
        kept = without_time(shape) if dialect.images else shape
        places[f"{theirs}.{leaf}"] = (ours, (*kept, 1, 1, 1) if conv else kept)
    return Layout(dialect, spec, places)
