"""Where the files of a run lie: a local folder, or any URL that fsspec reads (s3://, memory://, ...).

A store holds small files under slash-separated names. The contract both stores share:

- `write` puts a file whole or not at all; a reader sees the old content or the new, never a part;
- `read` gives the bytes, or None where there is no such file;
- `names` lists what stands directly in a folder, sorted, without names that start with a dot (half-written files);
  a folder that is not there is empty;
- `delete` removes a file or a folder with all that is in it, and does nothing where there is none; some object stores
  list an emptied folder's name on;
- `sweep` removes what killed writers left half-written directly in the folder; it is for its only writer.
"""

import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from archsearch.errors import MissingExtra, RunError
from archsearch.files import sweep, write_whole


class Store(Protocol):
    """A folder of files, somewhere."""

    url: str

    def read(self, name: str) -> bytes | None: ...
    def write(self, name: str, content: bytes | str) -> None: ...
    def names(self, folder: str = "") -> list[str]: ...
    def delete(self, name: str) -> None: ...
    def sweep(self) -> None: ...
    def at(self, folder: str) -> "Store": ...


class LocalStore:
    """A folder on this machine, or on a file system it has mounted."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.path = Path(url)

    def read(self, name: str) -> bytes | None:
        """The content of a file, or None. Raises RunError for a pipe or a device, which might never end."""
        path = self.path / name
        try:
            kind = path.stat().st_mode
            if stat.S_ISDIR(kind):
                return None
            if not stat.S_ISREG(kind):
                raise RunError(f"{path}: a pipe or a device, not a file; remove it")
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, content: bytes | str) -> None:
        """Puts a file whole. Raises RunError where the disk refuses."""
        try:
            write_whole(self.path / name, content)
        except OSError as error:
            raise RunError(f"{self.path / name}: cannot be written: {error.strerror or error}") from None

    def names(self, folder: str = "") -> list[str]:
        """What stands in a folder, without half-written files."""
        try:
            return sorted(entry.name for entry in (self.path / folder).iterdir() if not entry.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def delete(self, name: str) -> None:
        """Removes a file, or a folder with all that is in it."""
        path = self.path / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            with suppress(NotADirectoryError):
                path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Removes half-written files."""
        sweep(self.path)

    def at(self, folder: str) -> "LocalStore":
        """The store of a folder inside."""
        return LocalStore(str(self.path / folder))


# botocore's own way: a server that fails is asked again, ever more slowly, for half a minute.
PATIENT: Mapping[str, Any] = {"config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": 7}}}


class RemoteStore:
    """A folder that fsspec reaches; objects of such stores appear whole when they are put."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url
        try:
            told = {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"} & os.environ.keys()
            options = PATIENT if url.startswith(("s3://", "s3a://")) and not told else {}
            self.files, self.root = fsspec.core.url_to_fs(url, use_listings_cache=False, **options)
        except ImportError as error:
            extra = "; pip install 'archsearch[s3]'" if url.startswith("s3") else ""
            raise MissingExtra(f"{url}: cannot be opened: {error}{extra}") from None
        except ValueError as error:
            raise RunError(f"{url}: cannot be opened: {error}") from None

    def read(self, name: str) -> bytes | None:
        """The content of a file, or None."""
        try:
            with self._reaching(name, "read"):
                return bytes(self.files.cat_file(f"{self.root}/{name}"))
        except (FileNotFoundError, IsADirectoryError):
            return None

    def write(self, name: str, content: bytes | str) -> None:
        """Puts a file whole. Raises RunError where the store refuses."""
        with self._reaching(name, "written"):
            self.files.pipe_file(f"{self.root}/{name}", content.encode() if isinstance(content, str) else content)

    def names(self, folder: str = "") -> list[str]:
        """What stands in a folder."""
        place = f"{self.root}/{folder}".rstrip("/")
        try:
            with self._reaching(folder, "listed"):
                paths = {path.rstrip("/") for path in self.files.ls(place, detail=False)} - {place}
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = (path.rpartition("/")[2] for path in paths)
        return sorted(name for name in names if not name.startswith("."))

    def delete(self, name: str) -> None:
        """Removes a file, or a folder with all that is in it."""
        with self._reaching(name, "deleted"):
            if self.files.exists(f"{self.root}/{name}"):
                self.files.rm(f"{self.root}/{name}", recursive=True)

    @contextmanager
    def _reaching(self, name: str, done: str) -> Iterator[None]:
        """What the libraries behind fsspec raise is a RunError, unless it says that there is no such file."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise
        except Exception as error:
            raise RunError(f"{self.url}/{name}: cannot be {done}: {error}") from None

    def sweep(self) -> None:
        """Nothing: what was not put whole is not there."""

    def at(self, folder: str) -> "RemoteStore":
        """The store of a folder inside."""
        return RemoteStore(f"{self.url.rstrip('/')}/{folder}")


def open_store(url: str) -> Store:
    """The store of a folder's path or of a URL."""
    url = url.removeprefix("file://")
    return RemoteStore(url) if "://" in url else LocalStore(url)


def read_json(store: Store, name: str, remedy: str = "delete it and run the same command again") -> Any:
    """What a JSON file holds, or None where there is none. Raises RunError, with a remedy, where it is not JSON."""
    content = store.read(name)
    if content is None:
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise RunError(f"{store.url}/{name}: not valid JSON ({reason}); {remedy}") from None


def write_json(store: Store, name: str, data: Any) -> None:
    """Writes a JSON file whole."""
    store.write(name, json.dumps(data, indent=1) + "\n")
