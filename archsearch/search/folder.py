"""The run folder: files written once are the truth, everything else is rebuilt from them.

run.json                     what the run is: space, recipe and data by name and digest; `values` are "shared" or a
                             "table" where they are not of trainings (see `sharing`, `table`)
space.yaml, recipe.yaml      as given, and every field of the recipe with its value
first.json                   the choices that are tried first, where a score chose them (see `scoring`)
asked/<n>.json               trial n was handed to a worker: its choices and its candidate
trials/<n>.json              trial n is settled: complete, stopped, infeasible or failed, with its metrics
candidates/<hash>/           spec.yaml, recipe.json, labels.txt; curve.json, checkpoint.pt while it trains;
                             result.json and weights.safetensors when it is done
candidates/<hash>/latency.json   what was measured before it trained, where the space's latency is measured
candidates/<hash>/origin.json    the candidate whose weights it begins with, if any; start.safetensors has them
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter

from archsearch.errors import RunError
from archsearch.search.fields import Choice, Hash, Number, Rung, Seconds, Text, Whole, check_identity, read_fields
from archsearch.search.lease import leased
from archsearch.store import LocalStore, Store, read_json, write_json

WORDS = {"data": "data set", "values": "source of values"}  # fields of run.json, in errors
State = Literal["complete", "stopped", "infeasible", "failed"]


@dataclass(frozen=True)
class Asked:
    """A trial that was handed to a worker."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    number: Whole
    params: dict[Text, Choice]
    candidate: Hash  # its folder is named by it
    cost: dict[Text, Number]
    published: Text | None = None
    block: Whole = 0


@dataclass(frozen=True)
class Settled:
    """A trial whose outcome is known."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    number: Whole
    params: dict[Text, Choice]
    candidate: Hash
    state: State
    metrics: dict[Text, Number]
    epochs: Whole = 0
    seconds: Seconds = 0.0
    published: Text | None = None
    block: Whole = 0
    reason: Text | None = None
    duplicate_of: Whole | None = None
    constraints: Mapping[Text, Number] | None = None
    inherited: Hash | None = None  # the candidate whose weights it began with
    rungs: Sequence[Rung] = ()  # {"epochs", "metrics", "seconds"} as read at each rung before the last


Entry = TypeVar("Entry", Asked, Settled)
ASKED, SETTLED = TypeAdapter(Asked), TypeAdapter(Settled)


class RunFolder:
    """Reads and writes the files of a run; knows nothing of how they come about."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def identity(self) -> dict[str, Any] | None:
        """What the run is, or None for a new folder. Raises RunError where run.json says another thing."""
        if self.store.read("run.json") is None:
            return None
        found: dict[str, Any] = read_json(self.store, "run.json")
        check_identity(found, f"{self.store.url}/run.json")
        return found

    def claim(self, identity: dict[str, Any], files: Mapping[str, str]) -> None:
        """Makes the folder this run's, or checks that it is. Raises RunError naming what differs."""
        known = self.identity()
        if known is None:
            self.check_free(files)
            for name, text in files.items():
                self.store.write(name, text)
            write_json(self.store, "run.json", identity)
            return
        differ = [
            WORDS.get(key, key)
            for key in {**identity, "values": None}
            if key != "data_name" and known.get(key) != identity.get(key)
        ]
        if differ:
            raise RunError(
                f"{self.store.url}: was started with another {' and '.join(differ)}; "
                "give the same files, or --out a new folder"
            )

    def check_free(self, files: Iterable[str]) -> None:
        """Raises RunError for a folder that is no run's and holds other files than those."""
        is_new = isinstance(self.store, LocalStore) and self.store.read("run.json") is None
        if is_new and set(self.store.names()) - set(files):
            raise RunError(f"{self.store.url}: holds other files and no run.json; give --out a new folder")

    def asked(self) -> list[Asked]:
        """Every trial handed to a worker, by number."""
        return self._entries("asked", ASKED)

    def settled(self) -> list[Settled]:
        """Every settled trial, by number."""
        return self._entries("trials", SETTLED)

    def ask(self, trial: Asked) -> None:
        """Notes that a trial is handed to a worker."""
        write_json(self.store, f"asked/{trial.number}.json", asdict(trial))

    def settle(self, trial: Settled) -> None:
        """Notes a trial's outcome."""
        write_json(self.store, f"trials/{trial.number}.json", asdict(trial))

    def candidate(self, name: str) -> Store:
        """The folder of a candidate."""
        return self.store.at(f"candidates/{name}")

    def _entries(self, folder: str, kind: TypeAdapter[Entry]) -> list[Entry]:
        """Every trial of a folder. Raises RunError for a file that is none, or another trial's."""
        names = [name for name in self.store.names(folder) if name.endswith(".json")]
        entries = []
        for name in sorted(names, key=_number):
            place = f"{self.store.url}/{folder}/{name}"
            entry = read_fields(kind, read_json(self.store, f"{folder}/{name}"), place)
            if entry.number != _number(name):
                raise RunError(f"{place}: is of trial {entry.number} by what it says; delete the one that is wrong")
            entries.append(entry)
        return entries

    @contextmanager
    def driving(self) -> Iterator[Callable[[], None]]:
        """Holds the run for one driver; gives what raises RunError as soon as another one holds it after all.

        A lock of the file system, or on an object store a lease. Raises RunError where another driver holds the run,
        and where the file system locks nothing.
        """
        if not isinstance(self.store, LocalStore):
            with leased(self.store) as held:
                yield held
            return
        import fcntl

        path = Path(self.store.url)
        path.mkdir(parents=True, exist_ok=True)
        with (path / ".driver.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(f"{self.store.url}: another search is running in this folder") from None
            except OSError as error:
                raise RunError(f"{self.store.url}: cannot be locked: {error.strerror or error}") from None
            yield lambda: None


def _number(name: str) -> int:
    stem = name.removesuffix(".json")
    if not (stem.isascii() and stem.isdigit()):
        raise RunError(f"{name}: is no trial's file; its name should be a number")
    return int(stem)


def digest_text(*texts: str) -> str:
    """12 hex digits of some texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def digest_data(data: Any) -> str:
    """12 hex digits of plain data, whatever the order of its keys."""
    return digest_text(json.dumps(data, sort_keys=True))
