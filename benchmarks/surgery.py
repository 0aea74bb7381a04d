"""Surgery's time and memory: plan and transfer of a 345-node network, against building the new network alone.

    python benchmarks/surgery.py [--json]

3D ResNet-101 (Hara et al. 2018), at full and at a quarter of its width, becomes another network; reading files is not
in it. Runs are interleaved; ratios are medians with the range of their middle half. The memory is that of a process of
its own: its peak over what it held before, in units of both networks and their largest layer.
"""

import resource
import subprocess
import sys
import time
from typing import Any

import torch
from claims import Claim, claim, parser, print_claims, seconds

from archsearch.nets.build import build
from archsearch.nets.surgery.transfer import transfer
from archsearch.space.choices import assign
from archsearch.spec.presets import preset
from archsearch.spec.residual import ResidualStage
from archsearch.spec.spec import Spec, lower

ROUNDS = 5
AIM_SECONDS, AIM_RATIO, AIM_MEMORY = 1.0, 3.0, 1.1
EDITS: dict[str, tuple[str, Any]] = {
    "to 2D": ("conv", "2d"),
    "gated": ("gate", True),
    "to separable": ("conv", "separable"),
    "to (2+1)D": ("conv", "2+1d"),
}


def networks(edit: str, width: float) -> tuple[Spec, Spec]:
    """The old network and the new one."""
    base = preset("resnet3d_101")
    widths = {(stage.name, "width"): int(w * width) for stage in base.stages if (w := getattr(stage, "width", 0))}
    old = assign(base, widths, base.name)
    field, value = EDITS[edit]
    stages = [stage.name for stage in old.stages if isinstance(stage, ResidualStage)]
    return old, assign(old, {(stage, field): value for stage in stages}, base.name)


def timed(edit: str, width: float) -> list[Claim]:
    """Seconds of plan and transfer, and how many times they are those of building the new network."""
    old, new = networks(edit, width)
    state = build(old, seed=0).state_dict()
    ours, alone = [], []
    for _ in range(ROUNDS):
        ours.append(seconds(lambda: transfer(old, state, new)))
        alone.append(seconds(lambda: build(new, seed=0)))
    name = f"{len(lower(old).nodes)} nodes, width x {width:g}, {edit}"
    return [
        claim(f"{name}: seconds", ours, AIM_SECONDS, below=True),
        claim(f"{name}: over building it", [a / b for a, b in zip(ours, alone, strict=True)], AIM_RATIO, below=True),
    ]


def memory() -> None:
    """Prints the peak of a transfer over both networks and their largest layer."""
    old, new = networks("to 2D", 1)
    state = build(old, seed=0).state_dict()
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found, _ = transfer(old, state, new)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) * 1024
    layers = [4 * tensor.numel() for tensor in (*state.values(), *found.values())]
    both = sum(layers)
    print((both - 4 * sum(tensor.numel() for tensor in found.values()) + grown) / (both + max(layers)))


def main() -> None:
    """Prints a table, or JSON."""
    options = parser(__doc__)
    options.add_argument("--memory", action="store_true", help="what a process of its own does")
    given = options.parse_args()
    torch.set_num_threads(1)
    if given.memory:
        memory()
        return
    started = time.perf_counter()
    claims = [found for edit in EDITS for found in timed(edit, 0.25)]
    claims += [found for edit in EDITS for found in timed(edit, 1)]
    peak = subprocess.run([sys.executable, __file__, "--memory"], check=True, capture_output=True, text=True).stdout
    claims.append(claim("memory over both networks and a layer", [float(peak)], AIM_MEMORY, below=True))
    print_claims(claims, given.json)
    print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
