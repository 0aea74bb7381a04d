"""The documentation as a site: whole, without warnings, and without the network."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import archsearch

ROOT = Path(archsearch.__file__).parent.parent
HOSTS = {"squidfunk.github.io"}  # the theme's name in the foot of a page, a link that nobody has to follow
needs_mkdocs = pytest.mark.skipif(importlib.util.find_spec("material") is None, reason="mkdocs-material is not there")


class Loaded(HTMLParser):
    """What a page loads and what it links to."""

    def __init__(self):
        super().__init__()
        self.loads, self.links = [], []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag in ("script", "img", "iframe") and found.get("src"):
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(found["href"])
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])


def build(root, out):
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", root / "mkdocs.yml", "-d", out]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@needs_mkdocs
@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_asks_nobody(tmp_path):
    done = build(ROOT, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    names = {page.relative_to(tmp_path / "site").as_posix() for page in pages}
    assert {f"{page.stem}.html" for page in (ROOT / "docs").glob("*.md")} <= names
    for page in pages:
        read = Loaded()
        read.feed(page.read_text())
        assert not [place for place in read.loads if "//" in place], page
        for link in read.links:
            if link.startswith(("#", "http")) or page.name == "404.html":
                continue
            assert (page.parent / link.partition("#")[0]).exists(), f"{page}: {link}"
    styles = "".join(path.read_text() for path in (tmp_path / "site").rglob("*.css"))
    assert not re.findall(r"url\([\"']?https?:|@import", styles)
    assert (tmp_path / "site" / "search_spaces" / "small_2d.yaml").exists()
    assert {path.parent.name for path in (tmp_path / "site").rglob("*.py")} == {"examples"}


@needs_mkdocs
@pytest.mark.slow
def test_a_broken_link_is_a_fault(tmp_path):
    for name in ("docs", "search_spaces", "recipes", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    for link in ("nowhere.md", "search.md#nothing", "../recipes/nothing.yaml"):
        (tmp_path / "docs" / "index.md").write_text(f"# Site\n\n[there]({link})\n")
        done = build(tmp_path, tmp_path / "site")
        assert done.returncode != 0, link
        assert link.partition("#")[2] or link in done.stderr


def test_every_page_is_in_the_order_of_the_site():
    listed = set(re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")}
