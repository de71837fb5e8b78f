"""The commands `consisid bench SUITE` and `consisid bench report`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from consisid_benchmarks.gpu_run import peers, stages, whole
from consisid_benchmarks.predict import command as predict
from consisid_benchmarks.suites import export, kernels, pipeline, tiers
from consisid_benchmarks.suites.serving import suite as serving
from consisid_fidelity import cli as fidelity
from consisid_fidelity.nano import cli as fidelity_nano
from consisid_runtime.cli.output import Json, emit

SUITES: dict[str, Callable[..., None]] = {
    export.SUITE: export.command,
    fidelity.SUITE: fidelity.command,
    fidelity.VIDEOS: fidelity.videos_command,
    fidelity_nano.COMMAND: fidelity_nano.command,
    fidelity_nano.GATE_COMMAND: fidelity_nano.gate_command,
    kernels.SUITE: kernels.command,
    peers.SUITE: peers.command,
    pipeline.SUITE: pipeline.command,
    predict.SUITE: predict.command,
    serving.SUITE: serving.command,
    stages.SUITE: stages.command,
    tiers.SUITE: tiers.command,
    whole.SUITE: whole.command,
}
"""Name of a sub-command → its function."""


def register(app: typer.Typer) -> None:
    """Adds the sub-command `bench` to `consisid`."""
    bench = typer.Typer(help="Measure, and report what was measured.", no_args_is_help=True)
    for name, command in SUITES.items():
        bench.command(name)(command)
    bench.command("report")(report)
    app.add_typer(bench, name="bench")


def report(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 for outdated pages and stale records.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Rewrite the tables of README.md and docs/ and the plots from benchmarks/results, and list stale records.

    Exits with 1 where a page lacks a marker, and with --check where a page is outdated or a record is stale.
    """
    from dataclasses import asdict

    from consisid_benchmarks.report import update
    from consisid_measurement import environment

    result = update(environment.checkout(), check=check)
    lines = [f"{'outdated' if check else 'wrote'}: {path}" for path in result.outdated]
    lines += [f"stale: {record}" for record in result.stale]
    emit(as_json, asdict(result), "\n".join(lines or ["all pages and records are current"]))
    for problem in result.problems:
        typer.secho(problem, fg="red", err=True)
    if result.problems or (check and (result.outdated or result.stale)):
        raise typer.Exit(1)
