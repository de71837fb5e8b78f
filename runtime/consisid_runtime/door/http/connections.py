"""All HTTP connections of a door: how many there may be, and who has to go so that a health check is answered."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from consisid_runtime.door.limits import Limits


class Member(Protocol):
    """A connection."""

    owner: str

    def drop(self) -> None:
        """Close it at once."""


class Connections:
    """Every connection is accepted. Where there are too many, the one that has been idle longest is closed.

    Where none is idle, the newest may ask for health alone: it is a surplus one, and no place is taken from who works.
    """

    def __init__(self, limits: Limits) -> None:
        self._most, self._each = limits.connections, limits.one(limits.connections)
        self._owners: Counter[str] = Counter()
        self._members: set[Member] = set()
        self._idle: dict[Member, None] = {}

    @property
    def size(self) -> int:
        """Connections that there are."""
        return len(self._members)

    def enter(self, member: Member) -> bool:
        """A new connection, idle at first. Returns whether it is a surplus one."""
        self._members.add(member)
        self._owners[member.owner] += 1
        surplus = self._owners[member.owner] > self._each and not self._drop(member.owner)
        surplus = surplus or (self.size > self._most and not self._drop(None))
        self._idle[member] = None
        return surplus

    def work(self, member: Member) -> None:
        """It has sent a request's head."""
        self._idle.pop(member, None)

    def rest(self, member: Member) -> None:
        """Its request was answered."""
        if member in self._members:
            self._idle[member] = None

    def leave(self, member: Member) -> None:
        """It is closed, or will be."""
        if member not in self._members:
            return
        self._members.remove(member)
        self._owners[member.owner] -= 1
        if not self._owners[member.owner]:
            del self._owners[member.owner]
        self._idle.pop(member, None)

    def _drop(self, owner: str | None) -> bool:
        for member in self._idle:
            if owner in (None, member.owner):
                self.leave(member)
                member.drop()
                return True
        return False
