"""Suite `fidelity`: whose face, what prompt and how steady, for any folder of videos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consisid_benchmarks.commands import Json
from consisid_runtime.cli import emit

if TYPE_CHECKING:
    from consisid_benchmarks.fidelity.score import Scores

SUITE = "fidelity"


def command(
    videos: Annotated[
        Path,
        typer.Argument(
            help="Folder with videos.csv: video,portrait,prompt[,reference][,attribute ...], files by relative paths."
        ),
    ],
    judges: Annotated[
        Path,
        typer.Option(
            "--judges",
            help="Folder with detector.onnx, arcface.onnx, curricular.onnx, clip/, inception.onnx, attributes.onnx and "
            ".json; a metric whose file is missing is not computed.",
        ),
    ],
    frames: Annotated[
        int | None,
        typer.Option("--frames", min=1, help="Frames of a video that faces and CLIPScore are judged on; default: all."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or auto.")] = "auto",
    out: Annotated[Path | None, typer.Option("--out", help="Also write everything, video by video, as JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Score videos: identity, prompt, steadiness, and distance to a reference."""
    from consisid_benchmarks.fidelity.collection import read_collection
    from consisid_benchmarks.fidelity.judges import Judges
    from consisid_benchmarks.fidelity.score import score
    from consisid_export.files import replace_file
    from consisid_runtime.progress import Display
    from consisid_runtime.video import require_writable

    if out is not None:
        require_writable(out)
    items, panel = read_collection(videos), Judges.open(judges, device)
    with Display("bench fidelity") as display:
        scores = score(items, panel, frames, display.update)
    report = {"frames": frames} | scores.to_json()
    if out is not None:
        replace_file(out, json.dumps(report, indent=1, allow_nan=False).encode() + b"\n")
    emit(as_json, report, table(scores))


def table(scores: Scores) -> str:
    """One line a metric: its mean, interval and n; then what is not there, and why."""
    from rich.console import Console
    from rich.table import Table

    from consisid_benchmarks.fidelity.score import UNITS

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
