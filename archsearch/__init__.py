"""archsearch: neural architecture search and surgery for video networks.

The commands' verbs are functions here; each loads what it needs when it is called.

    import archsearch as a
    run = a.search("search_spaces/demo.yaml", "clips", out="runs/demo", recipe="recipes/demo.yaml")
    run.front().plot()
"""

import inspect
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archsearch.api import (
        Run,
        bench,
        compare,
        evaluate,
        export,
        import_weights,
        load_run,
        load_spec,
        make_demo,
        predict,
        presets,
        read_space,
        search,
        show,
        surgery,
        train,
    )
    from archsearch.errors import ArchsearchError

__version__ = "0.1.0"
__all__ = [
    "ArchsearchError",
    "Run",
    "bench",
    "compare",
    "evaluate",
    "export",
    "import_weights",
    "load_run",
    "load_spec",
    "make_demo",
    "predict",
    "presets",
    "read_space",
    "search",
    "show",
    "surgery",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'archsearch' has no attribute '{name}'")
    return getattr(import_module("archsearch.errors" if name == "ArchsearchError" else "archsearch.api"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _Search(ModuleType):
    """The package of searches and the verb in one, since both are `archsearch.search`."""

    @property
    def _verb(self) -> Callable[..., Any]:
        verb: Callable[..., Any] = import_module("archsearch.api").search
        return verb

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._verb(*args, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._verb)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self._verb.__doc__


import_module("archsearch.search").__class__ = _Search
