"""The untrained checkpoint and its bundles, made once and kept under build/ while sources and tools stay the same."""

import fcntl
import gc
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

BUILD = Path(__file__).parents[1] / "build" / "test"
PROOFS = Path(__file__).parents[1] / "benchmarks" / "results" / "proof"


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
    import torch

    gc.disable()  # imports leave nearly no garbage
    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"  # read wherever a kernel is decorated, hence before any is imported


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files start first, so that no process waits for one at the end."""
    ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(FIRST)}
    items.sort(key=lambda item: ranks.get(item.path, len(FIRST)))


def pytest_collection_finish() -> None:
    """Exempts what was imported from garbage collection: benchmarks collect before every sample."""
    gc.freeze()
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    import torch

    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


class Proof:
    """`benchmarks/results/proof/NAME.json`: what each trial found. Trials of the same sources are not repeated."""

    def __init__(self, name: str) -> None:
        from consisid_export.bundle.sources import source_digest

        self._path, self._sources = PROOFS / f"{name}.json", source_digest()
        known = json.loads(self._path.read_bytes()) if self._path.is_file() else {}
        self.trials: dict[str, dict[str, Any]] = known["trials"] if known.get("sources") == self._sources else {}

    def record(self, trial: str, **found: Any) -> None:
        self.trials[trial] = found | {"when": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".part")
        fresh.write_text(json.dumps({"sources": self._sources, "trials": self.trials}, indent=1) + "\n")
        fresh.replace(self._path)


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

        name = "-".join(["untrained", *(f"{key}={value}" for key, value in sorted(transformer.items()))])
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
def proof() -> Callable[[str], Proof]:
    """The record of a proof by its name."""
    return Proof
