"""Commands in the pages exist as written: sub-commands, flags, extras, targets of make, modules of `python -m`."""

from __future__ import annotations

import re
import shlex
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

from generators.commands import leaves

_BLOCK = re.compile(r"```(?:console|bash)\n(.*?)```", re.DOTALL)
_INDENTED = re.compile(r"^    (?=consisid |make |PYTHONPATH=)(.*)$", re.MULTILINE)
_INLINE = re.compile(r"`(consisid (?:[^`\n]|\n(?!\n))+)`")
EXECUTED = "docs/requests.md"
"""Its blocks are executed by tests/runtime/serve/test_requests.py."""
PROGRAMS = {"consisid", "make", "pip", "tritonserver"}
"""What a line of a block may call; the last is a program of others, called without a check of its flags."""

_USAGE_ERROR: Any = typer.BadParameter.__base__
"""Of the Click that Typer contains: another installed one has classes of its own."""


def test_the_lines_of_blocks_parse(pages: dict[str, str]) -> None:
    problems, seen = [], set()
    for name, text in pages.items():
        for line in _lines(text) if name != EXECUTED else ():
            words = [word for word in shlex.split(line, comments=True) if not re.match(r"[A-Z_]+=", word)]
            if not words:
                continue
            program = words[0].rpartition("/")[2]
            seen.add(program)
            if program == "consisid" and (problem := _parse(words[1:])):
                problems.append(f"{name}: {line}: {problem}")
            elif program not in PROGRAMS and not program.startswith("python"):
                problems.append(f"{name}: {line}: {program} is not known to this test")
    assert problems == []
    assert {"consisid", "make", "pip"} <= seen


def test_flags_in_running_text_exist(pages: dict[str, str]) -> None:
    problems = []
    for name, text in pages.items():
        for span in _INLINE.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            words = span.split()[1:]
            found = _command(words)
            known = {flag for parameter in found.params for flag in parameter.opts} if found else {"--help", "--json"}
            placeholder = any(word.isupper() for word in words) or not words or words[0].startswith("-")
            unknown = set(re.findall(r"--[a-z][a-z-]*", span)) - known
            if unknown or (found is None and not placeholder and words[0] not in _groups()):
                problems.append(f"{name}: {span}: {', '.join(sorted(unknown)) or 'no such command'}")
    assert problems == []


def test_extras_exist(root: Path, pages: dict[str, str]) -> None:
    extras = {}
    for distribution, folder in (("runtime", root), ("nano", root / "nano")):
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        extras[distribution] = set(project["optional-dependencies"])
    asked = {
        (distribution, extra)
        for text in pages.values()
        for distribution, names in re.findall(r"consisid-(runtime|nano)\[([a-z,-]+)\]", text)
        for extra in names.split(",")
    }
    assert asked
    assert [pair for pair in sorted(asked) if pair[1] not in extras[pair[0]]] == []


def test_targets_of_make_and_modules_exist(root: Path, pages: dict[str, str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.MULTILINE))
    # Of make at the start of a code span or of a line in a block.
    asked = {target for text in pages.values() for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)}
    assert asked and asked <= targets
    modules = {name for text in pages.values() for name in re.findall(r"python -m (consisid_[\w.]+)", text)}
    assert modules
    assert [name for name in sorted(modules) if find_spec(name) is None] == []


def test_an_unknown_flag_is_found() -> None:
    assert "--stepz" in (_parse(shlex.split("bench gate candidate --stepz 3")) or "")
    assert "no such command" in (_parse(["exprot"]) or "")


def _lines(text: str) -> list[str]:
    blocks = [*_BLOCK.findall(text), *_INDENTED.findall(text)]
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def _parse(words: list[str]) -> str | None:
    """What the command's own parser objects to."""
    command = _command(words)
    if command is None:
        return "no such command"
    depth = 2 if words[0] in _groups() else 1
    try:
        command.make_context("consisid", words[depth:])
    except _USAGE_ERROR as problem:
        return problem.format_message()
    return None


def _command(words: list[str]) -> Any:
    known = leaves()
    return known.get(" ".join(words[:2])) or known.get(" ".join(words[:1]))


def _groups() -> set[str]:
    return {name.split()[0] for name in leaves() if " " in name}
