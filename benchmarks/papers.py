"""The questions of the papers, asked of one's own clips: streams, direction of time, number of frames, depth.

    python benchmarks/papers.py {streams,backwards,frames,long,depth} DATA --work FOLDER [--seeds 3]

Networks and recipe are those of cut_and_keep.py (R3D-18's shape with one block a group, a quarter of the width, 8
frames of 56 x 56). `streams`: colour, optical flow, their scores fused late. `backwards`: clips played forwards and
backwards, of R3D and f-R2D. `frames`: trained on 8 frames in a row and scored at 8 and 32, and fine-tuned at 32, ten
clips a video; `long`: the same from scratch at 32 (Tran et al. 2018, section 4.3). `depth`: networks of 10, 18 and 34
layers, on what they were trained on and on what they were not (Hara et al. 2018). Top-1 is on `test`. Whatever is
finished is kept in FOLDER.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from cut_and_keep import PARENT, interval, network, quiet, scratch

from archsearch.space.choices import assign
from archsearch.spec.spec import Spec, with_clip
from archsearch.training.evaluate import Scores, fuse
from archsearch.training.recipe import read_recipe
from archsearch.training.single import at_frames, score_single, train_single

ROOT = Path(__file__).parent.parent
LONG, TUNING = 32, {"epochs": 10, "lr": 2e-4, "warmup_epochs": 0.0}  # a third of the epochs at a tenth of the rate
IN_A_ROW = {"stride": 1, "views": 10}  # frames as they follow each other, and ten clips a video (Tran et al. 2018)
DEPTHS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
Facts = dict[str, list[float]]  # of each row: right or wrong for each test video, or single numbers
Paths = tuple[Path, Path]  # data, work


def trained(
    name: str, spec: Spec, seed: int, paths: Paths, changes: Mapping[str, float] = MappingProxyType({}), start: str = ""
) -> Path:
    """The folder of a network trained by the recipe, with some fields changed."""
    data, work = paths
    recipe = read_recipe(ROOT / "recipes" / "small.yaml").model_copy(update={"seed": seed, **changes})
    folder = work / f"{name}_{seed}"
    train_single(spec, data, str(folder), recipe, quiet, start=start or None)
    return folder


def scored(folder: Path, paths: Paths, split: str = "test", frames: int | None = None, reverse: bool = False) -> Scores:
    """What a trained network says of a split."""
    return score_single(str(folder), paths[0], split, reverse=reverse, frames=frames)[0]


def hits(scores: Scores) -> list[float]:
    """Which videos are right."""
    return [float(hit) for hit in scores.hits]


def streams(seed: int, paths: Paths) -> Facts:
    """Colour, flow, and both: late fusion with equal weights."""
    clip = network(PARENT).inputs["clip"]
    colour = scored(scratch(PARENT, seed, *paths), paths)
    flow = scored(trained("flow", with_clip(network(PARENT), (2, clip.t, clip.h, clip.w)), seed, paths), paths)
    return {"colour": hits(colour), "flow": hits(flow), "fused": hits(fuse([colour, flow], [1, 1]))}


def backwards(seed: int, paths: Paths) -> Facts:
    """Every test clip in its order and in the reverse."""
    found: Facts = {}
    for label, name in (("R3D", PARENT), ("f-R2D", "fr2d")):
        folder = scratch(name, seed, *paths)
        found |= {f"{label}, forwards": hits(scored(folder, paths))}
        found |= {f"{label}, backwards": hits(scored(folder, paths, reverse=True))}
    return found


def frames(seed: int, paths: Paths) -> Facts:
    """Trained on 8 frames in a row, then on 32."""
    short = trained("frames_short", network(PARENT), seed, paths, IN_A_ROW)
    tuned = trained("frames_tuned", at_frames(network(PARENT), LONG), seed, paths, IN_A_ROW | TUNING, str(short))
    return {
        "trained at 8, scored at 8": hits(scored(short, paths)),
        "trained at 8, scored at 32": hits(scored(short, paths, frames=LONG)),
        "trained at 8, then 10 epochs at 32, scored at 32": hits(scored(tuned, paths)),
    }


def long(seed: int, paths: Paths) -> Facts:
    """Trained on 32 frames in a row from scratch, four times the cost."""
    folder = trained("frames_long", at_frames(network(PARENT), LONG), seed, paths, IN_A_ROW)
    return {"trained at 32, scored at 32": hits(scored(folder, paths))}


def depth(seed: int, paths: Paths) -> Facts:
    """Loss and top-1 of networks that get deeper, on training, validation and test videos, none of them augmented."""
    found: Facts = {}
    for layers, blocks in DEPTHS.items():
        choices = {(f"res{place}", "depth"): count for place, count in enumerate(blocks, 2)}
        spec = assign(network(PARENT), choices, f"r3d_{layers}")
        folder = scratch(PARENT, seed, *paths) if layers == 10 else trained(f"depth_{layers}", spec, seed, paths)
        curve = [epoch["val_loss"] for epoch in json.loads((folder / "curve.json").read_text())]
        train, val, test = (scored(folder, paths, split) for split in ("train", "val", "test"))
        found |= {f"{layers}: train loss": [train.loss], f"{layers}: val loss": [val.loss]}
        found |= {f"{layers}: val loss, lowest of any epoch": [min(curve)]}
        found |= {f"{layers}: train": hits(train), f"{layers}: val": hits(val), f"{layers}: test": hits(test)}
    return found


STUDIES: dict[str, Callable[[int, Paths], Facts]] = {
    "streams": streams,
    "backwards": backwards,
    "frames": frames,
    "long": long,
    "depth": depth,
}


def table(study: str, facts: list[Facts]) -> str:
    """Means and 95 % intervals over seeds and videos, and what a row gains on the first one."""
    lines = [f"| {study} | seeds | mean | gain |", "|---|---|---|---|"]
    first = next(iter(facts[0]))
    for name in facts[0]:
        rows = np.array([fact[name] for fact in facts])
        mean, low, high = interval(rows)
        cells = [name, str(len(facts)), f"{mean:.3f} [{low:.3f}, {high:.3f}]", ""]
        if name != first and rows.shape == np.shape([fact[first] for fact in facts]):
            cells[-1] = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*interval(rows - [fact[first] for fact in facts]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Trains and scores what is missing; prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    facts: list[Facts] = []
    for seed in range(given.seeds):
        path = given.work / f"{given.study}_{seed}.json"
        if not path.exists():
            path.write_text(json.dumps(STUDIES[given.study](seed, (given.data, given.work))))
        facts.append(json.loads(path.read_text()))
        print(seed, {name: round(float(np.mean(rows)), 3) for name, rows in facts[-1].items()}, flush=True)
    print(table(given.study, facts))


if __name__ == "__main__":
    main()
