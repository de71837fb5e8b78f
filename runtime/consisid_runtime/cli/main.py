"""The entry point of the command `consisid`. Packages add their sub-commands by the entry-point group below."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from importlib.metadata import entry_points
from typing import Any

import typer
from typer.core import TyperGroup

from consisid_runtime.allocator import keep_freed_memory
from consisid_runtime.cli import commands, output
from consisid_runtime.cli.distributions import missing_command, missing_module
from consisid_runtime.errors import ConsisIDError, FileInaccessible, exit_codes

ENTRY_POINTS = "consisid.commands"


class _Group(TyperGroup):
    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if found is None and (missing := missing_command(cmd_name)):
            raise missing
        return found


def exit_code_help() -> str:
    """The meaning of every exit code, as paragraphs."""
    meanings = {0: "Done.", 2: "The command was used wrongly."} | exit_codes()
    return "\n\n".join(["Exit codes:", *(f"{code} {meanings[code]}" for code in sorted(meanings))])


def make_app() -> typer.Typer:
    """`consisid` with the sub-commands of every installed package."""
    app = typer.Typer(
        name="consisid",
        help="Export, run and serve ConsisID: generate a video of a person from a portrait and a prompt.",
        epilog=exit_code_help(),
        cls=_Group,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    commands.register(app)
    for entry in entry_points(group=ENTRY_POINTS):
        entry.load()(app)
    _leave_paths_to_commands(app)
    return app


def _leave_paths_to_commands(app: typer.Typer) -> None:
    """Keep Typer from examining paths: it would report a closed file as wrong use, without a code and without JSON."""
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _leave_paths_to_commands(group.typer_instance)
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = _without_checked_paths(command.callback)


def _without_checked_paths(run: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(run)
    def command(*arguments: Any, **named: Any) -> Any:
        return run(*arguments, **named)

    # Evaluated once: every evaluation of an annotation makes another object of its option.
    signature = inspect.signature(run, eval_str=True)
    annotations = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    for annotation in annotations.values():
        for option in getattr(annotation, "__metadata__", ()):
            option.readable = False
    vars(command).update(__signature__=signature)
    command.__annotations__ = annotations
    return command


def main() -> None:
    """Run the command. A `ConsisIDError` becomes one line or one JSON object, and its exit code.

    Any other exception is printed by Python, after one JSON object where --json was given. The process keeps the memory
    that it frees (`allocator`).
    """
    keep_freed_memory()
    output.open_standard_streams()
    try:
        _run()
    except ConsisIDError as error:
        sys.exit(output.report(error))
    except Exception as error:
        output.report_unexpected(error)
        raise


def _run() -> None:
    try:
        make_app()()
    except ModuleNotFoundError as error:
        if missing := missing_module(error.name):
            raise missing from error
        raise
    except OSError as error:
        # Typer prints help itself: if standard output cannot be written, another line fails with the typed error.
        output.write("")
        # Without a name it is no path; or, not found, Python's list of the places for temporary files.
        if error.filename is None and not isinstance(error, FileNotFoundError):
            raise
        place = "" if error.filename is None else f"{error.filename}: "
        raise FileInaccessible(f"{place}{error.strerror}") from error
