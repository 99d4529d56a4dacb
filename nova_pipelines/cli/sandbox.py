"""`nova sandbox …`: the cloud sandbox's breaker, limits and sessions, its reaper, its template."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nova_pipelines.cli.output import JsonFlag, emit, moment, note, pairs, say, table
from nova_pipelines.cli.session import open_nova
from nova_pipelines.database.breaker import BreakerView, breaker_view
from nova_pipelines.database.sandboxes import maybe_alive
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import ConfigurationError
from nova_pipelines.settings import Settings, load_settings

if TYPE_CHECKING:
    from nova_pipelines.adapters.sandbox.e2b import E2BSandbox

app = typer.Typer(help="The sandbox of node code: state, orphans, template.", no_args_is_help=True)
template_app = typer.Typer(help="The E2B template with what nodes import.", no_args_is_help=True)
app.add_typer(template_app, name="template")


@app.command()
def status(as_json: JsonFlag = False) -> None:
    """Show which sandbox is in force, E2B's circuit breaker, its limits and the sessions that may still run."""
    settings = load_settings()
    with open_nova(settings) as nova, nova.read() as session:
        breaker = breaker_view(
            session,
            "e2b",
            threshold=settings.nova_e2b_breaker_failures,
            seconds=settings.nova_e2b_breaker_seconds,
        )
        names = ("sandbox_id", "run_id", "created_at", "alive_until", "released_at")
        rows = [{name: getattr(row, name) for name in names} for row in maybe_alive(session, utc_now())]
    if as_json:
        emit(_facts(settings, breaker) | {"sessions": rows})
        return
    pairs(
        [
            ("sandbox", settings.sandbox),
            ("template", settings.e2b_template_id or "base"),
            ("breaker", _breaker_text(breaker)),
            ("sessions", f"{len(rows)} of {settings.nova_e2b_max_sandboxes}"),
            ("creates", f"{settings.nova_e2b_creates_per_second:g} a second"),
        ]
    )
    if rows:
        table(
            ("sandbox", "run", "since (UTC)", "lives until (UTC)", "given up (UTC)"),
            [
                (
                    row["sandbox_id"] or "being made",
                    row["run_id"],
                    moment(row["created_at"]),
                    moment(row["alive_until"]),
                    moment(row["released_at"]),
                )
                for row in rows
            ],
        )


def _facts(settings: Settings, breaker: BreakerView) -> dict[str, Any]:
    return {
        "sandbox": settings.sandbox,
        "template": settings.e2b_template_id,
        "breaker": asdict(breaker) | {"is_healthy": breaker.is_healthy},
        "max_sandboxes": settings.nova_e2b_max_sandboxes,
        "creates_per_second": settings.nova_e2b_creates_per_second,
    }


def _breaker_text(breaker: BreakerView) -> str:
    text = f"{breaker.state}, {breaker.failure_count} of {breaker.failure_threshold} failures in a row"
    return text if breaker.is_healthy else f"{text}; the next try is after {moment(breaker.opens_again_at)} UTC"


@app.command()
def reap(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be ended.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """End E2B sandboxes of this installation that no session works in. Exit code 1 if one could not be ended.

    The sensor `sandbox_reaper_sensor` does the same every five minutes, and for runs that are over.
    """
    from nova_pipelines.nodes.reaping import reap as end_orphans

    settings = load_settings()
    cloud = _cloud(settings)
    with open_nova(settings) as nova:
        verdicts = end_orphans(nova, cloud, dry_run=dry_run)
    orphans = [verdict for verdict in verdicts if verdict.reason]
    if as_json:
        emit({"dry_run": dry_run, "sandboxes": [asdict(one) | {"action": _action(one, dry_run)} for one in verdicts]})
    else:
        if verdicts:
            table(
                ("sandbox", "run", "since (UTC)", "what", "why"),
                [
                    (one.sandbox_id, one.run_id, moment(one.started_at), _action(one, dry_run), one.error or one.reason)
                    for one in verdicts
                ],
            )
        would = "would be ended" if dry_run else "to be ended"
        say(f"{len(verdicts)} sandboxes of this installation are running, {len(orphans)} {would}")
    if any(one.error for one in verdicts):
        raise typer.Exit(1)


def _action(verdict: Any, dry_run: bool) -> str:
    return "would end" if dry_run and verdict.reason else str(verdict.action)


def _cloud(settings: Settings) -> "E2BSandbox":
    from nova_pipelines.adapters.sandbox.e2b import E2BSandbox

    return E2BSandbox(api_key=_key(settings), template=settings.e2b_template_id)


def _key(settings: Settings) -> str:
    if settings.e2b_api_key is None:
        raise ConfigurationError("this command speaks to E2B and needs a key", remedy="set E2B_API_KEY")
    return settings.e2b_api_key.get_secret_value()


@template_app.command()
def build(
    name: Annotated[str, typer.Option("--name", help="Name of the template in the E2B account.")] = "nova-pipelines",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print it as a Dockerfile, build nothing.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Build the template in the E2B account: packages in NOVA's versions, and NOVA's guest runner."""
    from nova_pipelines.adapters.sandbox import e2b_template

    if dry_run:
        text = _dockerfile()
        if as_json:
            emit({"name": name, "dockerfile": text})
        else:
            say(text)
        return
    settings = load_settings()
    built = e2b_template.build(
        _key(settings),
        name,
        vcpus=int(settings.nova_e2b_vcpus),
        memory_mib=int(settings.nova_e2b_memory_gib * 1024),
        tell=note,
    )
    if as_json:
        emit(asdict(built))
        return
    say(f"built {built.name}: set E2B_TEMPLATE_ID={built.template_id}")


def _dockerfile() -> str:
    from nova_pipelines.adapters.sandbox import e2b_template

    try:
        return e2b_template.dockerfile()
    except ImportError as error:
        raise ConfigurationError(
            "the E2B template needs the package e2b", remedy="pip install nova-pipelines[e2b]"
        ) from error
