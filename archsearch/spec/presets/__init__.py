"""Published networks, by name, each with the paper it is from."""

from collections.abc import Callable
from pathlib import Path

from archsearch.errors import SpecError
from archsearch.files import near_name
from archsearch.spec.presets.hara import HARA
from archsearch.spec.presets.inception import INCEPTION
from archsearch.spec.presets.recent import RECENT
from archsearch.spec.presets.tran import TRAN
from archsearch.spec.spec import Spec, read_spec

PRESETS: dict[str, Callable[[], Spec]] = {**TRAN, **INCEPTION, **HARA, **RECENT}


def preset(name: str) -> Spec:
    """The published network of that name. Raises SpecError with a near name."""
    if name not in PRESETS:
        hint = near_name(name, PRESETS) or "; `archsearch presets` lists them, and a file's name ends in .yaml"
        raise SpecError(f"there is no preset '{name}'{hint}")
    return PRESETS[name]()


def load_spec(name_or_path: str) -> Spec:
    """A preset's network, or the one of a YAML file or of a trained network's folder. Raises SpecError."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        return read_spec(path)
    if (path / "spec.yaml").exists():
        return read_spec(path / "spec.yaml")
    return preset(name_or_path)
