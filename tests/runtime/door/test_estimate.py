"""An estimate is answered by the door: without a photograph, a place in the queue or the models."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from consisid_runtime import AsyncClient, Client, Options
from consisid_runtime.door.access import Access
from consisid_runtime.door.admission.demand import Demand
from consisid_runtime.door.admission.queue import Queue
from consisid_runtime.door.door import Door
from consisid_runtime.door.foresight import Foresight
from consisid_runtime.door.limits import Limits
from consisid_runtime.errors import Busy, InvalidOption, Unauthenticated
from consisid_runtime.plan import Geometry, Plan, plan
from consisid_runtime.serve.tritonserver import TritonServer

SIZES = Geometry(frames=49, height=480, width=720, spatial=8, temporal=4, patch=2, fixed_size=False)
TOKEN = "a-token-of-the-tests"


def resolve(options: Options) -> Plan:
    return plan(options, SIZES)


class Counted(TritonServer):
    """A byte of its GPU for each frame."""

    def device_bytes(self, request: Plan) -> int | None:
        return request.frames


@contextmanager
def opened(tiny_repository: Path) -> Iterator[Door]:
    server = Counted(tiny_repository, private=True, ready_timeout=60)
    known: Any = SimpleNamespace(plan=resolve, fingerprint="tiny")
    server.edition = replace(server.edition, bundle=known)
    limits = Limits(queue=1, share=1.0, steps=100)
    with Door(server, limits=limits, access=Access(token=TOKEN)) as started:
        yield started


@pytest.fixture(scope="module")
def door(tiny_repository: Path) -> Iterator[Door]:
    with opened(tiny_repository) as started:
        yield started


@pytest.fixture(params=["grpc_url", "http_url"])
def client(request: pytest.FixtureRequest, door: Door) -> Iterator[Client]:
    with Client(getattr(door, request.param), timeout=30, token=TOKEN) as opened:
        yield opened


def posted(door: Door, **body: Any) -> dict[str, Any]:
    """As curl does."""
    path = f"{door.http_url}/v2/models/consisid_stream/generate"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with urllib.request.urlopen(urllib.request.Request(path, json.dumps(body).encode(), headers), timeout=30) as got:
        return dict(json.load(got))


def requests(door: Door) -> list[str]:
    """The door's counters of requests."""
    asked = urllib.request.Request(door.metrics_url, headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sorted(line for line in lines if line.startswith(("consisid_requests_total", "consisid_request_seconds")))


@pytest.mark.server
def test_nothing_is_made_up(tiny_repository: Path) -> None:
    """Of a door that has made nothing yet."""
    with opened(tiny_repository) as door:
        before = requests(door)
        for url in (door.grpc_url, door.http_url):
            with Client(url, timeout=30, token=TOKEN) as client:
                found = client.estimate(Options(frames=17))
            assert (found.seconds, found.stages, found.host_bytes) == (None, {}, None)
            assert (found.position, found.seconds_queued) == (0, 0)
            assert found.device_bytes == 17 and found.sources == {"device_bytes": "counted"}
        assert requests(door) == before, "it is no request for inference"

        async def main() -> None:
            async with AsyncClient(door.grpc_url, token=TOKEN) as other:
                assert await other.estimate(Options(frames=17)) == found

        asyncio.run(main())


@pytest.mark.server
def test_what_a_request_would_be_refused_for_an_estimate_is(client: Client, door: Door) -> None:
    with pytest.raises(InvalidOption, match="--max-steps is 100, the request asks for 101"):
        client.estimate(Options(steps=101))
    with pytest.raises(InvalidOption, match="8k"):
        client.estimate(Options(frames=16))
    with pytest.raises(Unauthenticated), Client(door.http_url, token="") as stranger:
        stranger.estimate()
    for more in ({"image": "YWJj"}, {"prompt": "a man"}, {"identity": "h" * 32}):
        with pytest.raises(urllib.error.HTTPError, match="400"):
            posted(door, action="estimate", **more)


@pytest.mark.server
def test_a_full_queue_estimates(client: Client, door: Door) -> None:
    assert posted(door, id="mine", action="estimate", steps=7)["info"]["position"] == 0
    threads = [threading.Thread(target=client.generate, args=(b"abc", "sleep 2")) for _ in range(2)]
    for number, thread in enumerate(threads):
        thread.start()
        while posted(door, action="estimate")["info"]["position"] != number + 1:
            pass
    found = client.estimate()
    assert found.position == 2 and found.seconds_queued != 0, "unknown before the first video has succeeded"
    assert posted(door, action="estimate", priority=1)["info"]["position"] == 0
    with pytest.raises(Busy):
        client.generate(b"abc", "a man")
    for thread in threads:
        thread.join()


def test_what_was_measured_is_told() -> None:
    """Of a door whose server this process is."""
    own = os.getpid()

    async def main() -> None:
        server: Any = SimpleNamespace(processes=(own,), loaded_bytes=2**20, device_bytes=lambda _: None)
        upstream: Any = object()
        supervisor: Any = SimpleNamespace(upstream=upstream)
        demand = Demand(Limits(), lambda: resolve)
        foresight = Foresight(server, Queue(Limits()), demand, supervisor)
        request = resolve(Options(steps=10))
        foresight.watch(upstream)
        assert foresight.estimate(request, urgent=False).host_bytes is None
        demand.learn(request, {"denoise": 20.0, "decode": 1.0})
        foresight.learn(request)
        found = foresight.estimate(resolve(Options(steps=20)), urgent=False)
        assert found.seconds == pytest.approx(41) and found.stages == {"denoise": pytest.approx(40), "decode": 1}
        assert found.host_bytes and found.host_bytes >= 2**20 and found.device_bytes is None
        assert found.sources == {"seconds": "measured", "host_bytes": "measured"}
        assert foresight.estimate(None, urgent=False).sources == {}
        supervisor.upstream = None
        dead = foresight.estimate(request, urgent=False)
        assert dead.host_bytes is None and dead.seconds_queued is None and dead.seconds == pytest.approx(21)
        supervisor.upstream = object()
        assert foresight.estimate(request, urgent=False).host_bytes is None, "another server has made nothing yet"

    asyncio.run(main())
