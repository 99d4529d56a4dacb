"""Secrets in texts and data, in every spelling that a program is likely to give them."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nova_pipelines.domain.masking import CUT, MASK, MIN_SECRET, Masker, spellings

SECRET = "pä'ss\"w\\ör/d+&= 1"
PLAIN = "abcdefghijklmnop"
#: any text, and those that databases and mail servers let through
SECRETS = st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=40) | st.text(
    "abcXYZ019/+ =&%'\"\\ñ€", min_size=8, max_size=40
)


def written(secret: str) -> dict[str, str]:
    login = f"\0ana\0{secret}".encode()
    return {
        "clear": f"password={secret};",
        "url": f"postgresql://ana:{quote(secret, safe='')}@host/x",
        "path": quote(f"/x/{secret}"),
        "form": urlencode({"user": "ana", "password": secret}),
        "query": quote_plus(secret),
        "json": json.dumps({"login": ["ana", secret]}),
        "json in json": json.dumps(json.dumps({"a": secret})),
        "real json": json.dumps({"a": secret}, ensure_ascii=False),
        "python": repr({"a": secret}),
        "bytes": repr(secret.encode()),
        "html": html.escape(secret),
        "hex": login.hex(),
        "HEX": login.hex().upper(),
        "base64 1": base64.b64encode(secret.encode()).decode(),
        "base64 2": base64.b64encode(b"x" + secret.encode()).decode(),
        "base64 3": base64.b64encode(login).decode(),
        "url base64": base64.urlsafe_b64encode(b"xy" + secret.encode() + b"z").decode(),
        "wrapped base64": base64.encodebytes(b"y" * 50 + secret.encode()).decode(),
        "folded base64": base64.encodebytes(b"y" * 50 + secret.encode()).decode().replace("\n", "\r\n "),
    }


@pytest.mark.parametrize("form", written(SECRET))
def test_a_secret_is_masked_in_every_spelling(form: str):
    text = written(SECRET)[form]
    masked = Masker([SECRET]).text(text)
    assert MASK in masked
    assert not any(spelling in masked for spelling in spellings(SECRET))


@given(SECRETS, st.binary(max_size=6), st.binary(max_size=6))
def test_base64_of_a_secret_is_found_at_any_place(secret: str, before: bytes, after: bytes):
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert MASK in Masker([secret]).text(encode(before + secret.encode() + after).decode())


@given(SECRETS)
def test_other_spellings_of_any_secret(secret: str):
    masker = Masker([secret])
    for text in (secret, quote_plus(secret), json.dumps(secret), repr(secret), secret.encode().hex()):
        assert MASK in masker.text(f"<{text}>")


def test_what_holds_no_secret_stays_as_it_is():
    masker = Masker([SECRET, PLAIN, ""])
    data = {"a": [1, 2.5, None, True, "text\n  of lines…"], "pä'ss": {"b": "abcdefghijklmno"}}
    assert masker.data(data) == data
    assert Masker([]).data({"a": SECRET}) == {"a": SECRET}


def test_data_is_masked_in_values_and_keys_and_no_value_is_lost():
    masked = Masker([PLAIN]).data({"a": {PLAIN: [f"x{PLAIN}y"], PLAIN.encode().hex(): 1}, "n": 1})
    assert masked == {"a": {MASK: [f"x{MASK}y"], f"{MASK}'": 1}, "n": 1}


def test_what_a_cut_left_of_a_secret_is_masked():
    masker = Masker([PLAIN])
    assert masker.cut_text(f"Error: login {PLAIN[:9]}{CUT} (line 3)") == f"Error: login {MASK}{CUT} (line 3)"
    assert masker.cut_text(f"printed {PLAIN[:5]}", at_end=True) == f"printed {MASK}"
    assert masker.cut_text(f"{PLAIN.encode().hex()[:21]}\ufffd", at_end=True) == MASK
    assert masker.cut_text(f"ab{CUT} is no secret") == f"ab{CUT} is no secret"


def test_an_app_password_is_masked_in_groups_and_without():
    masked = Masker(["abcd efgh ijkl mnop"]).text("abcd efgh ijkl mnop, abcdefghijklmnop")
    assert masked == f"{MASK}, {MASK}"


def test_too_short_a_spelling_is_left_out():
    assert spellings("pw") == frozenset()
    assert all(len(form) >= MIN_SECRET for form in spellings("secret"))


def test_a_masker_shows_no_secret():
    assert PLAIN not in repr(Masker([PLAIN]))
