"""Model repositories for a bundle: configurations against Triton's own definition and the real files' tensors."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from consisid_export.onnx.samples import TRACE_SIZES, sample_inputs
from consisid_export.repository.bundle import write_bundle_repository
from consisid_export.repository.native import FOUND, MODULES, engine_signature, native_config
from consisid_export.tensorrt.ranges import profiles, relevant, shape_range
from consisid_runtime.bundle import Bundle
from consisid_runtime.engines.onnxruntime import OnnxEngine
from consisid_runtime.errors import BundleCorrupt, ExportRefused, OutputUnwritable
from consisid_runtime.files.ownership import manifest_digest
from consisid_runtime.plan import Geometry
from consisid_runtime.serve.repository import repository
from consisid_runtime.signatures import Signature

GEOMETRY = Geometry(frames=49, height=480, width=720, spatial=8, temporal=4, patch=2, fixed_size=True)


@pytest.fixture(scope="module")
def native(untrained_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("native") / "models"
    assert write_bundle_repository(untrained_bundle, out, native=True) == [*MODULES, *FOUND]
    return out


def parse(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def tensors(config: model_config_pb2.ModelConfig) -> list[list[tuple[str, str, list[int]]]]:
    name = model_config_pb2.DataType.Name
    return [
        [(tensor.name, name(tensor.data_type), list(tensor.dims)) for tensor in ports]
        for ports in (config.input, config.output)
    ]


@pytest.mark.parametrize("model", [*MODULES, *FOUND])
def test_a_native_config_says_what_the_onnx_file_says(native: Path, model: str) -> None:
    config = parse((native / model / "config.pbtxt").read_text())
    assert (config.name, config.platform, config.max_batch_size) == (model, "onnxruntime_onnx", 0)
    graph = onnx.load(native / model / "1" / "model.onnx", load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    kinds = {
        onnx.TensorProto.FLOAT: "TYPE_FP32",
        onnx.TensorProto.INT64: "TYPE_INT64",
        onnx.TensorProto.UINT8: "TYPE_UINT8",
    }
    assert tensors(config) == [
        [
            (
                value.name,
                kinds[value.type.tensor_type.elem_type],
                [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim],
            )
            for value in values
            if value.name not in weights
        ]
        for values in (graph.input, graph.output)
    ]


@pytest.mark.parametrize("module", MODULES)
def test_a_native_model_loads_from_its_folder_alone(
    native: Path, untrained_bundle: Path, tmp_path: Path, module: str
) -> None:
    moved = shutil.copytree(native / module, tmp_path / module)
    signature = Bundle.open(untrained_bundle).signature(module)
    results = OnnxEngine(moved / "1" / "model.onnx", signature, device="cpu")(sample_inputs(signature, TRACE_SIZES))
    assert list(results) == [port.name for port in signature.outputs]


def test_native_models_take_no_space(native: Path, untrained_bundle: Path) -> None:
    assert (native / "clip" / "1" / "model.onnx").samefile(untrained_bundle / "clip.onnx")


def test_the_readme_says_how_to_start_it(native: Path) -> None:
    text = (native / "README.md").read_text()
    assert f"tritonserver --model-repository={native}" in text and "no server has loaded them yet" in text


def test_the_python_repository_is_the_committed_one_and_says_how_to_start_it(
    untrained_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "with space"
    models = write_bundle_repository(untrained_bundle, out)
    assert models == ["consisid_stream", "face", "text", "encode", "denoise", "decode", "consisid"]
    written = {str(p.relative_to(out)): p.read_text() for p in out.rglob("*") if p.is_file()}
    readme, marker = written.pop("README.md"), json.loads(written.pop("repository.json"))
    assert written == repository()
    assert f"CONSISID_BUNDLE={shlex.quote(str(untrained_bundle))} tritonserver --model-repository='{out}'" in readme
    assert "each in a process of its own" in readme
    assert marker["bundle"] == Bundle.open(untrained_bundle).fingerprint
    write_bundle_repository(untrained_bundle, out, native=True)
    assert not (out / "consisid").exists(), "replaced as a whole"


def test_other_folders_and_damaged_bundles_are_refused(untrained_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(OutputUnwritable, match="choose another folder"):
        write_bundle_repository(untrained_bundle, tmp_path)
    damaged = Path(shutil.copytree(untrained_bundle, tmp_path / "bundle"))
    content = bytearray((damaged / "clip.onnx").read_bytes())
    content[100] ^= 1
    (damaged / "clip.onnx").write_bytes(content)
    with pytest.raises(BundleCorrupt, match=r"clip\.onnx"):
        write_bundle_repository(damaged, tmp_path / "out", native=True)
    assert not (tmp_path / "out").exists()


def test_engines_without_a_native_backend_are_refused(
    torch_bundle_of: Callable[..., Path], untrained_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExportRefused, match="no backend for engine 'torch'"):
        write_bundle_repository(torch_bundle_of(), tmp_path / "out", native=True)
    copy = Path(shutil.copytree(untrained_bundle, tmp_path / "bundle"))
    manifest = json.loads((copy / "manifest.json").read_text())
    for record in manifest["modules"].values():
        record |= {"engine": "tensorrt", "tensorrt": {"library": "tensorrt-rtx", "version": "1.7", "profiles": [{}]}}
    (copy / "manifest.json").write_text(json.dumps(manifest | {"digest": manifest_digest(manifest)}))
    with pytest.raises(ExportRefused, match="cannot load TensorRT-RTX engines"):
        write_bundle_repository(copy, tmp_path / "out", native=True)


def built(signature: Signature, *, dynamic: bool) -> dict[str, object]:
    """A build record's profiles, as `tensorrt.build_engine` makes them."""
    found = relevant(signature, profiles(GEOMETRY, dynamic=dynamic))
    return {
        "profiles": [
            {port.name: [list(shape) for shape in shape_range(port, profile)] for port in signature.inputs}
            for profile in found
        ]
    }


def test_a_tensorrt_config_has_the_engines_sizes_and_all_its_profiles(untrained_bundle: Path) -> None:
    bundle = Bundle.open(untrained_bundle)
    encoder = bundle.signature("vae_encoder")
    static = engine_signature(encoder, built(encoder, dynamic=False))
    assert [port.shape for port in static.inputs] == [("images", 3, 480, 720)]
    assert [port.shape[2:] for port in static.outputs] == [(60, 90)]
    config = parse(native_config(static, "tensorrt_plan", profiles=2))
    assert config.platform == "tensorrt_plan"
    assert list(config.instance_group[0].profile) == ["0", "1"]
    assert list(config.input[0].dims) == [-1, 3, 480, 720]
    following = bundle.signature("vae_decoder_next")
    sizes = engine_signature(following, built(following, dynamic=False))
    assert all(isinstance(size, int) for port in (*sizes.inputs, *sizes.outputs) for size in port.shape)


def test_a_bundle_of_tensorrt_engines_becomes_plans(untrained_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(untrained_bundle, tmp_path / "bundle"))
    manifest = json.loads((copy / "manifest.json").read_text())
    for name, record in manifest["modules"].items():
        profiles = built(Bundle.open(untrained_bundle).signature(name), dynamic=False)
        record |= {"engine": "tensorrt", "tensorrt": {"library": "tensorrt", "version": "11.0", **profiles}}
        record["files"] = record["files"][:1]
    (copy / "manifest.json").write_text(json.dumps(manifest | {"digest": manifest_digest(manifest)}))
    write_bundle_repository(copy, tmp_path / "out", native=True)
    for name in MODULES:
        config = parse((tmp_path / "out" / name / "config.pbtxt").read_text())
        assert config.platform == "tensorrt_plan"
        assert [path.name for path in (tmp_path / "out" / name / "1").iterdir()] == ["model.plan"]
    assert parse((tmp_path / "out" / "detector" / "config.pbtxt").read_text()).platform == "onnxruntime_onnx"
    assert "Triton server with TensorRT 11.0" in (tmp_path / "out" / "README.md").read_text()


def test_a_tensorrt_config_names_tensors_as_the_engine_does(untrained_bundle: Path) -> None:
    signature = Bundle.open(untrained_bundle).signature("parser")
    record = built(signature, dynamic=True) | {"bindings": {"image": "arg0", "labels": "output0"}}
    found = engine_signature(signature, record)
    assert ([p.name for p in found.inputs], [p.name for p in found.outputs]) == (["arg0"], ["output0"])
