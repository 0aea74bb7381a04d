"""What is computed again in the backward pass: the same bits, and less kept."""

import gc

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from archsearch.nets.build import build
from archsearch.nets.recompute import Cheap, Saved, recomputing
from archsearch.spec.spec import parse_spec
from archsearch.training.optimiser import fresh_state, step
from archsearch.training.recipe import Recipe

CLIP = (3, 4, 16, 16)
BLOCKS = {
    "3d": {"kind": "residual", "width": 16, "depth": 3},
    "2d": {"kind": "residual", "width": 16, "depth": 2, "conv": "2d"},
    "2+1d": {"kind": "residual", "width": 16, "depth": 2, "conv": "2+1d"},
    "norm first": {"kind": "residual", "width": 16, "depth": 3, "order": "norm-act-conv"},
    "gated bottleneck": {"kind": "residual", "width": 32, "depth": 2, "bottleneck": 0.5, "gate": True},
    "shortcut of zeros": {"kind": "residual", "width": 32, "depth": 2, "shortcut": "pad"},
    "inverted": {"kind": "inverted", "width": 16, "depth": 3, "act": "silu", "inner_act": "hardswish", "rezero": True},
    "dense": {"kind": "dense", "depth": 3, "growth": 8},
    "inception": {"kind": "inception", "widths": [8, 8, 8, 4, 8, 8], "conv": "separable", "gate": True},
}


def spec_of(block):
    """A network with one kind of block."""
    stages = [
        {"kind": "conv", "name": "stem", "width": 16, "stride": [1, 2, 2]},
        {"name": "res2", **BLOCKS[block]},
        {"kind": "head", "name": "head", "classes": 5, "dropout": 0.5},
    ]
    return parse_spec({"name": "tiny", "clip": CLIP, "stages": stages}, "tiny.yaml")


def network(block):
    return build(spec_of(block), seed=0).to(memory_format=torch.channels_last_3d).train()


def some_clips():
    torch.manual_seed(0)
    return torch.randn(2, *CLIP).contiguous(memory_format=torch.channels_last_3d)


def trained(net, clips, again, dtype=torch.float32):
    """The loss, every gradient and every statistic of a step."""
    torch.manual_seed(1)  # dropout
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        if again:
            with recomputing():
                logits = net(clips)
        else:
            logits = net(clips)
    loss = F.cross_entropy(logits.float(), torch.tensor([0, 1]))
    loss.backward()
    return [loss.detach(), *(weight.grad for weight in net.parameters()), *net.buffers()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block", BLOCKS)
def test_gradients_and_statistics_are_the_same_bits(block, dtype):
    plain, again = (trained(network(block), some_clips(), again, dtype) for again in (False, True))
    assert all(torch.equal(mine, its) for mine, its in zip(again, plain, strict=True))


def size(tensors, net):
    """Bytes of the memory behind some tensors, but for the network's own."""
    own = {each.untyped_storage().data_ptr() for each in [*net.parameters(), *net.buffers()]}
    found = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
    return sum(nbytes for place, nbytes in found.items() if place not in own)


def kept_plainly(net, clips):
    kept = []
    with saved_tensors_hooks(lambda tensor: kept.append(tensor.detach()) or tensor, lambda tensor: tensor):
        net(clips)
    return size(kept, net)


def kept_here(net, clips):
    gc.collect()
    with recomputing():
        logits = net(clips)
    every = gc.get_objects()
    saved = [each.tensor for each in every if type(each) is Saved and each.tensor is not None]
    held = [each.held for each in every if type(each) is Cheap and each.held is not None]
    del every
    assert logits.requires_grad  # its graph lives
    return size([*saved, *held], net)


@pytest.mark.parametrize("block", BLOCKS)
def test_less_is_kept(block):
    net, clips = network(block), some_clips()
    share = kept_here(net, clips) / kept_plainly(net, clips)
    print(block, share)
    assert share < 0.75


def test_nothing_stays_after_the_backward_pass():
    net, clips = network("3d"), some_clips()
    trained(net, clips, again=True)
    gc.collect()
    assert not [each for each in gc.get_objects() if type(each) in (Saved, Cheap)]


def test_what_was_written_over_is_kept_as_it_was_saved():
    x = torch.randn(4, 5, requires_grad=True)
    with recomputing():
        y = F.relu(x * 1.0)
        z = y * y  # keeps y
        total = z.sum()
        y.detach().zero_()
    (gradient,) = torch.autograd.grad(total, x, retain_graph=True)
    assert torch.equal(gradient, 2 * x.detach().clamp(min=0))
    assert torch.equal(torch.autograd.grad(total, x)[0], gradient)


def test_a_recipe_asks_for_it():
    clips, labels = some_clips(), torch.tensor([0, 1])
    found = []
    for recompute in (False, True):
        recipe = Recipe(batch=2, recompute=recompute, accumulate=2)
        net = network("3d")
        state = fresh_state(net, spec_of("3d"), recipe)
        torch.manual_seed(1)  # dropout
        losses = [step(state, recipe, clips, labels, 1e-3, 2)[0] for _ in range(2)]
        found.append((losses, [weight.detach().clone() for weight in net.parameters()]))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(mine, its) for mine, its in zip(found[0][1], found[1][1], strict=True))


def test_not_of_a_compiled_network():
    with pytest.raises(ValueError, match="recompute: a compiled network decides on its own"):
        Recipe(recompute=True, compile=True)
