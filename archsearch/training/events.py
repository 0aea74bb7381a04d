"""The curve as TensorBoard reads it."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from archsearch.errors import RecipeError
from archsearch.store import Store

EVENTS = "events.out.tfevents.curve"  # TensorBoard looks for tfevents in names
TAGS = {
    "loss/train": "train_loss",
    "loss/val": "val_loss",
    "top1/train": "train_top1",
    "top1/val": "val_top1",
    "lr": "lr",
    "seconds": "seconds",
}


def check_events() -> None:
    """Raises RecipeError where the library is not installed."""
    if find_spec("tensorboardX") is None:
        raise RecipeError("recipe, tensorboard: needs tensorboardX; pip install 'archsearch[tensorboard]', or leave it")


def write_events(store: Store, curve: Sequence[Mapping[str, Any]]) -> None:
    """Writes one file of events, anew each time: a function of the curve, so that no resume can repeat an epoch.

    Steps are epochs from 1; times are the seconds of training until then, since the clock of an interrupted training
    says little.
    """
    from tensorboardX import SummaryWriter

    with TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            seconds = 0.0
            for entry in curve:
                seconds += entry["seconds"]
                for tag, name in TAGS.items():
                    writer.add_scalar(tag, entry[name], entry["epoch"] + 1, walltime=seconds)
        (file,) = Path(folder).iterdir()
        store.write(EVENTS, file.read_bytes())
