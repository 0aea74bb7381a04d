"""One driver at a time on an object store, which has no locks: a small file that its owner keeps changing.

Clocks of different machines are never compared: whoever finds a lease watches whether it changes. If it does, its
owner lives; if it does not for `PATIENCE_SECONDS`, its owner is dead, and the lease is taken over. Two that come in
the same moment both write, and after a pause one of them reads the other's name and leaves. An owner looks at its
lease before each beat, and gives up where it finds another name there.

What it cannot do: a driver that is cut off from the store for longer than `PATIENCE_SECONDS`, or stopped (SIGSTOP, a
laptop that sleeps), is taken for dead; when it wakes it finds out within a beat, and for so long two drivers may
write. Files are whole in any case; at worst a candidate is trained twice.
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from archsearch.errors import RunError
from archsearch.store import Store, read_json, write_json

LEASE = ".driver.lease"
BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 20.0
PAUSE_SECONDS = 1.0  # longer than a write takes to be seen by others


@contextmanager
def leased(store: Store) -> Iterator[Callable[[], None]]:
    """Holds a folder's lease; gives what raises RunError once another driver has it. Raises RunError if one has it."""
    _wait_for_death(store)
    lease = _Lease(store)
    lease.beat()
    time.sleep(PAUSE_SECONDS)
    lease.check()
    ended = threading.Event()
    thread = threading.Thread(target=lease.keep, args=(ended,), daemon=True)
    thread.start()
    try:
        yield lease.check_kept
    finally:
        ended.set()
        thread.join()
        lease.give_back()


def _wait_for_death(store: Store) -> None:
    """Returns where nobody holds the lease any more. Raises RunError where somebody does."""
    found = read_json(store, LEASE)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while found is not None and time.monotonic() < deadline:
        time.sleep(BEAT_SECONDS / 5)
        now = read_json(store, LEASE)
        if now is not None and now != found:
            raise RunError(f"{store.url}: another search is running in this folder, on {now['place']}")
        found = now


class _Lease:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.owner = uuid.uuid4().hex
        self.beats = 0
        self.taken_by: str | None = None

    def beat(self) -> None:
        """Writes the file anew, so that others see that its owner lives."""
        self.beats += 1
        place = f"{socket.gethostname()} pid {os.getpid()}"
        write_json(self.store, LEASE, {"owner": self.owner, "place": place, "beats": self.beats})

    def check(self) -> None:
        """Reads the file. Raises RunError where it is another's."""
        found: dict[str, Any] | None = read_json(self.store, LEASE)
        if found is not None and found["owner"] != self.owner:
            self.taken_by = found["place"]
        self.check_kept()

    def check_kept(self) -> None:
        """Raises RunError where the last look found it to be another's."""
        if self.taken_by is not None:
            raise RunError(f"{self.store.url}: another search is running in this folder, on {self.taken_by}")

    def keep(self, ended: threading.Event) -> None:
        """Beats until the end, or until another has it; a store that cannot be reached for a while is tried again."""
        while not ended.wait(BEAT_SECONDS) and self.taken_by is None:
            with suppress(Exception):
                self.check()
                self.beat()

    def give_back(self) -> None:
        """Removes the file, if it is still there and this driver's."""
        with suppress(Exception):
            self.check()
            self.store.delete(LEASE)
