"""Networks of images in torchvision's (and timm's) layout: names and shapes of their tensors, and their forward passes.

Every forward takes (w, images): a flat state dict and (N, 3, H, W). It gives logits (N, classes) as in eval mode. Rows
are (key, shape, dtype), as `random_weights` takes them.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from reference_layouts import INCEPTION_EPS, TORCH_EPS, norm
from torch import Tensor

Weights = Mapping[str, Tensor]
Row = tuple[str, tuple[int, ...], str]
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
DENSE_DEPTHS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}
INCEPTION = {  # 1x1; 3x3 reduced, 3x3; "5x5" reduced, "5x5"; pooled
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


# ---- rows ----
def conv_row(key: str, out: int, c_in: int, side: int) -> list[Row]:
    return [(f"{key}.weight", (out, c_in, side, side), "float32")]


def norm_rows(key: str, channels: int) -> list[Row]:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return [
        *((f"{key}.{leaf}", (channels,), "float32") for leaf in leaves),
        (f"{key}.num_batches_tracked", (), "int64"),
    ]


def linear_rows(key: str, out: int, c_in: int) -> list[Row]:
    return [(f"{key}.weight", (out, c_in), "float32"), (f"{key}.bias", (out,), "float32")]


def resnet_rows(
    depths: Sequence[int],
    widths: Sequence[int] = (64, 128, 256, 512),
    *,
    stem: int = 64,
    bottleneck: bool = False,
    groups: int = 1,
    group_width: int = 64,
    classes: int = 1000,
) -> list[Row]:
    """A ResNet, wide ResNet (a group width of 128) or ResNeXt (32 groups, each of 4 for 32x4d)."""
    rows = [*conv_row("conv1", stem, 3, 7), *norm_rows("bn1", stem)]
    read = stem
    for layer, (depth, width) in enumerate(zip(depths, widths, strict=True), 1):
        out, inner = (4 * width, width * group_width // 64 * groups) if bottleneck else (width, width)
        for block in range(depth):
            key = f"layer{layer}.{block}."
            sites = [(inner, read, 1), (inner, inner // groups, 3), (out, inner, 1)]
            for number, (to, c_in, side) in enumerate(sites if bottleneck else [(out, read, 3), (out, out, 3)], 1):
                rows += [*conv_row(f"{key}conv{number}", to, c_in, side), *norm_rows(f"{key}bn{number}", to)]
            if block == 0 and (layer > 1 or read != out):
                rows += [*conv_row(f"{key}downsample.0", out, read, 1), *norm_rows(f"{key}downsample.1", out)]
            read = out
    return [*rows, *linear_rows("fc", classes, read)]


def googlenet_rows(classes: int = 1000, aux: bool = True) -> list[Row]:
    """GoogLeNet; published files hold its auxiliary classifiers, too."""

    def unit(key: str, out: int, c_in: int, side: int) -> list[Row]:
        return [*conv_row(f"{key}.conv", out, c_in, side), *norm_rows(f"{key}.bn", out)]

    rows = [*unit("conv1", 64, 3, 7), *unit("conv2", 64, 64, 1), *unit("conv3", 192, 64, 3)]
    read = 192
    for name, (a, b1, b2, c1, c2, d) in INCEPTION.items():
        key = f"inception{name}.branch"
        rows += [*unit(f"{key}1", a, read, 1), *unit(f"{key}2.0", b1, read, 1), *unit(f"{key}2.1", b2, b1, 3)]
        rows += [*unit(f"{key}3.0", c1, read, 1), *unit(f"{key}3.1", c2, c1, 3), *unit(f"{key}4.1", d, read, 1)]
        read = a + b2 + c2 + d
    for number, c_in in ((1, 512), (2, 528)) if aux else ():
        rows += [*unit(f"aux{number}.conv", 128, c_in, 1), *linear_rows(f"aux{number}.fc1", 1024, 2048)]
        rows += linear_rows(f"aux{number}.fc2", classes, 1024)
    return [*rows, *linear_rows("fc", classes, read)]


def densenet_rows(depths: Sequence[int], *, growth: int = 32, stem: int = 64, classes: int = 1000) -> list[Row]:
    """DenseNet-BC as it names its tensors today (`norm1`); published files have `norm.1`."""
    rows = [*conv_row("features.conv0", stem, 3, 7), *norm_rows("features.norm0", stem)]
    read = stem
    for block, depth in enumerate(depths, 1):
        for layer in range(1, depth + 1):
            key = f"features.denseblock{block}.denselayer{layer}."
            rows += [*norm_rows(f"{key}norm1", read), *conv_row(f"{key}conv1", 4 * growth, read, 1)]
            rows += [*norm_rows(f"{key}norm2", 4 * growth), *conv_row(f"{key}conv2", growth, 4 * growth, 3)]
            read += growth
        if block < len(depths):
            key = f"features.transition{block}."
            rows += [*norm_rows(f"{key}norm", read), *conv_row(f"{key}conv", read // 2, read, 1)]
            read //= 2
    return [*rows, *norm_rows("features.norm5", read), *linear_rows("classifier", classes, read)]


# ---- forward passes ----
def conv(w: Weights, key: str, x: Tensor, stride: int = 1) -> Tensor:
    """Padded by k // 2; groups follow from the shapes."""
    weight = w[f"{key}.weight"]
    return F.conv2d(x, weight, None, stride, weight.shape[2] // 2, groups=x.shape[1] // weight.shape[1])


def conv_norm(w: Weights, conv_key: str, norm_key: str, x: Tensor, stride: int = 1, eps: float = TORCH_EPS) -> Tensor:
    return norm(w, norm_key, conv(w, conv_key, x, stride), eps)


def classify(w: Weights, key: str, x: Tensor) -> Tensor:
    return F.linear(x.mean((2, 3)), w[f"{key}.weight"], w[f"{key}.bias"])


def resnet_features(w: Weights, images: Tensor, pooled: bool = True) -> Tensor:
    """What a ResNet gives its classifier, before the mean over places; bottlenecks stride in their 3x3."""
    x = F.relu(conv_norm(w, "conv1", "bn1", images, 2))
    x = F.max_pool2d(x, 3, 2, 1) if pooled else x
    blocks = dict.fromkeys(key.rsplit(".", 2)[0] for key in w if key.endswith("conv2.weight"))
    for key in blocks:  # layer1.0, layer1.1, ...
        stride = 2 if key.endswith(".0") and not key.startswith("layer1.") else 1
        last = 3 if f"{key}.conv3.weight" in w else 2
        y = x
        for number in range(1, last + 1):
            y = conv_norm(w, f"{key}.conv{number}", f"{key}.bn{number}", y, stride if number == last - 1 else 1)
            y = F.relu(y) if number < last else y
        if f"{key}.downsample.0.weight" in w:
            x = conv_norm(w, f"{key}.downsample.0", f"{key}.downsample.1", x, stride)
        x = F.relu(x + y)
    return x


def resnet(w: Weights, images: Tensor, pooled: bool = True) -> Tensor:
    """ResNet, wide ResNet and ResNeXt; `pooled` says whether a max pool is behind the stem."""
    return classify(w, "fc", resnet_features(w, images, pooled))


def googlenet(w: Weights, images: Tensor) -> Tensor:
    """GoogLeNet, whose pools keep the rest of a window at the far end; the "5x5" sites are 3x3."""

    def unit(key: str, x: Tensor, stride: int = 1) -> Tensor:
        return F.relu(conv_norm(w, f"{key}.conv", f"{key}.bn", x, stride, INCEPTION_EPS))

    x = F.max_pool2d(unit("conv1", images, 2), 3, 2, ceil_mode=True)
    x = F.max_pool2d(unit("conv3", unit("conv2", x)), 3, 2, ceil_mode=True)
    for name in INCEPTION:
        if name in ("4a", "5a"):
            x = F.max_pool2d(x, 3 if name == "4a" else 2, 2, ceil_mode=True)
        key = f"inception{name}.branch"
        branches = [unit(f"{key}1", x), *(unit(f"{key}{n}.1", unit(f"{key}{n}.0", x)) for n in (2, 3))]
        x = torch.cat([*branches, unit(f"{key}4.1", F.max_pool2d(x, 3, 1, 1))], 1)
    return classify(w, "fc", x)


def densenet(w: Weights, images: Tensor) -> Tensor:
    """DenseNet: norm, relu, convolution throughout; norm5 and relu before the mean."""
    x = F.max_pool2d(F.relu(conv_norm(w, "features.conv0", "features.norm0", images, 2)), 3, 2, 1)
    parts = dict.fromkeys(key.rsplit(".", 2)[0] for key in w if "block" in key or "transition" in key)
    for key in parts:  # denseblock1.denselayer1, ..., transition1, ...
        if "transition" in key:
            x = F.avg_pool2d(conv(w, f"{key}.conv", F.relu(norm(w, f"{key}.norm", x))), 2)
            continue
        y = conv(w, f"{key}.conv1", F.relu(norm(w, f"{key}.norm1", x)))
        x = torch.cat([x, conv(w, f"{key}.conv2", F.relu(norm(w, f"{key}.norm2", y)))], 1)
    return classify(w, "classifier", F.relu(norm(w, "features.norm5", x)))
