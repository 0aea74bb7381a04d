"""The tables of docs/networks.md: every preset by paper, what it costs, and what its source states.

    python benchmarks/networks_table.py

Parameters and multiply-adds are counted. What papers and model zoos state is shown beside them and compared with
nothing: it is often of another clip or number of classes, and in another unit.
"""

import json
from collections.abc import Iterable
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from archsearch.spec.cost import total_cost
from archsearch.spec.presets import PRESETS, preset
from archsearch.spec.presets.inception import LAYERS
from archsearch.spec.spec import lower

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "published.json"

VMZ = "VMZ models.md"
VMZ_PT = "VMZ model_zoo.md"
ZOO = "pytorchvideo model_zoo.md"
TORCHVISION = "torchvision's metadata"
SLOWFAST_ZOO = "PySlowFast MODEL_ZOO.md"
MOVINET_README = "TensorFlow's movinet README"
CARREIRA = "Carreira 2017, table 1"
XIE = "Xie 2018, table 2"


class Stated(NamedTuple):
    """What a source states: millions of parameters, GFLOPs, their clip where it is another, and who."""

    params: str
    gflops: str
    clip: str
    source: str


STATED: dict[str, Stated] = {
    "r2d_18": Stated("11.5", "2.2", "", VMZ),
    "fr2d_18": Stated("11.4", "27.6", "", VMZ),
    "mc2_18": Stated("11.4", "28.5", "", VMZ),
    "mc3_18": Stated("11.7", "43.3", "", VMZ),
    "mc4_18": Stated("12.7", "40", "", VMZ),
    "mc5_18": Stated("16.8", "39.9", "", VMZ),
    "rmc2_18": Stated("33.3", "39.8", "", VMZ),
    "rmc3_18": Stated("33.0", "25", "", VMZ),
    "rmc4_18": Stated("32.0", "29.1", "", VMZ),
    "rmc5_18": Stated("27.9", "30.8", "", VMZ),
    "r3d_18": Stated("33.4", "40.7", "", VMZ),
    "r2plus1d_18": Stated("33.3", "41.5", "", VMZ),
    "torchvision_r2plus1d_18": Stated("31.51", "40.52", "", TORCHVISION),
    "r2plus1d_34": Stated("63.6", "49.8", "8x128x128", VMZ_PT),
    "r2plus1d_152": Stated("118.0", "329.1", "32 frames", VMZ_PT),
    "c3d_bn": Stated("64.9", "38.5", "", VMZ),
    "ir_csn_152": Stated("29.6", "96.7", "32x256x256", VMZ_PT),
    "ip_csn_152": Stated("32.8", "108.8", "32x256x256", VMZ_PT),
    "i3d": Stated("12.06", "107.89", "", XIE),
    "s3d": Stated("8.77", "66.38", "", XIE),
    "s3d_g": Stated("11.56", "71.38", "", XIE),
    "inception_lstm": Stated("9", "", "", CARREIRA),
    "two_stream_i3d": Stated("25", "", "", CARREIRA),
    "fused_two_stream": Stated("39", "", "", CARREIRA),
    "c2d_r50": Stated("24.33", "25.89", "256x256", ZOO),
    "i3d_r50": Stated("28.04", "37.53", "256x256", ZOO),
    "slow_r50": Stated("32.45", "54.52", "256x256", ZOO),
    "r2plus1d_r50": Stated("28.11", "76.45", "256x256", ZOO),
    "slowfast_r50": Stated("34.57", "65.71", "256x256", ZOO),
    "x3d_xs": Stated("3.8", "0.60", "", SLOWFAST_ZOO),
    "x3d_s": Stated("3.8", "1.96", "", SLOWFAST_ZOO),
    "x3d_m": Stated("3.8", "4.73", "", SLOWFAST_ZOO),
    "x3d_l": Stated("6.2", "18.37", "", SLOWFAST_ZOO),
    "movinet_a0": Stated("", "2.7", "", MOVINET_README),
    "movinet_a1": Stated("", "6.0", "", MOVINET_README),
    "movinet_a2": Stated("", "10", "", MOVINET_README),
    "movinet_a3": Stated("", "57", "", MOVINET_README),
    "movinet_a4": Stated("", "110", "", MOVINET_README),
    "movinet_a5": Stated("", "280", "", MOVINET_README),
}


class Row(NamedTuple):
    """One network, counted at its own clip."""

    mark: str
    params: str
    gmacs: str
    clip: str


@cache
def confirmed() -> frozenset[str]:
    """The presets that a row of tests/golden/published.json counts."""
    return frozenset(row["preset"] for row in json.loads(GOLDEN.read_text())["networks"])


def row(name: str) -> Row:
    """A network's numbers, as text."""
    spec = preset(name)
    cost = total_cost(lower(spec))
    clip = ", ".join(map(str, spec.inputs.values()))
    return Row(" ✓" if name in confirmed() else "", f"{cost.params:,}", f"{cost.macs / 1e9:.2f}", clip)


def stated(name: str) -> str:
    """What the source says, in one cell."""
    if name not in STATED:
        return ""
    params, gflops, clip, source = STATED[name]
    at = f" at {clip}" if clip else ""
    numbers = [f"{params}M" if params else "", f"{gflops} G{at}" if gflops else ""]
    return f"{', '.join(filter(None, numbers))} ({source})"


def full(names: Iterable[str]) -> list[str]:
    """A row for each network."""
    lines = ["| preset | parameters | gmacs | clip | stated |", "|---|---|---|---|---|"]
    for name in names:
        mark, params, gmacs, clip = row(name)
        lines.append(f"| `{name}`{mark} | {params} | {gmacs} | {clip} | {stated(name)} |")
    return lines


def paired(names: list[str]) -> list[str]:
    """Two networks a row, the second half beside the first: for large families of one clip."""
    lines = ["| preset | parameters | gmacs | preset | parameters | gmacs |", "|---|---|---|---|---|---|"]
    half = (len(names) + 1) // 2
    for left, right in zip_longest(names[:half], names[half:]):
        lines.append(f"| {_short(left)} | {_short(right)} |")
    return lines


def _short(name: str | None) -> str:
    if name is None:
        return " |  | "
    mark, params, gmacs, _ = row(name)
    return f"`{name}`{mark} | {params} | {gmacs}"


def _of(*starts: str) -> list[str]:
    return [name for name in PRESETS if name.startswith(starts)]


RESIDUAL = ("r2d_", "fr2d_", "mc", "rmc", "r3d_", "r2plus1d_")
HARA = ("resnet3d", "preresnet3d", "wideresnet3d", "resnext3d", "hara_", "densenet3d")
HEAVY = ("bottom_heavy_i3d", "top_heavy_i3d", "top_heavy_s3d", "top_heavy_s3d_g")
CARREIRA_NETS = ["i3d", "i3d_flow", "two_stream_i3d", "inception_lstm", "fused_two_stream"]

GROUPS: dict[str, list[str]] = {
    "18 layers (Tran et al. 2018)": full(
        [*(name for name in _of(*RESIDUAL) if name.endswith("_18")), "torchvision_r2plus1d_18"]
    ),
    "34 layers, at 3x16x112x112": paired(
        [name for name in _of(*RESIDUAL) if name.endswith("_34") and name != "r2plus1d_34"]
    ),
    "R(2+1)D with 34 layers and more": full([f"r2plus1d_{layers}" for layers in (34, 50, 101, 152)]),
    "C3D (Tran et al. 2015)": full(_of("c3d")),
    "Channel-separated networks (Tran et al. 2019)": full(_of("ir_csn", "ip_csn")),
    "I3D and two streams (Carreira & Zisserman 2017)": full(CARREIRA_NETS),
    "S3D and its relatives (Xie et al. 2018)": full(["i2d", *_of("s3d"), "fast_s3d"]),
    "Bottom-heavy and top-heavy, at 3x64x224x224 (Xie et al. 2018)": paired(
        [name for family in HEAVY for layer in LAYERS if (name := f"{family}_{layer}") in PRESETS]
    ),
    "3D residual and dense networks, at 3x16x112x112 (Hara et al. 2018)": paired(_of(*HARA)),
    "ResNet-50 over time (Wang et al. 2018, Feichtenhofer et al. 2019, Lin et al. 2019)": full(
        [name for name in PRESETS if name.endswith("_r50")]
    ),
    "X3D (Feichtenhofer 2020)": full(_of("x3d")),
    "MoViNet (Kondratyuk et al. 2021)": full(_of("movinet")),
}


def main() -> None:
    """Prints the tables as Markdown."""
    print("\n\n".join("\n".join((f"### {title}", "", *table)) for title, table in GROUPS.items()))


if __name__ == "__main__":
    main()
