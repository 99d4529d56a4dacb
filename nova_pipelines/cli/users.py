"""`nova users …`: people who log in to the web service."""

import sys
from typing import Annotated, Any

import typer

from nova_pipelines.cli.keys import ClientOption, RoleOption
from nova_pipelines.cli.output import JsonFlag, emit, moment, say, table
from nova_pipelines.cli.session import open_nova
from nova_pipelines.domain.errors import ConfigurationError

app = typer.Typer(help="People who log in to the web service.", no_args_is_help=True)

Login = Annotated[str, typer.Argument(metavar="LOGIN", help="Name or mail address with which somebody logs in.")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")]


@app.callback()
def users() -> None:
    """People who log in to the web service."""


@app.command()
def create(
    login: Login,
    role: RoleOption,
    client: ClientOption = None,
    password_stdin: FromStdin = False,
    as_json: JsonFlag = False,
) -> None:
    """Let a person in, with a password of at least 12 characters, which is asked for."""
    from nova_pipelines.database.audit_log import record_command
    from nova_pipelines.database.users import create_user, hash_password

    hashed = hash_password(_password(password_stdin))
    with open_nova() as nova, nova.session() as session:
        user = create_user(session, login=login, password_hash=hashed, role=role.value, clients=client or None)
        record_command(session, "users.create", f"{user.login} {user.role}")
        shown = describe(user)
    _tell(shown, f"user {shown['login']} made", as_json)


@app.command("list")
def list_(as_json: JsonFlag = False) -> None:
    """List everybody who may log in."""
    from nova_pipelines.database.users import list_users as all_users

    with open_nova() as nova, nova.read() as session:
        rows = [describe(user) for user in all_users(session)]
    if as_json:
        emit(rows)
        return
    table(
        ("login", "role", "clients", "active", "logs in by", "last login (UTC)"),
        [
            (
                row["login"],
                row["role"],
                "all" if row["clients"] is None else ", ".join(row["clients"]),
                "yes" if row["is_active"] else "no",
                row["issuer"] or "password",
                moment(row["last_login_at"]),
            )
            for row in rows
        ],
    )


@app.command()
def disable(login: Login, as_json: JsonFlag = False) -> None:
    """Let somebody in no more: their sessions end at once."""
    _set_active(login, False, as_json)


@app.command()
def enable(login: Login, as_json: JsonFlag = False) -> None:
    """Let somebody in again."""
    _set_active(login, True, as_json)


def _set_active(login: str, active: bool, as_json: bool) -> None:
    from nova_pipelines.database.audit_log import record_command
    from nova_pipelines.database.users import find_user, set_active

    with open_nova() as nova, nova.session() as session:
        user = find_user(session, login)
        set_active(session, user, active)
        record_command(session, "users.enable" if active else "users.disable", user.login)
        shown = describe(user)
    _tell(shown, f"user {shown['login']} {'may log in again' if active else 'is disabled'}", as_json)


@app.command()
def password(login: Login, password_stdin: FromStdin = False, as_json: JsonFlag = False) -> None:
    """Give somebody a new password: their sessions end, and a lock after failed logins is taken away."""
    from nova_pipelines.database.audit_log import record_command
    from nova_pipelines.database.login_attempts import forget
    from nova_pipelines.database.users import find_user, hash_password, set_password

    with open_nova() as nova:
        with nova.read() as session:
            find_user(session, login)  # before a person is asked
        hashed = hash_password(_password(password_stdin))
        with nova.session() as session:
            user = find_user(session, login)
            set_password(session, user, hashed)
            forget(session, user.login)
            record_command(session, "users.password", user.login)
            shown = describe(user)
    _tell(shown, f"user {shown['login']} has a new password", as_json)


def describe(user: Any) -> dict[str, Any]:
    """A person as plain data, without the password's hash."""
    names = ("id", "login", "role", "clients", "is_active", "issuer", "created_at", "updated_at", "last_login_at")
    return {name: getattr(user, name) for name in names}


def _tell(shown: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        emit(shown)
    else:
        say(text)


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.read(10_000).rstrip("\r\n")
    if not _has_terminal():
        raise ConfigurationError("there is no terminal to ask for the password", remedy="give --password-stdin")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


def _has_terminal() -> bool:
    return sys.stdin.isatty()
