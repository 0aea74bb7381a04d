"""Weights of other shapes: under channel maps, of other kernels, as two halves. Functions of tensors alone."""

from typing import NamedTuple

import torch
from torch import Tensor

from archsearch.nets.surgery.channels import Channels, Indices, same_channels, wiring
from archsearch.spec.graph import Conv

SHIFT = 1.5  # standard deviations by which fitted halves are lifted, so that the act between them cuts little


def placed(
    weight: Tensor, gives: Channels, reads: Channels, fresh: Tensor | None = None, old_groups: int = 1, groups: int = 1
) -> Tensor:
    """(out, in / groups, ...) under channel maps: rows copied, columns shared among copies; new rows stay fresh."""
    if gives.same and reads.same and old_groups == groups:
        return weight
    wires = wiring(gives, reads, old_groups, groups)
    shares = torch.from_numpy(wires.shares).to(weight.dtype)
    found = weight[torch.from_numpy(wires.rows), torch.from_numpy(wires.columns)]
    found = found * shares.view(*shares.shape, *[1] * (weight.ndim - 2))
    return _over(found, gives.source, torch.zeros_like(found) if fresh is None else fresh)


def rows(values: Tensor, source: Indices, fresh: Tensor) -> Tensor:
    """(out, ...) by row; new rows stay fresh."""
    return _over(values[torch.from_numpy(source.clip(0))], source, fresh)


def _over(found: Tensor, source: Indices, fresh: Tensor) -> Tensor:
    return torch.where(torch.from_numpy(source < 0).view(-1, *[1] * (found.ndim - 1)), fresh, found)


def dense(weight: Tensor, groups: int) -> Tensor:
    """(out, in / groups, ...) -> (out, in, ...): block-diagonal."""
    every = same_channels(weight.shape[1] * groups)
    return placed(weight, same_channels(len(weight)), every, old_groups=groups) if groups > 1 else weight


def selection(gives: Channels, reads: Channels) -> Tensor:
    """(new out, new in): each new channel from one that is a copy of the same old one."""
    chosen = torch.zeros(len(gives.source), len(reads.source))
    places = {int(old): place for place, old in reversed(list(enumerate(reads.source)))}
    for row, old in enumerate(gives.source):
        if old >= 0:
            chosen[row, places[int(old)]] = 1
    return chosen


def fit_kernel(kernel: Tensor, sides: tuple[int, int, int], rule: str) -> Tensor:
    """A kernel of other sides: zeros around it, or cut around its centre; one frame is the sum over time."""
    if rule == "inflate":
        return kernel.expand(*kernel.shape[:2], sides[0], *kernel.shape[3:]) / sides[0]
    if sides[0] == 1 < kernel.shape[2]:
        kernel = kernel.sum(2, keepdim=True)
    for axis, side in enumerate(sides, start=2):
        extra = side - kernel.shape[axis]
        if extra < 0:
            kernel = kernel.narrow(axis, -extra // 2, side)
        elif extra > 0:
            padding = [0] * (2 * kernel.ndim)
            padding[2 * (kernel.ndim - 1 - axis)] = extra // 2
            padding[2 * (kernel.ndim - 1 - axis) + 1] = extra - extra // 2
            kernel = torch.nn.functional.pad(kernel, padding)
    return kernel


def split_exactly(flat: Tensor, space: Tensor, time: Tensor, *, signs: bool) -> None:
    """A 2D kernel (out, in, h, w) as halves with the same outputs: behind an act without effect, or of both signs."""
    out, centre = len(flat), time.shape[2] // 2
    space[:out].copy_(flat[:, :, None])
    time.zero_()
    time[range(out), range(out), centre] = 1
    if signs:
        space[out : 2 * out].copy_(-flat[:, :, None])
        time[range(out), range(out, 2 * out), centre] = -1


class Halves(NamedTuple):
    """Of a factorised site of `mid` channels inside: its weights, what lifts them, and what that adds to outputs."""

    first: Tensor  # (mid, in / groups, t, h, w)
    last: Tensor  # (out, mid / groups, t, h, w)
    lift: Tensor  # (mid,)
    offset: Tensor  # (out,)


def fitted_halves(kernel: Tensor, op: Conv, *, lifted: bool) -> Halves:
    """A kernel (out, in, t, h, w) as its best halves, group by group; what crosses groups is lost.

    Each inner channel is `lifted` by SHIFT times its size, since an act cuts what is below zero.
    """
    kernels = [
        block.chunk(op.groups, 1)[number] for number, block in enumerate(kernel.chunk(op.groups, 0))
    ]  # each group's own block
    shift = SHIFT if lifted else 0.0
    found = [_best_halves(block, op.mid // op.groups, shift, time_first=op.first == "time") for block in kernels]
    return Halves(*(torch.cat(tensors) for tensors in zip(*found, strict=True)))


def _best_halves(kernel: Tensor, mid: int, shift: float, *, time_first: bool) -> Halves:
    """The singular vectors of the kernel as a matrix, (out x last half's places) by (in x first half's places)."""
    out, c_in, t, h, w = kernel.shape
    near, far = ((t, 1, 1), (1, h, w)) if time_first else ((1, h, w), (t, 1, 1))
    order = (0, 3, 4, 1, 2) if time_first else (0, 2, 1, 3, 4)
    matrix = kernel.permute(order).reshape(out * (h * w if time_first else t), -1)
    first = matrix.new_zeros(mid, matrix.shape[1])
    last = matrix.new_zeros(matrix.shape[0], mid)
    left, right = _factors(matrix, mid)
    first[: len(right)], last[:, : len(right)] = right, left
    lift = shift * first.norm(dim=1)
    weights = last.reshape(out, -1, mid).transpose(1, 2)
    halves = first.reshape(mid, c_in, *near), weights.reshape(out, mid, *far), lift, weights.sum(2) @ lift
    return Halves(*(half.to(kernel.dtype) for half in halves))


def _factors(matrix: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The best product (rows, rank) x (rank, columns) of a rank up to `most`, both of one size.

    By the eigenvectors of the smaller Gram matrix: ten times as fast as singular vectors.
    """
    if matrix.shape[0] > matrix.shape[1]:
        left, right = _factors(matrix.T, most)
        return right.T, left.T
    if most >= len(matrix):
        return torch.eye(len(matrix), dtype=matrix.dtype), matrix
    values, vectors = torch.linalg.eigh((matrix @ matrix.T).double())  # in float32 it need not converge
    root = (values.flip(0)[:most].clamp_min(0) ** 0.25).to(matrix.dtype)
    u = vectors.flip(1)[:, :most].to(matrix.dtype)
    return u * root, u.T @ matrix / root.clamp_min(1e-3 * float(root[0]) + 1e-30)[:, None]
