"""A narrower graph is as close to fp32 as PyTorch is in that dtype, twice at most, and says so in the graph itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from consisid_export.bundle.modules import write_module
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.checkpoint.skeleton import Skeleton
from consisid_export.onnx.precision import FLOAT32_MODULES, exported_dtype
from consisid_export.onnx.samples import TRACE_SIZES, sample_inputs
from consisid_export.onnx.structure import check_structure, external_weights
from consisid_export.onnx.trace import export_onnx
from consisid_export.onnx.weights import provide_weights
from consisid_export.verify.module import check, relative_error
from consisid_runtime.engines.onnxruntime import OnnxEngine
from consisid_runtime.errors import ExportRefused, InvalidOption
from consisid_runtime.models import networks
from consisid_runtime.models.t5 import T5Config, T5Encoder
from consisid_runtime.signatures import Port, Signature

FP16 = ("text_encoder", "vae_encoder", "dit_prepare", "dit_step")
BF16 = ("text_encoder",)
NORMS = {"LayerNormalization", "RMSNormalization", "GroupNormalization"}

Exported = dict[tuple[str, str], tuple[dict[str, Any], onnx.ModelProto]]


@pytest.fixture(scope="module")
def exported(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """(module, precision) → its record and its graph without data."""
    checkpoint = Checkpoint(untrained)
    signatures = networks.signatures(checkpoint)
    made = {}
    for precision, modules in (("fp16", FP16), ("bf16", BF16)):
        folder = tmp_path_factory.mktemp(precision)
        for module in modules:
            record = write_module(module, checkpoint, folder, signatures[module], precision=precision)
            graph = folder / f"{module}.onnx"
            made[module, precision] = record, onnx.load(graph, load_external_data=False)
            weights = external_weights(made[module, precision][1], folder)
            assert {weight.dtype for weight in weights.values()} == {exported_dtype(module, precision)}
    return made


@pytest.mark.parametrize("module", FP16)
def test_fp16_is_at_most_twice_as_far_from_fp32_as_pytorch(exported: Exported, module: str) -> None:
    result = exported[module, "fp16"][0]["check"]
    assert result["kind"] == "numeric"
    assert 1e-5 < result["error"] <= result["limit"] < 1e-2


@pytest.mark.parametrize("module", BF16)
def test_bf16_is_structural_where_no_cpu_kernel_runs_it(exported: Exported, module: str) -> None:
    record = exported[module, "bf16"][0]
    assert record["check"]["kind"] == "structural"
    assert "bfloat16" in record["check"]["reason"]
    assert "error" not in record["check"]


def test_ports_stay_float32(exported: Exported) -> None:
    for (module, _), (_, model) in exported.items():
        for value in (*model.graph.input, *model.graph.output):
            wanted = (
                (onnx.TensorProto.INT64,) if value.name in ("token_ids", "timesteps") else (onnx.TensorProto.FLOAT,)
            )
            assert value.type.tensor_type.elem_type in wanted, (module, value.name)


def exported_graph(checkpoint: Checkpoint, module: str, dtype: torch.dtype, folder: Path) -> Path:
    signature = networks.signatures(checkpoint, dtype)[module]
    weights = provide_weights(module, checkpoint, folder, dtype)
    path = folder / f"{module}.onnx"
    export_onnx(networks.load(module, Skeleton(checkpoint), dtype), signature, path, weights)
    check_structure(path, signature)
    return path


def require_caches_of(kind: int, path: Path) -> None:
    """The caches are of this type, latents and frames in float32."""
    graph = onnx.load(path, load_external_data=False).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    caches = {name for name in types if "cache_" in name}
    assert caches and {types[name] for name in caches} == {kind}
    assert {types[name] for name in types if name not in caches} == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize(
    ("dtype", "kind"), [(torch.bfloat16, "BF16"), (torch.float16, "FP16"), (torch.float32, "FP32")]
)
def test_caches_of_the_decoder_have_the_precision(untrained: Path, dtype: torch.dtype, kind: str) -> None:
    """What `check_structure` holds an exported graph to."""
    signature = networks.signatures(Checkpoint(untrained), dtype)["vae_decoder_next"]
    ports = (*signature.inputs, *signature.outputs)
    assert {port.dtype for port in ports if "cache_" in port.name} == {kind}
    assert {port.dtype for port in ports if "cache_" not in port.name} == {"FP32"}


@pytest.mark.proof
def test_a_chunk_takes_and_leaves_caches_in_fp16(untrained: Path, tmp_path: Path) -> None:
    """On ONNX Runtime, at most twice as far from float32 as PyTorch itself."""
    checkpoint, dtype = Checkpoint(untrained), torch.float16
    signatures = networks.signatures(checkpoint, dtype)
    path = exported_graph(checkpoint, "vae_decoder_next", dtype, tmp_path)
    require_caches_of(onnx.TensorProto.FLOAT16, path)
    modules, size = ("vae_decoder_first", "vae_decoder_next"), {"latent_height": 4, "latent_width": 6}
    first, following = (sample_inputs(signatures[module], size)["latents"] for module in modules)
    wide, narrow = ([networks.load(module, checkpoint, each) for module in modules] for each in (torch.float32, dtype))
    with torch.no_grad():
        caches = narrow[0](first)[1:]
        wanted, own = wide[1](following, *wide[0](first)[1:])[0], narrow[1](following, *caches)[0]
    names = [port.name for port in signatures["vae_decoder_next"].inputs if port.name != "latents"]
    engine = OnnxEngine(path, signatures["vae_decoder_next"], device="cpu")
    found = engine({"latents": following, **dict(zip(names, caches, strict=True))})
    assert {tensor.dtype for name, tensor in found.items() if name != "frames"} == {dtype}
    assert relative_error(found["frames"], wanted) <= 2 * relative_error(own, wanted)


def test_softmax_and_the_statistics_of_norms_stay_float32(exported: Exported) -> None:
    seen = set()
    for (module, _), (_, model) in exported.items():
        for node in model.graph.node:
            given = {attribute.name: attribute.i for attribute in node.attribute}
            if node.op_type in NORMS:
                assert given.get("stash_type", onnx.TensorProto.FLOAT) == onnx.TensorProto.FLOAT, (module, node.name)
            if node.op_type == "Attention":
                assert given["softmax_precision"] == onnx.TensorProto.FLOAT, (module, node.name)
            seen.add(node.op_type)
    assert NORMS | {"Attention"} <= seen


def test_matrices_and_convolutions_have_narrow_weights(exported: Exported) -> None:
    for (module, precision), (_, model) in exported.items():
        types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        wanted = onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.BFLOAT16
        nodes = [node for node in model.graph.node if node.op_type in ("Gemm", "Conv") and node.input[1] in types]
        assert nodes
        assert {types[node.input[1]] for node in nodes} == {wanted}, module


@pytest.mark.parametrize("module", FLOAT32_MODULES)
def test_detection_and_parsing_stay_float32(module: str) -> None:
    assert exported_dtype(module, "fp16") == exported_dtype(module, "bf16") == torch.float32


def test_an_unknown_precision_names_the_choices() -> None:
    with pytest.raises(InvalidOption, match="one of fp32, fp16, bf16, fp8, got 'int4'"):
        exported_dtype("dit_step", "int4")


SIGNATURE = Signature("halver", (Port("x", "FP32", (1, "frames")),), (Port("y", "FP32", (1, "frames")),))


class Halver(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(self.dtype) / 3).float()


@pytest.mark.parametrize(("share", "accepted"), [(1.9, True), (2.1, False)])
def test_the_limit_is_twice_pytorchs_own_error(share: float, accepted: bool) -> None:
    exact, rounded = Halver(torch.float32), Halver(torch.float16)

    def engine(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x = inputs["x"]
        return {"y": exact(x) + share * (rounded(x) - exact(x))}

    if accepted:
        result = check(exact, engine, SIGNATURE, rounded)
        assert result.error == pytest.approx(share / 2 * result.limit, rel=1e-3)
    else:
        with pytest.raises(ExportRefused, match=r"halver: y \[1, \d\] differs from PyTorch"):
            check(exact, engine, SIGNATURE, rounded)


def test_what_leaves_the_range_in_pytorch_too_is_refused() -> None:
    class Overflowing(Halver):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * float("inf")

    broken = Overflowing(torch.float16)
    with pytest.raises(
        ExportRefused, match="halver: in this precision PyTorch itself gives values that are not finite"
    ):
        check(Halver(torch.float32), lambda inputs: {"y": broken(inputs["x"])}, SIGNATURE, broken)


@pytest.mark.parametrize("module", [name for name in networks.COMPONENTS if name not in FLOAT32_MODULES])
def test_every_network_takes_and_gives_float32(untrained: Path, module: str) -> None:
    """But for caches. The limit is about 16 roundings: a network that computes something else would be at 1."""
    checkpoint = Checkpoint(untrained)
    signature = networks.signatures(checkpoint, torch.bfloat16)[module]
    inputs = sample_inputs(signature, TRACE_SIZES)
    with torch.no_grad():
        exact = networks.load(module, checkpoint)(*inputs.values())
        narrow = networks.load(module, checkpoint, torch.bfloat16)(*inputs.values())
    exact, narrow = [(o,) if isinstance(o, Tensor) else o for o in (exact, narrow)]
    for found, wanted, port in zip(narrow, exact, signature.outputs, strict=True):
        assert found.dtype == (torch.bfloat16 if port.dtype == "BF16" else torch.float32)
        assert 0 < relative_error(found, wanted) < 16 * torch.finfo(torch.bfloat16).eps / 2


def test_t5_survives_sums_beyond_float16() -> None:
    """T5-XXL's feed-forward and residual stream leave float16's range."""
    config = T5Config(
        vocabulary=8, width=16, heads=2, head_width=8, hidden=32, layers=2, buckets=8, distance=16, eps=1e-6, gated=True
    )
    torch.manual_seed(0)
    network = T5Encoder(config).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        parameter.copy_(torch.randn_like(parameter) * (3000 if "wo" in name else 1))
    tokens = torch.arange(8)[None]
    inside = []
    network.encoder.block[0].register_forward_hook(lambda module, arguments, output: inside.append(output))
    exact = network(tokens)
    assert inside[0].abs().max() > torch.finfo(torch.float16).max
    assert relative_error(network.half()(tokens), exact) < 2e-2
