"""Operating on a trained network: a folder with weights becomes the folder of another network with those weights."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from archsearch.errors import RunError, SurgeryError
from archsearch.nets.build import build
from archsearch.nets.surgery.calibrate import refit
from archsearch.nets.surgery.plan import Edit, Inflate, Rename, Step
from archsearch.nets.surgery.transfer import transfer, weighed_steps
from archsearch.spec.cost import total_cost
from archsearch.spec.spec import Spec, lower, spec_yaml, with_classes
from archsearch.store import Store, open_store, write_json
from archsearch.training.checkpoint import START, read_weights, save_state
from archsearch.training.clips import epoch_batches, sampling_for, split_of
from archsearch.training.recipe import Recipe
from archsearch.training.single import on_device_here, open_clips, read_network
from archsearch.video.pack import Pack

Report = Callable[[str, int, int, str], None]
ORIGIN = "origin.json"
CLIPS = 256  # that sites are fitted on, at most


def target_of(source: str, target: Spec) -> tuple[Spec, Spec]:
    """The old network's spec, and the new one's for its clips, classes, norm rule and padding."""
    old, _, _ = read_network(open_store(source))
    if old.inputs.keys() != target.inputs.keys():
        raise SurgeryError(f"{target.name}: reads {', '.join(target.inputs)}; {source} reads {', '.join(old.inputs)}")
    clips = {name: (target.inputs[name].c, *size[1:]) for name, size in old.inputs.items()}
    clip = clips if len(clips) > 1 else next(iter(clips.values()))
    update = {"clip": clip, "norm": old.norm, "padding": old.padding}
    return old, with_classes(target.model_copy(update=update), old.classes)


def describe(old: Spec, new: Spec, edits: Sequence[Edit]) -> dict[str, Any]:
    """The plan as data, with what both networks cost."""
    costs = {name: total_cost(lower(spec)) for name, spec in (("before", old), ("after", new))}
    return {
        "old": old.name,
        "new": new.name,
        "exact": all(edit.exact for edit in edits),
        "macs": {name: cost.macs for name, cost in costs.items()},
        "params": {name: cost.params for name, cost in costs.items()},
        "edits": [{"site": e.site, "old": e.old, "verdict": e.verdict, "how": e.how} for e in edits],
    }


def operate(
    source: str,
    new: Spec,
    out: str,
    *,
    data: Path | None = None,
    rename: Rename | None = None,
    inflate: Inflate = "centre",
    report: Report = lambda *_: None,
) -> dict[str, Any]:
    """Writes the folder `out` with the network `new` (see `target_of`) and the weights of `source` fitted to it.

    With `data`, approximated sites are fitted to the old network's activations on its training clips; labels are not
    read. Raises SurgeryError for unrelated networks, RunError for a folder in use.
    """
    store = open_store(out)
    if any(store.read(name) is not None for name in ("spec.yaml", "network.json", "run.json")):
        raise RunError(f"{out}: is in use; give --out a new folder")
    old, recipe, labels = read_network(open_store(source))
    state = read_weights(open_store(source))
    found, edits = transfer(old, state, new, rename, inflate, recipe.seed)
    facts = describe(old, new, edits) | {"source": source, "fitted": []}
    if data is not None and not facts["exact"]:
        clips = calibration_clips(old, recipe, open_clips(old, recipe, data, report))
        plan = weighed_steps(old, state, new, rename, inflate)
        found, facts["fitted"] = _fitted(old, state, new, found, plan, clips, report)
    write_json(store, "recipe.json", recipe.model_dump(mode="json"))
    store.write("labels.txt", "".join(f"{name}\n" for name in labels))
    write_json(store, ORIGIN, facts)
    save_state(store, found)
    store.write("spec.yaml", spec_yaml(new))  # last: a folder that has it is taken for whole
    return facts


def inherit(source: Store, new: Spec, recipe: Recipe, pack: Pack, store: Store) -> float:
    """Puts the weights that `new` begins with into `store`: those of another network, fitted; seconds it took.

    What stands there already stays. Labels are not read. Raises SurgeryError, RunError.
    """
    if store.read(START) is not None:
        return 0.0
    started = time.perf_counter()
    old, _, _ = read_network(source)
    state = read_weights(source)
    found, edits = transfer(old, state, new, seed=recipe.seed)
    if not all(edit.exact for edit in edits):
        plan = weighed_steps(old, state, new)
        found, _ = _fitted(old, state, new, found, plan, calibration_clips(old, recipe, pack))
    save_state(store, found, START)
    return time.perf_counter() - started


def _fitted(
    old: Spec,
    state: dict[str, torch.Tensor],
    new: Spec,
    found: dict[str, torch.Tensor],
    plan: Sequence[Step],
    clips: Sequence[torch.Tensor],
    report: Report = lambda *_: None,
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The transferred weights, their approximated sites fitted to the old activations; and which sites those are."""
    device = clips[0].device
    before, after = _loaded(old, state, device), _loaded(new, found, device)
    sites = refit(before, after, plan, clips, report)
    return after.state_dict(), sites


def calibration_clips(spec: Spec, recipe: Recipe, pack: Pack) -> list[torch.Tensor]:
    """Batches of training clips, at most CLIPS clips, on the recipe's device where that is here, else the processor."""
    torch.set_num_threads(recipe.threads)
    recipe, _ = on_device_here(recipe)
    sampling = sampling_for(spec, recipe, pack.classes)
    split = split_of(pack, "train")
    batches: list[torch.Tensor] = []
    wanted = min(CLIPS, 2 * len(split))
    for epoch in range(2):
        for clip, _ in epoch_batches(split, sampling, recipe, epoch):
            batches.append(clip)
            wanted -= len(clip)
            if wanted <= 0:
                return batches
    return batches


def _loaded(spec: Spec, state: dict[str, torch.Tensor], device: torch.device) -> torch.nn.Module:
    net = build(spec)
    net.load_state_dict(state)
    return net.to(device).eval()
