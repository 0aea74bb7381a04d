"""Choosing one network of a front: choose."""

import math
from typing import TYPE_CHECKING, Annotated

import typer

from archsearch.cli.shared import Json, RunArgument, print_json, print_line, print_table, say

if TYPE_CHECKING:
    from archsearch.front.choose import Bound

Bounds = list[str] | None


def choose(
    run: RunArgument,
    at_most: Annotated[Bounds, typer.Option("--max", metavar="METRIC=VALUE", help="at most, as gmacs=5")] = None,
    at_least: Annotated[Bounds, typer.Option("--min", metavar="METRIC=VALUE", help="at least, as top1=0.8")] = None,
    knee: Annotated[bool, typer.Option("--knee", help="where the front bends most, not the best")] = False,
    like: Annotated[
        str | None, typer.Option(metavar="SPEC", help="the cheapest that is as good as this network of the run")
    ] = None,
    thin: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="and K networks that stand for the front")
    ] = None,
    as_json: Json = False,
) -> None:
    """Name one network of a search's front, and say why: the best by the first objective within limits."""
    bounds = [*_bounds(at_most, "--max"), *_bounds(at_least, "--min")]
    if knee and like is not None:
        raise typer.BadParameter("give one of --knee and --like", param_hint="--like")
    from archsearch.api.runs import choose_within

    choice = choose_within(run, bounds, knee=knee, like=like, thin=thin)
    if choice.shared:
        say(f"{run}: values are read off shared weights; `archsearch finalize` trains the front")
    if as_json:
        print_json(choice.data)
        return
    for line in choice.lines:
        print_line(line)
    if choice.representatives is not None:
        print_table(choice.representatives)


def _bounds(texts: Bounds, option: str) -> "list[Bound]":
    """`metric=value` texts as limits. Raises typer.BadParameter for one that is not."""
    from archsearch.front.choose import Bound

    bounds = []
    for text in texts or ():
        metric, equals, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (metric.strip() and equals and math.isfinite(number)):
            raise typer.BadParameter(f"'{text}' is not METRIC=VALUE, as gmacs=5", param_hint=option)
        bounds.append(Bound(metric.strip(), number, option == "--max"))
    return bounds
