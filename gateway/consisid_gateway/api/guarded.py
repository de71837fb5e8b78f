"""What stands around the application: in this order, each before a body is read."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from starlette.types import ASGIApp

from consisid_gateway.access.audit import Audit
from consisid_gateway.access.authentication import Authentication
from consisid_gateway.access.sites import Sites
from consisid_gateway.api.headers import SecurityHeaders, cross_origin
from consisid_gateway.jobs.database import Database
from consisid_gateway.watch.health import OPEN
from consisid_gateway.watch.meters import Meters
from consisid_gateway.watch.observing import Observing
from consisid_runtime.door.proxies import Proxies
from consisid_runtime.errors import ConsisIDError

PUBLIC = ("/", "/page/", "/openapi.json", *OPEN)
"""Needs no key: nothing of anybody's is there."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """Where a gateway can be reached, and from where.

    Attributes:
        host: that it listens on; keys are asked for on every one but loopback.
        hosts: names that it has, without ports; by default any, on loopback those of loopback.
        origins: of other sites whose pages may call, such as `https://studio.example`.
        proxies: in front of it, whose word is taken for who calls.
    """

    host: str = "127.0.0.1"
    hosts: Collection[str] = ()
    origins: Collection[str] = ()
    proxies: Proxies = field(default_factory=Proxies)


def guarded(
    app: ASGIApp,
    database: Database,
    exposure: Exposure,
    meters: Meters,
    refusal: Callable[[ConsisIDError], ASGIApp],
) -> ASGIApp:
    """The application as others may reach it.

    Args:
        refusal: an answer for an error.

    Raises `InvalidOption` for what is no origin.
    """
    inner: ASGIApp = Authentication(
        app, database, host=exposure.host, proxies=exposure.proxies, refusal=refusal, open_paths=PUBLIC
    )
    inner = cross_origin(Audit(inner), exposure.origins)
    inner = Sites(
        inner,
        host=exposure.host,
        hosts=exposure.hosts,
        origins=exposure.origins,
        proxies=exposure.proxies,
        refusal=refusal,
    )
    return Observing(SecurityHeaders(inner), meters)
