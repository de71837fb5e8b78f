"""Commands `fidelity` and `fidelity-videos`: score a folder of videos, and generate one from a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consisid_measurement.commands import Json
from consisid_runtime.cli.output import emit
from consisid_runtime.cli.threads import Threads

if TYPE_CHECKING:
    from consisid_fidelity.score import Scores

SUITE, VIDEOS = "fidelity", "fidelity-videos"


def command(
    videos: Annotated[
        Path,
        typer.Argument(
            help="Folder with videos.csv: video,portrait,prompt[,reference][,attribute ...]; paths are relative."
        ),
    ],
    judges: Annotated[
        Path,
        typer.Option(
            "--judges",
            help="Folder with detector.onnx, arcface.onnx, curricular.onnx, clip/, inception.onnx, attributes.onnx and "
            ".json; metrics whose files are missing are not computed.",
        ),
    ],
    frames: Annotated[
        int | None,
        typer.Option("--frames", min=1, help="Frames per video for faces and CLIPScore; default: all."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:N or auto.")] = "auto",
    out: Annotated[Path | None, typer.Option("--out", help="Also write all scores to this JSON file.")] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Score videos: identity, prompt accuracy, stability, and distance to a reference."""
    from consisid_fidelity.collection import read_collection
    from consisid_fidelity.judges.judges import Judges
    from consisid_fidelity.score import score
    from consisid_runtime.cli.progress import Display
    from consisid_runtime.files.atomic import require_writable, write_file

    if out is not None:
        require_writable(out)
    items, opened = read_collection(videos), Judges.open(judges, device)
    with Display("bench fidelity") as display:
        scores = score(items, opened, frames, display.update)
    report = {"frames": frames} | scores.to_json()
    if out is not None:
        write_file(out, json.dumps(report, indent=1, allow_nan=False).encode() + b"\n", parents=True)
    emit(as_json, report, table(scores))


def videos_command(
    bundle: Annotated[Path, typer.Argument(help="Any bundle.")],
    requests: Annotated[Path, typer.Argument(help="Table portrait,prompt[,seed][,attribute ...]; paths are relative.")],
    out: Annotated[Path, typer.Argument(help="Folder for the videos; an interrupted run is resumed.")],
    steps: Annotated[int, typer.Option("--steps", help="Denoising steps.")] = 50,
    guidance: Annotated[float, typer.Option("--guidance", help="Guidance scale.")] = 6.0,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:N or auto.")] = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Generate a bundle's videos for a table of portraits and prompts; `fidelity` scores them."""
    from consisid_fidelity.videos import generate_videos, read_requests
    from consisid_runtime.cli.progress import Display
    from consisid_runtime.files.atomic import require_folder
    from consisid_runtime.options import Options
    from consisid_runtime.pipeline import Pipeline

    options, rows = Options(steps=steps, guidance=guidance), read_requests(requests)
    require_folder(out)
    with Display(f"bench {VIDEOS}") as display:
        made = generate_videos(Pipeline.open(bundle, device=device, faces_kept=0), rows, options, out, display.update)
    emit(as_json, {"made": made, "videos": len(rows)}, f"made {made} of {len(rows)} videos in {out}")


def table(scores: Scores) -> str:
    """One line per metric with mean, interval and n, then one per metric not computed, with the reason."""
    from rich.console import Console
    from rich.table import Table

    from consisid_fidelity.score import UNITS

    grid = Table(box=None, pad_edge=False)
    for heading, side in (("metric", "left"), ("mean", "right"), ("95 % interval", "left"), ("n", "right")):
        grid.add_column(heading, justify="right" if side == "right" else "left")
    shown = scores.summary | {f"prompt_accuracy, {name}": figure for name, figure in scores.accuracy.items()}
    for name, figure in shown.items():
        interval = "" if figure.low is None or figure.high is None else f"{figure.low:.4g} to {figure.high:.4g}"
        unit = f", {UNITS[name]}" if name in UNITS else ""
        grid.add_row(name + unit, f"{figure.mean:.4g}", interval, str(figure.n))
    console = Console(width=100, no_color=True)
    with console.capture() as capture:
        console.print(grid)
        for name, reason in scores.not_computed.items():
            console.print(f"{name}: not computed, {reason}", markup=False, highlight=False, soft_wrap=True)
    return capture.get().rstrip()
