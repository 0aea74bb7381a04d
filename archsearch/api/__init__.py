"""The commands' verbs as functions, for notebooks and programs; `archsearch` has all of these names.

A fault that a user can act on is an ArchsearchError. Bars and remarks go to stderr, unless `progress=False`.
"""

from archsearch.api.models import evaluate, export, import_weights, make_demo, predict, surgery, train
from archsearch.api.networks import bench, compare, load_spec, presets, read_space, show
from archsearch.api.runs import Run, load_run, search

__all__ = [
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
