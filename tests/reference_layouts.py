"""Forward passes of other projects' video networks, straight from a flat state dict in their own key layout.

Every forward takes (w, clip): the state dict and a clip batch (N, C, T, H, W). It gives logits (N, classes) as in eval
mode: running statistics, no dropout, no softmax. An importer that reads one of these layouts must agree with it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]
Forward = Callable[[Weights, Tensor], Tensor]
Triple = tuple[int, int, int]
ONE: Triple = (1, 1, 1)
TORCH_EPS = 1e-5  # torch's default, which nobody below overrides but the inception family
INCEPTION_EPS = 1e-3  # TensorFlow's habit


# ---- what all layouts share ----
def conv(w: Weights, key: str, x: Tensor, stride: Triple = ONE, padded: bool = True) -> Tensor:
    """One convolution, padded by k // 2 on both sides; groups follow from the shapes and a bias from the keys."""
    weight = w[f"{key}.weight"]
    bias = w[f"{key}.bias"] if f"{key}.bias" in w else None  # noqa: SIM401 - `reads` counts [] only
    padding = [k // 2 if padded else 0 for k in weight.shape[2:]]
    return F.conv3d(x, weight, bias, stride, padding, groups=x.shape[1] // weight.shape[1])


def norm(w: Weights, key: str, x: Tensor, eps: float = TORCH_EPS) -> Tensor:
    """Batch norm with its running statistics."""
    mean, var, scale, shift = (w[f"{key}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, scale, shift, False, 0.0, eps)


def conv_norm(w: Weights, conv_key: str, norm_key: str, x: Tensor, stride: Triple = ONE) -> Tensor:
    """Convolution and norm without activation, at torch's eps."""
    return norm(w, norm_key, conv(w, conv_key, x, stride))


def classify(w: Weights, key: str, x: Tensor) -> Tensor:
    """The mean over all places, then a linear layer."""
    return F.linear(x.mean((2, 3, 4)), w[f"{key}.weight"], w[f"{key}.bias"])


# ---- torchvision's residual networks: stem, layer1-4, fc ----
def torchvision_site(w: Weights, key: str, x: Tensor, stride: Triple) -> Tensor:
    """One 3D or 2D convolution, or a spatial one (0), norm (1), relu and a temporal one (3); then a norm."""
    if f"{key}.0.weight" in w:
        x = conv(w, f"{key}.0", x, stride)
    else:
        x = F.relu(conv_norm(w, f"{key}.0.0", f"{key}.0.1", x, (1, *stride[1:])))
        x = conv(w, f"{key}.0.3", x, (stride[0], 1, 1))
    return norm(w, f"{key}.1", x)


def torchvision_resnet(w: Weights, clip: Tensor, strides: Sequence[Triple]) -> Tensor:
    """R3D-18, MC3-18 and R(2+1)D-18 in torchvision's layout; the strides are those of layer1 to layer4."""
    x = F.relu(conv_norm(w, "stem.0", "stem.1", clip, (1, 2, 2)))
    if "stem.3.weight" in w:  # R(2+1)D: the temporal half of the stem
        x = F.relu(conv_norm(w, "stem.3", "stem.4", x))
    for layer, first in enumerate(strides, 1):
        for block, stride in enumerate((first, ONE)):
            key = f"layer{layer}.{block}"
            y = F.relu(torchvision_site(w, f"{key}.conv1", x, stride))
            y = torchvision_site(w, f"{key}.conv2", y, ONE)
            if f"{key}.downsample.0.weight" in w:
                x = conv_norm(w, f"{key}.downsample.0", f"{key}.downsample.1", x, stride)
            x = F.relu(x + y)
    return classify(w, "fc", x)


# ---- Hara's networks: conv1, bn1, a max pool, layer1-4 (or features), fc ----
def hara_site(w: Weights, prefix: str, number: int, x: Tensor, stride: Triple = ONE) -> Tensor:
    """convN and bnN, or convN_s, bnN_s, relu, convN_t and bnN_t with the stride split between them."""
    if f"{prefix}conv{number}_s.weight" not in w:
        return conv_norm(w, f"{prefix}conv{number}", f"{prefix}bn{number}", x, stride)
    x = F.relu(conv_norm(w, f"{prefix}conv{number}_s", f"{prefix}bn{number}_s", x, (1, *stride[1:])))
    return conv_norm(w, f"{prefix}conv{number}_t", f"{prefix}bn{number}_t", x, (stride[0], 1, 1))


def hara_block(w: Weights, key: str, x: Tensor, stride: Triple, convs: int, pre: bool) -> Tensor:
    """A basic block (2 convolutions) or a bottleneck (3), with the norms after or (pre-activation) before them."""
    y = x
    for number in range(1, convs + 1):
        at = stride if number == convs - 1 else ONE  # in the first of two, or the second of three
        if pre:
            y = conv(w, f"{key}.conv{number}", F.relu(norm(w, f"{key}.bn{number}", y)), at)
        else:
            y = hara_site(w, f"{key}.", number, y, at)
            y = F.relu(y) if number < convs else y
    if f"{key}.downsample.0.weight" in w:  # type B, of the raw input in pre-activation too
        x = conv_norm(w, f"{key}.downsample.0", f"{key}.downsample.1", x, stride)
    else:  # the identity, or type A: every other place, and zeros for the channels that lack
        x = x[:, :, :: stride[0], :: stride[1], :: stride[2]]
        x = F.pad(x, (0, 0, 0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
    return x + y if pre else F.relu(x + y)


def hara_resnet(w: Weights, clip: Tensor, depths: Sequence[int], convs: int, pre: bool = False) -> Tensor:
    """ResNet, R(2+1)D, ResNeXt, WideResNet and pre-activation ResNet in Hara's layout (no norm before the mean)."""
    x = F.max_pool3d(F.relu(hara_site(w, "", 1, clip, (1, 2, 2))), 3, 2, 1)
    for layer, depth in enumerate(depths, 1):
        for number in range(depth):
            stride = (2, 2, 2) if layer > 1 and number == 0 else ONE
            x = hara_block(w, f"layer{layer}.{number}", x, stride, convs, pre)
    return classify(w, "fc", x)


def hara_densenet(w: Weights, clip: Tensor, depths: Sequence[int]) -> Tensor:
    """DenseNet in Hara's layout: norm, relu, convolution throughout; norm5 and relu before the mean."""
    x = F.relu(conv_norm(w, "features.conv1", "features.norm1", clip, (1, 2, 2)))
    x = F.max_pool3d(x, 3, 2, 1)
    for block, depth in enumerate(depths, 1):
        for layer in range(1, depth + 1):
            key = f"features.denseblock{block}.denselayer{layer}"
            y = conv(w, f"{key}.conv1", F.relu(norm(w, f"{key}.norm1", x)))
            y = conv(w, f"{key}.conv2", F.relu(norm(w, f"{key}.norm2", y)))
            x = torch.cat([x, y], 1)
        if block < len(depths):
            key = f"features.transition{block}"
            x = F.avg_pool3d(conv(w, f"{key}.conv", F.relu(norm(w, f"{key}.norm", x))), 2, 2)
    return classify(w, "classifier", F.relu(norm(w, "features.norm5", x)))


# ---- the inception family: I3D and S3D ----
# A site is known by its name and branch: ("1a_7x7", ""), ("3b", "0"), ("3b", "1.0"), ("3b", "1.1"), ..., ("3b", "3.1").

Site = Callable[[str, str, Tensor, int], Tensor]  # (name, branch, x, stride) -> convolution(s), norm and relu
MIXED = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")
S3D_INDEX = {"1a_7x7": 0, "2b_1x1": 2, "2c_3x3": 3} | dict(zip(MIXED, (5, 6, 8, 9, 10, 11, 12, 14, 15), strict=True))


def inception(clip: Tensor, site: Site, same: bool) -> Tensor:
    """The trunk that I3D and S3D share; branch 3 is a max pool and a pointwise site."""
    pool = partial(max_pool, same=same)
    x = pool(site("1a_7x7", "", clip, 2), (1, 3, 3), (1, 2, 2))
    x = pool(site("2c_3x3", "", site("2b_1x1", "", x, 1), 1), (1, 3, 3), (1, 2, 2))
    for name in MIXED:
        if name in ("4b", "5b"):
            x = pool(x, (3, 3, 3) if name == "4b" else (2, 2, 2), (2, 2, 2))
        branches = [site(name, "0", x, 1)]
        branches += [site(name, f"{i}.1", site(name, f"{i}.0", x, 1), 1) for i in (1, 2)]
        branches += [site(name, "3.1", pool(x, (3, 3, 3), ONE), 1)]
        x = torch.cat(branches, 1)
    return x


def classify_windows(w: Weights, key: str, x: Tensor) -> Tensor:
    """Averages (2, all of h, all of w) with stride 1, classifies every position, and averages the positions."""
    x = F.avg_pool3d(x, (2, x.shape[3], x.shape[4]), 1)  # at 224 x 224, which they wrote it for, their 2 x 7 x 7
    return conv(w, key, x).mean((2, 3, 4))


def same_pad(x: Tensor, kernel: Sequence[int], stride: Triple) -> Tensor:
    """TensorFlow's 'same' with zeros, from the size at hand: of an odd total the far side gets one more."""
    pads: list[int] = []
    for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        total = max(k - (size % s or s), 0)
        pads = [total // 2, total - total // 2, *pads]  # F.pad starts at the last axis
    return F.pad(x, pads)


def max_pool(x: Tensor, kernel: Triple, stride: Triple, same: bool) -> Tensor:
    """Padded like TensorFlow (zeros, which change nothing behind a relu), or by 1 around a kernel of 3 and 0 of 2."""
    if same:
        return F.max_pool3d(same_pad(x, kernel, stride), kernel, stride)
    return F.max_pool3d(x, kernel, stride, tuple((k - 1) // 2 for k in kernel))


def s3d(w: Weights, clip: Tensor, prefix: str, parts: Sequence[str], head: str) -> Tensor:
    """S3D in torchvision's or kylemin's layout; `parts` are the ends of whole, spatial and temporal keys."""

    def unit(key: str, part: int, x: Tensor, stride: Triple = ONE) -> Tensor:
        conv_part, norm_part = parts[part].split()
        return F.relu(norm(w, key + norm_part, conv(w, key + conv_part, x, stride), INCEPTION_EPS))

    def site(name: str, branch: str, x: Tensor, stride: int) -> Tensor:
        key = f"{prefix}.{S3D_INDEX[name]}" + (f".branch{branch}" if branch else "")
        if prefix == "base" and branch == "0":
            key += ".0"  # kylemin's branch0 is a sequence of one
        if f"{key}{parts[0].split()[0]}.weight" in w:
            return unit(key, 0, x)
        return unit(key, 2, unit(key, 1, x, (1, stride, stride)), (stride, 1, 1))

    return classify_windows(w, head, inception(clip, site, same=False))


def i3d(w: Weights, clip: Tensor, head: str, piergiaj: bool = False) -> Tensor:
    """I3D in piergiaj's or hassony2's layout; piergiaj's own forward stops before the mean over time, taken here."""

    def site(name: str, branch: str, x: Tensor, stride: int) -> Tensor:
        if piergiaj:  # Conv3d_1a_7x7, Mixed_3b.b0, Mixed_3b.b1a, Mixed_3b.b1b, ...
            branch = branch.replace(".0", "a").replace(".1", "b")
            key, norm_part = f"Mixed_{name}.b{branch}" if branch else f"Conv3d_{name}", "bn"
        else:  # conv3d_1a_7x7, mixed_3b.branch_0, mixed_3b.branch_1.0, mixed_3b.branch_1.1, ...
            key, norm_part = f"mixed_{name}.branch_{branch}" if branch else f"conv3d_{name}", "batch3d"
        strides = (stride, stride, stride)
        x = same_pad(x, w[f"{key}.conv3d.weight"].shape[2:], strides)
        x = conv(w, f"{key}.conv3d", x, strides, padded=False)
        return F.relu(norm(w, f"{key}.{norm_part}", x, INCEPTION_EPS))

    return classify_windows(w, head, inception(clip, site, same=True))


# ---- pytorchvideo: blocks.0 is the stem, the last block is the head ----
def pytorchvideo_branch(w: Weights, key: str, x: Tensor, stride: Triple) -> Tensor:
    """conv_a, conv_b (strided; whole, or temporal first), conv_c; X3D gates and swishes after norm_b."""
    x = F.relu(conv_norm(w, f"{key}.conv_a", f"{key}.norm_a", x))
    if f"{key}.conv_b.weight" in w:
        x = conv(w, f"{key}.conv_b", x, stride)
    else:
        x = F.relu(conv_norm(w, f"{key}.conv_b.conv_t", f"{key}.conv_b.norm", x, (stride[0], 1, 1)))
        x = conv(w, f"{key}.conv_b.conv_xy", x, (1, *stride[1:]))
    if f"{key}.norm_b.weight" in w:
        x = F.relu(norm(w, f"{key}.norm_b", x))
    else:
        x = norm(w, f"{key}.norm_b.0", x)
        if f"{key}.norm_b.1.block.0.weight" in w:  # squeeze and excitation, in every second block
            gate = F.relu(conv(w, f"{key}.norm_b.1.block.0", x.mean((2, 3, 4), keepdim=True)))
            x = x * torch.sigmoid(conv(w, f"{key}.norm_b.1.block.2", gate))
        x = x * torch.sigmoid(x)
    return conv_norm(w, f"{key}.conv_c", f"{key}.norm_c", x)


def pytorchvideo_stage(w: Weights, key: str, x: Tensor, depth: int, first: Triple) -> Tensor:
    """`depth` bottlenecks; the shortcut has a convolution where sizes change, and a norm where channels change."""
    for number in range(depth):
        block, stride = f"{key}.res_blocks.{number}", first if number == 0 else ONE
        y = pytorchvideo_branch(w, f"{block}.branch2", x, stride)
        if f"{block}.branch1_conv.weight" in w:
            x = conv(w, f"{block}.branch1_conv", x, stride)
        if f"{block}.branch1_norm.weight" in w:
            x = norm(w, f"{block}.branch1_norm", x)
        x = F.relu(x + y)
    return x


# Their heads average a fixed window (8 x 7 x 7, 4 x 7 x 7, X3D's from its clip size), project every position, and
# average the positions. The window is the whole map at the clip it is made for, so here it is the mean over all places.
def pytorchvideo_r50(w: Weights, clip: Tensor, strides: Sequence[Triple], pools: Sequence[str]) -> Tensor:
    """Slow, C2D, I3D and R(2+1)D with 50 layers in pytorchvideo's layout; R(2+1)D's softmax in the head is left out."""
    x = F.relu(conv_norm(w, "blocks.0.conv", "blocks.0.norm", clip, (1, 2, 2)))
    if "stem" in pools:
        x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    blocks = (1, 3, 4, 5) if "stage1" in pools else (1, 2, 3, 4)  # a pool has a number, too
    for block, depth, stride in zip(blocks, (3, 4, 6, 3), strides, strict=True):
        x = pytorchvideo_stage(w, f"blocks.{block}", x, depth, stride)
        if block == 1 and "stage1" in pools:
            x = F.max_pool3d(x, (2, 1, 1), (2, 1, 1))
    return classify(w, f"blocks.{blocks[-1] + 1}.proj", x)


def pytorchvideo_x3d(w: Weights, clip: Tensor, depths: Sequence[int]) -> Tensor:
    """X3D in pytorchvideo's layout, where the stem's `conv_t` is the spatial and `conv_xy` the temporal convolution."""
    x = conv(w, "blocks.0.conv.conv_xy", conv(w, "blocks.0.conv.conv_t", clip, (1, 2, 2)))
    x = F.relu(norm(w, "blocks.0.norm", x))
    for block, depth in enumerate(depths, 1):
        x = pytorchvideo_stage(w, f"blocks.{block}", x, depth, (1, 2, 2))
    x = F.relu(conv_norm(w, "blocks.5.pool.pre_conv", "blocks.5.pool.pre_norm", x))
    x = F.relu(conv(w, "blocks.5.pool.post_conv", x.mean((2, 3, 4), keepdim=True)))
    return classify(w, "blocks.5.proj", x)


# ---- the tables ----
_ALL, _SPACE = (2, 2, 2), (1, 2, 2)
_HARA_18 = partial(hara_resnet, depths=(2, 2, 2, 2), convs=2)
_HARA_50 = partial(hara_resnet, depths=(3, 4, 6, 3), convs=3)
_SLOW = partial(pytorchvideo_r50, strides=(ONE, _SPACE, _SPACE, _SPACE), pools=("stem",))

LAYOUTS: dict[str, Forward] = {
    "torchvision_r3d_18": partial(torchvision_resnet, strides=(ONE, _ALL, _ALL, _ALL)),
    "torchvision_mc3_18": partial(torchvision_resnet, strides=(ONE, _SPACE, _SPACE, _SPACE)),
    "torchvision_r2plus1d_18": partial(torchvision_resnet, strides=(ONE, _ALL, _ALL, _ALL)),
    "torchvision_s3d": partial(s3d, prefix="features", parts=(".0 .1", ".0.0 .0.1", ".1.0 .1.1"), head="classifier.1"),
    "kylemin_s3d": partial(s3d, prefix="base", parts=(".conv .bn", ".conv_s .bn_s", ".conv_t .bn_t"), head="fc.0"),
    "piergiaj_i3d_rgb400": partial(i3d, head="logits.conv3d", piergiaj=True),
    "hassony2_i3d_rgb400": partial(i3d, head="conv3d_0c_1x1.conv3d"),
    **dict.fromkeys(("hara_resnet18", "hara_resnet18_shortcutA", "hara_resnet2p1d18"), _HARA_18),
    **dict.fromkeys(("hara_resnet50", "hara2018_resnext50_c32", "hara2018_wideresnet50_k2"), _HARA_50),
    "hara_densenet121": partial(hara_densenet, depths=(6, 12, 24, 16)),
    "hara2018_preresnet18_B": partial(_HARA_18, pre=True),
    "pytorchvideo_slow_r50": _SLOW,
    **dict.fromkeys(("pytorchvideo_c2d_r50", "pytorchvideo_i3d_r50"), partial(_SLOW, pools=("stem", "stage1"))),
    "pytorchvideo_r2plus1d_r50": partial(pytorchvideo_r50, strides=(_SPACE, _SPACE, _ALL, _ALL), pools=()),
    "pytorchvideo_x3d_s": partial(pytorchvideo_x3d, depths=(3, 5, 11, 7)),
}

_INCEPTIONS = ("torchvision_s3d", "kylemin_s3d", "piergiaj_i3d_rgb400", "hassony2_i3d_rgb400")
EPS: dict[str, float] = dict.fromkeys(LAYOUTS, TORCH_EPS) | dict.fromkeys(_INCEPTIONS, INCEPTION_EPS)

# Small clips. In the inception family every stride of 2 sees an even size, for which hassony2's padding (the remainder
# counts in time only) is TensorFlow's too, and two windows are left to classify.
_SIZES = {"torchvision": (3, 8, 56, 56), "hara2018": (3, 16, 48, 48), "hara": (3, 16, 48, 48)}
CLIPS: dict[str, tuple[int, int, int, int]] = {name: _SIZES.get(name.split("_")[0], (3, 8, 64, 64)) for name in LAYOUTS}
CLIPS |= dict.fromkeys(_INCEPTIONS, (3, 24, 64, 64)) | {"hara_densenet121": (3, 16, 64, 64)}


def random_weights(rows: Sequence[tuple[str, Sequence[int], str]], seed: int) -> dict[str, Tensor]:
    """A state dict for a layout's rows in which every value tells: what is left out, swapped or misread shows."""
    random = torch.Generator().manual_seed(seed)
    keys, state = {key for key, _, _ in rows}, {}
    for key, shape, dtype in rows:
        owner, _, kind = key.rpartition(".")
        if kind == "num_batches_tracked":
            value = torch.randint(1, 1001, tuple(shape), generator=random)
        elif kind == "running_var" or (kind == "weight" and f"{owner}.running_mean" in keys):
            value = torch.rand(tuple(shape), generator=random) + 0.5
        else:
            # running_mean and biases: 0.1. Weights: fan-in, less inside residual blocks, whose sums would pile up.
            residual = key.startswith("layer") or ".res_blocks." in key
            scale = ((1 if residual else 2) / torch.Size(shape[1:]).numel()) ** 0.5 if kind == "weight" else 0.1
            value = torch.randn(tuple(shape), generator=random) * scale
        state[key] = value.to(getattr(torch, dtype))
    return state


def reads(forward: Forward, w: Weights, clip: Tensor) -> set[str]:
    """The keys that a forward reads: all of a layout but num_batches_tracked."""
    read: set[str] = set()

    class Recorder(dict[str, Tensor]):
        def __getitem__(self, key: str) -> Tensor:
            read.add(key)
            return super().__getitem__(key)

    forward(Recorder(w), clip)
    return read
