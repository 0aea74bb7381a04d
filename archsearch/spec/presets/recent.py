"""What users pick today: the ResNet-50 family of SlowFast and pytorchvideo, X3D, TSM."""

from collections.abc import Callable
from functools import partial
from typing import Any

from archsearch.spec.basic import ConvStage, HeadStage, PoolStage
from archsearch.spec.fields import GateRecord, Stage
from archsearch.spec.presets.movinet import MOVINET
from archsearch.spec.presets.tran import DEPTHS, KINETICS_CLASSES, WIDTHS
from archsearch.spec.residual import InvertedStage, ResidualStage
from archsearch.spec.spec import Clip, Spec

SIDE = 224


def _resnet50(
    stem: tuple[int, int, int], kinds: tuple[str, ...], pool: tuple[int, int, int] | None = (1, 3, 3), **fields: Any
) -> list[Stage]:
    """Stem, pool and res2 to res5 of a ResNet-50 that strides space alone; `each` overrides fields stage by stage."""
    each = fields.pop("each", {})
    stages: list[Stage] = [ConvStage(name="stem", width=64, kernel=stem, stride=(1, 2, 2))]
    if pool:
        stages.append(PoolStage(name="pool", kernel=pool, stride=(1, 2, 2)))
    for number, (depth, width, kind) in enumerate(zip(DEPTHS[50], WIDTHS, kinds, strict=True), start=2):
        record = {"stride": 1 if number == 2 else (1, 2, 2), "bottleneck": 0.25, "conv": kind, **fields}
        record |= each.get(number, {})
        stages.append(ResidualStage(name=f"res{number}", depth=depth, width=4 * width, **record))
    return stages


def _head(frames: int, side: int = 7) -> HeadStage:
    """An average pool as large as the map of a clip of the usual size; what more places there are is averaged."""
    return HeadStage(name="head", classes=KINETICS_CLASSES, pool=(frames, side, side), dropout=0.5)


def _spec(name: str, frames: int, stages: list[Stage]) -> Spec:
    return Spec(name=name, clip=(3, frames, SIDE, SIDE), stages=tuple(stages))


def c2d_r50(name: str) -> Spec:
    """2D convolutions; a max pool over pairs of frames behind res2."""
    stem, pool, res2, *rest = _resnet50((1, 7, 7), ("2d",) * 4)
    pairs = PoolStage(name="pool_time", kernel=(2, 1, 1), stride=(2, 1, 1))
    return _spec(name, 8, [stem, pool, res2, pairs, *rest, _head(4)])


def i3d_r50(name: str) -> Spec:
    """Time in the first site of every block of res2 and of every second block above (Wang et al. 2018)."""
    each = {number: {"temporal_every": 2} for number in (3, 4)} | {5: {"temporal_every": 2, "temporal_start": 1}}
    stem, pool, res2, *rest = _resnet50((5, 7, 7), ("3d",) * 4, temporal="entry", each=each)
    pairs = PoolStage(name="pool_time", kernel=(2, 1, 1), stride=(2, 1, 1))
    return _spec(name, 8, [stem, pool, res2, pairs, *rest, _head(4)])


def slow_r50(name: str) -> Spec:
    """Time in the first site of the blocks of res4 and res5 (Feichtenhofer et al. 2019)."""
    return _spec(name, 8, [*_resnet50((1, 7, 7), ("2d", "2d", "3d", "3d"), temporal="entry"), _head(8)])


def r2plus1d_r50(name: str) -> Spec:
    """pytorchvideo's: the temporal half first and as wide as the site; no stem pool."""
    each: dict[int, dict[str, Any]] = {2: {"stride": (1, 2, 2)}, 4: {"stride": 2}, 5: {"stride": 2}}
    stages = _resnet50((1, 7, 7), ("separable",) * 4, None, first="time", each=each)
    return _spec(name, 16, [*stages, _head(4)])


def tsm_r50(name: str) -> Spec:
    """2D convolutions; each block reads an eighth of its channels from either neighbouring frame (Lin et al. 2019)."""
    return _spec(name, 8, [*_resnet50((1, 7, 7), ("2d",) * 4, shift=8), _head(8)])


def slowfast_r50(name: str) -> Spec:
    """Two rates: a slow, wide path and one of four times the frames and an eighth of the width, fused five times."""
    slow = _resnet50((1, 7, 7), ("2d", "2d", "3d", "3d"), temporal="entry")
    fast = _resnet50((5, 7, 7), ("3d",) * 4, temporal="entry")
    stages: list[Stage] = []
    wide_reads, thin_reads = "slow", "fast"
    width = 0  # of the fast path so far
    for wide, thin in zip(slow, fast, strict=True):
        reads: str | tuple[str, ...] = wide_reads
        if isinstance(thin, ResidualStage):
            stages.append(_lateral(f"{thin.name}_lateral", thin_reads, 2 * width))
            reads = (wide_reads, stages[-1].name)
        if isinstance(thin, ConvStage | ResidualStage):
            width = thin.width // 8
            thin = thin.model_copy(update={"width": width})
        stages.append(wide.model_copy(update={"from_": reads}))
        stages.append(thin.model_copy(update={"name": f"{thin.name}_fast", "from_": thin_reads}))
        wide_reads, thin_reads = wide.name, stages[-1].name
    head = {"name": "head", "from": (wide_reads, thin_reads), "classes": KINETICS_CLASSES, "dropout": 0.5}
    clips = {"slow": (3, 8, SIDE, SIDE), "fast": (3, 32, SIDE, SIDE)}
    return Spec(name=name, clip=clips, stages=(*stages, HeadStage.model_validate(head)))


def _lateral(name: str, reads: str, width: int) -> ConvStage:
    """From the fast path to the slow one: every fourth frame, twice the channels."""
    record = {"name": name, "from": reads, "width": width, "kernel": (7, 1, 1), "stride": (4, 1, 1)}
    return ConvStage.model_validate(record)


def x3d(name: str, clip: Clip, depths: tuple[int, ...], stem: int = 24) -> Spec:
    """X3D (Feichtenhofer 2020): a 2D stem and a depthwise one over time, inverted blocks, two pointwise layers."""
    stages: list[Stage] = [
        ConvStage(name="stem_space", width=stem, kernel=(1, 3, 3), stride=(1, 2, 2), norm=False, act="none"),
        ConvStage(name="stem_time", width=stem, kernel=(5, 1, 1), groups="depthwise"),
    ]
    for number, depth in enumerate(depths, start=2):
        stages.append(
            InvertedStage(
                name=f"res{number}",
                depth=depth,
                width=stem * 2 ** (number - 2),
                stride=(1, 2, 2),
                gate=GateRecord(bias=True, reduction=16),
                gate_every=2,
                inner_act="silu",
                shortcut="conv" if number == 2 else "conv-norm",
            )
        )
    side = -(-clip[2] // 32)
    stages.append(ConvStage(name="last", width=round(stem * 8 * 2.25), kernel=1))
    stages.append(
        HeadStage(
            name="head",
            classes=KINETICS_CLASSES,
            pool=(clip[1], side, side),
            hidden=(2048,),
            bias=False,
            dropout=0.5,
        )
    )
    return Spec(name=name, clip=clip, stages=tuple(stages))


X3D_DEPTHS = (3, 5, 11, 7)
RECENT: dict[str, Callable[[], Spec]] = {
    "c2d_r50": partial(c2d_r50, "c2d_r50"),
    "i3d_r50": partial(i3d_r50, "i3d_r50"),
    "slow_r50": partial(slow_r50, "slow_r50"),
    "r2plus1d_r50": partial(r2plus1d_r50, "r2plus1d_r50"),
    "slowfast_r50": partial(slowfast_r50, "slowfast_r50"),
    "tsm_r50": partial(tsm_r50, "tsm_r50"),
    "x3d_xs": partial(x3d, "x3d_xs", (3, 4, 160, 160), X3D_DEPTHS),
    "x3d_s": partial(x3d, "x3d_s", (3, 13, 160, 160), X3D_DEPTHS),
    "x3d_m": partial(x3d, "x3d_m", (3, 16, 224, 224), X3D_DEPTHS),
    "x3d_l": partial(x3d, "x3d_l", (3, 16, 312, 312), (5, 10, 25, 15)),
    **MOVINET,
}
