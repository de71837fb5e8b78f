"""What the commands share: their settings, and what is missing for them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from consisid_runtime.cli.output import emit
from consisid_runtime.errors import MissingExtra

if TYPE_CHECKING:
    from consisid_runtime.settings.base import CommandSettings

    Chosen = TypeVar("Chosen", bound=CommandSettings)

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder of the database and the objects. Default: $XDG_DATA_HOME/consisid, or ~/.local/share/consisid.",
    ),
]
Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        help="postgresql://USER@HOST/NAME, its password in PGPASSWORD or PGPASSFILE; or sqlite:////PATH. Default: "
        "SQLite in the folder of --data.",
    ),
]
Objects = Annotated[
    str | None,
    typer.Option(
        "--objects",
        help="s3://BUCKET/PREFIX, its credentials in AWS_…; or a folder that all machines share. Default: in that of "
        "--data.",
    ),
]
PrintConfig = Annotated[
    bool, typer.Option("--print-config", help="Print the settings as such a file, and where each came from; end.")
]


@contextmanager
def needing(command: str) -> Iterator[None]:
    """What is imported in this block belongs to the extra. Raises `MissingExtra` where it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("consisid_"):
            raise
        raise MissingExtra(
            f"`consisid {command}` needs {error.name}: pip install 'consisid-runtime[gateway]'"
        ) from error


def chosen(
    kind: type[Chosen], flags: Mapping[str, Any], config: Path | None, *, print_config: bool, as_json: bool
) -> Chosen | None:
    """The settings of a command; None after they were printed. Raises what `resolve` does.

    Files that the process makes are for this user alone from now on.
    """
    from consisid_runtime.settings.resolve import resolve
    from consisid_runtime.settings.text import to_data, to_toml

    os.umask(0o077)
    resolved = resolve(kind, {name: value for name, value in flags.items() if value is not None}, config)
    if not print_config:
        return resolved.settings
    emit(as_json, to_data(resolved), "" if as_json else to_toml(resolved))
    return None
