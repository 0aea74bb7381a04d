"""Every short benchmark one after the other, into one page of claims: what was measured, by how much, and on what.

    python benchmarks/bench.py [--only NAME ...] [--out docs/benchmarks.md]

Each script has five minutes; one that fails or takes longer is a row that says so, and the others go on. Scripts that
are not there are left out. Peers are test-only: the extra `bench`, and ffmpeg on the path.
"""

import argparse
import ast
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from claims import Claim, load_average

from archsearch.files import write_whole
from archsearch.versions import versions

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
LIMIT_SECONDS = 300
NAMES = (
    *("count", "cold_start", "space", "training_step", "inference", "clips", "decoding", "packing", "driver"),
    *("search_efficiency", "surgery", "gpu"),
)
PEERS = (
    *("torch", "numpy", "fvcore", "optuna", "onnxruntime", "openvino", "av", "opencv-contrib-python-headless"),
    *("torchcodec", "decord", "eva-decord", "imageio-ffmpeg"),
)
HEAD = "| claim | ratio | aim | met | middle half |\n| --- | ---: | ---: | --- | --- |\n"


@dataclass(frozen=True)
class Outcome:
    """What a script said, or why it said nothing."""

    name: str
    claims: Sequence[Claim]
    fault: str | None
    seconds: float
    load: str


def outcome(name: str) -> Outcome:
    """Runs a script in a process group of its own, which ends with it."""
    load, started = load_average(), time.perf_counter()
    call = [sys.executable, str(FOLDER / f"{name}.py"), "--json"]
    script = subprocess.Popen(
        call, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        out, complaints = script.communicate(timeout=LIMIT_SECONDS)
        claims, fault = read(out, complaints, script.returncode)
    except subprocess.TimeoutExpired:
        claims, fault = [], f"not done within {LIMIT_SECONDS} seconds"
    finally:
        end(script)
    return Outcome(name, claims, fault, time.perf_counter() - started, load)


def end(script: subprocess.Popen[str]) -> None:
    """Ends a script and the processes it has begun, if they still run."""
    if script.poll() is None:
        os.killpg(script.pid, signal.SIGKILL)
        script.communicate()


def read(out: str, complaints: str, code: int) -> tuple[list[Claim], str | None]:
    """The claims of a script's output, or what is wrong with it."""
    if code != 0:
        lines = complaints.strip().splitlines() or ["nothing said"]
        return [], f"exit code {code}: {lines[-1]}"
    try:
        claims: list[Claim] = json.loads(out)
        missing = [claim for claim in claims if not {"claim", "ratio", "aim", "met", "spread"} <= claim.keys()]
    except (ValueError, AttributeError, TypeError) as error:
        return [], f"no list of claims: {error}"
    return (claims, None) if not missing else ([], f"no claim: {missing[0]}")


def page(outcomes: Sequence[Outcome], command: str) -> str:
    """All claims as Markdown, script by script."""
    claims = [each for outcome in outcomes for each in outcome.claims]
    failed = sum(outcome.fault is not None for outcome in outcomes)
    parts = [
        "# Benchmarks\n",
        f"Measured on {date.today()} by `{command}`: {len(outcomes)} scripts, of which {failed} failed; "
        f"{sum(bool(each['met']) for each in claims)} of {len(claims)} claims are met.\n",
        "A ratio is the median over rounds, both sides measured in turn; the middle half is the range of its middle "
        "quartiles. `>=` has more as better, `<=` less.\n",
        machine(),
    ]
    return "\n".join([*parts, *(section(outcome) for outcome in outcomes)])


def machine() -> str:
    """Where it was measured, and beside which versions."""
    known = ", ".join(f"{name} {version}" for name, version in versions(PEERS).items())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = [f"machine: {usable} cores of {processor()}, {memory:.0f} GiB of memory", f"versions: {known}{ffmpeg()}"]
    return "".join(f"- {line}\n" for line in lines)


def processor() -> str:
    """The processor's name as the system has it."""
    try:
        facts = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        facts = []
    names = [line.partition(":")[2].strip() for line in facts if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def ffmpeg() -> str:
    """`, ffmpeg 7.1`, where it is on the path."""
    try:
        said = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f", ffmpeg {said[2]}"


def section(outcome: Outcome) -> str:
    """The claims of one script, or one row that says why there are none."""
    doc = ast.get_docstring(ast.parse((FOLDER / f"{outcome.name}.py").read_text(encoding="utf-8"))) or ""
    rows = [row(each) for each in outcome.claims]
    if outcome.fault is not None:
        rows = [f"| {cell(outcome.fault)} |  |  | failed |  |"]
    note = f"`python benchmarks/{outcome.name}.py`, {outcome.seconds:.0f} s; at its start {outcome.load}\n"
    return "\n".join([f"## {outcome.name}\n", doc.partition("\n")[0] + "\n", note, HEAD + "\n".join(rows) + "\n"])


def row(each: Claim) -> str:
    """One line of the table."""
    low, high = (float(bound) for bound in json.loads(str(each["spread"])))
    met = "yes" if each["met"] else "no"
    aim = f"{sign(each)} {each['aim']:,}"
    return f"| {cell(str(each['claim']))} | {each['ratio']:,} | {aim} | {met} | {low:,} to {high:,} |"


def sign(each: Claim) -> str:
    """Whether the aim is at least or at most, which shows in whether it is met."""
    ratio, aim = float(str(each["ratio"])), float(str(each["aim"]))
    return "=" if ratio == aim else "<=" if (ratio < aim) == each["met"] else ">="


def cell(text: str) -> str:
    """A text that leaves the table whole."""
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> None:
    """Runs them, tells on stderr how far it is, and writes the page whole."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    options.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md", help="the page")
    given = options.parse_args()
    outcomes = []
    for name in given.only:
        if (FOLDER / f"{name}.py").exists():
            print(f"{name} ...", file=sys.stderr)
            outcomes.append(outcome(name))
            print(f"{name}: {outcomes[-1].fault or 'done'}, {outcomes[-1].seconds:.0f} s", file=sys.stderr)
    command = "make bench" if given.only == NAMES else f"python benchmarks/bench.py --only {' '.join(given.only)}"
    write_whole(given.out, page(outcomes, command))
    sys.exit(1 if any(each.fault for each in outcomes) else 0)


if __name__ == "__main__":
    main()
