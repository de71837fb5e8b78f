"""What a request takes of memory is counted or measured, or nothing is said."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from consisid_benchmarks.fake_gpu.full_size import CONFIGS, FLOAT32
from consisid_runtime.memory import peak as subject
from consisid_runtime.memory.decide import process_needs
from consisid_runtime.memory.needs import ORDER, read
from consisid_runtime.memory.peak import HostPeak, device_bytes, own_peak, peak_bytes
from consisid_runtime.memory.plan import GIB, RESERVED, fit
from consisid_runtime.models.configs.checkpoint import CheckpointConfig
from consisid_runtime.options import Options
from consisid_runtime.plan import Plan, plan

CONFIG = CheckpointConfig(CONFIGS.__getitem__)
MODULES = {name: {"engine": "torch", "precision": "fp32" if name in FLOAT32 else "bf16"} for name in ORDER}
OWN, LARGE = (plan(Options(frames=frames), CONFIG.geometry) for frames in (None, 97))


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with a GPU."""
    monkeypatch.setattr(subject, "_DRIVERS", ("/dev/null",))


def counted(request: Plan = OWN, processes: bool = False, setting: Any = None, **changed: Any) -> int | None:
    bundle: Any = SimpleNamespace(config=CONFIG, manifest={"modules": MODULES}, device="auto", memory=None)
    vars(bundle).update(changed)
    return device_bytes(bundle, request, processes=processes, memory=setting)


def test_without_a_gpu_none_of_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert counted(device="cpu") == 0
    monkeypatch.setattr(subject, "_DRIVERS", ("/dev/absent",))
    assert counted(device="auto") == 0


def test_processes_take_more_than_one_that_holds_all() -> None:
    assert counted(processes=True) == process_needs(CONFIG, MODULES)
    whole = counted()
    needs = read()
    assert whole == needs.fixed + sum(needs.weights.values()) + max(needs.working.values()) + RESERVED
    assert whole < process_needs(CONFIG, MODULES)
    for processes in (True, False):
        more, less = counted(LARGE, processes), counted(OWN, processes)
        assert more is not None and less is not None and more > less


def test_a_memory_setting_is_kept() -> None:
    found = fit(read(), 24 * GIB - RESERVED)
    assert found is not None
    assert counted(setting=24) == counted(memory=found) == found.peak + RESERVED <= 24 * GIB
    grown = counted(plan(Options(frames=193), CONFIG.geometry), memory=found)
    assert grown is not None and grown > found.peak + RESERVED, "where its own work outgrows the weights' rooms"


def test_nothing_is_said_where_nobody_counted() -> None:
    assert counted(setting="auto") is None, "what was free there is not known here"
    other = {"modules": MODULES | {"parser": {"engine": "onnx", "precision": "fp32"}}}
    assert counted(manifest=other) is None and counted(manifest=other, processes=True) is None


def test_the_host_grows_with_the_largest_video() -> None:
    host = HostPeak(1000)
    assert host.foreseen(OWN) is None
    host.learn(OWN, 1490)
    assert host.foreseen(OWN) == 1490
    assert host.foreseen(LARGE) == 1000 + 970
    host.learn(LARGE, 1800)
    assert host.foreseen(OWN) == host.foreseen(LARGE) == 1800, "processes keep what they took"
    host.learn(LARGE, None)
    assert host.foreseen(LARGE) == 1800
    unknown = HostPeak(None)
    unknown.learn(OWN, 1)
    assert unknown.foreseen(OWN) is None


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel tells it in /proc")
def test_the_kernel_tells_peaks() -> None:
    own = own_peak()
    assert own is not None and own > 2**20
    assert peak_bytes([os.getpid()] * 2) == 2 * own
    assert peak_bytes([os.getpid(), 2**22 + 1]) is None and peak_bytes([]) is None
