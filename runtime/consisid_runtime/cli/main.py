"""The `consisid` command. Other packages add their commands through the entry-point group `consisid.commands`."""

from __future__ import annotations

import json
import os
import sys
from contextvars import ContextVar
from importlib.metadata import entry_points
from typing import Annotated, Any

import typer

from consisid_runtime.errors import (
    ConsisIDError,
    ExportCancelled,
    InvalidRequest,
    MissingExtra,
    OutputUnwritable,
    ServerError,
)

app = typer.Typer(
    name="consisid",
    help="Export, run and serve ConsisID: a portrait and a prompt in, a video of that person out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXIT_CODES = """\
Exit codes: 0 done, 1 unexpected failure, 2 wrong use of the command, 3 the request cannot be done,
4 bundle or checkpoint unusable, 5 output cannot be written, 6 server failed or unreachable, 7 an extra is missing,
130 cancelled with Ctrl-C."""

_as_json = ContextVar("_as_json", default=False)


def _remember(chosen: bool) -> bool:
    _as_json.set(chosen)
    return chosen


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.", callback=_remember)]


def exit_code(error: ConsisIDError) -> int:
    """The process's exit code for an error; listed in `EXIT_CODES`."""
    for kind, code in (
        (InvalidRequest, 3),
        (OutputUnwritable, 5),
        (ServerError, 6),
        (MissingExtra, 7),
        (ExportCancelled, 130),
    ):
        if isinstance(error, kind):
            return code
    return 1 if error.code == ConsisIDError.code else 4


def emit(as_json: bool, data: dict[str, Any], text: str) -> None:
    """A command's result on standard output: JSON for machines, or text."""
    _print(json.dumps(data) if as_json else text)


def _print(text: str) -> None:
    try:
        typer.echo(text)
    except OSError as error:
        # What the buffer still holds would fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        typer.echo(f"{OutputUnwritable.code}: standard output cannot be written: {error.strerror}", err=True)
        sys.exit(exit_code(OutputUnwritable()))


def main() -> None:
    """Entry point: errors raised on purpose become one line (or one JSON object) and an exit code."""
    import consisid_runtime.cli.commands  # noqa: F401  registers the runtime's own commands

    for entry in entry_points(group="consisid.commands"):
        entry.load()(app)
    app.info.epilog = EXIT_CODES
    try:
        app()
    except ConsisIDError as error:
        if _as_json.get():
            _print(json.dumps({"error": {"code": error.code, "message": str(error)}}))
        else:
            typer.secho(f"{error.code}: {error}", fg="red", err=True)
        sys.exit(exit_code(error))
