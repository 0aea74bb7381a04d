"""Tables, CSV, figures and progress of made-up results."""

import csv
import io
import time
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from archsearch.errors import ArchsearchError
from archsearch.front.results import Candidate, Results
from archsearch.report import progress
from archsearch.report.distribution import distribution_figure
from archsearch.report.figures import front_figure
from archsearch.report.front import choices_text, front_csv, front_table, quantity
from archsearch.report.labels import Room, arrange
from archsearch.space.space import Limit

PUBLISHED = ["r3d_18", "mc3_18", "r2plus1d_18", "rmc3_18", "f_r2d_18", "mc2_18"]
TWO = {"top1": "maximize", "gmacs": "minimize"}
LONG = "a_published_name_of_30_letters"


def made_up(count=40, objectives=TWO, stages=2, names=PUBLISHED):
    """Results as a search could have them, with the published designs close together."""
    rng = np.random.default_rng(0)
    candidates = []
    for number in range(count):
        gmacs = float(np.exp(rng.uniform(-3, 2))) if number >= len(names) else float(4 + 0.3 * rng.normal())
        top1 = float(0.9 - 0.45 / (1 + 3 * gmacs**0.6) - abs(rng.normal(0, 0.03)))
        metrics = {
            "top1": top1,
            "gmacs": gmacs,
            "params": 3e6 * gmacs * rng.uniform(0.5, 1),
            "loss": 2 - top1,
        }
        choices = {f"res{2 + k}.conv": str(rng.choice(["2d", "2+1d", "separable"])) for k in range(stages)}
        choices |= {"res5.gate": bool(rng.random() < 0.5), "clip.frames": 16}
        state = "stopped" if number % 9 == 7 else "complete"
        name = names[number] if number < len(names) else None
        candidates.append(Candidate(number, f"{number:012x}", choices, metrics, 27, state, name))
    limited = Candidate(count, "f" * 12, {"clip.frames": 16}, {"gmacs": 99.0}, 0, "infeasible", None, "gmacs 99 > 60")
    return Results("runs/kth", objectives, (*candidates, limited))


def printed(table, width=100):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("all_candidates", [False, True])
@pytest.mark.parametrize("stages", [1, 4, 12])
@pytest.mark.parametrize("names", [PUBLISHED, [LONG, LONG[::-1]]])
def test_table_fits_in_100_columns(all_candidates, stages, names):
    text = printed(front_table(made_up(stages=stages, names=names), all_candidates), width=200)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100


def test_table_with_long_objectives_and_choices_fits_in_100_columns():
    metrics = {LONG: 0.5, LONG[::-1]: 1.0}
    rows = [Candidate(i, "", {LONG + str(k): LONG + str(i) for k in range(3)}, metrics, 1, "complete") for i in (1, 2)]
    results = Results("run", {LONG: "maximize", LONG[::-1]: "minimize"}, tuple(rows))
    assert max(len(line.rstrip()) for line in printed(front_table(results), 200).splitlines()) <= 100


def test_table_shows_front_then_published_designs_and_says_equal_choices_once():
    results = made_up()
    text = printed(front_table(results))
    ids = [int(line.split()[0]) for line in text.splitlines() if line.split()[:1] and line.split()[0].isdigit()]
    front = [candidate.id for candidate in results.front()]
    assert ids[: len(front)] == front
    assert set(ids) == set(front) | set(results.published().values())
    assert all(name in text for name in PUBLISHED)
    own, better = next(iter(item for item in results.dominators().items() if item[0] < len(PUBLISHED)))
    line = next(line for line in text.splitlines() if line.split()[:1] == [str(own)])
    assert line.split()[5] == str(better)
    assert "the same in all rows: epochs=27 clip.frames=16" in text


@pytest.mark.parametrize(("stages", "shown"), [(2, "whole"), (6, "short"), (12, "as text")])
def test_long_choices_are_shortened_only_where_columns_would_not_fit(stages, shown):
    text = printed(front_table(made_up(stages=stages, names=["r3d_18"])))
    assert ("sep: separable" in text) == (shown == "short")
    assert ("choices" in text) == (shown == "as text")
    assert any(cell.startswith("sep") for cell in text.replace("sep: separable", "").split()) == (shown != "as text")


def test_table_of_all_candidates_gives_reasons():
    text = " ".join(printed(front_table(made_up(), all_candidates=True)).split())
    assert "stopped" in text
    assert "infeasible:" in text
    assert "99 > 60" in text


def test_table_of_a_run_that_has_nothing_yet():
    assert "0 on the front" in printed(front_table(Results("runs/new", TWO, ())))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("top1", 0.8123, "0.812"),
        ("params", 1_234_567, "1.23M"),
        ("params", 999_900, "1.00M"),
        ("gmacs", 40.696, "40.7"),
        ("gmacs", 120.4, "120"),
        ("gmacs", 0.36, "0.360"),
        ("loss", float("nan"), "-"),
    ],
)
def test_quantity(name, value, text):
    assert quantity(name, value) == text


def test_choices_text_leaves_out_what_a_candidate_never_met():
    choices = {"res3.gate": True, "res3.conv": "2d"}
    assert choices_text(choices, ["res3.conv", "res3.gate", "res4.gate"]) == "res3.conv=2d res3.gate=true"


def test_csv_round_trip():
    results = made_up()
    rows = list(csv.DictReader(io.StringIO(front_csv(results))))
    columns = "id hash state on_front published epochs top1 gmacs params loss res2.conv res3.conv res5.gate clip.frames"
    assert list(rows[0]) == columns.split()
    assert [int(row["id"]) for row in rows] == [candidate.id for candidate in results.candidates]
    assert [float(row["gmacs"]) for row in rows] == [c.metrics["gmacs"] for c in results.candidates]
    on_front = {int(row["id"]) for row in rows if row["on_front"] == "true"}
    assert on_front == {candidate.id for candidate in results.front()}
    assert rows[-1]["top1"] == rows[-1]["res2.conv"] == ""


def test_csv_quotes_what_has_commas():
    choices = {"head.hidden": [64, 32], "note": 'a "b"\nc'}
    results = Results("run", TWO, (Candidate(0, "h", choices, {"top1": 0.5, "gmacs": 1.0}, 1, "complete"),))
    (row,) = csv.DictReader(io.StringIO(front_csv(results)))
    assert row["head.hidden"] == "[64, 32]"
    assert row["note"] == 'a "b"\nc'


def svg_texts(path):
    return {"".join(node.itertext()) for node in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")}


def test_front_svg_holds_names_and_is_the_same_every_time(tmp_path):
    front_figure(made_up(), tmp_path / "a.svg", "KTH")
    front_figure(made_up(), tmp_path / "b.svg", "KTH")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert {*PUBLISHED, "KTH", "top-1 on val", "gmacs (multiply-adds, 1e9; batch 1)"} <= svg_texts(tmp_path / "a.svg")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.svg", "b.svg"]


def test_three_objectives_are_drawn_in_pairs(tmp_path):
    front_figure(made_up(objectives=TWO | {"params": "minimize"}), tmp_path / "front.svg")
    assert {"gmacs (multiply-adds, 1e9; batch 1)", "parameters (millions)"} <= svg_texts(tmp_path / "front.svg")


@pytest.mark.parametrize("objectives", [{"top1": "maximize"}, {"loss": "minimize", "top1": "maximize"}])
@pytest.mark.parametrize("count", [0, 1, 8])
def test_unusual_fronts_are_drawn(tmp_path, objectives, count):
    front_figure(made_up(count, objectives), tmp_path / "new" / "front.png")
    assert (tmp_path / "new" / "front.png").read_bytes().startswith(b"\x89PNG")


def test_five_objectives_fill_two_rows(tmp_path):
    objectives = TWO | {"params": "minimize", "loss": "minimize", "epoch_seconds": "minimize"}
    results = made_up(6, objectives)
    front_figure(results, tmp_path / "front.svg")
    assert "no complete candidate yet" in svg_texts(tmp_path / "front.svg")  # nobody measured the last one


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ArchsearchError, match=r"ends in \.png or \.svg, not '\.gif'"):
        front_figure(made_up(), tmp_path / "front.gif")


def test_a_failed_write_leaves_the_old_figure(tmp_path, monkeypatch):
    path = tmp_path / "front.svg"
    path.write_text("old")

    def fail(self, file, **options):
        file.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        front_figure(made_up(3), path)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0])
def test_distribution_names_the_published_designs(tmp_path, spread):
    costs = np.exp(np.random.default_rng(0).normal(0, spread, (2, 300)))
    marks = {name: (40e9 + i * 1e8, 33e6 + i * 1e5) for i, name in enumerate([*PUBLISHED, LONG])}
    distribution_figure(40e9 * costs[0], 33e6 * costs[1], tmp_path / "space.svg", "300 networks", marks)
    assert {*marks, "300 networks", "networks", "parameters (millions)"} <= {
        text.strip() for text in svg_texts(tmp_path / "space.svg")
    }


def test_distribution_of_nothing(tmp_path):
    distribution_figure(np.array([]), np.array([]), tmp_path / "space.png", "empty", {}, {"gmacs": Limit(max=1)})


@pytest.mark.parametrize(
    ("limits", "drawn"),
    [
        ({}, False),
        ({"gmacs": Limit(min=0.5, max=50), "params": Limit(max=90e6), "memory_mb": Limit(max=1)}, False),
        ({"gmacs": Limit(max=2)}, True),
        ({"params": Limit(min=2e6)}, True),
    ],
)
def test_distribution_draws_limits_that_leave_something_out(tmp_path, limits, drawn):
    costs = np.linspace([1e9, 1e6], [40e9, 80e6], 1000)
    distribution_figure(costs[:, 0], costs[:, 1], tmp_path / "space.svg", "1000 networks", {}, limits)
    assert ("limit" in svg_texts(tmp_path / "space.svg")) == drawn


def test_distribution_counts_every_network_once(tmp_path, monkeypatch):
    drawn = []
    real = Axes.stairs
    monkeypatch.setattr(Axes, "stairs", lambda axes, *given, **more: drawn.append(given) or real(axes, *given, **more))
    costs = np.exp(np.random.default_rng(0).normal(20, 1, (2, 100_000)))
    distribution_figure(costs[0], costs[1], tmp_path / "space.png", "100,000 networks", {})
    for values, (counts, edges) in zip((costs[0] / 1e9, costs[1] / 1e6), drawn, strict=True):
        assert counts.sum() == 100_000
        assert np.abs(np.histogram(values, edges)[0] - counts).sum() < 10  # a value at an edge may go either way


def test_labels_of_close_points_do_not_overlap():
    anchors = np.array([(300.0 + 6 * i, 200.0 + 4 * (i % 2)) for i in range(6)])
    halves = np.tile([30.0, 6.0], (6, 1))
    room = Room(np.array([0.0, 0.0, 600.0, 400.0]), anchors, np.empty((0, 2)), np.empty((0, 4)))
    _, spots = arrange(room, anchors, halves)
    middles = anchors + [spot.middle for spot in spots]
    apart = (np.abs(middles[:, None] - middles[None]) >= 2 * halves[0] - 1e-9).any(axis=-1)
    assert apart[~np.eye(6, dtype=bool)].all()


def test_progress_in_a_log_is_a_line_now_and_then(capsys, monkeypatch):
    now = iter(range(0, 1000, 4))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    with progress.track(5, "packing") as advance:
        for number in range(5):
            advance(status=f"clip_{number}", top1=0.81234)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 4
    assert all(line.startswith("packing: ") for line in lines)
    assert "left" in lines[0]
    assert lines[-1].startswith("packing: 5/5, ")
    assert lines[-1].endswith("clip_4 top1 0.812")


def test_short_work_of_unknown_length_is_one_line(capsys):
    with progress.track(None, "trials") as advance:
        advance()
        advance(2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "trials: 3, 0:00:00 elapsed\n"


def test_progress_of_work_that_was_cut_short(capsys):
    def work():
        with progress.track(9, "trials") as advance:
            advance(4)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert capsys.readouterr().err.startswith("trials: 4/9, ")


def test_bar_in_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    with progress.track(3, "training [r3d]") as advance:
        advance(status="[epoch 1]")
        advance(2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "training [r3d]" in err
    assert "3/3" in err
