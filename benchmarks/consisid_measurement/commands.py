"""Options that the commands of all suites share, and what these commands do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer

from consisid_measurement import environment
from consisid_measurement.record import Row, Series
from consisid_runtime.cli.output import Json, emit
from consisid_runtime.files.atomic import require_folder

__all__ = ["Json", "MachineName", "Out", "Rounds", "results_folder", "run_suite"]

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


def run_suite(
    suite: str,
    gate: str,
    rows: Callable[[], Iterable[Row | Series]],
    *,
    packages: Iterable[str],
    machine: str | None,
    results: Path,
    as_json: bool,
    ceilings: Callable[[], dict[str, float | None]] = dict,
) -> None:
    """Runs a suite in this checkout, writes its record and prints it.

    Args:
        gate: path of the test that must pass first, relative to the repository's root.
        rows: measures; a function in the suite's own file, whose imports make the record stale when they change.
        packages: distributions whose versions the record holds.
        machine: its neutral name, None for the default.
        results: folder of the record.
        ceilings: what this machine can do at most; called after the test.

    Exits with 1 and prints the reason when the test or the comparison of the variants fails: no figures are written.
    """
    from consisid_measurement import harness

    record, reason = harness.run(
        suite,
        gate,
        rows,
        root=environment.checkout(),
        machine=environment.machine(machine),
        packages=packages,
        ceilings=ceilings,
    )
    path = record.write(results)
    lines = [
        f"{row.case}  {row.variant}  {row.metric}  {row.median:.4g} ({row.p20:.4g} to {row.p80:.4g}, n = {row.n})"
        for row in record.rows
    ]
    emit(as_json, record.to_json(), "\n".join([*lines, f"wrote {path}"]))
    if reason:
        typer.secho(f"{suite}: no numbers: {reason}", fg="red", err=True)
        raise typer.Exit(1)
