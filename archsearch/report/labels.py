"""Where the labels of a crowded plot go: beside their points, off the lines, and never on each other.

All in pixels. A box is left, bottom, right, top. Greedy, in a few orders of which the best is kept: a simple
stand-in for the annealing of Christensen, Marks and Shieber (1995), and the same every time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from archsearch.front.dominance import Floats

DISTANCES = (6.0, 12.0, 22.0, 34.0, 50.0, 70.0, 95.0)  # between a point and the edge of its label
NEAR = 12.0  # from farther away, a thin leader says whose label it is
TRIED_ORDERS = 24


@dataclass(frozen=True)
class Room:
    """What labels must heed: the frame (4) of the plot, points and lines (n, 2), and boxes already taken (k, 4)."""

    frame: Floats
    points: Floats
    lines: Floats
    taken: Floats


@dataclass(frozen=True)
class Spot:
    """A place for a label: the way (2) from its point to its middle and to its edge, and how bad the place is."""

    middle: Floats
    edge: Floats
    penalty: float

    @property
    def needs_leader(self) -> bool:
        """Whether the label is too far from its point to be understood without a line between them."""
        return float(np.hypot(*self.edge)) > NEAR + 0.5


def arrange(room: Room, anchors: Floats, halves: Floats) -> tuple[Room, list[Spot]]:
    """Spots for labels that must all be shown, and the room that is left.

    `anchors` (n, 2) their points, `halves` (n, 2) half their widths and heights.
    """
    orders = np.random.default_rng(0)
    best = _in_order(room, anchors, halves, range(len(anchors)))
    for _ in range(TRIED_ORDERS if len(anchors) > 1 else 0):
        tried = _in_order(room, anchors, halves, orders.permutation(len(anchors)).tolist())
        best = min(best, tried, key=lambda result: sum(spot.penalty for spot in result[1]))
    return best


def _in_order(room: Room, anchors: Floats, halves: Floats, order: Sequence[int]) -> tuple[Room, list[Spot]]:
    """Each label in turn goes to its best spot."""
    spots = {}
    for index in order:
        spots[index] = best_spot(room, anchors[index], halves[index])
        room = occupy(room, anchors[index], halves[index], spots[index])
    return room, [spots[index] for index in range(len(anchors))]


def occupy(room: Room, anchor: Floats, half: Floats, spot: Spot) -> Room:
    """The room that is left when a label and its leader are in their place."""
    middle = anchor + spot.middle
    boxes = [room.taken, np.concatenate([middle - half, middle + half])[None]]
    if spot.needs_leader:
        boxes.append(_around(dense(np.array([anchor, anchor + spot.edge])), 1))
    return replace(room, taken=np.vstack(boxes))


def best_spot(room: Room, anchor: Floats, half: Floats) -> Spot:
    """The best of 16 directions and some distances around a point.

    A label may not leave the plot or cover another, should not cover points and lines nor be so near to another
    point that it seems to belong there, and its leader should not cross labels, leaders or points.
    """
    angle = np.arange(16) * np.pi / 8
    ray = np.tile(np.column_stack([np.cos(angle), np.sin(angle)]), (len(DISTANCES), 1))
    distance = np.repeat(DISTANCES, 16)
    edge = ray * distance[:, None]
    middle = edge + ray * half
    boxes = np.hstack([anchor + middle - half, anchor + middle + half])
    others = room.points[np.abs(room.points - anchor).sum(axis=1) > 1]
    outside = (boxes[:, :2] < room.frame[:2]).any(axis=1) | (boxes[:, 2:] > room.frame[2:]).any(axis=1)
    hits = _meetings(boxes, _around(others, 4)) + np.minimum(_meetings(boxes, _around(room.lines, 1)), 3)
    penalty = 1000 * outside + 300 * _meetings(boxes, room.taken) + 30 * hits + distance
    penalty += 12 * _meetings(boxes, _around(others, 10))
    penalty += 30 * _crossings(anchor, edge, np.vstack([room.taken, _around(others, 3)])) * (distance > NEAR)
    best = int(penalty.argmin())
    return Spot(middle[best], edge[best], float(penalty[best]))


def _crossings(anchor: Floats, edge: Floats, boxes: Floats) -> NDArray[np.intp]:
    """How many places the straight ways from a point by `edge` (n, 2) share with the boxes: (n)."""
    ways = anchor + edge[:, None] * np.linspace(0.1, 1, 16)[:, None]
    met = _meetings(_around(ways.reshape(-1, 2), 1), boxes)
    return np.asarray(met.reshape(len(edge), -1).sum(axis=1))


def _around(points: Floats, reach: float) -> Floats:
    """Boxes (n, 4) around points (n, 2)."""
    return np.hstack([points - reach, points + reach])


def _meetings(boxes: Floats, others: Floats) -> NDArray[np.intp]:
    """How many of the others (m, 4) each box (n, 4) meets: (n)."""
    a, b = boxes.T[:, :, None], others.T[:, None]
    met = (a[0] < b[2]) & (a[1] < b[3]) & (b[0] < a[2]) & (b[1] < a[3])
    return np.asarray(met.sum(axis=1))


def dense(corners: Floats, step: float = 5.0) -> Floats:
    """Points (n, 2) every few pixels along a line of corners (k, 2)."""
    starts, ends = corners[:-1], corners[1:]
    counts = 2 + (np.abs(ends - starts).sum(axis=1) / step).astype(int)
    pieces = [np.linspace(a, b, count) for a, b, count in zip(starts, ends, counts, strict=True)]
    return np.concatenate([corners, *pieces])
