"""Imports point one way, between packages and inside them; folders stay small; the client imports nothing heavy."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
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
MAY_IMPORT["consisid_gateway"] = set(LAYERS[:2]) - {"consisid_kernels"}
FOLDERS = {"consisid_training": "nano/training"}
SOURCES = [
    (package, path)
    for package in MAY_IMPORT
    for path in sorted(ROOT.glob(f"{FOLDERS.get(package, '*')}/{package}/**/*.py"))
]
HEAVY = {
    "torch",
    "onnxruntime",
    "onnx",
    "insightface",
    "cv2",
    "av",
    "PIL",
    "transformers",
    "diffusers",
    "tensorrt",
    "pydantic",
    "sqlalchemy",
    "dbos",
}
_BACKEND = "import types; sys.modules['triton_python_backend_utils'] = types.ModuleType('backend')"
THIN = (
    "import consisid_runtime",
    "from consisid_runtime import Client, Options",
    "import consisid_runtime.cli.main",
    "import consisid_gateway.cli",  # every command loads it
    f"{_BACKEND}; import consisid_runtime.serve.models",  # six processes of a server do
)
DATA = ("__init__", "package", "digests")
"""Of consisid_nano: what needs nothing but Python."""
ORACLES = {"diffusers", "transformers", "facexlib", "consisid_eva_clip", "torchvision"}


def light(path: Path) -> bool:
    """Whether a file of consisid_nano belongs to its data or its drawn world, which need no consisid-runtime."""
    return path.parent.name == "world" or (path.parent.name == "consisid_nano" and path.stem in DATA)


def name_of(path: Path) -> str:
    """Dotted name of a module, a package's `__init__` by that of its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    start = next(number for number, part in enumerate(parts) if part.startswith("consisid_"))
    return ".".join(parts[start:]).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Everything that a file imports, also inside functions, as dotted names; what only type checkers read excepted."""
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        pending += ast.iter_child_nodes(node)


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports."""
    return {name.split(".")[0] for name in imports(path)}


def arrows() -> dict[str, set[str]]:
    """Module → the project's modules that it imports."""
    modules = {name_of(path): path for _, path in SOURCES}
    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        targets = (target if target in modules else target.rpartition(".")[0] for target in imports(path))
        found[name] = {target for target in targets if target in modules and target != name}
    return found


def children(folder: str, graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The imports among what lies directly in a folder: its modules, and its folders as one node each."""

    def child(name: str) -> str | None:
        rest = name.removeprefix(f"{folder}.")
        return None if rest == name else rest.split(".")[0]

    found: dict[str, set[str]] = {}
    for name, targets in graph.items():
        if own := child(name):
            found.setdefault(own, set()).update(c for target in targets if (c := child(target)) and c != own)
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of a graph, as its nodes in order; empty where there is none."""
    done: set[str] = set()

    def visit(node: str, trail: list[str]) -> list[str]:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done:
            return []
        for target in sorted(graph.get(node, ())):
            if found := visit(target, [*trail, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := visit(node, []))), [])


GRAPH = arrows()
FOLDERS_OF_CODE = sorted({name.rpartition(".")[0] for name in GRAPH if "." in name})


@pytest.mark.parametrize("folder", FOLDERS_OF_CODE)
def test_imports_inside_a_folder_make_no_circle(folder: str) -> None:
    assert circle(children(folder, GRAPH)) == []


def test_imports_of_modules_make_no_circle() -> None:
    assert circle(GRAPH) == []


@pytest.mark.parametrize("planted", [("a.low", "a.high.top"), ("a.high.top", "a.high.base")])
def test_a_planted_circle_is_found(planted: tuple[str, str]) -> None:
    graph: dict[str, set[str]] = {"a.low": set(), "a.high.base": {"a.low"}, "a.high.top": {"a.low"}}
    assert circle(graph) == circle(children("a", graph)) == circle(children("a.high", graph)) == []
    graph["a.high.base"].add("a.high.top")
    graph[planted[0]].add(planted[1])
    assert circle(children("a", graph)) or circle(children("a.high", graph))


def test_no_folder_holds_more_than_fifteen_files() -> None:
    full = Counter(path.parent for _, path in SOURCES if path.name != "__init__.py")
    assert {str(folder.relative_to(ROOT)): count for folder, count in full.items() if count > 15} == {}


def test_every_folder_says_what_it_holds() -> None:
    assert [
        str(path) for _, path in SOURCES if path.name == "__init__.py" and not path.read_text().startswith('"""')
    ] == []


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


def test_the_gateway_never_imports_torch() -> None:
    assert not [path for package, path in SOURCES if package == "consisid_gateway" and "torch" in imported(path)]


@pytest.mark.parametrize("statement", THIN)
def test_what_starts_at_once_imports_nothing_heavy(statement: str) -> None:
    probe = f"import sys; {statement}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()
    assert "consisid_runtime" in loaded
    assert not HEAVY & {name.split(".")[0] for name in loaded}


def test_the_client_imports_in_half_a_second() -> None:
    probe = "import time; t = time.perf_counter(); from consisid_runtime import Client, Options"
    probe += "; print(time.perf_counter() - t)"
    # The best of three: a busy machine must not fail the test, a heavy import would be slow every time.
    runs = [subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True) for _ in range(3)]
    assert min(float(run.stdout) for run in runs) < 0.5


def test_a_kernel_package_name_is_not_shadowed() -> None:
    assert not [
        folder
        for folder in ("export", "gateway", "runtime", "kernels", "benchmarks", "nano")
        if (ROOT / folder / "__init__.py").exists()
    ]
