"""What each choice does: the share of a metric's variance that it explains, and the metric at each of its options.

An additive model, metric = mean + sum of f_j(option of choice j), is fitted by ridge regression on all options at once,
since a search that learns does not try the options of one choice evenly over those of the others. The penalty is the
one of a few with the least error of leaving out each network (Allen 1974, PRESS). The variance of f_j over the options
of choice j, each weighing the same, is its main effect in the functional ANOVA of the model (Sobol 1993; Hooker 2007;
for hyperparameters Hutter et al. 2014): exact for a model without interactions. What the model does not tell of a
network that is left out, interactions and noise, is the rest, so the shares and the rest add up to 1.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archsearch.front.dominance import Floats

METHOD = (
    "share of variance: main effects of an additive model (functional ANOVA: Sobol 1993, Hooker 2007, Hutter et al. "
    "2014), fitted by ridge regression with the penalty of the least leave-one-out error; what it does not tell of a "
    "network left out is the rest; intervals: 95 %, bootstrap over networks"
)
PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # each as if so many networks had the mean at every option
FEWEST = 8  # networks to speak of shares
BINS = 8  # of a number with more values than that
NAMED = 30  # options of a choice that are told apart; rarer ones are one
OTHERS = "others"
MODELLED = 400  # options that the model takes; of more, those of the choices that explain most on their own
DRAWS, FEWEST_DRAWS = 200, 40
OPERATIONS = 3e9  # multiply-adds that a bootstrap may take: some seconds
WIDE = 10.0  # a positive metric that spans more is modelled by its logarithm

Codes = NDArray[np.intp]


@dataclass(frozen=True)
class Option:
    """A value of a choice, and what networks with it have."""

    label: str
    networks: int
    mean: float  # of the metric; NaN where no network has the option
    deviation: float  # of the metric, NaN for one network
    effect: float  # by the model, from the mean over options: a difference, or where `logarithmic` a factor


@dataclass(frozen=True)
class Effect:
    """What one choice does to a metric; `share` and `interval` are None where they cannot be told."""

    choice: str
    share: float | None
    interval: tuple[float, float] | None
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Importance:
    """What all choices do to a metric, the first the most; `rest` is the share that no choice alone explains."""

    metric: str
    networks: int
    logarithmic: bool
    rest: float | None
    effects: tuple[Effect, ...]


def importance(
    choices: Sequence[Mapping[str, Any]], metrics: Mapping[str, Sequence[float]], seed: int = 0
) -> tuple[Importance, ...]:
    """What choices do to each metric, over the networks where all of the metrics are finite.

    `choices` has a mapping for each network, `metrics` a number for each. A choice that a network never met is an
    option of its own. Choices with one option in all networks are left out.
    """
    table = np.array([metrics[name] for name in metrics], dtype=np.float64).reshape(len(metrics), len(choices))
    known = np.flatnonzero(np.isfinite(table).all(axis=0))
    table, kept = table[:, known], [choices[int(place)] for place in known]
    coded = {name: coded_options([own.get(name) for own in kept]) for name in _names(kept)}
    coded = {name: entry for name, entry in coded.items() if len(entry[0]) > 1}
    wide = [bool(len(row) and row.min() > 0 and row.max() > WIDE * row.min()) for row in table]
    target = np.array([np.log(row) if log else row for row, log in zip(table, wide, strict=True)]).reshape(table.shape)
    coded = _foremost(coded, target)
    found = _shares([entry[1] for entry in coded.values()], target, np.random.default_rng(seed))
    return tuple(
        _importance(name, row, log, coded, own) for name, row, log, own in zip(metrics, table, wide, found, strict=True)
    )


def coded_options(values: Sequence[Any]) -> tuple[list[str], Codes]:
    """Labels of a choice's options, and the place of each value among them: (values).

    Numbers are in their order, and in bins of about as many networks where there are many; else the order of first
    use, without the rarest of many.
    """
    labels = [option_label(value) for value in values]
    distinct = dict(zip(labels, values, strict=True))
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in distinct.values()):
        if len(distinct) > BINS:
            return _bins(np.array(values, dtype=np.float64))
        order = sorted(distinct, key=lambda label: distinct[label])
    else:
        counts = Counter(labels)
        common = {label for label, _ in counts.most_common(NAMED - 1 if len(counts) > NAMED else NAMED)}
        labels = [label if label in common else OTHERS for label in labels]
        order = list(dict.fromkeys(sorted(labels, key=lambda label: label == OTHERS)))
    place = {label: index for index, label in enumerate(order)}
    return order, np.array([place[label] for label in labels], dtype=np.intp)


def option_label(value: Any) -> str:
    """A value as YAML writes its simple ones; `-` where a network never met the choice."""
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _bins(values: Floats) -> tuple[list[str], Codes]:
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
    codes = np.searchsorted(edges, values, side="left")
    used, codes = np.unique(codes, return_inverse=True)
    groups = [values[codes == place] for place in range(len(used))]
    return [f"{group.min():g} to {group.max():g}" for group in groups], codes.reshape(-1)


def _names(choices: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for own in choices for name in own))


def _foremost(coded: dict[str, tuple[list[str], Codes]], target: Floats) -> dict[str, tuple[list[str], Codes]]:
    """The choices that explain most of some metric alone, with `MODELLED` options together; the order stays."""
    if sum(len(labels) for labels, _ in coded.values()) <= MODELLED:
        return coded
    spread = np.maximum(target.var(axis=1), 1e-300)
    alone = {name: max(_between(codes, row) / own for row, own in zip(target, spread, strict=True))
             for name, (_, codes) in coded.items()}  # fmt: skip
    room, kept = MODELLED, set[str]()
    for name in sorted(alone, key=lambda name: -alone[name]):
        room -= len(coded[name][0])
        if room >= 0:
            kept.add(name)
    return {name: entry for name, entry in coded.items() if name in kept}


def _between(codes: Codes, row: Floats) -> float:
    """The variance of the means of groups, each weighing as many networks as it has."""
    counts = np.bincount(codes)
    means = np.bincount(codes, row) / np.maximum(counts, 1)
    return float(counts @ (means - row.mean()) ** 2 / len(row))


@dataclass(frozen=True)
class _Shares:
    """Of one metric, or None where there is too little to tell: shares (choices), rest, intervals, effects."""

    shares: Floats
    rest: float
    low: Floats | None
    high: Floats | None
    effects: tuple[Floats, ...]


def _shares(codes: Sequence[Codes], target: Floats, rng: np.random.Generator) -> list[_Shares | None]:
    """Of each row of `target` (metrics, networks)."""
    networks = target.shape[1]
    if networks < FEWEST or not codes:
        return [None] * len(target)
    sizes = [int(code.max()) + 1 for code in codes]
    ends = np.cumsum([0, *sizes])
    hot = np.zeros((networks, ends[-1]))
    for code, start in zip(codes, ends, strict=False):
        hot[np.arange(networks), start + code] = 1
    draws = int(min(DRAWS, OPERATIONS / (float(ends[-1]) ** 2 * (networks + ends[-1]))))
    weights = rng.multinomial(networks, np.full(networks, 1 / networks), size=draws if draws >= FEWEST_DRAWS else 0)
    fits = [_best_fit(hot, row) if np.ptp(row) > 0 else None for row in target]
    drawn: list[list[Floats]] = [[] for _ in target]
    for weight in weights.astype(np.float64):
        fitted = _fits(hot, target, weight, [fit[2] if fit else None for fit in fits])
        for place, own in enumerate(fitted):
            if own is not None:
                drawn[place].append(_parts(own[0], own[1], ends)[0])
    return [_told(fit, ends, rows) if fit else None for fit, rows in zip(fits, drawn, strict=True)]


def _told(fit: tuple[Floats, float, float], ends: NDArray[np.int_], drawn: Sequence[Floats]) -> _Shares:
    shares, effects = _parts(fit[0], fit[1], ends)
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0) if drawn else (None, None)
    return _Shares(shares, float(1 - shares.sum()), low, high, effects)


def _parts(weights: Floats, error: float, ends: NDArray[np.int_]) -> tuple[Floats, tuple[Floats, ...]]:
    """The share of each choice, and the centred effects of its options."""
    effects = tuple(weights[start:end] - weights[start:end].mean() for start, end in pairwise(ends))
    variances = np.array([np.mean(effect**2) for effect in effects])
    return variances / max(variances.sum() + error, 1e-300), effects


def _best_fit(hot: Floats, row: Floats) -> tuple[Floats, float, float]:
    """Weights (options), mean squared leave-one-out error and penalty of the best ridge regression of one metric."""
    centred, target = hot - hot.mean(axis=0), row - row.mean()
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    projected = left.T @ target
    found: list[tuple[float, float, Floats]] = []
    for penalty in PENALTIES:
        shrunk = singular**2 / (singular**2 + penalty)
        leverage = left**2 @ shrunk + 1 / len(row)
        residual = (target - left @ (shrunk * projected)) / np.maximum(1 - leverage, 1e-9)
        weights = right.T @ (singular / (singular**2 + penalty) * projected)
        found.append((float(np.mean(residual**2)), penalty, weights))
    error, penalty, weights = min(found, key=lambda entry: entry[0])
    return weights, error, penalty


def _fits(
    hot: Floats, target: Floats, weight: Floats, penalties: Sequence[float | None]
) -> list[tuple[Floats, float] | None]:
    """The same of each metric for weighted networks; to leave one out is to leave out all of its weight."""
    used = weight > 0
    hot, target, weight = hot[used], target[:, used], weight[used]
    centred = hot - weight @ hot / weight.sum()
    product = (centred * weight[:, None]).T @ centred
    solved: dict[float, tuple[Floats, Floats]] = {}
    found: list[tuple[Floats, float] | None] = []
    for row, penalty in zip(target, penalties, strict=True):
        if penalty is None:
            found.append(None)
            continue
        if penalty not in solved:
            inverse = np.linalg.inv(product + penalty * np.eye(len(product)))
            solved[penalty] = inverse, weight * (((centred @ inverse) * centred).sum(axis=1) + 1 / weight.sum())
        inverse, leverage = solved[penalty]
        own = row - weight @ row / weight.sum()
        weights = inverse @ (centred.T @ (weight * own))
        residual = (own - centred @ weights) / np.maximum(1 - leverage, 1e-9)
        found.append((weights, float(weight @ residual**2 / weight.sum())))
    return found


def _importance(
    metric: str, row: Floats, log: bool, coded: Mapping[str, tuple[list[str], Codes]], found: _Shares | None
) -> Importance:
    effects = []
    for place, (name, (labels, codes)) in enumerate(coded.items()):
        own = found.effects[place] if found else np.full(len(labels), np.nan)
        options = tuple(
            _option(label, row[codes == index], float(np.exp(own[index]) if log else own[index]))
            for index, label in enumerate(labels)
        )
        share = float(found.shares[place]) if found else None
        between = None
        if found and found.low is not None and found.high is not None:
            between = float(found.low[place]), float(found.high[place])
        effects.append(Effect(name, share, between, options))
    effects.sort(key=lambda effect: -(effect.share or 0.0))
    return Importance(metric, len(row), log, found.rest if found else None, tuple(effects))


def _option(label: str, values: Floats, effect: float) -> Option:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return Option(label, len(values), float(values.mean()) if len(values) else float("nan"), deviation, effect)
