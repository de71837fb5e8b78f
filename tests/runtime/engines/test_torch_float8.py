"""Bundles in fp8 for the torch engine: emulated on a CPU, refused by GPUs without E4M3."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from consisid_export.bundle.export import export_bundle
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.onnx.samples import seeded_samples
from consisid_kernels import reference
from consisid_runtime.bundle import Bundle
from consisid_runtime.engines import torch as torch_engine
from consisid_runtime.engines.torch import TorchEngine
from consisid_runtime.errors import MissingExtra
from consisid_runtime.models import networks
from consisid_runtime.models.fused.step import FusedStep
from consisid_runtime.stages.denoise import Denoiser


@pytest.fixture(scope="module")
def bundle(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("fp8") / "bundle"
    export_bundle(Checkpoint.open(untrained), folder, engine="torch", precision="fp8")
    return Bundle.open(folder, device="cpu")


def test_its_step_is_in_fp8_the_rest_in_bf16_and_nothing_was_calibrated(bundle: Bundle) -> None:
    precisions = {name: module["precision"] for name, module in bundle.manifest["modules"].items()}
    others = dict.fromkeys(networks.COMPONENTS, "bf16") | {"aligner": "fp32", "parser": "fp32"}
    assert precisions == others | {"dit_step": "fp8"}
    assert "calibration" not in bundle.manifest and not (bundle.path / "calibration.json").exists()
    assert bundle.tiers.names[0] == "fp8"
    assert bundle.manifest["modules"]["dit_step"]["check"]["reason"].endswith("quantised when it is loaded")


def test_on_a_cpu_it_is_emulated_and_says_so(bundle: Bundle, untrained: Path) -> None:
    engine = bundle.module("dit_step")
    assert isinstance(engine, TorchEngine) and isinstance(engine.network, FusedStep)
    assert Denoiser(bundle).choices == {"linear_layers": "E4M3, emulated: slow"}
    network: Any = networks.load("dit_step", Checkpoint.open(untrained))  # in float32
    specified = FusedStep(network, reference, float8=True)
    for inputs in seeded_samples(bundle.signature("dit_step")):
        with torch.no_grad():
            assert torch.equal(engine(inputs)["velocity"], specified(*inputs.values())[0])


@pytest.mark.parametrize(("capability", "refused"), [((8, 0), True), ((8, 6), True), ((8, 9), False), ((9, 0), False)])
def test_a_gpu_without_e4m3_is_refused(monkeypatch: pytest.MonkeyPatch, capability: Any, refused: bool) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    check: Callable[[], None] = lambda: torch_engine._require_float8(torch.device("cuda:1"))  # noqa: E731
    if refused:
        with pytest.raises(MissingExtra, match=r"fp8 needs a GPU of compute capability 8\.9 or more, cuda:1 has 8\."):
            check()
    else:
        check()
