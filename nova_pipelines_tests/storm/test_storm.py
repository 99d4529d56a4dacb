"""Mails come in while programs are killed, servers are away and lines are cut. In the end every mail is done, each
with exactly one row or one answer, and no chain is broken. The long ones: `make storm`."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from email.message import EmailMessage
from pathlib import Path

import pytest

from nova_pipelines_tests.deploy.stack import wait_until
from nova_pipelines_tests.end_to_end.test_server_profile import _add_client, _free_ports, _rows
from nova_pipelines_tests.fixtures.dovecot import require_dovecot
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, invoice_pdf
from nova_pipelines_tests.storm.weather import Storm, Town, town

#: what is mailed, by turns: a low amount (a row), a high one (a row and an answer), no document (an answer)
KINDS = ("low", "high", "none")


def mail(number: int) -> EmailMessage:
    kind = KINDS[number % len(KINDS)]
    message = EmailMessage()
    # each from another address: one alone is not answered so often
    message["From"], message["To"] = f"ana{number}@proveedores.example", "facturas@idom.example"
    message["Subject"] = f"Factura {number} {kind}"
    message["Message-ID"] = f"<storm-{number}@proveedores.example>"
    message.set_content("Adjunto la factura.")
    if kind != "none":
        net = number + 1 if kind == "low" else 20_000 + number
        pdf = invoice_pdf(str(net * Decimal("1.21")), number=f"S-{number:04}")
        message.add_attachment(pdf, maintype="application", subtype="pdf", filename=f"{number}.pdf")
    return message


def blow(weather: Storm, mails: int, blows: int) -> None:
    """The mails come in portions, and between them the blows fall."""
    names = weather.order(blows)
    portions = [round(mails * turn / blows) for turn in range(blows + 1)]
    for name, begin, end in zip(names, portions[:-1], portions[1:], strict=True):
        weather.town.user.deliver_all([mail(number) for number in range(begin, end)])
        weather.pause(2.0)
        weather.strike(name)


def decided_by_a_person(town: Town) -> int:
    """What a crash hides is for a person, who looks whether the mail has come. Returns how many there were."""
    unknown = json.loads(town.stack.run("code", ["nova", "outbox", "list", "--status", "unknown", "--json"]))
    arrived = {received.message["Message-ID"] for received in town.sink.messages}
    for row in unknown:
        what = "--sent" if row["message_id"] in arrived else "--resend"
        town.stack.run("code", ["nova", "outbox", "resolve", str(row["id"]), what, "--note", "looked at the server"])
    return len(unknown)


def settled(town: Town, mails: int) -> bool:
    town.keep_alive()
    done = Counter(row[0] for row in _rows(town.stack, "nova", "SELECT status FROM executions"))
    if done["unknown"]:
        decided_by_a_person(town)
    return done["completed"] == mails == done.total()


def storm(folder: Path, *, seed: int, mails: int, blows: int, patience: float, watchers: int = 1) -> None:
    require_dovecot()
    with town(folder, _free_ports()) as here:
        here.watchers = tuple(["watch", "watch2"][:watchers])
        here.stack.run("migrate")
        add_client(here)
        here.stack.run("code", ["nova", "workflow", "load", str(INVOICE_PROCESSING)])
        here.start()
        here.stack.wait_healthy("web")
        weather = Storm(here, seed)
        blow(weather, mails, blows)
        try:
            wait_until("every mail is done", lambda: settled(here, mails), seconds=patience, every=2.0)
        except pytest.fail.Exception as failure:
            pytest.fail(f"{failure}\n{state(here)}")
        judge(here, mails)
        print(f"seed {seed}: {dict(sorted(weather.struck.items()))}")  # noqa: T201 - shown with -s


def state(here: Town) -> str:
    """What is not done, and why, for a person who reads a failed test."""
    queries = {
        (
            "nova",
            "executions",
        ): "SELECT id, status, run_id, lost_runs, failed_node, error, requested_at, waits_until FROM executions "
        "WHERE status <> 'completed' ORDER BY id",
        ("nova", "messages"): "SELECT id, uid, message_id, status, attempts, error FROM messages ORDER BY id",
        ("nova", "outbox"): "SELECT id, execution_id, status, attempts, error FROM outbox ORDER BY id",
        ("dagster", "runs"): "SELECT run_id, pipeline_name, status, create_timestamp FROM runs ORDER BY id",
    }
    lines = []
    for (database, name), query in queries.items():
        lines += [f"-- {name}", *(str(tuple(map(str, row))) for row in _rows(here.stack, database, query))]
    return "\n".join(lines)


def judge(here: Town, mails: int) -> None:
    """Each mail once, and nothing else."""
    rows = _rows(here.stack, "facturas", "SELECT invoice_number FROM invoices ORDER BY invoice_number")
    assert [row[0] for row in rows] == [f"S-{n:04}" for n in range(mails) if KINDS[n % 3] != "none"]
    answers = Counter(received.message["In-Reply-To"] for received in here.sink.messages)
    assert answers == {f"<storm-{n}@proveedores.example>": 1 for n in range(mails) if KINDS[n % 3] != "low"}
    ledger = _rows(here.stack, "nova", "SELECT message_id, status FROM messages WHERE status <> 'duplicate'")
    assert Counter(row[0] for row in ledger) == {f"<storm-{n}@proveedores.example>": 1 for n in range(mails)}
    assert {row[1] for row in ledger} == {"assigned"}
    assert "intact" in here.stack.run("code", ["nova", "chain", "verify"])
    wait_until(
        r"every mail is \Seen",
        lambda: len(flags := here.user.flags()) == mails and all("\\Seen" in each for each in flags.values()),
        seconds=120,
    )


def add_client(here: Town) -> None:
    import dataclasses

    class Line:
        host, port = "127.0.0.1", here.lines["smtp"].port

    _add_client(here.stack, dataclasses.replace(here.user, tls_port=here.lines["imap"].port), Line)


@pytest.mark.timeout(300)
def test_a_squall(tmp_path: Path):
    storm(tmp_path, seed=1, mails=9, blows=9, patience=180)


@pytest.mark.storm
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("seed", "watchers"), [(1, 1), (2, 2)])
def test_two_hundred_mails_and_sixty_blows(tmp_path: Path, seed: int, watchers: int):
    storm(tmp_path, seed=seed, mails=200, blows=60, watchers=watchers, patience=900)
