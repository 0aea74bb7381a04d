"""Fast paths prove themselves: lower precision is used at a convolution only after it agreed with the plain path.

For every distinct convolution of a network, at the shape it meets, forward and both gradients in bfloat16 are
compared with float32 on this device. Where they differ, the site computes in float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from archsearch.nets.layers import Conv3d

TOLERANCE = 0.05  # relative L2 error; bfloat16 rounding leaves under 0.01, a wrong kernel is off by 0.5 and more

Signature = tuple[object, ...]


def fastest_precision(device: str) -> str:
    """What the device computes convolutions fastest in: "bf16" where it has instructions for it, not by emulation.

    Without them bfloat16 takes two to three times as long as float32 on a CPU; a GPU has float16 then.
    """
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    known = torch.cpu.get_capabilities()
    return "bf16" if known.get("avx512_bf16") or known.get("amx_bf16") else "fp32"


def prove_bf16(net: nn.Module, *clips_NCTHW: Tensor) -> list[str]:
    """Sets `plain` on every convolution whose bfloat16 path is wrong at a shape it meets; returns their names.

    Each clip is a batch of a size that training will use.
    """
    refused: dict[str, None] = {}
    for clip in clips_NCTHW:
        refused |= dict.fromkeys(_wrong_sites(net, clip))
    for name in refused:
        net.get_submodule(name).plain = True  # type: ignore[assignment]
    return list(refused)


def _wrong_sites(net: nn.Module, clip_NCTHW: Tensor) -> list[str]:
    shapes = _input_shapes(net, clip_NCTHW)
    verdicts: dict[Signature, bool] = {}
    refused = []
    for name, module in net.named_modules():
        if not isinstance(module, Conv3d):
            continue
        signature = (shapes[name], module.weight.shape, module.stride, module.padding, module.extra, module.groups)
        if signature not in verdicts:
            verdicts[signature] = _agrees(module, shapes[name], clip_NCTHW)
        module.plain = not verdicts[signature]
        refused += [name] if module.plain else []
    return refused


def _input_shapes(net: nn.Module, clip_NCTHW: Tensor) -> dict[str, tuple[int, ...]]:
    """The shape of what each convolution reads."""
    shapes: dict[str, tuple[int, ...]] = {}
    modes = {module: module.training for module in net.modules()}
    try:
        with _hooks(net, shapes), torch.no_grad():
            net.eval()(clip_NCTHW)
    finally:
        for module, training in modes.items():
            module.training = training
    return shapes


@contextmanager
def _hooks(net: nn.Module, shapes: dict[str, tuple[int, ...]]) -> Iterator[None]:
    def record(name: str) -> object:
        return lambda _, read: shapes.__setitem__(name, tuple(read[0].shape))

    handles = [
        module.register_forward_pre_hook(record(name))  # type: ignore[arg-type]
        for name, module in net.named_modules()
        if isinstance(module, Conv3d)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _agrees(conv: Conv3d, shape: tuple[int, ...], clip_NCTHW: Tensor) -> bool:
    """Whether output and both gradients agree between bfloat16 and float32, on the clip's device and in its layout."""
    last = clip_NCTHW.is_contiguous(memory_format=torch.channels_last_3d)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    x = x.to(clip_NCTHW.device, memory_format=torch.channels_last_3d if last else torch.contiguous_format)
    conv.plain = True
    plain = _forward_backward(conv, x, bf16=False)
    conv.plain = False
    fast = _forward_backward(conv, x, bf16=True)
    return all(_error(a, b) < TOLERANCE for a, b in zip(fast, plain, strict=True))


def _forward_backward(conv: Conv3d, x: Tensor, *, bf16: bool) -> tuple[Tensor, Tensor, Tensor]:
    x = x.clone().requires_grad_()
    weight = conv.weight.detach().clone().requires_grad_()  # a copy: the network's own gradients stay as they are
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        y: Tensor = torch.func.functional_call(conv, {"weight": weight}, (x,))
    x_grad, weight_grad = torch.autograd.grad(y.float().square().sum(), (x, weight))
    return y.detach().float(), x_grad, weight_grad


def _error(fast: Tensor, plain: Tensor) -> float:
    """Relative L2 error; infinite where the fast path is not finite."""
    if not torch.isfinite(fast).all():
        return float("inf")
    return float((fast - plain).norm() / plain.norm().clamp_min(1e-12))
