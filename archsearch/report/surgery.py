"""The plan of an operation as a table."""

from itertools import groupby
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.text import Text

from archsearch.report.networks import empty_table


def plan_table(facts: dict[str, Any]) -> Group:
    """Site by site; runs of sites that are kept take one row."""
    table = empty_table(f"{facts['old']} -> {facts['new']}")
    table.add_column("site", no_wrap=True)
    table.add_column("verdict")
    table.add_column("how", overflow="fold")
    for verdict, run in groupby(facts["edits"], lambda edit: edit["verdict"]):
        edits = list(run)
        if verdict == "kept" and len(edits) > 1:
            table.add_row(f"{edits[0]['site']} ... {edits[-1]['site']}", "kept", f"{len(edits)} sites")
            continue
        for edit in edits:
            table.add_row(edit["site"], verdict, escape(edit["how"]))
    macs, params = facts["macs"], facts["params"]
    counts = {
        v: sum(e["verdict"] == v for e in facts["edits"]) for v in ("kept", "exact", "approximate", "new", "removed")
    }
    caption = (
        f"{', '.join(f'{count} {verdict}' for verdict, count in counts.items() if count)}; "
        f"{'outputs stay the same' if facts['exact'] else 'outputs change'}\n"
        f"gmacs {macs['before'] / 1e9:.4g} -> {macs['after'] / 1e9:.4g}, "
        f"parameters {params['before']:,} -> {params['after']:,}"
    )
    if facts.get("fitted"):
        caption += f"\nfitted to the old network's activations: {len(facts['fitted'])} sites"
    return Group(table, Text(caption))
