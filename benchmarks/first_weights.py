"""Which first weights keep most: the rule of each approximate edit against the obvious others, before any training.

    python benchmarks/first_weights.py DATA --work FOLDER [--seeds 3] [--alone]

Parents are the R3Ds of cut_and_keep.py in FOLDER. Printed is video top-1 on `val` after transfer alone and after
fitting without labels (on `train`; not with --alone), the mean over seeds: `test` stays untouched by choices.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from cut_and_keep import PARENT, network, scratch

from archsearch.nets.build import build
from archsearch.nets.surgery.calibrate import refit
from archsearch.nets.surgery.plan import steps
from archsearch.nets.surgery.transfer import transfer, weighed_steps
from archsearch.space.choices import assign
from archsearch.spec.spec import Spec, with_classes
from archsearch.store import open_store
from archsearch.training.checkpoint import read_weights
from archsearch.training.clips import sampling_for, split_of
from archsearch.training.evaluate import score
from archsearch.training.operation import calibration_clips
from archsearch.training.single import open_clips, read_network

State = dict[str, torch.Tensor]
Rule = Callable[[State, State, State], State]  # the parent's, ours, fresh -> the first weights


def ours(parent: State, found: State, fresh: State) -> State:
    """What the transfer gives."""
    return found


def factorised(state: State) -> list[str]:
    """The sites that are two convolutions."""
    return [name.removesuffix(".temporal.weight") for name in state if name.endswith(".temporal.weight")]


def centre_tap(parent: State, found: State, fresh: State) -> State:
    """3D -> 2D by the middle frame of each kernel, where ours sums over time."""
    return {
        name: parent[name][:, :, parent[name].shape[2] // 2, None]
        if name in parent and tensor.ndim == 5 and tensor.shape[2] == 1 < parent[name].shape[2]
        else tensor
        for name, tensor in found.items()
    }


def fresh_taps(parent: State, found: State, fresh: State) -> State:
    """3D -> factorised with fresh temporal halves, behind spatial halves that are summed over time."""
    state = dict(found)
    for site in factorised(found):
        space = parent[f"{site}.weight"].sum(2, keepdim=True)
        wide = found[f"{site}.spatial.weight"]
        state[f"{site}.spatial.weight"] = space[torch.arange(len(wide)) % len(space)]
        for leaf in ("temporal.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"):
            state[f"{site}.{leaf}"] = fresh[f"{site}.{leaf}"]
    return state


def unlifted(parent: State, found: State, fresh: State) -> State:
    """3D -> factorised by singular vectors as if there were no act between the halves."""
    state = dict(found)
    for site in factorised(found):
        behind = site.replace("conv", "norm")
        state[f"{site}.norm.bias"] = torch.zeros_like(found[f"{site}.norm.bias"])
        state[f"{behind}.running_mean"] = parent[f"{behind}.running_mean"]
    return state


def first_channels(parent: State, found: State, fresh: State) -> State:
    """Narrower by the first channels instead of the heaviest."""
    return {
        name: parent[name][tuple(slice(side) for side in tensor.shape)] if name in parent else tensor
        for name, tensor in found.items()
    }


WIDTHS = {stage.name: width for stage in network(PARENT).stages if (width := getattr(stage, "width", 0))}
EDITS: dict[str, tuple[Spec, dict[str, Rule]]] = {
    "3D -> 2D in res4, res5": (network("mc4"), {"summed (ours)": ours, "centre tap": centre_tap}),
    "3D -> 2D in stem, res2": (network("rmc3"), {"summed (ours)": ours, "centre tap": centre_tap}),
    "3D -> separable": (
        network("separable"),
        {"singular, lifted (ours)": ours, "singular": unlifted, "fresh temporal taps": fresh_taps},
    ),
    "3D -> (2+1)D": (
        network("r2plus1d"),
        {"singular, lifted (ours)": ours, "singular": unlifted, "fresh temporal taps": fresh_taps},
    ),
    "three quarters as wide": (
        assign(
            network(PARENT),
            {
                (stage.name, "width"): w * 3 // 4
                for stage in network(PARENT).stages
                if (w := getattr(stage, "width", 0))
            },
            "narrow",
        ),
        {"heaviest channels (ours)": ours, "first channels": first_channels},
    ),
}


def measure(data: Path, work: Path, seed: int, fits: bool) -> dict[tuple[str, str], list[float]]:
    """(edit, rule) -> top-1 on val after the rule alone, and after fitting."""
    torch.set_num_threads(1)
    store = open_store(str(scratch(PARENT, seed, data, work)))
    old, recipe, labels = read_network(store)
    parent = read_weights(store)
    pack = open_clips(old, recipe, data)
    clips = calibration_clips(old, recipe, pack)
    before = build(old)
    before.load_state_dict(parent)
    found = {}
    for edit, (target, rules) in EDITS.items():
        new = with_classes(target, old.classes)
        state, _ = transfer(old, parent, new, seed=seed)
        for rule, first in rules.items():
            after = build(new)
            after.load_state_dict(first(parent, state, dict(build(new, seed=seed).state_dict())))
            scores = []
            for fitted in (False, True) if fits else (False,):
                if fitted:
                    heaviest = weighed_steps(old, parent, new)
                    refit(before, after, steps(old, new, {}) if first is first_channels else heaviest, clips)
                sampling = sampling_for(new, recipe, labels)
                scores.append(score(after.eval(), split_of(pack, "val"), sampling, recipe).top1)
            found[edit, rule] = scores
            print(seed, edit, rule, [round(value, 3) for value in scores], flush=True)
    return found


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="without fitting, which takes a minute or two each")
    given = parser.parse_args()
    found = [measure(given.data, given.work, seed, not given.alone) for seed in range(given.seeds)]
    print("| edit | first weights | alone | fitted |\n|---|---|---|---|")
    for edit, rule in found[0]:
        means = np.mean([each[edit, rule] for each in found], 0)
        print(f"| {edit} | {rule} | {' | '.join(f'{mean:.3f}' for mean in means)} |")


if __name__ == "__main__":
    main()
