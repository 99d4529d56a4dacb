"""The health of mailboxes as Dagster sees it, and the idle day: whatever the network does, nobody is left untold.

Real sensors, a real Dovecot behind a proxy that cuts and swallows, a real mail server and HTTP receiver. Only the
clock is ours: a day passes in steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import select

from nova_pipelines.adapters.imap import MailboxConfig
from nova_pipelines.database import mailboxes
from nova_pipelines.database.clients import add_client, find_client, set_credential
from nova_pipelines.database.mailbox_tables import MailboxState
from nova_pipelines.database.nova import Credential, Message
from nova_pipelines.database.types import utc_now
from nova_pipelines.nodes import services
from nova_pipelines.nodes.services import mailbox_config
from nova_pipelines.orchestration import mailbox_health, sensors
from nova_pipelines.orchestration.mailbox_health import OBSERVE_EVERY, mailbox_health_sensor
from nova_pipelines.settings import load_settings
from nova_pipelines_tests.fixtures.blackhole import Proxy
from nova_pipelines_tests.fixtures.location import load_repository
from nova_pipelines_tests.fixtures.smtp_sink import SmtpSink
from nova_pipelines_tests.fixtures.webhooks import HookServer
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, World, invoice_pdf

#: seconds that a swallowed connection is waited for, in place of 20
GIVEN_UP = 0.2
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@dataclass
class Clock:
    begin: datetime
    now: datetime

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Day:
    """A small NOVA whose sensors are ticked by hand, under its own clock."""

    world: World
    clock: Clock
    proxy: Proxy
    hooks: HookServer
    instance: dg.DagsterInstance
    repository: dg.RepositoryDefinition
    health: dg.SensorDefinition
    cursors: dict[str, str | None] = field(default_factory=dict)

    def tick(self) -> list[Any]:
        """Both sensors once, as the daemon does; the events that the second one reports."""
        self._evaluate(self.repository.get_sensor_def("mailbox_sensor"))
        return list(self._evaluate(self.health).asset_events)

    def _evaluate(self, sensor: dg.SensorDefinition) -> Any:
        context = dg.build_sensor_context(
            instance=self.instance,
            repository_def=self.repository,
            cursor=self.cursors.get(sensor.name),
            sensor_name=sensor.name,
        )
        done = sensor.evaluate_tick(context)
        self.cursors[sensor.name] = done.cursor or self.cursors.get(sensor.name)
        return done

    def told(self) -> list[tuple[str, str]]:
        """What the receiver heard: (event, kind)."""
        return [(alert["event"], alert["kind"]) for call in self.hooks.calls for alert in call.json["alerts"]]

    def set_password(self, password: str) -> None:
        with self.world.services.databases.nova.session() as session:
            credential = session.get_one(Credential, 1)
            box = self.world.services.box()
            set_credential(
                session,
                box,
                find_client(session, "idom"),
                "email",
                settings=credential.settings,
                secret={"password": password},
            )


@pytest.fixture
def day(world: World, smtp_sink: SmtpSink, hooks: HookServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Day]:
    begin = utc_now() + MINUTE
    clock = Clock(begin, begin)
    monkeypatch.setattr(mailboxes, "utc_now", clock)
    for name, value in {
        "MAIL_TO": "ana@consult.example",
        "SMTP_URL": f"smtp://{smtp_sink.host}:{smtp_sink.port}?tls=none&from=nova@consult.example",
        "WEBHOOK_URL": hooks.url,
        "BACKLOG_MINUTES": "10080",  # no run is started here, so that what came in waits
    }.items():
        monkeypatch.setenv(f"NOVA_ALERT_{name}", value)
    world.publish(INVOICE_PROCESSING)
    sensors._services.cache_clear()
    with Proxy("127.0.0.1", world.user.tls_port) as proxy, dg.DagsterInstance.ephemeral() as instance:

        def config(*given: Any) -> MailboxConfig:
            made = mailbox_config(*given)
            return replace(made, timeout_seconds=GIVEN_UP) if proxy.swallowing else made

        monkeypatch.setattr(services, "mailbox_config", config)
        with world.services.databases.nova.session() as session:
            credential = session.get_one(Credential, 1)
            credential.settings = {**credential.settings, "imap_port": proxy.port}
        health = mailbox_health_sensor(sensors._services, load_settings(), now=clock)
        yield Day(world, clock, proxy, hooks, instance, load_repository(), health)
        sensors._services().close()
        sensors._services().databases.close()
    sensors._services.cache_clear()


# ---------------------------------------------------------------- the idle day


class Weather:
    """What happens to the network and the account, hour by hour. `down`: no search can succeed."""

    def __init__(self, day: Day, silent: timedelta) -> None:
        self.day, self.short = day, silent / HOUR / 2
        self.logins: dict[str, int] = {}

    def set(self, passed: timedelta) -> bool:
        """Makes the weather of this moment; returns whether a search can succeed."""
        hour, proxy = passed / HOUR, self.day.proxy
        proxy.refusing = (
            3 <= hour < 4 or 14 <= hour < 14 + self.short
        )  # the server closes every connection; the second time shortly
        proxy.swallowing = 6 <= hour < 8  # a NAT forgot us: connections open, and nothing comes through
        if 10 <= hour < 12 and "expired" not in self.logins:
            self.logins["expired"] = proxy.accepted
            self.day.set_password("expired")
        if hour >= 12 and "renewed" not in self.logins:
            self.logins["renewed"] = proxy.accepted
            self.day.set_password(self.day.world.user.password)
        if hour >= 16:
            proxy.cut()  # whatever is open
        return not (proxy.refusing or proxy.swallowing or 10 <= hour < 12)


@pytest.mark.parametrize(
    ("step", "silent"),
    [
        pytest.param(20 * MINUTE, 45 * MINUTE, id="short"),
        pytest.param(2 * MINUTE, 15 * MINUTE, id="long", marks=[pytest.mark.storm, pytest.mark.timeout(1200)]),
    ],
)
def test_a_day_of_an_idle_mailbox_is_never_silent_without_an_alert(
    day: Day, smtp_sink: SmtpSink, monkeypatch: pytest.MonkeyPatch, step: timedelta, silent: timedelta
):
    monkeypatch.setenv("NOVA_ALERT_SILENT_MINUTES", str(silent / MINUTE))
    day.health = mailbox_health_sensor(sensors._services, load_settings(), now=day.clock)
    weather, last_well, longest = Weather(day, silent), day.clock.begin, timedelta(0)
    while (passed := day.clock.now - day.clock.begin) <= 24 * HOUR:
        well = weather.set(passed)
        if passed == 7 * HOUR:
            day.world.deliver(subject="in the dark")
        day.tick()
        last_well = day.clock.now if well else last_well
        if day.clock.now - last_well > silent:
            longest = max(longest, day.clock.now - last_well)
            # told, and not taken back: on both ways
            assert len(begun(day)) > len(ended(day)), passed
            assert len(smtp_sink.messages) == len(day.hooks.calls) > 0
        day.clock.now += step
    assert longest >= 90 * MINUTE  # or there was nothing to see
    # three troubles longer than the limit, each told once and ended once; the short one was none
    assert begun(day) == ["silent", "silent", "credential"]
    assert sorted(ended(day)) == ["credential", "silent", "silent"]
    assert len(day.told()) == 6
    assert [received.message["Subject"].count("over") for received in smtp_sink.messages] == [0, 1] * 3
    # two hours of a refused password are a handful of logins, and the right one is tried at once
    assert 2 <= weather.logins["renewed"] - weather.logins["expired"] <= 7
    (message,) = day.world.messages()
    assert (message.subject, message.status) == ("in the dark", "assigned")
    with day.world.services.databases.nova.read() as session:
        state = session.scalars(select(MailboxState)).one()
    assert day.clock.now - (state.last_success_at or day.clock.begin) <= step
    assert state.error is None


def begun(day: Day) -> list[str]:
    return [kind for event, kind in day.told() if event == "begin"]


def ended(day: Day) -> list[str]:
    return [kind for event, kind in day.told() if event == "end"]


def test_a_changed_password_is_tried_at_the_next_tick(day: Day):
    day.tick()
    day.set_password("wrong")
    day.tick()
    tried = day.proxy.accepted
    for _ in range(10):  # the sensor's ticks of the next minute
        day.clock.now += timedelta(seconds=6)
        day.tick()
    assert day.proxy.accepted == tried
    day.set_password(day.world.user.password)
    day.tick()
    assert day.proxy.accepted == tried + 1
    with day.world.services.databases.nova.read() as session:
        assert session.scalars(select(MailboxState)).one().last_success_at == day.clock.now


def test_the_sensor_that_reads_may_stop_and_somebody_is_told(day: Day):
    """Its tick hangs, or a person switched it off: the other one tells it."""
    day.tick()
    day.clock.now += 16 * MINUTE
    day._evaluate(day.health)
    assert day.told() == [("begin", "silent")]
    assert "nobody has tried" in day.hooks.calls[0].json["alerts"][0]["message"]


# ---------------------------------------------------------------- observations


def numbers(event: dg.AssetObservation) -> dict[str, Any]:
    return {name: value.value for name, value in event.metadata.items()}


def test_a_mailbox_is_observed_when_something_changed_and_every_ten_minutes(day: Day):
    (first,) = day.tick()
    assert first.asset_key == dg.AssetKey(["mail", "idom"])
    assert (numbers(first)["backlog"], numbers(first)["silent"]) == (0, False)
    assert numbers(first)["last success"] == day.clock.begin.timestamp()
    day.clock.now += MINUTE
    assert day.tick() == []
    day.world.deliver(invoice_pdf("242.00"))
    (changed,) = day.tick()
    assert numbers(changed)["backlog"] == 1
    day.clock.now += OBSERVE_EVERY - MINUTE
    assert day.tick() == []
    day.clock.now += MINUTE
    assert len(day.tick()) == 1
    day.set_password("wrong")
    (refused,) = day.tick()
    assert "refused the login" in numbers(refused)["error"]
    assert day.world.user.password not in numbers(refused)["error"].split()


def test_a_cursor_of_another_version_observes_anew(day: Day):
    for cursor in ("", "nonsense", "[1]", '{"idom": 3}'):
        day.cursors["mailbox_health_sensor"] = cursor
        assert len(day.tick()) == 1


def test_the_mail_of_each_client_stands_above_the_invoice_table(world: World):
    with world.services.databases.nova.session() as session:
        add_client(session, name="No Mail", slug="no-mail")
    graph = load_repository().asset_graph
    assert graph.get(dg.AssetKey("invoices")).parent_keys == {dg.AssetKey(["mail", "idom"])}
    assert not graph.get(dg.AssetKey(["mail", "idom"])).is_materializable
    assert dg.AssetKey(["mail", "no-mail"]) not in graph.get_all_asset_keys()
    assert graph.get(dg.AssetKey("invoices_by_month")).parent_keys == {dg.AssetKey("invoices")}


def test_an_observation_shows_in_dagster(day: Day):
    (event,) = day.tick()
    day.instance.report_runless_asset_event(event)
    record = day.instance.get_latest_data_version_record(mailbox_health.mail_key("idom"))
    assert record is None or record.asset_observation is not None
    records = day.instance.fetch_observations(mailbox_health.mail_key("idom"), limit=1).records
    assert numbers(records[0].asset_observation)["backlog"] == 0
    with day.world.services.databases.nova.read() as session:
        assert session.scalars(select(Message)).all() == []
