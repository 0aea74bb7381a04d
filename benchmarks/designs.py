"""The front of a finalised search beside the published designs: what the same accuracy costs.

    python benchmarks/designs.py RUN DATA --work FOLDER [--rounds 100] [--json]

RUN was searched and finalised (`archsearch finalize RUN DATA --seeds 3`): the front and the published networks were
trained from scratch by one recipe with the same fresh seeds and scored on `test`. S3D's way, separable convolutions
everywhere, is trained here in the same manner. For each design the cheapest member of the front (by means of `val` over
the seeds) that is at least as accurate on `test`, as a share of the design's multiply-adds, and the fastest such member
as a share of its measured latency on this machine's CPU (batch 1, one thread, the networks in turn). Intervals
resample seeds and videos, the same for all networks, and choose the member again in each draw; a draw in which none is
as accurate counts as 1, since the design itself can be taken.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from claims import Claim, claim, parser, print_claims

from archsearch.nets.latency import measure
from archsearch.search.folder import RunFolder
from archsearch.search.plan import run_recipe
from archsearch.search.worker import train_finalist
from archsearch.space.choices import assign
from archsearch.spec.basic import ConvStage
from archsearch.spec.cost import metrics
from archsearch.spec.latency import Setting
from archsearch.spec.residual import ResidualStage
from archsearch.spec.spec import Spec, lower, read_spec, spec_yaml
from archsearch.store import open_store

AIM = 0.5
DRAWS = 4_000
LIKE_S3D = "all separable"


@dataclass(frozen=True)
class Network:
    """A network that was trained several times: which test videos were right (seeds, videos), and what it costs."""

    spec: Spec
    hits: npt.NDArray[np.float64]
    member: bool  # of the front
    gmacs: float
    latency_ms: float = 0.0


def hits_in(folder: Path, seeds: list[int]) -> npt.NDArray[np.float64]:
    """Which test videos each training has right."""
    return np.array([json.loads((folder / str(seed) / "test.json").read_text())["hits"] for seed in seeds], np.float64)


def finalists(run: Path, final: Mapping[str, Any]) -> dict[str, Network]:
    """The front and the published designs, by name."""
    found = {}
    for row in final["candidates"]:
        folder = run / "final" / row["hash"]
        spec = read_spec(run / "candidates" / row["hash"] / "spec.yaml")
        name = row["published"] or f"#{row['id']}"
        member = row["id"] in final["front"]
        found[name] = Network(spec, hits_in(folder, final["seeds"]), member, metrics(lower(spec))["gmacs"])
    return found


def separable(given: argparse.Namespace, final: Mapping[str, Any], r3d: Spec) -> Network:
    """R3D with separable convolutions everywhere, trained as the finalists were."""
    sites = {(stage.name, "conv"): "separable" for stage in r3d.stages if isinstance(stage, ConvStage | ResidualStage)}
    spec, folder = assign(r3d, sites, "separable"), RunFolder(open_store(str(given.run)))
    identity = folder.identity() or {}
    for seed in final["seeds"]:
        recipe = run_recipe(folder).model_copy(update={"seed": seed})
        payload = {"spec": spec_yaml(spec), "recipe": recipe.model_dump(mode="json"), "data": str(given.data.resolve())}
        payload |= {"digest": identity["data"]["digest"], "store": str(given.work / "separable" / str(seed))}
        outcome = train_finalist(payload)
        assert "stop" not in outcome, outcome
    hits = hits_in(given.work / "separable", final["seeds"])
    return Network(spec, hits, False, metrics(lower(spec))["gmacs"])


def ratio(design: Network, members: list[Network], cost: str, accuracy: list[float], least: float) -> float:
    """What the least of the members that are as accurate costs, in units of the design."""
    costs = [getattr(member, cost) for member, top1 in zip(members, accuracy, strict=True) if top1 >= least]
    own = float(getattr(design, cost))
    return float(min([*costs, own])) / own


def draws(design: Network, members: list[Network], cost: str) -> list[float]:
    """The ratio over draws of seeds and videos."""
    rng, found = np.random.default_rng(0), []
    seeds, videos = design.hits.shape
    for _ in range(DRAWS):
        drawn = np.ix_(rng.integers(seeds, size=seeds), rng.integers(videos, size=videos))
        accuracy = [float(member.hits[drawn].mean()) for member in members]
        found.append(ratio(design, members, cost, accuracy, float(design.hits[drawn].mean())))
    return found


def compared(networks: Mapping[str, Network], as_json: bool) -> list[Claim]:
    """The claims of every design; printed as Markdown on the way."""
    members = [network for network in networks.values() if network.member]
    claims: list[Claim] = []
    if not as_json:
        print(
            "| design | test top-1 | gmacs | ms | macs for the same | latency for the same |\n|---|---|---|---|---|---|"
        )
    for name, design in networks.items():
        if name.startswith("#"):
            continue
        cells = [f"{design.hits.mean():.3f}", f"{design.gmacs:.4f}", f"{design.latency_ms:.2f}"]
        for cost, what in (("gmacs", "macs"), ("latency_ms", "latency")):
            accuracy = [float(member.hits.mean()) for member in members]
            here = ratio(design, members, cost, accuracy, float(design.hits.mean()))
            drawn = draws(design, members, cost)
            low, high = np.quantile(drawn, [0.025, 0.975])
            cells.append(f"{here:.2f} [{low:.2f}, {high:.2f}]")
            text = f"{what} of the front's least that is as accurate as {name}, over its own"
            claims.append({**claim(text, drawn, AIM, below=True), "ratio": round(here, 2), "met": here <= AIM})
        if not as_json:
            print(f"| {name} | {' | '.join(cells)} |")
    return claims


def main() -> None:
    """Trains what is missing, measures latency and prints."""
    options = parser(__doc__)
    options.add_argument("run", type=Path)
    options.add_argument("data", type=Path)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--rounds", type=int, default=100)
    given = options.parse_args()
    final = json.loads((given.run / "final.json").read_text())
    networks = finalists(given.run, final)
    networks[LIKE_S3D] = separable(given, final, networks["r3d_18"].spec)
    times = measure({name: network.spec for name, network in networks.items()}, Setting(threads=1), given.rounds)
    networks = {
        name: Network(own.spec, own.hits, own.member, own.gmacs, times[name].median_ms)
        for name, own in networks.items()
    }
    if not given.json:
        for name, own in networks.items():
            if own.member:
                print(f"front: {name}: test {own.hits.mean():.3f}, {own.gmacs:.4f} gmacs, {own.latency_ms:.2f} ms")
    claims = compared(networks, given.json)
    if given.json:
        print_claims(claims, True)


if __name__ == "__main__":
    main()
