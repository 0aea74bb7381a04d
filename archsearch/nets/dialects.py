"""How other projects name and keep the weights of networks that are presets here.

A dialect is one function from our module path (`res2.0.conv1`) to theirs (`layer1.0.conv1.0`), and what has to travel
with the weights: norm rule, padding, preprocessing. Sources are named beside each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from archsearch.nets.renames import (
    hara,
    hara_dense,
    hassony2,
    is_inception,
    is_residual,
    kinds,
    kylemin,
    piergiaj,
    pytorchvideo,
    torchvision_resnet,
    torchvision_s3d,
)
from archsearch.spec.spec import NormRecord, Spec

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
    Dialect("hara", "Hara's DenseNet", lambda spec: "dense" in kinds(spec), hara_dense, HARA),
    Dialect(
        "pytorchvideo",
        "pytorchvideo's",
        _is_pytorchvideo,
        pytorchvideo,
        PYTORCHVIDEO,
        r"head\.hidden1|res\d\.\d+\.gate\.\w+",
    ),
)
