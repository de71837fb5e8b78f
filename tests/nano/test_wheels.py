"""The wheel of consisid-nano holds the data, that of consisid-runtime none."""

import shutil
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]
DATA = ("checkpoint/example.json", "checkpoint/vae/model.safetensors", "judges/arcface.onnx", "DIGESTS.json")


def built(project: Path, out: Path) -> tuple[set[str], int]:
    """Build a project's wheel; returns the names of its files, and its size in bytes."""
    (wheel,) = WheelBuilder(str(project)).build(directory=str(out), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist()), Path(wheel).stat().st_size


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """consisid-nano with placeholders for its data."""
    folder = tmp_path / "nano"
    shutil.copytree(ROOT / "nano", folder, ignore=shutil.ignore_patterns("checkpoint", "judges", "__pycache__"))
    for name in DATA:
        path = folder / "consisid_nano" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return folder


def test_the_nano_wheel_has_data_world_and_licence_and_no_training(project: Path, tmp_path: Path) -> None:
    names, _ = built(project, tmp_path)
    wanted = {"__init__.py", "world/person.py", "py.typed", "MODEL_CARD.md", *DATA}
    assert {f"consisid_nano/{name}" for name in wanted} <= names
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    assert not [name for name in names if "training" in name or "__pycache__" in name]


def test_the_nano_wheel_is_below_20_megabytes(tmp_path: Path) -> None:
    assert built(ROOT / "nano", tmp_path)[1] < 20_000_000


def test_the_runtime_wheel_has_its_packages_and_no_data_of_nano(tmp_path: Path) -> None:
    names, size = built(ROOT, tmp_path)
    packages = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert packages == {
        "consisid_kernels",
        "consisid_runtime",
        "consisid_export",
        "consisid_gateway",
        "consisid_measurement",
        "consisid_fidelity",
        "consisid_benchmarks",
    }
    assert "consisid_runtime/model_repository/consisid/config.pbtxt" in names
    assert size < 2_000_000
