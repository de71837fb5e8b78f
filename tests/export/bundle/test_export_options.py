"""What an export may be asked for, and bundles of TensorRT engines and in fp8."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import consisid_runtime
from consisid_export.bundle import modules
from consisid_export.bundle.export import export_bundle
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.tensorrt import build as tensorrt
from consisid_export.verify import checkpoint_runs
from consisid_runtime.bundle import Bundle
from consisid_runtime.engines import tensorrt as tensorrt_engine
from consisid_runtime.errors import (
    ConsisIDError,
    ExportCancelled,
    InvalidOption,
    MissingExtra,
)
from consisid_runtime.events import Progress
from consisid_runtime.files.ownership import sha256
from consisid_runtime.models import networks

MODULES = list(networks.COMPONENTS)
FailingAt = Callable[[str, BaseException], Progress]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "trt"}, "one of onnx, mixed, torch, tensorrt, torch-tensorrt, got 'trt'"),
        ({"precision": "fp4"}, "precision must be one of fp32, fp16, bf16, fp8, got 'fp4'"),
        ({"engine": "torch-tensorrt", "precision": "fp8"}, "'torch-tensorrt' has no fp8"),
        ({"calibration": "c.json"}, "calibration: for engine onnx or tensorrt, in fp8; got engine 'onnx' in fp32"),
        ({"engine": "torch", "precision": "fp8", "calibration": "c.json"}, "calibration: for engine onnx or tensorrt"),
        ({"dynamic": True}, "dynamic: for engine tensorrt or torch-tensorrt, in .* got engine 'onnx' in fp32"),
        ({"plugins": True}, "plugins: for engine tensorrt, in fp16 or bf16; got engine 'onnx' in fp32"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_does_not_exist_or_fit_is_named(
    checkpoint: Checkpoint, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidOption, match=message):
        export_bundle(checkpoint, tmp_path / "bundle", **options)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """ONNX graphs and TensorRT engines without the work; collects what the engines were built with."""
    built: list[dict[str, Any]] = []

    def write_module(name: str, checkpoint: Checkpoint, folder: Path, signature: Any, **options: Any) -> dict[str, Any]:
        (folder / f"{name}.onnx").write_text(name)
        check = {"kind": "numeric", "error": 0.5e-6, "limit": 1e-5}
        return {"files": [f"{name}.onnx"], "opset": 23, "check": check}

    def build_engine(graph: Path, signature: Any, sizes: Any, out: Path, **options: Any) -> dict[str, Any]:
        built.append({"graph": graph.read_text(), "sizes": sizes, **options})
        out.write_text(f"engine of {graph.read_text()}")
        options["progress"]("building", 1, 2)
        found = {"library": "tensorrt-rtx", "version": "1.7", "architectures": ["sm_89"]}
        return {**found, "profiles": [{}], "layers": 1, "log": [], "seconds": 1.5}

    monkeypatch.setattr(modules, "write_module", write_module)
    monkeypatch.setattr(tensorrt, "build_engine", build_engine)
    monkeypatch.setattr(tensorrt, "target", lambda library=None: ("tensorrt-rtx", "1.7", ["sm_89"]))
    return built


def test_a_bundle_of_tensorrt_engines_holds_engines_and_says_what_they_are(
    checkpoint: Checkpoint, tmp_path: Path, pretended: list[dict[str, Any]]
) -> None:
    told: list[str] = []
    out = tmp_path / "bundle"
    options: dict[str, Any] = {"engine": "tensorrt", "precision": "fp16", "dynamic": True}
    export_bundle(checkpoint, out, **options, progress=lambda module, done, total: told.append(module))
    assert [build["graph"] for build in pretended] == MODULES
    assert all(build["dynamic"] and build["sizes"] == Bundle.open(out).config.geometry for build in pretended)
    assert "dit_step, building 1/2" in told
    manifest = Bundle.open(out).manifest
    jsonschema.validate(
        manifest, json.loads((Path(consisid_runtime.__file__).parent / "manifest.schema.json").read_text())
    )
    assert {module["engine"] for module in manifest["modules"].values()} == {"tensorrt"}
    assert manifest["options"]["engine"] == "tensorrt" and manifest["architectures"] == ["sm_89"]
    assert manifest["versions"]["tensorrt-rtx"] == "1.7"
    step, parser = manifest["modules"]["dit_step"], manifest["modules"]["parser"]
    assert (step["precision"], parser["precision"]) == ("fp16", "fp32")
    assert step["files"] == ["dit_step.engine"] and step["tensorrt"]["version"] == "1.7"
    assert step["check"]["kind"] == "structural" and "GPU" in step["check"]["reason"]
    assert step["graph"]["check"]["error"] == 0.5e-6
    assert not list(out.rglob("dit_step.onnx"))
    assert not export_bundle(checkpoint, out, **options)
    assert export_bundle(checkpoint, out, **options | {"dynamic": False}), "other options, another bundle"


def test_a_bundle_in_fp8_keeps_its_calibration_and_one_run_is_enough(
    checkpoint: Checkpoint,
    tmp_path: Path,
    pretended: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    failing_at: FailingAt,
) -> None:
    monkeypatch.setattr(checkpoint_runs, "STEPS", 2)
    options: dict[str, Any] = {"engine": "tensorrt", "precision": "fp8"}
    with pytest.raises(ExportCancelled):
        export_bundle(checkpoint, tmp_path / "b", **options, progress=failing_at(MODULES[3], KeyboardInterrupt()))
    told: list[str] = []
    export_bundle(checkpoint, tmp_path / "b", **options, progress=lambda phase, *_: told.append(phase))
    assert not [phase for phase in told if phase.startswith("calibration")]
    manifest = Bundle.open(tmp_path / "b").manifest
    assert {name: manifest["modules"][name]["precision"] for name in ("dit_step", "dit_prepare", "parser")} == {
        "dit_step": "fp8",
        "dit_prepare": "fp16",
        "parser": "fp32",
    }
    assert manifest["denoising_run"]["check"]["kind"] == "structural"
    given = tmp_path / "b" / "calibration.json"
    monkeypatch.setattr(checkpoint_runs.CheckpointRuns, "largest_inputs", None)
    export_bundle(checkpoint, tmp_path / "c", **options, calibration=given)
    assert (tmp_path / "c" / "calibration.json").read_bytes() == given.read_bytes()
    assert Bundle.open(tmp_path / "c").manifest["options"]["calibration"] == sha256(given)


def test_the_bundle_runs_each_engine_with_its_record(
    checkpoint: Checkpoint, tmp_path: Path, pretended: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    export_bundle(checkpoint, tmp_path / "b", engine="tensorrt")
    monkeypatch.setattr(tensorrt_engine, "TensorRTEngine", lambda *given, **named: (given, named))
    bundle = Bundle.open(tmp_path / "b", device="cuda")
    for module in ("clip", "dit_step"):
        (path, signature, record), named = bundle.module(module)  # type: ignore[misc]
        assert (path, signature.name) == (tmp_path / "b" / f"{module}.engine", module)
        assert record == bundle.manifest["modules"][module]["tensorrt"]
        assert named == {"device": "cuda", "capture": module == "dit_step"}


def test_a_cancelled_build_keeps_the_engines_that_are_finished(
    checkpoint: Checkpoint, tmp_path: Path, pretended: list[dict[str, Any]], failing_at: FailingAt
) -> None:
    with pytest.raises(ExportCancelled, match="nothing was written; 10 finished parts are kept"):
        export_bundle(
            checkpoint,
            tmp_path / "b",
            engine="tensorrt",
            progress=failing_at(MODULES[-1], ExportCancelled("dit_step: cancelled; nothing was written")),
        )
    pretended.clear()
    assert export_bundle(checkpoint, tmp_path / "b", engine="tensorrt")
    assert [build["graph"] for build in pretended] == MODULES[-1:]


def test_a_missing_library_is_named_before_anything_is_done(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_at: FailingAt
) -> None:
    for library in ("tensorrt", "tensorrt_rtx", "torch_tensorrt"):
        monkeypatch.setitem(sys.modules, library, None)
    for engine in ("tensorrt", "torch-tensorrt"):
        with pytest.raises(MissingExtra, match=rf"pip install 'consisid-runtime\[{engine}\]'"):
            export_bundle(checkpoint, tmp_path / "b", engine=engine, progress=failing_at("", ConsisIDError()))
    assert not list(tmp_path.iterdir())
