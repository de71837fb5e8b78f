"""Tells what a request would take, without a place in the queue."""

from __future__ import annotations

import json
import struct
from typing import Any

from tritonclient.grpc import service_pb2

from consisid_runtime.door.admission.demand import Demand
from consisid_runtime.door.admission.queue import Queue
from consisid_runtime.door.server.supervisor import Supervisor
from consisid_runtime.door.server.upstream import Upstream
from consisid_runtime.memory.peak import HostPeak, peak_bytes
from consisid_runtime.plan import Plan
from consisid_runtime.serve.tritonserver import TritonServer
from consisid_runtime.stages.estimate import Estimate


class Foresight:
    """Of one door. What it knows of the host's memory ends with each start of the server."""

    def __init__(self, server: TritonServer, queue: Queue, demand: Demand, supervisor: Supervisor) -> None:
        self._server, self._queue, self._demand, self._supervisor = server, queue, demand, supervisor
        self._watched: Upstream | None = None
        self._processes: tuple[int, ...] = ()
        self._host = HostPeak(None)

    def watch(self, upstream: Upstream) -> None:
        """Begin anew for a server that was started, before its first request; later calls do nothing."""
        if upstream is not self._watched:
            self._watched, self._processes = upstream, self._server.processes
            self._host = HostPeak(self._server.loaded_bytes)

    def learn(self, plan: Plan | None) -> None:
        """The server has made a video."""
        if plan is not None:
            self._host.learn(plan, peak_bytes(self._processes))

    def estimate(self, plan: Plan | None, *, urgent: bool) -> Estimate:
        """Of a request that came now."""
        serves = self._supervisor.upstream is not None
        return Estimate.of(
            self._demand.stages(plan),
            self._host.foreseen(plan) if plan is not None and self._supervisor.upstream is self._watched else None,
            None if plan is None else self._server.device_bytes(plan),
            position=self._queue.position(urgent=urgent),
            seconds_queued=self._queue.wait(urgent=urgent) if serves else None,
        )


def response_of(estimate: Estimate) -> Any:
    """As the ModelInferResponse of a model, in its output `info`."""
    text = json.dumps(estimate.to_json()).encode()
    response = service_pb2.ModelInferResponse()
    response.outputs.add(name="info", datatype="BYTES", shape=[1])
    response.raw_output_contents.append(struct.pack("<I", len(text)) + text)
    return response
