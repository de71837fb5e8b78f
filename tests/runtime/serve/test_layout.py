"""Which layout a bundle is served in, without a GPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from consisid_benchmarks.fake_gpu.full_size import CONFIGS, FLOAT32
from consisid_runtime.bundle import Bundle
from consisid_runtime.errors import InvalidOption
from consisid_runtime.memory.decide import PROCESSES, process_needs
from consisid_runtime.memory.needs import ORDER, read
from consisid_runtime.memory.plan import GIB, RESERVED
from consisid_runtime.models.configs.checkpoint import CheckpointConfig
from consisid_runtime.serve import layout
from consisid_runtime.serve.layout import check, choose
from consisid_runtime.serve.server import Server
from consisid_runtime.stages.table import STAGES

CONFIG = CheckpointConfig(CONFIGS.__getitem__)
MODULES = {name: {"engine": "torch", "precision": "fp32" if name in FLOAT32 else "bf16"} for name in ORDER}
FULL: Any = SimpleNamespace(config=CONFIG, manifest={"modules": MODULES}, device="auto")


def test_the_processes_are_the_stages_and_every_module_is_in_one() -> None:
    assert len(PROCESSES) == len(STAGES)
    assert sorted(name for names in PROCESSES for name in names) == sorted(ORDER)


def test_processes_share_nothing() -> None:
    weights = sum(read().weights.values())
    assert process_needs(CONFIG, MODULES) > weights + len(PROCESSES) * RESERVED
    assert 36 * GIB < process_needs(CONFIG, MODULES) < 48 * GIB


@pytest.mark.parametrize(
    ("gib", "chosen"), [(None, "ensemble"), (80, "ensemble"), (24, "single")], ids=["no GPU", "large", "small"]
)
def test_auto_is_the_ensemble_where_it_fits(monkeypatch: pytest.MonkeyPatch, gib: int | None, chosen: str) -> None:
    monkeypatch.setattr(layout, "_free", lambda device: None if gib is None else gib * GIB)
    assert choose("auto", FULL, None) == chosen


def test_what_was_asked_for_is_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_free", lambda device: pytest.fail("asked"))
    assert [choose(asked, FULL, None) for asked in ("ensemble", "single")] == ["ensemble", "single"]


def test_a_memory_setting_means_one_process(untrained_bundle: Path) -> None:
    assert choose("auto", FULL, 24) == choose("single", FULL, "auto") == "single"
    with pytest.raises(InvalidOption, match="memory is for bundles of engine 'torch'"):
        choose("auto", Bundle.open(untrained_bundle), 24)


def test_a_bundle_that_is_not_in_the_table_is_an_ensemble(untrained_bundle: Path) -> None:
    assert choose("auto", Bundle.open(untrained_bundle), None) == "ensemble"


def test_a_process_of_its_own_asks_for_the_free_memory() -> None:
    """Nobody has this GPU: the process that asks ends with an error."""
    assert layout._free("cuda:99") is layout._free("cpu") is None


@pytest.mark.parametrize(
    ("asked", "memory", "message"),
    [
        ("both", None, "layout must be auto, ensemble, single, got 'both'"),
        ("ensemble", 24, "memory is for layout 'single'"),
        ("single", 13, "memory must be 12, 16"),
    ],
)
def test_what_does_not_agree_is_noticed_before_anything_starts(asked: str, memory: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        check(asked, memory)
    with pytest.raises(InvalidOption, match=message):
        Server("nowhere", layout=asked, memory=memory)
