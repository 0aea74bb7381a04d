"""Convolutions over space or time alone as 2D ones: the same numbers, only where proved."""

import pytest
import torch
from torch.nn import functional as F

from archsearch.nets import flat
from archsearch.nets.build import build
from archsearch.nets.flat import Site, convolve, convolve_flat, may_be_flat
from archsearch.spec.presets import load_spec
from archsearch.spec.spec import with_clip

SITES = {
    "space": Site((2, 6, 3, 8, 9), (4, 6, 1, 3, 3), (1, 1, 1), (0, 1, 1), 1),
    "space, strided": Site((2, 6, 3, 8, 9), (4, 6, 1, 3, 3), (1, 2, 2), (0, 1, 1), 1),
    "time": Site((2, 6, 5, 4, 3), (4, 6, 3, 1, 1), (1, 1, 1), (1, 0, 0), 1),
    "time, strided": Site((2, 6, 5, 4, 3), (4, 6, 3, 1, 1), (2, 1, 1), (1, 0, 0), 1),
    "a place": Site((2, 6, 3, 4, 5), (4, 6, 1, 1, 1), (1, 1, 1), (0, 0, 0), 1),
    "every second place": Site((2, 6, 3, 4, 5), (4, 6, 1, 1, 1), (1, 2, 2), (0, 0, 0), 1),
    "a place, every second frame": Site((2, 6, 3, 4, 5), (4, 6, 1, 1, 1), (2, 2, 2), (0, 0, 0), 1),
    "depthwise, space": Site((2, 6, 3, 8, 9), (6, 1, 1, 3, 3), (1, 1, 1), (0, 1, 1), 6),
    "depthwise, time": Site((2, 6, 5, 4, 3), (6, 1, 3, 1, 1), (1, 1, 1), (1, 0, 0), 6),
}
BOTH = {
    "space and time": Site((2, 6, 5, 8, 9), (4, 6, 3, 3, 3), (1, 1, 1), (1, 1, 1), 1),
    "space, every second frame": Site((2, 6, 5, 8, 9), (4, 6, 1, 3, 3), (2, 2, 2), (0, 1, 1), 1),
    "time, every second place": Site((2, 6, 5, 8, 9), (4, 6, 3, 1, 1), (1, 2, 2), (1, 0, 0), 1),
    "padded in time": Site((2, 6, 5, 8, 9), (4, 6, 1, 3, 3), (1, 1, 1), (1, 1, 1), 1),
}
LAST = torch.channels_last_3d


@pytest.fixture(autouse=True)
def forgotten():
    flat._agrees.cache_clear()
    yield
    flat._agrees.cache_clear()


def operands(site):
    torch.manual_seed(0)
    x = torch.randn(site.shape).to(memory_format=LAST).requires_grad_()
    return x, torch.randn(site.kernel).requires_grad_(), torch.randn(site.kernel[0]).requires_grad_()


def plainly(x, weight, bias, site):
    return F.conv3d(x, weight, bias, site.stride, site.padding, 1, site.groups)


@pytest.mark.parametrize("name", SITES)
def test_a_flat_convolution_says_the_same_and_has_the_same_gradients(name):
    site = SITES[name]
    assert site.pointwise or site.spatial or site.temporal
    given = operands(site)
    fast, plain = convolve_flat(*given, site), plainly(*given, site)
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)
    assert fast.is_contiguous(memory_format=LAST)
    wanted = torch.randn_like(plain)
    for mine, its in zip(
        torch.autograd.grad(fast, given, wanted), torch.autograd.grad(plain, given, wanted), strict=True
    ):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BOTH)
def test_what_sees_space_and_time_stays_as_it_is(name, monkeypatch):
    site = BOTH[name]
    monkeypatch.setattr(flat, "convolve_flat", None)  # would fail if it were called
    given = operands(site)
    assert torch.equal(convolve(*given, site), plainly(*given, site))


@pytest.mark.parametrize("fault", ["output", "gradient", "nan"])
def test_a_wrong_kernel_is_not_used(fault, monkeypatch):
    site, called = SITES["time"], []

    def wrong(x, weight, bias, site):
        called.append(torch.is_grad_enabled())
        y = convolve_flat(x, weight, bias, site)
        if fault == "gradient":
            return y.detach() + 0.9 * (y - y.detach())
        return y * (1.01 if fault == "output" else float("nan"))

    monkeypatch.setattr(flat, "convolve_flat", wrong)
    given = operands(site)
    for _ in range(2):
        assert torch.equal(convolve(*given, site), plainly(*given, site))
    assert called == [True]  # tried once, and never again at this shape


def test_only_clips_that_lie_as_images_do_are_flat():
    clip = torch.randn(2, 3, 4, 8, 8)
    assert may_be_flat(clip.to(memory_format=LAST))
    assert not may_be_flat(clip)
    assert not may_be_flat(clip.double().to(memory_format=LAST))
    with torch.autocast("cpu", torch.bfloat16):
        assert not may_be_flat(clip.to(memory_format=LAST))


def test_a_network_uses_it_at_every_site_that_can_be(monkeypatch):
    used = []
    monkeypatch.setattr(flat, "convolve_flat", lambda *given: used.append(given[-1]) or convolve_flat(*given))
    net = build(with_clip(load_spec("r2plus1d_18"), (3, 4, 32, 32)), seed=0).eval()
    clip = torch.randn(1, 3, 4, 32, 32)
    with torch.inference_mode():
        plain = net(clip)
        assert not used
        fast = net.to(memory_format=LAST)(clip.to(memory_format=LAST))
    assert len(used) - len(set(used)) == 17 * 2 + 3  # every site has two kernels, and there are three shortcuts
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)


def test_random_numbers_of_a_training_are_left_alone():
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    convolve(*operands_without_seed(SITES["space"]), SITES["space"])
    assert torch.equal(torch.rand(3), wanted)


def operands_without_seed(site):
    return torch.ones(site.shape).to(memory_format=LAST), torch.ones(site.kernel), None
