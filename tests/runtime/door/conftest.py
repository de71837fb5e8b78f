"""Doors on the tiny repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from consisid_runtime.door.access import Access
from consisid_runtime.door.door import Door
from consisid_runtime.door.limits import Limits
from consisid_runtime.door.proxies import Proxies
from consisid_runtime.serve.tritonserver import TritonServer

STRICT = Limits(
    head_seconds=0.5, body_seconds=1.0, idle_seconds=1.0, silence=0.2, connections=8, queue=4, share=0.5, grace=1.0
)
"""Bounds that a test reaches in a moment."""


@pytest.fixture(scope="module")
def strict_door(tiny_repository: Path) -> Iterator[Door]:
    with Door(TritonServer(tiny_repository, private=True, ready_timeout=60), limits=STRICT) as door:
        yield door


@pytest.fixture(scope="module")
def behind(tiny_repository: Path) -> Iterator[Door]:
    """A door that trusts a proxy on loopback. A caller has two places of four in its queue, and four of eight calls."""
    server = TritonServer(tiny_repository, private=True, ready_timeout=60)
    with Door(server, access=Access(proxies=Proxies.read("127.0.0.1")), limits=STRICT) as door:
        yield door
