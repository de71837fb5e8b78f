"""Devices: what is not one is refused, and nothing runs elsewhere than asked."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from consisid_kernels import reference
from consisid_runtime.bundle import Bundle
from consisid_runtime.engines import check_device, place_of, tensorrt
from consisid_runtime.engines import torch as torch_engine
from consisid_runtime.engines.full_float32 import full_float32
from consisid_runtime.engines.onnxruntime import OnnxEngine, providers, require_fast
from consisid_runtime.engines.torch import BundleWeights, TorchEngine
from consisid_runtime.errors import InvalidOption, MissingExtra
from consisid_runtime.models.cpu_decoder import CpuDecoder
from consisid_runtime.models.fused.decoder import ChannelsLastDecoder
from consisid_runtime.models.in_place_decoder import InPlaceDecoder
from consisid_runtime.options import Options
from consisid_runtime.plan import plan
from consisid_runtime.signatures import Port, Signature
from consisid_runtime.stages import denoise, table
from consisid_runtime.stages.decode import Decoder


@pytest.mark.parametrize(
    "device", ["tpu", "gpu", "CUDA", "", None, "cuda:", "cuda:-1", "cuda:x", "cuda:01", "cuda:1 ", "cuda:٣", "cpu:0"]
)
def test_a_device_that_there_is_not(device: Any, untrained_bundle: Path) -> None:
    bundle = Bundle.open(untrained_bundle)
    with pytest.raises(InvalidOption, match="device must be one of cpu, cuda, cuda:N, auto"):
        check_device(device)
    with pytest.raises(InvalidOption, match="device must be"):
        OnnxEngine(untrained_bundle / "absent.onnx", bundle.signature("text_encoder"), device=device)
    with pytest.raises(InvalidOption, match="device must be"):
        TorchEngine(nn.Identity(), bundle.signature("text_encoder"), device=device)
    with pytest.raises(InvalidOption, match="device must be"):
        providers(device)
    with pytest.raises(InvalidOption, match="device must be"):
        tensorrt._cuda_device(device)
    with pytest.raises(InvalidOption, match="device must be"):
        Bundle.open(untrained_bundle, device=device)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])


@pytest.mark.parametrize("name", ["cuda:0", "cuda:1"])
def test_a_gpu_is_the_one_that_was_named(name: str, two_gpus: None) -> None:
    assert torch_engine.torch_device(name) == tensorrt._cuda_device(name) == torch.device(name)
    options = {"use_tf32": "0", "device_id": name[-1]}
    assert providers(name) == [("CUDAExecutionProvider", options), "CPUExecutionProvider"]


def test_the_networks_of_a_bundle_go_to_its_gpu(
    untrained_bundle: Path, two_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The face networks of insightface, and every module."""
    asked: list[Any] = []

    class Session:
        def __init__(self, path: Path, *_: object, providers: list[Any], **__: object) -> None:
            asked.append(providers[0])

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider"]

        def get_provider_graph_assignment_info(self) -> list[Any]:
            return []

        def get_inputs(self) -> list[Any]:
            return []

        get_outputs = get_inputs

    def stream(device: torch.device) -> Any:
        return SimpleNamespace(device=device, cuda_stream=7)

    def face(path: str, *, providers: list[Any], **_: object) -> Any:
        kind = "detection" if "detector" in path else "recognition"
        prepare: Any = lambda *_, **__: None  # noqa: E731
        session = Session(Path(path), providers=providers)
        return SimpleNamespace(taskname=kind, use_kps=True, prepare=prepare, session=session)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr("insightface.model_zoo.get_model", face)
    monkeypatch.setattr(torch.cuda, "Stream", stream)
    monkeypatch.setattr(denoise, "place_of", lambda engine: torch.device("meta") if place_of(engine) == gpu else None)
    gpu = torch.device("cuda:1")
    bundle = Bundle.open(untrained_bundle, device="cuda:1")
    loaded = table.load(bundle)
    assert list(loaded) == [stage.name for stage in table.STAGES]
    assert len(asked) == len(bundle.manifest["modules"]) + 2
    assert {options["device_id"] for _, options in asked} == {"1"}
    assert {place_of(engine) for engine in bundle.loaded.values()} == {gpu}


@pytest.mark.parametrize(("module", "heavy"), [("dit_step", "Attention, Gemm, MatMul"), ("vae_encoder", "Conv")])
def test_heavy_operators_must_not_stay_on_the_cpu(
    module: str, heavy: str, untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that was to run on CUDA, but runs on the CPU, as ONNX Runtime itself reports it."""
    session = onnxruntime.InferenceSession

    def on_cpu(path: Path, options: Any, **_: object) -> Any:
        made = session(path, options, providers=["CPUExecutionProvider"])
        made.get_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
        return made

    signature = Bundle.open(untrained_bundle).signature(module)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", on_cpu)
    with pytest.raises(MissingExtra, match=rf"{module}: ONNX Runtime .* computes {heavy} on the CPU"):
        OnnxEngine(untrained_bundle / f"{module}.onnx", signature)


def test_an_onnx_runtime_that_cannot_be_asked_is_refused() -> None:
    with pytest.raises(MissingExtra, match=r"ONNX Runtime 1\.24\.0 computes attentions on the CPU"):
        require_fast("dit_step", object(), "1.24.0")  # type: ignore[arg-type]


def test_a_gpu_beyond_those_that_are_here(two_gpus: None, untrained_bundle: Path) -> None:
    signature = Bundle.open(untrained_bundle).signature("text_encoder")
    for load in (
        lambda: OnnxEngine(Path("x.onnx"), signature, device="cuda:2"),
        lambda: TorchEngine(nn.Identity(), signature, device="cuda:2"),
        lambda: tensorrt._cuda_device("cuda:2"),
        lambda: torch_engine.torch_device("cuda:4000"),
    ):
        with pytest.raises(InvalidOption, match=r"device 'cuda:\d+': here are 2 GPUs, cuda:0 to cuda:1"):
            load()


def test_onnx_runtimes_own_count_of_gpus(untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU build of PyTorch sees no GPU. ONNX Runtime must not go on to the CPU where one was named."""

    class Refuses:
        def __init__(self, *_: object, **named: Any) -> None:
            assert named["enable_fallback"] == 0
            raise RuntimeError("Invalid device ID: 7, must be between 0 (inclusive) and 1 (exclusive).")

    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Refuses)
    signature = Bundle.open(untrained_bundle).signature("text_encoder")
    with pytest.raises(InvalidOption, match=r"device 'cuda:7': ONNX Runtime has no such GPU \(Invalid device ID: 7"):
        OnnxEngine(Path("x.onnx"), signature, device="cuda:7")
    with pytest.raises(RuntimeError, match="Invalid device ID"):
        OnnxEngine(Path("x.onnx"), signature, device="cuda")


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_no_gpu_at_all(device: str, untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    for load in (torch_engine.torch_device, tensorrt._cuda_device, providers):
        with pytest.raises(MissingExtra):
            load(device)


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
    for device in ("cuda", "cuda:0"):
        with pytest.raises(MissingExtra, match="CUDA or cuDNN libraries are missing"):
            OnnxEngine(Path("x.onnx"), signature, device=device)
    OnnxEngine(Path("x.onnx"), signature, device="auto")


def test_a_precision_that_onnx_runtime_lacks_is_named(tmp_path: Path, untrained_bundle: Path) -> None:
    kind = onnx.TensorProto.BFLOAT16
    values = [onnx.helper.make_tensor_value_info(name, kind, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Erf", ["x"], ["y"])], "g", values[:1], values[1:])
    path = tmp_path / "erf.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=10), path)
    with pytest.raises(MissingExtra, match=r"text_encoder cannot run here: .* lacks an operator .*Erf"):
        OnnxEngine(path, Bundle.open(untrained_bundle).signature("text_encoder"), device="cpu")


@pytest.mark.parametrize("form", [CpuDecoder, InPlaceDecoder, ChannelsLastDecoder])
def test_both_decoders_hold_their_weights_once(
    form: type[nn.Module], torch_bundle_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(torch_bundle_of(), device="cpu")
    reads: list[str] = []
    load = torch_engine.networks.load
    monkeypatch.setattr(torch_engine.networks, "load", lambda name, *more: reads.append(name) or load(name, *more))
    # As on a GPU.
    if form is InPlaceDecoder:
        monkeypatch.setattr(torch_engine, "CpuDecoder", InPlaceDecoder)
    if form is ChannelsLastDecoder:
        monkeypatch.setattr(torch_engine, "CpuDecoder", partial(ChannelsLastDecoder, operators=reference))
    request = plan(Options(frames=17), bundle.config.geometry)
    vae = bundle.config.vae
    latents = torch.randn(1, 5, vae.latent_channels, request.height // vae.spatial, request.width // vae.spatial)
    shared = Decoder(bundle)
    assert reads == ["vae_decoder_first"]
    first, following = (bundle.module(name) for name in ("vae_decoder_first", "vae_decoder_next"))
    assert isinstance(first, TorchEngine) and isinstance(following, TorchEngine)
    assert first.network is following.network and isinstance(first.network, form)
    apart = Decoder(bundle)
    for name in ("first", "next"):
        network = load(f"vae_decoder_{name}", BundleWeights(bundle))
        setattr(apart, f"_{name}", TorchEngine(network, bundle.signature(f"vae_decoder_{name}"), device="cpu"))
    assert (shared(latents, request) == apart(latents, request)).all()
    bundle.loaded["vae_decoder_next"] = TorchEngine(
        nn.Linear(1, 1).double(), bundle.signature("vae_decoder_next"), device="cpu"
    )
    del bundle.loaded["vae_decoder_first"]
    bundle.module("vae_decoder_first")
    assert reads == ["vae_decoder_first"] * 2, "another dtype is another network"


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
