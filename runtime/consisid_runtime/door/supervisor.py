"""Starts Triton server again where it died or fell silent, each time later, until it cannot start."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from consisid_runtime.door.limits import Limits
from consisid_runtime.door.upstream import Upstream
from consisid_runtime.errors import ConsisIDError, ServerUnreachable
from consisid_runtime.serve.tritonserver import TritonServer

_LOOK = 0.1
_UNHEARD = 4
"""Questions in a row that a server may leave unanswered: the last of them may have met a machine that stood still."""

log = logging.getLogger(__name__)


class Supervisor:
    """For one event loop.

    Args:
        server: a private one.
        limits: of pauses, attempts and patience with a server that answers nothing.

    Attributes:
        upstream: the running server's; None while there is none.
        starts: how often the server has been started.
        hung: how often it was ended because its models did not end a request, or because it answered nothing.
        changed: set, and replaced, when the server begins or ceases to serve.
    """

    def __init__(self, server: TritonServer, limits: Limits = Limits()) -> None:  # noqa: B008  it is frozen
        self._server, self._limits = server, limits
        self._serving, self._stopping = asyncio.Event(), asyncio.Event()
        self._ending = asyncio.Lock()
        self.upstream: Upstream | None = None
        self.starts = self.hung = 0
        self.changed = asyncio.Event()

    async def start(self) -> None:
        """Start the server. Raises what `TritonServer.start` does."""
        await asyncio.to_thread(self._server.start)
        if self._stopping.is_set():
            await asyncio.to_thread(self._server.stop)
            return
        self.upstream = Upstream(self._server.private_port)
        self.starts += 1
        self._serving.set()
        self._tell()

    async def run(self) -> None:
        """Watch over the started server until `stop`. Raises the error of the last of several failed starts."""
        loop, limits = asyncio.get_running_loop(), self._limits
        pause, failures, began = limits.restart_seconds, 0, loop.time()
        while not self._stopping.is_set():
            if self.upstream is not None:
                await self._end_of_server()
                if loop.time() - began > limits.restart_settled_seconds:
                    pause = limits.restart_seconds
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
                return
            pause = min(2 * pause, limits.restart_longest_seconds)
            try:
                await self.start()
            except ConsisIDError as error:
                failures += 1
                log.error("start %d of %d failed: %s", failures, limits.restart_attempts, error)
                if failures == limits.restart_attempts and not self._stopping.is_set():
                    raise
            else:
                failures, began = 0, loop.time()

    async def serving(self, patience: float) -> Upstream:
        """The running server; waits for one that is started again. Raises `ServerUnreachable` after `patience` s."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._serving.wait()
            # It may have died in the last moment, unnoticed so far.
            if (upstream := self.upstream) is not None and await upstream.ready():
                return upstream
            await asyncio.sleep(_LOOK)
        raise ServerUnreachable(
            f"Triton server could not be started again within {patience:g} s; the request was not begun"
        )

    async def ready(self) -> bool:
        """Whether the server serves."""
        return self.upstream is not None and await self.upstream.ready()

    async def restart(self, upstream: Upstream) -> None:
        """End the server of `upstream`, which `run` then starts again; what it worked on ends with `ServerDied`."""
        if upstream is not self.upstream:
            return
        log.error("Triton server, or one of its models, hangs: it is started again")
        self.hung += 1
        await self._end(self._server.kill)

    async def stop(self) -> None:
        """End the server; `run` then returns."""
        self._stopping.set()
        await self._end(self._server.stop)

    async def _end_of_server(self) -> None:
        listening = asyncio.create_task(self._listen())
        try:
            await asyncio.to_thread(self._server.wait)
        except ConsisIDError as error:
            if self._stopping.is_set():
                return
            log.error("%s", error)
        finally:
            listening.cancel()
        await self._end(self._server.stop)

    async def _listen(self) -> None:
        """End a server that runs and answers nothing: whoever waits for it would wait for ever."""
        pause, unheard = self._limits.stubborn / _UNHEARD / 2, 0
        while (upstream := self.upstream) is not None:
            await asyncio.sleep(pause)
            unheard = 0 if await upstream.ready(pause) else unheard + 1
            if unheard == _UNHEARD:
                await asyncio.shield(self.restart(upstream))  # which ends this watch before it is done itself

    async def _end(self, end: Callable[[], None]) -> None:
        self._serving.clear()
        self._tell()
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            await upstream.close()
        async with self._ending:  # only then may it be started again
            await asyncio.to_thread(end)

    def _tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()
