"""The command `nova`: puts the groups of commands together."""

from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from nova_pipelines.cli import (
    approvals,
    audit,
    chain,
    client,
    costs,
    executions,
    invoices,
    keys,
    mailbox,
    outbox,
    run,
    sandbox,
    serve,
    system,
    up,
    users,
    watch,
    webhooks,
    workflow,
)
from nova_pipelines.cli.errors import EXIT_CODES, NovaGroup

app = typer.Typer(
    cls=NovaGroup,
    help="NOVA turns a mailbox full of invoices into decisions and database rows, on Dagster.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nova {installed_version('nova-pipelines')}")
        raise typer.Exit


@app.callback()
def nova(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """NOVA turns a mailbox full of invoices into decisions and database rows, on Dagster."""


app.command()(system.migrate)
app.command()(system.doctor)
app.command()(up.up)
app.command()(watch.watch)
app.command()(system.demo)
app.command()(run.run)
app.command()(costs.costs)
app.add_typer(client.app, name="client")
app.add_typer(workflow.app, name="workflow")
app.add_typer(mailbox.app, name="mailbox")
app.add_typer(executions.app, name="executions")
app.add_typer(chain.app, name="chain")
app.add_typer(approvals.app, name="approvals")
app.add_typer(invoices.app, name="invoices")
app.add_typer(outbox.app, name="outbox")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(sandbox.app, name="sandbox")
app.add_typer(keys.app, name="keys")
app.add_typer(users.app, name="users")
app.add_typer(audit.app, name="audit")
app.add_typer(serve.app, name="serve", hidden=True)


def main() -> None:
    """Entry of the console script."""
    app()


if __name__ == "__main__":
    main()
