"""One network of a front as text and as JSON: what it is, why, what is next to it, and where it lies."""

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from archsearch.errors import RunError, SpaceError
from archsearch.files import near_or_all, parse_yaml
from archsearch.front.choose import COSTS, Choice, Final, Finals, Neighbour, cost_axis, merit_axis
from archsearch.front.results import Candidate, Results
from archsearch.report.front import WIDTH, choices_text, front_table, quantity
from archsearch.search.fields import is_final
from archsearch.search.folder import RunFolder, digest_text
from archsearch.search.plan import digest_recipe, run_recipe
from archsearch.space.file import parse_space
from archsearch.spec.presets import PRESETS, load_spec
from archsearch.spec.spec import digest, lower, with_classes
from archsearch.store import open_store, read_json

FINAL = "final.json"  # as archsearch.search.finalize writes it; to import that would load torch
WEIGHTS = "weights.safetensors"


def read_finals(run: str) -> dict[str, Final]:
    """What `archsearch finalize` has found of each network, by its hash; empty where it has not run.

    Of a network trained again both from scratch and from its own weights, what was found from scratch. Raises
    RunError for a file that it has not written.
    """
    store = open_store(run)
    found = read_json(store, FINAL)
    if found is not None and not is_final(found):
        raise RunError(f"{store.url}/{FINAL}: was changed by hand; `archsearch finalize` writes it anew")
    rows = [] if found is None else found["candidates"]
    return {
        row["hash"]: Final(row["trained"], row["metrics"], row.get("spread", {})) if row["trained"] else Final(0)
        for row in sorted(rows, key=lambda row: row.get("start", "scratch") == "scratch")
    }


def find_tried(run: str, results: Results, name: str) -> Candidate:
    """The candidate that a published design, a preset, a spec file or a network's folder is in a run.

    A preset is the one under the `set` of the run's space. Raises RunError where it was not tried, SpecError for a
    name that is none.
    """
    published = results.published()
    by_id = {candidate.id: candidate for candidate in results.candidates}
    if name in published:
        return by_id[published[name]]
    folder = RunFolder(open_store(run))
    if name in PRESETS:
        choices = _choices_of(folder, name)
        tried = [c for c in results.candidates if choices is not None and dict(c.choices) == choices]
    elif name.endswith((".yaml", ".yml")) or "/" in name:
        own = _hash_of(folder, name)
        tried = [candidate for candidate in results.candidates if candidate.hash == own]
    else:
        raise RunError(f"{run}: '{name}' is no design, preset or file{near_or_all(name, published or PRESETS)}")
    if not tried:
        known = f"; designs that were: {', '.join(published)}" if published else ""
        raise RunError(f"{run}: {name} was not tried{known}")
    return max(tried, key=lambda candidate: candidate.state == "complete")


def _choices_of(folder: RunFolder, name: str) -> dict[str, Any] | None:
    """The choices that give a preset in the run's space, or None where it has none."""
    place = f"{folder.store.url}/space.yaml"
    data = parse_yaml((folder.store.read("space.yaml") or b"").decode(errors="replace"), place, SpaceError)
    try:
        space = parse_space({**data, "published": [name], "latency": None}, place, Path(folder.store.url))
    except SpaceError:
        return None
    return dict(space.published[name])


def _hash_of(folder: RunFolder, name: str) -> str:
    """What a spec's file would be called as a candidate of the run."""
    data = (folder.identity() or {})["data"]
    spec = with_classes(load_spec(name), len(data["classes"]))
    return digest_text(digest(lower(spec)), digest_recipe(run_recipe(folder)), data["digest"])


def choice_lines(run: str, results: Results, choice: Choice, finals: Finals, shown: Sequence[str]) -> list[str]:
    """The choice in lines of at most 100 columns; `shown` are metrics beside the objectives."""
    chosen = choice.chosen
    names = list(dict.fromkeys([*results.objectives, *shown, "params"]))
    spread = finals[chosen.hash].spread if chosen.hash in finals else {}
    metrics = ", ".join(
        f"{name} {quantity(name, chosen.metrics[name])}" + (f" ± {spread[name]:.3f}" if name in spread else "")
        for name in names
        if name in chosen.metrics
    )
    design = f" {chosen.published}" if chosen.published else ""
    return [
        *_wrapped(f"#{chosen.id} {chosen.hash}{design}: {metrics}"),
        *_wrapped(f"  {choices_text(chosen.choices, list(chosen.choices))}"),
        *_wrapped(f"why: {choice.why}"),
        *_wrapped(f"next cheaper: {_difference(results, chosen, choice.cheaper, cheaper=True)}"),
        *_wrapped(f"next better: {_difference(results, chosen, choice.better, cheaper=False)}"),
        *_wrapped(_values(run, choice, finals)),
        f"folder: {_folder(run, chosen)}",
    ]


def _wrapped(line: str) -> list[str]:
    """A line as one or more, the next ones indented; names of files and choices stay whole."""
    return textwrap.wrap(
        line, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )


def _difference(results: Results, chosen: Candidate, neighbour: Neighbour | None, *, cheaper: bool) -> str:
    """`#7, 0.71 gmacs (-40 %), top1 -0.013 (within noise); outside params max 5e+05`"""
    if neighbour is None:
        return "none"
    names, other = list(results.objectives), neighbour.candidate
    lead = names[cost_axis(results) if cheaper else merit_axis(results)]
    parts = [f"#{other.id}" + (f" {other.published}" if other.published else "")]
    for name in sorted(names, key=lambda name: name != lead):
        own, value = chosen.metrics[name], other.metrics[name]
        if name in COSTS and own > 0:
            text = f"{quantity(name, value)} {name} ({100 * (value / own - 1):+.0f} %)"
        else:
            text = f"{name} {value - own:+.3f}"
        if name in neighbour.noise:
            text += " (within noise)" if neighbour.noise[name] else " (beyond noise)"
        parts.append(text)
    outside = f"; outside {', '.join(map(str, neighbour.outside))}" if neighbour.outside else ""
    return ", ".join(parts) + outside


def _values(run: str, choice: Choice, finals: Finals) -> str:
    """How far the numbers can be trusted."""
    others = [near.candidate for near in (choice.cheaper, choice.better) if near is not None]
    named = [choice.chosen, *others]
    once = [f"#{candidate.id}" for candidate in named if candidate.hash not in finals]
    if len(once) == len(named):
        return f"values: of one training each; `archsearch finalize {run} DATA` says what is noise"
    counts = sorted({finals[candidate.hash].trained for candidate in named if candidate.hash in finals})
    seeds = f"{counts[0]} fresh seed{'s' * (counts[0] > 1)}" if len(counts) == 1 else f"{counts} fresh seeds"
    return f"values: means over {seeds}" + (f", but the search's one training of {', '.join(once)}" if once else "")


def _folder(run: str, chosen: Candidate) -> str:
    store = RunFolder(open_store(run)).candidate(chosen.hash)
    return f"{run.rstrip('/')}/candidates/{chosen.hash}" + ("" if WEIGHTS in store.names() else " (without weights)")


def representatives_table(results: Results, members: Sequence[Candidate], total: int, chosen: Candidate) -> Table:
    """Some of a front as `archsearch front` shows all of it."""
    table = front_table(replace(results, candidates=tuple(members)))
    table.title = Text(f"{results.run}: {len(members)} of {total} on the front, #{chosen.id} is chosen")
    return table


def choice_json(
    run: str, results: Results, choice: Choice, finals: Finals, thinned: Sequence[Candidate] | None
) -> dict[str, Any]:
    """What `archsearch choose RUN --json` prints: candidates as `archsearch front RUN --json` has them.

    A neighbour has `differences` from the chosen one, `noise` for objectives with spreads, the limits it is `outside`.
    """
    data: dict[str, Any] = {
        "chosen": _candidate(results, choice.chosen, finals),
        "why": choice.why,
        "cheaper": _neighbour(results, choice.chosen, choice.cheaper, finals),
        "better": _neighbour(results, choice.chosen, choice.better, finals),
        "front": [member.id for member in choice.members],
        "folder": f"{run.rstrip('/')}/candidates/{choice.chosen.hash}",
    }
    if thinned is not None:
        data["representatives"] = [_candidate(results, candidate, finals) for candidate in thinned]
    return data


def _candidate(results: Results, candidate: Candidate, finals: Finals) -> dict[str, Any]:
    """As `front --json` has it, with its published name, and the spread over so many fresh seeds where it has one."""
    data: dict[str, Any] = replace(results, candidates=(candidate,)).as_json()["candidates"][0]
    data["published"] = candidate.published
    if candidate.hash in finals:
        final = finals[candidate.hash]
        data |= {"seeds": final.trained, "spread": dict(final.spread)}
    return data


def _neighbour(
    results: Results, chosen: Candidate, neighbour: Neighbour | None, finals: Finals
) -> dict[str, Any] | None:
    if neighbour is None:
        return None
    other = neighbour.candidate
    differences = {name: other.metrics[name] - chosen.metrics[name] for name in results.objectives}
    more = {"differences": differences, "noise": dict(neighbour.noise), "outside": list(map(str, neighbour.outside))}
    return _candidate(results, other, finals) | more
