"""Who is answered, in which thread, how often; and what a person decides. A real mailbox, a real SMTP server."""

from __future__ import annotations

from typing import Any

from nova_pipelines.compiler.audit import verify_chains
from nova_pipelines.database.clients import add_client, set_credential
from nova_pipelines.database.outbox import asking, resolve
from nova_pipelines_tests.fixtures.world import SENDER, World

NODES: list[dict[str, Any]] = [
    {"id": "start", "type": "start"},
    {"id": "fetch", "type": "mail_fetch"},
    {"id": "answer", "type": "send_mail", "template": "no_pdf"},
    {"id": "end", "type": "end"},
]
ANSWERS = {
    "name": "Answers",
    "trigger": {"mailbox": {"folder": "INBOX", "then": "mark_as_read"}},
    "nodes": NODES,
    "edges": [
        {"from": "start", "to": "fetch"},
        {"from": "fetch", "to": "answer"},
        {"from": "answer", "to": "end"},
    ],
}


def outcomes(world: World) -> list[tuple[str, str | None, str]]:
    """Status, what was done, and what the chain of work says about the answer, of each execution."""
    return [
        (row.status, (row.result or {}).get("action_taken"), world.chain(row.id)[2].decision_result or "")
        for row in world.executions()
    ]


def test_a_person_is_answered_in_the_thread_at_the_address_that_was_asked_for(world: World):
    long = f"<{'x' * 90}@proveedores.example>"
    mail = world.mail(
        sender=f"Ana Núñez <{SENDER}>",
        subject="Factura\tnº 7",
        Message_ID="<7@proveedores.example>",
        Reply_To="contabilidad@proveedores.example",
    )
    # by hand: the stdlib would encode the long id
    world.user.deliver(f"References: <1@proveedores.example>\r\n {long}\r\n".encode() + mail.as_bytes())
    world.deliver(sender=f"Ana Núñez <{SENDER}>", Message_ID="<8@proveedores.example>")
    assert world.run(world.publish(ANSWERS)).success
    other, answer = sorted(world.sink.messages, key=lambda mail: mail.recipients[0])
    assert answer.recipients == ["contabilidad@proveedores.example"]
    assert answer.sender == "facturas@idom.example"  # the return path: bounces come to the mailbox
    assert answer.message["In-Reply-To"] == "<7@proveedores.example>"
    assert answer.message["References"].split() == ["<1@proveedores.example>", long, "<7@proveedores.example>"]
    assert answer.message["Subject"] == "Re: Factura nº 7"
    assert answer.message["To"] == "contabilidad@proveedores.example"  # not called as somebody else
    assert str(other.message["To"]) == f"Ana Núñez <{SENDER}>"
    assert str(answer.message["From"]) == "IDOM <facturas@idom.example>"


def test_machines_and_our_own_mailboxes_are_not_answered(world: World):
    with world.services.databases.nova.session() as session:
        other = add_client(session, name="Other", slug="other")
        settings = {"imap_host": "x", "user": "buzon@proveedores.example"}
        secret = {"password": "other-password"}
        set_credential(session, world.services.box(), other, "email", settings=settings, secret=secret)
    mails: list[tuple[str, dict[str, Any]]] = [
        ("Auto-Submitted", {"Auto_Submitted": "auto-generated"}),
        ("bounce", {"Return_Path": "<>"}),
        ("List-Id", {"List_Id": "<a.proveedores.example>"}),
        ("nobody reads no-reply", {"sender": "no-reply@proveedores.example"}),
        ("nobody reads MAILER", {"Reply_To": "MAILER-DAEMON@proveedores.example"}),
        ("facturas@idom.example is a mailbox", {"Reply_To": "Facturas@IDOM.example"}),
        ("buzon@proveedores.example is a mailbox", {"sender": "buzon@proveedores.example"}),
        ("came back", {"X_Loop": "nova-pipelines"}),
    ]
    for number, (_, fields) in enumerate(mails):
        world.deliver(subject=f"Mail {number}", Message_ID=f"<{number}@proveedores.example>", **fields)
    assert world.run(world.publish(ANSWERS)).success
    assert world.sink.messages == []
    assert world.outbox() == []
    for (words, _), (status, taken, said) in zip(mails, outcomes(world), strict=True):
        assert (status, taken) == ("completed", "email_not_sent")
        assert words in said


def test_a_loop_with_a_machine_that_does_not_say_so_ends(world: World):
    """It answers every mail, as a person would, and keeps the thread. Ours go out a few times, and then no more."""
    compiled = world.publish(ANSWERS)
    world.deliver(Message_ID="<0@proveedores.example>")
    for number in range(1, 5):
        assert world.run(compiled).success
        if len(world.sink.messages) < number:
            break
        ours = world.sink.messages[-1].message
        thread = f"{ours['References']} {ours['Message-ID']}"
        world.deliver(Message_ID=f"<{number}@proveedores.example>", References=thread, In_Reply_To=ours["Message-ID"])
    assert len(world.sink.messages) == 3
    assert "answered 3 times in this thread" in outcomes(world)[-1][2]


def test_two_mailboxes_of_nova_do_not_write_to_each_other(world: World):
    """What one installation sends, another one knows as a machine's."""
    compiled = world.publish(ANSWERS)
    world.deliver(Message_ID="<0@proveedores.example>")
    assert world.run(compiled).success
    (ours,) = world.sink.messages
    raw = ours.raw.replace(b"facturas@idom.example", b"facturas@proveedores.example")  # as if another one had sent it
    world.user.deliver(raw)
    assert world.run(compiled).success
    assert len(world.sink.messages) == 1
    assert outcomes(world)[-1][:2] == ("completed", "email_not_sent")


def few_answers(world: World, hour: int = 2) -> None:
    world.settings = world.settings.model_copy(update={"nova_mail_answers_per_hour": hour})


def test_who_was_answered_too_often_waits_for_a_person_and_nothing_is_lost(world: World):
    few_answers(world)
    compiled = world.publish(ANSWERS)
    for number in range(5):
        sender = SENDER if number < 4 else "otra@proveedores.example"
        world.deliver(subject=f"Mail {number}", sender=sender.upper() if number == 1 else sender)
    assert world.run(compiled).success  # what waits for a person is no failure
    assert len(world.sink.messages) == 3
    assert [row.status for row in world.outbox()] == ["sent", "sent", "held", "held", "sent"]
    assert [row.status for row in world.executions()] == ["completed"] * 2 + ["needs_review"] * 2 + ["completed"]
    held = world.executions()[2]
    assert "was answered 2 times within the last hour" in (held.error or "")
    assert "nova outbox resolve 3" in (held.error or "")
    assert world.result(3)["action_taken"] == "email_held"

    nova = world.services.databases.nova
    with nova.session() as session:
        assert asking(session)["held"] == [3, 4]
        assert resolve(session, 3, "resend", by="eva", note="a big supplier").goes_on
        assert resolve(session, 4, "drop", by="eva").goes_on
    assert world.run(compiled, executions=[3, 4]).success
    assert [mail.message["Subject"] for mail in world.sink.messages[3:]] == ["Re: Mail 2"]
    assert [(row.status, row.attempts) for row in world.outbox()][2:4] == [("sent", 1), ("dropped", 0)]
    assert [world.result(number)["action_taken"] for number in (3, 4)] == ["email_sent", "email_dropped"]
    assert world.chain(4)[-2].decision_result == "eva said that it is not to be sent"
    assert verify_chains(nova).intact


def test_mails_to_a_fixed_address_are_not_counted(world: World):
    few_answers(world, hour=1)
    to = [*NODES[:2], NODES[2] | {"to": "contabilidad@idom.example"}, NODES[3]]
    compiled = world.publish(ANSWERS | {"nodes": to})
    for number in range(2):
        world.deliver(subject=f"Mail {number}", Auto_Submitted="auto-generated")
    assert world.run(compiled).success
    assert [mail.recipients for mail in world.sink.messages] == [["contabilidad@idom.example"]] * 2
    assert world.sink.messages[0].message["Auto-Submitted"] == "auto-generated"
    assert world.sink.messages[0].message["In-Reply-To"] is None


def test_a_broken_address_leaves_no_mail_in_doubt(world: World):
    broken = [*NODES[:2], NODES[2] | {"to": "a@b@proveedores.example"}, NODES[3]]
    world.deliver()
    assert not world.run(world.publish(ANSWERS | {"nodes": broken})).success
    assert [row.status for row in world.executions()] == ["failed"]
    assert [(row.status, "no mail address" in (row.error or "")) for row in world.outbox()] == [("failed", True)]
