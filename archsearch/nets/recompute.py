"""Training in less memory: what is cheap to compute again is not kept for the backward pass.

A convolution keeps what it reads for its backward pass, mostly what a norm and an activation have made of the
convolution before, which the norm keeps, too. Here only the latter stays: norms, activations, sums and concatenations
between convolutions run again when the backward pass asks for them, by the same kernels on the same numbers, so that
gradients are the same bit for bit (Chen et al. 2016, without running a convolution twice).
"""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

Function = Callable[..., Tensor]


@contextmanager
def recomputing() -> Iterator[None]:
    """Inside it, forward passes keep less; their backward passes may come later."""
    watch = _Watch()
    with watch, saved_tensors_hooks(watch.keep, Saved.value):
        yield


class Saved:
    """A tensor for the backward pass: itself, or a view of what is computed again."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor: Tensor | None = tensor
        self.view = (tensor.size(), tensor.stride(), tensor.storage_offset())
        self.source: Cheap | None = None

    def comes_from(self, source: "Cheap") -> "Saved":
        """Lets go of the tensor."""
        self.tensor, self.source = None, source
        return self

    def value(self) -> Tensor:
        """The tensor, as the backward pass asks for it."""
        if self.source is None:
            assert self.tensor is not None
            return self.tensor
        self.source.uses -= 1
        return self.read()

    def read(self) -> Tensor:
        """The tensor, as another computation asks for it."""
        if self.source is None:
            assert self.tensor is not None
            return self.tensor
        return self.source.value().as_strided(*self.view)


def norm_again(
    x: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """A batch norm that has moved its running statistics already."""
    if training:
        mean = variance = None
    return F.batch_norm(x, mean, variance, weight, bias, training, momentum, eps)


AGAIN: Mapping[Any, Function] = {  # cheap functions, and how each is computed again
    **{function: function for function in (F.relu, F.silu, F.hardswish, Tensor.mul, Tensor.div, Tensor.add, torch.cat)},
    F.batch_norm: norm_again,
}
JOINS = (Tensor.add, torch.cat)


@dataclass(eq=False)
class Cheap:
    """A result that can be computed again: the call, with a Saved for every tensor."""

    function: Function
    args: Sequence[Any]
    options: Mapping[str, Any]
    made: weakref.ref[Tensor]
    version: int  # of the result: it changes when somebody writes into it
    joins: int  # sums and concatenations on the way from what is kept
    uses: int = 0  # how often the backward pass will ask for it
    held: Tensor | None = None  # for the join behind it, so that computing goes back no further than one
    cache: Tensor | None = None  # as long as the backward pass will ask again

    def value(self) -> Tensor:
        """The result."""
        found = self.held if self.held is not None else self.cache
        if found is None:
            args, options = tree_map_only(Saved, Saved.read, (self.args, self.options))
            with torch.no_grad():
                found = self.function(*args, **options)
        self.cache = found if self.uses > 0 else None
        return found


class _Watch(TorchFunctionMode):
    """Remembers results of cheap calls for as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, Cheap] = {}  # by the address of the result's memory
        self._asked: list[Saved] | None = None  # what the cheap call that runs has asked to keep

    def __torch_function__(
        self, function: Any, types: object, args: Sequence[Any] = (), options: Mapping[str, Any] | None = None
    ) -> Any:
        options = options or {}
        if function not in AGAIN or not torch.is_grad_enabled():
            return function(*args, **options)
        if function in JOINS:
            self._hold(tree_leaves((args, options)))
        call = tree_map_only(Tensor, self._stand_in, (args, options))
        self._asked = []
        result = function(*args, **options)
        self._remember(result, function, *call)
        self._asked = None
        return result

    def keep(self, tensor: Tensor) -> Saved:
        """What an operation keeps for its backward pass."""
        saved = self._stand_in(tensor)
        if saved.source is not None:
            saved.source.uses += 1
        elif self._asked is not None:
            self._asked.append(saved)
        return saved

    def _source(self, tensor: Tensor) -> Cheap | None:
        """How a tensor, or what it is a view of, is computed again."""
        source = self._known.get(_address(tensor))
        if source is None or source.made() is None or source.version != tensor._version:
            return None
        return source

    def _stand_in(self, tensor: Tensor) -> Saved:
        saved, source = Saved(tensor.detach()), self._source(tensor)
        return saved if source is None else saved.comes_from(source)

    def _hold(self, given: Sequence[Any]) -> None:
        """Keeps what is joined if it was joined itself."""
        for each in given:
            source = self._source(each) if isinstance(each, Tensor) else None
            if source is not None and source.joins:
                made = source.made()
                source.held, source.joins = None if made is None else made.detach(), 0

    def _remember(self, result: Tensor, function: Any, args: Sequence[Any], options: Mapping[str, Any]) -> None:
        place = _address(result)
        reads = [leaf for leaf in tree_leaves((args, options)) if isinstance(leaf, Saved)]
        if any(read.tensor is not None and _address(read.tensor) == place for read in reads):
            return  # written over what it would be computed from
        joins = max((read.source.joins for read in reads if read.source), default=0) + (function in JOINS)
        made = Cheap(AGAIN[function], args, options, weakref.ref(result), result._version, joins)
        self._known[place] = made
        for saved in self._asked or []:
            if saved.tensor is not None and _address(saved.tensor) == place:
                saved.comes_from(made)
                made.uses += 1


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
