"""fp8: the layers that are quantised, what is stored of them, what the graph says, and that TensorRT takes it."""

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from consisid_export.bundle import modules
from consisid_export.bundle.modules import Calibration, write_module
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.checkpoint.skeleton import Skeleton, stored
from consisid_export.checkpoint.tensor_files import pieces, stored_tensors
from consisid_export.onnx.fp8 import FLOAT8, dequantise, quantise, quantised_layers, scale_of, simulate, write_quantised
from consisid_export.onnx.structure import external_weights
from consisid_export.tensorrt.build import build_engine
from consisid_export.verify import checkpoint_runs, denoising_run
from consisid_export.verify.checkpoint_runs import CheckpointRuns
from consisid_runtime.errors import ExportRefused
from consisid_runtime.models import networks

BLOCKS, LAYERS = 4, 6  # of nano's step, and the linear layers of each
ROUNDING = 2.0**-4  # half of the last of E4M3's three bits, relative to the number


@pytest.fixture(scope="module")
def checkpoint(untrained: Path) -> Checkpoint:
    return Checkpoint.open(untrained)


@pytest.fixture(scope="module")
def calibration(checkpoint: Checkpoint, torch_bundle_of: Any) -> Calibration:
    checkpoint_runs = CheckpointRuns(checkpoint, torch_bundle_of(), networks.signatures(checkpoint))
    samples = checkpoint_runs.step_samples()
    return Calibration(checkpoint_runs.largest_inputs(quantised_layers, lambda *_: None), lambda: samples)


@pytest.fixture(scope="module")
def exported(
    checkpoint: Checkpoint, calibration: Calibration, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("fp8")
    signature = networks.signatures(checkpoint)["dit_step"]
    return folder, write_module("dit_step", checkpoint, folder, signature, precision="fp8", calibration=calibration)


def test_numbers_are_rounded_to_the_nearest_and_saturate() -> None:
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(0)) * torch.logspace(-8, 0, 10_000)
    scale = scale_of(x.abs().max())
    found = dequantise(quantise(x, scale), scale).float()
    normal = x.abs() > 2**-6 * scale
    assert ((found - x).abs() / x.abs())[normal].max() <= ROUNDING * 1.001
    assert (found - x)[~normal].abs().max() <= 2**-10 * scale.float() * 1.001
    assert (dequantise(quantise(10 * x, scale), scale).abs() <= 448 * scale).all()
    assert dequantise(
        quantise(torch.tensor(65504.0), scale_of(torch.tensor(65504.0))), torch.tensor(146.125)
    ).isfinite()
    assert dequantise(quantise(torch.zeros(3), scale_of(torch.tensor(0.0))), scale).eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_have_a_scale_for_each_output_channel(tmp_path: Path, dtype: torch.dtype) -> None:
    weight = torch.randn(5, 70, generator=torch.Generator().manual_seed(1))
    weight = (weight * torch.tensor([1e-3, 1.0, 30.0, 0.0, 0.1])[:, None]).to(dtype)
    save_file({"a.weight": weight}, tmp_path / "in.safetensors")
    source = stored_tensors(tmp_path / "in.safetensors")["a.weight"]
    placed = write_quantised(tmp_path / "out.safetensors", {"a": source}, {"a": 89.6})
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in placed.items()} == {
        "a.weight": (FLOAT8, (5, 70)),
        "a.weight_scale": (torch.float16, (5,)),
        "a.input_scale": (torch.float16, ()),
    }
    found = load_file(tmp_path / "out.safetensors")
    assert found["a.input_scale"].item() == pytest.approx(0.2, rel=1e-3)
    again = found["a.weight"].float() * found["a.weight_scale"].float()[:, None]
    for row, wanted in zip(again, weight.float(), strict=True):
        assert (row - wanted).norm() <= 0.04 * wanted.norm()


def test_all_linear_layers_of_the_blocks_are_quantised_and_nothing_else(exported: tuple[Path, Any]) -> None:
    graph = onnx.load(exported[0] / "dit_step.onnx", load_external_data=False).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    narrow = [name for name, kind in types.items() if kind == onnx.TensorProto.FLOAT8E4M3FN]
    assert len(narrow) == BLOCKS * LAYERS
    assert all(name.startswith("transformer_blocks.") for name in narrow)
    for name in ("proj_out.weight", "patch_embed.proj.weight", "transformer_blocks.0.norm1.norm.weight"):
        assert types[name] == onnx.TensorProto.FLOAT16
    made_by = {output: node for node in graph.node for output in node.output}
    inputs = set()
    for name in narrow:
        (wide,) = [node for node in graph.node if name in node.input]
        (gemm,) = [node for node in graph.node if wide.output[0] in node.input]
        back = made_by[gemm.input[0]]
        assert (wide.op_type, gemm.op_type, back.op_type) == ("DequantizeLinear", "Gemm", "DequantizeLinear")
        assert made_by[back.input[0]].op_type == "QuantizeLinear"
        inputs.add(back.output[0])
    assert len(inputs) == BLOCKS * 4, "queries, keys and values have one input"


def test_the_step_is_as_far_from_fp32_as_pytorch_with_the_same_roundings(exported: tuple[Path, Any]) -> None:
    check = exported[1]["check"]
    assert check["kind"] == "numeric"
    assert 1e-3 < check["error"] <= check["limit"] < 0.1


def test_what_is_stored_is_what_pytorch_simulates(
    checkpoint: Checkpoint, calibration: Calibration, exported: tuple[Path, Any]
) -> None:
    stored_values = load_file(exported[0] / "transformer.dit_step.fp8.safetensors")
    simulated = simulate(networks.load("dit_step", checkpoint), calibration.ranges)
    for name, layer in quantised_layers(simulated).items():
        q, scale = stored_values[f"{name}.weight"], stored_values[f"{name}.weight_scale"]
        assert dequantise(q, scale[:, None]).equal(layer.weight), name
        largest = calibration.ranges[name]
        assert stored_values[f"{name}.input_scale"].item() == pytest.approx(largest / 448, rel=2**-10)


def test_a_run_in_fp8_ends_where_pytorchs_own_does(
    checkpoint: Checkpoint,
    calibration: Calibration,
    exported: tuple[Path, Any],
    torch_bundle_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (checkpoint_runs, denoising_run):
        monkeypatch.setattr(module, "STEPS", 3)
    folder, signatures = exported[0], networks.signatures(checkpoint)
    checks = {"dit_step": exported[1]["check"]}
    for name in ("dit_prepare", "dit_modulate"):
        checks[name] = write_module(name, checkpoint, folder, signatures[name], precision="fp8")["check"]
    runs = CheckpointRuns(checkpoint, torch_bundle_of(), signatures)
    options: dict[str, Any] = {"precision": "fp8", "ranges": calibration.ranges}
    found = denoising_run.check_denoising_run(checkpoint, folder, signatures, checks, runs, **options)["check"]
    assert 1e-3 < found["error"] <= found["limit"] < 0.1


def test_weights_take_half_of_fp16(checkpoint: Checkpoint, exported: tuple[Path, Any]) -> None:
    folder, record = exported
    weights = external_weights(onnx.load(folder / "dit_step.onnx", load_external_data=False), folder)
    layers = quantised_layers(networks.load("dit_step", Skeleton(checkpoint), None))
    found = sum(weights[f"{name}.weight"].length for name in layers)
    assert found == sum(layer.weight.numel() for layer in layers.values())
    assert sum((folder / name).stat().st_size for name in record["files"]) < 1.3 * found
    assert len(stored(checkpoint, "transformer")) > len(weights)


def test_a_wrong_scale_is_refused(
    checkpoint: Checkpoint, calibration: Calibration, exported: tuple[Path, Any], tmp_path: Path
) -> None:
    for file in exported[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    scale = stored_tensors(tmp_path / "transformer.dit_step.fp8.safetensors")[
        "transformer_blocks.2.ff.net.2.weight_scale"
    ]
    with scale.file.open("r+b") as stream:
        stream.seek(scale.offset)
        stream.write((2 * torch.cat(list(pieces(scale)))).numpy().tobytes())
    signature = networks.signatures(checkpoint)["dit_step"]
    with pytest.raises(ExportRefused, match=r"dit_step: velocity .* differs from PyTorch"):
        modules._check("dit_step", checkpoint, tmp_path / "dit_step.onnx", signature, torch.float16, calibration)


@pytest.mark.parametrize("target", ["SM89", "SM120"])
def test_tensorrt_builds_it(checkpoint: Checkpoint, exported: tuple[Path, Any], tmp_path: Path, target: str) -> None:
    sizes = checkpoint.config.geometry
    record = build_engine(
        exported[0] / "dit_step.onnx",
        networks.signatures(checkpoint)["dit_step"],
        sizes,
        tmp_path / "dit_step.engine",
        library="tensorrt-rtx",
        compute_capabilities=(target,),
    )
    assert record["architectures"] == [f"sm_{target[2:]}"]


def test_a_module_in_fp8_needs_a_calibration(checkpoint: Checkpoint, tmp_path: Path) -> None:
    signature = networks.signatures(checkpoint)["dit_step"]
    with pytest.raises(ValueError, match="they need one"):
        write_module("dit_step", checkpoint, tmp_path, signature, precision="fp8")
