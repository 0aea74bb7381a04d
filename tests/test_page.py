"""The page of a search: its data, and in a real browser that it opens from a disk, asks nobody and stays inert."""

import json
import math
import re
import shutil
import sys
import time
from pathlib import Path

import pytest

from archsearch.errors import MissingExtra, RunError
from archsearch.files import dump_yaml, parse_yaml
from archsearch.report.page import inert_json, page_place, write_page
from archsearch.report.page_data import page_data
from archsearch.report.page_markdown import inert, markdown
from archsearch.search.folder import RunFolder, Settled
from archsearch.search.plan import Plan, check
from archsearch.space.file import read_space
from archsearch.spec.cost import total_cost
from archsearch.spec.spec import SpecError, digest, lower, parse_spec, read_spec
from archsearch.store import open_store, write_json
from archsearch.training.recipe import Recipe

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "runs" / "utd_mhad_depth"
CHROMIUM = Path("/usr/bin/chromium")
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync"]  # fmt: skip
NASTY = "<script>window.hurt=1</script>\"'&</script><!--"


@pytest.fixture
def run(tmp_path):
    """A copy of the kept run, to be changed."""
    shutil.copytree(KEPT, tmp_path / "run")
    return tmp_path / "run"


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def fill(folder, count):
    """A run folder of `count` random networks of a large space, with made-up values in the real format."""
    space = read_space(ROOT / "search_spaces" / "free.yaml")
    classes = tuple(f"class {place}" for place in range(10))
    run = RunFolder(open_store(str(folder)))
    plan = Plan(space.for_classes(10), Recipe(epochs=27), "", "0" * 12, classes, run, count)
    identity = {"name": space.name, "objectives": dict(space.objectives), "data": {"digest": "0", "classes": classes}}
    texts = {"space.yaml": (ROOT / "search_spaces" / "free.yaml").read_text()}
    run.claim(identity, texts | {"recipe.yaml": dump_yaml(plan.recipe.model_dump(mode="json"))})
    known = set()
    for number, positions in enumerate(plan.space.sample_positions(100 * count, seed=1)):
        try:
            facts = check(plan, plan.space.spec_at(positions))
        except SpecError:
            continue
        if facts.candidate in known:
            continue
        noise = (number * 7919 % 1000) / 4000
        top1 = min(0.95, max(0.05, 0.3 + 0.08 * math.log(facts.cost["gmacs"]) + noise))
        metrics = facts.cost if facts.reason else {**facts.cost, "top1": top1, "loss": 2 - top1}
        state = "infeasible" if facts.reason else "complete"
        trial = Settled(len(known), plan.space.choices(positions), facts.candidate, state, metrics, 27, 60.0,
                        reason=facts.reason)  # fmt: skip
        run.settle(trial)
        known.add(facts.candidate)
        if len(known) == count:
            return


def test_columns_say_what_the_files_say():
    data = json.loads(json.dumps(page_data(str(KEPT)), allow_nan=False))
    nets = data["networks"]
    trials = {t["number"]: t for t in (json.loads(p.read_text()) for p in (KEPT / "trials").glob("*.json"))}
    assert data["counts"]["states"]["complete"] == len(nets["id"]) == 24
    for place, number in enumerate(nets["id"]):
        trial = trials[number]
        assert nets["metrics"]["top1"][place] == pytest.approx(trial["metrics"]["top1"], rel=1e-5)
        assert nets["metrics"]["params"][place] == trial["metrics"]["params"]
        for name, column in nets["choices"].items():
            assert column["options"][column["values"][place]] == str(trial["params"][name]).lower()
    assert [nets["id"][place] for place in nets["front"]] == [19, 18, 25, 2]
    assert data["growth"]["epochs"][-1] == 720
    assert data["growth"]["volume"] == sorted(data["growth"]["volume"])
    named = {design["name"]: design["network"] for design in data["designs"]}
    assert nets["published"][str(named["rmc3_18"])] == "rmc3_18"
    shares = [effect["share"] for effect in data["importance"]["metrics"][0]["effects"]]
    assert shares == sorted(shares, reverse=True)
    assert data["final"] is None


def test_stages_and_yaml_are_those_of_the_candidate():
    data = page_data(str(KEPT))
    drawn, nets = data["drawn"], data["networks"]
    for place, name in enumerate(nets["hash"]):
        head, rows = drawn["networks"][place]
        stages = [drawn["stages"][row[0]] for row in rows]
        text = drawn["heads"][head] + "stages:\n" + "".join(stage["yaml"] for stage in stages)
        spec = parse_spec(parse_yaml(text, "page", SpecError), "page")
        kept = read_spec(KEPT / "candidates" / name / "spec.yaml")
        assert digest(lower(spec)) == digest(lower(kept))
        cost = total_cost(lower(kept))
        assert (sum(row[2] for row in rows), sum(row[3] for row in rows)) == (cost.macs, cost.params)
        nearest, count = data["nearest"][place]
        other = data["designs"][nearest]["choices"]
        own = json.loads((KEPT / "trials" / f"{nets['id'][place]}.json").read_text())["params"]
        assert sum(own[choice] != other[choice] for choice in own) == count


def test_stopped_failed_missing_and_broken(run):
    entry = json.loads((run / "trials" / "7.json").read_text())
    rungs = [{"epochs": 3, "metrics": {"top1": 0.3, "loss": 2.0}, "seconds": 1.0}]
    costs = {name: entry["metrics"][name] for name in ("gmacs", "params")}
    change(run / "trials" / "7.json", state="stopped", metrics=costs, rungs=rungs, epochs=3)
    change(run / "trials" / "8.json", state="failed", metrics=costs, reason="the loss became nan")
    change(run / "trials" / "9.json", metrics={**json.loads((run / "trials" / "9.json").read_text())["metrics"],
                                               "top1": math.nan})  # fmt: skip
    cut = json.loads((run / "trials" / "2.json").read_text())["candidate"]
    (run / "candidates" / cut / "curve.json").write_text('[{"epoch": 0, "tr')
    gone = json.loads((run / "trials" / "3.json").read_text())["candidate"]
    shutil.rmtree(run / "candidates" / gone)
    data = page_data(str(run))
    json.dumps(data, allow_nan=False)
    place = {number: index for index, number in enumerate(data["networks"]["id"])}
    assert data["counts"]["states"] | {"complete": 0} == {
        "complete": 0,
        "stopped": 1,
        "failed": 1,
        "infeasible": 0,
        "running": 0,
    }
    assert data["rungs"] == [[place[7], 3, pytest.approx({**costs, "top1": 0.3, "loss": 2.0}, rel=1e-5)]]
    assert data["networks"]["reason"][place[8]] == "the loss became nan"
    assert not data["networks"]["complete"][place[9]]
    assert data["curves_of"]["broken"] == [cut]
    assert place[2] not in data["curves"]
    assert place[3] not in data["curves"]
    assert data["drawn"]["networks"][place[3]] is not None
    (run / "trials" / "4.json").write_text('{"number": 4, "par')
    with pytest.raises(RunError, match=r"4\.json: not valid JSON"):
        page_data(str(run))


def test_a_space_that_cannot_be_read_leaves_the_folders(run):
    text = (run / "space.yaml").read_text()
    (run / "space.yaml").write_text(text.replace("base: r3d_18", "base: elsewhere.yaml"))
    data = page_data(str(run))
    assert "elsewhere.yaml" in data["drawn"]["fault"]
    assert all(row is not None for row in data["drawn"]["networks"])
    assert {design["name"] for design in data["designs"]} >= {"rmc3_18", "r3d_18"}


@pytest.mark.parametrize("objectives", [["loss"], ["top1", "gmacs", "params"], ["top1", "gmacs", "params", "loss"]])
def test_one_to_four_objectives_and_nothing_yet(run, objectives):
    wanted = {name: "maximize" if name == "top1" else "minimize" for name in objectives}
    change(run / "run.json", objectives=wanted, values="shared")
    data = page_data(str(run))
    assert list(data["objectives"]) == objectives
    assert data["values"] == "shared"
    assert data["growth"]["exact"] == (len(objectives) < 3)
    shutil.rmtree(run / "trials")
    shutil.rmtree(run / "asked")
    empty = page_data(str(run))
    assert empty["networks"]["id"] == []
    json.dumps(empty, allow_nan=False)


def test_final_results(run):
    row = {"id": 2, "hash": "x", "published": "rmc3_18", "choices": {}, "selected": {"top1": 0.8, "gmacs": 0.1},
           "metrics": {"top1": 0.79, "gmacs": 0.1}, "trained": 2, "failed": [], "spread": {"top1": 0.01},
           "test_top1": 0.75, "test_interval": [0.7, 0.8]}  # fmt: skip
    final = {"run": "small", "objectives": {"top1": "maximize", "gmacs": "minimize"}, "seeds": [1, 2],
             "candidates": [row], "front": [2]}  # fmt: skip
    write_json(open_store(str(run)), "final.json", final)
    assert page_data(str(run))["final"]["candidates"][0]["test_interval"] == [0.7, 0.8]
    write_json(open_store(str(run)), "final.json", {"candidates": 3})
    with pytest.raises(RunError, match=r"final\.json: is no result of"):
        page_data(str(run))


def test_the_command(run, cli, monkeypatch):
    pytest.importorskip("plotly", reason="plotly is not installed (the extra `report`)")
    assert cli("report", run) == (0, f"{run}/report.html\n", [])
    page = (run / "report.html").read_text()
    assert len(page) < 6e6
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']https?:", page[: page.index("plotly.js")])
    _, out, _ = cli("report", run, "--json")
    assert json.loads(out)["name"] == "small"
    assert cli("report", run, "--json", "--out", "x.html")[0] == 2
    assert cli("report", run, "--out", "x.txt")[0] == 2
    assert cli("report", run.parent / "none")[0] == 1
    assert page_place("s3://bucket/run") == Path("report.html")
    before = (run / "report.html").read_bytes()
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(MissingExtra, match=r"archsearch\[report\]"):
        write_page(str(run), run / "report.html")
    assert (run / "report.html").read_bytes() == before


def test_markdown_with_figures(run, cli):
    code, out, _ = cli("report", run, "--markdown", run.parent / "kept.md")
    assert code == 0
    assert not (run / "report.html").exists()
    assert all(Path(line).stat().st_size > 300 for line in out.splitlines())
    text = (run.parent / "kept.md").read_text()
    assert "| #2 | 0.830 | 0.104 | 891k | rmc3_18 |" in text
    for picture in re.findall(r"\]\((.*?\.png)\)", text):
        assert (run.parent / picture).exists()
    change(run / "trials" / "2.json", published="a|b\n<b>")
    assert r"a\|b \<b\>" in markdown(page_data(str(run)), "kept")
    assert inert("`x`[y](z)") == r"\`x\`\[y\](z)"


def test_json_ends_no_script():
    text = inert_json({"name": NASTY})
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"name": NASTY}


# ---- in a browser


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    pytest.importorskip("plotly", reason="plotly is not installed (the extra `report`)")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser: {CHROMIUM} is not there")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Opens a page from a disk: (page, what it asked for, what it complained of)."""
    pages = []

    def open_page(path, **options):
        page = browser.new_page(viewport={"width": 1280, "height": 900}, **options)
        pages.append(page)
        asked, said = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(path.resolve().as_uri())
        page.wait_for_selector("html[data-ready=yes]", timeout=60_000)
        return page, asked, said

    yield open_page
    for page in pages:
        page.close()


def walk(page):
    """Scrolls through, so that every part is drawn."""
    for part in ("network", "curves", "choices", "parallel", "growth", "others", "reproduce"):
        page.locator(f"#{part}").scroll_into_view_if_needed()
        page.wait_for_timeout(150)


@pytest.mark.slow
def test_it_opens_from_a_disk_and_answers(opened, tmp_path):
    write_page(str(KEPT), tmp_path / "page.html")
    page, asked, said = opened(tmp_path / "page.html")
    walk(page)
    spot = """() => { const plot = document.getElementById('front-plot');
        const trace = plot.data.find((own) => own.name === 'front' && own.customdata);
        const {xaxis, yaxis} = plot._fullLayout, box = plot.getBoundingClientRect();
        const place = (axis, value) => axis._offset + axis.d2p(value);
        return [box.left + place(xaxis, trace.x[0]), box.top + place(yaxis, trace.y[0]), trace.customdata[0]]; }"""
    page.locator("#front").scroll_into_view_if_needed()
    page.evaluate("scrollTo(0, 0)")
    x, y, place = page.evaluate(spot)
    number = page_data(str(KEPT))["networks"]["id"][place]
    page.mouse.move(x, y)
    page.wait_for_timeout(300)
    assert page.locator("#tip").is_visible()
    page.mouse.click(x, y)
    page.wait_for_selector(f"#network-body[data-network='{number}']")
    assert f"Network #{number}" in page.locator("#network-head").inner_text()
    assert page.locator(".stage.differs").count() > 0
    assert "stem" in page.locator(".stages").inner_text()
    page.select_option("#x-metric", "params")
    page.wait_for_selector("#front-plot .xtitle:has-text('parameters')", state="attached")
    page.fill("#budget", "0.07")
    page.wait_for_selector("#budget-best:has-text('#25')")
    assert page.locator("#front-table tr.off").count() > 0
    page.fill("#find-text", "r3d_18")
    page.keyboard.press("Enter")
    page.wait_for_selector("#network-body[data-network='4']")
    page.fill("#find-text", "nothing")
    page.keyboard.press("Enter")
    assert page.locator("#network-fault").is_visible()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert said == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_scrolling_sideways(opened, tmp_path, scheme):
    write_page(str(KEPT), tmp_path / "page.html")
    page, _, said = opened(tmp_path / "page.html", color_scheme=scheme)
    page.set_viewport_size({"width": 390, "height": 800})
    walk(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert said == []


@pytest.mark.slow
def test_names_are_inert(opened, run):
    change(run / "run.json", name=NASTY, data_name=NASTY,
           data={"digest": NASTY, "classes": [NASTY] * 11})  # fmt: skip
    for path in (run / "trials").glob("*.json"):
        entry = json.loads(path.read_text())
        change(path, params={**entry["params"], NASTY: NASTY if entry["number"] % 2 else "b"},
               published=NASTY if entry["published"] else None)  # fmt: skip
    change(run / "trials" / "9.json", state="failed", reason=NASTY)
    (run / "space.yaml").write_text((run / "space.yaml").read_text() + f"# {NASTY}\n")
    write_page(str(run), run / "page.html")
    page, _, said = opened(run / "page.html")
    walk(page)
    page.select_option("#colour", NASTY)
    page.wait_for_timeout(300)
    assert page.locator("#title").inner_text() == NASTY
    assert page.evaluate("window.hurt") is None
    assert page.locator("script").count() == 3
    assert said == []


@pytest.mark.slow
def test_a_run_without_anything_complete(opened, run):
    shutil.rmtree(run / "trials")
    write_page(str(run), run / "page.html")
    page, _, said = opened(run / "page.html")
    walk(page)
    assert "running" in page.locator("#summary").inner_text() or "no trials" in page.locator("#summary").inner_text()
    shutil.rmtree(run / "asked")
    change(run / "run.json", values="shared")
    write_page(str(run), run / "empty.html")
    page, _, more = opened(run / "empty.html")
    walk(page)
    assert "shared weights" in page.locator("#notice").inner_text()
    assert said + more == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_thousand_networks_stay_fluent(opened, tmp_path):
    fill(tmp_path / "run", 5000)
    write_page(str(tmp_path / "run"), tmp_path / "page.html")
    start = time.perf_counter()
    page, _, said = opened(tmp_path / "page.html")
    print(f"\n{(tmp_path / 'page.html').stat().st_size / 1e6:.1f} MB, open after {time.perf_counter() - start:.2f} s")
    timed = """async ([id, name, values]) => { const found = []; for (const value of values) {
        const element = document.getElementById(id), start = performance.now();
        if (name === 'click') element.emit('plotly_click', {points: [{customdata: value}]});
        else { element.value = value; element.dispatchEvent(new Event(name)); }
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
        found.push(performance.now() - start); } return found.sort((a, b) => a - b); }"""
    for what in (("front-plot", "click", [20, 40, 60]), ("x-metric", "change", ["params", "gmacs", "params"]),
                 ("budget-slider", "input", [300, 500, 700])):  # fmt: skip
        median = page.evaluate(timed, what)[1]
        print(f"{what[0]} {what[1]}: {median:.0f} ms")
        assert median < 5000  # on a machine that does other things too
    assert "one for each few pixels" in page.locator("#front-note").inner_text()
    assert said == []
