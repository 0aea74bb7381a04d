"""Hara et al. 2018 (Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?)."""

from collections.abc import Callable
from functools import partial
from typing import Any

from archsearch.spec.basic import ConvStage, HeadStage, PoolStage
from archsearch.spec.branches import DenseStage, TransitionStage
from archsearch.spec.fields import Stage
from archsearch.spec.graph import Kind
from archsearch.spec.presets.tran import CLIP, DEPTHS, KINETICS_CLASSES, WIDTHS
from archsearch.spec.residual import ResidualStage
from archsearch.spec.spec import Spec

DENSE_DEPTHS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32), 264: (6, 12, 64, 48)}
BEFORE: dict[str, Any] = {"order": "norm-act-conv"}


def _stem(width: int = 64, conv: Kind = "3d") -> list[Stage]:
    """7x7x7 that strides space, and a pool that strides all."""
    return [
        ConvStage(name="stem", width=width, kernel=7, stride=(1, 2, 2), conv=conv),
        PoolStage(name="pool", kernel=3, stride=2),
    ]


def resnet3d(name: str, layers: int, *, stem: int = 64, conv: Kind = "3d", **fields: Any) -> Spec:
    """A residual network: basic blocks up to 34 layers, bottlenecks above."""
    if layers >= 50:
        fields = {"bottleneck": 0.25, **fields}
    stages = _stem(stem, conv)
    for number, (depth, width) in enumerate(zip(DEPTHS[layers], WIDTHS, strict=True), start=2):
        wide = 4 * width if layers >= 50 else width
        stride = 1 if number == 2 else 2
        stages.append(ResidualStage(name=f"res{number}", depth=depth, width=wide, stride=stride, conv=conv, **fields))
    return Spec(name=name, clip=CLIP, stages=(*stages, HeadStage(name="head", classes=KINETICS_CLASSES)))


def densenet3d(name: str, layers: int) -> Spec:
    """A densely connected network of growth 32."""
    stages = _stem()
    for number, depth in enumerate(DENSE_DEPTHS[layers], start=1):
        stages.append(DenseStage(name=f"dense{number}", depth=depth))
        if number < 4:
            stages.append(TransitionStage(name=f"transition{number}"))
    return Spec(name=name, clip=CLIP, stages=(*stages, HeadStage(name="head", classes=KINETICS_CLASSES, norm=True)))


def _family() -> dict[str, Callable[[], Spec]]:
    kinds: dict[str, tuple[int, dict[str, Any]]] = {"resnet3d_10": (10, {})}
    kinds |= {f"resnet3d_{layers}": (layers, {"shortcut": "pad"}) for layers in (18, 34)}
    kinds |= {f"resnet3d_{layers}_conv_shortcut": (layers, {}) for layers in (18, 34)}
    kinds |= {f"resnet3d_{layers}": (layers, {}) for layers in (50, 101, 152, 200)}
    kinds |= {f"preresnet3d_{layers}": (layers, BEFORE) for layers in (18, 34, 50, 101, 152, 200)}
    kinds |= {f"wideresnet3d_{layers}": (layers, {"bottleneck": 0.5}) for layers in (50, 101)}
    kinds |= {f"wideresnet3d_{layers}_widestem": (layers, {"bottleneck": 0.5, "stem": 128}) for layers in (50, 101)}
    kinds |= {f"resnext3d_{layers}": (layers, {"bottleneck": 0.5, "groups": 32}) for layers in (50, 101, 152)}
    kinds |= {f"hara_r2plus1d_{layers}": (layers, {"conv": "2+1d"}) for layers in (18, 34, 50, 101)}
    return {name: partial(resnet3d, name, layers, **fields) for name, (layers, fields) in kinds.items()}


HARA: dict[str, Callable[[], Spec]] = {
    **_family(),
    **{f"densenet3d_{layers}": partial(densenet3d, f"densenet3d_{layers}", layers) for layers in DENSE_DEPTHS},
}
