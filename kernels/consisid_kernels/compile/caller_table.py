"""Derives from source code which operators the runtime and the exporter call, as a table for `kernels/README.md`."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

CALLING = ("runtime", "export", "kernels")
"""Folders whose calls count; tests and benchmarks do not."""
_ROOT, _OPS = "consisid_kernels", "consisid_kernels.ops"
_PLUGINS = "consisid_kernels.compile.tensorrt"
_DEPTH = 3
"""Of a module's operator below the package: "consisid_kernels.layers.ffn.linear_gelu"."""
_HOPPER = "consisid_kernels.attention.joint_hopper"

Paths = set[str]
"""Dotted paths that an expression may refer to, such as "consisid_kernels.ops.joint_attention"."""
Arguments = dict[tuple[str, int | str], Paths]
"""What is passed to a function or class, by its name and the position or keyword of the argument."""


def caller_table(repository: Path) -> str:
    """Markdown: a row an operator of `ops`, and one for the Hopper form, with its file and the files that call it."""
    uses = callers(repository)
    rows = ["| operator | kernel | called from |", "|---|---|---|"]
    for name, module in [*sorted(_operators(repository).items()), ("joint_attention", _HOPPER)]:
        own = f"{module}.{name}"
        names = {own} if module == _HOPPER else {own, f"{_OPS}.{name}", f"{_PLUGINS}.{name}"}
        found = sorted({path for dotted in names for path in uses.get(dotted, ())})
        links = ", ".join(f"[`{path.name}`](../{path.as_posix()})" for path in found)
        file = module.removeprefix(f"{_ROOT}.").replace(".", "/") + ".py"
        shown = f"{name} (Hopper form)" if module == _HOPPER else name
        rows.append(f"| `{shown}` | [`{file}`]({_ROOT}/{file}) | {links or 'none yet'} |")
    return "\n".join(rows)


def callers(repository: Path) -> dict[str, set[Path]]:
    """Dotted path of an operator → files below `CALLING`, relative to the repository, that use it.

    A module of operators is followed through assignments, arguments and results: `FusedStep` uses operators of a module
    that it receives as an argument. Functions and classes are identified by name only.
    """
    sources = [_Source(path) for folder in CALLING for path in sorted((repository / folder).rglob("*.py"))]
    arguments: Arguments = defaultdict(set)
    results: dict[str, Paths] = defaultdict(set)
    before = -1
    while before != (known := sum(map(len, [*arguments.values(), *results.values(), *(s.paths for s in sources)]))):
        before = known
        for source in sources:
            source.follow(arguments, results)
    uses: dict[str, set[Path]] = defaultdict(set)
    for source in sources:
        for dotted in source.uses(results):
            uses[dotted].add(source.path.relative_to(repository))
    return uses


class _Source:
    """One file and what its names refer to; scopes are not distinguished."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._nodes = list(ast.walk(ast.parse(path.read_text())))
        self._methods = {
            function: kind.name
            for kind in self._nodes
            if isinstance(kind, ast.ClassDef)
            for function in kind.body
            if isinstance(function, ast.FunctionDef)
        }
        self._names: dict[str, Paths] = defaultdict(set)
        for node in self._nodes:
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == _ROOT:
                for alias in node.names:
                    self._names[alias.asname or alias.name].add(f"{node.module}.{alias.name}")
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == _ROOT:
                        self._names[alias.asname or _ROOT].add(alias.name if alias.asname else _ROOT)

    @property
    def paths(self) -> list[str]:
        return [path for paths in self._names.values() for path in paths]

    def follow(self, arguments: Arguments, results: dict[str, Paths]) -> None:
        """Propagates paths one step along assignments, arguments, parameters and results."""
        for node in self._nodes:
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    for name, value in _pairs(target, node.value):
                        self._add(ast.unparse(name), self._paths(value, results))
            elif isinstance(node, ast.Call):
                given: list[tuple[int | str, ast.expr]] = [*enumerate(node.args)]
                given += [(word.arg or "", word.value) for word in node.keywords]
                for place, value in given:
                    if paths := self._paths(value, results):
                        arguments[_last_name(node.func), place] |= paths
            elif isinstance(node, ast.FunctionDef):
                self._enter(node, arguments)
                returned = [x.value for x in ast.walk(node) if isinstance(x, ast.Return) and x.value is not None]
                for value in returned:
                    if paths := self._paths(value, results):
                        results[node.name] |= paths

    def _enter(self, function: ast.FunctionDef, arguments: Arguments) -> None:
        kind = self._methods.get(function)
        called = kind if kind is not None and function.name == "__init__" else function.name
        parameters = function.args.args[1:] if kind is not None else function.args.args
        for place, parameter in enumerate(parameters):
            passed = arguments.get((called, place), set()) | arguments.get((called, parameter.arg), set())
            self._add(parameter.arg, passed)

    def _add(self, name: str, paths: Paths) -> None:
        if paths:
            self._names[name] |= paths

    def _paths(self, value: ast.expr, results: dict[str, Paths]) -> Paths:
        if isinstance(value, ast.Call):
            return results.get(_last_name(value.func), set())
        if not isinstance(value, ast.Name | ast.Attribute):
            return set()
        known = self._names.get(ast.unparse(value))
        if known or isinstance(value, ast.Name):
            return known or set()
        return {
            f"{path}.{value.attr}" for path in self._paths(value.value, results) if path.count(".") < _DEPTH
        }  # the attributes of an operator's result are none of the package

    def uses(self, results: dict[str, Paths]) -> Iterator[str]:
        """Dotted paths of all names and attributes that this file reads."""
        for node in self._nodes:
            if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
                yield from self._paths(node, results)


def _operators(repository: Path) -> dict[str, str]:
    """Name → module of the kernel, from the imports of `ops`."""
    tree = ast.parse((repository / "kernels" / _ROOT / "ops.py").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module != "__future__"]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for name, part in zip(target.elts, value.elts, strict=False):
            yield from _pairs(name, part)
    else:
        yield target, value


def _last_name(function: ast.expr) -> str:
    """ "project" of `block.project`; "" of what is neither a name nor an attribute."""
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
