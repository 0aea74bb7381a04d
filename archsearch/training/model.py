"""A model folder: a trained network as other programs use it, written whole or not at all.

spec.yaml recipe.json labels.txt weights.safetensors    as in a trained network's folder
model.json               what goes in and comes out, how clips are cut, accuracy, cost, latency, checks, sums of files
model.pt2                a torch.export program: pixels to scores, for any batch
model.onnx               the same function, where ONNX's packages are installed
model_int8.onnx          the same in 8-bit whole numbers, if asked for
model.xml, model.bin     the same for OpenVINO, if asked for
MODEL.md                 the same facts for people
"""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from archsearch.errors import RunError
from archsearch.files import shorten
from archsearch.spec.spec import Spec
from archsearch.store import LocalStore, Store, open_store
from archsearch.training.checkpoint import WEIGHTS
from archsearch.training.model_json import CARD, INT8, LABELS, MODEL, ONNX, PROGRAM, Model, fits, read_facts
from archsearch.training.recipe import Recipe
from archsearch.training.single import read_network

NETWORK = ("spec.yaml", "recipe.json", LABELS, WEIGHTS)
FILES = (*NETWORK, MODEL, CARD, PROGRAM, ONNX, INT8, "model.xml", "model.bin")  # whatever a model folder may hold


def read_model(folder: str) -> tuple[Model, Spec, Recipe]:
    """What a model folder says. The files it lists are checked when they are read (see `model_file`).

    Raises RunError for a folder that is none, of another version, or whose files do not belong together.
    """
    store = open_store(folder)
    model = read_facts(store)
    if model is None:
        raise RunError(f"{folder}: is no model folder (it has no {MODEL}); `archsearch export` makes one")
    for name in NETWORK:
        model_file(store, model, name)
    spec, recipe, labels = read_network(store)
    if labels != model.labels:
        raise RunError(f"{folder}/{MODEL}: names other labels than {LABELS}")
    return model, spec, recipe


def model_file(store: Store, model: Model, name: str) -> bytes:
    """A file of a model folder. Raises RunError where it is missing, or is not the one that was written with it."""
    known = model.files.get(name)
    if known is None:
        raise RunError(f"{store.url}: has no {name}; it has {', '.join(model.files)}")
    content = store.read(name)
    if content is None:
        raise RunError(f"{store.url}/{name}: is missing; export the model again")
    if not fits(known, content):
        raise RunError(f"{store.url}/{name}: is not the file that {MODEL} was written with (sha256 differs)")
    return content


def check_labels(place: str, spec: Spec, labels: tuple[str, ...]) -> None:
    """Raises RunError where the labels are not one name for each class of the network."""
    if len(labels) != spec.classes:
        raise RunError(f"{place}/labels.txt: has {len(labels)} names; {spec.name} tells {spec.classes} classes apart")
    odd = next((name for name in labels if not name.strip() or labels.count(name) > 1), None)
    if odd is not None:
        raise RunError(f"{place}/labels.txt: {shorten(odd)} is empty or stands there twice")


def check_place(out: str) -> None:
    """Raises RunError where a model folder may not be written: a URL, or what is no model folder and nothing else."""
    if "://" in out:
        raise RunError(f"{out}: should be a folder of this machine")
    path = Path(out)
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise RunError(f"{out}: is no folder; give --out a new one")
    names = {entry.name for entry in path.iterdir()} if path.exists() else set()
    if not names:
        return
    others = sorted(names - set(FILES))
    if MODEL not in names:
        raise RunError(f"{out}: holds other files and no {MODEL}; give --out a new folder")
    if others:
        raise RunError(f"{out}: holds {others[0]}, which is no part of a model folder; give --out a new folder")


def put_model(store: Store, files: Mapping[str, bytes]) -> None:
    """Writes a model folder; one that stands there is replaced. Raises RunError (see `check_place`).

    On this machine whole or not at all; elsewhere model.json comes last, and a folder that has it is whole.
    """
    if isinstance(store, LocalStore):
        check_place(store.url)
        _put_whole(Path(store.url), files)
        return
    store.delete(MODEL)
    for name in sorted(files, key=lambda name: name == MODEL):
        store.write(name, files[name])


def _put_whole(out: Path, files: Mapping[str, bytes]) -> None:
    out = out.absolute()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".part"))
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror or error}") from None
    before = Path(f"{made}.before")
    try:
        for name, content in files.items():
            (made / name).write_bytes(content)
        made.chmod(0o755)
        if out.exists():
            out.rename(before)
        try:
            made.rename(out)
        except BaseException:
            if before.exists():
                before.rename(out)
            raise
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
        if out.exists():
            shutil.rmtree(before, ignore_errors=True)
