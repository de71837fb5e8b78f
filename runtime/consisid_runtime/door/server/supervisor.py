"""Starts Triton server again where it died or fell silent, each time later; and with another bundle."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from consisid_runtime.door.admission.queue import STOPPED, Queue
from consisid_runtime.door.limits import Limits
from consisid_runtime.door.server.upstream import Upstream
from consisid_runtime.door.server.waiting import aside, unless
from consisid_runtime.errors import ConsisIDError, ServerUnreachable
from consisid_runtime.serve.edition import Edition
from consisid_runtime.serve.tritonserver import TritonServer

_LOOK = 0.1
_UNHEARD = 4
"""Questions in a row that a server may leave unanswered: the last of them may have met a machine that stood still."""

Found = TypeVar("Found")

log = logging.getLogger(__name__)


class Stopped(Exception):
    """The door is being stopped."""


class Supervisor:
    """For one event loop.

    Args:
        server: a private one.
        limits: of pauses, attempts and patience with a server that answers nothing.
        forget: called where another bundle is served than before: figures of seconds hold no longer.

    Attributes:
        upstream: the running server's; None while there is none.
        edition: what it serves, or served last.
        starts: how often the server has been started, by `replace` apart.
        hung: how often it was ended because its models did not end a request, or because it answered nothing.
        took: seconds of the last start.
        replacing: whether the server is away because another edition is about to be served.
        changed: set, and replaced, when the server begins or ceases to serve.
    """

    def __init__(
        self,
        server: TritonServer,
        limits: Limits = Limits(),  # noqa: B008  it is frozen
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        self._server, self._limits, self._forget = server, limits, forget
        self.edition = server.edition
        self._serving, self._stopping = asyncio.Event(), asyncio.Event()
        self._starting, self._ending = asyncio.Lock(), asyncio.Lock()
        self.upstream: Upstream | None = None
        self.starts = self.hung = 0
        self.took = 0.0
        self.replacing = False
        self.changed = asyncio.Event()

    async def start(self) -> None:
        """Start the server, unless it runs. Raises what `TritonServer.start` does, and `Stopped`."""
        async with self._starting:
            if self.upstream is None:
                await self._start()
                self.starts += 1

    async def run(self) -> None:
        """Watch over the started server until `stop`. Raises the error of the last of several failed starts."""
        loop, limits = asyncio.get_running_loop(), self._limits
        pause, failures, began = limits.restart_seconds, 0, loop.time()
        with contextlib.suppress(Stopped):
            while True:
                if self.upstream is not None:
                    await self._end_of_server()
                    if loop.time() - began > limits.restart_settled_seconds:
                        pause = limits.restart_seconds
                async with self._starting:  # `replace` may start the next one
                    pass
                if self.upstream is not None:
                    failures, began = 0, loop.time()
                    continue
                await self.unless_stopped(asyncio.sleep(pause))
                pause = min(2 * pause, limits.restart_longest_seconds)
                try:
                    await self.start()
                except ConsisIDError as error:
                    failures += 1
                    log.error("start %d of %d failed: %s", failures, limits.restart_attempts, error)
                    if failures == limits.restart_attempts:
                        raise
                else:
                    failures, began = 0, loop.time()

    async def replace(self, edition: Edition, queue: Queue) -> None:
        """Serve another edition: end the server once nobody of the queue computes, which is held; start it anew.

        Raises what `TritonServer.start` does: `run` then starts the former edition again. Raises `Stopped`.
        """
        async with self._starting:
            while queue.computes:
                await self.unless_stopped(queue.next_end())
            former, self.replacing = self._server.edition, True
            try:
                await self._end(self._server.stop)
                self._server.edition = edition
                await self._start()
            except BaseException:
                self._server.edition = former
                raise
            finally:
                self.replacing = False
                self._tell()

    async def unless_stopped(self, wanted: Awaitable[Found]) -> Found:
        """What `wanted` returns. Raises `Stopped` where the door is stopped before."""
        return await unless(self._stopping, wanted, Stopped())

    async def serving(self, patience: float) -> Upstream:
        """The running server; waits for one that is started again.

        Raises `ServerUnreachable` after `patience` s, or where the door is stopped.
        """
        try:
            async with asyncio.timeout(patience):
                while True:
                    await self.unless_stopped(self._serving.wait())
                    # It may have died in the last moment, unnoticed so far.
                    if (upstream := self.upstream) is not None and await upstream.ready():
                        return upstream
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            raise ServerUnreachable(
                f"Triton server could not be started again within {patience:g} s; the request was not begun"
            ) from None
        except Stopped:
            raise ServerUnreachable(STOPPED) from None

    async def ready(self) -> bool:
        """Whether the server serves, or will in a moment, with another edition: requests wait for it."""
        return self.replacing or (self.upstream is not None and await self.upstream.ready())

    async def restart(self, upstream: Upstream) -> None:
        """End the server of `upstream`, which `run` then starts again; what it worked on ends with `ServerDied`."""
        if upstream is not self.upstream:
            return
        log.error("Triton server, or one of its models, hangs: it is started again")
        self.hung += 1
        await self._end(self._server.kill)

    def close(self) -> None:
        """Start nothing any more; refuse who waits for a start."""
        self._stopping.set()

    async def stop(self) -> None:
        """End the server, also one that is being started; `run` then returns."""
        self.close()
        await self._end(self._server.stop)
        while self._starting.locked():  # a start that has no process yet cannot be ended
            await asyncio.sleep(_LOOK)
            await self._end(self._server.stop)

    async def _start(self) -> None:
        async with self._ending:  # the one before, to its end
            pass
        await self.unless_stopped(aside(self._server.prepare))
        began = time.monotonic()
        try:
            await asyncio.to_thread(self._server.start)
        except ConsisIDError:
            if self._stopping.is_set():
                raise Stopped from None
            raise
        if self._stopping.is_set():
            await asyncio.to_thread(self._server.stop)
            raise Stopped
        self.took = time.monotonic() - began
        former, self.edition = self.edition, self._server.edition
        if former.fingerprint != self.edition.fingerprint:
            self._forget()
        self.upstream = Upstream(self._server.private_port)
        self._serving.set()
        self._tell()

    async def _end_of_server(self) -> None:
        """Until it has ended, by itself or by `_end`."""
        upstream = self.upstream
        listening = asyncio.create_task(self._listen())
        try:
            await asyncio.to_thread(self._server.wait)
        except ConsisIDError as error:
            if self.upstream is upstream:
                log.error("%s", error)
        finally:
            listening.cancel()
        if self.upstream is upstream:
            await self._end(self._server.stop)

    async def _listen(self) -> None:
        """End a server that runs and answers nothing: whoever waits for it would wait for ever."""
        upstream, pause, unheard = self.upstream, self._limits.stubborn / _UNHEARD / 2, 0
        while upstream is not None and upstream is self.upstream:
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
        async with self._ending:
            await asyncio.to_thread(end)

    def _tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()
