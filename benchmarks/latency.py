"""How far predicted latency is from measured: on networks of a space that the table was not fitted on.

    python benchmarks/latency.py [--space search_spaces/small.yaml] [--rounds 30] [--networks 24] [--times 3] [--json]

Each time calibrates anew: the space's sites and its networks run in turn on one thread of the CPU. Ratios are errors,
|predicted / measured - 1|, with the range of their middle half over the times.
"""

from pathlib import Path

from claims import claim, parser, print_claims

from archsearch.nets.calibrate import calibrate
from archsearch.space.file import read_untimed
from archsearch.spec.latency import Errors, Setting

SMALL = Path(__file__).parent.parent / "search_spaces" / "small.yaml"
AIM, AIM_MOST = 0.10, 0.25


def main() -> None:
    """Prints a table, or JSON."""
    options = parser(__doc__)
    options.add_argument("--space", type=Path, default=SMALL)
    options.add_argument("--rounds", type=int, default=30)
    options.add_argument("--networks", type=int, default=24)
    options.add_argument("--times", type=int, default=3)
    given = options.parse_args()
    space = read_untimed(given.space)
    found: list[Errors] = []
    for _ in range(given.times):
        errors = calibrate(space, Setting(), given.rounds, given.networks).held_out
        assert errors is not None
        found.append(errors)
    claims = [
        claim(f"{space.name}: error of predicted latency, median network", [e.median for e in found], AIM, below=True),
        claim(f"{space.name}: error of predicted latency, worst network", [e.max for e in found], AIM_MOST, below=True),
    ]
    print_claims(claims, given.json)


if __name__ == "__main__":
    main()
