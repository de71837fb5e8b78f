"""Cases of everything that strangers send: none ends a process, hangs, or fails without a code of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from campaign import Campaign, Result
from case_kinds import KINDS
from door_requests import processes, video

from consisid_runtime.door.door import Door
from consisid_runtime.door.limits import Limits
from consisid_runtime.serve.tritonserver import TritonServer

BLOCK = 500
"""Cases of a trial in the record."""
FILES = sorted(Path(__file__).parent.glob("*.py"))


def test_a_sample() -> None:
    with Campaign() as campaign:
        results = {name: campaign.run(name, range(kind.sample)) for name, kind in KINDS.items() if kind.sample}
    assert {name: result.findings for name, result in results.items()} == {name: {} for name in results}
    refused = {name: result.outcomes.total() - result.outcomes["ok"] for name, result in results.items()}
    assert all(count > KINDS[name].sample / 4 for name, count in refused.items()), "cases are meant to be hostile"


def test_what_should_not_be_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An untyped error, a slow case, a crash and the case behind it."""
    (tmp_path / "planted_cases.py").write_text(
        "import os, time\n"
        "def make(chance): return chance\n"
        "def run(case):\n"
        "    number = run.number = getattr(run, 'number', -1) + 1\n"
        "    if number == 1: raise KeyError('planted')\n"
        "    if number == 2:\n"
        "        while time.process_time() < 3: pass\n"
        "    if number == 3: os.abort()\n"
    )
    result = Result()
    monkeypatch.syspath_prepend(tmp_path)
    with Campaign(FUZZED_PLANTED="planted_cases") as campaign:
        result = campaign.run("planted", range(5))
    assert result.outcomes == {"ok": 3, "untyped": 1, "ended with -6": 1}
    assert sorted(result.findings) == [1, 2, 3] and "planted" in result.findings[1]


@pytest.mark.proof
@pytest.mark.parametrize("kind", [name for name in KINDS if name not in ("door", "tensors")])
def test_every_case(kind: str, proof: Callable[..., Any]) -> None:
    with Campaign() as campaign:
        run(campaign, kind, proof("fuzzing", *FILES))


@pytest.mark.proof
def test_every_case_of_tensors(untrained_bundle: Path, proof: Callable[..., Any]) -> None:
    with Campaign(FUZZED_BUNDLE=str(untrained_bundle)) as campaign:
        run(campaign, "tensors", proof("fuzzing", *FILES))


@pytest.mark.proof
@pytest.mark.server
def test_every_case_at_a_door(tiny_repository: Path, proof: Callable[..., Any]) -> None:
    limits = Limits(head_seconds=0.5, body_seconds=0.5, idle_seconds=0.5, next_seconds=0.5)
    server = TritonServer(tiny_repository, private=True, ready_timeout=60)
    with Door(server, limits=limits) as door, Campaign(FUZZED_HTTP=door.http_url, FUZZED_GRPC=door.grpc_url) as campaign:
        before = processes(server, "tritonserver")
        run(campaign, "door", proof("fuzzing", *FILES))
        assert video(door) == b"abc" and processes(server, "tritonserver") == before


def run(campaign: Campaign, kind: str, record: Any) -> None:
    """All cases of a kind, but for those that the record has."""
    for start in range(0, KINDS[kind].cases, BLOCK):
        name = f"{kind} {start}"
        if name not in record.trials:
            result = campaign.run(kind, range(start, start + BLOCK))
            assert result.findings == {}
            record.record(name, **result.to_json())
