"""What a search has trained, as a model of what it has not: a Gaussian process over choices, rungs and readings.

Its kernel is a linear part, in which every choice has an effect of its own, and a smooth one for what choices do
together (Rasmussen and Williams 2006, chapter 4). Readings of two rungs, or of two kinds (the objective, the training
loss), agree in part; each rung of each kind has a level and a scale of its own, since a short training reads worse
values than a long one. Hyper-parameters are searched one after the other, by the marginal likelihood.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

LEVEL = 1.0  # variance of the level of a rung and kind, in units of its values' own
GRID: Mapping[str, tuple[float, ...]] = {
    "size": (0.5, 1.0, 2.0),  # variance of what choices do
    "smooth": (0.1, 0.3, 0.6),  # the smooth part's share of it
    "decay": (0.3, 0.8),  # of the smooth part with each choice that differs
    "rungs": (0.4, 0.7, 0.9),  # how far two neighbouring rungs agree
    "kinds": (0.0, 0.3, 0.6, 0.9),  # how far two kinds agree
    "noise": (0.1, 0.3, 0.8),  # of the objective's readings
    "others": (0.03, 0.1, 0.3),  # of the other kinds'
}
START = {"size": 1.0, "smooth": 0.3, "decay": 0.3, "rungs": 0.7, "kinds": 0.6, "noise": 0.3, "others": 0.1}
SWEEPS = 2  # over the grid
ENOUGH = 3  # readings of a rung and kind from which their scale is their own
DIRECTIONS = 256


@dataclass(frozen=True)
class Readings:
    """Values (n) of candidates with features (n, d) from -1 to 1, at rungs (n) and of kinds (n); 0 is the objective."""

    features: Floats
    rungs: Integers
    kinds: Integers
    values: Floats


class Surrogate:
    """Fitted to readings; more is better in every kind."""

    def __init__(self, readings: Readings) -> None:
        self._read = readings
        self._scales = _scales(readings)
        places = zip(readings.rungs.tolist(), readings.kinds.tolist(), strict=True)
        means, sizes = np.array([self._scales[place] for place in places]).T
        self._wanted = (readings.values - means) / sizes
        self._own = self._compared(readings.features, readings.rungs, readings.kinds)
        self._now = dict(START)
        best = self._fit()
        for name in [*GRID] * SWEEPS:
            kept = self._now[name]
            for value in GRID[name]:
                self._now[name] = value
                likelihood = self._fit()
                if likelihood > best:
                    best, kept = likelihood, value
            self._now[name] = kept
        self._fit()

    def _fit(self) -> float:
        """The log likelihood with the hyper-parameters as they are now."""
        noise = np.where(self._read.kinds == 0, self._now["noise"], self._now["others"])
        self._root = np.linalg.cholesky(self._kernel(*self._own) + np.diag(noise))
        self._white = np.linalg.solve(self._root, self._wanted)
        return float(-0.5 * self._white @ self._white - np.log(np.diag(self._root)).sum())

    def _compared(self, features: Floats, rungs: Integers, kinds: Integers) -> tuple[Floats, Floats, Floats, Floats]:
        """Readings (m) with those fitted to (n): product and distance of features, rungs apart, kinds that differ."""
        read = self._read
        product = features @ read.features.T / features.shape[1]
        distance = np.abs(features[:, None] - read.features).sum(-1) / 2
        return product, distance, np.abs(rungs[:, None] - read.rungs) * 1.0, (kinds[:, None] != read.kinds) * 1.0

    def _kernel(self, product: Floats, distance: Floats, apart: Floats, other: Floats) -> Floats:
        """Covariance of readings compared."""
        now = self._now
        effects = (1 - now["smooth"]) * product + now["smooth"] * np.exp(-now["decay"] * distance)
        agree = now["rungs"] ** apart * now["kinds"] ** other
        found: Floats = now["size"] * effects * agree + LEVEL * ((apart == 0) & (other == 0))
        return found

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation, noise included, of what the highest rung reads.

        Of the objective; where that was never read, of the other kind.
        """
        now, kind = self._now, int(self._read.kinds.min())
        rung = int(self._read.rungs[self._read.kinds == kind].max())
        where = np.full(len(features), rung), np.full(len(features), kind)
        known = self._kernel(*self._compared(features, *where))
        weights = np.linalg.solve(self._root, known.T)
        own = now["size"] * ((1 - now["smooth"]) * (features**2).mean(1) + now["smooth"]) + LEVEL
        own += now["others" if kind else "noise"]
        mean, size = self._scales[rung, kind]
        variance = np.maximum(own - (weights**2).sum(0), 1e-9)
        return np.asarray(mean + size * (weights.T @ self._white)), np.asarray(size * np.sqrt(variance))


def _scales(readings: Readings) -> dict[tuple[int, int], tuple[float, float]]:
    """Mean and scale of each rung and kind; where readings are few, the scale of the nearest rung that has enough."""
    groups = {
        (rung, kind): readings.values[(readings.rungs == rung) & (readings.kinds == kind)]
        for rung, kind in sorted(set(zip(readings.rungs.tolist(), readings.kinds.tolist(), strict=True)))
    }
    spreads = {place: float(group.std()) for place, group in groups.items() if len(group) >= ENOUGH and group.std() > 0}
    found = {}
    for (rung, kind), group in groups.items():
        near = [place for place in spreads if place[1] == kind]
        size = spreads[min(near, key=lambda place: abs(place[0] - rung))] if near else 1.0
        found[rung, kind] = float(group.mean()), size
    return found


def expected_gains(front: Floats, mean: Floats, spread: Floats, draws: Floats) -> Floats:
    """The hypervolume (n) that candidates of mean and spread (n, m) are expected to add to a front (k, m).

    More is better in every column, and the reference point is 0. `draws` (q, m) are of a standard normal. The
    hypervolume is the mean, over directions, of how far the front reaches (Golovin and Zhang 2020), up to a constant.
    """
    directions = np.abs(np.random.default_rng(0).normal(size=(DIRECTIONS, mean.shape[1])))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    reached = _reach(front, directions).max(0, initial=0)
    gains = [np.maximum(_reach(mean + spread * draw, directions) - reached, 0).mean(1) for draw in draws]
    found: Floats = np.mean(gains, axis=0)
    return found


def _reach(points: Floats, directions: Floats) -> Floats:
    """How far each point (n, m) lies in each direction, to the power of the dimension: (n, directions)."""
    found: Floats = (np.maximum(points[:, None], 0) / directions).min(-1) ** points.shape[1]
    return found
