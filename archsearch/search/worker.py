"""What a worker does: train one candidate into its folder. Text comes in, numbers go out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from archsearch.errors import DataError, MissingExtra, RecipeError, RunError, SpecError
from archsearch.files import parse_yaml
from archsearch.nets.build import build
from archsearch.search.fields import check_result
from archsearch.spec.spec import Spec, parse_spec
from archsearch.store import Store, open_store, read_json, write_json
from archsearch.training.checkpoint import load_weights
from archsearch.training.clips import pack_side, packed, sampling_for, split_of, with_flow
from archsearch.training.evaluate import score
from archsearch.training.loop import RESULT, train
from archsearch.training.operation import inherit
from archsearch.training.recipe import Recipe
from archsearch.video.dataset import read_dataset
from archsearch.video.pack import Pack, kept_pack

TEST = "test.json"


def train_candidate(payload: dict[str, Any]) -> dict[str, Any]:
    """Trains `payload["spec"]` (YAML) by `payload["recipe"]` on the data set of `payload["data"]`.

    Goes on from the checkpoint in `payload["store"]`, or begins with the weights of the folder `payload["parent"]`, if
    there is one, and pauses after `payload["until"]` epochs if that is given. Returns epochs, metrics and seconds, all
    from the training's beginning on; or `stop`, the line of a fault that is not the candidate's (a
    disk, the data set, the recipe), for which no other would fare better.
    """
    return _or_stop(_train, payload)


def train_finalist(payload: dict[str, Any]) -> dict[str, Any]:
    """The same for a data set with `test`, and then which videos of it are right: `hits`, once, kept in test.json."""
    return _or_stop(_train_and_test, payload)


def _or_stop(work: Callable[[dict[str, Any]], dict[str, Any]], payload: dict[str, Any]) -> dict[str, Any]:
    try:
        return work(payload)
    except (RunError, DataError, RecipeError, MissingExtra) as error:
        return {"stop": "; ".join(error.lines)}
    except OSError as error:
        return {"stop": f"{error.filename or 'the system'}: {error.strerror or error}"}


def _train_and_test(payload: dict[str, Any]) -> dict[str, Any]:
    spec, recipe, pack = _given(payload)
    split_of(pack, "test")  # or its fault, before anything long
    result, store = _train(payload), open_store(payload["store"])
    tested = read_json(store, TEST)
    if tested is None:
        tested = _tested(spec, recipe, pack, store)
        write_json(store, TEST, tested)
    if not (isinstance(tested, dict) and isinstance(tested.get("hits"), list)):
        raise RunError(f"{store.url}/{TEST}: does not say which videos are right; delete it and it is scored again")
    return result | {"hits": tested["hits"]}


def _tested(spec: Spec, recipe: Recipe, pack: Pack, store: Store) -> dict[str, Any]:
    net = build(spec).to(recipe.device)
    load_weights(store, net)
    scores = score(net, split_of(pack, "test"), sampling_for(spec, recipe, pack.classes), recipe)
    return {"top1": scores.top1, "videos": list(scores.names), "hits": scores.hits.astype(int).tolist()}


def _given(payload: dict[str, Any]) -> tuple[Spec, Recipe, Pack]:
    """The network, its recipe, and the clips on this machine."""
    spec = parse_spec(parse_yaml(payload["spec"], "candidate", SpecError), "candidate")
    recipe = Recipe.model_validate(payload["recipe"])
    return spec, recipe, pack_for(spec, recipe, Path(payload["data"]), payload["digest"])


def _train(payload: dict[str, Any]) -> dict[str, Any]:
    spec, recipe, pack = _given(payload)
    store = open_store(payload["store"])
    if "parent" not in payload:
        result = train(spec, recipe, pack, store, until=payload.get("until"))
        return check_result(result, f"{store.url}/{RESULT}")
    seconds = inherit(open_store(payload["parent"]), spec, recipe, pack, store)
    result = check_result(train(spec, recipe, pack, store), f"{store.url}/{RESULT}")
    result |= {"seconds": round(result["seconds"] + seconds, 3)}
    write_json(store, RESULT, result)
    return result


def pack_for(spec: Spec, recipe: Recipe, data: Path, digest: str) -> Pack:
    """This machine's pack of the data set; decoded here where no worker of this machine has done so.

    Raises DataError where this machine's copy of the data set is another one.
    """
    kept = kept_pack(digest, pack_side(spec, recipe))
    pack = packed(read_dataset(data), spec, recipe) if kept is None else with_flow(kept, spec, recipe)
    if pack.digest != digest:
        raise DataError(f"{data}: holds other clips on this machine than where the search was started")
    return pack
