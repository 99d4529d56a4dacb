"""What is masked in logs wherever it stands."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nova_pipelines.adapters import logs
from nova_pipelines.domain.masking import MASK
from nova_pipelines.settings import Settings

WORDS = (
    "Bearer ",
    "bearer\t",
    "BASIC\n",
    "basic",
    "abcdefgh123",
    "password",
    "api_key",
    "SIG",
    "code",
    "value",
    "ſ",
    "K",
)
SIGNS = ("=", "%3D", "%3d", "&", " ", "'", '"', "://", "/", "?", "user:pw@host", '"WebSocket ', "/graphql?token")
PIECES = st.sampled_from(WORDS + SIGNS)
TEXTS = st.one_of(st.lists(PIECES, max_size=8).map("".join), st.text(max_size=40))


@pytest.fixture(scope="module")
def redactor() -> logs.Redactor:
    return logs.Redactor(Settings(_env_file=None))


@given(text=TEXTS)
def test_the_quick_look_leaves_nothing_out(text: str, redactor: logs.Redactor):
    every = text
    for pattern, mask in logs._PATTERNS:
        every = pattern.sub(mask, every)
    assert redactor.text(text) == every


@pytest.mark.parametrize(
    "text",
    [
        *("authorization: Bearer abcdefgh", "BASIC\tdXNlcjpwdw==", "GET /x?api_key=abcdefgh", "a?TOKEN%3dabcdefgh"),
        *("postgresql://nova:abcdefgh@db/nova", '"WebSocket /graphql?t=abcdefgh" [accepted]'),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, redactor: logs.Redactor):
    masked = redactor.data({"event": [text]})["event"][0]
    assert MASK in masked
    assert not re.search("abcdefgh|dXNlcjpwdw", masked)
