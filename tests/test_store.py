"""One contract for every store, and what stands beside it."""

import os
import uuid

import fsspec
import pytest

from archsearch import files
from archsearch.errors import MissingExtra, RunError
from archsearch.store import LocalStore, RemoteStore, open_store, read_json, write_json


@pytest.fixture(params=["local", "memory", "s3"])
def store(request, tmp_path):
    if request.param == "local":
        return open_store(str(tmp_path / "run"))
    if request.param == "s3":
        return open_store(f"{request.getfixturevalue('s3')}/{uuid.uuid4().hex}/run")
    return open_store(f"memory://{uuid.uuid4().hex}/run")


def test_what_is_written_is_read(store):
    store.write("a.txt", "é")
    store.write("deep/er/b.bin", b"\x00\xff")
    assert store.read("a.txt") == "é".encode()
    assert store.read("deep/er/b.bin") == b"\x00\xff"
    store.write("a.txt", b"")
    assert store.read("a.txt") == b""


def test_what_is_not_there_reads_as_none(store):
    store.write("folder/file", b"1")
    for name in ("a", "a/b", "folder", "folder/file/below", "folder/other"):
        assert store.read(name) is None, name


def test_names_are_sorted_and_of_one_folder(store):
    assert store.names() == store.names("nowhere") == []
    for name in ("b", "a", "folder/z", "folder/y", "folder/x/w"):
        store.write(name, b"1")
    assert store.names() == ["a", "b", "folder"]
    assert store.names("folder") == store.names("folder/") == ["x", "y", "z"]
    assert store.names("folder/x") == ["w"]
    assert store.names("a") == []
    assert store.names("a/b") == []


def test_half_written_files_have_no_name(store):
    store.write(".a.txt.tmp", b"1")
    store.write("a.txt", b"1")
    assert store.names() == ["a.txt"]


def test_delete_a_file_a_folder_and_nothing(store):
    for name in ("a", "ab", "folder/x", "folder/y/z", "folder2/x"):
        store.write(name, b"1")
    for name in ("a", "folder", "nothing", "ab/below", "no/thing"):
        store.delete(name)
    assert files_in(store) == ["ab", "folder2/x"]
    assert store.read("a") is None
    assert store.read("folder/y/z") is None
    assert store.read("folder2/x") == b"1"
    store.delete("folder2/x")
    store.delete("folder2/x")
    assert files_in(store) == ["ab"]


def files_in(store, folder=""):
    """Every file; a folder that was emptied may keep its name (SeaweedFS lists it on)."""
    places = [f"{folder}{name}" for name in store.names(folder)]
    return [
        file
        for place in places
        for file in ([place] if store.read(place) is not None else files_in(store, f"{place}/"))
    ]


def test_a_folder_inside_is_a_store(store):
    inner = store.at("trials").at("7")
    assert inner.names() == []
    inner.write("a", b"1")
    assert store.read("trials/7/a") == b"1"
    assert store.at("trials").names() == ["7"]
    inner.delete("a")
    assert store.read("trials/7/a") is None
    assert type(inner) is type(store)


def test_two_stores_of_one_place_see_each_other(store):
    store.write("a", b"1")
    again = open_store(store.url)
    assert again.read("a") == b"1"
    again.write("a", b"2")
    again.write("b", b"3")
    assert store.read("a") == b"2"
    assert store.names() == ["a", "b"]


def test_json(store):
    assert read_json(store, "a.json") is None
    write_json(store, "a.json", {"é": [1, None, 0.1]})
    assert read_json(store, "a.json") == {"é": [1, None, 0.1]}
    assert store.read("a.json").endswith(b"}\n")
    for content in (b"{half", b"", b"\xff\xfe\x00"):
        store.write("a.json", content)
        with pytest.raises(RunError, match=r"a\.json: not valid JSON .*; delete it and run the same command again"):
            read_json(store, "a.json")


def test_a_path_is_local_and_a_url_is_remote(tmp_path):
    assert isinstance(open_store(str(tmp_path)), LocalStore)
    assert isinstance(open_store("memory://x"), RemoteStore)
    store = open_store(f"file://{tmp_path}")
    store.write("new/a", b"1")
    assert (tmp_path / "new" / "a").read_bytes() == b"1"


def test_a_url_nobody_opens():
    with pytest.raises(RunError, match=r"^nosuch://bucket/run: cannot be opened: "):
        open_store("nosuch://bucket/run")


def test_a_disk_that_refuses_is_a_run_error_and_loses_nothing(tmp_path, monkeypatch):
    store = LocalStore(str(tmp_path))
    store.write("a", b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(RunError, match=r"a: cannot be written: No space left on device$"):
        store.write("a", b"new")
    monkeypatch.undo()
    assert store.read("a") == b"old"
    assert os.listdir(tmp_path) == ["a"]
    with pytest.raises(RunError, match="cannot be written"):
        store.write("a/below", b"1")


def test_a_remote_store_that_refuses_is_a_run_error(monkeypatch):
    store = RemoteStore(f"memory://{uuid.uuid4().hex}")

    def refuse(*_, **__):
        raise PermissionError("read only")

    monkeypatch.setattr(store.files, "pipe_file", refuse)
    with pytest.raises(RunError, match="cannot be written: read only"):
        store.write("a", b"1")


def test_an_s3_that_does_not_answer_is_a_run_error(monkeypatch):
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed (the extra `s3`)")
    s3fs.S3FileSystem.clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "tests")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = open_store("s3://nobody/run")
    for call in (lambda: store.read("a"), lambda: store.write("a", b"1"), lambda: store.names()):
        with pytest.raises(RunError, match=r"^s3://nobody/run/.*: cannot be .*127\.0\.0\.1:1"):
            call()
    s3fs.S3FileSystem.clear_instance_cache()


def test_s3_is_an_extra(monkeypatch):
    def missing(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(MissingExtra, match=r"^s3://bucket/run: cannot be opened: Install s3fs .*archsearch\[s3\]"):
        open_store("s3://bucket/run")
