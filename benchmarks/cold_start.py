"""Start-up: a cold process to its first count, beside counters of built networks; and what small commands take.

    python benchmarks/cold_start.py [--run FOLDER] [--times 7] [--json]

Every measurement is a process of its own from start to end, the sides in turn, with bytecode compiled in a first round
that does not count, as the second start after an installation has it. All count R3D-18 at 3 x 16 x 112 x 112, with one
result; peers (`cold_peer.py`) have it in plain torch and build it without memory where they can count that. The small
commands are asked for their time, and whether torch is loaded at their end.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from claims import Claim, claim, parser, print_claims

ROOT = Path(__file__).resolve().parent.parent
AIM_COUNT, AIM_COMMAND, AIM_PEERS = 0.25, 0.3, 8.0
COUNT = """
from archsearch.spec.cost import total_cost
from archsearch.spec.presets import preset
from archsearch.spec.spec import lower
print(total_cost(lower(preset("r3d_18"))).macs)
"""
COMMAND = """
import sys
from archsearch.cli import main
sys.argv = ["archsearch", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("torch" in sys.modules, file=sys.stderr)
"""
PEERS = {"fvcore": "fvcore", "torch's FlopCounterMode on meta": "torch"}
Call = tuple[str, ...]


def processes(run: Path) -> dict[str, Call]:
    """What is begun, by name."""
    archsearch = str(Path(sys.executable).with_name("archsearch"))
    peers = {name: (sys.executable, str(ROOT / "benchmarks" / "cold_peer.py"), key) for name, key in PEERS.items()}
    commands = {" ".join(("archsearch", *words)): (archsearch, *words) for words in small_commands(run)}
    return (
        {"show": (archsearch, "show", "r3d_18", "--json"), "python": (sys.executable, "-c", COUNT)} | peers | commands
    )


def small_commands(run: Path) -> list[Call]:
    """Commands that should answer at once."""
    shown = os.path.relpath(run, ROOT)
    return [("--help",), ("front", shown), ("status", shown)]


def environment(cache: str) -> dict[str, str]:
    """Bytecode is kept, in a folder of its own."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": cache}


def ended(call: Sequence[str], environment: dict[str, str]) -> tuple[float, subprocess.CompletedProcess[str]]:
    """A process's seconds, and what it said. Raises CalledProcessError."""
    started = time.perf_counter()
    done = subprocess.run(call, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    return time.perf_counter() - started, done


def measured(calls: dict[str, Call], times: int, environment: dict[str, str]) -> dict[str, list[float]]:
    """Seconds of each process, in turn; the counts are compared once."""
    first = {name: ended(call, environment)[1].stdout for name, call in calls.items()}
    counts = {name: int(first[name]) for name in ("python", *PEERS)}
    if len(set(counts.values())) > 1:
        raise SystemExit(f"counts differ: {counts}")
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(times):
        for name, call in calls.items():
            spent[name].append(ended(call, environment)[0])
    return spent


def loads_torch(words: Call, environment: dict[str, str]) -> float:
    """1 where torch stands in memory at the end of a command, else 0."""
    done = ended((sys.executable, "-c", COMMAND, *words), environment)[1]
    return float(done.stderr.split()[-1] == "True")


def main() -> None:
    """Prints a table, or JSON."""
    options = parser(__doc__)
    options.add_argument("--run", type=Path, default=ROOT / "runs" / "utd_mhad_depth", help="a run of a search")
    options.add_argument("--times", type=int, default=7, help="processes of each kind")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        around = environment(cache)
        spent = measured(processes(given.run), given.times, around)
        loaded = {words: loads_torch(words, around) for words in small_commands(given.run)}
    claims: list[Claim] = [
        claim("seconds of `archsearch show r3d_18 --json`", spent["show"], AIM_COUNT, below=True),
        claim("seconds of a Python process to the first count", spent["python"], AIM_COUNT, below=True),
    ]
    for name in PEERS:
        ratios = [b / a for a, b in zip(spent["python"], spent[name], strict=True)]
        claims.append(claim(f"cold process to the first count: {name}'s time over ours", ratios, AIM_PEERS))
    for words, found in loaded.items():
        text = " ".join(("archsearch", *words))
        claims.append(claim(f"seconds of `{text}`", spent[text], AIM_COMMAND, below=True))
        claims.append(claim(f"`{text}` loads torch (1) or not (0)", [found], 0.0, below=True))
    print_claims(claims, given.json)


if __name__ == "__main__":
    main()
