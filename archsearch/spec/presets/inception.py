"""Carreira & Zisserman 2017 (Quo Vadis) and Xie et al. 2018 (Rethinking Spatiotemporal Feature Learning)."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from archsearch.spec.basic import AverageStage, ConvStage, HeadStage, PoolStage, RecurrentStage
from archsearch.spec.branches import BranchGate, InceptionStage
from archsearch.spec.fields import GateRecord, Stage
from archsearch.spec.graph import Kind
from archsearch.spec.spec import Clip, NormRecord, Spec

CLIP: Clip = (3, 64, 224, 224)
FRAMES_CLIP: Clip = (3, 25, 224, 224)  # five seconds at five frames each
CLASSES = 400
MIXED = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}
LAYERS = ("1a", "2b", "2c", *MIXED)  # layer k of Xie et al. 2018
NORM = NormRecord(eps=1e-3)  # their momentum, 0.001, is for long schedules: imported weights bring theirs along


def trunk(kinds: Callable[[str], Kind], gates: Iterable[str] = (), *, suffix: str = "", **options: Any) -> list[Stage]:
    """conv1a to mixed5c. `kinds` gives each layer's kind, `gates` are the layers with a gate.

    Options: `frames` (False: neither strides nor pools over time), `stem` (the stem's own fields), `norm`, `gate`.
    """
    time, deep = (2, (3, 3, 3)) if options.get("frames", True) else (1, (1, 3, 3))
    gate, norm = options.get("gate", True), options.get("norm", True)
    gated = set(gates)

    def conv(layer: str, **fields: Any) -> ConvStage:
        weigh = layer in gated and (gate if gate is True else GateRecord(**_shared(gate)))
        given = {"conv": kinds(layer), "gate": weigh, "norm": norm}
        return ConvStage(name=f"conv{layer}{suffix}", **{**given, **fields})

    def pool(layer: str, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> PoolStage:
        return PoolStage(name=f"pool{layer}{suffix}", kernel=kernel, stride=stride)

    def mixed(layer: str) -> InceptionStage:
        return InceptionStage(
            name=f"mixed{layer}{suffix}",
            widths=MIXED[layer],
            conv=kinds(layer),
            pool=3 if time == 2 else deep,
            norm="all" if norm is True else norm,
            gate=layer in gated and gate,
        )

    return [
        conv("1a", width=64, stride=(time, 2, 2), **{"kernel": 7, **options.get("stem", {})}),
        pool("2a", (1, 3, 3), (1, 2, 2)),
        conv("2b", width=64, kernel=1),
        conv("2c", width=192),
        pool("3a", (1, 3, 3), (1, 2, 2)),
        mixed("3b"),
        mixed("3c"),
        pool("4a", deep, (time, 2, 2)),
        *(mixed(layer) for layer in MIXED if layer.startswith("4")),
        pool("5a", (time, 2, 2), (time, 2, 2)),
        mixed("5b"),
        mixed("5c"),
    ]


def _shared(gate: GateRecord) -> dict[str, Any]:
    return {name: getattr(gate, name) for name in GateRecord.model_fields}


def _head(suffix: str = "") -> HeadStage:
    return HeadStage(name=f"head{suffix}", classes=CLASSES, pool=(2, "all", "all"), dropout=0.2)


def i3d_like(name: str, kinds: Callable[[str], Kind], gates: Iterable[str] = (), **options: Any) -> Spec:
    """A network of one stream: the trunk, and scores of each of T/8 - 1 positions, averaged."""
    clip = options.pop("clip", CLIP)
    return Spec(name=name, clip=clip, norm=NORM, stages=(*trunk(kinds, gates, **options), _head()))


def _from(first: str, below: Kind, above: Kind) -> Callable[[str], Kind]:
    """`above` from a layer on, `below` under it."""
    return lambda layer: above if LAYERS.index(layer) >= LAYERS.index(first) else below


def _everywhere(kind: Kind) -> Callable[[str], Kind]:
    return lambda layer: kind


def _gated(first: str) -> tuple[str, ...]:
    """The layers that have a gate in S3D-G: 2c and the mixed ones, from a layer on."""
    return tuple(layer for layer in LAYERS[max(2, LAYERS.index(first)) :])


def _heavy() -> dict[str, Callable[[], Spec]]:
    """Bottom-heavy-k is 3D up to layer k, top-heavy-k 3D or separable from it on; the other side is 2D."""
    networks: dict[str, Callable[[], Spec]] = {}
    for number, layer in enumerate(LAYERS):
        bottom = _everywhere("3d") if layer == "5c" else _from(LAYERS[number + 1], "3d", "2d") if number < 11 else None
        name = f"bottom_heavy_i3d_{layer}"
        networks[name] = partial(i3d_like, name, bottom or _everywhere("3d"))
    for layer in LAYERS[2:]:  # 2b is pointwise: no kind makes a difference
        names = (f"top_heavy_i3d_{layer}", f"top_heavy_s3d_{layer}", f"top_heavy_s3d_g_{layer}")
        networks[names[0]] = partial(i3d_like, names[0], _from(layer, "2d", "3d"))
        networks[names[1]] = partial(i3d_like, names[1], _from(layer, "2d", "separable"))
        networks[names[2]] = partial(i3d_like, names[2], _from(layer, "2d", "separable"), _gated(layer))
    return networks


def _s3d_g(name: str, **fields: Any) -> Callable[[], Spec]:
    gate = BranchGate(**fields) if fields else True
    return partial(i3d_like, name, _everywhere("separable"), _gated("1a"), gate=gate)


def inception_lstm(name: str) -> Spec:
    """ConvNet + LSTM of Carreira & Zisserman 2017: 2D Inception on every frame, an LSTM, its last state."""
    stages = trunk(_everywhere("2d"), frames=False)
    end = [RecurrentStage(name="lstm", width=512), HeadStage(name="head", classes=CLASSES)]
    return Spec(name=name, clip=FRAMES_CLIP, norm=NORM, stages=(*stages, *end))


def two_stream_i3d(name: str) -> Spec:
    """I3D on colour and on optical flow, trained apart; their scores are averaged."""
    stages: list[Stage] = []
    for stream in ("rgb", "flow"):
        first, *rest = trunk(_everywhere("3d"), suffix=f"_{stream}")
        stages += [first.model_copy(update={"from_": stream}), *rest, _head(f"_{stream}")]
    mean = AverageStage(**{"name": "scores", "from": ("head_rgb", "head_flow")})
    clips = {"rgb": CLIP, "flow": (2, *CLIP[1:])}
    return Spec(name=name, clip=clips, norm=NORM, stages=(*stages, mean))


def fused_two_stream(name: str) -> Spec:
    """3D-fused two-stream: 2D Inception on five frames and their flow (ten fields each), fused by a 3D convolution."""
    stages: list[Stage] = []
    for stream in ("rgb", "flow"):
        first, *rest = trunk(_everywhere("2d"), suffix=f"_{stream}", frames=False)
        stages += [first.model_copy(update={"from_": stream}), *rest]
    fused = ConvStage(**{"name": "fusion", "from": ("mixed5c_rgb", "mixed5c_flow"), "width": 512})
    end = [fused, PoolStage(name="pool", kernel=3, stride=2), HeadStage(name="head", classes=CLASSES)]
    clips = {"rgb": (3, 5, 224, 224), "flow": (20, 5, 224, 224)}
    return Spec(name=name, clip=clips, norm=NORM, stages=(*stages, *end))


INCEPTION: dict[str, Callable[[], Spec]] = {
    "i3d": partial(i3d_like, "i3d", _everywhere("3d")),
    "i3d_flow": partial(i3d_like, "i3d_flow", _everywhere("3d"), clip=(2, *CLIP[1:])),
    "i2d": partial(i3d_like, "i2d", _everywhere("2d")),
    "s3d": partial(i3d_like, "s3d", _everywhere("separable")),
    "s3d_g": _s3d_g("s3d_g"),
    "s3d_g_time": _s3d_g("s3d_g_time", pool="time"),
    "s3d_g_space": _s3d_g("s3d_g_space", pool="space"),
    "s3d_g_temporal": _s3d_g("s3d_g_temporal", after="temporal"),
    "s3d_g_tfslim": partial(
        i3d_like,
        "s3d_g_tfslim",
        _everywhere("separable"),
        _gated("1a"),
        norm="inner",
        stem={"kernel": (3, 7, 7), "conv": "3d", "norm": True},
    ),
    "fast_s3d": partial(i3d_like, "fast_s3d", _from("5b", "2d", "separable")),
    **_heavy(),
    "inception_lstm": partial(inception_lstm, "inception_lstm"),
    "two_stream_i3d": partial(two_stream_i3d, "two_stream_i3d"),
    "fused_two_stream": partial(fused_two_stream, "fused_two_stream"),
}
