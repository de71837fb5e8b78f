"""The real Python bindings of full TensorRT, which installs only where NVIDIA's index is reachable."""

import ctypes
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[2] / "build" / "test" / "tensorrt-bindings"
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
"""What the bindings of every version expect from the libraries and do not find in the system's."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A function that gives a disk of so many bytes; called again, it gives the same disk another size."""
    libc = ctypes.CDLL(None, use_errno=True)
    disk = tmp_path / "disk"
    disk.mkdir()
    remount, mounted = 32, False

    def give(size: int) -> Path:
        nonlocal mounted
        options = f"size={size}".encode()
        if libc.mount(b"none", str(disk).encode(), b"tmpfs", remount if mounted else 0, options):
            pytest.skip(f"no file system can be mounted here: {os.strerror(ctypes.get_errno())}")
        mounted = True
        return disk

    yield give
    if mounted:
        libc.umount(str(disk).encode())


@pytest.fixture(scope="session")
def tensorrt_bindings(building_alone: Callable[[str], AbstractContextManager[None]]) -> Callable[[str], Path]:
    """Folder of the bindings of one version, with empty libraries compiled for them under `lib`."""
    if shutil.which("cc") is None and os.environ.get("CI") != "true":
        pytest.skip("needs a C compiler for the empty libraries")

    def of_version(version: str) -> Path:
        with building_alone("tensorrt-bindings"):
            return bindings(version)

    return of_version


def bindings(version: str) -> Path:
    folder = CACHE / version
    if (folder / "lib").is_dir():
        return folder
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"]
    subprocess.run([*download, str(folder), f"tensorrt-cu13-bindings=={version}"], check=True)
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder)
    source = folder / "empty.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in SYMBOLS))
    building = folder / "building"
    building.mkdir(exist_ok=True)
    for library in LIBRARIES:
        name = f"lib{library}.so.{version.split('.')[0]}"
        compile_ = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(building / name), str(source)]
        subprocess.run(compile_, check=True)
    building.rename(folder / "lib")
    return folder
