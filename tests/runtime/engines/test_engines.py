"""Devices: what is not one is refused, and nothing runs elsewhere than asked."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from consisid_runtime.bundle import Bundle
from consisid_runtime.engines import check_device
from consisid_runtime.engines import torch as torch_engine
from consisid_runtime.engines.full_float32 import full_float32
from consisid_runtime.engines.onnxruntime import OnnxEngine, providers
from consisid_runtime.engines.torch import TorchEngine
from consisid_runtime.errors import InvalidOption, MissingExtra
from consisid_runtime.signatures import Port, Signature


@pytest.mark.parametrize("device", ["tpu", "cuda:1", "CUDA", "", None])
def test_a_device_that_there_is_not(device: Any, untrained_bundle: Path) -> None:
    bundle = Bundle.open(untrained_bundle)
    with pytest.raises(InvalidOption, match="device must be one of cpu, cuda, auto"):
        check_device(device)
    with pytest.raises(InvalidOption, match="device must be"):
        OnnxEngine(untrained_bundle / "absent.onnx", bundle.signature("text_encoder"), device=device)
    with pytest.raises(InvalidOption, match="device must be"):
        TorchEngine(nn.Identity(), bundle.signature("text_encoder"), device=device)


def test_threads_of_onnx_runtime(untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signature = Bundle.open(untrained_bundle).signature("dit_modulate")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    for asked, threads in ((None, 3), (2, 2)):
        engine = OnnxEngine(untrained_bundle / "dit_modulate.onnx", signature, device="cpu", threads=asked)
        assert engine._session.get_session_options().intra_op_num_threads == threads
    with pytest.raises(InvalidOption, match="from 1 to 1024, got 0"):
        Bundle.open(untrained_bundle, threads=0)


def test_onnx_runtime_reports_to_nobody(untrained_bundle: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from consisid_runtime.bundle import Bundle; Bundle.open(sys.argv[1]).module('dit_modulate'); "
        "import os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": ""}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    command = [sys.executable, "-c", code, str(untrained_bundle)]
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == "1\n"
    assert not (tmp_path / ".cache" / "Microsoft").exists()


def test_cuda_without_its_libraries_does_not_become_the_cpu(
    untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CPUOnly:
        """What ONNX Runtime makes where its CUDA provider does not load."""

        def __init__(self, *_: object, **__: object) -> None: ...

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(onnxruntime, "InferenceSession", CPUOnly)
    signature = Bundle.open(untrained_bundle).signature("text_encoder")
    with pytest.raises(MissingExtra, match="CUDA or cuDNN libraries are missing"):
        OnnxEngine(Path("x.onnx"), signature, device="cuda")
    OnnxEngine(Path("x.onnx"), signature, device="auto")


def test_a_precision_that_onnx_runtime_lacks_is_named(tmp_path: Path, untrained_bundle: Path) -> None:
    kind = onnx.TensorProto.BFLOAT16
    values = [onnx.helper.make_tensor_value_info(name, kind, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Erf", ["x"], ["y"])], "g", values[:1], values[1:])
    path = tmp_path / "erf.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=10), path)
    with pytest.raises(MissingExtra, match=r"text_encoder cannot run here: .* lacks an operator .*Erf"):
        OnnxEngine(path, Bundle.open(untrained_bundle).signature("text_encoder"), device="cpu")


def precisions() -> list[str]:
    backends: Any = torch.backends
    return [backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision]


def test_float32_is_no_tf32_while_a_network_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without memory stand in for a GPU's."""

    class Look(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(precisions())
            return x

    seen: list[list[str]] = []
    port = Port("x", "FP32", (1,))
    before = precisions()
    assert before[0] == "tf32"  # PyTorch's default for convolutions
    signature = Signature("look", (port,), (port,))
    TorchEngine(Look(), signature, device="cpu")({"x": torch.zeros(1)})
    monkeypatch.setattr(torch_engine, "torch_device", torch.device)
    TorchEngine(Look(), signature, device="meta")({"x": torch.zeros(1)})
    assert seen == [before, ["ieee", "ieee"]]
    assert precisions() == before


def test_settings_come_back_after_the_last_of_several_networks() -> None:
    before = precisions()
    first, second = full_float32(), full_float32()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert precisions() == ["ieee", "ieee"]
    second.__exit__(None, None, None)
    assert precisions() == before


def test_onnx_runtime_is_asked_for_no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    for device in ("cuda", "auto"):
        assert providers(device) == [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]
    assert providers("cpu") == ["CPUExecutionProvider"]
