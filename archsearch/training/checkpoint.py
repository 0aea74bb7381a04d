"""Checkpoints: everything an epoch leaves behind, written whole, read without executing anything."""

import io
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from archsearch.errors import RunError
from archsearch.store import Store

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.safetensors"
START = "start.safetensors"  # what a training starts from, where that is not chance


def save_checkpoint(store: Store, state: dict[str, Any]) -> None:
    """Writes the state after an epoch."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    store.write(CHECKPOINT, buffer.getvalue())


def load_checkpoint(store: Store) -> dict[str, Any] | None:
    """The last state, or None. Raises RunError for a file that is no checkpoint."""
    content = store.read(CHECKPOINT)
    if content is None:
        return None
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise RunError(f"{store.url}/{CHECKPOINT}: not a checkpoint ({reason}); delete it to start afresh") from None
    return state


def save_weights(store: Store, net: nn.Module) -> None:
    """Writes weights and norm statistics as safetensors."""
    save_state(store, net.state_dict())


def save_state(store: Store, state: dict[str, torch.Tensor], name: str = WEIGHTS) -> None:
    """Writes tensors by name as safetensors."""
    store.write(name, save_tensors({name: value.detach().cpu().contiguous() for name, value in state.items()}))


def read_weights(store: Store) -> dict[str, torch.Tensor]:
    """The tensors of a trained network's folder. Raises RunError where they are missing or cut."""
    content = store.read(WEIGHTS)
    if content is None:
        raise RunError(f"{store.url}: has no {WEIGHTS}; train it first (or this run is kept without weights)")
    try:
        tensors: dict[str, torch.Tensor] = load_tensors(content)
    except Exception as error:
        raise RunError(f"{store.url}/{WEIGHTS}: not a whole safetensors file: {error}") from None
    return tensors


def load_weights(store: Store, net: nn.Module) -> None:
    """Reads weights into a network of the same spec. Raises RunError where they are missing or do not fit."""
    tensors = read_weights(store)
    try:
        net.load_state_dict(tensors)
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise RunError(f"{store.url}/{WEIGHTS}: does not fit the network beside it: {reason}") from None
