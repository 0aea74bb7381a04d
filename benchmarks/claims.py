"""What the benchmarks share: a call's seconds, a claim's median ratio with its spread, and how claims are printed."""

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

Claim = dict[str, object]


def seconds(call: Callable[[], object], times: int = 1) -> float:
    """Mean wall-clock of a call, begun without the garbage that others left."""
    gc.collect()
    started = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - started) / times


def claim(text: str, ratios: Iterable[float], aim: float, *, below: bool = False) -> Claim:
    """A claim: the median of its ratios, their middle half, and whether the median is at least (or most) the aim."""
    low, median, high = (round(float(value), 2) for value in np.quantile(list(ratios), [0.25, 0.5, 0.75]))
    met = median <= aim if below else median >= aim
    return {"claim": text, "ratio": median, "aim": aim, "met": met, "spread": [low, high]}


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options every benchmark has."""
    options = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    options.add_argument("--json", action="store_true", help="a list of {claim, ratio, aim, met, spread}")
    return options


def print_claims(claims: Sequence[Claim], as_json: bool) -> None:
    """As a table, or as JSON; last, on stderr beside JSON, how busy the machine is, which ratios do not show."""
    if as_json:
        print(json.dumps(claims))
    else:
        for each in claims:
            print(f"{each['claim']:75} {each['ratio']:>12,} (aim {each['aim']:,}, middle half {each['spread']})")
    print(load_average(), file=sys.stderr if as_json else sys.stdout)


def load_average() -> str:
    """How many processes wanted a core, in the mean."""
    one, five, fifteen = (f"{load:.1f}" for load in os.getloadavg())
    return f"load average {one} in the last minute, {five} in five, {fifteen} in fifteen; {os.cpu_count()} cores"
