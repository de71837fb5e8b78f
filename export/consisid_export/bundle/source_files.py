"""Finds the source files of this project that a module's imports lead to, without importing any of them."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("consisid_kernels", "consisid_runtime", "consisid_export", "consisid_nano")


def imported_files(
    entries: Iterable[str], leads_to: Callable[[str, list[str]], Iterable[str]] = lambda module, names: names
) -> dict[str, Path]:
    """Module → its file, for `entries` and all that they import, directly or indirectly.

    Imports inside functions count; those under `if TYPE_CHECKING:` do not, and neither does the `__init__` of a package
    whose module is imported: it holds no code that the module needs.

    Args:
        leads_to: which of a module's imports are followed.
    """
    found: dict[str, Path] = {}
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found[module] = file_of(module)
            imports = parse(content(found[module])).imports
            modules = (next((name for name in names if _find(name)), None) for names in imports)
            waiting += leads_to(module, sorted({name for name in modules if name}))
    return found


def file_of(module: str) -> Path:
    """The file of a module of this project. Raises `ModuleNotFoundError` where there is none."""
    path = _find(module)
    if path is None:
        raise ModuleNotFoundError(f"{module} is no module of {', '.join(PACKAGES)}", name=module)
    return path


def content(path: Path) -> bytes:
    """The bytes of a source file."""
    return path.read_bytes()


def file_digests(files: Mapping[str, Path]) -> dict[str, str]:
    """Name → hex SHA-256 of a Python file's code, of another file's content."""
    return {name: hashlib.sha256(digestible(path.suffix, content(path))).hexdigest() for name, path in files.items()}


def digestible(suffix: str, content: bytes) -> bytes:
    """What a digest of a file is taken of: changed comments and docstrings change nothing that the code makes."""
    return parse(content).code if suffix == ".py" else content


@dataclass(frozen=True, slots=True)
class Parsed:
    """A Python file.

    Attributes:
        imports: for each name that it imports outside of `if TYPE_CHECKING`, also inside functions, the modules that
            may be meant, the most specific first: `from a.b import c` imports the module a.b.c, or c from a.b.
        strings: its string constants, docstrings excepted.
        code: the file without comments and docstrings, in a normal form.
    """

    imports: frozenset[tuple[str, ...]]
    strings: frozenset[str]
    code: bytes


@functools.lru_cache(maxsize=1024)
def parse(content: bytes) -> Parsed:
    """Parse the bytes of a Python file. Raises `SyntaxError` or `ValueError`."""
    tree = _without_docstrings(ast.parse(content))
    imports, strings = set[tuple[str, ...]](), set[str]()
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            imports |= {(alias.name,) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imports |= {(f"{node.module}.{alias.name}", node.module) for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings.add(node.value)
    return Parsed(frozenset(imports), frozenset(strings), ast.unparse(tree).encode(errors="surrogatepass"))


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            kept = [statement for statement in node.body if not _is_docstring(statement)]
            node.body = kept or [ast.Pass()]
    return tree


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node outside of `if TYPE_CHECKING`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
        else:
            yield node
            waiting += ast.iter_child_nodes(node)


@functools.cache
def _find(module: str) -> Path | None:
    package, *names = module.split(".")
    if package not in PACKAGES:
        return None
    spec = find_spec(package)
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder, *names)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None
