"""The key of every request but those that anybody may send. Refuses before a body is read or a route is looked for."""

from __future__ import annotations

from collections.abc import Callable, Collection

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from consisid_gateway.access import keys
from consisid_gateway.access.attempts import Attempts
from consisid_gateway.access.caller import Caller
from consisid_gateway.access.keyring import Keyring
from consisid_gateway.access.rates import Rates
from consisid_gateway.access.sites import address_of
from consisid_gateway.access.streams import while_valid
from consisid_gateway.errors import StorageUnavailable
from consisid_gateway.jobs.database import Database
from consisid_runtime.door.proxies import Proxies
from consisid_runtime.errors import ConsisIDError, Unauthenticated


def caller_of(request: Request) -> Caller:
    """Whose request it is: a dependency of FastAPI, behind `Authentication`."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


class Authentication:
    """An ASGI application around another one.

    Keys are asked for on any address but loopback, and on loopback as soon as one was made: a proxy there would
    otherwise open the gateway to everybody.

    Args:
        host: that the gateway listens on.
        proxies: whose word is taken for who calls.
        refusal: an answer for an error.
        open_paths: what needs no key; one that ends in `/` stands for all below it.
    """

    def __init__(
        self,
        app: ASGIApp,
        database: Database,
        *,
        host: str,
        proxies: Proxies,
        refusal: Callable[[ConsisIDError], ASGIApp],
        open_paths: Collection[str],
    ) -> None:
        self._app, self._proxies, self._refusal = app, proxies, refusal
        self._always = not keys.is_loopback(host)
        self._open = frozenset(open_paths)
        self._folders = tuple(path for path in open_paths if path.endswith("/") and path != "/")
        self._attempts, self._rates, self._keyring = Attempts(), Rates(database), Keyring(database)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        app = self._app
        try:
            key = await self._enter(scope)
            if key is not None and scope["method"] == "GET":
                receive = while_valid(receive, lambda: self._still(key))
        except ConsisIDError as error:
            scope["state"]["code"] = error.code
            app = self._refusal(error)
        await app(scope, receive, send)

    async def _enter(self, scope: Scope) -> str | None:
        """Leaves `caller` and `address` in the request's state; returns its key."""
        state, path = scope.setdefault("state", {}), scope["path"]
        state["address"] = address_of(scope, self._proxies)
        if keys.PREFIX.encode() in scope["query_string"]:
            raise Unauthenticated("a key in a URL is in everybody's logs: revoke it, and send one as a header")
        if path in self._open or path.startswith(self._folders):
            return None
        key, caller = None, Caller()
        if self._always or await self._keyring.any_made():
            key = _key(Headers(scope=scope).getlist("authorization"))
            caller = await self._caller(key, state["address"])
        state["caller"] = caller
        await self._rates.count(caller)
        return key

    async def _caller(self, key: str, address: str) -> Caller:
        if not self._keyring.knew(key):
            # Of who had a valid key before nothing is to be feared, whoever else calls from this address.
            self._attempts.check(address)
        caller = await self._keyring.find(key)
        if caller is None:
            self._attempts.fail(address)
            raise Unauthenticated("this key does not exist, or was revoked")
        return caller

    async def _still(self, key: str) -> bool:
        try:
            return await self._keyring.find(key) is not None
        except StorageUnavailable:
            return True  # what was begun may go on


def _key(given: list[str]) -> str:
    scheme, _, key = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer":
        raise Unauthenticated("this gateway wants an API key in the header `Authorization: Bearer KEY`")
    return key.strip()
