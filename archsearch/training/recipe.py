"""A recipe: everything about a training besides the network and the clips."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from archsearch.errors import RecipeError
from archsearch.files import Record, read_record, read_yaml
from archsearch.video.flow import Method

Rgb = tuple[float, float, float]
Count = Annotated[int, Field(strict=True, ge=1)]
AboveZero = Annotated[float, Field(strict=True, gt=0)]
Share = Annotated[float, Field(strict=True, gt=0, le=1)]
Part = Annotated[float, Field(strict=True, gt=0, lt=1)]
Flag = Annotated[bool, Field(strict=True)]


class Recipe(Record):
    """How networks are trained and scored. The reason stands beside each default."""

    epochs: Count = 30
    batch: Count = 16  # of one step of the optimiser, over all processes
    accumulate: Count = 1  # parts a batch goes through the network in, where memory is short; norms see a part
    optimizer: Literal["adamw", "sgd"] = "adamw"  # needs less tuning than SGD on short schedules
    lr: AboveZero = 2e-3  # the peak, after warm-up
    momentum: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.9  # of SGD
    weight_decay: Annotated[float, Field(strict=True, ge=0)] = 0.05  # not of norms and biases
    warmup_epochs: Annotated[float, Field(strict=True, ge=0)] = 2  # linear from 0; then the schedule
    schedule: Literal["cosine", "trapezoid", "steps", "plateau", "constant"] = "cosine"  # ends annealed; no tuning
    cooldown: Share = 0.3  # of trapezoid: the share of the epochs at the end in which the rate falls to 0
    milestones: tuple[Count | Part, ...] = Field(
        (0.5, 0.75), min_length=1, description="a list of epochs, or of shares of the epochs (below 1), that rise"
    )  # of steps: lr times gamma from each on; the places of He et al. 2016 on CIFAR
    gamma: Part = 0.1  # of steps and plateau, as the papers in recipes/ have it
    patience: Count = 10  # of plateau: epochs without a lower validation loss (Hara et al. 2018, their code)
    train_only: tuple[str, ...] = Field((), description="a list of stages or patterns such as res*")  # none: all
    lr_factors: Mapping[str, AboveZero] = Field(
        {}, description="a factor of lr for each stage or pattern, as {res*: 0.1}"
    )
    start_share: Share = 1.0  # of kernels that training starts from; the rest is a fresh draw (Ash & Adams 2020)
    frozen_norm: Flag = False  # norms keep statistics, scale and shift, as weights from elsewhere on small batches want
    loss: Literal["cross-entropy", "binary"] = "cross-entropy"  # binary: each class is right or wrong on its own
    ema: Part | None = None  # decay of averaged weights, e.g. 0.999, less in the first steps; these are scored and kept
    clip_norm: AboveZero | None = 5.0  # of all gradients together
    label_smoothing: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.1
    seed: Annotated[int, Field(strict=True, ge=0)] = 0
    threads: Count = 1  # of a worker: its number changes bits, so it belongs to the recipe
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"  # bf16: where convolutions proved themselves
    compile: Flag = False  # torch.compile takes longer than short candidates train
    recompute: Flag = False  # norms and activations run again in the backward pass: less memory, the same bits
    channels_last: Flag = True  # 1.1 to 1.4 times as fast as the default layout on CPU

    stride: Count | Literal["spread"] | tuple[Count, Count] = Field(
        "spread",
        description="a whole number of 1 or more (frames from one to the next), two of them (from low to high, drawn "
        "for each clip), or spread (over the whole video)",
    )
    short_side: Annotated[int, Field(strict=True, ge=8)] | None = None  # of packed frames; None: 8/7 of the crop
    flip: Flag = True  # mirrored clips in training, but for the classes where left and right differ:
    flip_except: tuple[str, ...] = Field((), description="a list of class names")
    flip_map: Mapping[str, str] = Field({}, description="classes that mirrored clips belong to, as {left: right}")
    crop: Literal["random", "scales", "corners", "resized"] = "random"  # of training clips; see `scales` and `area`
    scales: tuple[Share, ...] = Field(
        (1.0, 0.84, 0.71, 0.59, 0.5), min_length=1, description="a list of shares of the short side"
    )  # a factor of 2 ** -0.25 from one to the next (Hara et al. 2018)
    area: tuple[Share, Share] = Field((0.25, 1.0), description="two shares of the frame, the least and the most")
    jitter: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.0  # the share of its room each frame moves in time
    reverse: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.0  # probability of a clip played backwards
    reverse_map: Mapping[str, str] = Field({}, description="classes that reversed clips belong to, as {open: close}")
    colour: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.0  # brightness, contrast, saturation: 1 - c ... 1 + c
    mixup: Annotated[float, Field(strict=True, ge=0)] = 0.0  # alpha; of both, one is drawn for each batch
    cutmix: Annotated[float, Field(strict=True, ge=0)] = 0.0
    erasing: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.0  # probability of a box of one colour
    mean: Rgb = Field((0.45, 0.45, 0.45), description="a list of three numbers")
    std: Rgb = Field((0.225, 0.225, 0.225), description="a list of three numbers")
    views: Count = 3  # evenly spaced clips whose scores are averaged for one video
    tensorboard: Flag = False  # events beside the curve; needs archsearch[tensorboard]
    flow: Method = "farneback"  # of networks that read optical flow; as Tran et al. 2018
    flow_bound: AboveZero | None = None  # pixels a frame that flow is cut off at; None: 20 at a short side of 256
    max_broken: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.1  # the share of broken videos still accepted

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs:g} leaves nothing of epochs {self.epochs}; lower it")
        if self.schedule == "trapezoid" and self.warmup_epochs > self.epochs * (1 - self.cooldown):
            raise ValueError(f"cooldown: {self.cooldown:g} of the epochs begins within the warm-up; lower one of them")
        places = milestone_epochs(self)
        if self.schedule == "steps" and (list(places) != sorted(set(places)) or places[-1] >= self.epochs):
            raise ValueError(f"milestones: {_listed(places)} should rise and end before epoch {self.epochs}")
        if self.accumulate > self.batch:
            raise ValueError(f"accumulate: {self.accumulate} parts of a batch of {self.batch}; lower it")
        if self.recompute and self.compile:
            raise ValueError("recompute: a compiled network decides on its own what to compute again; choose one")
        if isinstance(self.stride, tuple) and self.stride[0] > self.stride[1]:
            raise ValueError(f"stride: {self.stride[0]} is more than {self.stride[1]}; the lower one comes first")
        if self.area[0] > self.area[1]:
            raise ValueError(f"area: {self.area[0]:g} is more than {self.area[1]:g}; the least comes first")
        if min(self.std) <= 0:
            raise ValueError(f"std: {self.std} must be above 0")
        return self


def milestone_epochs(recipe: Recipe) -> tuple[float, ...]:
    """The milestones in epochs; those below 1 are shares of the recipe's epochs."""
    return tuple(place * recipe.epochs if place < 1 else place for place in recipe.milestones)


def _listed(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def read_recipe(path: Path) -> Recipe:
    """The recipe a YAML file holds. Raises RecipeError with one line for every fault."""
    faults: list[str] = []
    recipe = read_record(Recipe, read_yaml(path, RecipeError), str(path), faults)
    if recipe is None:
        raise RecipeError(*faults)
    return recipe


def short_side(recipe: Recipe, height: int, width: int) -> int:
    """The short side frames are packed at, in pixels: the recipe's, or 8/7 of the crop, rounded up to even.

    Raises RecipeError where the recipe's is less than the crop.
    """
    if recipe.short_side is not None:
        if recipe.short_side < max(height, width):
            raise RecipeError(f"recipe, short_side: {recipe.short_side} is less than the clip's {height} x {width}")
        return recipe.short_side
    needed = -(-max(height, width) * 8 // 7)
    return needed + needed % 2
