"""Every request but those that anybody may send carries a valid key, or reaches nothing."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import sqlalchemy as sa

from consisid_gateway.access import attempts, keyring, keys, streams
from consisid_gateway.access.attempts import Attempts
from consisid_gateway.access.caller import LOCAL
from consisid_gateway.errors import LimitReached
from consisid_gateway.jobs.database import Database
from consisid_runtime.door.proxies import Proxies


def test_a_key_opens(gate, key) -> None:
    answer = gate.ask(key=key(), host="gateway.example")
    assert answer.status == 200 and answer.json["tenant"] == "ada" and answer.json["key"].startswith("key_")
    assert answer.json["scopes"] == ["characters", "videos:read", "videos:write"]


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer csid_" + "a" * 43, "Bearer " + "a" * 4000, "csid_" + "a" * 43],
)
def test_without_a_valid_one_nothing_is_reached(gate, key, given: str) -> None:
    key()
    named = {"authorization": given} if given else {}
    for path in ("/v1/videos", "/v1/videos/video_1/content", "/metrics", "/docs", "/page", "//", "/unknown"):
        answer = gate.ask(path, **named)
        assert (answer.status, answer.code) == (401, "UNAUTHENTICATED"), path
    assert gate.served == []


def test_pages_and_health_need_none(gate) -> None:
    assert [gate.ask(path).status for path in ("/", "/healthz")] == [200, 200]


def test_two_headers_are_none(gate, key) -> None:
    fields = [(b"host", b"h"), (b"authorization", b"Bearer x"), (b"authorization", f"Bearer {key()}".encode())]
    seen: list[Any] = []

    async def send(message: Any) -> None:
        seen.append(message)

    scope = {"type": "http", "method": "GET", "path": "/v1/videos", "query_string": b"", "headers": fields}
    asyncio.run(gate.app({**scope, "client": ("10.0.0.1", 1)}, None, send))
    assert seen[0]["status"] == 401


def test_a_key_in_the_url_is_refused(gate, key) -> None:
    made = key()
    for query in (f"key={made}", f"a=1&token={made}"):
        answer = gate.ask(key=made, query=query)
        assert (answer.status, answer.code) == (401, "UNAUTHENTICATED") and "revoke it" in answer.json["error"][
            "message"
        ]
        assert made not in answer.body.decode()
    assert gate.served == []


def test_a_revoked_key_ends_within_seconds(gate, key, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert keyring.KNOWN_SECONDS + streams.LOOK_SECONDS < 2
    monkeypatch.setattr(keyring, "KNOWN_SECONDS", 0.1)
    made = key()
    name = gate.ask(key=made).json["key"]
    with database.transaction() as connection:
        keys.revoke(connection, name)
    deadline = time.monotonic() + 5
    while gate.ask(key=made).status == 200:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert gate.ask(key=made).code == "UNAUTHENTICATED"


def test_the_database_is_asked_once_in_that_time(gate, key, database: Database) -> None:
    made = key()
    statements: list[str] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *found: statements.append(found[2]))
    for _ in range(20):
        assert gate.ask(key=made).status == 200
    assert len(statements) == 1


def test_on_loopback_none_is_asked_for_until_one_was_made(
    local, key, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "KNOWN_SECONDS", 0.0)
    assert local.ask().json["tenant"] == LOCAL
    assert local.ask(key="whatever an SDK wants to have").json["tenant"] == LOCAL
    made = key()
    assert local.ask().code == "UNAUTHENTICATED"
    name = local.ask(key=made).json["key"]
    with database.transaction() as connection:
        keys.revoke(connection, name)
    assert local.ask().code == "UNAUTHENTICATED", "to revoke the last key opens nothing"


def test_an_address_that_tries_keys_waits(gate, key, database: Database) -> None:
    made = key()
    assert gate.ask(key=made, peer="10.0.0.1").status == 200
    for _ in range(attempts.MOST):
        assert gate.ask(key="csid_" + "a" * 43, peer="10.0.0.1").status == 401
    statements: list[str] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *found: statements.append(found[2]))
    assert gate.ask(key="csid_" + "b" * 43, peer="10.0.0.1").code == "LIMIT_REACHED"
    assert not statements
    assert gate.ask(key=made, peer="10.0.0.1").status == 200, "who had a key before is not held up"
    assert gate.ask(key="csid_" + "b" * 43, peer="10.0.0.2").status == 401


def test_attempts_are_forgotten_after_a_minute_and_bounded() -> None:
    now = 0.0
    tried = Attempts(lambda: now)
    for _ in range(attempts.MOST):
        tried.check("a")
        tried.fail("a")
    with pytest.raises(LimitReached, match="60 s") as refused:
        tried.check("a")
    assert refused.value.retry_after == attempts.SECONDS
    now = attempts.SECONDS
    tried.check("a")
    tried.fail("a")
    tried.check("a")
    for number in range(10_000):
        tried.fail(str(number))
    assert len(tried._failed) <= 4096


def test_behind_a_known_proxy_each_caller_has_attempts_of_its_own(behind, key) -> None:
    key()
    gate = behind(host="0.0.0.0", proxies=Proxies.read("10.0.0.0/8"))
    for _ in range(attempts.MOST + 1):
        last = gate.ask(key="csid_" + "a" * 43, peer="10.0.0.1", x_forwarded_for="192.0.2.1")
    assert last.code == "LIMIT_REACHED"
    assert gate.ask(key="csid_" + "a" * 43, peer="10.0.0.1", x_forwarded_for="192.0.2.2").status == 401


def test_a_database_that_is_away_is_no_entrance(gate, key, monkeypatch: pytest.MonkeyPatch) -> None:
    made = key()

    def away(*_: object) -> None:
        raise sa.exc.OperationalError("", {}, Exception())

    monkeypatch.setattr(keys, "find", away)
    answer = gate.ask(key=made)
    assert (answer.status, answer.code) == (503, "STORAGE_UNAVAILABLE")
    assert gate.served == []


def test_a_stream_ends_when_its_key_is_revoked(gate, key, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "KNOWN_SECONDS", 0.05)
    monkeypatch.setattr(streams, "LOOK_SECONDS", 0.05)
    name = gate.ask(key=(made := key())).json["key"]

    async def listen(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        listening.set()
        left.append(await receive())

    async def run() -> None:
        ask = asyncio.create_task(gate.asking("/v1/videos", key=made, unended=True))
        await listening.wait()
        await asyncio.sleep(0.1)
        assert not left, "a valid one goes on"
        with database.transaction() as connection:
            keys.revoke(connection, name)
        await asyncio.wait_for(ask, 5)

    listening, left = asyncio.Event(), list[Any]()
    gate.around(listen)
    asyncio.run(run())
    assert left == [{"type": "http.disconnect"}]
