"""Whom a machine does not answer: from the headers, and from the address alone."""

from __future__ import annotations

import pytest

from nova_pipelines.adapters.answerable import automatic_reason, thread_of, unanswerable
from nova_pipelines.adapters.mail_headers import parse_headers

OURS = "<nova.7.0123456789abcdef@idom.example>"


def headers(*lines: str):
    return parse_headers(
        ("\r\n".join(["From: ana@x.example", "Message-ID: <1@x.example>", *lines]) + "\r\n\r\n").encode()
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Auto-Submitted: auto-replied (vacation)", "auto-replied"),
        ("Auto-Submitted: auto-generated", "auto-generated"),
        ("Precedence: bulk", "bulk"),
        ("Precedence: List", "list"),
        ("Return-Path: <>", "bounce"),
        ("Content-Type: multipart/report; boundary=q", "bounce"),
        ("List-Id: <news.x.example>", "List-Id"),
        ("List-Unsubscribe: <mailto:x@x.example>", "List-Unsubscribe"),
        ("X-Auto-Response-Suppress: DR, OOF, AutoReply", "Suppress"),
        ("X-Failed-Recipients: b@x.example", "X-Failed-Recipients"),
        ("X-Autoreply: yes", "X-Autoreply"),
        ("X-Loop: nova-pipelines", "X-Loop"),
        (f"References: {OURS} <a@x> {OURS[:-1]}x> {OURS[:-1]}y>", "answered 3 times"),
    ],
)
def test_machines(line: str, words: str):
    assert words in (automatic_reason(headers(line)) or "")


def test_our_own_mail_that_comes_back():
    assert "came back" in (automatic_reason(parse_headers(f"Message-ID: {OURS}\r\n\r\n".encode())) or "")


@pytest.mark.parametrize(
    "line",
    [
        "Auto-Submitted: no",
        "Precedence: first-class",
        "X-Auto-Response-Suppress: DR",
        "Return-Path: <ana@x.example>",
        "X-Loop: somebody@else.example",
        f"In-Reply-To: {OURS}",  # a person who sends the PDF that was missing
        f"References: {OURS} {OURS}",
        "Content-Type: text/plain",
    ],
)
def test_people(line: str):
    assert automatic_reason(headers(line)) is None


@pytest.mark.parametrize(
    "address",
    [
        *("", "<>", "MAILER-DAEMON@x.example", "postmaster@x.example", "no-reply@x.example", "noreply+17@x.example"),
        *("facturas-noreply@x.example", "do_not_reply@x.example", "DoNotReply@x.example", "no.responder@x.example"),
        *("noreply-billing@x.example", "bounces+1=b.example@x.example", "bounce@x.example", "list-request@x.example"),
    ],
)
def test_addresses_that_nobody_reads(address: str):
    assert unanswerable(address)


@pytest.mark.parametrize(
    "address",
    ["ana@x.example", "noemi@x.example", "reply@x.example", "nora.replyson@x.example", "info@noreply.example"],
)
def test_addresses_that_somebody_reads(address: str):
    assert unanswerable(address) is None


def test_a_hostile_local_part_costs_no_time():
    assert unanswerable(("no-" * 60) + "@x.example") is None


@pytest.mark.parametrize(
    ("lines", "thread"),
    [
        ((), ("<1@x.example>",)),
        (("References: <a@x>\r\n <b@x>",), ("<a@x>", "<b@x>", "<1@x.example>")),
        (("In-Reply-To: <p@x>",), ("<p@x>", "<1@x.example>")),
        (("In-Reply-To: <p@x> <q@x>",), ("<1@x.example>",)),
        (("References: <a@x>", "In-Reply-To: <p@x>"), ("<a@x>", "<1@x.example>")),
        (("References: rubbish <a@x> \x00 <>",), ("<a@x>", "<1@x.example>")),
    ],
)
def test_the_thread_of_an_answer(lines: tuple[str, ...], thread: tuple[str, ...]):
    assert thread_of(headers(*lines)) == thread
