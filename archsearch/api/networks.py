"""Networks and spaces: what they are, what they cost, how fast they run."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from archsearch.api.given import Clip, Network, Place, heard, set_fields, spec_of
from archsearch.api.shown import Drawn, Shown
from archsearch.errors import ArchsearchError
from archsearch.space.space import Space
from archsearch.spec.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure


def presets() -> Shown:
    """The published networks there are. `data` maps each name to its spec.

    >>> "mc3_18" in archsearch.presets().data
    True
    """
    from archsearch.report.networks import presets_table
    from archsearch.spec.presets import PRESETS

    specs = {name: make() for name, make in PRESETS.items()}
    return Shown(specs, partial(presets_table, specs))


def load_spec(
    network: Network,
    *,
    clip: Clip | None = None,
    classes: int | None = None,
    settings: "Mapping[str, Any] | None" = None,
) -> Spec:
    """The network of a preset's name, a YAML file, or a trained network's folder.

    `clip` is (c, t, h, w): channels, frames, pixels; (t, h, w) for networks with several inputs. `settings` sets
    fields of stages by name or pattern, as a YAML file has them. Raises SpecError, with a near name for one that
    is not there.

    >>> archsearch.load_spec("r3d_18", clip=(3, 8, 56, 56), settings={"res[45].conv": "2d"}).stage("res5").conv
    '2d'
    """
    spec = spec_of(network, clip, classes)
    return spec if settings is None else set_fields(spec, settings)


def show(network: Network, *, clip: Clip | None = None, classes: int | None = None, nodes: bool = False) -> Shown:
    """A network stage by stage, or by `nodes`, with what it costs. Raises SpecError.

    `data` has `params`, `macs` (multiply-adds of one clip), `activations` (elements), `memory_bytes` (feature maps of
    one forward) and `stages`, each with its `output` (c, t, h, w).

    >>> archsearch.show("r3d_18")["macs"]
    40696553472
    """
    from archsearch.report.network_data import spec_json
    from archsearch.report.networks import nodes_table, spec_table
    from archsearch.spec.spec import lower

    spec = spec_of(network, clip, classes)
    return Shown(spec_json(spec), lambda: nodes_table(lower(spec)) if nodes else spec_table(spec))


def compare(left: Network, right: Network, *, clip: Clip | None = None) -> Shown:
    """Two networks stage by stage, or two run folders: how alike they rank one space, and their fronts.

    `data` of networks has `networks`, as `show` has them, and `differences` by stage and field, [left, right].
    Raises SpecError, and RunError for runs that have too little in common.

    >>> archsearch.compare("r3d_18", "mc3_18")["differences"]["res3"]["conv"]
    ['3d', '2d']
    """
    runs = [str(each) for each in (left, right) if not isinstance(each, Spec) and _is_run(str(each))]
    if len(runs) == 2:
        return _compare_runs(*runs)
    from archsearch.report.network_data import compare_json
    from archsearch.report.networks import compare_table

    specs = spec_of(left, clip), spec_of(right, clip)
    return Shown(compare_json(*specs), partial(compare_table, *specs))


def _is_run(place: str) -> bool:
    return "://" in place or (Path(place) / "run.json").exists()


def _compare_runs(left: str, right: str) -> Shown:
    from archsearch.front.compare import compare_runs
    from archsearch.report.compare import compare_runs_table
    from archsearch.search.results import read_both

    data = compare_runs(*read_both(left, right))
    return Shown(data, partial(compare_runs_table, data))


@dataclass(frozen=True, eq=False, repr=False)
class SpaceSummary(Drawn):
    """A space, sized and costed. `space` draws and enumerates its networks; `plot` draws what they cost."""

    space: Space

    def sample(self, count: int, seed: int = 0) -> list[dict[str, Any]]:
        """The choices of some random networks, as {"res3.conv": "2d"}; the same seed gives the same ones."""
        return [self.space.choices(positions) for positions in self.space.sample_positions(count, seed)]


def read_space(file: Place, *, enumerate_all: bool = False, progress: bool = True) -> SpaceSummary:
    """The search space of a YAML file, with what its networks cost: of all, or of a random sample of a large space.

    `data` has `size`, `choices`, `macs` and `params` (least, median, most), and `feasible`: networks within limits.
    `enumerate_all` costs every network of a large space, too, two million a second. Raises SpaceError with one line
    for every fault of the file.

    >>> archsearch.read_space("search_spaces/small.yaml")["size"]
    1458
    """
    from archsearch.report.distribution import distribution_figure
    from archsearch.report.networks import published_marks, space_costs, space_json, space_table
    from archsearch.space.file import read_space

    space = read_space(Path(file))
    with heard(progress and enumerate_all) as report:
        costs = space_costs(
            space,
            enumerate_all=enumerate_all,
            report=lambda done, total: report("costing networks", done, total, ""),
        )
    data = space_json(space, costs)

    def draw(path: Path | None) -> "Figure":
        title = f"{space.name}: {len(costs.macs):,} networks{'' if costs.whole else ', drawn at random'}"
        return distribution_figure(costs.macs, costs.params, path, title, published_marks(space), space.limits)

    return SpaceSummary(data, partial(space_table, space, data), draw, space)


def bench(
    *networks: Network,
    clip: Clip | None = None,
    classes: int | None = None,
    device: Literal["cpu", "cuda", "onnxruntime", "openvino"] = "cpu",
    batches: Sequence[int] = (1,),
    precisions: Sequence[Literal["fp32", "bf16", "fp16"]] = ("fp32",),
    compiled: bool = False,
    threads: int = 1,
    rounds: int = 30,
    progress: bool = True,
) -> Drawn:
    """Measures networks side by side, in turn, under every batch size and precision.

    `data["networks"]` has a row each with `median_ms` and `p95_ms` of a batch's forward, `throughput` in clips a
    second, `peak_memory_bytes`. `rounds` are timed runs, `threads` of the CPU. Raises SpecError, MissingExtra
    for a device whose package is not installed, ArchsearchError for settings that do not go together.

    >>> archsearch.bench("r3d_18", "mc3_18", clip=(3, 8, 56, 56), rounds=3, progress=False).plot()
    Figure(700x176)
    """
    if not networks:
        raise ArchsearchError("bench: name at least one network")
    fields = {"device": device, "compiled": compiled, "threads": threads}
    settings = [_setting(fields | {"batch": batch, "precision": name}) for name in precisions for batch in batches]
    specs = _named(networks, clip, classes)
    from archsearch.report.latency import bench_figure, bench_json, bench_table

    with heard(progress) as report:
        data = bench_json(
            specs,
            settings,
            rounds,
            lambda done, total: report("timing", done, total, ""),
            lambda done, total: report("weighing", done, total, ""),
        )
    return Drawn(data, partial(bench_table, data), partial(bench_figure, data))


def _named(networks: Sequence[Network], clip: Clip | None, classes: int | None) -> dict[str, Spec]:
    """Networks by name; a second one of a name is `name (2)`."""
    specs: dict[str, Spec] = {}
    for network in networks:
        name = network.name if isinstance(network, Spec) else str(network)
        names = (name, *(f"{name} ({number})" for number in range(2, len(networks) + 1)))
        specs[next(each for each in names if each not in specs)] = spec_of(network, clip, classes)
    return specs


def _setting(fields: dict[str, Any]) -> Any:
    from archsearch.files import read_record
    from archsearch.spec.latency import Setting

    faults: list[str] = []
    setting = read_record(Setting, fields, "bench", faults)
    if setting is None:
        raise ArchsearchError(*faults)
    return setting
