"""The page of a search: one HTML file that opens from a disk and asks no network for anything."""

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from archsearch.errors import MissingExtra
from archsearch.files import write_whole
from archsearch.report.page_data import page_data

NAME = "report.html"
SCRIPTS = ("core.js", "front.js", "network.js", "panels.js", "parallel.js", "start.js")


def page_place(run: str) -> Path:
    """Where a run's page goes if nobody says: into a local run's folder, else beside whoever calls."""
    place = run.removeprefix("file://")
    return Path(NAME) if "://" in place else Path(place) / NAME


def write_page(run: str, path: Path) -> None:
    """Writes the page of a run whole. Raises MissingExtra without plotly, RunError as `page_data`."""
    plotly = _plotly()
    write_whole(path, page_html(page_data(run), plotly))


def page_html(data: Mapping[str, Any], plotly: str) -> str:
    """The page of some `page_data`, with plotly's own script in it.

    No text of a run becomes markup: data is JSON without `<`, read by one script that sets texts. The browser runs
    only the two scripts whose digests the page names, and loads nothing.
    """
    scripts = {"plotly": plotly, "script": _script()}
    parts = {
        "hashes": " ".join(f"'sha256-{_digest(text)}'" for text in scripts.values()),
        "title": html.escape(str(data["name"])),
        "style": _file("page.css"),
        "data": inert_json(data),
        **scripts,
    }
    page = _file("page.html")
    pieces = page.split("@")
    names = set(parts)
    return "".join(parts[piece] if place % 2 and piece in names else piece for place, piece in enumerate(pieces))


def inert_json(data: Any) -> str:
    """JSON that ends no script element and begins no comment, whatever is in it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise MissingExtra("plotly is not installed: pip install 'archsearch[report]'") from None
    return str(get_plotlyjs()).replace("\r\n", "\n").replace("\r", "\n")  # as browsers read it, for its digest


def _script() -> str:
    """All scripts of the page as one, with names of its own."""
    return "(() => {\n'use strict';\n" + "\n".join(_file(name) for name in SCRIPTS) + "\n})();"


def _file(name: str) -> str:
    return files("archsearch.report").joinpath("page_parts").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
