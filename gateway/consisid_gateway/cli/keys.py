"""`consisid keys`: API keys, made, listed and revoked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consisid_gateway.cli.resolving import Data, Database, chosen, needing
from consisid_runtime.cli.output import Json, emit
from consisid_runtime.errors import InvalidOption

if TYPE_CHECKING:
    import sqlalchemy as sa

    from consisid_gateway.access.caller import Scope
    from consisid_gateway.access.keys import Key

keys = typer.Typer(name="keys", help="Make, list and revoke the API keys of a gateway.", no_args_is_help=True)

Config = Annotated[
    Path | None, typer.Option("--config", help="The gateway's TOML file. Default: CONSISID_GATEWAY_CONFIG, or none.")
]


@keys.command()
def make(
    tenant: Annotated[str, typer.Argument(help="Whose jobs, characters and videos the key sees.")],
    name: Annotated[str, typer.Option("--name", help="For people to know the key by.")] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="What it may do; several times. Default: all but metrics and videos:urgent."),
    ] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", help="Videos that are not done, at most.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option("--requests-per-minute", help="At most.")] = None,
    stored_bytes: Annotated[int | None, typer.Option("--stored-bytes", help="Of its tenant's videos, at most.")] = None,
    data: Data = None,
    database: Database = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Make a key. It is shown once: only a digest is stored."""
    with _opened(data, database, config) as connection:
        from consisid_gateway.access import keys as stored
        from consisid_gateway.access.caller import Limits

        scopes = stored.USUAL if not scope else frozenset(map(_scope, scope))
        limits = Limits(jobs=jobs, requests_per_minute=requests_per_minute, stored_bytes=stored_bytes)
        key, made = stored.make(connection, tenant, name=name, scopes=scopes, limits=limits)
    _log("key.made", made)
    emit(as_json, {"key": key, **_shown(made)}, f"{key}\n{made.id}, of {made.tenant}; it is not shown again")


@keys.command("list")
def listed(
    tenant: Annotated[str | None, typer.Option("--tenant", help="Of this one alone.")] = None,
    data: Data = None,
    database: Database = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List keys, the oldest first, revoked ones too; what opens something is not stored, and not shown."""
    with _opened(data, database, config) as connection:
        from consisid_gateway.access import keys as stored

        found = [_shown(key) for key in stored.listed(connection, tenant)]
    emit(as_json, {"keys": found}, "\n".join(map(_line, found)) or "there are no keys")


@keys.command()
def revoke(
    key: Annotated[str, typer.Argument(help="Id of the key, as `list` shows it.")],
    data: Data = None,
    database: Database = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Revoke a key: gateways refuse it within two seconds."""
    with _opened(data, database, config) as connection:
        from consisid_gateway.access import keys as stored

        revoked = stored.revoke(connection, key)
    _log("key.revoked", revoked)
    emit(as_json, _shown(revoked), f"{revoked.id} is revoked")


@contextmanager
def _opened(data: Path | None, database: str | None, config: Path | None) -> Iterator[sa.Connection]:
    """A transaction on the gateway's database."""
    with needing("keys"):
        from consisid_gateway.settings.settings import KeysSettings
        from consisid_gateway.settings.storage import open_database
    flags = {"data": data, "database": database}
    settings = chosen(KeysSettings, flags, config, print_config=False, as_json=False)
    assert settings is not None
    if settings.audit_file is not None:
        from consisid_gateway.access import audit

        audit.write_to(settings.audit_file)
    opened = open_database(settings)
    try:
        with opened.transaction() as connection:
            yield connection
    finally:
        opened.close()


def _log(action: str, key: Key) -> None:
    """A line in the audit log, where it is a file."""
    from consisid_gateway.access import audit
    from consisid_gateway.access.caller import Caller

    audit.record(action, Caller(key.tenant), subject=key.id)


def _scope(name: str) -> Scope:
    from consisid_gateway.access.caller import Scope

    try:
        return Scope(name)
    except ValueError:
        raise InvalidOption(f"a scope is one of {', '.join(Scope)}, got {name[:80]!r}") from None


def _shown(key: Key) -> dict[str, Any]:
    limits = {name: getattr(key.limits, name) for name in ("jobs", "requests_per_minute", "stored_bytes")}
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "limits": {name: most for name, most in limits.items() if most is not None},
        "created_at": _time(key.created_at),
        "revoked_at": None if key.revoked_at is None else _time(key.revoked_at),
    }


def _line(key: dict[str, Any]) -> str:
    most = ", ".join(f"{name} {value}" for name, value in key["limits"].items())
    state = f"revoked {key['revoked_at']}" if key["revoked_at"] else f"made {key['created_at']}"
    words = [key["id"], key["tenant"], key["name"], ",".join(key["scopes"]), most, state]
    return "  ".join(word for word in words if word)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
