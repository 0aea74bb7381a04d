"""Single layers as stages: convolution, pooling, recurrence, the classifier, and the mean of several."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from archsearch.spec.builder import Builder
from archsearch.spec.fields import (
    Act_,
    Flag,
    GateField,
    Groups,
    Kernel,
    Padding,
    Positive,
    Stage,
    Stride,
    resolve_act,
    resolve_gate,
    resolve_kernel,
    resolve_stride,
)
from archsearch.spec.graph import Half, Kind, is_factorised


class ConvStage(Stage):
    """A convolution with norm, activation and gate, e.g. a stem.

    `norm: inner` has a norm between the halves of a factorised site and a bias at its end (TF-slim's S3D-G).
    """

    kind: Literal["conv"] = "conv"
    width: Positive
    kernel: Kernel = 3
    stride: Stride = 1
    padding: Padding = None
    conv: Kind = "3d"
    mid: Annotated[
        Literal["conv"] | Positive, Field(description="conv (the 3D parameter count) or a number of channels")
    ] = "conv"
    first: Half = "space"  # which half of a factorised site comes first
    groups: Groups = 1
    bias: Flag = False
    norm: Flag | Literal["inner"] = True
    act: Act_ = "relu"
    gate: GateField = False

    def append(self, graph: Builder, x: str) -> str:
        """conv, norm, act, gate."""
        kernel = resolve_kernel(self.kernel, graph.size(x).t)
        inner = self.norm == "inner" and is_factorised(self.conv, kernel)
        x = graph.conv(
            f"{self.name}.conv",
            x,
            self.width,
            kernel,
            resolve_stride(self.stride, self.conv),
            self.padding,
            kind=self.conv,
            mid=self.mid if isinstance(self.mid, int) else None,
            groups=self.groups,
            bias=self.bias or inner,
            first=self.first,
        )
        if self.norm and not inner:
            x = graph.norm(f"{self.name}.norm", x)
        if self.act != "none":
            x = graph.act(f"{self.name}.act", x, resolve_act(self.act))
        return graph.gate(f"{self.name}.gate", x, resolve_gate(self.gate, self.width)) if self.gate else x


class PoolStage(Stage):
    """Pooling between stages. Its stride never follows a convolution's kind: an integer strides time too."""

    kind: Literal["pool"] = "pool"
    mode: Literal["max", "avg"] = "max"
    kernel: Kernel = 3
    stride: Stride = 2
    padding: Padding = None

    def append(self, graph: Builder, x: str) -> str:
        """One pool; padding defaults to the spec's rule."""
        kernel = resolve_kernel(self.kernel, graph.size(x).t)
        return graph.pool(f"{self.name}.pool", x, self.mode, kernel, resolve_stride(self.stride, "3d"), self.padding)


class RecurrentStage(Stage):
    """An LSTM over frames, which reads each frame's mean over space (Carreira & Zisserman 2017's ConvNet + LSTM)."""

    kind: Literal["recurrent"] = "recurrent"
    width: Positive
    norm: Flag = True
    output: Literal["last", "all"] = "last"  # the state after the last frame, or after each

    def append(self, graph: Builder, x: str) -> str:
        """mean, norm, lstm."""
        x = graph.mean(f"{self.name}.mean", x, over="space")
        x = graph.norm(f"{self.name}.norm", x) if self.norm else x
        return graph.lstm(f"{self.name}.lstm", x, self.width, self.output == "last")


Window = tuple[Positive | Literal["all"], Positive | Literal["all"], Positive | Literal["all"]]


class HeadStage(Stage):
    """The classifier: pooling, hidden layers, dropout, and one linear map to the classes.

    `pool` is the mean over all places, `flatten` (all places' channels, as C3D), or the window of an average pool with
    stride 1, in which `all`, or more than there is, is a whole side. What places such a pool leaves are classified one
    by one and averaged (`mean: after`, I3D), or averaged first. Of several stages in `from`, each is pooled before they
    are concatenated.
    """

    kind: Literal["head"] = "head"
    classes: Positive
    pool: Annotated[
        Literal["mean", "flatten"] | Window,
        Field(description="mean, flatten or a window [time, height, width] of positive integers or `all`"),
    ] = "mean"
    mean: Literal["before", "after"] = "after"
    norm: Flag = False  # norm and act before pooling, of networks that end in a plain sum
    hidden: tuple[Positive, ...] = ()
    bias: Flag = True  # of the hidden layers
    act: Act_ = "relu"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # after each hidden layer, or before the only map

    def merge(self, graph: Builder, inputs: Sequence[str]) -> str:
        """Each pooled, then their concat."""
        pooled = [graph.mean(f"{self.name}.mean{number}", x) for number, x in enumerate(inputs, start=1)]
        return super().merge(graph, pooled)

    def append(self, graph: Builder, x: str) -> str:
        """norm and act, pool, hidden layers, dropout, linear, mean."""
        name, act = self.name, resolve_act(self.act)
        if self.norm:
            x = graph.norm(f"{name}.norm", x)
            x = graph.act(f"{name}.act", x, act) if act else x
        x = self._pool(graph, x)
        for number, width in enumerate(self.hidden, start=1):
            x = graph.linear(f"{name}.hidden{number}", x, width, self.bias)
            x = graph.act(f"{name}.act{number}", x, act) if act else x
            x = graph.dropout(f"{name}.dropout{number}", x, self.dropout)
        if not self.hidden:
            x = graph.dropout(f"{name}.dropout", x, self.dropout)
        x = graph.linear(f"{name}.linear", x, self.classes)
        return graph.mean(f"{name}.mean", x) if isinstance(self.pool, tuple) and self.mean == "after" else x

    def _pool(self, graph: Builder, x: str) -> str:
        if self.pool == "flatten":
            return graph.flatten(f"{self.name}.flatten", x)
        if isinstance(self.pool, tuple):
            sides = zip(self.pool, graph.size(x)[1:], strict=True)
            t, h, w = (whole if side == "all" else min(side, whole) for side, whole in sides)
            x = graph.pool(f"{self.name}.pool", x, "avg", (t, h, w), padding=(0, 0, 0))
        return x if isinstance(self.pool, tuple) and self.mean == "after" else graph.mean(f"{self.name}.mean", x)

    @model_validator(mode="after")
    def _check(self) -> "HeadStage":
        if isinstance(self.from_, tuple) and len(self.from_) > 1 and self.pool != "mean":
            raise ValueError("from: several stages are each averaged over all places; use pool: mean")
        return self


class AverageStage(Stage):
    """The mean of what several stages give, as the scores of two streams."""

    kind: Literal["average"] = "average"
    from_: Annotated[tuple[str, ...], Field(alias="from", min_length=2, description="a list of two names or more")]

    def merge(self, graph: Builder, inputs: Sequence[str]) -> str:
        """Their mean."""
        return graph.average(f"{self.name}.mean", *inputs)

    def append(self, graph: Builder, x: str) -> str:
        """Nothing more."""
        return x
