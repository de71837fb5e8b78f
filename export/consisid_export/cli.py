"""The commands that need the export extra: export, curve, repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from consisid_export.bundle.builders import BUILDERS, listed, taking
from consisid_runtime.cli.output import Json, emit
from consisid_runtime.cli.progress import Display
from consisid_runtime.cli.threads import Threads
from consisid_runtime.engines.table import PRECISIONS


def register(app: typer.Typer) -> None:
    """Add this package's commands to `consisid`."""
    app.command()(export)
    app.command()(curve)
    app.command()(repository)


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder in the official ConsisID layout.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the bundle to write.")],
    engine: Annotated[str, typer.Option("--engine", help=f"{listed(BUILDERS)}.")] = "onnx",
    precision: Annotated[str, typer.Option("--precision", help=f"{listed(PRECISIONS)}.")] = "fp32",
    calibration: Annotated[
        Path | None, typer.Option("--calibration", help="For fp8: calibration.json of a bundle of this transformer.")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the weights instead of linking them.")] = False,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help=f"Engines for other video sizes, too ({taking('dynamic')}).")
    ] = False,
    plugins: Annotated[
        bool, typer.Option("--plugins", help=f"Attention by this project's kernels ({taking('plugins')}).")
    ] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Export a checkpoint to a bundle; every graph that can run here is compared with its original.

    Resumes an interrupted export and keeps unchanged modules. A bundle with other options in the folder is replaced.
    """
    from consisid_export.bundle.export import export_bundle
    from consisid_export.checkpoint.checkpoint import Checkpoint

    with Display("export") as display:
        written = export_bundle(
            Checkpoint.open(checkpoint),
            out,
            engine=engine,
            precision=precision,
            calibration=calibration,
            copy=copy,
            dynamic=dynamic,
            plugins=plugins,
            progress=display.update,
        )
    from consisid_runtime.bundle import Bundle

    checks = [module["check"]["kind"] for module in Bundle.open(out).manifest["modules"].values()]
    measured = f"{checks.count('numeric')} of {len(checks)} modules compared with their originals by running them"
    emit(
        as_json,
        {"bundle": str(out), "written": written, "modules_compared": checks.count("numeric"), "modules": len(checks)},
        f"{out}: {'exported' if written else 'already there, made from these files by these tools; kept'}; {measured}",
    )


def curve(
    checkpoint: Annotated[Path, typer.Argument(help="Folder in the official ConsisID layout.")], as_json: Json = False
) -> None:
    """Measure how far a checkpoint's clean latents move over its own runs, and store that in it.

    Bundles that are exported then have the tiers that skip steps. A checkpoint of ConsisID's size needs a CUDA GPU.
    """
    from consisid_export.change_curve import measure_curve
    from consisid_export.checkpoint import change_curve
    from consisid_export.checkpoint.checkpoint import Checkpoint

    with Display("curve") as display:
        found = measure_curve(Checkpoint.open(checkpoint), display.update)
    path = change_curve.write(checkpoint, found)
    moved = f"over {len(found.timesteps)} timesteps the clean latents move by {found.change[-1]:.2f} times their size"
    emit(as_json, {"file": str(path), **found.to_json()}, f"{path}: {moved}")


def repository(
    bundle: Annotated[Path, typer.Argument(help="Folder written by `consisid export`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the model repository to write.")],
    native: Annotated[
        bool, typer.Option("--native", help="The networks for Triton server's own ONNX Runtime or TensorRT backend.")
    ] = False,
    layout: Annotated[
        str, typer.Option("--layout", help="ensemble: a process for each stage. single: one for all.")
    ] = "ensemble",
    as_json: Json = False,
) -> None:
    """Write a model repository for Triton server, such as the one in NVIDIA's container."""
    from consisid_export.repository.bundle import write_bundle_repository

    models = write_bundle_repository(bundle, out, native=native, layout=layout)
    emit(
        as_json,
        {"repository": str(out), "models": models},
        f"{out}: models {', '.join(models)}; {out / 'README.md'} says how to start it",
    )
