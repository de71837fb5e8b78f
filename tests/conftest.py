"""The nano checkpoint and its bundles, made once and kept under build/ as long as sources and tools stay the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BUILD = Path(__file__).parents[1] / "build" / "test"


@pytest.fixture(scope="session")
def checkpoint_of() -> Callable[..., Path]:
    """Folder of a nano checkpoint with some entries of `transformer/config.json` changed."""

    def write(**transformer: Any) -> Path:
        from consisid_export.nano import write_nano

        name = "-".join(["nano", *(f"{key}={value}" for key, value in sorted(transformer.items()))])
        write_nano(BUILD / name, transformer=transformer)
        return BUILD / name

    return write


@pytest.fixture(scope="session")
def torch_bundle_of(checkpoint_of: Callable[..., Path]) -> Callable[..., Path]:
    """The same as a bundle for the torch engine: written in a moment, runs the exporter's originals."""

    def write(**transformer: Any) -> Path:
        from consisid_export.bundle import export_bundle
        from consisid_export.checkpoint import Checkpoint

        source = checkpoint_of(**transformer)
        export_bundle(Checkpoint.open(source), source.with_name(f"{source.name}-torch"), engine="torch")
        return source.with_name(f"{source.name}-torch")

    return write


@pytest.fixture(scope="session")
def nano(checkpoint_of: Callable[..., Path]) -> Path:
    """Folder of the nano checkpoint."""
    return checkpoint_of()


@pytest.fixture(scope="session")
def nano_bundle(nano: Path) -> Path:
    """Folder of its bundle of ONNX engines."""
    from consisid_export.bundle import export_bundle
    from consisid_export.checkpoint import Checkpoint

    export_bundle(Checkpoint.open(nano), BUILD / "bundle")
    return BUILD / "bundle"


@pytest.fixture(scope="session")
def portrait() -> bytes:
    """A PNG with one face: the public-domain photograph of Eileen Collins that scikit-image ships."""
    from consisid_export.demo import portrait

    return portrait()
