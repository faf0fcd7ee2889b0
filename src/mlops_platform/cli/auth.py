"""`mlops auth`: who may come in."""

from typing import Annotated

import typer

from mlops_platform.cli.console import Printer, command, confirm, connect, noun

app = noun("Identity: keys, tokens, roles.")
key = noun("API keys.")
token = noun("Service tokens.")
app.add_typer(key, name="key")
app.add_typer(token, name="token")

KeyId = Annotated[str, typer.Argument(help="The key's id.", show_default=False)]
Scopes = Annotated[list[str], typer.Option("--scope", help="Narrow it, such as models:read; again for each.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Limit = Annotated[int, typer.Option(help="How many at most.", min=1)]
SHOWN_ONCE = "This is the only time that it is shown: keep it in a safe place."


@command(app, "whoami", examples=["mlops auth whoami"])
def whoami(out: Printer) -> None:
    """Show who the platform takes you for, and what you may do."""
    with connect() as platform:
        out.one(platform.admin.whoami(), name="principal")


@command(
    key,
    "create",
    examples=["mlops auth key create 'laptop of Ada'", "mlops auth key create ci --principal ci --role contributor"],
)
def create_key(
    out: Printer,
    name: Annotated[str, typer.Argument(help="What it is for.", show_default=False)],
    principal: Annotated[str | None, typer.Option(help="Whose key; absent: your own.")] = None,
    kind: Annotated[str | None, typer.Option(help="user or service, when the principal is made.")] = None,
    role: Annotated[str | None, typer.Option(help="viewer, contributor, promoter, admin or service.")] = None,
    scope: Scopes = [],  # noqa: B006  # typer copies it
    expires_in_days: Annotated[int | None, typer.Option(help="Absent: 90 days.", min=1)] = 90,
    never_expires: Annotated[bool, typer.Option("--never-expires")] = False,
) -> None:
    """Make an API key. Its secret is shown once."""
    with connect() as platform:
        days = None if never_expires else expires_in_days
        made = platform.admin.create_key(
            name, principal=principal, kind=kind, role=role, scopes=scope or None, expires_in_days=days
        )
        out.one(made, name="key")
    out.say(SHOWN_ONCE)


@command(key, "list", examples=["mlops auth key list"])
def list_keys(out: Printer, limit: Limit = 100) -> None:
    """List keys, without their secrets."""
    with connect() as platform:
        columns = {
            "ID": "id",
            "NAME": "name",
            "PRINCIPAL": "principal",
            "KEY": "hint",
            "EXPIRES": "expires_at",
            "LAST USED": "last_used_at",
            "REVOKED": "revoked_at",
        }
        out.many(platform.admin.api_keys(limit=limit), columns)


@command(key, "rotate", examples=["mlops auth key rotate 0198c0ffee00700080000000deadbeef --overlap-seconds 3600"])
def rotate_key(
    out: Printer,
    key_id: KeyId,
    overlap_seconds: Annotated[int | None, typer.Option(help="How long the old key goes on; absent: a day.", min=0)] = None,
) -> None:
    """Make a successor for a key; the old one goes on for a while."""
    with connect() as platform:
        out.one(platform.admin.rotate_key(key_id, overlap_seconds=overlap_seconds), name="key")
    out.say(SHOWN_ONCE)


@command(key, "revoke", examples=["mlops auth key revoke 0198c0ffee00700080000000deadbeef --yes"])
def revoke_key(out: Printer, key_id: KeyId, yes: Yes = False) -> None:
    """End a key now, everywhere within five seconds."""
    confirm(f"Revoke the key {key_id}?", yes=yes)
    with connect() as platform:
        platform.admin.revoke_key(key_id)
    out.say(f"The key {key_id} is revoked.")


@command(token, "create", examples=["mlops auth token create nightly --ttl-seconds 3600 -q"])
def create_token(
    out: Printer,
    name: Annotated[str, typer.Argument(help="What it is for.", show_default=False)],
    principal: Annotated[str | None, typer.Option(help="Whose token; absent: your own.")] = None,
    scope: Scopes = [],  # noqa: B006
    on_behalf_of: Annotated[str | None, typer.Option(help="The end user.")] = None,
    ttl_seconds: Annotated[int | None, typer.Option(help="Absent: an hour.", min=60)] = None,
) -> None:
    """Make a short-lived service token."""
    with connect() as platform:
        made = platform.admin.create_token(
            name, principal=principal, scopes=scope or None, on_behalf_of=on_behalf_of, ttl_seconds=ttl_seconds
        )
        out.one(made, name="token")


@command(token, "revoke", examples=["mlops auth token revoke 0198c0ffee00700080000000deadbeef --yes"])
def revoke_token(
    out: Printer, token_id: Annotated[str, typer.Argument(help="The token's id.", show_default=False)], yes: Yes = False
) -> None:
    """End a token now, everywhere within five seconds."""
    confirm(f"Revoke the token {token_id}?", yes=yes)
    with connect() as platform:
        platform.admin.revoke_token(token_id)
    out.say(f"The token {token_id} is revoked.")


@command(app, "grant", examples=["mlops auth grant ada contributor", "mlops auth grant bob promoter --pattern 'fraud-*'"])
def grant(
    out: Printer,
    principal: Annotated[str, typer.Argument(help="Who; made when absent.", show_default=False)],
    role: Annotated[str, typer.Argument(help="viewer, contributor, promoter, admin or service.", show_default=False)],
    pattern: Annotated[str | None, typer.Option(help="Only for resources whose name matches.")] = None,
    kind: Annotated[str | None, typer.Option(help="user or service, when the principal is made.")] = None,
) -> None:
    """Give a role in this project."""
    with connect() as platform:
        out.one(platform.admin.grant(principal, role, pattern=pattern, kind=kind), name="id")


@command(app, "grants", examples=["mlops auth grants"])
def list_grants(out: Printer, limit: Limit = 100) -> None:
    """List who has which role in this project."""
    with connect() as platform:
        columns = {"ID": "id", "PRINCIPAL": "principal", "ROLE": "role", "PATTERN": "pattern", "SINCE": "created_at"}
        out.many(platform.admin.grants(limit=limit), columns)


@command(app, "ungrant", examples=["mlops auth ungrant 0198c0ffee00700080000000deadbeef --yes"])
def ungrant(
    out: Printer, grant_id: Annotated[str, typer.Argument(help="The grant's id.", show_default=False)], yes: Yes = False
) -> None:
    """Take a role away."""
    confirm(f"Take the grant {grant_id} away?", yes=yes)
    with connect() as platform:
        platform.admin.revoke_grant(grant_id)
    out.say(f"The grant {grant_id} is gone.")
