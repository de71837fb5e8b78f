"""The process of `consisid worker`: the worker of one server."""

from __future__ import annotations

import base64
import binascii
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from consisid_gateway.serving.announcing import announcement
from consisid_gateway.serving.logs import write_logs
from consisid_gateway.settings.settings import WorkerSettings
from consisid_gateway.settings.storage import open_database, open_store
from consisid_gateway.worker import worker
from consisid_gateway.worker.maker import ServerMaker
from consisid_runtime.client.access import Access
from consisid_runtime.client.client import Client
from consisid_runtime.client.connect import connect
from consisid_runtime.errors import InvalidOption
from consisid_runtime.files.small_file import read_small

_SECRET = re.compile(r"whsec_([A-Za-z0-9+/=]{32,128})")
_CONNECTIONS = 8
"""To the database, that a worker keeps: with fewer it makes new ones all the time, and PostgreSQL allows for 100."""
_TIMEOUT = 1e6
"""Seconds. A video may take any time; a worker ends its calls itself."""


def work(settings: WorkerSettings, ready: Callable[[str], None]) -> None:
    """Take jobs until a signal ends it.

    Args:
        ready: called once with the worker's name.

    Raises what `open_database`, `open_store` and `Client` do; `InvalidOption` for a secret that is none.
    """
    write_logs(settings.log_level)
    secret = None if settings.webhook_secret_file is None else webhook_secret(settings.webhook_secret_file)
    token = None if settings.token_file is None else read_small(settings.token_file).decode(errors="replace").strip()
    name = settings.name or socket.gethostname()
    access = Access.read(token, settings.ca)

    def client(trace: str | None) -> Client:
        return Client(connect(settings.server, replace(access, traceparent=trace)), timeout=_TIMEOUT)

    maker = ServerMaker(client, settings.checkpoint_seconds)
    database = open_database(settings, _CONNECTIONS)
    try:
        chosen = worker.WorkerConfig(
            kept_seconds=settings.kept_seconds,
            webhook_secret=secret,
            private_webhooks=settings.private_webhooks,
            unready_seconds=settings.unready_seconds,
            polling_seconds=settings.polling_seconds,
        )
        running = worker.Worker(database, open_store(settings, database), maker, announcement, chosen, name)
        running.start()
        try:
            ready(name)
            running.wait()
        finally:
            running.stop()
    finally:
        database.close()


def webhook_secret(path: Path) -> bytes:
    """As Standard Webhooks writes one. Raises `FileInaccessible`, `InvalidOption`."""
    found = _SECRET.fullmatch(read_small(path).decode(errors="replace").strip())
    try:
        secret = b"" if found is None else base64.b64decode(found[1], validate=True)
    except binascii.Error:
        secret = b""
    if not 24 <= len(secret) <= 64:
        raise InvalidOption(f"{path} holds no secret of a webhook: whsec_ and 24 to 64 bytes as Base64")
    return secret
