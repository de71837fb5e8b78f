"""The reference of the command `consisid`, from its own parser."""

from __future__ import annotations

import functools
from dataclasses import fields
from typing import Any

import typer

from consisid_runtime.cli.main import make_app
from consisid_runtime.options import Options
from generators.markdown import table


def command_reference() -> str:
    """Markdown: a section for each sub-command with its arguments and flags, those of `Options` left out."""
    return "\n\n".join(_section(name, command) for name, command in leaves().items())


@functools.cache
def leaves() -> dict[str, Any]:
    """Sub-command ("export", "bench gate", …) → its Click command, for every installed package."""
    return _leaves(typer.main.get_command(make_app()))


def flags(parameter: Any) -> str:
    """How the parameter is written on the command line."""
    if parameter.param_type_name == "argument":
        return f"`{(parameter.name or '').upper()}`"
    return " / ".join(f"`{flag}`" for flag in [*parameter.opts, *parameter.secondary_opts])


def _leaves(group: Any, prefix: str = "") -> dict[str, Any]:
    if not hasattr(group, "commands"):
        return {prefix: group}
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        found |= _leaves(command, f"{prefix} {name}".strip())
    return found


def _section(name: str, command: Any) -> str:
    own, text = command.params, f"## consisid {name}\n\n{(command.help or '').strip()}"
    if {each.name for each in own} >= _OPTIONS:
        own = [each for each in own if each.name not in _OPTIONS]
        text += "\n\nIt also takes every flag of [options.md](options.md)."
    rows = [[flags(each), _default(each), getattr(each, "help", None) or ""] for each in own]
    return f"{text}\n\n{table(['argument or flag', 'default', 'meaning'], rows)}" if rows else text


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    return "–" if default is None or default is False else f"`{default}`"


_OPTIONS = {field.name for field in fields(Options)}
