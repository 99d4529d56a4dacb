"""Settings: what the environment may say, and how a wrong variable is named without its secret."""

from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from nova_pipelines.domain.errors import ConfigurationError
from nova_pipelines.settings import Settings, load_settings


@pytest.fixture
def environment(monkeypatch, tmp_path):
    for name, field in Settings.model_fields.items():
        monkeypatch.delenv(str(field.validation_alias or name).upper(), raising=False)
    monkeypatch.chdir(tmp_path)

    def load(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return load_settings()

    return load


def refusal(environment, **variables):
    with pytest.raises(ConfigurationError) as caught:
        environment(**variables)
    # a traceback must not show the values either
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return str(caught.value)


def test_defaults(environment, tmp_path):
    settings = environment()
    assert settings.nova_home == tmp_path / ".nova"
    assert settings.database_url == f"sqlite:///{tmp_path}/.nova/nova.db"
    assert settings.facturas_database_url == f"sqlite:///{tmp_path}/.nova/facturas.db"
    assert settings.documents_url == f"{tmp_path}/.nova/documents"
    assert settings.sandbox == "local"
    assert settings.secret_keys == []
    assert (settings.port, settings.log_level, settings.nova_max_batch) == (3000, "INFO", 50)
    assert (settings.nova_max_mail_bytes, settings.nova_run_max_seconds) == (52428800, 3600)
    assert (settings.nova_retry_delay_seconds, settings.nova_max_retries) == (10, 3)
    assert (settings.gmail_imap, settings.gmail_smtp) == (("imap.gmail.com", 993), ("smtp.gmail.com", 587))
    assert list(tmp_path.iterdir()) == []  # nothing is made


def test_an_empty_variable_counts_as_unset(environment):
    settings = environment(PORT="", DATABASE_URL="", E2B_API_KEY="", NOVA_SANDBOX="", NOVA_SECRET_KEY="")
    assert (settings.port, settings.sandbox, settings.secret_keys) == (3000, "local", [])


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgres://u:p@h/n", "postgresql+psycopg2://u:p@h/n"),
        ("postgresql://u:p%40x@h:5433/n?sslmode=require", "postgresql+psycopg2://u:p%40x@h:5433/n?sslmode=require"),
        ("postgresql+psycopg2://u@h/n", "postgresql+psycopg2://u@h/n"),
        ("sqlite:////var/nova.db", "sqlite:////var/nova.db"),
    ],
)
def test_database_urls_name_their_driver(environment, given, used):
    assert environment(DATABASE_URL=given).database_url == used


def test_relative_files_become_absolute(environment, tmp_path):
    settings = environment(DATABASE_URL="sqlite:///here.db", NOVA_HOME="~/nova")
    assert settings.database_url == f"sqlite:///{tmp_path}/here.db"
    assert settings.nova_home == Path.home() / "nova"


@pytest.mark.parametrize(
    "url",
    [
        "hunter2",
        "mysql://u:hunter2@h/n",
        "postgresql://u:hunter2@h",
        "postgresql://u:hunter2@h:port/n",
        "postgresql+asyncpg://u:hunter2@h/n",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
def test_wrong_database_urls(environment, url):
    message = refusal(environment, FACTURAS_DATABASE_URL=url)
    assert "FACTURAS_DATABASE_URL: " in message
    assert "hunter2" not in message


def test_the_two_databases_are_two(environment):
    url = "postgresql://u:hunter2@h/n"
    message = refusal(environment, DATABASE_URL=url, FACTURAS_DATABASE_URL=url.replace("postgresql", "postgres"))
    assert "FACTURAS_DATABASE_URL: names the same database" in message
    assert "hunter2" not in message


def test_every_wrong_variable_is_listed_at_once(environment):
    message = refusal(
        environment,
        PORT="0",
        NOVA_MAX_BATCH="many",
        LOG_LEVEL="loud",
        NOVA_SECRET_KEY="hunter2",
        E2B_API_KEY="hunter2",
        NOVA_SANDBOX="docker",
        NOVA_MAX_RETRIES="-1",
        GMAIL_IMAP_SERVER="imap.gmail.com:x",
    )
    assert message.startswith("8 environment variables are wrong")
    for name in (
        "PORT",
        "NOVA_MAX_BATCH",
        "LOG_LEVEL",
        "NOVA_SECRET_KEY",
        "E2B_API_KEY",
        "NOVA_SANDBOX",
        "NOVA_MAX_RETRIES",
        "GMAIL_IMAP_SERVER",
    ):
        assert f"\n  {name}: " in message
    assert "'many'" in message  # what is no secret is shown
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("PORT", "0", "65536"),
        ("NOVA_MAX_BATCH", "0", "1001"),
        ("NOVA_MAX_RETRIES", "-1", "21"),
        ("NOVA_RETRY_DELAY_SECONDS", "-1", "nan"),
        ("NOVA_RUN_MAX_SECONDS", "0", "inf"),
        ("NOVA_MAX_MAIL_BYTES", "1", "x"),
    ],
)
def test_bounds(environment, name, low, high):
    assert f"{name}: " in refusal(environment, **{name: low})
    assert f"{name}: " in refusal(environment, **{name: high})


def test_the_sandbox_follows_the_key_unless_told(environment):
    assert environment(E2B_API_KEY="e2b_x").sandbox == "e2b"
    assert environment(NOVA_SANDBOX="local").sandbox == "local"
    assert environment(NOVA_SANDBOX="unsafe-subprocess").sandbox == "unsafe-subprocess"
    assert environment(NOVA_SANDBOX="e2b").sandbox == "e2b"


def test_e2b_needs_its_key(environment):
    assert "NOVA_SANDBOX: e2b needs E2B_API_KEY" in refusal(environment, NOVA_SANDBOX="e2b")


def test_the_default_mailbox(environment):
    settings = environment(
        GMAIL_EMAIL="a@gmail.com", GMAIL_APP_PASSWORD="abcd efgh ijkl mnop", GMAIL_IMAP_SERVER="localhost:1143"
    )
    assert settings.gmail_app_password.get_secret_value() == "abcdefghijklmnop"
    assert settings.gmail_imap == ("localhost", 1143)


def test_a_mailbox_without_its_password(environment):
    assert "GMAIL_APP_PASSWORD" in refusal(environment, GMAIL_EMAIL="a@gmail.com")


def test_keys_are_split_in_order(environment):
    first, second = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    assert environment(NOVA_SECRET_KEY=f"{first}, {second},").secret_keys == [first, second]
    message = refusal(environment, NOVA_SECRET_KEY=f"{first},{second[:-2]}")
    assert "key 2 is not a Fernet key; make one with: python" in message
    assert first not in message


def test_no_secret_is_shown(environment):
    key = Fernet.generate_key().decode()
    settings = environment(
        DATABASE_URL="postgresql://u:hunter2@h/n",
        FACTURAS_DATABASE_URL="postgresql://u:hunter2@h/m",
        REDIS_URL="redis://:hunter2@h/0",
        E2B_API_KEY="e2b_hunter2",
        NOVA_SECRET_KEY=key,
        GMAIL_EMAIL="a@gmail.com",
        GMAIL_APP_PASSWORD="hunter2",
        NOVA_DOCUMENTS_URL="s3://key:hunter2@bucket",
    )
    for text in (repr(settings), str(settings), settings.model_dump_json()):
        assert "hunter2" not in text
        assert key not in text


def test_alerts_need_addresses_that_can_be(environment):
    mail = {"NOVA_ALERT_MAIL_TO": "ana@example.com, luis@example.com"}
    settings = environment(**mail, NOVA_ALERT_SMTP_URL="smtp://u:hunter2@h:587?from=a@b.c")
    assert (settings.nova_alert_silent_minutes, settings.nova_alert_remind_hours) == (15, 6)
    assert "hunter2" not in repr(settings)
    both = "NOVA_ALERT_MAIL_TO: needs NOVA_ALERT_SMTP_URL or NOVA_ALERT_SMTP_CLIENT, one of the two"
    assert both in refusal(environment, NOVA_ALERT_SMTP_CLIENT="idom")
    assert both in refusal(environment, NOVA_ALERT_SMTP_CLIENT="", NOVA_ALERT_SMTP_URL="")
    assert "'ana' is no mail address" in refusal(environment, NOVA_ALERT_MAIL_TO="ana")


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("NOVA_ALERT_WEBHOOK_URL", "file:///etc/hunter2"),
        ("NOVA_ALERT_WEBHOOK_URL", "https://"),
        ("NOVA_ALERT_WEBHOOK_URL", "https://h:99999/hunter2"),
        ("NOVA_ALERT_WEBHOOK_URL", "https://h/hunter2\r\nX: y"),
        ("NOVA_ALERT_SMTP_URL", "https://u:hunter2@h"),
        ("NOVA_ALERT_SMTP_URL", "smtp:hunter2"),
    ],
)
def test_addresses_of_alerts_are_checked_and_not_shown(environment, name, url):
    message = refusal(environment, **{name: url})
    assert f"{name}: must be" in message
    assert "hunter2" not in message
