"""A recipe: everything about a training besides the network and the clips."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from archsearch.errors import RecipeError
from archsearch.files import Record, read_record, read_yaml

Rgb = tuple[float, float, float]


class Recipe(Record):
    """How networks are trained and scored. The reason stands beside each default."""

    epochs: Annotated[int, Field(ge=1)] = 30
    batch: Annotated[int, Field(ge=1)] = 16
    optimizer: Literal["adamw", "sgd"] = "adamw"  # needs less tuning than SGD on short schedules
    lr: Annotated[float, Field(gt=0)] = 2e-3  # the peak, after warm-up
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # of SGD
    weight_decay: Annotated[float, Field(ge=0)] = 0.05  # not of norms and biases
    warmup_epochs: Annotated[float, Field(ge=0)] = 2  # linear from 0; then a cosine to 0
    clip_norm: Annotated[float, Field(gt=0)] | None = 5.0  # of all gradients together
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=1)] = 1  # of a worker: its number changes bits, so it belongs to the recipe
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: autocast, for convolutions that proved themselves
    channels_last: bool = True  # 1.1 to 1.4 times as fast as the default layout on CPU

    stride: Annotated[int, Field(ge=1)] | Literal["spread"] = Field(
        "spread", description="frames from one sampled frame to the next (1 or more), or spread (over the whole video)"
    )
    short_side: Annotated[int, Field(ge=8)] | None = None  # of packed frames; None: 8/7 of the crop (128 for 112)
    flip: bool = True  # mirrored clips in training ...
    flip_except: tuple[str, ...] = ()  # ... but not of classes where left and right differ
    mean: Rgb = (0.45, 0.45, 0.45)
    std: Rgb = (0.225, 0.225, 0.225)
    views: Annotated[int, Field(ge=1)] = 3  # evenly spaced clips whose scores are averaged for one video
    max_broken: Annotated[float, Field(ge=0, le=1)] = 0.1  # the share of broken videos that is still accepted

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs:g} leaves nothing of epochs {self.epochs}")
        if min(self.std) <= 0:
            raise ValueError(f"std: {self.std} must be above 0")
        return self


def read_recipe(path: Path) -> Recipe:
    """The recipe a YAML file holds. Raises RecipeError with one line for every fault."""
    faults: list[str] = []
    recipe = read_record(Recipe, read_yaml(path, RecipeError), str(path), faults)
    if recipe is None:
        raise RecipeError(*faults)
    return recipe


def short_side(recipe: Recipe, height: int, width: int) -> int:
    """The short side frames are packed at, in pixels: the recipe's, or 8/7 of the crop, rounded up to even."""
    if recipe.short_side is not None:
        return recipe.short_side
    needed = -(-max(height, width) * 8 // 7)
    return needed + needed % 2
