"""What the site does with links that leave docs/: spaces, recipes and examples come along, other folders are named.

Pages keep the links that work where the repository is read: `../recipes/demo.yaml` becomes `recipes/demo.yaml` on the
site, `../recipes` its list of files, and `../runs/utd_mhad_depth` its text alone.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
SHARED = {"search_spaces": "*.yaml", "recipes": "*.yaml", "examples": "*.py"}  # folders that the site has, too
OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the shared folders, each with a page that lists it."""
    for folder, pattern in SHARED.items():
        names = sorted(path.name for path in (ROOT / folder).glob(pattern))
        for name in names:
            files.append(File.generated(config, f"{folder}/{name}", abs_src_path=str(ROOT / folder / name)))
        listed = "\n".join(f"- [{name}]({name})" for name in names)
        files.append(File.generated(config, f"{folder}/index.md", content=f"# {folder}\n\n{listed}\n"))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Points links that leave docs/ to what the site has of them."""
    return OUTSIDE.sub(_inside, markdown)


def _inside(link: re.Match[str]) -> str:
    text, target = link.groups()
    place, _, anchor = target.partition("#")
    folder, _, name = place.rstrip("/").partition("/")
    path = ROOT / place
    if not path.exists():
        return link[0]  # broken, and the build says so
    if folder not in SHARED:
        return text
    return f"[{text}]({folder}/{name or 'index.md'}{'#' + anchor if anchor else ''})"
