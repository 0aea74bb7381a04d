"""Which part of a network a recipe trains, and how fast: frozen stages and norms, learning-rate factors per stage."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from archsearch.errors import RecipeError
from archsearch.files import near_or_all
from archsearch.training.recipe import Recipe

Norms = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


def parameter_groups(net: nn.Module, stages: Iterable[str], recipe: Recipe) -> list[dict[str, Any]]:
    """The optimiser's groups, each with its `factor` of the learning rate; what is not trained takes no gradient.

    No weight decay on norms and biases. Raises RecipeError for a pattern that matches no stage, or where nothing is
    left to train.
    """
    _check(recipe, tuple(stages))
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for path, module in net.named_modules():
        trained = _is_trained(path, module, recipe)
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(trained)
            if trained:
                groups.setdefault((_factor(path, recipe), parameter.ndim > 1), []).append(parameter)
    if not groups:
        raise RecipeError(f"recipe, train_only: {', '.join(recipe.train_only)} has nothing to train")
    return [
        {"params": parameters, "weight_decay": recipe.weight_decay if decays else 0.0, "factor": factor}
        for (factor, decays), parameters in sorted(groups.items(), key=lambda item: (-item[0][0], not item[0][1]))
    ]


def training_mode(net: nn.Module, recipe: Recipe) -> None:
    """Training mode, but for what is frozen: its norms keep their statistics, its dropout lets everything pass."""
    net.train()
    for path, module in net.named_modules():
        if path and not any(module.children()) and not _is_trained(path, module, recipe):
            module.eval()


def _is_trained(path: str, module: nn.Module, recipe: Recipe) -> bool:
    if recipe.frozen_norm and isinstance(module, Norms):
        return False
    return not recipe.train_only or any(fnmatchcase(_stage(path), pattern) for pattern in recipe.train_only)


def _factor(path: str, recipe: Recipe) -> float:
    """The factor of the first pattern that matches the stage, or 1."""
    return next((f for pattern, f in recipe.lr_factors.items() if fnmatchcase(_stage(path), pattern)), 1.0)


def _stage(path: str) -> str:
    return path.partition(".")[0]


def _check(recipe: Recipe, stages: tuple[str, ...]) -> None:
    faults = [
        f"recipe, {field}: '{pattern}' matches no stage{near_or_all(pattern, stages)}"
        for field, patterns in (("train_only", recipe.train_only), ("lr_factors", recipe.lr_factors))
        for pattern in patterns
        if not any(fnmatchcase(stage, pattern) for stage in stages)
    ]
    if faults:
        raise RecipeError(*faults)
