"""The untrained checkpoint and its bundles, made once and kept under build/ while sources and tools stay the same."""

import fcntl
import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
BUILD = TESTS.parent / "build" / "test"
PROOFS = TESTS.parent / "benchmarks" / "results" / "proof"


FIRST = (
    "runtime/test_parity.py",
    "fidelity/nano/test_known_damage.py",
    "export/tensorrt/test_tensorrt.py",
    "training/test_decoder.py",
    "training/test_dit.py",
)
"""The longest files. The first two do not wait for the same bundle."""


def pytest_collection() -> None:
    """Not called in the process that only distributes the tests: it needs no torch."""
    from consisid_runtime.allocator import keep_freed_memory

    keep_freed_memory()  # as the command does
    import torch

    gc.disable()  # imports leave nearly no garbage
    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"  # read wherever a kernel is decorated, hence before any is imported


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files start first, so that no process waits for one at the end."""
    ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(FIRST)}
    items.sort(key=lambda item: ranks.get(item.path, len(FIRST)))
    for item in items:
        if item.get_closest_marker("proof"):
            item.add_marker(pytest.mark.timeout(0))


def pytest_collection_finish() -> None:
    """Exempts what was imported from garbage collection: benchmarks collect before every sample."""
    gc.freeze()
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    import torch

    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@contextmanager
def alone(name: str) -> Iterator[None]:
    """No other run of the tests is in here with the same name: several share build/."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / f".{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def exported(source: Path, out: Path, engine: str) -> Path:
    """The bundle of a checkpoint; waits where another run of the tests is writing it."""
    from consisid_export.bundle.export import export_bundle
    from consisid_export.checkpoint.checkpoint import Checkpoint
    from consisid_runtime.errors import OutputBusy

    while True:
        try:
            export_bundle(Checkpoint.open(source), out, engine=engine)
            return out
        except OutputBusy:
            time.sleep(1)


@pytest.fixture(scope="session")
def checkpoint_of() -> Callable[..., Path]:
    """Folder of an untrained checkpoint with some entries of `transformer/config.json` changed."""

    def write(**transformer: Any) -> Path:
        from consisid_nano.untrained.write import write_untrained

        name = "-".join(["random", *(f"{key}={value}" for key, value in sorted(transformer.items()))])
        with alone(name):
            write_untrained(BUILD / name, transformer=transformer)
        return BUILD / name

    return write


@pytest.fixture(scope="session")
def torch_bundle_of(checkpoint_of: Callable[..., Path]) -> Callable[..., Path]:
    """The same as a bundle for the torch engine: written in a moment, runs the exporter's originals."""

    def write(**transformer: Any) -> Path:
        source = checkpoint_of(**transformer)
        return exported(source, source.with_name(f"{source.name}-torch"), "torch")

    return write


@pytest.fixture(scope="session")
def untrained(checkpoint_of: Callable[..., Path]) -> Path:
    """Folder of the untrained checkpoint."""
    return checkpoint_of()


@pytest.fixture(scope="session")
def untrained_bundle(untrained: Path) -> Path:
    """Folder of its bundle of ONNX engines."""
    return exported(untrained, BUILD / "bundle", "onnx")


@pytest.fixture(scope="session")
def trained_bundle_of() -> Callable[[str], Path]:
    """Folder of the trained checkpoint's bundle for an engine."""
    import consisid_nano

    return lambda engine: exported(consisid_nano.checkpoint(), BUILD / f"trained-{engine}", engine)


@pytest.fixture(scope="session")
def portrait() -> bytes:
    """A PNG with one face: the public-domain photograph of Eileen Collins that scikit-image ships."""
    from consisid_export.checkpoint.example import photograph

    return photograph()


@pytest.fixture(scope="session")
def building_alone() -> Callable[[str], AbstractContextManager[None]]:
    """`alone`, for what other files keep under build/."""
    return alone


@pytest.fixture
def proof(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Opens `benchmarks/results/proof/NAME.json`, whose trials are not repeated while the source files are the same.

    These are the test's file, the conftest files that apply to it, further files that the test names, and what all of
    them import.
    """
    from consisid_measurement.proof import Proof

    folders = (TESTS / folder for folder in request.path.relative_to(TESTS).parents)
    shared = (folder / "conftest.py" for folder in folders)
    entry = [request.path, *(file for file in shared if file.is_file())]
    root, test = TESTS.parent, request.function.__name__
    return lambda name, *more: Proof.resume(PROOFS / f"{name}.json", root, [*entry, *more], test)


@pytest.fixture
def make_record() -> Callable[..., Any]:
    """Builds a benchmark's record of two variants; keyword arguments replace its fields."""
    from consisid_measurement.record import Gate, Machine, Record, Row

    def make(**fields: Any) -> Record:
        rows = (
            Row("untrained/17", "ours", "total_seconds", 0.25, 0.24, 0.27, 5),
            Row("untrained/17", "ours", "face_seconds", 0.04, 0.04, 0.05, 5),
            Row("untrained/17", "ours", "peak_rss_bytes", 2.0**30, 2.0**30, 2.0**30, 3),
            Row("untrained/17", "diffusers-eager", "total_seconds", 1.0, 0.9, 1.1, 5),
            Row("untrained/17", "diffusers-eager", "peak_rss_bytes", 3 * 2.0**29, 3 * 2.0**29, 3 * 2.0**29, 3),
        )
        whole: dict[str, Any] = {
            "suite": "pipeline",
            "gate": Gate("tests/runtime/test_parity.py", passed=True),
            "machine": Machine("cpu-2core", "A CPU", 2, 24, None),
            "versions": {"python": "3.11.9", "torch": "2.13.0+cpu"},
            "commit": "0123456789ab",
            "when": "2026-11-20T12:00:00Z",
            "ceilings": {"matmul_bf16_tflops": None, "copy_gbps": 9.5},
            "sources": None,
            "rows": rows,
        }
        return Record(**whole | fields)

    return make
