"""A space by weight sharing: one training of shared weights, then candidates are read off them.

shared/                      curve.json, weights.safetensors, result.json: the shared training and what it cost
run.json                     has `values: shared`; all else is as a search's (see `folder`), with candidates of 0 epochs
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from optuna.trial import FixedTrial
from torch import Tensor

from archsearch.errors import SpaceError, SpecError, TrainingError
from archsearch.nets.elastic import Elastic, Mix
from archsearch.search.folder import Settled
from archsearch.search.plan import Check, Plan, check
from archsearch.search.scoring import objective_scores
from archsearch.space.extremes import cover, largest, smallest
from archsearch.spec.spec import Spec, spec_yaml
from archsearch.store import Store, write_json
from archsearch.training.checkpoint import save_weights
from archsearch.training.elastic import Family, in_float32, score_member, train_shared
from archsearch.training.loop import CURVE, RESULT, Epoch, told
from archsearch.training.operation import calibration_clips
from archsearch.video.pack import Pack

SHARED = "shared"  # the folder of the shared training, and what run.json calls such values
WHOLE = 4096  # combinations up to which all are read off
DRAWS = 1000  # else so many
TRIES = 10_000  # draws until there has to be one within the limits
Report = Callable[[str, int, int, str], None]  # what, done, of how many, status


class Wanted(NamedTuple):
    """A candidate to read off."""

    choices: dict[str, Any]
    spec: Spec
    facts: Check
    published: str | None


def share(plan: Plan, pack: Pack, count: int | None, report: Report, mix: Mix = "sum") -> int:
    """Trains shared weights and reads off every candidate within the limits, or `count` of them; how many there are.

    The same call goes on after an interruption. Raises SpaceError for a space whose clips vary in size, TrainingError.
    """
    epochs = plan.recipe.epochs
    with plan.folder.driving() as held:

        def trained(epoch: Epoch) -> None:
            held()
            report("training", epoch.epoch + 1, epochs, f"loss {epoch.train_loss:.3f}, val top1 {epoch.val_top1:.3f}")

        family = family_of(plan)
        shared, _ = train_shared(family, plan.recipe, pack, plan.folder.store.at(SHARED), trained, mix)
        clips = calibration_clips(family.largest, plan.recipe, pack)
        settled = {trial.candidate: trial.number for trial in plan.folder.settled()}
        wanted = list(_wanted(plan, count))
        for done, each in enumerate(wanted, 1):
            held()
            if each.facts.candidate not in settled:
                number = max(settled.values(), default=-1) + 1
                plan.folder.settle(_read(plan, shared, pack, clips, number, each))
                settled[each.facts.candidate] = number
            report("reading off", done, len(wanted), "")
    return len(wanted)


def family_of(plan: Plan) -> Family:
    """The networks of a space that share weights; those drawn in training are within the limits. Raises SpaceError."""
    space = plan.space
    for parameter in space.parameters:
        if any(not stage for settings in parameter.settings for stage, _ in settings):
            raise SpaceError(f"{space.name}: weights are shared for clips of one size; {parameter.path} varies it")

    def draw(rng: np.random.Generator) -> Spec:
        for _ in range(TRIES):
            positions = tuple(int(rng.integers(len(parameter.options))) for parameter in space.parameters)
            found = _checked(plan, positions)
            if found is not None:
                return found[0]
        raise SpaceError(f"{space.name}: {TRIES} random draws found no candidate within its limits")

    return Family(largest(space), smallest(space), tuple(cover(space)), draw)


def _checked(plan: Plan, positions: tuple[int, ...]) -> tuple[Spec, Check] | None:
    """A combination that can be and is within the limits."""
    try:
        spec = plan.space.spec_at(positions)
        facts = check(plan, spec)
    except SpecError:
        return None
    return None if facts.reason is not None else (spec, facts)


def _wanted(plan: Plan, count: int | None) -> Iterator[Wanted]:
    """The published networks, then all others or as many as are asked for; each within the limits, and once."""
    space = plan.space
    known: set[str] = set()
    for name, choices in space.published.items():
        spec = space.draw(FixedTrial(dict(choices)))
        facts = check(plan, spec)
        if facts.reason is None and facts.candidate not in known:
            known.add(facts.candidate)
            yield Wanted(dict(choices), spec, facts, name)
    whole = count is None and space.size <= WHOLE
    most = space.size if whole else count or DRAWS
    for positions in space.all_positions() if whole else space.sample_positions(TRIES, seed=space.search.seed):
        found = _checked(plan, positions) if len(known) < most else None
        if found is not None and found[1].candidate not in known:
            known.add(found[1].candidate)
            yield Wanted(space.choices(positions), *found, None)


def _read(plan: Plan, shared: Elastic, pack: Pack, clips: Sequence[Tensor], number: int, wanted: Wanted) -> Settled:
    """Reads a candidate off into its folder."""
    started = time.perf_counter()
    facts = wanted.facts
    limits = {name: limit.excess(facts.cost[name]) for name, limit in plan.space.limits.items()}
    base = Settled(
        number, wanted.choices, facts.candidate, "failed", facts.cost, published=wanted.published, constraints=limits
    )
    try:
        with told(wanted.spec.name, plan.recipe):
            known = facts.cost | objective_scores(plan, wanted.spec)
            net, scores = score_member(shared, wanted.spec, in_float32(plan.recipe), pack, clips)
        if not math.isfinite(scores.loss):
            raise TrainingError(f"what it says of validation clips is {scores.loss}")
    except (SpecError, TrainingError) as error:
        return replace(base, reason="; ".join(error.lines))
    seconds, store = round(time.perf_counter() - started, 3), plan.folder.candidate(facts.candidate)
    save_weights(store, net)
    _write(plan, store, wanted.spec, {"epochs": 0, "metrics": scores.as_json(), "seconds": seconds})
    return replace(base, state="complete", metrics=known | scores.as_json(), seconds=seconds)


def _write(plan: Plan, store: Store, spec: Spec, result: dict[str, Any]) -> None:
    """A candidate's folder, as a search has it."""
    store.write("spec.yaml", spec_yaml(spec))
    write_json(store, "recipe.json", plan.recipe.model_dump(mode="json"))
    store.write("labels.txt", "".join(f"{name}\n" for name in plan.classes))
    write_json(store, CURVE, [])
    write_json(store, RESULT, result)
