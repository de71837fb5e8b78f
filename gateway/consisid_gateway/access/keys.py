"""API keys: made, stored as digests, revoked.

A key is shown once, when it is made. It is 256 bits of chance, so that a digest without salt or slowness is enough:
nobody can go through the keys that there might be.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from ipaddress import ip_address

import sqlalchemy as sa

from consisid_gateway.access.caller import Caller, Limits, Scope
from consisid_gateway.errors import KeyUnknown
from consisid_gateway.jobs.database import Database, now
from consisid_gateway.jobs.tables import keys
from consisid_runtime.errors import InvalidOption

PREFIX = "csid_"
USUAL = frozenset({Scope.READ, Scope.WRITE, Scope.CHARACTERS})
"""Scopes of a key that is made without naming any."""

_SHAPE = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_MOST_NAME = 128


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key; itself is nowhere. Times are seconds since 1970."""

    id: str
    tenant: str
    name: str
    scopes: frozenset[Scope]
    limits: Limits
    created_at: float
    revoked_at: float | None

    @property
    def caller(self) -> Caller:
        return Caller(self.tenant, self.id, self.scopes, self.limits)


def make(
    connection: sa.Connection,
    tenant: str,
    *,
    name: str = "",
    scopes: Collection[Scope] = USUAL,
    limits: Limits | None = None,
) -> tuple[str, Key]:
    """A new key, to be shown once, and what is stored of it. A tenant may have several.

    Args:
        tenant: whose jobs, characters and objects it sees.
        name: for its owner to know it by.

    Raises `InvalidOption` for what cannot be stored.
    """
    if not _TENANT.fullmatch(tenant):
        raise InvalidOption(
            f"a tenant is 1 to 63 of A–Z a–z 0–9 . _ -, beginning with a letter or digit; got {tenant[:80]!r}"
        )
    if len(name) > _MOST_NAME or not name.isprintable():
        raise InvalidOption(f"a key's name has at most {_MOST_NAME} printable characters")
    if not scopes:
        raise InvalidOption(f"a key has at least one scope of {', '.join(Scope)}")
    limits = limits or Limits()
    for field in fields(limits):
        if (value := getattr(limits, field.name)) is not None and value < 0:
            raise InvalidOption(f"the limit {field.name} is at least 0, got {value}")
    key = PREFIX + secrets.token_urlsafe(32)
    values = {
        "id": f"key_{secrets.token_hex(8)}",
        "digest": digest(key),
        "tenant": tenant,
        "name": name,
        "scopes": json.dumps(sorted(scopes)),
        "limits": json.dumps(asdict(limits)),
        "created_at": now(),
    }
    row = connection.execute(sa.insert(keys).values(values).returning(*keys.c)).mappings().one()
    return key, _of(row)


def listed(connection: sa.Connection, tenant: str | None = None) -> list[Key]:
    """The keys of a tenant, or all, the oldest first; revoked ones too."""
    chosen = sa.select(*keys.c).order_by(keys.c.created_at, keys.c.id)
    if tenant is not None:
        chosen = chosen.where(keys.c.tenant == tenant)
    return [_of(row) for row in connection.execute(chosen).mappings()]


def revoke(connection: sa.Connection, key: str) -> Key:
    """From now on the key of this id opens nothing; replicas learn it within `keyring.KNOWN_SECONDS`.

    Idempotent. Raises `KeyUnknown`.
    """
    connection.execute(sa.update(keys).where(keys.c.id == key, keys.c.revoked_at.is_(None)).values(revoked_at=now()))
    row = connection.execute(sa.select(*keys.c).where(keys.c.id == key)).mappings().one_or_none()
    if row is None:
        raise KeyUnknown(f"there is no key {key[:80]!r}")
    return _of(row)


def find(connection: sa.Connection, key: str) -> Key | None:
    """None for one that does not exist, or was revoked."""
    if not looks_right(key):
        return None
    wanted = digest(key)
    row = connection.execute(sa.select(*keys.c).where(keys.c.digest == wanted)).mappings().one_or_none()
    if row is None or not hmac.compare_digest(row["digest"], wanted) or row["revoked_at"] is not None:
        return None
    return _of(row)


def any_made(connection: sa.Connection) -> bool:
    """Whether there was ever a key: then one is asked for, also on loopback and when all were revoked."""
    return connection.scalar(sa.select(sa.exists(sa.select(keys.c.id)))) or False


def require_keys(database: Database, host: str) -> None:
    """Raises `InvalidOption` for an address that others can reach while there is no key; `StorageUnavailable`."""
    if is_loopback(host):
        return
    with database.reading() as connection:
        valid = connection.scalar(sa.select(sa.exists(sa.select(keys.c.id).where(keys.c.revoked_at.is_(None)))))
    if not valid:
        raise InvalidOption(
            f"{host or 'every address'} can be reached from other machines, and the database has no valid API key: "
            "make one with `consisid keys make TENANT`, given the same --data or --database, or bind 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what is bound to this address. A name other than localhost may be anything."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def looks_right(key: str) -> bool:
    """Whether it may be a key at all."""
    return _SHAPE.fullmatch(key) is not None


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _of(row: sa.RowMapping) -> Key:
    return Key(
        row["id"],
        row["tenant"],
        row["name"],
        frozenset(Scope(scope) for scope in json.loads(row["scopes"])),
        Limits(**json.loads(row["limits"])),
        row["created_at"],
        row["revoked_at"],
    )
