"""Editing a file makes those parts of a bundle stale that it shapes, and no others."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consisid_export.bundle import export as exporter
from consisid_export.bundle import source_files, sources
from consisid_export.bundle.builders import Builder
from consisid_export.bundle.export import export_bundle
from consisid_export.bundle.export_options import ExportOptions
from consisid_export.bundle.source_files import imported_files
from consisid_export.bundle.sources import Parts, exporter_digest, files_digest
from consisid_export.bundle.task import ModuleTask, Toolchain
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_runtime.bundle import Bundle
from consisid_runtime.models import networks

MODULES = tuple(networks.COMPONENTS)
TRANSFORMER = ("dit_prepare", "dit_modulate", "dit_step")
RUN = "denoising_run"
CASES: dict[str, dict[str, Any]] = {
    "onnx": {"engine": "onnx"},
    "onnx fp8": {"engine": "onnx", "precision": "fp8"},
    "torch": {"engine": "torch", "precision": "fp16"},
    "torch fp8": {"engine": "torch", "precision": "fp8"},
    "tensorrt": {"engine": "tensorrt", "precision": "fp16"},
    "plugins": {"engine": "tensorrt", "precision": "fp16", "plugins": True},
    "torch-tensorrt": {"engine": "torch-tensorrt", "precision": "fp16"},
}
FP8 = ("dit_step", "calibration", RUN)
GRAPHS = {"onnx": (*MODULES, RUN), "onnx fp8": (*MODULES, "calibration", RUN), "tensorrt": MODULES, "plugins": MODULES}
ENGINES = {"tensorrt": MODULES, "plugins": MODULES, "torch-tensorrt": MODULES}


def of_network(*modules: str) -> dict[str, tuple[str, ...]]:
    return {
        "onnx": (*modules, RUN),
        "onnx fp8": tuple({*modules, *FP8}),
        **dict.fromkeys(ENGINES, modules),
    }


RUNS = {"onnx": (RUN,), "onnx fp8": FP8}
PLUGINS = {"plugins": ("dit_step",)}
STALE: dict[str, dict[str, tuple[str, ...]]] = {
    "consisid_runtime/models/bisenet.py": of_network("parser"),
    "consisid_runtime/models/t5.py": of_network("text_encoder"),
    "consisid_runtime/models/dit.py": of_network(*TRANSFORMER),
    "consisid_runtime/models/configs/vae.py": of_network("vae_encoder", "vae_decoder_first", "vae_decoder_next"),
    "consisid_runtime/models/fused/step.py": {},
    "consisid_runtime/signatures.py": GRAPHS | {"torch-tensorrt": MODULES},
    "consisid_runtime/stages/schedule.py": RUNS,
    "consisid_runtime/stages/decode.py": {},
    "consisid_runtime/mp4.py": {},
    "consisid_runtime/engines/transfers.py": RUNS,
    "consisid_runtime/options.py": RUNS,
    "consisid_runtime/tiers.py": RUNS,
    "consisid_runtime/errors.py": {},
    "consisid_runtime/cli/commands.py": {},
    "consisid_runtime/serve/models.py": {},
    "consisid_runtime/models/cpu_decoder.py": {},
    "consisid_runtime/models/fused/decoder.py": {},
    "consisid_runtime/models/fused/float8.py": {},
    "consisid_runtime/models/in_place_decoder.py": {},
    "consisid_export/onnx/trace.py": GRAPHS,
    "consisid_export/onnx/fp8.py": {"onnx fp8": FP8},
    "consisid_export/verify/module.py": GRAPHS,
    "consisid_export/verify/denoising_run.py": {"onnx": (RUN,), "onnx fp8": (RUN,)},
    "consisid_export/verify/checkpoint_runs.py": RUNS,
    "consisid_export/tensorrt/ranges.py": ENGINES,
    "consisid_export/tensorrt/with_torch.py": {"torch-tensorrt": MODULES},
    "consisid_export/tensorrt/plugins.py": PLUGINS,
    "consisid_export/tensorrt/progress.py": {},
    "consisid_export/checkpoint/tensor_files.py": {name: (*GRAPHS.get(name, MODULES), RUN) for name in CASES}
    | {"torch-tensorrt": (RUN,)},
    "consisid_export/checkpoint/licences.py": {},
    "consisid_export/checkpoint/change_curve.py": {},
    "consisid_export/bundle/write_weights.py": {"torch": MODULES, "torch fp8": MODULES},
    "consisid_export/bundle/copied_files.py": dict.fromkeys(CASES, (RUN,)),
    "consisid_export/bundle/export.py": {},
    "consisid_export/bundle/builders.py": {},
    "consisid_export/repository/native.py": {},
    "consisid_export/cli.py": {},
    "consisid_nano/demo/demo.py": {},
    "consisid_kernels/attention/joint.py": PLUGINS,
    "consisid_kernels/compile/ptx.py": PLUGINS,
    "consisid_kernels/layers/ffn.py": {},
    "tiles/joint_attention.json": PLUGINS,
    "tiles/linear.json": {},
}
"""Edited file → case → the parts that become stale."""


@pytest.fixture(scope="module")
def digests(untrained: Path) -> Callable[..., dict[str, str]]:
    checkpoint = Checkpoint.open(untrained)
    signatures = networks.signatures(checkpoint)
    sizes = checkpoint.config.geometry

    def of(case: str, **changed: Any) -> dict[str, str]:
        toolchain = Toolchain({"tensorrt": "10.16"}, ("sm_90",))
        return replace(Parts(ExportOptions(**CASES[case]), toolchain, signatures, sizes), **changed).digests()

    return of


@pytest.fixture(scope="module")
def before(digests: Callable[..., dict[str, str]]) -> dict[str, dict[str, str]]:
    """The digests of every case, of the files as they are."""
    return {case: digests(case) for case in CASES}


def test_each_part_of_a_mixed_bundle_has_its_own_builders_digest(untrained: Path) -> None:
    checkpoint = Checkpoint.open(untrained)
    signatures, sizes = networks.signatures(checkpoint), checkpoint.config.geometry
    mixed, onnx, torch = (
        Parts(options, options.builder.toolchain(), signatures, sizes).digests()
        for options in map(ExportOptions, ("mixed", "onnx", "torch"))
    )
    decoders = ("vae_decoder_first", "vae_decoder_next")
    assert mixed == onnx | {name: torch[name] for name in decoders}


@pytest.fixture
def edit(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Adds a line to a source file, as far as digests can see."""

    def edit(name: str) -> None:
        read = source_files.content
        edited = lambda path: read(path) + b"\nedited = 1\n" if str(path).endswith(f"/{name}") else read(path)  # noqa: E731
        monkeypatch.setattr(source_files, "content", edited)

    return edit


def differing(before: dict[str, str], after: dict[str, str]) -> set[str]:
    assert before.keys() == after.keys()
    return {part for part in before if before[part] != after[part]}


@pytest.mark.parametrize("name", STALE)
def test_an_edit_makes_exactly_those_parts_stale_that_it_shapes(
    name: str,
    digests: Callable[..., dict[str, str]],
    before: dict[str, dict[str, str]],
    edit: Callable[[str], None],
) -> None:
    edit(name)
    found = {case: differing(before[case], digests(case)) for case in CASES}
    assert found == {case: set(STALE[name].get(case, ())) for case in CASES}


def test_every_edited_file_exists() -> None:
    roots = {source_files.file_of(package).parents[1] for package in source_files.PACKAGES}
    kernels = source_files.file_of("consisid_kernels").parent
    assert all(any((root / name).is_file() for root in (*roots, kernels)) for name in STALE)


def test_another_version_of_triton_makes_what_its_code_is_built_into_stale(
    digests: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {case: digests(case) for case in CASES}
    monkeypatch.setattr(sources, "version", lambda package: "99")
    stale = {case: differing(before[case], digests(case)) for case in CASES}
    assert stale == {case: {"dit_step"} if case == "plugins" else set() for case in CASES}


def test_libraries_gpus_and_sizes_are_part_of_a_modules_digest(digests: Callable[..., dict[str, str]]) -> None:
    before = digests("tensorrt")
    for toolchain in (Toolchain({"tensorrt": "11"}, ("sm_90",)), Toolchain({"tensorrt": "10.16"}, ("sm_89",))):
        assert differing(before, digests("tensorrt", toolchain=toolchain)) == set(MODULES)


def test_a_modules_own_signature_makes_it_alone_stale(
    untrained: Path, checkpoint_of: Callable[..., Path], digests: Callable[..., dict[str, str]]
) -> None:
    signatures = networks.signatures(Checkpoint.open(untrained))
    parser = replace(signatures["parser"], outputs=signatures["parser"].outputs * 2)
    changed = digests("torch", signatures={**signatures, "parser": parser})
    assert differing(digests("torch"), changed) == {"parser"}


def test_the_untrained_checkpoint_and_proofs_have_digests_of_their_own(edit: Callable[[str], None]) -> None:
    untrained, exporter_before = files_digest("consisid_nano.untrained.write"), exporter_digest()
    edit("consisid_export/onnx/trace.py")
    exporter_digest.cache_clear()
    assert files_digest("consisid_nano.untrained.write") == untrained
    assert exporter_digest() != exporter_before
    for file in ("consisid_runtime/models/dit.py", "consisid_runtime/signatures.py", "consisid_export/cli.py"):
        known = exporter_digest()
        edit(file)
        exporter_digest.cache_clear()
        assert exporter_digest() != known, file
    edit("consisid_nano/untrained/aligner.py")
    assert files_digest("consisid_nano.untrained.write") != untrained
    exporter_digest.cache_clear()


def test_imports_in_functions_count_and_those_for_types_do_not() -> None:
    found = imported_files(["consisid_export.tensorrt.plugins"])
    assert {"consisid_kernels.compile.aot", "consisid_kernels.attention.joint"} <= found.keys()
    assert "consisid_export.checkpoint.checkpoint" not in imported_files(["consisid_export.bundle.task"])
    with pytest.raises(ModuleNotFoundError):
        imported_files(["consisid_export.gone"])


def test_only_stale_modules_are_written_again(
    untrained: Path,
    untrained_bundle: Path,
    tmp_path: Path,
    edit: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[str] = []
    write = Builder.write

    def noting(self: Builder, task: ModuleTask) -> dict[str, Any]:
        written.append(task.name)
        return write(self, task)

    run = Bundle.open(untrained_bundle).manifest["denoising_run"]
    monkeypatch.setattr(Builder, "write", noting)
    monkeypatch.setattr(exporter, "check_denoising_run", lambda *_, **__: {key: run[key] for key in ("steps", "check")})
    out = Path(shutil.copytree(untrained_bundle, tmp_path / "bundle"))
    checkpoint = Checkpoint.open(untrained)
    before = {path.name: path.stat().st_ino for path in out.glob("*.onnx")}
    edit("consisid_export/checkpoint/licences.py")
    assert not export_bundle(checkpoint, out)
    edit("consisid_runtime/models/bisenet.py")
    assert export_bundle(checkpoint, out)
    assert written == ["parser"]
    after = {path.name: path.stat().st_ino for path in out.glob("*.onnx")}
    assert {name for name in before if before[name] != after[name]} == {"parser.onnx"}
    Bundle.open(out).verify()
    assert not export_bundle(checkpoint, out)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
