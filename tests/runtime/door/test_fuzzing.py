"""Cases of tests/fuzz at a door that listens: each is answered in time with a code of ours, and nothing ends."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from campaign import SOURCES, Campaign
from door_requests import processes, video

from consisid_runtime.door.door import Door
from consisid_runtime.door.limits import Limits
from consisid_runtime.serve.tritonserver import TritonServer

LIMITS = Limits(head_seconds=0.5, body_seconds=0.5, idle_seconds=0.5, next_seconds=0.5)
"""Requests that are cut off are waited for no longer."""
GROWTH = 2**29
"""Bytes that this process, with the door in it, may grow by; a video's frames have up to 51 MB."""


@pytest.mark.proof
@pytest.mark.server
def test_every_case_is_answered_in_time_with_a_code_and_nothing_ends(
    tiny_repository: Path, proof: Callable[..., Any]
) -> None:
    server = TritonServer(tiny_repository, private=True, ready_timeout=60)
    with (
        Door(server, limits=LIMITS) as door,
        Campaign(FUZZED_HTTP=door.http_url, FUZZED_GRPC=door.grpc_url) as campaign,
    ):
        before, held = processes(server, "tritonserver"), resident()
        assert campaign.prove("door", proof("fuzzing-door", *SOURCES)) == {}
        assert video(door) == b"abc" and processes(server, "tritonserver") == before
        assert resident() - held < GROWTH


def resident() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
