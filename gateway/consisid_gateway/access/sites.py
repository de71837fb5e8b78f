"""No page of another site reaches a gateway through its user's browser.

Browsers send forms and plain requests anywhere without asking; on a gateway that wants no key they would be obeyed.
And a name of another site's may be made to stand for this machine's address, which makes its page the gateway's own
in a browser's eyes (DNS rebinding): the header Host tells.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from consisid_gateway.access.keys import is_loopback
from consisid_gateway.errors import CrossSite
from consisid_runtime.door.access import owner
from consisid_runtime.door.proxies import Proxies
from consisid_runtime.errors import ConsisIDError, InvalidOption

_PLACE = r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?"
_HOST, _ORIGIN = re.compile(_PLACE, re.IGNORECASE), re.compile(f"https?://{_PLACE}", re.IGNORECASE)
_SAFE = ("GET", "HEAD", "OPTIONS")
_OWN = ("same-origin", "none")
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


class Sites:
    """An ASGI application around another one.

    Args:
        host: that the gateway listens on. On loopback the header Host must name it, or one of `hosts`, and a request
            that came through a proxy is none of this machine's; elsewhere keys stand for both.
        hosts: names that the gateway has elsewhere, without ports. Where there are some, Host must be one of them.
        origins: of other sites whose pages may call, such as `https://studio.example`.
        proxies: in front of the gateway, which are known.
        refusal: an answer for an error.

    Raises `InvalidOption` for what is no origin.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        hosts: Collection[str] = (),
        origins: Collection[str] = (),
        proxies: Proxies,
        refusal: Callable[[ConsisIDError], ASGIApp],
    ) -> None:
        self._app, self._refusal, self._proxies = app, refusal, proxies
        self._local = is_loopback(host)
        self._hosts = frozenset(name.lower() for name in hosts)
        self._origins = frozenset(map(origin, origins))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        app = self._app
        try:
            self._check(scope, Headers(scope=scope))
        except CrossSite as error:
            scope.setdefault("state", {})["code"] = error.code
            app = self._refusal(error)
        await app(scope, receive, send)

    def _check(self, scope: Scope, fields: Headers) -> None:
        named = fields.getlist("host")
        if len(named) != 1:
            raise CrossSite("a request names one host")
        if (self._local or self._hosts) and not self._knows(named[0]):
            raise CrossSite(f"{named[0][:100]!r} is no name of this gateway")
        if self._local and not self._proxies.networks and (found := [name for name in _FORWARDED if name in fields]):
            raise CrossSite(
                f"a proxy sent this ({found[0]}), and none is known: the settings name proxies and the gateway's hosts"
            )
        if scope["method"] not in _SAFE:
            self._check_origin(named[0], fields)

    def _knows(self, named: str) -> bool:
        found = _HOST.fullmatch(named)
        name = found["name"].lower() if found else ""
        return name in self._hosts or (self._local and is_loopback(name))

    def _check_origin(self, named: str, fields: Headers) -> None:
        """What changes something comes from a page of this gateway, from an allowed one, or from no page at all."""
        given, site = fields.get("origin"), fields.get("sec-fetch-site")
        if given is not None and given in self._origins:
            return
        if site is not None:
            if site not in _OWN:
                raise CrossSite(f"a page of another site sent this (Sec-Fetch-Site: {site[:40]!r})")
        elif given is not None and given.partition("://")[2].lower() != named.lower():
            raise CrossSite(f"a page of {given[:100]!r} sent this")


def origin(text: str) -> str:
    """As browsers write it. Raises `InvalidOption`."""
    if not _ORIGIN.fullmatch(text):
        raise InvalidOption(f"an origin is https://HOST or http://HOST:PORT and no more, got {text[:100]!r}")
    return text.lower()


def address_of(scope: Scope, proxies: Proxies) -> str:
    """Whose address it is that a request comes from, for limits and logs: a network of 64 bits of IPv6 is one."""
    peer = scope["client"][0] if scope.get("client") else ""
    return owner(proxies.caller(peer, Headers(scope=scope).getlist("x-forwarded-for")))
