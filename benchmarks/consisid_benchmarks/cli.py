"""Adds `consisid bench NAME` and `consisid bench report`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from consisid_benchmarks.suites import export, kernels, pipeline
from consisid_fidelity import cli as fidelity
from consisid_fidelity.nano import cli as fidelity_nano
from consisid_runtime.cli.output import Json, emit

# One line a suite: its name and its command.
SUITES: dict[str, Callable[..., None]] = {
    export.SUITE: export.command,
    fidelity.SUITE: fidelity.command,
    fidelity.VIDEOS: fidelity.videos_command,
    fidelity_nano.COMMAND: fidelity_nano.command,
    fidelity_nano.GATE_COMMAND: fidelity_nano.gate_command,
    kernels.SUITE: kernels.command,
    pipeline.SUITE: pipeline.command,
}


def register(app: typer.Typer) -> None:
    """Add the sub-command `bench` to `consisid`."""
    bench = typer.Typer(help="Measure, and report what was measured.", no_args_is_help=True)
    for name, command in SUITES.items():
        bench.command(name)(command)
    bench.command("report")(report)
    app.add_typer(bench, name="bench")


def report(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 when something is out of date.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Rewrite README's tables and the plots from benchmarks/results; exits 1 when README lacks a marker."""
    from consisid_benchmarks.report import update
    from consisid_measurement import environment

    result = update(environment.checkout(), check=check)
    lines = [f"{'out of date' if check else 'wrote'}: {path}" for path in result.stale]
    emit(
        as_json, {"stale": result.stale, "problems": result.problems}, "\n".join(lines or ["everything is up to date"])
    )
    for problem in result.problems:
        typer.secho(problem, fg="red", err=True)
    if result.problems or (check and result.stale):
        raise typer.Exit(1)
