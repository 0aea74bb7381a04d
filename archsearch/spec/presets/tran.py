"""Tran et al. 2018 (A Closer Look at Spatiotemporal Convolutions), Tran et al. 2015 (C3D) and 2019 (CSN)."""

from collections.abc import Callable
from functools import partial

from archsearch.spec.basic import ConvStage, HeadStage, PoolStage
from archsearch.spec.fields import Groups, Mid, Stage
from archsearch.spec.graph import Kind
from archsearch.spec.residual import ResidualStage
from archsearch.spec.spec import Clip, NormRecord, Spec

CLIP: Clip = (3, 16, 112, 112)
KINETICS_CLASSES = 400
DEPTHS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
WIDTHS = (64, 128, 256, 512)
STEM_MID = 45  # of R(2+1)D's stem: a constant of the authors' code, the formula gives 83
CAFFE2 = NormRecord(eps=1e-3)  # the authors' framework


def resnet(name: str, layers: int, kinds: tuple[Kind, ...], *, folded: bool = False, mid: Mid = "conv") -> Spec:
    """A network of Tran et al. 2018: `kinds` of the stem and res2 ... res5; a `folded` stem sees all frames once."""
    stem = ConvStage(
        name="stem",
        width=64,
        kernel=("frames" if folded else 3, 7, 7),
        stride=(1, 2, 2),
        padding=(0, 3, 3) if folded else None,
        conv="3d" if folded else kinds[0],
        mid=STEM_MID,
    )
    stages: list[Stage] = [stem]
    for number, (depth, width, kind) in enumerate(zip(DEPTHS[layers], WIDTHS, kinds[1:], strict=True), start=2):
        stride = 1 if number == 2 else 2
        stages.append(ResidualStage(name=f"res{number}", depth=depth, width=width, stride=stride, conv=kind, mid=mid))
    return Spec(name=name, clip=CLIP, stages=(*stages, HeadStage(name="head", classes=KINETICS_CLASSES)))


def bottleneck(
    name: str,
    layers: int,
    kind: Kind,
    *,
    clip: Clip = CLIP,
    mid: Mid = "conv",
    groups: Groups = 1,
    pointwise: bool = False,
) -> Spec:
    """A bottleneck network of the same authors: 50 layers and more, with a max pool behind the stem."""
    stages: list[Stage] = [
        ConvStage(name="stem", width=64, kernel=(3, 7, 7), stride=(1, 2, 2), conv=kind, mid=STEM_MID),
        PoolStage(name="pool", kernel=(1, 3, 3), stride=(1, 2, 2)),
    ]
    for number, (depth, width) in enumerate(zip(DEPTHS[layers], WIDTHS, strict=True), start=2):
        stages.append(
            ResidualStage(
                name=f"res{number}",
                depth=depth,
                width=4 * width,
                stride=1 if number == 2 else 2,
                conv=kind,
                bottleneck=0.25,
                groups=groups,
                pointwise=pointwise,
                mid=mid,
            )
        )
    head = HeadStage(name="head", classes=KINETICS_CLASSES)
    return Spec(name=name, clip=clip, norm=CAFFE2, stages=(*stages, head))


def c3d(name: str, classes: int, *, norm: bool) -> Spec:
    """C3D (Tran et al. 2015): as published (bias, no norm, pool5 padded), or with norm (pool5 unpadded)."""
    stages: list[Stage] = []
    for number, widths in enumerate(((64,), (128,), (256, 256), (512, 512), (512, 512)), start=1):
        for letter, width in zip("ab", widths, strict=False):
            suffix = letter if len(widths) > 1 else ""
            stages.append(ConvStage(name=f"conv{number}{suffix}", width=width, bias=not norm, norm=norm))
        side = 1 if number == 1 else 2
        padding = (0, 1, 1) if number == 5 and not norm else (0, 0, 0)
        stages.append(PoolStage(name=f"pool{number}", kernel=(side, 2, 2), stride=(side, 2, 2), padding=padding))
    head = HeadStage(name="head", classes=classes, pool="flatten", hidden=(4096, 4096), dropout=0.5)
    return Spec(name=name, clip=CLIP, stages=(*stages, head))


def _prefix(first: Kind, rest: Kind, count: int) -> tuple[Kind, ...]:
    return (first,) * count + (rest,) * (5 - count)


def _basic(layers: int) -> dict[str, Callable[[], Spec]]:
    """Table 2 of Tran et al. 2018: group x of MCx and rMCx counts the stem as 1."""
    kinds: dict[str, tuple[Kind, ...]] = {f"fr2d_{layers}": _prefix("2d", "2d", 5)}
    kinds |= {f"mc{x}_{layers}": _prefix("3d", "2d", x - 1) for x in range(2, 6)}
    kinds |= {f"rmc{x}_{layers}": _prefix("2d", "3d", x - 1) for x in range(2, 6)}
    kinds |= {f"r3d_{layers}": _prefix("3d", "3d", 5), f"r2plus1d_{layers}": _prefix("2+1d", "2+1d", 5)}
    networks: dict[str, Callable[[], Spec]] = {
        name: partial(resnet, name, layers, pattern) for name, pattern in kinds.items()
    }
    r2d = f"r2d_{layers}"
    return {r2d: partial(resnet, r2d, layers, _prefix("2d", "2d", 5), folded=True), **networks}


def _csn(layers: int) -> dict[str, Callable[[], Spec]]:
    """Channel-separated networks (Tran et al. 2019): depthwise, with channels mixed before it (ip) or not (ir)."""
    make = partial(bottleneck, layers=layers, kind="3d", clip=(3, 32, 224, 224), groups="depthwise")
    names = {f"ir_csn_{layers}": False, f"ip_csn_{layers}": True}
    return {name: partial(make, name, pointwise=pointwise) for name, pointwise in names.items()}


TRAN: dict[str, Callable[[], Spec]] = {
    **_basic(18),
    **_basic(34),
    "torchvision_r2plus1d_18": partial(resnet, "torchvision_r2plus1d_18", 18, _prefix("2+1d", "2+1d", 5), mid="block"),
    **{f"r2plus1d_{layers}": partial(bottleneck, f"r2plus1d_{layers}", layers, "2+1d") for layers in (50, 101, 152)},
    "c3d": partial(c3d, "c3d", 487, norm=False),
    "c3d_bn": partial(c3d, "c3d_bn", KINETICS_CLASSES, norm=True),
    **_csn(50),
    **_csn(101),
    **_csn(152),
}
