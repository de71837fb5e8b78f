"""What a command prints: its result as text or JSON, and errors."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from contextvars import ContextVar
from typing import Annotated, Any

import typer

from consisid_runtime.errors import ConsisIDError, OutputUnwritable

_as_json = ContextVar("_as_json", default=False)


def _remember(chosen: bool) -> bool:
    _as_json.set(chosen)
    return chosen


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.", callback=_remember)]


def open_standard_streams() -> None:
    """Open the standard streams that were closed by whoever started this process, on /dev/null.

    Otherwise the next file or socket gets the number of one of them, and what a library prints is written into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


def emit(as_json: bool, data: dict[str, Any], text: str) -> None:
    """Print a command's result on standard output, as JSON or as text. Raises `OutputUnwritable`."""
    write(json.dumps(data) if as_json else text)


def write(text: str) -> None:
    """Print a line on standard output. Raises `OutputUnwritable`."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        # A path may hold bytes that are no text.
        typer.echo(text.encode(encoding, "backslashreplace").decode(encoding))
    except OSError as error:
        raise OutputUnwritable(f"standard output cannot be written: {error.strerror}") from error


def report_unexpected(error: Exception) -> None:
    """Print an error that is no `ConsisIDError` as JSON where that was asked for."""
    if _as_json.get():
        with contextlib.suppress(OutputUnwritable):
            write(_object(ConsisIDError.code, f"{type(error).__name__}: {error}"))


def _object(code: str, message: str) -> str:
    return json.dumps({"error": {"code": code, "message": message}})


def report(error: ConsisIDError) -> int:
    """Print an error, with --json on standard output, else on standard error. Returns the exit code.

    Reports `OutputUnwritable` instead where the JSON cannot be printed.
    """
    if _as_json.get():
        try:
            write(_object(error.code, str(error)))
            return error.exit
        except OutputUnwritable as unwritable:
            error = unwritable
    typer.secho(f"{error.code}: {error}", fg="red", err=True)
    try:
        sys.stdout.flush()
    except OSError:
        # The interpreter flushes the same buffer again when it ends, and would print a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return error.exit
