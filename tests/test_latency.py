"""Latency: measured in turn, predicted from sites, aimed at and limited in searches."""

import json
import sys

import numpy as np
import pytest
import yaml
from conftest import SPACE, trials_in, write_tiny
from test_halving import pretend

from archsearch.errors import ArchsearchError, RunError, SpaceError, SpecError
from archsearch.nets import latency as measured
from archsearch.nets.build import build_graph
from archsearch.nets.calibrate import calibrate, fit
from archsearch.nets.latency import WARM_UP, interleaved, measure, peak_memory_bytes, summary
from archsearch.search import driver
from archsearch.search.executors.serial import SerialExecutor
from archsearch.search.launch import Wish, prepare
from archsearch.space.costing import Coster, chunks, within_limits
from archsearch.space.file import parse_space, read_space, read_untimed
from archsearch.spec.cost import metrics, total, total_cost
from archsearch.spec.latency import LATENCY, Setting, predict, read_table, write_table
from archsearch.spec.presets import PRESETS, preset
from archsearch.spec.sites import sites
from archsearch.spec.spec import lower, parse_spec
from archsearch.training.recipe import Recipe

WIDTH = {"field": "width", "stages": ["res*"], "name": "w", "tied": [4, 16]}
SMALL = {**SPACE, "vary": [*SPACE["vary"], WIDTH], "published": []}


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    return parse_space(SMALL, "small", tmp_path_factory.mktemp("space"))


@pytest.fixture(scope="module")
def table(space):
    return calibrate(space, Setting(), rounds=3, networks=8)


@pytest.fixture
def table_file(table, tmp_path):
    path = tmp_path / "latency.json"
    path.write_text(write_table(table))
    return path


# Statistics and turns.


def test_summary_of_known_runs():
    found = summary([*range(1, 101)], batch=4, load=0.5)
    assert (found.median_ms, found.best_ms, found.load) == (50.5, 1, 0.5)
    assert found.p95_ms == pytest.approx(95.05)
    assert found.spread == pytest.approx(49.5 / 50.5)
    assert found.throughput == pytest.approx(4000 / 50.5)


def test_networks_run_in_turn_and_the_warm_up_is_not_counted():
    calls = []

    def run(name):
        calls.append(name)
        return float(len(calls))

    seen = []
    times = interleaved({name: lambda name=name: run(name) for name in "abc"}, 4, lambda *done: seen.append(done))
    assert calls == [*"abc"] * (WARM_UP + 4)
    assert times["b"] == [3 * (WARM_UP + number) + 2 for number in range(4)]
    assert seen[-1] == (WARM_UP + 4, WARM_UP + 4)


@pytest.mark.parametrize(
    "setting", [{}, {"precision": "bf16", "batch": 2}, {"device": "onnxruntime"}, {"device": "openvino"}]
)
def test_a_network_is_measured(spec, setting, one_thread):
    if setting.get("device"):
        pytest.importorskip(setting["device"], reason=f"{setting['device']} is not installed")
    names = ["net"] if setting.get("device") else ["net", "again"]  # exporting takes seconds
    found = measure(dict.fromkeys(names, spec), Setting(**setting), rounds=3)
    assert list(found) == names
    for latency in found.values():
        assert 0 < latency.best_ms <= latency.median_ms <= latency.p95_ms
        assert latency.throughput == pytest.approx(1000 * setting.get("batch", 1) / latency.median_ms)


def test_memory_is_of_a_process_of_its_own(spec):
    large = preset("r3d_18").model_copy(update={"clip": (3, 4, 32, 32)})
    params = 4 * total_cost(lower(large)).params
    assert params < peak_memory_bytes(large, Setting()) < 5 * params
    assert peak_memory_bytes(spec, Setting()) < params


# Sites.


@pytest.mark.parametrize("name", PRESETS)
def test_sites_are_the_whole_network(name):
    """What sites cost alone is what the network costs, and each site's output is that of its last node."""
    graph = lower(preset(name))
    found = sites(graph)
    assert total(total_cost(site.graph) for site in found) == total_cost(graph)
    assert found[-1].graph.output.size == graph.output.size
    assert all(site.ops for site in found)
    same = {site.key: site.features for site in found}
    assert all(same[site.key] == site.features for site in found)


def test_sites_can_be_built(spec):
    import torch

    for site in sites(lower(spec)):
        net = build_graph(site.graph).eval()
        given = net(*(torch.zeros(1, *size) for size in site.reads))
        assert given.flatten(1).shape[1] == site.graph.output.size.elements


def test_sites_do_not_know_what_takes_no_time(spec):
    text = yaml.safe_load(yaml.safe_dump(spec.model_dump(mode="json", by_alias=True)))
    text["norm"] = {"eps": 0.001, "momentum": 0.3}
    text["stages"][-1]["dropout"] = 0.0
    other = parse_spec(text, "other")
    assert [site.key for site in sites(lower(other))] == [site.key for site in sites(lower(spec))]


# Tables.


def test_a_calibration(space, table, table_file):
    keys = {site.key for positions in space.all_positions() for site in sites(lower(space.spec_at(positions)))}
    assert set(table.sites) == keys  # each distinct site of the space once
    assert all(timed.ms > 0 for timed in table.sites.values())
    assert (table.held_out.networks, table.held_out.interpolated) == (4, 0)
    assert table.scale > 0
    assert table.constant_ms >= 0
    assert read_table(table_file) == table


def test_predictions_are_sums_and_order_networks(space, table):
    light, heavy = (space.spec_at(positions) for positions in ((0, 0, 0, 0, 0, 0), (1, 1, 1, 1, 1, 1)))
    assert total_cost(lower(heavy)).macs > 8 * total_cost(lower(light)).macs
    ms = {spec.name: predict(table, lower(spec)).ms for spec in (light, heavy)}
    assert predict(table, lower(light)).ms < predict(table, lower(heavy)).ms == ms[heavy.name]
    summed = sum(table.sites[site.key].ms for site in sites(lower(light)))
    assert predict(table, lower(light)) == (table.constant_ms + table.scale * summed, 0)


def test_a_missing_site_is_interpolated_or_named(space, table):
    graph = lower(space.spec_at((1,) * 6))
    site = next(site for site in sites(graph) if site.kind == "conv 3d, norm")
    without = {key: timed for key, timed in table.sites.items() if key != site.key}
    found = predict(table.model_copy(update={"sites": without}), graph)
    assert 0 < found.interpolated < 1
    assert found.ms == pytest.approx(predict(table, graph).ms, rel=5)
    without = {key: timed for key, timed in table.sites.items() if timed.kind != site.kind}
    with pytest.raises(SpecError, match=r"has nothing like the site '.*: Conv") as error:
        predict(table.model_copy(update={"sites": without}), graph)
    assert len(error.value.lines) == 1


def test_the_fit_is_exact_where_it_can_be_and_never_gives_negative_times():
    sums = np.array([1.0, 2.0, 5.0])
    assert fit(sums, 3 + 2 * sums) == pytest.approx((3, 2))
    constant, scale = fit(sums, 2 * sums - 0.5)
    assert constant == 0
    assert 1 < scale < 2
    constant, scale = fit(sums, 10 - sums / 2)  # larger networks that took less time, by chance
    assert (constant, scale > 0) == (0, True)


# Faults.


def test_faults_of_commands_are_one_line(cli, tmp_path, write_files):
    file, _ = write_files(SMALL)
    for args, line in {
        ("bench", "r3d_18", "--device", "tpu"): "bench: device: 'tpu' is not one of cpu, cuda, onnxruntime, openvino",
        ("bench", "r3d_18", "--batch", "1,x"): "bench: batch: 'x'",
        ("bench", "r3d_18", "--precision", "fp16"): "bench: precision fp16 needs device cuda",
        ("bench", "r3d_18", "--device", "onnxruntime", "--compiled"): "bench: device onnxruntime runs fp32",
        ("latency", "calibrate", file, "--device", "tpu", "--out", tmp_path / "o"): "latency calibrate: device: 'tpu'",
    }.items():
        code, out, err = cli(*args)
        assert (code, out, len(err)) == (1, "", 1)
        assert err[0].startswith(line)


def test_cuda_without_a_gpu_is_said(spec, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for call in (lambda: measure({"net": spec}, Setting(device="cuda"), 1), lambda: peak_memory_bytes(spec, _CUDA)):
        with pytest.raises(ArchsearchError, match="device cuda: torch finds no GPU here"):
            call()


_CUDA = Setting(device="cuda")


@pytest.mark.parametrize(("device", "extra"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_a_runtime_that_is_not_installed_is_said(spec, monkeypatch, device, extra):
    monkeypatch.setitem(sys.modules, device, None)
    with pytest.raises(ArchsearchError, match=rf"pip install 'archsearch\[{extra}\]'"):
        measured.runtime_runner(b"", [*spec.inputs.values()], Setting(device=device))


def test_faults_of_spaces(table_file, tmp_path):
    def faults(**fields):
        with pytest.raises(SpaceError) as error:
            parse_space({**SMALL, **fields}, "s.yaml", tmp_path)
        return error.value.lines

    aim = {"objectives": {"top1": "maximize", LATENCY: "minimize"}}
    limit = {"limits": {LATENCY: {"max": 3}}}
    assert faults(**aim) == (f"s.yaml, objectives: {LATENCY}: say how it is known: `latency: {{table: FILE}}` or "
                             "`latency: {device: cpu}`",)  # fmt: skip
    assert "say how it is known" in faults(**limit)[0]
    assert faults(**limit, latency={"device": "cpu"})[0].endswith("is measured; a limit needs `latency: {table: FILE}`")
    assert faults(**aim, latency={"device": "tpu"}) == (
        "s.yaml, latency: device: 'tpu' is not one of cpu, cuda, onnxruntime, openvino; did you mean 'cpu'?",
    )
    assert "no such file" in faults(**aim, latency={"table": "none.json"})[0].lower()
    given = faults(**aim, latency={"table": "latency.json", "device": "cuda"})
    assert given == (f"s.yaml, latency: {table_file}: was measured with device cpu, not cuda",)
    table_file.write_text(table_file.read_text().replace('"version": 1', '"version": 7'))
    assert "of version 7; this reads version 1" in faults(**aim, latency={"table": "latency.json"})[0]
    table_file.write_text("[]")
    with pytest.raises(RunError, match="is no latency table"):
        read_table(table_file)


# Commands.


def test_bench(cli, tmp_path, one_thread):
    path = tmp_path / "net.yaml"
    from conftest import NET

    path.write_text(NET)
    code, out, err = cli("bench", path, "--batch", "1,2", "--rounds", 2, "--json", "--figure", tmp_path / "b.svg")
    data = json.loads(out)
    assert (code, err, data["rounds"]) == (0, [], 2)
    assert [(row["batch"], row["precision"]) for row in data["networks"]] == [(1, "fp32"), (2, "fp32")]
    numbers = {"median_ms", "p95_ms", "best_ms", "spread", "throughput", "load", "peak_memory_bytes", "macs", "params"}
    assert all(numbers <= row.keys() and all(row[name] >= 0 for name in numbers) for row in data["networks"])
    assert "median, 95th percentile" in (tmp_path / "b.svg").read_text()
    code, out, _ = cli("bench", path, "--rounds", 1)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    code, out, err = cli("bench", path, "--rounds", 1, "--figure", tmp_path / "b.xyz")
    assert code == 1
    assert "95 %" in out or "p95" in out, out
    assert "b.xyz" in err[-1]


def test_calibrate_makes_the_table_that_its_space_names(cli, tmp_path, write_files):
    limited = {"latency": {"table": "latency.json"}, "limits": {LATENCY: {"max": 1000}}}
    few = {"vary": [{"field": "width", "stages": ["res*"], "name": "w", "tied": [2, 4, 8, 16]}]}
    file, _ = write_files({**SMALL, **limited, **few})
    code, out, err = cli("latency", "calibrate", file, "--out", tmp_path / "latency.json", "--rounds", 2)
    assert (code, err) == (0, [])
    assert "on 2 other networks" in out
    space = read_space(file)
    assert space.limits[LATENCY].max == 1000
    assert read_untimed(file).limits == {}
    code, out, _ = cli("space", file, "--json")
    assert json.loads(out)["feasible"] == 4
    known = space.metrics(lower(space.base))
    assert known[LATENCY] > 0


# Searches.


@pytest.fixture
def planned(clips, tmp_path):
    def make(**fields):
        folder = tmp_path / "files"
        folder.mkdir(exist_ok=True)
        files = write_tiny(folder, {**SMALL, **fields}, {"epochs": 4})
        recipe = Recipe(**yaml.safe_load(files[1].read_text()))
        return prepare(files[0], clips, str(tmp_path / "run"), recipe, Wish(), lambda *_: None)[0]

    return make


class OneByOne(SerialExecutor):
    """Two workers of this process, of which one is done at a time."""

    def __init__(self):
        super().__init__(pretend)
        self.workers = 2

    def _ended(self, handles, timeout_seconds):
        return handles[:1]


def searched(plan, cut_after=None):
    """Drives a plan by pretended trainings, perhaps cut short after so many reports."""
    left = [cut_after]

    def report(_):
        if left[0] is not None:
            left[0] -= 1
            if left[0] < 0:
                raise InterruptedError

    with plan.folder.driving(), OneByOne() as crew:
        driver.drive(plan, crew, report)


def test_predicted_latency_is_an_objective_and_a_limit(planned, table, space, table_file):
    all_ms = [predict(table, lower(space.spec_at(positions))).ms for positions in space.all_positions()]
    most = float(np.median(all_ms))
    plan = planned(
        objectives={"top1": "maximize", LATENCY: "minimize"}, limits={LATENCY: {"max": most}},
        latency={"table": str(table_file)}, search={"trials": 8, "order": "fixed", "sampler": "random"},
    )  # fmt: skip
    searched(plan)
    trials = plan.folder.settled()
    assert {trial.state for trial in trials} == {"complete", "infeasible"}
    for trial in trials:
        over = trial.metrics[LATENCY] > most
        assert (trial.state == "infeasible") == over == (trial.constraints[LATENCY] > 0)
    spec = plan.space.spec_at((0,) * 6)
    assert plan.space.metrics(lower(spec))[LATENCY] == predict(table, lower(spec)).ms
    rows = next(chunks(plan.space))
    inside = within_limits(plan.space, rows, Coster(plan.space).costs(rows))
    every = [plan.space.metrics(lower(plan.space.spec_at(tuple(row))))[LATENCY] <= most for row in rows.tolist()]
    assert inside.tolist() == every
    assert 0 < sum(every) < len(every)


@pytest.mark.parametrize("order", ["async", "fixed"])
def test_measured_latency_has_the_machine_for_itself_and_is_kept(planned, tmp_path, order, monkeypatch):
    """Real measuring, pretended training; nothing is under way while a group is timed, and a resume times nothing."""
    from archsearch.search import timing

    plan = planned(
        objectives={"top1": "maximize", LATENCY: "minimize"}, latency={"device": "cpu", "rounds": 2},
        search={"trials": 7, "order": order, "block": 3, "sampler": "random"},
    )  # fmt: skip
    groups, running = [], []

    def noted(specs, *rest):
        groups.append(sorted(specs))
        running.append(set(search[0].training))
        return measure(specs, *rest)

    search = []
    real = driver.restore
    monkeypatch.setattr(driver, "restore", lambda *given: search.append(real(*given)) or search[-1])
    monkeypatch.setattr(timing, "measure", noted)
    with pytest.raises(InterruptedError):
        searched(plan, cut_after=3)
    search.clear()
    searched(plan)
    names = [name for group in groups for name in group]
    assert running == [set()] * len(groups)
    assert len(names) == len(set(names)) == 7  # none was timed twice
    assert max(map(len, groups)) == (3 if order == "fixed" else 2)
    for trial in trials_in(tmp_path / "run"):
        kept = json.loads((tmp_path / "run" / "candidates" / trial["candidate"] / "latency.json").read_text())
        assert trial["state"] == "complete"
        assert trial["metrics"][LATENCY] == kept[LATENCY] == kept["median_ms"] > 0
        assert {"load", "processor", "setting", "together", "p95_ms"} <= kept.keys()
    before = trials_in(tmp_path / "run")
    search.clear()
    searched(plan)
    assert trials_in(tmp_path / "run") == before
    assert len(groups) == len({*map(tuple, groups)})


def test_measured_latency_with_rungs(planned):
    plan = planned(
        objectives={"top1": "maximize", LATENCY: "minimize"}, latency={"rounds": 1},
        search={"trials": 8, "rungs": 2, "eta": 2, "sampler": "random"},
    )  # fmt: skip
    searched(plan)
    trials = plan.folder.settled()
    assert {trial.state for trial in trials} == {"complete", "stopped"}
    assert all(trial.metrics[LATENCY] > 0 for trial in trials)


@pytest.mark.parametrize(
    "names", [("loss", "params"), ("top1", "gmacs", "memory_mb"), ("top1", "loss", "params", "activations")]
)
def test_two_to_four_objectives_by_name(planned, names):
    directions = {name: "maximize" if name == "top1" else "minimize" for name in names}
    plan = planned(objectives=directions, search={"trials": 6, "order": "fixed"})
    searched(plan)
    for trial in plan.folder.settled():
        assert set(names) <= trial.metrics.keys()
        expected = metrics(lower(plan.space.spec_at(_positions(plan.space, trial.params))))
        assert all(trial.metrics[name] == expected[name] for name in names if name in expected)


def _positions(space, params):
    return tuple(list(map(str, p.options)).index(str(params[p.path])) for p in space.parameters)
