"""Weight sharing as a run: numbers of what is read off, and who may work in its folder."""

from contextlib import nullcontext

import pytest
from conftest import RECIPE, write_tiny

from archsearch.errors import RunError
from archsearch.search.folder import RunFolder
from archsearch.search.launch import Wish, prepare
from archsearch.search.sharing import share
from archsearch.training.recipe import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")

VARY = [{"field": "conv", "stages": ["res3", "res4", "res5"], "each": ["2d", "3d"]}]


@pytest.fixture
def planned(clips, tmp_path):
    files = write_tiny(tmp_path, {"vary": VARY, "published": []})
    recipe = Recipe(**{**RECIPE, "epochs": 1, "warmup_epochs": 0, "views": 1})
    plan, _, pack = prepare(files[0], clips, str(tmp_path / "run"), recipe, Wish(shared=True), lambda *_: None)
    return plan, pack


def test_what_was_read_off_keeps_its_number_however_many_are_wanted_next(planned):
    plan, pack = planned
    found = []
    for count in (3, None, 5):
        share(plan, pack, count, lambda *_: None)
        found.append(plan.folder.settled())
    some, every, again = found
    assert [trial.number for trial in every] == list(range(8))
    assert len({trial.candidate for trial in every}) == 8
    assert every[:3] == some
    assert again == every


def test_a_training_of_shared_weights_stops_where_another_has_the_folder(planned, monkeypatch):
    plan, pack = planned

    def held():
        raise RunError("another search is running in this folder")

    monkeypatch.setattr(RunFolder, "driving", lambda _: nullcontext(held))
    with pytest.raises(RunError, match="another search"):
        share(plan, pack, 1, lambda *_: None)
    assert plan.folder.store.read("shared/result.json") is None
