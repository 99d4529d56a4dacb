"""A site with keys and people (closed), and one without anybody (open), each once for a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from nova_pipelines.database import users
from nova_pipelines_tests.web.auth.site import Site, running_site


@pytest.fixture(scope="package", autouse=True)
def quick_passwords() -> Iterator[None]:
    """The same argon2id with little memory: what is tested is not how long it takes."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(users, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
        users._nobodys_hash.cache_clear()
        yield
    users._nobodys_hash.cache_clear()


@pytest.fixture(scope="module")
def site(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(sqlite_template, tmp_path_factory.mktemp("site")) as made:
        made.make_keys()
        for login, role in (("ana", "admin"), ("otto", "operator"), ("vera", "viewer")):
            made.make_user(login, role)
        made.make_user("clara", "admin", ["other"])
        yield made


@pytest.fixture(scope="module")
def open_site(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(sqlite_template, tmp_path_factory.mktemp("open"), host="127.0.0.1") as made:
        yield made
