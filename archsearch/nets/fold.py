"""Norms folded into the convolutions before them: the same function in evaluation, with fewer passes over memory."""

from copy import deepcopy

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def folded(net: fx.GraphModule) -> fx.GraphModule:
    """A copy of a network for evaluation alone, without the norms that stand behind a convolution.

    A norm there is a scale and a shift of each channel, which the kernel and a bias take over (Jacob et al. 2018,
    section 3.2). Norms that stand before convolutions, as in pre-activation networks, stay.
    """
    net = deepcopy(net).eval()
    for site in list(net.modules()):
        if isinstance(site, nn.Sequential):
            _fold_inside(site)
    for node in list(net.graph.nodes):
        norm = _module(net, node)
        if not isinstance(norm, nn.BatchNorm3d) or len(node.args[0].users) > 1:
            continue
        before = node.args[0]
        conv = _module(net, before)
        if isinstance(conv, nn.Sequential) and isinstance(conv[-1], nn.Conv3d):
            conv[-1] = fuse_conv_bn_eval(conv[-1], norm)
        elif isinstance(conv, nn.Conv3d):
            net.set_submodule(before.target, fuse_conv_bn_eval(conv, norm))
        else:
            continue
        node.replace_all_uses_with(before)
        net.graph.erase_node(node)
    net.delete_all_unused_submodules()
    net.recompile()
    return net


def _fold_inside(site: nn.Sequential) -> None:
    """The norm between the two kernels of a site."""
    for place in range(len(site) - 1):
        conv, norm = site[place], site[place + 1]
        if isinstance(conv, nn.Conv3d) and isinstance(norm, nn.BatchNorm3d):
            site[place], site[place + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()


def _module(net: fx.GraphModule, node: object) -> nn.Module | None:
    """What a node of the graph calls, if it is a module."""
    if isinstance(node, fx.Node) and node.op == "call_module":
        return net.get_submodule(str(node.target))
    return None
