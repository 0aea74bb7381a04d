"""A data set to try everything on: small real video files whose classes differ only in the direction of time.

Textured shapes move right or left, turn clockwise or counterclockwise, grow or shrink. Each clip of a class,
played backwards, is a clip of the partner class in the same split, down to the bits of the decoded frames. So
whoever looks at frames without their order is right half of the time within a pair, and order is all there is
to learn.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from archsearch.errors import DataError
from archsearch.video.decode import encode

FRAMES, SIDE, FPS, QP = 16, 72, 15, 28
PAIRS = (("right", "left"), ("clockwise", "counterclockwise"), ("grow", "shrink"))
CLIPS = {"train": 40, "val": 12, "test": 12}  # of each class
MARK = "demo.json"
WAVES = 4
ROUND = ("ellipse", "rectangle", "polygon")  # a turn shows best on a long bar


@dataclass(frozen=True)
class Shape:
    """Where a shape is in each frame: centre in pixels, radius in pixels, angle in radians; arrays (t,)."""

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray


def make_demo(root: Path, seed: int = 0, report: Callable[[int, int], None] | None = None) -> None:
    """Write the demo clips to `root`, as train/val/test folders of class folders, whole or not at all.

    The same seed gives the same bytes. A complete demo set of this seed is left as it is.
    `report(done, total)` counts clips. Raises DataError for a folder that holds something else, and for a disk
    that fails.
    """
    root = Path(root)
    if _is_complete(root, seed):
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root}: exists and is no demo set of seed {seed}; name a new or an empty folder")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
        try:
            _write_clips(temporary, seed, report)
            (temporary / MARK).write_text(json.dumps({"seed": seed, "clips": _clip_count()}) + "\n")
            temporary.chmod(0o755)
            temporary.rename(root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as fault:
        reason = fault.strerror or fault
        raise DataError(f"{root}: the demo set cannot be written ({reason}); choose another folder") from None


def _is_complete(root: Path, seed: int) -> bool:
    try:
        mark = json.loads((root / MARK).read_text())
    except (OSError, ValueError):
        return False
    return bool(mark == {"seed": seed, "clips": len(list(root.rglob("*.mp4")))})


def _clip_count() -> int:
    return 2 * len(PAIRS) * sum(CLIPS.values())


def _write_clips(root: Path, seed: int, report: Callable[[int, int], None] | None) -> None:
    jobs = [
        (split, pair, number) for split, clips in CLIPS.items() for pair in range(len(PAIRS)) for number in range(clips)
    ]
    for split in CLIPS:
        for name in (name for pair in PAIRS for name in pair):
            (root / split / name).mkdir(parents=True)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for done, _ in enumerate(threads.map(lambda job: _write_pair(root, seed, *job), jobs), start=1):
            if report is not None:
                report(2 * done, 2 * len(jobs))


def _write_pair(root: Path, seed: int, split: str, pair: int, number: int) -> None:
    """One clip and its reversal. The reversal's number is drawn too, so file names tell no partners."""
    rng = np.random.default_rng([seed, list(CLIPS).index(split), pair, number])
    frames = draw_clip(rng, PAIRS[pair][0])
    order = np.random.default_rng([seed, list(CLIPS).index(split), pair]).permutation(CLIPS[split])
    forward, backward = (root / split / name for name in PAIRS[pair])
    encode(forward / f"{number:03d}.mp4", frames, FPS, QP)
    encode(backward / f"{order[number]:03d}.mp4", frames[::-1], FPS, QP)


def draw_clip(rng: np.random.Generator, motion: str) -> np.ndarray:
    """One random clip of the motion right, clockwise or grow: uint8 (16, 72, 72, 3)."""
    shape = _move(rng, motion)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    background = _texture(rng, x, y, wavelength=(20.0, 60.0))
    # The picture is a torus: a shape that leaves on the right comes back on the left, so no place tells a time.
    dx = (x - shape.x[:, None, None] + SIDE / 2) % SIDE - SIDE / 2
    dy = (y - shape.y[:, None, None] + SIDE / 2) % SIDE - SIDE / 2
    cos, sin = np.cos(shape.angle)[:, None, None], np.sin(shape.angle)[:, None, None]
    radius = shape.radius[:, None, None]
    u, v = (cos * dx + sin * dy) / radius, (cos * dy - sin * dx) / radius
    outline = _outline(rng, u, v, ("bar",) if motion == "clockwise" else ROUND)
    inside = np.clip(0.5 - outline * radius, 0, 1)[..., None]
    surface = _contrasted(_texture(rng, u, v, wavelength=(0.7, 1.8)), background)
    return np.asarray(np.rint(inside * surface + (1 - inside) * background), np.uint8)


def _move(rng: np.random.Generator, motion: str) -> Shape:
    """The shape's way through the clip; whatever does not carry the motion stands still."""
    step = np.arange(FRAMES) / (FRAMES - 1)
    x = rng.uniform(0, SIDE) if motion == "right" else rng.uniform(0.4 * SIDE, 0.6 * SIDE)
    y = rng.uniform(0.4 * SIDE, 0.6 * SIDE)
    radius, angle = rng.uniform(13, 19), rng.uniform(0, 2 * np.pi)
    travel = rng.uniform(28, 48) if motion == "right" else 0.0
    turn = np.deg2rad(rng.uniform(110, 190)) if motion == "clockwise" else 0.0
    growth = rng.uniform(1.8, 2.6) if motion == "grow" else 1.0
    return Shape(
        x=x + travel * step,
        y=np.full(FRAMES, y),
        radius=radius * growth ** (step - 0.5),
        angle=angle + turn * step,
    )


def _outline(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, kinds: tuple[str, ...]) -> np.ndarray:
    """Signed distance from the edge of a random shape of one of the kinds, in radii; negative inside."""
    kind = rng.choice(kinds)
    distance: np.ndarray
    if kind == "ellipse":
        distance = np.hypot(u, v * rng.uniform(1.2, 1.8)) - 1
    elif kind == "bar":
        distance = np.maximum(np.abs(u) - 1.5, np.abs(v) - rng.uniform(0.4, 0.55))
    elif kind == "rectangle":
        distance = np.maximum(np.abs(u) - 0.95, np.abs(v) - rng.uniform(0.45, 0.75))
    else:
        corners = rng.integers(3, 6)
        angles = (np.arange(corners) + rng.uniform(-0.2, 0.2, corners)) * 2 * np.pi / corners
        distance = np.max([np.cos(angle) * u + np.sin(angle) * v - 0.7 for angle in angles], axis=0)
    return distance


def _texture(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, wavelength: tuple[float, float]) -> np.ndarray:
    """A smooth random colour texture (..., 3) in 0..255: a base colour and a few waves of random direction."""
    base, strength = rng.uniform(70, 185, 3), rng.uniform(12, 26, (WAVES, 3))
    total = np.broadcast_to(base, (*x.shape, 3)).copy()
    for wave in range(WAVES):
        direction, phase = rng.uniform(0, 2 * np.pi, 2)
        length = rng.uniform(*wavelength)
        along = (np.cos(direction) * x + np.sin(direction) * y) * (2 * np.pi / length)
        total += np.sin(along + phase)[..., None] * strength[wave]
    return np.clip(total, 0, 255)


def _contrasted(surface: np.ndarray, background: np.ndarray) -> np.ndarray:
    """The surface made brighter or darker until its mean differs visibly from the background's."""
    gap = float(surface.mean() - background.mean())
    lift = max(0.0, 55 - abs(gap)) * (1 if gap >= 0 else -1)
    return np.clip(surface + lift, 0, 255)
