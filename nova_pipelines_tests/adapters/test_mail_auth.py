"""A forged From, and the words of the provider that tell it from a genuine one."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nova_pipelines.adapters.mail_auth import Provider, verify_sender
from nova_pipelines.adapters.mail_headers import parse_headers

OURS = Provider("mx.idom.example")
RECEIVED = "Received: from x (y [192.0.2.1]) by mx.idom.example; Mon, 3 Aug 2026 10:30:00 +0200"
FROM = "From: Ana <ana@proveedores.example>"


def verdict(*headers: str, provider: Provider = OURS, sender: str = FROM):
    return verify_sender(parse_headers("\r\n".join([*headers, sender, "", "x"]).encode()), provider)


def results(text: str, authserv_id: str = "mx.idom.example") -> str:
    return f"Authentication-Results: {authserv_id}; {text}"


@pytest.mark.parametrize(
    ("text", "verified"),
    [
        ("dmarc=pass header.from=proveedores.example", True),
        ("dmarc=pass (p=REJECT sp=NONE) header.from=proveedores.example", True),
        ("DMARC=PASS header.from=PROVEEDORES.example", True),
        ("dmarc=pass header.from=other.example", False),
        ("dmarc=fail header.from=proveedores.example; dkim=pass header.d=proveedores.example", False),
        ("dkim=pass header.d=proveedores.example header.s=k", True),
        ("dkim=pass header.i=@mail.proveedores.example", True),
        ("dkim=pass header.d=other.example", False),
        ("dkim=pass header.d=example", False),
        ("dkim=pass header.d=notproveedores.example", False),
        ("dkim=fail header.d=proveedores.example", False),
        ("dkim=pass", False),
        ("spf=pass smtp.mailfrom=facturas@proveedores.example", True),
        ("spf=pass smtp.mailfrom=proveedores.example; dkim=none", True),
        ("spf=pass smtp.mailfrom=bounce@mailer.example", False),
        ("spf=pass smtp.helo=proveedores.example", False),
        ("spf=softfail smtp.mailfrom=proveedores.example", False),
        ("dkim=fail header.d=x.example;\r\n spf=pass smtp.mailfrom=proveedores.example", True),
        ('dkim=fail reason="; dmarc=pass" header.d=x.example', False),
        ("none (; dmarc=pass header.from=proveedores.example)", False),
        ("none (unclosed; dmarc=pass", False),
        ("none", False),
        ("", False),
    ],
)
def test_what_the_provider_says_decides(text, verified):
    found = verdict(results(text), RECEIVED)
    assert found.verified is verified, found
    assert found.reason


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [RECEIVED, results("dmarc=pass")],
        [results("dmarc=pass", "mx.evil.example"), RECEIVED],
        [results("dmarc=pass", "mx.idom.example.evil.example"), RECEIVED],
        [results("none"), RECEIVED, results("dmarc=pass header.from=proveedores.example")],
        ["X-Authentication-Results: mx.idom.example; dmarc=pass", RECEIVED],
        ["ARC-Authentication-Results: i=1; mx.idom.example; dmarc=pass", RECEIVED],
    ],
    ids=["none", "below", "another's", "longer", "second", "x", "arc"],
)
def test_what_a_sender_can_write_counts_for_nothing(headers):
    assert not verdict(*headers).verified


def test_a_provider_may_stamp_lines_of_its_own_above_its_results():
    gmail = Provider("mx.google.com", hops=2)
    stamped = [
        "Received: by 2002:a05:0",
        RECEIVED,
        results("dmarc=pass header.from=proveedores.example", "mx.google.com"),
    ]
    assert verdict(*stamped, provider=gmail).verified
    too_low = verdict(*stamped, provider=Provider("mx.google.com"))
    assert not too_low.verified
    assert "1 stand below" in too_low.reason
    assert not verdict(*stamped[:2], "Received: from home by x", stamped[2], provider=gmail).verified


@pytest.mark.parametrize(
    "sender",
    ["From: ana@proveedores.example, b@evil.example", f"{FROM}\r\nFrom: b@evil.example", "From: nobody", "X: y"],
)
def test_a_mail_without_exactly_one_sender_is_not_verified(sender):
    assert verdict(results("dmarc=pass"), RECEIVED, sender=sender).reason == "the mail has not exactly one sender"


@given(st.lists(st.sampled_from(["dmarc", "=", "pass", ";", "(", ")", '"', "\\", " ", "mx.idom.example", "\r\n "])))
def test_noise_is_no_crash(words):
    verdict("Authentication-Results: " + "".join(words), RECEIVED)


def test_a_long_header_costs_little():
    start = time.process_time()
    for sign in '("; =\\':
        verdict(results(sign * 60_000), RECEIVED)
    assert time.process_time() - start < 2
