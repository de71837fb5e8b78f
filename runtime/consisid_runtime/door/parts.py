"""The parts of one door, which both protocols share."""

from __future__ import annotations

import asyncio
import http.client
import socket
from dataclasses import dataclass, field
from pathlib import Path

from consisid_runtime.door.access import Access
from consisid_runtime.door.admission.budget import Budget
from consisid_runtime.door.admission.demand import Demand
from consisid_runtime.door.admission.queue import Queue
from consisid_runtime.door.consent import Consent
from consisid_runtime.door.dispatch import Dispatch
from consisid_runtime.door.foresight import Foresight
from consisid_runtime.door.limits import Limits
from consisid_runtime.door.meters import Meters
from consisid_runtime.door.records import Records
from consisid_runtime.door.server.reload import Reload
from consisid_runtime.door.server.supervisor import Supervisor
from consisid_runtime.door.signing import Signing
from consisid_runtime.door.traces import Traces
from consisid_runtime.serve.tritonserver import TritonServer


@dataclass
class Parts:
    """Belongs to the event loop in which it is made."""

    server: TritonServer
    access: Access
    limits: Limits
    consent: Consent
    signing: Signing
    traces: Traces
    queue: Queue = field(init=False)
    budget: Budget = field(init=False)
    supervisor: Supervisor = field(init=False)
    reload: Reload = field(init=False)
    meters: Meters = field(init=False)
    dispatch: Dispatch = field(init=False)
    records: Records = field(init=False)

    def __post_init__(self) -> None:
        self.queue, self.budget = Queue(self.limits), Budget(self.limits)
        demand = Demand(self.limits, lambda: self.supervisor.edition.plan)

        def forget() -> None:
            demand.forget()
            self.queue.forget()

        self.supervisor = Supervisor(self.server, self.limits, forget)
        self.reload = Reload(self.server, self.supervisor, self.queue)
        self.meters = Meters(self.limits, self.queue, self.budget, self.supervisor, self.reload)
        foresight = Foresight(self.server, self.queue, demand, self.supervisor)
        self.dispatch = Dispatch(
            self.limits, self.queue, demand, foresight, self.supervisor, self.consent, self.signing, self.meters
        )
        self.records = Records(self.meters, self.traces)

    async def metrics(self) -> bytes:
        """The door's, and Triton server's own."""
        upstream = self.supervisor.upstream
        own = self.meters.text()
        if upstream is None or upstream.port.metrics is None:
            return own
        return own + await asyncio.to_thread(_fetch, upstream.port.metrics)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect(str(self._path))


def _fetch(path: Path) -> bytes:
    """Triton server's metrics from its socket; empty where it does not answer."""
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return b""
    finally:
        connection.close()
