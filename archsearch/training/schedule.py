"""The learning rate of every step: warm-up, then one of five schedules, each a function of the curve so far."""

import math
from collections.abc import Sequence

from archsearch.training.recipe import Recipe, milestone_epochs


def learning_rate(recipe: Recipe, epoch: float, steps: int, losses: Sequence[float] = ()) -> float:
    """Linear warm-up from 0, then the recipe's schedule.

    `epoch` counts with its fraction, `steps` are one epoch's, `losses` the validation losses of the epochs before.

    - cosine: half a cosine to 0;
    - trapezoid: as it is, and linear to 0 over the last share `cooldown` of the epochs (Zhai et al. 2022);
    - steps: times gamma from each milestone on;
    - plateau: times gamma each time the loss has had no new minimum for `patience` epochs after the warm-up;
    - constant: as it is.
    """
    if epoch < recipe.warmup_epochs:
        return recipe.lr * min(1.0, (epoch + 1 / steps) / recipe.warmup_epochs)
    if recipe.schedule == "cosine":
        done = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * done))
    if recipe.schedule == "trapezoid":
        return recipe.lr * min(1.0, (recipe.epochs - epoch) / (recipe.epochs * recipe.cooldown))
    return recipe.lr * recipe.gamma ** _drops(recipe, epoch, losses)


def _drops(recipe: Recipe, epoch: float, losses: Sequence[float]) -> int:
    """How often the rate has been lowered."""
    if recipe.schedule == "steps":
        return sum(epoch >= milestone for milestone in milestone_epochs(recipe))
    if recipe.schedule == "plateau":
        return plateaus(losses[math.ceil(recipe.warmup_epochs) :], recipe.patience)
    return 0


def plateaus(losses: Sequence[float], patience: int) -> int:
    """How often `patience` losses in a row brought no new minimum, counted anew after each time."""
    lowest, without, found = math.inf, 0, 0
    for loss in losses:
        lowest, without = (loss, 0) if loss < lowest else (lowest, without + 1)
        if without == patience:
            without, found = 0, found + 1
    return found
