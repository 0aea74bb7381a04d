"""MoViNet A0 to A5, base (Kondratyuk et al. 2021, tables of the appendix): found by a search, so they are data."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from archsearch.spec.basic import ConvStage, HeadStage
from archsearch.spec.fields import GateRecord, Stage
from archsearch.spec.residual import InvertedStage
from archsearch.spec.spec import Clip, NormRecord, Spec

CLASSES = 600  # Kinetics-600, unlike the others


class MoViNet(NamedTuple):
    """The stem's and the last convolution's width, the clip, and (width, stride, runs) of each block group.

    A run is (blocks, inner width, kernel in time, kernel in space).
    """

    stem: int
    last: int
    clip: Clip
    groups: tuple[tuple[int, int, tuple[tuple[int, int, int, int], ...]], ...]


# fmt: off
MOVINETS = {
    "a0": MoViNet(8, 480, (3, 50, 172, 172), (
        (8, 2, ((1, 24, 1, 5),)),
        (32, 2, ((3, 80, 3, 3),)),
        (56, 2, ((1, 184, 5, 3), (1, 112, 3, 3), (1, 184, 3, 3),)),
        (56, 1, ((1, 184, 5, 3), (3, 184, 3, 3),)),
        (104, 2, ((1, 384, 5, 3), (2, 280, 1, 5), (1, 344, 1, 5),)),
    )),
    "a1": MoViNet(16, 600, (3, 50, 172, 172), (
        (16, 2, ((1, 40, 1, 5), (1, 40, 3, 3),)),
        (40, 2, ((1, 96, 3, 3), (1, 120, 3, 3), (2, 96, 3, 3),)),
        (64, 2, ((1, 216, 5, 3), (1, 128, 3, 3), (1, 216, 3, 3), (1, 168, 3, 3), (1, 216, 3, 3),)),
        (64, 1, ((1, 216, 5, 3), (2, 216, 3, 3), (1, 128, 3, 3), (1, 128, 1, 5), (1, 216, 3, 3),)),
        (136, 2, ((1, 456, 5, 3), (3, 360, 1, 5), (1, 456, 1, 5), (1, 456, 3, 3), (1, 544, 1, 3),)),
    )),
    "a2": MoViNet(16, 640, (3, 50, 224, 224), (
        (16, 2, ((1, 40, 1, 5), (1, 40, 3, 3), (1, 64, 3, 3),)),
        (40, 2, ((1, 96, 3, 3), (1, 120, 3, 3), (2, 96, 3, 3), (1, 120, 3, 3),)),
        (72, 2, ((1, 240, 5, 3), (1, 160, 3, 3), (1, 240, 3, 3), (1, 192, 3, 3), (1, 240, 3, 3),)),
        (72, 1, ((1, 240, 5, 3), (3, 240, 3, 3), (1, 144, 1, 5), (1, 240, 3, 3),)),
        (144, 2, ((1, 480, 5, 3), (2, 384, 1, 5), (2, 480, 1, 5), (1, 480, 3, 3), (1, 576, 1, 3),)),
    )),
    "a3": MoViNet(16, 744, (3, 120, 256, 256), (
        (16, 2, ((1, 40, 1, 5), (1, 40, 3, 3), (1, 64, 3, 3), (1, 40, 3, 3),)),
        (48, 2, ((1, 112, 3, 3), (1, 144, 3, 3), (1, 112, 3, 3), (1, 112, 1, 5), (2, 144, 3, 3),)),
        (80, 2, ((1, 240, 5, 3), (1, 152, 3, 3), (1, 240, 3, 3), (1, 192, 3, 3), (1, 240, 3, 3),)),
        (88, 1, ((1, 264, 5, 3), (3, 264, 3, 3), (1, 160, 1, 5), (3, 264, 3, 3),)),
        (168, 2, ((1, 560, 5, 3), (2, 448, 1, 5), (2, 560, 1, 5), (1, 560, 3, 3), (2, 448, 1, 5),
            (1, 560, 3, 3), (1, 672, 1, 3),)),
    )),
    "a4": MoViNet(24, 856, (3, 80, 290, 290), (
        (24, 2, ((1, 64, 1, 5), (1, 64, 3, 3), (1, 96, 3, 3), (1, 64, 3, 3), (1, 96, 3, 3), (1, 64, 3, 3),)),
        (56, 2, ((2, 168, 3, 3), (2, 136, 3, 3), (3, 168, 3, 3), (1, 136, 1, 5), (1, 136, 3, 3),)),
        (96, 2, ((1, 320, 5, 3), (1, 160, 3, 3), (1, 320, 3, 3), (1, 192, 3, 3), (1, 320, 3, 3),
            (1, 160, 3, 3), (1, 320, 3, 3), (1, 256, 3, 3), (1, 320, 3, 3),)),
        (96, 1, ((1, 320, 5, 3), (3, 320, 3, 3), (1, 192, 1, 5), (2, 320, 3, 3), (1, 192, 3, 3), (2, 320, 3, 3),)),
        (192, 2, ((1, 640, 5, 3), (2, 512, 1, 5), (2, 640, 1, 5), (1, 640, 3, 3), (2, 512, 1, 5),
            (1, 640, 1, 5), (1, 768, 1, 5), (1, 640, 1, 5), (1, 640, 3, 3), (1, 768, 3, 3),)),
    )),
    "a5": MoViNet(24, 992, (3, 120, 320, 320), (
        (24, 2, ((2, 64, 1, 5), (1, 96, 3, 3), (1, 64, 3, 3), (1, 96, 3, 3), (1, 64, 3, 3),)),
        (64, 2, ((1, 192, 5, 3), (3, 152, 3, 3), (3, 192, 3, 3), (2, 152, 3, 3), (2, 192, 3, 3),)),
        (112, 2, ((1, 376, 5, 3), (1, 224, 3, 3), (2, 376, 3, 3), (1, 296, 3, 3), (1, 376, 3, 3),
            (1, 224, 3, 3), (2, 376, 3, 3), (1, 296, 3, 3), (3, 376, 3, 3),)),
        (120, 1, ((1, 376, 5, 3), (3, 376, 3, 3), (1, 224, 1, 5), (2, 376, 3, 3), (1, 224, 3, 3), (3, 376, 3, 3),)),
        (224, 2, ((1, 744, 5, 3), (1, 744, 3, 3), (2, 600, 1, 5), (2, 744, 1, 5), (1, 744, 3, 3),
            (1, 896, 1, 5), (2, 600, 1, 5), (1, 896, 1, 5), (1, 744, 1, 5), (1, 744, 3, 3), (1, 896, 1, 5),
            (2, 600, 1, 5), (1, 744, 1, 5), (1, 744, 3, 3),)),
    )),
}
# fmt: on


def movinet(name: str, net: MoViNet) -> Spec:
    """Inverted blocks with squeeze-excite and ReZero; TensorFlow's padding."""
    stages: list[Stage] = [ConvStage(name="stem", width=net.stem, kernel=(1, 3, 3), stride=(1, 2, 2), act="silu")]
    for number, (width, stride, runs) in enumerate(net.groups, start=2):
        for letter, (depth, inner, time, space) in zip("abcdefghijklmnopqr", runs, strict=False):
            stages.append(
                InvertedStage(
                    name=f"block{number}{letter}",
                    depth=depth,
                    width=width,
                    inner=inner,
                    kernel=(time, space, space),
                    stride=(1, stride, stride) if letter == "a" else 1,
                    gate=GateRecord(bias=True, reduction=4, act="silu"),
                    gate_at="after-act",
                    act="silu",
                    inner_act="silu",
                    out_act="none",
                    shortcut="pool-conv-norm",
                    rezero=True,
                )
            )
    stages.append(ConvStage(name="last", width=net.last, kernel=1, act="silu"))
    stages.append(HeadStage(name="head", classes=CLASSES, hidden=(2048,), act="silu", dropout=0.2))
    return Spec(name=name, clip=net.clip, padding="same", norm=NormRecord(eps=1e-3), stages=tuple(stages))


MOVINET: dict[str, Callable[[], Spec]] = {
    f"movinet_{size}": partial(movinet, f"movinet_{size}", net) for size, net in MOVINETS.items()
}
