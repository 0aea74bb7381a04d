"""Folded norms: the same function, and none left behind a convolution."""

import pytest
import torch
from torch import nn

from archsearch.nets.build import build
from archsearch.nets.fold import folded
from archsearch.spec.presets import load_spec
from archsearch.spec.spec import with_clip

CLIP = (3, 16, 32, 32)
NAMES = {"r3d_18": 0, "r2plus1d_18": 0, "densenet3d_121": None}  # preset: norms that are left
MORE = {"s3d_g": 0, "resnext3d_101": 0, "preresnet3d_18": None, "x3d_s": 0, "c3d_bn": 0}


def trained(name):
    """A network whose norms have seen something."""
    torch.manual_seed(0)
    net = build(with_clip(load_spec(name), CLIP), seed=0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return net.eval()


@pytest.mark.parametrize("name", [*NAMES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_a_folded_network_says_the_same(name):
    net, clip = trained(name), torch.randn(2, *CLIP)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    fast = folded(net)
    with torch.inference_mode():
        wanted, found = net(clip), fast(clip)
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-5
    norms = sum(isinstance(module, nn.BatchNorm3d) for module in fast.modules())
    every = sum(isinstance(module, nn.BatchNorm3d) for module in net.modules())
    left = (NAMES | MORE)[name]
    assert norms == left if left is not None else 0 < norms < every
    assert all(torch.equal(net.state_dict()[key], value) for key, value in before.items())


def test_a_network_in_training_is_folded_as_it_evaluates():
    net, clip = trained("r3d_18"), torch.randn(2, *CLIP)
    with torch.inference_mode():
        wanted = net(clip)
        found = folded(net.train())(clip)
    assert net.training
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
