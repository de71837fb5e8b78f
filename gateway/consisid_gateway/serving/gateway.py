"""The process of `consisid gateway`: listens, answers, ends."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from consisid_gateway.access import audit
from consisid_gateway.access.keys import require_keys
from consisid_gateway.api import page
from consisid_gateway.api.app import make_app
from consisid_gateway.api.failures import failure
from consisid_gateway.api.guarded import Exposure, guarded
from consisid_gateway.api.parts import Parts
from consisid_gateway.api.serving import serving
from consisid_gateway.jobs.queue import Queue
from consisid_gateway.serving.logs import write_logs
from consisid_gateway.settings.kinds import split
from consisid_gateway.settings.settings import GatewaySettings
from consisid_gateway.settings.storage import open_database, open_store
from consisid_gateway.watch import health
from consisid_gateway.watch.meters import Meters
from consisid_gateway.watch.traces import Traces
from consisid_runtime.door.access import Access
from consisid_runtime.door.limits import Limits
from consisid_runtime.door.proxies import Proxies
from consisid_runtime.errors import ConsisIDError
from consisid_runtime.files.small_file import read_small
from consisid_runtime.provenance.hooks import load_hook
from consisid_runtime.serve.address import Address, in_url, reachable, resolve


def serve(settings: GatewaySettings, ready: Callable[[str], None]) -> None:
    """Answer requests until SIGTERM, or an interrupt, ends it; those under way have `grace_seconds` to end.

    Args:
        ready: called once with the URL, when it answers.

    Raises `InvalidOption` for an address that cannot be bound, or that others reach while there is no API key; what
    `open_database` and `open_store` raise, and `FileInaccessible`.
    """
    write_logs(settings.log_level)
    audit.write_to(settings.audit_file)
    address = resolve(settings.host)
    access = _access(settings)
    database = open_database(settings)
    try:
        require_keys(database, str(address))
        queue = Queue(database)
        queue.prepare()
        traces = Traces(settings.trace)
        parts = Parts(database, queue, open_store(settings, database), **_bounds(settings))
        asyncio.run(_run(settings, address, access, parts, traces, ready))
        traces.close()
        queue.close()
    finally:
        database.close()


async def _run(
    settings: GatewaySettings,
    address: Address,
    access: Access,
    parts: Parts,
    traces: Traces,
    ready: Callable[[str], None],
) -> None:
    stopping = asyncio.Event()
    with suppress(RuntimeError):  # in a thread of a test, signals are another's
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    app, around = _application(settings, str(address), access.proxies, parts, traces)
    limits = Limits(
        image=settings.upload_bytes,
        body_seconds=settings.upload_seconds,
        connections=settings.connections,
        grace=settings.grace_seconds,
    )
    listening = serving(app, around, address=str(address), port=settings.port, access=access, limits=limits, told=_told)
    async with listening as listener:
        # While a full collection looks at all that exists, no request is answered. What exists now stays.
        gc.collect()
        gc.freeze()
        tls = "s" if access.key else ""
        ready(f"http{tls}://{in_url(reachable(address))}:{listener.port}")
        await stopping.wait()
        gc.unfreeze()


def _told(error: ConsisIDError) -> bytes:
    return bytes(failure(error).body)


def _application(
    settings: GatewaySettings, host: str, proxies: Proxies, parts: Parts, traces: Traces
) -> tuple[FastAPI, ASGIApp]:
    """The application, and the same with what guards it."""
    exposure = Exposure(host, split(settings.hosts or ""), split(settings.origins or ""), proxies)
    meters = Meters(parts.database, lambda: parts.listeners.size)
    app = make_app(parts)
    app.include_router(health.router(health.Health(parts.database, parts.store), meters))
    app.include_router(page.router)
    traces.watch(app)
    return app, guarded(app, parts.database, exposure, meters, failure)


def _bounds(settings: GatewaySettings) -> dict[str, Any]:
    return {
        "upload_bytes": settings.upload_bytes,
        "upload_seconds": settings.upload_seconds,
        "bodies": settings.bodies,
        "private_webhooks": settings.private_webhooks,
        "consent": None if settings.consent_hook is None else load_hook(settings.consent_hook),
        "character_seconds": settings.character_seconds,
        "characters_kept_seconds": settings.characters_kept_seconds,
        "keep_alive_seconds": settings.keep_alive_seconds,
    }


def _access(settings: GatewaySettings) -> Access:
    """The certificate, checked, and the known proxies."""
    proxies = Proxies.read(settings.trusted_proxy or "")
    certificate, key = settings.tls_cert, settings.tls_key
    if certificate is None or key is None:
        return Access(proxies=proxies)
    access = Access(None, read_small(certificate), read_small(key), proxies, (certificate, key))
    access.context()
    return access
