"""Data sets before training: data check, data pack."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from archsearch.cli.shared import DataArgument, Json, print_json, print_table, reporting, say


class FlowMethod(StrEnum):
    """How optical flow is computed."""

    farneback = "farneback"
    tvl1 = "tvl1"
    dis = "dis"


def check(
    data: DataArgument,
    out: Annotated[Path | None, typer.Option(help="a new folder for lists of the usable videos")] = None,
    min_frames: Annotated[int, typer.Option(min=1, help="fewer make a video short")] = 8,
    as_json: Json = False,
) -> None:
    """Read every video once and tell what is broken, odd, repeated or in several splits."""
    from archsearch.report.data import check_json, check_table
    from archsearch.video.check import check_dataset, write_clean
    from archsearch.video.dataset import read_dataset

    dataset = read_dataset(data)
    for note in dataset.notes:
        say(note)
    with reporting() as report:
        found = check_dataset(dataset, min_frames, lambda done, total: report("checking", done, total, ""))
    if as_json:
        print_json(check_json(found))
    else:
        print_table(check_table(found))
    for remark in write_clean(found, out) if out is not None else ():
        say(remark)


def pack(
    data: DataArgument,
    short_side: Annotated[int, typer.Option(min=2, help="of frames, in pixels")] = 128,
    cache: Annotated[Path | None, typer.Option(help="instead of ~/.cache/archsearch")] = None,
    max_broken: Annotated[float, typer.Option(min=0, max=1, help="share of broken videos that is accepted")] = 0.1,
    flow: Annotated[FlowMethod | None, typer.Option(help="compute optical flow, too")] = None,
    flow_bound: Annotated[float | None, typer.Option(min=0.1, help="pixels, for 20 at a short side of 256")] = None,
    as_json: Json = False,
) -> None:
    """Decode all videos once into the file that trainings read; the same command goes on after an interruption."""
    from archsearch.report.data import pack_json, pack_lines
    from archsearch.video.dataset import read_dataset
    from archsearch.video.pack import open_flow, open_pack, remarks

    dataset = read_dataset(data)
    with reporting() as report:
        made = open_pack(
            dataset,
            short_side,
            cache,
            max_broken,
            lambda done, total: report("packing", done, total, ""),
            multi_label=True,
        )
        if flow is not None:
            made = open_flow(made, flow.value, flow_bound, lambda done, total: report("flow", done, total, ""))
    for remark in remarks(dataset, made):
        say(remark)
    if as_json:
        print_json(pack_json(made))
        return
    for line in pack_lines(made):
        print(line)
