"""A denoising step with kernels: an error of at most twice that of PyTorch at the same precision."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.onnx.samples import sample_inputs
from consisid_export.verify.module import relative_error
from consisid_kernels import reference
from consisid_runtime.models import networks
from consisid_runtime.models.fused.step import FusedStep

SIZES = {"branches": 2, "frames": 3, "rows": 3, "columns": 2, "latent_height": 6, "latent_width": 4, "steps": 1}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_step_with_kernels(untrained: Path, device: str, dtype: torch.dtype) -> None:
    from consisid_kernels import ops

    checkpoint = Checkpoint.open(untrained)
    inputs = sample_inputs(networks.signatures(checkpoint)["dit_step"], SIZES)

    def velocity(network: nn.Module) -> Tensor:
        with torch.no_grad():
            (found,) = network.to(device)(*(tensor.to(device) for tensor in inputs.values()))
        return found.cpu()

    exact = velocity(networks.load("dit_step", checkpoint))
    narrow = networks.load("dit_step", checkpoint, dtype)
    own = relative_error(velocity(narrow), exact)
    error = relative_error(velocity(FusedStep(narrow, ops)), exact)  # type: ignore[arg-type]
    assert 0 < error <= 2 * own


@pytest.mark.proof  # interpreted for half a minute; each of its kernels has a test of its own
def test_a_step_with_kernels_of_e4m3_numbers(untrained: Path, device: str) -> None:
    """The specification's own error is that of E4M3; the kernels may add as much."""
    from consisid_kernels import ops

    checkpoint = Checkpoint.open(untrained)
    inputs = sample_inputs(networks.signatures(checkpoint)["dit_step"], SIZES)

    def velocity(network: nn.Module) -> Tensor:
        with torch.no_grad():
            (found,) = network.to(device)(*(tensor.to(device) for tensor in inputs.values()))
        return found.cpu()

    def step(operators: ModuleType) -> nn.Module:
        narrow = networks.load("dit_step", checkpoint, torch.bfloat16).to(device)
        return FusedStep(narrow, operators, float8=True)  # type: ignore[arg-type]

    exact = velocity(networks.load("dit_step", checkpoint))
    narrow = relative_error(velocity(networks.load("dit_step", checkpoint, torch.bfloat16)), exact)
    own, error = (relative_error(velocity(step(operators)), exact) for operators in (reference, ops))
    assert narrow < error <= 2 * own


@pytest.mark.parametrize("problem", ["", "it raised RuntimeError: no"])
def test_the_engine_takes_the_form_of_attention_that_was_chosen(
    untrained: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, problem: str
) -> None:
    """Without a GPU: the engine is made for one where it decides."""
    from consisid_kernels import ops
    from consisid_kernels.attention.choice import AttentionForm
    from consisid_runtime.engines import torch as torch_engine

    calls: list[tuple[int, ...]] = []

    def counted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        calls.append(tuple(q.shape))
        return reference.joint_attention(q, k, v)

    def choose(device: torch.device, dtype: torch.dtype, size: int) -> AttentionForm:
        assert (device.type, dtype, size) == ("cuda", torch.bfloat16, 64)
        return AttentionForm("plain" if problem else "hopper", counted, problem)

    for name in reference.__all__:
        monkeypatch.setattr(ops, name, getattr(reference, name), raising=False)
    monkeypatch.setattr(ops, "joint_attention_form", choose)
    torch_engine._warn_of_attention.cache_clear()
    checkpoint = Checkpoint.open(untrained)
    signature = networks.signatures(checkpoint)["dit_step"]
    network = networks.load("dit_step", checkpoint, torch.bfloat16)
    engine = torch_engine.TorchEngine(nn.Identity(), signature, device="cpu")
    engine.device = torch.device("cuda")
    for _ in range(2):
        engine.network = engine._for_device(network)
        network = networks.load("dit_step", checkpoint, torch.bfloat16)
    engine.device = torch.device("cpu")
    engine(sample_inputs(signature, SIZES))
    layers = checkpoint.config.transformer.num_layers
    assert len(calls) == layers - 1  # the first layer's is `shared_joint_attention`
    expected = {"attention": "plain", "attention_problem": problem} if problem else {"attention": "hopper"}
    assert engine.choices == expected
    assert [record.levelname for record in caplog.records] == ["WARNING"] * bool(problem), "once in a process"
    assert problem in caplog.text


@pytest.mark.gpu
def test_the_torch_engine_uses_kernels_on_a_gpu(untrained: Path) -> None:
    from consisid_runtime.engines.torch import TorchEngine

    checkpoint = Checkpoint.open(untrained)
    signature = networks.signatures(checkpoint)["dit_step"]
    engine = TorchEngine(networks.load("dit_step", checkpoint, torch.bfloat16), signature, device="cuda")
    assert isinstance(engine.network, FusedStep)
    found = engine(sample_inputs(signature, SIZES))["velocity"]
    assert found.is_cuda and found.isfinite().all()
