"""An engine is offered, exported and opened once it has a record in the two tables."""

import json
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import jsonschema
import onnxruntime
import pytest
import typer
from typer.testing import CliRunner

import consisid_runtime
from consisid_export.bundle import modules, source_files
from consisid_export.bundle.builders import BUILDERS, Builder, Support, support
from consisid_export.bundle.export import export_bundle
from consisid_export.bundle.export_options import ExportOptions
from consisid_export.bundle.schema import with_names
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.cli import register
from consisid_export.onnx import precision
from consisid_runtime.bundle import Bundle
from consisid_runtime.cli.doctor import extras
from consisid_runtime.engines.table import ENGINES, PRECISIONS, EngineKind, Target
from consisid_runtime.engines.tensorrt_library import LIBRARIES
from consisid_runtime.engines.torch import DTYPES, TorchEngine
from consisid_runtime.errors import BundleVersion, InvalidOption

SCHEMA = Path(consisid_runtime.__file__).parent / "manifest.schema.json"
ENGINE = """
def load_module(bundle, name):
    return lambda inputs: {"read": (bundle.path / bundle.manifest["modules"][name]["files"][0]).read_text()}
"""
BUILDER = """
from consisid_export.bundle.task import Toolchain

def toolchain():
    return Toolchain({"echo": "1.0"})

def write(task):
    (task.work.folder / f"{task.name}.echo").write_text(task.name)
    check = {"kind": "none", "reason": "echoes"}
    return {"files": [f"{task.name}.echo"], "precision": task.options.precision, "check": check}
"""


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Registers an engine and a builder of a package that this project does not have."""
    package = tmp_path / "packages" / "echo_engine"
    package.mkdir(parents=True)
    for name, text in (("__init__", ""), ("engine", ENGINE), ("builder", BUILDER)):
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setattr(source_files, "PACKAGES", (*source_files.PACKAGES, "echo_engine"))
    kind = EngineKind("echo", ".echo", "echo_engine.engine", (Target("cpu", "echo-extra", ("fp16",)),))
    builder = Builder("echo", "echo", "echo_engine.builder", ("echo-extra",), ("fp32", "fp16"))
    monkeypatch.setitem(ENGINES, "echo", kind)
    monkeypatch.setitem(BUILDERS, "echo", builder)
    return "echo"


def test_an_engine_with_records_is_offered_exported_and_opened(echo: str, untrained: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    register(app)
    told = CliRunner().invoke(app, ["export", "--help"], env={"COLUMNS": "300"}).output
    assert "onnx, mixed, torch, tensorrt, torch-tensorrt or echo" in told
    with pytest.raises(InvalidOption, match="torch-tensorrt, echo, got 'nothing'"):
        ExportOptions("nothing")
    with pytest.raises(InvalidOption, match="'echo' has no bf16; onnx, torch, tensorrt or torch-tensorrt has"):
        ExportOptions(echo, "bf16")
    with pytest.raises(InvalidOption, match="dynamic: for engine tensorrt or torch-tensorrt"):
        ExportOptions(echo, "fp16", dynamic=True)

    out = tmp_path / "bundle"
    assert export_bundle(Checkpoint.open(untrained), out, engine=echo, precision="fp16")
    assert not export_bundle(Checkpoint.open(untrained), out, engine=echo, precision="fp16")
    bundle = Bundle.open(out)
    assert bundle.module("parser")({}) == {"read": "parser"}
    assert bundle.manifest["versions"]["echo"] == "1.0"
    schema = with_names(SCHEMA.read_text())
    jsonschema.validate(bundle.manifest, json.loads(schema))
    assert "fp16" in extras()["echo-extra"]
    assert support()[-1] == Support("echo", "echo-extra", ("fp16",), "cpu")


def test_a_bundle_for_an_engine_without_a_record_is_refused(
    echo: str, untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_bundle(Checkpoint.open(untrained), tmp_path / "bundle", engine=echo)
    monkeypatch.delitem(ENGINES, echo)
    with pytest.raises(BundleVersion, match="for engine 'echo', this version has onnx, torch, tensorrt; export"):
        Bundle.open(tmp_path / "bundle").module("parser")


def test_a_builder_leaves_modules_to_another(
    echo: str, untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = replace(BUILDERS[echo], name="half", others={"vae_decoder_next": "torch"})
    monkeypatch.setitem(BUILDERS, "half", half)
    export_bundle(Checkpoint.open(untrained), tmp_path / "bundle", engine="half")
    bundle = Bundle.open(tmp_path / "bundle", device="cpu")
    engines = {name: entry["engine"] for name, entry in bundle.manifest["modules"].items()}
    assert {name for name, engine in engines.items() if engine == "torch"} == {"vae_decoder_next"}
    assert set(engines.values()) == {"torch", echo}
    assert isinstance(bundle.module("vae_decoder_next"), TorchEngine)


def test_the_schema_has_the_names_of_the_tables() -> None:
    assert with_names(SCHEMA.read_text()) == SCHEMA.read_text(), "run `make generate`"


def test_the_tables_agree_with_what_they_name() -> None:
    assert tuple(precision.PRECISIONS) == PRECISIONS
    assert [target.extra for target in ENGINES["tensorrt"].targets] == list(LIBRARIES)
    assert {name for target in ENGINES["torch"].targets for name in target.precisions} == DTYPES.keys()
    for builder in BUILDERS.values():
        assert builder.engine in ENGINES
        assert {name for row in support() if row.engine == builder.name for name in row.precisions} <= {
            *builder.precisions
        }


def test_the_support_table_has_a_row_for_each_way_to_run() -> None:
    rows = support()
    assert Support("onnx", "cpu", ("fp32", "fp16", "fp8"), "cpu") in rows
    assert Support("torch", "kernels", ("fp16", "bf16", "fp8"), "cuda") in rows
    assert [row.extra for row in rows if row.engine == "torch-tensorrt"] == ["tensorrt"]
    assert {row.engine for row in rows} == BUILDERS.keys()


def test_onnx_runtime_may_be_the_distribution_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(distribution: str) -> str:
        if distribution == "onnxruntime":
            raise PackageNotFoundError(distribution)
        return "1"

    monkeypatch.setattr(modules, "version", version)
    assert modules.toolchain().versions["onnxruntime"] == onnxruntime.__version__
