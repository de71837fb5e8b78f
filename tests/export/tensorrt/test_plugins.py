"""The plugins as TensorRT's own Python code sees them, over empty libraries, and the graphs that name them."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

import consisid_kernels.compile
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.onnx.precision import exported_dtype
from consisid_export.onnx.samples import TRACE_SIZES, sample_inputs
from consisid_export.onnx.trace import export_onnx
from consisid_export.tensorrt.build import build_engine, unsupported_nodes
from consisid_export.tensorrt.plugin_graph import add_bodies, use_plugins
from consisid_export.tensorrt.plugins import register_plugins
from consisid_export.tensorrt.ranges import profiles, relevant
from consisid_export.verify.module import check
from consisid_kernels.launch import tile
from consisid_runtime.bundle import Bundle
from consisid_runtime.engines.tensorrt import TensorRTEngine
from consisid_runtime.errors import ExportRefused, MissingExtra
from consisid_runtime.models import networks

PROBE = Path(__file__).parents[2] / "data" / "tensorrt_plugins.py"
VERSIONS = ("10.16.1.11", "11.4.0.106")
NAMES = {"HALF": "fp16", "BF16": "bf16"}

Bindings = Callable[[str], Path]


def ask(bindings: Path, architecture: int, *cases: dict[str, Any]) -> list[dict[str, Any]]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["LD_LIBRARY_PATH"] = str(bindings / "lib")
    command = [sys.executable, "-P", str(PROBE), str(bindings), str(architecture)]
    done = subprocess.run(
        command, input=json.dumps(cases), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])  # after TensorRT's log
    return found


def joint(dtype: str, tokens: int | None, size: int | None = 64) -> dict[str, Any]:
    """With seven more keys than queries, so that one cannot pass for the other."""
    keys = [2, 48, tokens + 7 if tokens else None, size]
    return {
        "plugin": "joint_attention",
        "dtype": dtype,
        "inputs": [[2, 48, tokens, size], keys, keys],
        "attributes": {},
    }


def face(dtype: str, tokens: int | None) -> dict[str, Any]:
    inputs = [[2, tokens, 3072], [3072], [3072], [3072, 512], [512, 3072]]
    return {"plugin": "face_attention", "dtype": dtype, "inputs": inputs, "attributes": {"heads": 16, "epsilon": 1e-5}}


def parameters(ptx: str) -> list[str]:
    entry = re.search(r"\.entry \w+\(\n(.*?)\n\)", ptx, re.DOTALL)
    assert entry is not None
    return re.findall(r"\.param \.(\w+)", entry[1])


@pytest.mark.parametrize("version", VERSIONS)
def test_joint_attention_is_launched_as_tensorrt_is_told(tensorrt_bindings: Bindings, version: str) -> None:
    sizes = [(dtype, tokens, size) for dtype in NAMES for size in (64, 128) for tokens in (17776, 1)]
    found = ask(tensorrt_bindings(version), 90, *(joint(*case) for case in sizes))
    for (dtype, tokens, size), what in zip(sizes, found, strict=True):
        block = tile("joint_attention", f"{NAMES[dtype]}-d{size}", 90)
        assert what["output"] == [2, tokens, 48, size]
        assert what["output_type"] == dtype
        assert what["formats"] == ["HALF LINEAR"] * 4 + ["BF16 LINEAR"] * 4
        assert what["grid"] == [-(-tokens // block["block_m"]), 2 * 48, 1]
        assert what["block"] == [32 * block["num_warps"], 1, 1]
        assert what["numbers"] == [tokens, tokens + 7, 48]
        assert what["number_types"] == ["INT32"] * 3
        assert parameters(what["ptx"]) == ["u64"] * 3 + ["u32"] * 3 + ["u64"]
        assert ".target sm_90a" in what["ptx"] and f".entry {what['kernel']}(" in what["ptx"]
        assert f".reqntid {what['block'][0]}" in what["ptx"]


@pytest.mark.parametrize("version", VERSIONS)
def test_face_attention_is_launched_as_tensorrt_is_told(tensorrt_bindings: Bindings, version: str) -> None:
    sizes = [(dtype, tokens) for dtype in NAMES for tokens in (17550, 1)]
    found = ask(tensorrt_bindings(version), 80, *(face(*case) for case in sizes))
    for (dtype, tokens), what in zip(sizes, found, strict=True):
        block = tile("face_attention", NAMES[dtype], 80)
        assert what["output"] == [2, tokens, 3072]
        assert what["output_type"] == dtype
        assert what["formats"] == ["HALF LINEAR"] * 6 + ["BF16 LINEAR"] * 6
        assert what["grid"] == [-(-tokens // block["block_m"]), 2, 1]
        assert what["block"] == [32 * block["num_warps"], 1, 1]
        assert what["numbers"] == [tokens]
        assert what["number_types"] == ["INT32"]
        assert parameters(what["ptx"]) == ["u64"] * 5 + ["u32", "u64"]
        assert ".target sm_80" in what["ptx"] and f".entry {what['kernel']}(" in what["ptx"]


@pytest.mark.parametrize("version", VERSIONS)
def test_sizes_may_vary_but_for_those_compiled_in(tensorrt_bindings: Bindings, version: str) -> None:
    cases = joint("HALF", None), face("HALF", None), joint("HALF", 1, None), joint("FLOAT", 1), face("FLOAT", 1)
    q, x, *refused = ask(tensorrt_bindings(version), 90, *cases)
    assert (q["output"], q["grid"], q["numbers"]) == ([2, None, 48, 64], [None, 96, 1], [None, None, 48])
    assert (x["output"], x["grid"], x["numbers"]) == ([2, None, 3072], [None, 2, 1], [None])
    assert "axis 3 of an attention plugin's input varies" in refused[0]["refused"]
    for answer in refused[1:]:
        assert "got DataType.FLOAT; its kernels are for fp16, bf16" in answer["refused"]


def test_another_architecture_is_refused() -> None:
    with pytest.raises(ExportRefused, match=r"no attention plugins for sm_75; there are for sm_80, sm_89, sm_90"):
        register_plugins(75)


def test_missing_triton_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "consisid_kernels.compile.tensorrt", raising=False)
    monkeypatch.delattr(consisid_kernels.compile, "tensorrt", raising=False)
    with pytest.raises(MissingExtra, match=r"pip install 'consisid-runtime\[kernels\]'"):
        register_plugins(90)


def test_missing_tensorrt_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingExtra, match=r"pip install 'consisid-runtime\[tensorrt\]'"):
        register_plugins(90)


# graphs


@pytest.fixture(scope="session")
def step_of(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Path of the nano checkpoint's step in a precision, weights and all."""
    checkpoint, folder = Checkpoint.open(untrained), tmp_path_factory.mktemp("steps")

    def export(precision: str) -> Path:
        path = folder / f"{precision}.onnx"
        if not path.is_file():
            network = networks.load("dit_step", checkpoint, exported_dtype("dit_step", precision))
            export_onnx(network, networks.signatures(checkpoint)["dit_step"], path)
        return path

    return export


@pytest.mark.parametrize("precision", ["fp16", pytest.param("bf16", marks=pytest.mark.proof)])
def test_every_attention_of_the_step_becomes_a_plugin(
    step_of: Callable[[str], Path], untrained: Path, precision: str
) -> None:
    model = onnx.load(step_of(precision))
    config = Checkpoint.open(untrained).config.file("transformer")
    before = Counter(node.op_type for node in model.graph.node)
    use_plugins(model)
    plugins = [node for node in model.graph.node if node.domain]
    assert {node.domain for node in plugins} == {"consisid"}
    layers, interval = config["num_layers"], config["cross_attn_interval"]
    assert Counter(node.op_type for node in plugins) == {
        "joint_attention": layers,
        "face_attention": layers // interval,
    }
    after = Counter(node.op_type for node in model.graph.node)
    assert after["Attention"] == after["Softmax"] == 0
    assert before["LayerNormalization"] - after["LayerNormalization"] == layers // interval
    assert before["Transpose"] - after["Transpose"] == layers
    attributes = {
        "plugin_namespace": b"consisid",
        "aot": 1,
        "heads": config["cross_attn_num_heads"],
        "epsilon": pytest.approx(1e-5),
    }
    for node in plugins:
        found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        own = ("plugin_namespace", "aot") if node.op_type == "joint_attention" else tuple(attributes)
        assert found == {name: attributes[name] for name in own}
    add_bodies(model)
    onnx.checker.check_model(model, full_check=True)


def test_bodies_compute_what_the_graph_did(step_of: Callable[[str], Path], untrained: Path) -> None:
    """Bit by bit where nothing is optimised: ONNX Runtime rounds elsewhere where it fuses operators."""
    model = onnx.load(step_of("fp16"))
    use_plugins(model)
    add_bodies(model)
    signature = networks.signatures(Checkpoint.open(untrained))["dit_step"]
    inputs = {name: tensor.numpy() for name, tensor in sample_inputs(signature, TRACE_SIZES).items()}
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    graphs = step_of("fp16").read_bytes(), model.SerializeToString()
    wanted, found = (onnxruntime.InferenceSession(graph, options).run(None, inputs)[0] for graph in graphs)
    assert np.isfinite(wanted).all() and wanted.std() > 0
    assert np.array_equal(found, wanted)


def test_the_parser_looks_for_the_plugins_and_takes_the_rest(
    step_of: Callable[[str], Path], untrained: Path, tmp_path: Path
) -> None:
    """TensorRT-RTX parses as TensorRT does, but has no plugins."""
    model = onnx.load(step_of("fp16"))
    use_plugins(model)
    (tmp_path / "step.onnx").write_bytes(model.SerializeToString())
    checkpoint = Checkpoint.open(untrained)
    sizes = checkpoint.config.geometry
    signature = networks.signatures(checkpoint)["dit_step"]
    problems = unsupported_nodes(tmp_path / "step.onnx", signature, sizes, library="tensorrt-rtx")
    plugins = [f"{node.op_type} {node.name!r}: INVALID_NODE, " for node in model.graph.node if node.domain]
    assert len(problems) == len(plugins) > 0
    for problem, plugin in zip(problems, plugins, strict=True):
        assert problem.startswith(plugin) and "Plugin not found" in problem


def first(model: onnx.ModelProto, operator: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == operator)


def give(node: onnx.NodeProto, **attributes: Any) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name not in attributes]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in attributes.items())])


def masked(model: onnx.ModelProto) -> None:
    first(model, "Attention").input.append("mask")


def causal(model: onnx.ModelProto) -> None:
    give(first(model, "Attention"), is_causal=1)


def scaled(model: onnx.ModelProto) -> None:
    give(first(model, "Attention"), scale=0.5)


def transposed(model: onnx.ModelProto) -> None:
    attention = first(model, "Attention")
    taker = next(node for node in model.graph.node if attention.output[0] in node.input)
    give(taker, perm=[0, 3, 1, 2])


def looked_at(model: onnx.ModelProto) -> None:
    name = first(model, "Attention").output[0]
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT16, None))


def small_heads(model: onnx.ModelProto) -> None:
    resize(model, first(model, "Attention").input[0], 3, 32)


def fewer_keys_heads(model: onnx.ModelProto) -> None:
    for name in first(model, "Attention").input[1:3]:
        resize(model, name, 1, 1)


def other_axis(model: onnx.ModelProto) -> None:
    give(first(model, "Softmax"), axis=1)


def narrow(model: onnx.ModelProto) -> None:
    softmax = first(model, "Softmax")
    give(next(node for node in model.graph.node if softmax.input[0] in node.output), to=TensorProto.FLOAT16)


def not_residual(model: onnx.ModelProto) -> None:
    add = after_face(model)
    add.input[0] = "latents"


def of_two(model: onnx.ModelProto) -> None:
    """What was read from the face goes somewhere else, too."""
    read = after_face(model).input[1]
    model.graph.node.append(helper.make_node("Identity", [read], ["copy"]))


def odd_slots(model: onnx.ModelProto) -> None:
    softmax = first(model, "Softmax")
    cast = next(node for node in model.graph.node if softmax.input[0] in node.output)
    resize(model, cast.input[0], 3, 31)


def after_face(model: onnx.ModelProto) -> onnx.NodeProto:
    """The Add behind the first softmax."""
    names = {first(model, "Softmax").output[0]}
    for node in model.graph.node:
        if names & set(node.input):
            if node.op_type == "Add":
                return node
            names |= set(node.output)
    raise AssertionError


def resize(model: onnx.ModelProto, name: str, axis: int, size: int) -> None:
    value = next(value for value in model.graph.value_info if value.name == name)
    value.type.tensor_type.shape.dim[axis].dim_value = size


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (masked, "has 4 inputs, not 3"),
        (causal, "it has {'is_causal': 1}"),
        (scaled, "it has {'scale': 0.5}"),
        (transposed, "transposed by {'perm': \\[0, 3, 1, 2\\]}"),
        (looked_at, "goes to Transpose"),
        (small_heads, "heads have 32 channels, not 64 or 128"),
        (fewer_keys_heads, "queries are .* keys"),
        (other_axis, "not over the last axis"),
        (narrow, "softmax in fp32"),
        (not_residual, "does not add what is read"),
        (of_two, "goes to Add, Identity, not to Add"),
        (odd_slots, "2 heads of 31 slots"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_only_looks_like_attention_is_refused(
    step_of: Callable[[str], Path], change: Callable[[onnx.ModelProto], None], reason: str
) -> None:
    model = onnx.load(step_of("fp16"))
    change(model)
    with pytest.raises(ExportRefused, match=f"'node_.*' is no part of an attention .*{reason}"):
        use_plugins(model)


def test_a_step_in_float32_is_refused(untrained_bundle: Path) -> None:
    model = onnx.load(untrained_bundle / "dit_step.onnx", load_external_data=False)
    with pytest.raises(ExportRefused, match="not fp16 or bf16"):
        use_plugins(model)


# on a GPU, with full TensorRT


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_tensorrt_runs_the_step_on_our_kernels(
    step_of: Callable[[str], Path], untrained: Path, untrained_bundle: Path, tmp_path: Path, precision: str
) -> None:
    pytest.importorskip("tensorrt", reason="plugins are full TensorRT's")
    major, minor = torch.cuda.get_device_capability()
    register_plugins(10 * major + minor)
    model = onnx.load(step_of(precision))
    use_plugins(model)
    graph, plan, bundle = tmp_path / "dit_step.onnx", tmp_path / "dit_step.engine", Bundle.open(untrained_bundle)
    graph.write_bytes(model.SerializeToString())
    signature = bundle.signature("dit_step")
    record = build_engine(graph, signature, bundle.config.geometry, plan, library="tensorrt")
    engine = TensorRTEngine(plan, signature, record)

    def run(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = engine({name: tensor.cuda() for name, tensor in inputs.items()})
        return {name: tensor.cpu() for name, tensor in found.items()}

    exact, rounded = (
        networks.load("dit_step", Checkpoint.open(untrained), dtype)
        for dtype in (torch.float32, exported_dtype("dit_step", precision))
    )
    ranges = relevant(signature, profiles(bundle.config.geometry))
    sizes = [{symbol: extent.optimum for symbol, extent in profile.items()} for profile in ranges]
    check(exact, run, signature, rounded, [sample_inputs(signature, size) for size in sizes])
