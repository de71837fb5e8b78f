"""Calls of webhooks: signed as Standard Webhooks says, and repeated for a day until they are received."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import logging
import socket
import ssl
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit

from consisid_gateway.addresses import Address, check
from consisid_gateway.errors import AddressRefused
from consisid_gateway.jobs import deliveries
from consisid_gateway.jobs.database import Database
from consisid_gateway.jobs.deliveries import Delivery
from consisid_gateway.worker.steadily import Steadily

log = logging.getLogger(__name__)

TIMEOUT = 10.0
"""Seconds of a call, from the connection to the answer's status."""
PAUSES = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, *[7200.0] * 11)
"""Seconds before a call is repeated: a day in all."""
_THREADS = 4
_POLLING = 1.0


class Deliverer:
    """Delivers what is due, whichever worker wrote it.

    Args:
        secret: signs; None: nothing is delivered.
        private: whether addresses of private networks may be called.
    """

    def __init__(
        self, database: Database, secret: bytes | None, *, private: bool = False, polling: float = _POLLING
    ) -> None:
        self._database, self._secret, self._private = database, secret, private
        count = 0 if secret is None else _THREADS
        self._threads = [Steadily(f"webhooks {i}", polling, self._deliver_due) for i in range(count)]
        self._ending = threading.Event()
        self._lock, self._called = threading.Lock(), set[str]()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns when the calls in flight have ended."""
        self._ending.set()
        for thread in self._threads:
            thread.stop()

    def _deliver_due(self) -> None:
        while not self._ending.is_set() and (delivery := self._take()) is not None:
            try:
                self._deliver(delivery)
            finally:
                self._called.discard(_host(delivery))

    def _take(self) -> Delivery | None:
        """Of a host that is not being called: one that is slow has one thread."""
        with self._lock:
            with self._database.transaction() as connection:
                found = deliveries.take(connection, 3 * TIMEOUT, self._called)
            if found is not None:
                self._called.add(_host(found))
        return found

    def _deliver(self, delivery: Delivery) -> None:
        assert self._secret is not None
        pause: float | None = PAUSES[delivery.attempts] if delivery.attempts < len(PAUSES) else None
        try:
            status = call(check(delivery.url, private=self._private), delivery, self._secret)
        except AddressRefused as error:
            found, pause = error.wire(), None
        except (OSError, http.client.HTTPException) as error:
            found = type(error).__name__
        else:
            found = str(status)
            if 200 <= status < 300:
                with self._database.transaction() as connection:
                    deliveries.delivered(connection, delivery)
                return
            if status == http.client.GONE:
                pause = None
        log.warning("webhook of %s, call %d: %s", delivery.job, delivery.attempts + 1, found)
        with self._database.transaction() as connection:
            deliveries.failed(connection, delivery, pause)


def _host(delivery: Delivery) -> str:
    """The beginning of the URL that says who is called."""
    parts = urlsplit(delivery.url)
    return f"{parts.scheme}://{parts.netloc}"


def call(address: Address, delivery: Delivery, secret: bytes) -> int:
    """The status of the answer; redirections are not followed.

    Raises `AddressRefused`, `OSError`, `HTTPException`.
    """
    connection = _Pinned(address, address.resolve())
    watch = threading.Timer(TIMEOUT, connection.cut)
    watch.daemon = True
    watch.start()
    try:
        body = delivery.body.encode()
        headers = {"content-type": "application/json", "user-agent": "consisid", "connection": "close"}
        connection.request("POST", address.target, body, headers | signed(f"msg_{delivery.job}", body, secret))
        return connection.getresponse().status
    finally:
        watch.cancel()
        connection.close()


def signed(id: str, body: bytes, secret: bytes, timestamp: int | None = None) -> dict[str, str]:
    """The headers of Standard Webhooks. A repeated call has the same id."""
    moment = str(int(time.time()) if timestamp is None else timestamp)
    digest = hmac.new(secret, f"{id}.{moment}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {"webhook-id": id, "webhook-timestamp": moment, "webhook-signature": signature}


class _Pinned(http.client.HTTPConnection):
    """Connects to IP addresses that were checked: asked again, the name might have others."""

    def __init__(self, address: Address, ips: list[str]) -> None:
        super().__init__(address.host, address.port, timeout=TIMEOUT)
        self.default_port = 443 if address.scheme == "https" else 80
        self._secure, self._ips, self._cut = address.scheme == "https", ips, False

    def connect(self) -> None:
        for ip in self._ips:
            self._require_time()
            try:
                self.sock = socket.create_connection((ip, self.port), TIMEOUT / 2)
                break
            except OSError:
                if ip == self._ips[-1]:
                    raise
        self._require_time()
        if self._secure:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)
            self._require_time()

    def _require_time(self) -> None:
        """Raises `TimeoutError` for a call that was ended while it had no connection that could be."""
        if self._cut:
            raise TimeoutError

    def cut(self) -> None:
        """End the call, however little at a time the other side sends."""
        self._cut = True
        with suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_RDWR)
