"""A memory setting is decided before anything is loaded, and refused where no plan could be kept."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from consisid_benchmarks.fake_gpu.full_size import CONFIGS, FLOAT32
from consisid_runtime import pipeline
from consisid_runtime.bundle import Bundle
from consisid_runtime.cli import main
from consisid_runtime.errors import InvalidOption, MemoryTooSmall, NoFace
from consisid_runtime.memory.decide import decide, needs_of, require_covered
from consisid_runtime.memory.needs import ORDER, architecture, counted, read
from consisid_runtime.memory.plan import GIB, RESERVED, SETTINGS, fit
from consisid_runtime.models.configs.checkpoint import CheckpointConfig
from consisid_runtime.options import Options
from consisid_runtime.plan import plan

CONFIG = CheckpointConfig(CONFIGS.__getitem__)
MODULES = {name: {"engine": "torch", "precision": "fp32" if name in FLOAT32 else "bf16"} for name in ORDER}


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Makes a GPU with so many GiB free."""

    def make(gib: float) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (round(gib * GIB), 200 * GIB))

    return make


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_is_that_of_the_table(setting: int, free: Callable[[float], None]) -> None:
    free(100)
    assert decide(setting, CONFIG, MODULES, "cuda") == fit(read(), setting * GIB - RESERVED)


def test_auto_takes_what_is_free(free: Callable[[float], None]) -> None:
    free(20.25)
    assert decide("auto", CONFIG, MODULES, "auto") == fit(read(), round(20.25 * GIB) - RESERVED)
    free(6)
    with pytest.raises(
        MemoryTooSmall, match=r"^6\.0 GiB, which this GPU has free, is too little .* setting for it is 12$"
    ):
        decide("auto", CONFIG, MODULES, "cuda")


def test_a_gpu_of_that_size_will_do_though_less_is_free(free: Callable[[float], None]) -> None:
    free(24 - RESERVED / GIB)
    assert decide(24, CONFIG, MODULES, "cuda:0").budget == 24 * GIB - RESERVED
    free(22)
    with pytest.raises(MemoryTooSmall, match=r"memory 24: this GPU has 22.0 GiB free; 'auto' takes what there is"):
        decide(24, CONFIG, MODULES, "cuda:0")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"parser": {"engine": "onnx", "precision": "fp32"}}, "engine 'torch' alone, parser is for 'onnx'"),
        ({"dit_step": {"engine": "torch", "precision": "fp32"}}, "bf16 and fp16, dit_step is in fp32"),
        ({"dit_step": {"engine": "torch", "precision": "fp8"}}, "bf16 and fp16, dit_step is in fp8"),
    ],
)
def test_engines_and_precisions_that_cannot_be_planned(
    changed: dict[str, Any], message: str, free: Callable[[float], None]
) -> None:
    free(100)
    with pytest.raises(InvalidOption, match=message):
        decide(24, CONFIG, MODULES | changed, "cuda")


def test_other_architectures_and_devices_are_refused(free: Callable[[float], None], untrained: Path) -> None:
    with pytest.raises(InvalidOption, match="the device is 'cpu'; leave memory out"):
        decide(24, CONFIG, MODULES, "cpu")
    free(100)
    smaller = CheckpointConfig((CONFIGS | {"transformer": {**CONFIGS["transformer"], "num_layers": 30}}).__getitem__)
    with pytest.raises(InvalidOption, match="ConsisID-preview's architecture; this one has layers 30, not 42; leave"):
        decide(24, smaller, MODULES, "cuda")


def test_the_table_is_of_consisid_preview() -> None:
    assert counted()["architecture"] == architecture(CONFIG)
    assert needs_of(CONFIG, plan(Options(), CONFIG.geometry)) == read()


def test_a_request_that_needs_more_than_the_plan_has(free: Callable[[float], None]) -> None:
    free(100)
    found = decide(16, CONFIG, MODULES, "cuda")
    require_covered(found, CONFIG, plan(Options(), CONFIG.geometry))
    require_covered(found, CONFIG, plan(Options(frames=9), CONFIG.geometry))
    long = plan(Options(frames=193), CONFIG.geometry)
    smallest = next(each for each in SETTINGS if fit(needs_of(CONFIG, long), each * GIB - RESERVED))
    with pytest.raises(MemoryTooSmall, match=f"^193 frames of 480×720 need more .* setting for it is {smallest}$"):
        require_covered(found, CONFIG, long)


def test_a_bundle_is_refused_before_its_files_are_read(untrained_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="memory must be 12"):
        Bundle.open(tmp_path, memory=13)
    with pytest.raises(InvalidOption, match="engine 'torch' alone"):
        Bundle.open(untrained_bundle, memory=24)


@pytest.mark.parametrize(("text", "setting"), [("24", 24), ("auto", "auto"), ("much", "much")])
def test_the_command_hands_the_setting_on_and_prints_the_plan(
    text: str,
    setting: object,
    tmp_path: Path,
    photo_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = fit(read(), 24 * GIB - RESERVED)
    asked: list[object] = []

    def opened(path: Path, *, device: str, memory: object) -> Any:
        asked.append(memory)
        return SimpleNamespace(memory=found, plan=lambda options: None)

    class NoPipeline:
        def __init__(self, bundle: Any) -> None:
            assert bundle.memory is found
            raise NoFace("planted")

    monkeypatch.setattr(Bundle, "open", opened)
    monkeypatch.setattr(pipeline, "Pipeline", NoPipeline)
    command = ["consisid", "generate", "--bundle", str(tmp_path), "--image", str(photo_file), "--prompt", "a man"]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(tmp_path / "x.mp4"), "--memory", text])
    with pytest.raises(SystemExit):
        main.main()
    assert asked == [setting]
    assert f"{found}\n" in capsys.readouterr().err


@pytest.fixture
def photo_file(portrait: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "portrait.png"
    path.write_bytes(portrait)
    return path
