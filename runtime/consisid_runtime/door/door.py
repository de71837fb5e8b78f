"""A door before a Triton server, as a context manager: an event loop in a thread that starts and watches the server."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from consisid_runtime.door.access import Access
from consisid_runtime.door.consent import Consent
from consisid_runtime.door.grpc.listener import Listener as GrpcListener
from consisid_runtime.door.grpc.service import Service
from consisid_runtime.door.http.app import App
from consisid_runtime.door.http.listener import Listener as HttpListener
from consisid_runtime.door.limits import Limits
from consisid_runtime.door.parts import Parts
from consisid_runtime.door.signing import Signing
from consisid_runtime.door.traces import Traces
from consisid_runtime.errors import InvalidOption, ServerUnreachable
from consisid_runtime.provenance.credentials import Signer
from consisid_runtime.provenance.hooks import ConsentHook
from consisid_runtime.serve.address import free_ports, in_url, reachable, resolve
from consisid_runtime.serve.tritonserver import TritonServer


class Door:
    """A Triton server that others may call, behind the checks, the queue and the limits of this package.

    Args:
        server: a private one, not started.
        host: the address of this machine to bind, as for `TritonServer`.
        grpc_port, http_port: 0 picks a free one.
        access: token and TLS.
        limits: see `Limits`.
        consent: asked before every request, see `provenance.hooks`.
        signer: signs every video.
        traces: where spans of requests go, see `Traces`.

    Attributes:
        grpc_url, http_url, metrics_url: where it listens, once started.
    """

    def __init__(
        self,
        server: TritonServer,
        *,
        host: str = "127.0.0.1",
        grpc_port: int = 0,
        http_port: int = 0,
        access: Access = Access(),  # noqa: B008  it is frozen
        limits: Limits = Limits(),  # noqa: B008  it is frozen
        consent: ConsentHook | None = None,
        signer: Signer | None = None,
        traces: str | None = None,
    ) -> None:
        self._consent, self._signer = consent, signer
        self._traces = Traces(traces)
        self._server, self._host, self._access, self._limits = server, host, access, limits
        self._ports = (grpc_port, http_port, 0)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._parts: Parts | None = None
        self._stop_asked = self._reload_asked = False
        self._ended: Future[None] = Future()
        self.grpc_url = self.http_url = self.metrics_url = ""

    def start(self) -> Self:
        """Start the server, then listen.

        Raises `InvalidOption` for an address or a port that cannot be bound, and what the server's `start` raises.
        """
        address = resolve(self._host)
        self._ports = free_ports(address, self._ports)
        shown, tls = in_url(reachable(address)), "s" if self._access.key else ""
        self.grpc_url = f"grpc{tls}://{shown}:{self._ports[0]}"
        self.http_url = f"http{tls}://{shown}:{self._ports[1]}"
        self.metrics_url = f"{self.http_url}/metrics"
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(str(address), in_url(address), started), daemon=True)
        self._thread.start()
        try:
            started.result()
        except BaseException:
            self.stop()
            raise
        return self

    def wait(self) -> None:
        """Block while the door serves. Raises the error that ended it."""
        self._ended.result()

    def stop(self) -> None:
        """Refuse what waits, let what runs end within the grace, end the server. Idempotent."""
        self._stop_asked = True
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._loop is not None and self._stopping is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join()

    def reload(self) -> None:
        """Serve what the bundle's path has now, see `Reload`; returns at once. For any thread, and signal handlers.

        Before the server has started it is done after that.
        """
        self._reload_asked = True
        if self._loop is not None and self._parts is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._parts.reload.ask)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, host: str, shown: str, started: Future[None]) -> None:
        try:
            asyncio.run(self._serve(host, shown, started))
        except BaseException as error:
            self._ended.set_exception(error)
            if not started.done():
                started.set_exception(error)
        else:
            self._ended.set_result(None)
            if not started.done():
                started.set_exception(ServerUnreachable("the door was stopped before it had started"))

    async def _serve(self, host: str, shown: str, started: Future[None]) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        parts = Parts(
            self._server,
            self._access,
            self._limits,
            Consent(self._consent, self._limits),
            Signing(self._signer),
            self._traces,
        )
        self._parts = parts
        if self._stop_asked:
            self._stopping.set()
        if self._reload_asked:
            parts.reload.ask()
        http_listener = HttpListener(App(parts), self._access, self._limits)
        grpc_listener = GrpcListener(Service(parts), self._access, self._limits)
        stopping = asyncio.create_task(self._stopping.wait())
        tasks: list[asyncio.Task[Any]] = [stopping]
        try:
            tasks.append(start := asyncio.create_task(parts.supervisor.start()))
            await asyncio.wait({start, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                return
            start.result()
            try:
                await http_listener.start(host, self._ports[1])
                await grpc_listener.start(f"{shown}:{self._ports[0]}")
            except (OSError, RuntimeError) as error:
                raise InvalidOption(f"cannot listen on {shown}: {error}; choose other ports") from error
            started.set_result(None)
            tasks.append(asyncio.create_task(parts.reload.run()))
            tasks.append(watch := asyncio.create_task(parts.supervisor.run()))
            await asyncio.wait({watch, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if watch.done():
                watch.result()
        finally:
            self._stopping.set()
            parts.supervisor.close()
            await parts.dispatch.close()
            await asyncio.gather(http_listener.stop(), grpc_listener.stop())
            await parts.supervisor.stop()
            await asyncio.to_thread(self._traces.close)
            await asyncio.gather(*tasks, return_exceptions=True)
