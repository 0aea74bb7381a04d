"""What a search says while it runs: bars of every candidate in a terminal, lines in a log, and workers' warnings."""

import io
import re
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import write_tiny

from archsearch.report.progress import Row, track
from archsearch.report.search import search_with_progress
from archsearch.search.launch import Wish, Workers
from archsearch.search.state import Standing
from archsearch.training.recipe import read_recipe

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@contextmanager
def terminal():
    """A terminal for stderr; gives what it shows, as text."""
    with pytest.MonkeyPatch.context() as patch:
        shown = Terminal()
        patch.setattr(sys, "stderr", shown)
        patch.setenv("COLUMNS", "160")
        patch.setenv("TERM", "xterm")
        yield lambda: ESCAPES.sub("", shown.getvalue())


ROWS = [Row("#3", 2, 10, "loss 1.250 top1 0.500 pid 7"), Row("#4", 0, 10, "waits")]


def test_rows_are_bars_in_a_terminal_and_come_and_go():
    with terminal() as shown, track(40, "searching") as advance:
        advance(2, ROWS, status="")
        advance(3, [Row("#3", 5, 10, "loss 0.9"), Row("#9", 1, 10, "[odd]")], status="")
    last = [line for line in shown().split("\r")[-1].splitlines() if "/" in line]
    assert [line.split()[0] for line in last] == ["searching", "#3", "#9"]
    assert ["5/40" in last[0], "5/10" in last[1], "1/10" in last[2], "[odd]" in last[2]] == [True] * 4


def test_rows_are_a_line_in_a_log(capsys):
    with track(40, "searching") as advance:
        advance(2, ROWS, status="")
    line = capsys.readouterr().err.strip()
    assert line.startswith("searching: 2/40, ")
    assert line.endswith(", #3 2/10 #4 0/10")


def test_a_search_in_a_terminal_shows_each_candidate(clips, tmp_path, monkeypatch):
    from archsearch.search import launch

    monkeypatch.setattr(launch, "train_candidate", train_and_wait_until_seen)
    files = write_tiny(tmp_path, {"search": {"trials": 2, "order": "async"}}, {"epochs": 2, "views": 1})
    workers = Workers("processes", 2)
    with terminal() as shown, touched(tmp_path / "seen", lambda: re.search(EACH, shown(), re.S)):
        search_with_progress(files[0], clips, str(tmp_path / "run"), read_recipe(files[1]), Wish(), workers)
    assert re.search(EACH, shown(), re.S)
    assert "#0 complete" in shown()


MEASURED = r"[^\n]*[12]/2[^\n]* loss \d\.\d{3} top1 \d\.\d{3} pid \d+"
EACH = f"#0 {MEASURED}.*#1 {MEASURED}"


@contextmanager
def touched(file, when):
    """Makes the file as soon as `when` is true, or at the end."""
    ended = threading.Event()

    def watch():
        while not (when() or ended.wait(0.1)):
            pass
        file.touch()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def train_and_wait_until_seen(payload):
    """A candidate that stays at its last epoch until the terminal has shown it (a minute at most)."""
    from archsearch.search.worker import train_candidate

    result = train_candidate(payload)
    until = time.monotonic() + 60
    seen = Path(payload["store"]).parents[2] / "seen"
    while not seen.exists() and time.monotonic() < until:
        time.sleep(0.05)
    return result


def test_warnings_of_workers_are_lines_behind_their_trial(clips, tmp_path, capsys, monkeypatch):
    from archsearch.search import launch

    monkeypatch.setattr(launch, "train_candidate", warn_and_train)
    files = write_tiny(tmp_path, {"search": {"trials": 1}}, {"epochs": 1, "views": 1, "warmup_epochs": 0})
    search_with_progress(files[0], clips, str(tmp_path / "run"), read_recipe(files[1]), Wish(), Workers("processes", 1))
    assert "#0 the clips are dark" in capsys.readouterr().err.splitlines()


def warn_and_train(payload):
    import logging

    from archsearch.search.worker import train_candidate

    logging.getLogger("archsearch").warning("the clips are dark")
    return train_candidate(payload)


def test_a_candidate_that_nobody_has_waits():
    from archsearch.report.search import _row

    assert _row(7, Standing(0, {}, None), 10) == Row("#7", 0, 10, "waits")
    read = {"val_loss": 1.25, "val_top1": 0.5, "train_loss": 1.0}
    assert _row(7, Standing(3, read, "pid 4"), 10) == Row("#7", 3, 10, "loss 1.250 top1 0.500 pid 4")
