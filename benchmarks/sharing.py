"""How weights shared by a whole space rank its networks, and at what cost, beside short trainings of each of them.

    python benchmarks/sharing.py SPACE DATA TABLE --work FOLDER [--mix sum centre] [--epochs N]

TABLE has the networks of SPACE trained on DATA (`archsearch tabulate`), with several seeds and lengths of schedule. One
elastic network is trained by the table's recipe, perhaps for other epochs, and every network of the table is read off;
`--mix` is what a 2D kernel is of the 3D one at first. Printed as Markdown: Kendall's tau of the values with the final
ones (mean over the table's seeds), and the cost in epochs of single trainings, which for shared weights are counted in
multiply-adds of an average network. Whatever is finished is kept in FOLDER.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scores import GOALS, Trained, another_seed, tau, trained_networks

from archsearch.report.progress import reporting
from archsearch.search.launch import Wish, prepare
from archsearch.search.sharing import SHARED, share
from archsearch.search.table import Replay, Table, read_table
from archsearch.space.file import read_space
from archsearch.spec.cost import total_cost
from archsearch.spec.spec import digest, lower
from archsearch.store import read_json
from archsearch.training.clips import split_of
from archsearch.training.loop import RESULT

Row = tuple[str, Sequence[float], float]  # what, its tau by goal, epochs of single trainings


def shared_row(options: argparse.Namespace, mix: Any, table: Table, networks: Mapping[str, Trained]) -> Row:
    """Trains shared weights, or goes on; tau of what is read off with the table's finals."""
    recipe = table.recipe.model_copy(update={"epochs": options.epochs or table.recipe.epochs})
    out = str(options.work / f"{mix}_{recipe.epochs}")
    with reporting() as report:
        plan, _, pack = prepare(options.space, options.data, out, recipe, Wish(shared=True), report)
        share(plan, pack, None, report, mix)
    values = {}
    for trial in plan.folder.settled():
        text = (plan.folder.candidate(trial.candidate).read("spec.yaml") or b"").decode()
        if trial.state == "complete" and Replay.network(text) in networks:
            values[Replay.network(text)] = trial.metrics
    members = [networks[name] for name in values]
    taus = [tau([sign * found[goal] for found in values.values()], members, goal) for goal, sign in GOALS.items()]
    result = read_json(plan.folder.store.at(SHARED), RESULT)
    mean_macs = np.mean([total_cost(lower(each.spec)).macs for each in networks.values()])
    cost = result["macs"] / (float(mean_macs) * len(split_of(pack, "train")))
    return f"shared weights, {mix}, {recipe.epochs} epochs ({len(values)} networks)", taus, cost


def short_rows(table: Table, networks: Mapping[str, Trained]) -> list[Row]:
    """Complete schedules of fewer epochs, one seed each: the mean over seeds of their tau with the finals."""
    found: list[Row] = []
    lengths = sorted({epochs for _, _, epochs in table.rows} - {table.recipe.epochs})
    for epochs in lengths:
        taus: list[list[float]] = []
        for seed in sorted({seed for _, seed, length in table.rows if length == epochs}):
            rows = {name: row for name in networks if (row := table.rows.get((name, seed, epochs))) is not None}
            members = [networks[name] for name in rows]
            columns = {goal: [sign * row["metrics"][goal] for row in rows.values()] for goal, sign in GOALS.items()}
            taus.append([tau(column, members, goal) for goal, column in columns.items()])
        found.append((f"each for {epochs} epochs", np.mean(taus, axis=0).tolist(), float(epochs * len(networks))))
    return found


def main() -> None:
    """Trains what is missing and prints a row for each way."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("space", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--mix", nargs="*", choices=["sum", "centre"], default=["sum"])
    parser.add_argument("--epochs", type=int, help="of the shared training, instead of the recipe's")
    options = parser.parse_args()
    table = read_table(options.table)
    space = read_space(options.space).for_classes(len(table.data["classes"]))
    networks = {digest(lower(each.spec)): each for each in trained_networks(table, space)}
    rows = short_rows(table, networks)
    full = [another_seed(list(networks.values()), goal) for goal in GOALS]
    rows.append((f"each for {table.recipe.epochs} epochs, another seed", full, table.recipe.epochs * len(networks)))
    rows += [shared_row(options, mix, table, networks) for mix in options.mix]
    print("| values | tau with loss | tau with top-1 | epochs of single trainings |\n|---|---|---|---|")
    for name, taus, cost in rows:
        print(f"| {name} | {' | '.join(f'{value:+.2f}' for value in taus)} | {cost:,.0f} |")


if __name__ == "__main__":
    main()
