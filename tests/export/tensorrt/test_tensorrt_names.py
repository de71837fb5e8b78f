"""Every name of TensorRT that our code uses exists in the real bindings of every version that it claims to support.

Full TensorRT's bindings are on PyPI, its libraries are not: they are loaded over empty ones.
"""

import ast
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROBE = ROOT / "tests" / "data" / "tensorrt_names.py"
SOURCES = [
    *(ROOT / "export/consisid_export/tensorrt" / f"{name}.py" for name in ("build", "graph", "progress", "with_torch")),
    *sorted(ROOT.glob("runtime/consisid_runtime/engines/tensorrt*.py")),
]
VERSIONS = ("10.16.1.11", "11.4.0.106")
TENSORRT = {
    "builder": "Builder",
    "cache": "ITimingCache",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "problem": "ParserError",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
}
"""Our names of TensorRT's objects: whatever is read from a variable of such a name belongs to that class."""

RTX_ONLY = {"IBuilderConfig.num_compute_capabilities", "IBuilderConfig.set_compute_capability", "ComputeCapability"}
"""Choosing GPUs to build for; full TensorRT builds for the one that is there."""

_OTHERS = """
attribute bound caller capability captured cuda device dim extent failures file found functools graph helper importlib
interrupts line lines log logger logging mmap model module monitor name nn node onnx path port ranges record self
bundle severity shapes signal signature stream tensor threading time torch torch_tensorrt types value workspace
"""
OTHERS = frozenset(_OTHERS.split())
"""Names of things that are not TensorRT's. A new one belongs here or above, so that no use goes unchecked."""

_ORDINARY = """
SerializeToString append contiguous copy_ decode dynamic_axes elem_type extend get graph inputs is_file items join
lower maximum minimum name optimum read_bytes replace st_size to values
"""
ORDINARY = frozenset(_ORDINARY.split())
"""What may be read from the result of a call or a subscript; give TensorRT's objects a variable of their own."""


@functools.cache
def used_names() -> set[str]:
    """Dotted names below the library's root, such as `Builder.create_network`."""
    names: set[str] = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Attribute):
                names |= name_of(node, source)
            elif isinstance(node, ast.ClassDef):
                bases = [base.attr for base in node.bases if isinstance(base, ast.Attribute) and is_library(base.value)]
                overridden = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
                names |= {f"{base}.{name}" for base in bases for name in overridden if not name.startswith("_")}
    return names


def name_of(node: ast.Attribute, source: Path) -> set[str]:
    path, owner = [node.attr], node.value
    while isinstance(owner, ast.Attribute) and not is_library(owner) and owner.attr.lstrip("_") not in TENSORRT:
        path.insert(0, owner.attr)
        owner = owner.value
    where = f"{source.name}:{node.lineno}"
    if is_library(owner):
        return {".".join(path)}
    if not isinstance(owner, ast.Name | ast.Attribute):
        if not isinstance(owner, ast.Constant | ast.JoinedStr):
            assert path[0] in ORDINARY, f"{where}: is {path[0]} TensorRT's?"
        return set()
    name = owner.id if isinstance(owner, ast.Name) else owner.attr
    if (ours := name.lstrip("_")) in TENSORRT:
        return {f"{TENSORRT[ours]}.{path[0]}"}
    assert name in OTHERS or name.isupper() or name.lstrip("_")[0].isupper(), f"{where}: whose is {name}.{path[0]}?"
    return set()


def is_library(node: ast.expr) -> bool:
    """`trt`, or `self._trt`."""
    return (isinstance(node, ast.Name) and node.id == "trt") or (
        isinstance(node, ast.Attribute) and node.attr == "_trt"
    )


def missing(module: str, names: set[str], folder: Path | None = None) -> tuple[str, set[str]]:
    """The library's version, and those names that it lacks."""
    environment = dict(os.environ)
    command = [sys.executable, str(PROBE), module]
    if folder is not None:
        environment["LD_LIBRARY_PATH"] = str(folder / "lib")
        command.append(str(folder))
    done = subprocess.run(
        command, input="\n".join(sorted(names)), env=environment, capture_output=True, text=True, check=True
    )
    version, *lacking = done.stdout.splitlines()
    return version.removeprefix("version "), set(lacking)


def is_rtx_only(name: str) -> bool:
    return any(name == only or name.startswith(f"{only}.") for only in RTX_ONLY)


@pytest.mark.parametrize("version", VERSIONS)
def test_full_tensorrt_has_every_name(tensorrt_bindings: Callable[[str], Path], version: str) -> None:
    found, lacking = missing("tensorrt_bindings", used_names(), tensorrt_bindings(version))
    assert found == version
    assert lacking == {name for name in used_names() if is_rtx_only(name)}


def test_tensorrt_rtx_has_every_name() -> None:
    found, lacking = missing("tensorrt_rtx", used_names())
    assert found.startswith("1.7.")
    assert lacking == set()


def test_a_name_that_does_not_exist_is_found() -> None:
    """Precision flags: gone from TensorRT 11, and never in TensorRT-RTX."""
    assert missing("tensorrt_rtx", {"BuilderFlag.FP16", "BuilderFlag.TF32"})[1] == {"BuilderFlag.FP16"}


def test_uses_are_seen() -> None:
    names = used_names()
    assert {
        "Builder.create_network",
        "OnnxParser.parse",
        "ParserError.node_name",
        "IProgressMonitor.step_complete",
    } < names
    assert {"ICudaEngine.create_execution_context", "IExecutionContext.execute_async_v3", "ILogger.log"} < names


def test_no_flag_changes_the_precision() -> None:
    assert {name for name in used_names() if name.startswith("BuilderFlag.")} == {"BuilderFlag.TF32"}
