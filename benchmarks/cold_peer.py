"""One count of R3D-18 by a peer, for `cold_start.py`: prints the multiply-adds of convolutions and linear maps.

    python benchmarks/cold_peer.py fvcore | torch

The network is written in plain torch, so that nothing of ours is loaded.
"""

import sys

import torch
from torch import Tensor, nn

CLIP = (1, 3, 16, 112, 112)


class Block(nn.Module):
    """Two 3D convolutions and a shortcut (Tran et al. 2018)."""

    def __init__(self, c_in: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv3d(c_in, out, 3, stride, 1, bias=False), nn.BatchNorm3d(out)
        self.conv2, self.norm2 = nn.Conv3d(out, out, 3, 1, 1, bias=False), nn.BatchNorm3d(out)
        self.relu, self.skip = nn.ReLU(), nn.Sequential()
        if stride > 1:
            self.skip = nn.Sequential(nn.Conv3d(c_in, out, 1, stride, bias=False), nn.BatchNorm3d(out))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, out, T', H', W')."""
        y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        activated: Tensor = self.relu(y + self.skip(x))
        return activated


def r3d_18() -> nn.Module:
    """R3D-18 of 400 classes."""
    stem = nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False), nn.BatchNorm3d(64), nn.ReLU()
    blocks: list[nn.Module] = []
    for c_in, out in ((64, 64), (64, 128), (128, 256), (256, 512)):
        blocks += [Block(c_in, out, 1 if c_in == out else 2), Block(out, out, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(512, 400)).eval()


def fvcore_macs() -> int:
    """Fvcore traces the network, on real tensors: it fails on those without memory."""
    from fvcore.nn import FlopCountAnalysis

    with torch.no_grad():
        counted = FlopCountAnalysis(r3d_18(), torch.zeros(CLIP)).unsupported_ops_warnings(False).by_operator()
    return int(counted["conv"] + counted["linear"])


def torch_macs() -> int:
    """Torch counts what runs, here on tensors without memory; a multiply-add is two."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        net, clip = r3d_18(), torch.zeros(CLIP)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(clip)
    return int(counter.get_total_flops()) // 2


if __name__ == "__main__":
    print({"fvcore": fvcore_macs, "torch": torch_macs}[sys.argv[1]]())
