"""Fitting without labels: what is solved is the least-squares solution, and norms that settle change no output."""

import numpy as np
import pytest
import torch
from torch import nn

from archsearch.nets.build import build
from archsearch.nets.surgery import calibrate
from archsearch.nets.surgery.calibrate import refit, settle_norms
from archsearch.nets.surgery.plan import steps
from archsearch.nets.surgery.transfer import transfer, weighed_steps
from archsearch.spec.spec import parse_spec

pytestmark = pytest.mark.usefixtures("one_thread")


def network(kinds=("3d", "3d"), kernel=3, width=6, **stem):
    """A stem and a residual block of these kinds of convolution."""
    stages = [
        {"kind": "conv", "name": "stem", "width": width, "kernel": kernel, "conv": kinds[0], **stem},
        {"kind": "residual", "name": "res2", "width": width, "depth": 1, "conv": kinds[1]},
        {"kind": "head", "name": "head", "classes": 3},
    ]
    return parse_spec({"name": "tiny", "clip": [3, 4, 8, 8], "stages": stages}, "tiny.yaml")


PRE = {"kind": "residual", "name": "res2", "width": 6, "depth": 2, "order": "norm-act-conv"}
DENSE = {"kind": "dense", "name": "res2", "growth": 6, "depth": 3}
UNNORMED = {"pre": PRE, "pre, gated": {**PRE, "gate": True}, "dense": DENSE, "dense, gated": {**DENSE, "gate": True}}


def unnormed(block, kind):
    """A stem and blocks whose last sites are read by a sum, a concat or a gate, and by no norm."""
    stages = [
        {"kind": "conv", "name": "stem", "width": 6},
        {**UNNORMED[block], "conv": kind},
        {"kind": "head", "name": "head", "classes": 3},
    ]
    return parse_spec({"name": "tiny", "clip": [3, 4, 8, 8], "stages": stages}, "tiny.yaml")


def batches(count=4, seed=0):
    """Clips whose frames are alike, as those of videos are."""
    generator = torch.Generator().manual_seed(seed)
    still = [torch.randn(4, 3, 1, 8, 8, generator=generator) for _ in range(count)]
    return [each + 0.3 * torch.randn(4, 3, 4, 8, 8, generator=generator) for each in still]


def trained(spec, seed=0):
    """Random weights whose norms have seen clips."""
    net = build(spec, seed=seed)
    torch.manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    with torch.no_grad():
        for clip in batches(8, seed=9):
            net.train()(clip)
    return net.eval()


def operated(old, new, clips, fit=True):
    """The trained old network, the new one after transfer (and fitting), and the plan."""
    net = trained(old)
    state, _ = transfer(old, net.state_dict(), new)
    after = build(new).eval()
    after.load_state_dict(state)
    sites = refit(net, after, weighed_steps(old, net.state_dict(), new), clips) if fit else []
    return net, after, sites


def error(net, other, clips):
    """Squared difference of logits over their variance."""
    with torch.no_grad():
        wanted, found = (torch.cat([each.eval()(clip) for clip in clips]) for each in (net, other))
    return float((wanted - found).square().mean() / wanted.var())


def test_a_plain_site_gets_the_least_squares_solution():
    old, new = network(("3d", "2d")), network(("2d", "2d"))
    clips = batches()
    net, after, sites = operated(old, new, clips)
    assert sites[0] == "stem.conv"
    with torch.no_grad():
        wanted = torch.cat([net.get_submodule("stem.conv")(clip) for clip in clips])
        target = wanted.movedim(1, -1).reshape(-1, 6).numpy()
        patches = torch.cat([nn.functional.pad(clip, (1, 1, 1, 1)) for clip in clips]).unfold(3, 3, 1).unfold(4, 3, 1)
        read = patches.movedim(1, 4).reshape(len(target), -1).numpy()
        read = np.concatenate([read, np.ones((len(read), 1))], 1)
        best = np.linalg.lstsq(read, target, rcond=None)[0]
    ours = after.get_submodule("stem.conv").weight.detach().reshape(6, -1).T.numpy()
    assert np.abs(ours - best[:-1]).max() < 0.02 * np.abs(best[:-1]).max()


@pytest.mark.parametrize("kinds", [("2d", "2d"), ("3d", "2d"), ("separable", "3d"), ("3d", "2+1d"), ("separable",) * 2])
def test_fitting_brings_outputs_closer_on_clips_it_has_not_seen(kinds):
    fitted_on, held_out = batches(8), batches(4, seed=5)
    old, new = network(("3d", "3d")), network(kinds)
    net, alone, _ = operated(old, new, fitted_on, fit=False)
    _, fitted, sites = operated(old, new, fitted_on)
    assert sites
    assert error(net, fitted, held_out) < 0.7 * error(net, alone, held_out)


@pytest.mark.parametrize("kind", ["2+1d", pytest.param("2d", marks=pytest.mark.slow)])
@pytest.mark.parametrize("block", UNNORMED)
def test_sites_that_no_norm_reads_are_fitted_as_well(block, kind):
    """What their outputs lack in the mean is made up for behind sums, concats and gates."""
    held_out = batches(4, seed=5)
    net, fitted, _ = operated(unnormed(block, "3d"), unnormed(block, kind), batches(8))
    assert error(net, fitted, held_out) < 0.03
    with torch.no_grad():
        wanted, found = (torch.cat([each(clip) for clip in held_out]) for each in (net, fitted))
    assert float((found - wanted).mean(0).norm() / wanted.std(0).norm()) < 0.3


def test_a_doubled_norm_stays_doubled():
    """Before a new gate, which lets half through."""
    old, new = network(), network(("2d", "3d"), gate=True)
    held_out = batches(4, seed=5)
    net, fitted, _ = operated(old, new, batches(8))
    _, alone, _ = operated(old, new, [], fit=False)
    with torch.no_grad():
        means = [
            each.get_submodule("stem.norm")(each.get_submodule("stem.conv")(torch.cat(held_out))).mean((0, 2, 3, 4))
            for each in (net, fitted)
        ]
    torch.testing.assert_close(2 * means[0], means[1], rtol=0, atol=0.1)
    assert error(net, fitted, held_out) < 0.7 * error(net, alone, held_out)


@pytest.mark.parametrize("block", UNNORMED)
def test_halves_are_lifted_only_where_that_is_taken_off(block):
    _, alone, _ = operated(unnormed(block, "3d"), unnormed(block, "2+1d"), [], fit=False)
    state = alone.state_dict()
    inner = [name for name in state if name.startswith("res2") and name.endswith("conv2.norm.bias")]
    assert inner
    assert not any(state[name].any() for name in inner)
    taken_off, _ = transfer(network(), trained(network()).state_dict(), network(("2+1d", "3d")))
    assert (taken_off["stem.conv.norm.bias"] > 0).all()


def test_fewer_channels_are_fitted_to_those_that_stay():
    """The heaviest channels stay, wherever they stand; a plan for others would fit them to what they are not."""
    old, new = network(width=8), network(width=6)
    clips, unseen = batches(), batches(seed=5)
    net = trained(old)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if (weight.ndim == 5 and len(weight) == 8) or "norm" in name:
                weight[:2] *= 0.3  # the first two channels say less than others
    state, _ = transfer(old, net.state_dict(), new)
    errors = []
    for plan in (None, weighed_steps(old, net.state_dict(), new), steps(old, new, {})):
        after = build(new).eval()
        after.load_state_dict(state)
        if plan is not None:
            refit(net, after, plan, clips)
        errors.append(error(net, after, unseen))
    alone, fitted, fitted_to_others = errors
    assert fitted < alone
    assert fitted < 0.2 * fitted_to_others


def test_sites_before_the_first_approximated_one_are_left_alone():
    old, new = network(("3d", "3d")), network(("3d", "2d"))
    net, after, sites = operated(old, new, batches())
    assert sites == ["res2.0.conv1", "res2.0.conv2"]
    assert torch.equal(net.state_dict()["stem.conv.weight"], after.state_dict()["stem.conv.weight"])


def test_fitting_leaves_the_old_network_alone_and_is_the_same_every_time():
    old, new = network(("3d", "3d")), network(("separable", "2d"))
    before = {name: tensor.clone() for name, tensor in trained(old).state_dict().items()}
    net, first, _ = operated(old, new, batches())
    _, again, _ = operated(old, new, batches())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in first.state_dict().items())


STRIDES = [
    ([1, 1, 1], [1, 2, 2], 0.8, 0.5),
    ([1, 2, 2], [1, 1, 1], 0.4, 0.3),  # three of four places are beside the one that they are fitted to
    ([2, 2, 2], [1, 2, 2], 0.8, 0.5),
    ([1, 2, 1], [2, 1, 2], 0.4, 0.3),
]


@pytest.mark.parametrize(("before", "after", "plain", "factorised"), STRIDES)
def test_a_site_of_another_stride_is_fitted_to_the_same_places(before, after, plain, factorised):
    """At the places of the clip that both have, it gives what the old one did."""
    held_out = torch.cat(batches(4, seed=5))
    for kind, least in (("2d", plain), ("separable", factorised)):
        net, fitted, sites = operated(network(stride=before), network((kind, "3d"), stride=after), batches(8))
        assert sites[0] == "stem.conv"
        assert fitted(held_out).isfinite().all()
        with torch.no_grad():
            given = [each.get_submodule("stem.conv")(held_out) for each in (net, fitted)]
        for axis, strides in enumerate(zip(before, after, strict=True), start=2):
            steps_of = [max(strides) // stride for stride in strides]
            given = [
                each[(slice(None),) * axis + (slice(None, None, step),)]
                for each, step in zip(given, steps_of, strict=True)
            ]
        assert torch.corrcoef(torch.stack([each.flatten() for each in given]))[0, 1] > least


def test_fitting_stays_on_the_device_of_networks_and_clips():
    """On the device without values, which refuses tensors of others."""
    old, new = network(bias=True, norm=False), network(("separable", "2d"), bias=True, norm=False)
    plan = weighed_steps(old, trained(old).state_dict(), new)
    clips = [clip.to("meta") for clip in batches(2)]
    after = build(new).to("meta")
    assert refit(build(old).to("meta"), after, plan, clips) == ["stem.conv", "res2.0.conv1", "res2.0.conv2"]
    assert {tensor.device.type for tensor in after.state_dict().values()} == {"meta"}


def test_pairs_for_the_descent_are_seen_until_they_hold_enough(monkeypatch):
    monkeypatch.setattr(calibrate, "HELD_BYTES", 100)
    pairs = ((torch.zeros(5), torch.zeros(5)) for _ in range(9))  # of 40 bytes
    assert len(calibrate._within_budget(pairs)) == 3
    assert len(list(pairs)) == 6


def test_an_exact_operation_has_nothing_to_fit():
    old = network(("2d", "2d"))
    net, after, sites = operated(old, network(("3d", "2d")), batches())
    assert sites == []
    assert error(net, after, batches(2, seed=3)) < 1e-10


def test_norms_that_settle_have_the_statistics_of_what_they_read_and_change_no_output():
    net = trained(network(("separable", "3d")))
    clips = batches(4, seed=2)
    with torch.no_grad():
        before = [net(clip) for clip in clips]
    settle_norms(net, clips)
    with torch.no_grad():
        after = [net.eval()(clip) for clip in clips]
    assert max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(after, before, strict=True)) < 1e-5
    norm = net.get_submodule("stem.norm")
    with torch.no_grad():
        read = torch.cat([net.get_submodule("stem.conv")(clip) for clip in clips])
    assert torch.allclose(norm.running_mean, read.mean((0, 2, 3, 4)), atol=1e-5)
    assert torch.allclose(norm.running_var, read.var((0, 2, 3, 4), correction=0), rtol=1e-4)


def test_a_bias_takes_what_outputs_lack():
    old, new = network(("3d", "3d"), bias=True, norm=False), network(("2d", "3d"), bias=True, norm=False)
    clips = batches(8)
    net, after, _ = operated(old, new, clips)
    with torch.no_grad():
        wanted, found = (
            torch.cat([each.get_submodule("stem.conv")(clip) for clip in clips]).mean((0, 2, 3, 4))
            for each in (net, after)
        )
    assert torch.allclose(wanted, found, atol=0.02 * float(wanted.abs().max()))
