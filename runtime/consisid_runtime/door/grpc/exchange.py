"""Reads and writes the messages of a call, in a time that is bounded, and who it is that calls."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from google.protobuf.message import Message

from consisid_runtime.door.limits import Limits
from consisid_runtime.door.proxies import Proxies
from consisid_runtime.errors import ServerTimeout


async def read(context: Any, seconds: float) -> bytes | None:
    """The call's next message; None where the caller has sent all. Raises `ServerTimeout`."""
    try:
        async with asyncio.timeout(seconds):
            data = await context.read()
    except TimeoutError:
        raise ServerTimeout("no request arrived in time") from None
    return None if data is grpc.aio.EOF else bytes(data)


async def write(context: Any, message: Message, limits: Limits) -> None:
    """Raises `ServerTimeout` where the caller does not take it."""
    try:
        async with asyncio.timeout(limits.body_seconds):
            await context.write(message.SerializeToString())
    except TimeoutError:
        raise ServerTimeout("the answer was not taken in time") from None


def named(context: Any) -> list[str]:
    """What the caller calls its request, and its `traceparent`; empty where it does not say."""
    found = dict(context.invocation_metadata())
    given = (found.get(name, "") for name in ("x-request-id", "traceparent"))
    return [value if isinstance(value, str) else "" for value in given]


def host(context: Any, proxies: Proxies) -> str:
    """The caller's, as its connection or a trusted proxy says.

    `ipv4:127.0.0.1:4242` and `ipv6:%5B::1%5D:4242` are what gRPC calls its peers.
    """
    kind, _, rest = str(context.peer()).partition(":")
    found = rest.rpartition(":")[0]
    peer = found.removeprefix("%5B").removesuffix("%5D").strip("[]") if kind in ("ipv4", "ipv6") else kind
    hops = [str(value) for name, value in context.invocation_metadata() if name == "x-forwarded-for"]
    return proxies.caller(peer, hops)
