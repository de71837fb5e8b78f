"""API keys are made, stored as digests, found and revoked."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from consisid_gateway.access import keys
from consisid_gateway.access.caller import LOCAL, Caller, Limits, Scope
from consisid_gateway.errors import KeyUnknown, ScopeMissing
from consisid_gateway.jobs.database import Database
from consisid_runtime.errors import InvalidOption


def test_a_key_is_found_with_what_it_may(database: Database) -> None:
    with database.transaction() as connection:
        key, made = keys.make(connection, "ada", name="laptop", scopes=[Scope.READ], limits=Limits(jobs=3))
        assert keys.find(connection, key) == made
        assert made.caller == Caller("ada", made.id, frozenset({Scope.READ}), Limits(jobs=3))
        assert (made.tenant, made.name, made.revoked_at) == ("ada", "laptop", None)


def test_the_database_holds_no_key(database: Database, tmp_path: Path) -> None:
    with database.transaction() as connection:
        key, _ = keys.make(connection, "ada")
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert keys.digest(key).encode() in stored and key.encode() not in stored
    assert key.removeprefix(keys.PREFIX).encode() not in stored


def test_keys_are_long_and_no_two_are_the_same(database: Database) -> None:
    with database.transaction() as connection:
        made = {keys.make(connection, "ada")[0] for _ in range(20)}
    assert len(made) == 20 and all(keys.looks_right(key) for key in made)
    assert {len(key) for key in made} == {len(keys.PREFIX) + 43}  # 32 bytes


def test_a_tenant_has_several_and_loses_one(database: Database) -> None:
    with database.transaction() as connection:
        first, made = keys.make(connection, "ada")
        second, other = keys.make(connection, "ada")
        keys.make(connection, "bob")
        revoked = keys.revoke(connection, made.id)
        assert revoked.revoked_at is not None and keys.revoke(connection, made.id) == revoked
        assert keys.find(connection, first) is None and keys.find(connection, second) == other
        listed = keys.listed(connection, "ada")
        assert len(listed) == 2 and revoked in listed and other in listed  # both may be of one millisecond
        assert len(keys.listed(connection)) == 3


@pytest.mark.parametrize(
    "given", ["", "csid_", "csid_" + "a" * 42, "csid_" + "a" * 44, "key" + "a" * 45, "csid_" + "ä" * 43]
)
def test_what_cannot_be_a_key_is_not_looked_for(database: Database, given: str) -> None:
    statements: list[str] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *found: statements.append(found[2]))
    with database.reading() as connection:
        assert keys.find(connection, given) is None
    assert not statements


@pytest.mark.parametrize("tenant", ["", "a/b", "-a", "a" * 64, "a b", "ä"])
def test_tenants_that_cannot_be(database: Database, tenant: str) -> None:
    with database.transaction() as connection, pytest.raises(InvalidOption, match="tenant"):
        keys.make(connection, tenant)


def test_what_was_made_without_a_key_is_reached_with_one(database: Database) -> None:
    with database.transaction() as connection:
        made, _ = keys.make(connection, LOCAL)
        found = keys.find(connection, made)
    assert found is not None and found.tenant == Caller().tenant


def test_what_else_cannot_be_stored(database: Database) -> None:
    with database.transaction() as connection:
        for named in ({"name": "a" * 129}, {"name": "a\nb"}, {"scopes": []}, {"limits": Limits(jobs=-1)}):
            with pytest.raises(InvalidOption):
                keys.make(connection, "ada", **named)  # type: ignore[arg-type]
        with pytest.raises(KeyUnknown, match="key_0"):
            keys.revoke(connection, "key_0")


def test_an_address_of_others_needs_a_valid_key(database: Database) -> None:
    for host in ("127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost"):
        keys.require_keys(database, host)
    for host in ("0.0.0.0", "::", "", "10.0.0.7", "gateway.example", "127.0.0.1.example"):
        with pytest.raises(InvalidOption, match="no valid API key"):
            keys.require_keys(database, host)
    with database.transaction() as connection:
        _, made = keys.make(connection, "ada")
    keys.require_keys(database, "0.0.0.0")
    with database.transaction() as connection:
        keys.revoke(connection, made.id)
    with pytest.raises(InvalidOption):
        keys.require_keys(database, "0.0.0.0")


def test_a_scope_that_is_missing_is_named() -> None:
    caller = Caller("ada", "key_1", frozenset({Scope.READ}))
    caller.require(Scope.READ)
    with pytest.raises(ScopeMissing, match=r"videos:write; it has videos:read"):
        caller.require(Scope.WRITE)
    assert not keys.USUAL & {Scope.METRICS, Scope.URGENT}
