"""`mlops audit`: who did what, and whether anyone touched the record."""

from typing import Annotated

import typer

from mlops_platform.cli.console import ExitCode, Printer, command, connect, noun

app = noun("The audit record.")


@command(
    app, "list", examples=["mlops audit list --principal ada --limit 20", "mlops audit list --action model_version.created"]
)
def list_entries(
    out: Printer,
    action: Annotated[str | None, typer.Option(help="Such as model_version.created.")] = None,
    resource: Annotated[str | None, typer.Option()] = None,
    principal: Annotated[str | None, typer.Option()] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 100,
) -> None:
    """List entries, the newest first."""
    with connect() as platform:
        columns = {
            "SEQUENCE": "sequence",
            "TIME": "occurred_at",
            "PRINCIPAL": "principal",
            "ACTION": "action",
            "RESOURCE": "resource",
            "REQUEST": "request_id",
        }
        out.many(platform.admin.audit(action=action, resource=resource, principal=principal, limit=limit), columns)


@command(app, "verify", examples=["mlops audit verify", "mlops audit verify --anchor 120:9f86d081884c7d65"])
def verify(
    out: Printer, anchor: Annotated[str | None, typer.Option(help="A head that was kept elsewhere.")] = None
) -> None:
    """Walk the hash chain: finds an edit, a deletion, a reordering, and with an anchor a cut. Exit code 1 when it does."""
    with connect() as platform:
        found = platform.admin.verify_audit(anchor=anchor)
    out.one(found, name="head")
    if not found.is_intact:
        raise typer.Exit(ExitCode.ERROR)
