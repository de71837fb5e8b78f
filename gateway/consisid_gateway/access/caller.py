"""Whose request it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from consisid_gateway.errors import ScopeMissing

LOCAL = "local"
"""The tenant of everybody where no key is asked for, which is on loopback alone."""


class Scope(StrEnum):
    """What a key may do."""

    READ = "videos:read"
    WRITE = "videos:write"
    CHARACTERS = "characters"
    URGENT = "videos:urgent"
    METRICS = "metrics"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a key may have; None for as much as there is."""

    jobs: int | None = None
    requests_per_minute: int | None = None
    stored_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Of one request.

    Attributes:
        tenant: sees its own jobs, characters and objects alone.
        key: id of the API key; None without one.
    """

    tenant: str = LOCAL
    key: str | None = None
    scopes: frozenset[Scope] = frozenset(Scope)
    limits: Limits = field(default_factory=Limits)

    def require(self, scope: Scope) -> None:
        """Raises `ScopeMissing`."""
        if scope not in self.scopes:
            raise ScopeMissing(f"this key lacks the scope {scope}; it has {', '.join(sorted(self.scopes)) or 'none'}")
