"""Several processes that train one network: who this one is, its part of a batch, and what all of them add up to.

Started by torchrun (RANK and WORLD_SIZE in the environment). In a single process every function here does nothing.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from archsearch.errors import RecipeError, TrainingError
from archsearch.store import Store
from archsearch.training.recipe import Recipe


class ReadOnly:
    """A store as the processes besides the first see it: what they write is written already, or will be."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.url = store.url

    def read(self, name: str) -> bytes | None:
        """The content of a file, or None."""
        return self._store.read(name)

    def write(self, name: str, content: bytes | str) -> None:
        """Nothing."""

    def names(self, folder: str = "") -> list[str]:
        """What stands in a folder."""
        return self._store.names(folder)

    def delete(self, name: str) -> None:
        """Nothing."""

    def sweep(self) -> None:
        """Nothing."""

    def at(self, folder: str) -> "ReadOnly":
        """The store of a folder inside."""
        return ReadOnly(self._store.at(folder))


def number() -> int:
    """Which of the processes this is, from 0."""
    return dist.get_rank() if _joined() else 0


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _joined() else 1


def leads() -> bool:
    """Whether this is the process that writes and reports."""
    return number() == 0


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def together(device: str) -> Iterator[None]:
    """Joins the processes that torchrun started, if it did: over gloo on cpu, over nccl on a GPU for each on cuda."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _joined():
        yield
        return
    if device == "cuda":
        if not torch.cuda.is_available():
            raise RecipeError("recipe, device: torch sees no cuda device here; take cpu")
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    patience = timedelta(days=2)  # others wait while the first packs; torchrun ends all when one ends
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=patience)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process does what stands inside, then the others do, and find what it wrote.

    Raises TrainingError in the others where the first one fails.
    """
    if not leads():
        try:
            dist.barrier()
        except RuntimeError:
            raise TrainingError(f"process {number()}: the first process stopped") from None
    yield
    if leads() and count() > 1:
        dist.barrier()


def own_store(store: Store) -> Store:
    """The store, which only the first process writes to."""
    return store if leads() else ReadOnly(store)


def own_part(size: int) -> slice:
    """This process's part of a batch; the parts differ by one clip at most, and together are the batch.

    Raises RecipeError where a process would have nothing.
    """
    if size < count():
        raise RecipeError(f"recipe, batch: a batch of {size} clips is less than one for each of {count()} processes")
    each, more = divmod(size, count())
    start = each * number() + min(number(), more)
    return slice(start, start + each + (number() < more))


def summed(*values: float) -> tuple[float, ...]:
    """Each number's sum over the processes."""
    if count() == 1:
        return values
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return tuple(total.tolist())


def all_rows(row: Tensor) -> Tensor:
    """A tensor on the CPU, of the same shape in every process: (processes, ...), or as it is in a single one."""
    if count() == 1:
        return row
    rows: list[Any] = [None] * count()
    dist.all_gather_object(rows, row)
    return torch.stack(rows)


def with_shared_norms(net: nn.Module, recipe: Recipe) -> nn.Module:
    """The same network, its norms over the clips of all processes. Raises RecipeError on cpu, where torch has no such.

    Frozen norms need no sharing.
    """
    if count() == 1 or recipe.frozen_norm:
        return net
    if recipe.device == "cpu":
        raise RecipeError("recipe, frozen_norm: norms of several processes are only synchronised on cuda; set it true")
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
    return converted


def shared(net: nn.Module) -> nn.Module:
    """What trains `net` in all processes alike: their gradients are averaged."""
    return net if count() == 1 else DistributedDataParallel(net, forward_sync_buffers=False)


def waiting(model: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Gradients stay in this process until the last part of a batch."""
    if last or not isinstance(model, DistributedDataParallel):
        return nullcontext()
    return model.no_sync()
