"""Imports point one way, and the client stays thin."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (
    "consisid_kernels",
    "consisid_runtime",
    "consisid_export",
    "consisid_nano",
    "consisid_measurement",
    "consisid_fidelity",
    "consisid_benchmarks",
)
"""From the bottom up: a package may import those before it."""
MAY_IMPORT = {package: set(LAYERS[:number]) for number, package in enumerate(LAYERS)}
MAY_IMPORT["consisid_training"] = set(LAYERS[:4])
FOLDERS = {"consisid_training": "nano/training"}
SOURCES = [
    (package, path)
    for package in MAY_IMPORT
    for path in sorted(ROOT.glob(f"{FOLDERS.get(package, '*')}/{package}/**/*.py"))
]
HEAVY = {"torch", "onnxruntime", "onnx", "insightface", "cv2", "av", "PIL", "transformers", "diffusers", "tensorrt"}
THIN = ("import consisid_runtime", "from consisid_runtime import Client, Options", "import consisid_runtime.cli.main")
DATA = ("__init__", "package", "digests")
"""Of consisid_nano: what needs nothing but Python."""
ORACLES = {"diffusers", "transformers", "facexlib", "consisid_eva_clip", "torchvision"}


def light(path: Path) -> bool:
    """Whether a file of consisid_nano belongs to its data or its drawn world, which need no consisid-runtime."""
    return path.parent.name == "world" or (path.parent.name == "consisid_nano" and path.stem in DATA)


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_sources_are_found() -> None:
    assert {package for package, _ in SOURCES} == set(MAY_IMPORT)


@pytest.mark.parametrize(("package", "path"), SOURCES, ids=lambda value: getattr(value, "stem", value))
def test_dependencies_point_one_way(package: str, path: Path) -> None:
    upwards = imported(path) & (MAY_IMPORT.keys() - MAY_IMPORT[package] - {package})
    assert not upwards, f"{path} imports upwards: {upwards}"


@pytest.mark.parametrize(("package", "path"), SOURCES, ids=lambda value: getattr(value, "stem", value))
def test_oracles_stay_outside_the_product(package: str, path: Path) -> None:
    if package in ("consisid_runtime", "consisid_export"):
        assert not imported(path) & ORACLES


@pytest.mark.parametrize(
    "path",
    [path for package, path in SOURCES if package == "consisid_nano" and light(path)],
    ids=lambda path: path.stem,
)
def test_the_drawn_world_needs_numpy_and_opencv_only(path: Path) -> None:
    allowed = {"numpy", "cv2"} if path.parent.name == "world" else set()
    assert imported(path) <= {"consisid_nano", *allowed, *sys.stdlib_module_names}


@pytest.mark.parametrize("statement", THIN)
def test_the_client_imports_nothing_heavy(statement: str) -> None:
    probe = f"import sys; {statement}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()
    assert "consisid_runtime" in loaded
    assert not HEAVY & {name.split(".")[0] for name in loaded}


def test_the_client_imports_in_half_a_second() -> None:
    probe = "import time; t = time.process_time(); from consisid_runtime import Client, Options"
    probe += "; print(time.process_time() - t)"
    # CPU time, and the best of three: a busy machine must not fail the test, a heavy import would be slow every time.
    runs = [subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True) for _ in range(3)]
    assert min(float(run.stdout) for run in runs) < 0.5


def test_a_kernel_package_name_is_not_shadowed() -> None:
    assert not [
        folder
        for folder in ("export", "runtime", "kernels", "benchmarks", "nano")
        if (ROOT / folder / "__init__.py").exists()
    ]
