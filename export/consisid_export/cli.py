"""The commands that need the export extra: nano, export, repository, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from consisid_runtime.cli import Json, emit
from consisid_runtime.progress import Display


def register(app: typer.Typer) -> None:
    """Add this package's commands to `consisid`."""
    app.command()(nano)
    app.command()(export)
    app.command()(repository)
    app.command()(demo)


def nano(
    folder: Annotated[Path, typer.Argument(help="Where to write it.")],
    random: Annotated[bool, typer.Option("--random", help="Untrained instead, made here: noise, of any seed.")] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Of the random weights; 0 if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Write a small, complete checkpoint of ConsisID's architecture, under 20 MB.

    The trained one comes from the distribution consisid-nano: it knows drawn people, and no photographs.
    """
    from consisid_export.nano import write_nano
    from consisid_export.nano.trained import unpack_nano
    from consisid_runtime.errors import InvalidOption

    if seed is not None and not random:
        raise InvalidOption(
            f"seed is of random weights, got {seed} for the trained ones; add --random, or leave it out"
        )
    written = write_nano(folder, seed=seed or 0) if random else unpack_nano(folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    emit(
        as_json,
        {"checkpoint": str(folder), "weights": "random" if random else "trained", "written": written, "bytes": size},
        f"{folder}: {'written' if written else 'already there and intact'}, {size / 2**20:.1f} MiB",
    )


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder in the official ConsisID layout.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the bundle to write.")],
    engine: Annotated[str, typer.Option("--engine", help="onnx, torch, tensorrt or torch-tensorrt.")] = "onnx",
    precision: Annotated[str, typer.Option("--precision", help="fp32, fp16, bf16 or fp8.")] = "fp32",
    calibration: Annotated[
        Path | None, typer.Option("--calibration", help="For fp8: calibration.json of a bundle of this transformer.")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the weights instead of linking them.")] = False,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="TensorRT engines for other video sizes too.")] = False,
    plugins: Annotated[bool, typer.Option("--plugins", help="TensorRT: attention by this project's kernels.")] = False,
    as_json: Json = False,
) -> None:
    """Turn a checkpoint into a bundle; every graph that can run here is compared with its original.

    Goes on where it was interrupted. A bundle of other options at the same place is replaced.
    """
    from consisid_export.bundle import export_bundle
    from consisid_export.checkpoint import Checkpoint

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


def repository(
    bundle: Annotated[Path, typer.Argument(help="Folder written by `consisid export`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the model repository to write.")],
    native: Annotated[
        bool, typer.Option("--native", help="The networks for Triton server's own ONNX Runtime or TensorRT backend.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a model repository for Triton server, such as the one in NVIDIA's container."""
    from consisid_export.bundle_repository import write_bundle_repository

    models = write_bundle_repository(bundle, out, native=native)
    emit(
        as_json,
        {"repository": str(out), "models": models},
        f"{out}: models {', '.join(models)}; {out / 'README.md'} says how to start it",
    )


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Keeps the checkpoint and the bundle.")] = Path("build/demo"),
    out: Annotated[Path, typer.Option("--out", help="Gets demo.png, and demo.mp4 or demo.gif.")] = Path(),
    people: Annotated[int, typer.Option("--people", min=1, max=10, help="How many people.")] = 1,
    prompts: Annotated[int, typer.Option("--prompts", min=1, max=10, help="What each is asked to do.")] = 1,
) -> None:
    """Do everything once with the trained nano checkpoint: export, serve, request, look.

    People and prompts are held out of its training. Several videos become a grid, demo.gif, in place of demo.mp4.
    """
    from consisid_export.demo import run_demo

    run_demo(folder, out, typer.echo, people=people, prompts=prompts)
