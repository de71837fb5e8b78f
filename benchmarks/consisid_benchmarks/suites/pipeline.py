"""Suite `pipeline`: times whole videos, ours by each way to run on a CPU and diffusers in eager mode."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consisid_measurement.commands import Json, MachineName, Out, Rounds, finish, results_folder
from consisid_runtime.cli.progress import Display
from consisid_runtime.cli.threads import Threads

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from consisid_benchmarks.suites.variants import Features, TimedVideo
    from consisid_measurement.record import Row
    from consisid_runtime.events import Progress
    from consisid_runtime.options import Options, Plan
    from consisid_runtime.pipeline import Pipeline

SUITE = "pipeline"
GATE = "tests/runtime/test_parity.py"
PACKAGES = ("consisid-runtime", "torch", "onnxruntime", "diffusers", "transformers", "numpy")
PROMPT = "An astronaut smiles at the camera, a flag and a rocket behind her."
MEMORY_RUNS = 3
ENGINES = {"ours": "mixed", "ours-onnx": "onnx", "ours-torch-engine": "torch"}
"""Variant → `consisid export --engine`."""


def command(
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="A ConsisID checkpoint; default: both untrained ones, written for the run."),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=2, max=1000, help="Denoising steps of each video.")] = 10,
    rounds: Rounds = 11,
    threads: Threads = None,
    machine: MachineName = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Time whole videos: ours by each way to run on a CPU, and diffusers in eager mode."""
    from consisid_export.checkpoint.checkpoint import Checkpoint
    from consisid_measurement import environment, harness
    from consisid_runtime.cpus import default_threads
    from consisid_runtime.options import Options

    results = results_folder(out)
    if checkpoint is not None:
        Checkpoint.open(checkpoint)
    threads = default_threads()
    options = Options(steps=steps)

    def rows() -> list[Row]:
        with Display("bench pipeline") as display, tempfile.TemporaryDirectory() as folder:
            measured: list[Row] = []
            for name, path in checkpoints(checkpoint, Path(folder)).items():
                paths = prepare(path, Path(folder) / f"{name}-bundles", display.update)
                measured += measure(name, paths, options, rounds=rounds, threads=threads, progress=display.update)
            return measured

    record, reason = harness.run(
        SUITE,
        GATE,
        rows,
        root=environment.checkout(),
        machine=environment.machine(machine),
        packages=PACKAGES,
        ceilings=partial(environment.cpu_ceilings, threads),
    )
    finish(record, reason, results, as_json)


def checkpoints(given: Path | None, folder: Path) -> dict[str, Path]:
    """Name → checkpoint: the given one, or the untrained ones, written into `folder`."""
    from consisid_nano.untrained.write import write_untrained

    if given is not None:
        return {re.sub(r"[^a-z0-9]+", "-", given.resolve().name.lower()).strip("-"): given}
    written = {"untrained": folder / "untrained", "mid": folder / "mid"}
    write_untrained(written["untrained"])
    write_untrained(written["mid"], size="mid")
    return written


def prepare(checkpoint: Path, folder: Path, progress: Progress) -> dict[str, Path]:
    """Write the variants' bundles into `folder`; returns variant → bundle or checkpoint."""
    from consisid_export.bundle.export import export_bundle
    from consisid_export.checkpoint.checkpoint import Checkpoint

    paths = {variant: folder / engine for variant, engine in ENGINES.items()}
    for variant, engine in ENGINES.items():
        export_bundle(Checkpoint.open(checkpoint), paths[variant], engine=engine, progress=progress)
    return paths | {"diffusers-eager": checkpoint}


def measure(
    name: str,
    paths: Mapping[str, Path],
    options: Options,
    *,
    rounds: int,
    threads: int,
    progress: Progress,
    warmup: int = 1,
    memory_runs: int = MEMORY_RUNS,
) -> list[Row]:
    """All rows of the suite. Raises `Mismatch` when the variants do not generate the same video.

    Every variant gets the same face features and prompt and generates uint8 frames. "request_seconds" and the times of
    the stages belong to a whole request to our pipeline, from the photograph to the MP4, which "decode" encodes.
    """
    from consisid_benchmarks.suites.variants import generate_once, read_features, video_maker
    from consisid_export.checkpoint.checkpoint import Checkpoint
    from consisid_measurement.harness import Arm, interleave
    from consisid_runtime.bundle import Bundle
    from consisid_runtime.pipeline import Pipeline

    request = Bundle.open(paths["ours"]).plan(options)
    photo = Checkpoint.open(paths["diffusers-eager"]).example().portrait
    inputs = (read_features(paths["ours"], photo, request, threads=threads), PROMPT, request)
    makers = {variant: video_maker(variant, path, threads) for variant, path in paths.items()}
    require_same_video({variant: make(*inputs).frames for variant, make in makers.items()})

    whole = Pipeline.open(paths["ours"], device="cpu", threads=threads)
    arms = [Arm(variant, partial(_seconds, make, inputs)) for variant, make in makers.items()]
    arms.append(Arm("ours", partial(_request_seconds, whole, photo, options)))
    case = f"{name}/{request.frames}x{request.height}x{request.width}/{request.steps}-steps"
    rows = interleave(case, arms, rounds=rounds, warmup=warmup, progress=progress)
    for variant, path in paths.items():
        progress(f"memory, {variant}", 0, 1)
        rows += _memory(case, variant, partial(generate_once, variant, path, threads, *inputs), memory_runs)
    return rows


def require_same_video(frames: Mapping[str, NDArray[np.uint8]]) -> None:
    """Raises `Mismatch` unless all variants' frames, uint8, agree within one level."""
    from consisid_measurement.harness import Mismatch

    (first, reference), *others = frames.items()
    for variant, found in others:
        if found.shape != reference.shape:
            raise Mismatch(f"{variant} has frames of shape {found.shape}, {first} of {reference.shape}")
        levels = int(abs(found.astype(int) - reference).max())
        if levels > 1:
            raise Mismatch(f"the frames of {variant} and {first} differ by up to {levels} of 255 levels")


def _seconds(make: Callable[..., TimedVideo], inputs: tuple[Features, str, Plan]) -> Mapping[str, float]:
    return make(*inputs).seconds


def _request_seconds(pipeline: Pipeline, photo: bytes, options: Options) -> Mapping[str, float]:
    begin = time.perf_counter()
    video = pipeline.generate(photo, PROMPT, options)
    total = time.perf_counter() - begin
    return {"request_seconds": total, **{f"{stage}_seconds": took for stage, took in video.info["seconds"].items()}}


def _memory(case: str, variant: str, work: Callable[[], object], runs: int) -> list[Row]:
    from consisid_measurement.harness import summarise
    from consisid_measurement.memory import peak_rss_bytes

    peaks = [peak for peak in (peak_rss_bytes(work) for _ in range(runs)) if peak is not None]
    return [summarise(case, variant, "peak_rss_bytes", peaks)] if peaks else []
