"""Engines built for real by TensorRT-RTX, which needs no GPU for that; what TensorRT does differently, on its names."""

import dataclasses
import hashlib
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from consisid_export.bundle.sources import exporter_digest
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.onnx.precision import exported_dtype
from consisid_export.onnx.trace import export_onnx
from consisid_export.tensorrt import build as adapter
from consisid_export.tensorrt import graph as tensorrt_graph
from consisid_export.tensorrt.build import build_engine, unsupported_nodes
from consisid_export.tensorrt.ranges import profiles, relevant
from consisid_export.tensorrt.with_torch import build_engine_with_torch, export_program
from consisid_runtime.bundle import Bundle
from consisid_runtime.engines.tensorrt_library import LIBRARIES, load
from consisid_runtime.errors import ExportCancelled, ExportRefused, InvalidOption, MissingExtra, OutputUnwritable
from consisid_runtime.models import networks
from consisid_runtime.signatures import Port, Signature

HALVES = ("fp16", "bf16")
TARGETS = ("SM89", "SM120")
MODULES = tuple(networks.COMPONENTS)

Build = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def checkpoint(untrained: Path) -> Checkpoint:
    return Checkpoint.open(untrained)


@pytest.fixture(scope="session")
def halved(checkpoint: Checkpoint) -> Callable[[str, str], Path]:
    """Path of a module's graph in "fp16" or "bf16", kept under build/ while the sources stay the same."""
    folder = checkpoint.path.parent / f"tensorrt-graphs-{exporter_digest()[:12]}"

    def graph(module: str, precision: str) -> Path:
        path = folder / f"{module}.{precision}.onnx"
        if not path.is_file():
            for old in set(folder.parent.glob("tensorrt-graphs-*")) - {folder}:
                shutil.rmtree(old)
            folder.mkdir(exist_ok=True)
            network = networks.load(module, checkpoint, exported_dtype(module, precision))
            signature = networks.signatures(checkpoint, exported_dtype(module, precision))[module]
            export_onnx(network, signature, path)
        return path

    return graph


@pytest.fixture
def build(untrained_bundle: Path, tmp_path: Path) -> Build:
    """Builds a module, by default from the bundle's float32 graph for SM89, to `tmp_path/engines/MODULE.engine`."""
    bundle = Bundle.open(untrained_bundle)

    def run(module: str, graph: Path | None = None, *, free: bool = False, **options: Any) -> dict[str, Any]:
        sizes = dataclasses.replace(bundle.config.geometry, fixed_size=not free)
        path = graph or untrained_bundle / f"{module}.onnx"
        options = {"library": "tensorrt-rtx", "compute_capabilities": ("SM89",)} | options
        out = tmp_path / "engines" / f"{module}.engine"
        return build_engine(path, bundle.signature(module), sizes, out, **options)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "engines").mkdir()
    yield tmp_path / "engines"


@pytest.mark.parametrize(
    ("module", "precision", "target"),
    [("text_encoder", "fp16", "SM89"), ("dit_prepare", "bf16", "SM120"), ("dit_modulate", "fp16", "SM120")],
)
def test_a_sample_builds(
    build: Build, halved: Callable[[str, str], Path], tmp_path: Path, module: str, precision: str, target: str
) -> None:
    record = build(module, halved(module, precision), compute_capabilities=(target,))
    assert record["library"] == "tensorrt-rtx"
    assert record["architectures"] == [target.lower().replace("sm", "sm_")]
    assert (tmp_path / "engines" / f"{module}.engine").stat().st_size > 10_000


@pytest.mark.proof
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("module", MODULES)
def test_every_graph_builds_for_every_target(
    build: Build,
    halved: Callable[[str, str], Path],
    tmp_path: Path,
    proof: Callable[[str], Any],
    module: str,
    precision: str,
    target: str,
) -> None:
    record, trial = proof("tensorrt-builds"), f"{module} {precision} {target}"
    if trial in record.trials:
        return
    built = build(module, halved(module, precision), compute_capabilities=(target,))
    assert built["layers"] > 0
    assert (tmp_path / "engines" / f"{module}.engine").stat().st_size > 10_000
    record.record(trial, module=module, precision=precision, **recorded(built))


@pytest.mark.proof
@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("module", MODULES)
def test_every_graph_builds_with_dynamic_sizes(
    build: Build, halved: Callable[[str, str], Path], proof: Callable[[str], Any], module: str, precision: str
) -> None:
    record, trial = proof("tensorrt-dynamic-builds"), f"{module} {precision}"
    if trial in record.trials:
        return
    built = build(module, halved(module, precision), free=True, dynamic=True)
    assert built["layers"] > 0
    record.record(trial, module=module, precision=precision, **recorded(built))


def recorded(built: dict[str, Any]) -> dict[str, Any]:
    """What a proof records of a build."""
    return {name: built[name] for name in ("library", "version", "architectures", "layers", "seconds")}


def test_the_step_builds_in_float32_for_both_targets_at_once(
    build: Build, untrained_bundle: Path, tmp_path: Path
) -> None:
    graph = untrained_bundle / "dit_step.onnx"
    before = hashlib.sha256(graph.read_bytes()).digest()
    phases: dict[str, list[tuple[int, int]]] = {}
    record = build(
        "dit_step",
        compute_capabilities=TARGETS,
        progress=lambda phase, done, total: phases.setdefault(phase, []).append((done, total)),
    )
    assert record["architectures"] == ["sm_89", "sm_120"]
    assert [profile["latents"][0][:2] for profile in record["profiles"]] == [[1, 5], [1, 5]]
    assert [profile["text_tokens"][0][0] for profile in record["profiles"]] == [2, 1]
    assert hashlib.sha256(graph.read_bytes()).digest() == before
    assert [path.name for path in (tmp_path / "engines").iterdir()] == ["dit_step.engine"]
    assert all(0 <= done <= total for steps in phases.values() for done, total in steps)
    assert sum(len(steps) for steps in phases.values()) > 100


def test_the_next_chunk_builds_with_dynamic_height_and_width(build: Build) -> None:
    record = build("vae_decoder_next", free=True, dynamic=True)
    least, _, greatest = record["profiles"][0]["cache_0"]
    assert least[3:] == [2, 2]
    assert greatest[3] == greatest[4] > 2


def test_float32_attention_needs_the_hint(build: Build, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_graph, "_translate_attention", lambda model: None)
    with pytest.raises(
        ExportRefused, match=r"text_encoder: TensorRT cannot build(.|\n)*ERROR: (.|\n)*dedicated kernel"
    ):
        build("text_encoder")
    assert not list(folder.iterdir())


def test_weights_outside_of_the_graph_are_read_from_beside_it(
    build: Build, untrained_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Copied: onnx reads no weights from a file with several hard links, as a bundle's have.
    model = onnx.load(shutil.copytree(untrained_bundle, tmp_path / "copy") / "dit_modulate.onnx")
    stored = {"save_as_external_data": True, "location": "shared.data", "size_threshold": 0}
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here").mkdir()
    onnx.save(model, tmp_path / "elsewhere" / "graph.onnx", **stored)
    (tmp_path / "elsewhere" / "graph.onnx").rename(tmp_path / "here" / "graph.onnx")
    with pytest.raises(
        ExportRefused, match=r"dit_modulate: TensorRT cannot read the graph:\n.*time_embedding(.|\n)*shared\.data"
    ):
        build("dit_modulate", tmp_path / "here" / "graph.onnx")
    (tmp_path / "here" / "shared.data").hardlink_to(tmp_path / "elsewhere" / "shared.data")
    monkeypatch.chdir(tmp_path)
    build("dit_modulate", tmp_path / "here" / "graph.onnx")
    weights = (tmp_path / "here" / "shared.data").stat().st_size
    assert (tmp_path / "engines" / "dit_modulate.engine").stat().st_size > weights


def test_only_float32_attention_gets_the_hint(
    untrained_bundle: Path, halved: Callable[[str, str], Path], checkpoint: Checkpoint
) -> None:
    bundle = Bundle.open(untrained_bundle)
    signature = bundle.signature("text_encoder")
    chosen = relevant(signature, profiles(bundle.config.geometry))
    assert "softmax_precision" in str(onnx.load(halved("text_encoder", "fp16")).graph)
    for path, hinted in ((untrained_bundle / "text_encoder.onnx", True), (halved("text_encoder", "fp16"), False)):
        nodes = tensorrt_graph.tensorrt_graph(path, signature, chosen).graph.node
        attention = [node for node in nodes if node.op_type == "Attention"]
        assert attention
        for node in attention:
            names = {attribute.name for attribute in node.attribute}
            assert "softmax_precision" not in names
            assert hinted == ("TRT_decomposable" in names)


def test_sizes_that_never_vary_are_numbers_in_the_graph(untrained_bundle: Path) -> None:
    bundle = Bundle.open(untrained_bundle)
    signature = bundle.signature("dit_step")
    chosen = relevant(signature, profiles(bundle.config.geometry))
    model = tensorrt_graph.tensorrt_graph(untrained_bundle / "dit_step.onnx", signature, chosen)
    dims = {value.name: value.type.tensor_type.shape.dim for value in model.graph.input}
    assert [dim.dim_value for dim in dims["latents"]] == [1, 5, 16, 16, 24]
    assert dims["text_tokens"][0].dim_param == "branches"


# what can go wrong


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_a_build_can_be_stopped_and_leaves_nothing(build: Build, folder: Path, error: type[BaseException]) -> None:
    calls = 0

    def progress(phase: str, done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 20:
            raise error

    with pytest.raises(ExportCancelled if error is KeyboardInterrupt else error):
        build("dit_modulate", progress=progress)
    assert calls == 20
    assert not list(folder.iterdir())


def test_control_c_stops_a_build_without_a_display(build: Build, folder: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    calls = 0

    def progress(phase: str, done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 20:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(ExportCancelled, match="dit_modulate: the build was cancelled; nothing was written"):
        build("dit_modulate", progress=progress)
    assert signal.getsignal(signal.SIGINT) is before
    assert not list(folder.iterdir())


def one_node(path: Path, operator: str) -> Signature:
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], name="determinant_7")],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10), path)
    return Signature("tiny", (Port("x", "FP32", (2, 2)),), (Port("y", "FP32", ()),))


def test_an_unknown_operator_is_named_with_its_node(untrained_bundle: Path, tmp_path: Path) -> None:
    signature = one_node(tmp_path / "tiny.onnx", "Det")
    sizes = Bundle.open(untrained_bundle).config.geometry
    with pytest.raises(
        ExportRefused, match=r"tiny: TensorRT cannot read the graph:\n  Det 'determinant_7': UNSUPPORTED"
    ):
        build_engine(tmp_path / "tiny.onnx", signature, sizes, tmp_path / "x", library="tensorrt-rtx")
    assert not (tmp_path / "x").exists()
    (found,) = unsupported_nodes(tmp_path / "tiny.onnx", signature, sizes, library="tensorrt-rtx")
    assert found.startswith("Det 'determinant_7': UNSUPPORTED_NODE")


def test_the_step_has_no_unsupported_node(untrained_bundle: Path) -> None:
    bundle = Bundle.open(untrained_bundle)
    found = unsupported_nodes(
        untrained_bundle / "dit_step.onnx", bundle.signature("dit_step"), bundle.config.geometry, library="tensorrt-rtx"
    )
    assert found == []


def test_a_size_without_a_range_is_named(untrained_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(untrained_bundle)
    profile = {"branches": profiles(bundle.config.geometry)[0]["branches"]}
    with pytest.raises(ExportRefused, match="dit_modulate: no range is declared for the size 'steps'"):
        build_engine(
            untrained_bundle / "dit_modulate.onnx",
            bundle.signature("dit_modulate"),
            (profile,),
            tmp_path / "x",
            library="tensorrt-rtx",
        )


def test_an_unknown_compute_capability_is_refused(build: Build) -> None:
    with pytest.raises(
        InvalidOption, match=r"builds for SM75, .*SM120.*, got SM90; for other GPUs use library 'tensorrt'"
    ):
        build("dit_modulate", compute_capabilities=("SM89", "SM90"))


def test_an_unwritable_place_is_refused(build: Build, tmp_path: Path) -> None:
    (tmp_path / "engines").write_bytes(b"a file")
    with pytest.raises(OutputUnwritable, match=r"nothing can be written into .*engines: "):
        build("dit_modulate")


@pytest.mark.parametrize(
    ("library", "command"),
    [
        (None, r"\[tensorrt\]' or pip install 'consisid-runtime\[tensorrt-rtx\]'"),
        ("tensorrt", r"pip install 'consisid-runtime\[tensorrt\]'"),
        ("tensorrt-rtx", r"pip install 'consisid-runtime\[tensorrt-rtx\]'"),
    ],
)
def test_a_missing_library_says_what_to_install(
    library: str | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in LIBRARIES.values():
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=command):
        load(library)


def test_another_library_is_refused() -> None:
    with pytest.raises(InvalidOption, match="must be one of tensorrt, tensorrt-rtx, got 'tensorrt-lean'"):
        load("tensorrt-lean")


# full TensorRT: TensorRT-RTX under its name, so that its own branches run


@pytest.fixture
def full_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    _, rtx = load("tensorrt-rtx")
    pretended = ModuleType("tensorrt")
    pretended.__dict__.update(rtx.__dict__)
    pretended.__version__ = "10.16.1.11"  # type: ignore[attr-defined]
    monkeypatch.setattr(adapter, "load", lambda name: ("tensorrt", pretended))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))


@pytest.mark.usefixtures("full_tensorrt")
def test_tensorrt_builds_for_this_gpu(build: Build) -> None:
    record = build("dit_modulate", library="tensorrt", compute_capabilities=None)
    assert (record["library"], record["version"]) == ("tensorrt", "10.16.1.11")
    assert record["architectures"] == ["sm_90"]


@pytest.mark.usefixtures("full_tensorrt")
def test_tensorrt_takes_no_compute_capability(build: Build) -> None:
    with pytest.raises(InvalidOption, match=r"this machine's GPU only, got SM89"):
        build("dit_modulate", library="tensorrt")


def test_tensorrt_without_a_gpu_says_so(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "load", lambda name: ("tensorrt", load("tensorrt-rtx")[1]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingExtra, match="needs an NVIDIA GPU; library 'tensorrt-rtx' builds without one"):
        build("dit_modulate", library="tensorrt", compute_capabilities=None)


@pytest.mark.usefixtures("full_tensorrt")
@pytest.mark.filterwarnings("ignore:.*Timing cache:DeprecationWarning")
@pytest.mark.parametrize("kept", [None, b"not a timing cache"], ids=["none", "garbage"])
def test_a_timing_cache_is_written_and_read_again(build: Build, tmp_path: Path, kept: bytes | None) -> None:
    path = tmp_path / "timings"
    if kept is not None:
        path.write_bytes(kept)
    for _ in range(2):
        build("dit_modulate", library="tensorrt", compute_capabilities=None, timing_cache=path)
        assert len(path.read_bytes()) > len(kept or b"")


class Timings:
    """A builder configuration that takes the caches it knows."""

    def __init__(self, readable: bytes, matching: bytes) -> None:
        self.readable, self.matching, self.offered = readable, matching, []  # type: list[Any]

    def create_timing_cache(self, content: bytes) -> str | None:
        self.offered.append(content)
        return content.decode() or "new" if content in (b"", self.readable) else None

    def set_timing_cache(self, cache: str, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        return cache in ("new", self.matching.decode())


@pytest.mark.parametrize(
    ("kept", "used"), [(b"mine", "mine"), (b"unreadable", "new"), (b"other GPU", "new"), (None, "new")], ids=str
)
def test_a_foreign_timing_cache_is_replaced(tmp_path: Path, kept: bytes | None, used: str) -> None:
    if kept is not None:
        (tmp_path / "timings").write_bytes(kept)
    config = Timings(readable=kept if kept != b"unreadable" else b"", matching=b"mine")  # type: ignore[arg-type]
    assert adapter._read_timing_cache(config, tmp_path / "timings") == used
    assert config.offered[0] == (kept or b"")


def test_tensorrt_rtx_keeps_no_timings(build: Build, tmp_path: Path) -> None:
    build("dit_modulate", timing_cache=tmp_path / "timings")
    assert not (tmp_path / "timings").exists()


# torch-tensorrt: what a CPU can run of it


def test_torch_tensorrt_missing_names_the_versions_that_fit(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    signature = networks.signatures(checkpoint)["dit_modulate"]
    sizes = checkpoint.config.geometry
    with pytest.raises(MissingExtra, match=r"2\.13 with torch 2\.13 and tensorrt 11\.0.*here is torch 2\."):
        build_engine_with_torch(networks.load("dit_modulate", checkpoint), signature, sizes, tmp_path / "x")


def test_torch_tensorrt_gets_a_program_with_only_the_varying_axes_open(checkpoint: Checkpoint) -> None:
    signature = networks.signatures(checkpoint)["text_encoder"]
    sizes = checkpoint.config.geometry
    network = networks.load("text_encoder", checkpoint)
    (ranges, _) = relevant(signature, profiles(sizes))
    program = export_program(network, signature, ranges)
    tokens = torch.randint(32, (2, 64), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(program.module()(tokens), network(tokens))
    assert not program.range_constraints


def test_tensorrt_rtx_has_no_plugins(build: Build) -> None:
    with pytest.raises(InvalidOption, match="plugins are for library 'tensorrt', got 'tensorrt-rtx', which has none"):
        build("dit_step", plugins=True)
