"""Calls of webhooks, to a server of this machine."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import sqlalchemy as sa
from postgresql import wait_until
from shop import Shop

from consisid_gateway.addresses import check
from consisid_gateway.errors import AddressRefused
from consisid_gateway.jobs import deliveries as deliveries_of
from consisid_gateway.jobs import running
from consisid_gateway.jobs.deliveries import Delivery
from consisid_gateway.jobs.tables import deliveries
from consisid_gateway.worker import webhooks
from consisid_gateway.worker.webhooks import Deliverer, call, signed

ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
SECRET = b"a secret"


@dataclass
class Receiver:
    """A server that notes what it is sent.

    Attributes:
        statuses: of the next answers; then 204.
    """

    url: str
    statuses: list[int] = field(default_factory=list)
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(found.statuses.pop(0) if found.statuses else 204)
            self.send_header("location", f"{found.url}elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Receiver(f"http://127.0.0.1:{server.server_port}/")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def announce(shop: Shop, url: str) -> str:
    job = shop.order(webhook=url)
    with shop.database.transaction() as connection:
        running.announce(connection, job, '{"type": "video.completed"}')
    return job.id


def row(shop: Shop) -> sa.Row[Any]:
    with shop.database.reading() as connection:
        return connection.execute(sa.select(deliveries)).one()


@pytest.fixture
def deliverer(shop: Shop) -> Iterator[Deliverer]:
    opened = Deliverer(shop.database, SECRET, private=True, polling=0.02)
    opened.start()
    yield opened
    opened.stop()


@ON_SQLITE
def test_a_signed_call_is_received_once(shop: Shop, receiver: Receiver, deliverer: Deliverer) -> None:
    job = announce(shop, f"{receiver.url}hook?a=b")
    wait_until(lambda: row(shop).delivered_at, 5.0)
    [(headers, body)] = receiver.received
    assert body == b'{"type": "video.completed"}'
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == f"msg_{job}"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 5
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(SECRET, text, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


def test_a_signature_of_the_specification() -> None:
    """The example of the Standard Webhooks library's own tests."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = signed("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', secret, 1614265330)
    assert found["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@ON_SQLITE
def test_what_is_not_received_is_repeated(
    shop: Shop, receiver: Receiver, deliverer: Deliverer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "PAUSES", (0.05, 0.05, 0.05))
    receiver.statuses = [500, 302, 404]
    announce(shop, receiver.url)
    wait_until(lambda: row(shop).delivered_at, 5.0)
    assert row(shop).attempts == 4
    ids = {headers["webhook-id"] for headers, _ in receiver.received}
    assert len(receiver.received) == 4 and len(ids) == 1


@ON_SQLITE
@pytest.mark.parametrize(("statuses", "attempts"), [([500] * 9, 3), ([410], 1)])
def test_calls_are_given_up(
    shop: Shop,
    receiver: Receiver,
    deliverer: Deliverer,
    monkeypatch: pytest.MonkeyPatch,
    statuses: list[int],
    attempts: int,
) -> None:
    monkeypatch.setattr(webhooks, "PAUSES", (0.02, 0.02))
    receiver.statuses = statuses
    announce(shop, receiver.url)
    wait_until(lambda: row(shop).failed_at, 5.0)
    assert row(shop).attempts == attempts == len(receiver.received)
    assert row(shop).next_at is None


@ON_SQLITE
def test_private_addresses_are_never_called(shop: Shop, receiver: Receiver) -> None:
    announce(shop, receiver.url.replace("http://", "https://"))
    deliverer = Deliverer(shop.database, SECRET, polling=0.02)
    deliverer.start()
    wait_until(lambda: row(shop).failed_at, 5.0)
    deliverer.stop()
    assert receiver.received == []


def test_only_what_was_checked_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is asked a second time might have another address."""
    answers = iter(["8.8.8.8", "127.0.0.1"])
    connected: list[tuple[str, int]] = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    def connect(target: tuple[str, int], timeout: float) -> socket.socket:
        connected.append(target)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(ConnectionRefusedError):
        call(check("https://example.com/"), Delivery("video_1", "", "{}", 0), SECRET)
    assert connected == [("8.8.8.8", 443)]
    with pytest.raises(AddressRefused):
        call(check("https://example.com/"), Delivery("video_1", "", "{}", 0), SECRET)


def test_an_answer_that_comes_too_slowly_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT", 0.5)
    over = threading.Event()

    def drip() -> None:
        peer, _ = listening.accept()
        with peer:
            while not over.wait(0.05):
                try:
                    peer.send(b"a")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        began = time.monotonic()
        with pytest.raises((OSError, HTTPException)):
            call(check(url, private=True), Delivery("video_1", "", "{}", 0), SECRET)
        assert time.monotonic() - began < 3.0
        over.set()
        thread.join()


def test_a_call_that_took_all_its_time_to_connect_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends a call finds no connection yet while addresses are tried that do not answer."""
    monkeypatch.setattr(webhooks, "TIMEOUT", 0.1)
    tried: list[str] = []

    def connect(target: tuple[str, int], timeout: float) -> socket.socket:
        tried.append(target[0])
        time.sleep(0.2)
        raise TimeoutError("no answer")

    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 443)) for ip in ("8.8.8.8", "8.8.4.4")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(TimeoutError):
        call(check("https://example.com/"), Delivery("video_1", "", "{}", 0), SECRET)
    assert tried == ["8.8.8.8"]


@ON_SQLITE
def test_who_was_called_less_is_called_first(shop: Shop) -> None:
    first, second = (announce(shop, f"https://example.com/{number}") for number in range(2))
    with shop.database.transaction() as connection:
        taken = deliveries_of.take(connection, 0.0)
        assert taken is not None and taken.job == first
        deliveries_of.failed(connection, taken, -10.0)  # it is due for longer
        again = deliveries_of.take(connection, 30.0)
        assert again is not None and again.job == second


@ON_SQLITE
def test_a_host_that_does_not_answer_has_one_thread(shop: Shop, receiver: Receiver, deliverer: Deliverer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for number in range(8):
            announce(shop, f"http://127.0.0.1:{silent.getsockname()[1]}/{number}")
        wait_until(lambda: len(deliverer._called) == 1, 5.0)
        job = announce(shop, receiver.url)
        wait_until(lambda: receiver.received, webhooks.TIMEOUT / 2)
        assert [headers["webhook-id"] for headers, _ in receiver.received] == [f"msg_{job}"]
        with shop.database.reading() as connection:
            tried = connection.scalars(sa.select(deliveries.c.attempts).where(deliveries.c.job != job)).all()
        assert tried == [0] * 8, "the one call to the other host still waits for its answer"
