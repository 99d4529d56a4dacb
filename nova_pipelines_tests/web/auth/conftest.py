"""A site with keys and people (closed), and one without anybody (open), each once for a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nova_pipelines_tests.web.auth.site import Site, running_site


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
