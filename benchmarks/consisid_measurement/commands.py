"""Options that the commands of all suites share, and the end of a command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from consisid_measurement import environment
from consisid_measurement.record import Record
from consisid_runtime.cli.output import Json, emit
from consisid_runtime.files.atomic import require_folder

__all__ = ["Json", "MachineName", "Out", "Rounds", "finish", "results_folder"]

Rounds = Annotated[int, typer.Option("--rounds", min=1, help="Measured runs of every variant, after the warm-up.")]
MachineName = Annotated[
    str | None, typer.Option("--machine", help="Neutral name of this machine; default: its GPU, or cpu-<n>core.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of results; default: benchmarks/results.")]


def results_folder(out: Path | None) -> Path:
    """Where a suite writes its record. Raises `OutputUnwritable`: call it before what is measured."""
    folder = out or environment.checkout() / "benchmarks" / "results"
    require_folder(folder)
    return folder


def finish(record: Record, reason: str, results: Path, as_json: bool) -> None:
    """Writes the record and prints it. Exits with 1 and prints `reason` when the suite measured nothing."""
    path = record.write(results)
    lines = [
        f"{row.case}  {row.variant}  {row.metric}  {row.median:.4g} ({row.p20:.4g} to {row.p80:.4g}, n = {row.n})"
        for row in record.rows
    ]
    emit(as_json, record.to_json(), "\n".join([*lines, f"wrote {path}"]))
    if reason:
        typer.secho(f"{record.suite}: no numbers: {reason}", fg="red", err=True)
        raise typer.Exit(1)
