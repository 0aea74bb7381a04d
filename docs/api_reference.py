"""Writes the reference of docs/api.md from the docstrings: `python docs/api_reference.py`."""

import inspect
import re
import textwrap
from pathlib import Path

import archsearch
from archsearch.api.networks import SpaceSummary
from archsearch.api.runs import Chosen
from archsearch.api.shown import Drawn, Shown

PAGE = Path(__file__).with_name("api.md")
MARK = "<!-- from here on written by docs/api_reference.py -->\n"
FUNCTIONS = (
    *("make_demo", "presets", "load_spec", "show", "compare", "read_space", "bench"),
    *("search", "load_run", "train", "evaluate", "surgery", "import_weights", "export", "predict"),
)  # in the order in which they are needed
RECORDS = (archsearch.Run, Chosen, SpaceSummary, Shown, Drawn)


def reference() -> str:
    """Every function, then every kind of result with its methods."""
    import archsearch.api as api

    parts = [_entry(name, getattr(api, name), "###") for name in FUNCTIONS]
    results = []
    for record in RECORDS:
        results.append(f"### {record.__name__}\n\n{_text(record)}\n")
        results += [_entry(name, each, "####") for name, each in vars(record).items() if _is_public(name, each)]
    return "\n".join(["## Functions\n", *parts, "## Results\n", *results])


def _is_public(name: str, value: object) -> bool:
    return not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property))


def _entry(name: str, value: object, level: str) -> str:
    if isinstance(value, property):
        return f"{level} {name}\n\n{_text(value)}\n"
    return f"{level} {name}\n\n```python\n{_signature(name, value)}\n```\n\n{_text(value)}\n"


def _signature(name: str, function: object) -> str:
    """As it is called: parameters with their types and defaults, one a line where they are many."""
    signature = inspect.signature(function)  # type: ignore[arg-type]
    parts = [_plain(str(each)) for each in signature.parameters.values() if each.name != "self"]
    kinds = [each.kind for each in signature.parameters.values() if each.name != "self"]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        parts.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    result = _plain(inspect.formatannotation(signature.return_annotation))
    line = f"{name}({', '.join(parts)}) -> {result}"
    return line if len(line) <= 90 else f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f") -> {result}"


def _plain(text: str) -> str:
    """Types by their last names, `str | PathLike` as Place, and a network's union as Network."""
    text = re.sub(r"'([^']*[|\[\w][^']*)'", r"\1", text) if "Literal" not in text else text
    text = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", text)
    return text.replace("Spec | str | PathLike[str]", "Network").replace("str | PathLike[str]", "Place")


def _text(value: object) -> str:
    """A docstring as Markdown; its example as code."""
    text = inspect.getdoc(value) or ""
    words, _, example = text.partition("\n>>> ")
    code = f"\n\n```python\n>>> {textwrap.dedent(example)}\n```" if example else ""
    return words.strip() + code


def main() -> None:
    """Writes the page anew, its own words above the mark kept."""
    words, _, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    PAGE.write_text(words + MARK + "\n" + reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
