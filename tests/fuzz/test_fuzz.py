"""Cases of everything that strangers send: none ends a process, hangs, or fails without a code of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from campaign import SOURCES, Campaign
from case_kinds import KINDS, Kind

OF_BUNDLES = "stream", "tensor"


def test_a_sample() -> None:
    sampled = {name: kind for name, kind in KINDS.items() if kind.sample and name not in OF_BUNDLES}
    with Campaign() as campaign:
        results = {name: campaign.run(name, range(kind.sample)) for name, kind in sampled.items()}
    assert {name: result.findings for name, result in results.items()} == {name: {} for name in results}
    refused = {name: result.outcomes.total() - result.outcomes["ok"] for name, result in results.items()}
    assert all(count > KINDS[name].sample / 4 for name, count in refused.items()), "cases are meant to be hostile"


@pytest.mark.parametrize("kind", OF_BUNDLES)
def test_a_sample_for_a_bundle(kind: str, untrained_bundle: Path) -> None:
    with Campaign(FUZZED_BUNDLE=str(untrained_bundle)) as campaign:
        result = campaign.run(kind, range(KINDS[kind].sample))
    assert result.findings == {}
    assert result.outcomes.total() - result.outcomes["ok"] > KINDS[kind].sample / 4, "cases are meant to be hostile"


PLANTED = """
import os, time
from random import Random

def make(chance):
    first = chance.random()
    return next((n for n in range(9) if Random(f"planted {n}").random() == first), 0)

def run(number):
    if number == 1:
        raise KeyError("planted")
    if number == 2:
        begin = time.process_time()
        while time.process_time() < begin + 1.2:
            pass
    if number == 3:
        os.abort()
    if number == 4:
        b"x" * (number * 2**25)
"""
"""Cases that fail in every way."""


def test_what_should_not_be_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted_cases.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("campaign.SECONDS", 1.0)
    monkeypatch.setitem(KINDS, "planted", Kind(6, 6, 2**26))
    with Campaign() as campaign:
        result = campaign.run("planted", range(6))
    assert result.outcomes == {"ok": 4, "untyped": 1, "ended with -6": 1}
    assert {number: found.splitlines()[-1] for number, found in result.findings.items() if number in (1, 2, 4)} == {
        1: "KeyError: 'planted'",
        2: "it took 1.2 s",
        4: "it took 128 MiB",
    }
    assert result.findings[3].startswith("ended with -6\nFatal Python error: Aborted")


@pytest.mark.proof
@pytest.mark.parametrize("kind", [name for name in KINDS if name not in ("door", *OF_BUNDLES)])
def test_no_case_ends_a_process_or_fails_without_a_code(kind: str, proof: Callable[..., Any]) -> None:
    with Campaign() as campaign:
        assert campaign.prove(kind, proof("fuzzing", *SOURCES)) == {}


@pytest.mark.proof
@pytest.mark.parametrize("kind", OF_BUNDLES)
def test_nor_does_one_for_a_bundle(kind: str, untrained_bundle: Path, proof: Callable[..., Any]) -> None:
    with Campaign(FUZZED_BUNDLE=str(untrained_bundle)) as campaign:
        assert campaign.prove(kind, proof("fuzzing", *SOURCES)) == {}
