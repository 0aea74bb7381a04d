"""Published networks, by name, each with the paper it is from."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from archsearch.errors import SpecError
from archsearch.files import near_name
from archsearch.spec.graph import Kind
from archsearch.spec.spec import Clip, Spec, read_spec
from archsearch.spec.stages import ConvStage, HeadStage, Mid, ResidualStage, Stage

CLIP: Clip = (3, 16, 112, 112)
KINETICS_CLASSES = 400
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)
STEM_MID = 45  # of R(2+1)D's stem: a constant of the authors' code, the formula gives 83


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


def _prefix(first: Kind, rest: Kind, count: int) -> tuple[Kind, ...]:
    return (first,) * count + (rest,) * (5 - count)


def _tran(layers: int) -> dict[str, Callable[[], Spec]]:
    """The networks of Tran et al. 2018, table 2: group x of MCx and rMCx counts the stem as 1."""
    kinds: dict[str, tuple[Kind, ...]] = {f"fr2d_{layers}": _prefix("2d", "2d", 5)}
    kinds |= {f"mc{x}_{layers}": _prefix("3d", "2d", x - 1) for x in range(2, 6)}
    kinds |= {f"rmc{x}_{layers}": _prefix("2d", "3d", x - 1) for x in range(2, 6)}
    kinds |= {f"r3d_{layers}": _prefix("3d", "3d", 5), f"r2plus1d_{layers}": _prefix("2+1d", "2+1d", 5)}
    networks: dict[str, Callable[[], Spec]] = {
        name: partial(resnet, name, layers, pattern) for name, pattern in kinds.items()
    }
    r2d = f"r2d_{layers}"
    return {r2d: partial(resnet, r2d, layers, _prefix("2d", "2d", 5), folded=True), **networks}


PRESETS: dict[str, Callable[[], Spec]] = {
    **_tran(18),
    **_tran(34),
    "torchvision_r2plus1d_18": partial(resnet, "torchvision_r2plus1d_18", 18, _prefix("2+1d", "2+1d", 5), mid="block"),
}


def preset(name: str) -> Spec:
    """The published network of that name. Raises SpecError with a near name."""
    if name not in PRESETS:
        hint = near_name(name, PRESETS) or "; `archsearch presets` lists them, and a file's name ends in .yaml"
        raise SpecError(f"there is no preset '{name}'{hint}")
    return PRESETS[name]()


def load_spec(name_or_path: str) -> Spec:
    """A preset's network, or the one of a YAML file or of a trained network's folder. Raises SpecError."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        return read_spec(path)
    if (path / "spec.yaml").exists():
        return read_spec(path / "spec.yaml")
    return preset(name_or_path)
