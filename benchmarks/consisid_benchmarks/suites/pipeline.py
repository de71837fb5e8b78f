"""Suite `pipeline`: times whole videos, ours by each way to run on a CPU, and diffusers eager and compiled."""

from __future__ import annotations

import functools
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consisid_measurement.commands import Json, MachineName, Out, Rounds, results_folder, run_suite
from consisid_runtime.cli.progress import Display
from consisid_runtime.cli.threads import Threads
from consisid_runtime.errors import MissingExtra

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from consisid_benchmarks.suites.variant_processes import Variant
    from consisid_benchmarks.suites.variants import Features, TimedVideo
    from consisid_measurement.record import Row
    from consisid_runtime.events import Progress
    from consisid_runtime.options import Options
    from consisid_runtime.pipeline import Pipeline
    from consisid_runtime.plan import Plan

SUITE = "pipeline"
GATE = "tests/runtime/test_parity.py"
PACKAGES = ("consisid-runtime", "torch", "onnxruntime", "diffusers", "transformers", "numpy")
PROMPT = "An astronaut smiles at the camera, a flag and a rocket behind her."
FLOOR = "arithmetic-floor"
"""Not a variant: the reference's arithmetic at the rate of this machine's large matrix products."""


@dataclass(frozen=True, slots=True)
class Case:
    """A checkpoint, and the number of frames of its videos; None for its own."""

    name: str
    checkpoint: Path
    frames: int | None = None


def command(
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint", help="A ConsisID checkpoint; default: nano and both untrained ones, in several sizes."
        ),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=2, max=1000, help="Denoising steps of each video.")] = 10,
    rounds: Rounds = 11,
    threads: Threads = None,
    machine: MachineName = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Time whole videos: ours by each way to run on a CPU, and diffusers, eager and compiled (needs a C++ compiler)."""
    from consisid_benchmarks.suites.variant_processes import VARIANTS
    from consisid_export.checkpoint.checkpoint import Checkpoint
    from consisid_measurement import environment
    from consisid_runtime.cpus import default_threads
    from consisid_runtime.options import Options

    results = results_folder(out)
    require_cpp_compiler()
    if checkpoint is not None:
        Checkpoint.open(checkpoint)
    threads = default_threads()
    ceilings = functools.cache(partial(environment.cpu_ceilings, threads))

    def rows() -> list[Row]:
        with Display("bench pipeline") as display, tempfile.TemporaryDirectory() as folder:
            measured: list[Row] = []
            for case in cases(checkpoint, Path(folder)):
                paths = prepare(case.checkpoint, Path(folder) / f"{case.name}-bundles", VARIANTS, display.update)
                measured += measure(
                    case.name,
                    paths,
                    Options(steps=steps, frames=case.frames),
                    rounds=rounds,
                    threads=threads,
                    tflops=ceilings()["matmul_fp32_tflops"],
                    progress=display.update,
                )
            return measured

    run_suite(
        SUITE, GATE, rows, packages=PACKAGES, machine=machine, results=results, as_json=as_json, ceilings=ceilings
    )


def require_cpp_compiler() -> None:
    """Raises `MissingExtra` without the C++ compiler that `torch.compile` calls on a CPU."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise MissingExtra(f"torch.compile needs a C++ compiler, and there is no {compiler}: install g++, or set CXX")


def cases(given: Path | None, folder: Path) -> list[Case]:
    """The given checkpoint, or nano and the untrained ones, which are written into `folder`."""
    import consisid_nano
    from consisid_nano.untrained.write import write_untrained

    if given is not None:
        return [Case(re.sub(r"[^a-z0-9]+", "-", given.resolve().name.lower()).strip("-"), given)]
    untrained, mid = folder / "untrained", folder / "mid"
    write_untrained(untrained)
    write_untrained(mid, size="mid")
    return [
        Case("nano", consisid_nano.checkpoint()),
        Case("untrained", untrained),
        Case("untrained", untrained, frames=33),
        Case("mid", mid, frames=9),
        Case("mid", mid),
    ]


def prepare(checkpoint: Path, folder: Path, variants: Sequence[Variant], progress: Progress) -> dict[Variant, Path]:
    """Write the variants' bundles into `folder`, unless they are there; returns variant → bundle or checkpoint."""
    from consisid_export.bundle.export import export_bundle
    from consisid_export.checkpoint.checkpoint import Checkpoint

    paths = {variant: folder / variant.engine if variant.engine else checkpoint for variant in variants}
    for variant in variants:
        if variant.engine:
            export_bundle(Checkpoint.open(checkpoint), paths[variant], engine=variant.engine, progress=progress)
    return paths


def measure(
    name: str,
    paths: Mapping[Variant, Path],
    options: Options,
    *,
    rounds: int,
    threads: int,
    tflops: float | None,
    progress: Progress,
    warmup: int = 1,
    memory: bool = True,
) -> list[Row]:
    """All rows of a case. Raises `Mismatch` when the variants do not generate the same video.

    Every variant gets the same face features and prompt and generates uint8 frames, in a process of its own.
    "request_seconds" and the times of the stages belong to a whole request to our pipeline, from the photograph to the
    MP4, which "decode" encodes. The peak memory is that of a fresh process that generates one video; a compiled variant
    has none, it would count the compiler.

    Args:
        paths: of the variants, ours first, with `variant_processes.EAGER` among them.
        tflops: of this machine's large products, for the row `FLOOR`.
    """
    from consisid_benchmarks.suites.variant_processes import EAGER, VariantProcess, count_flop
    from consisid_benchmarks.suites.variants import read_features
    from consisid_export.checkpoint.checkpoint import Checkpoint
    from consisid_measurement.harness import Arm, interleave, summarise
    from consisid_measurement.memory import in_fresh_process
    from consisid_runtime.bundle import Bundle
    from consisid_runtime.pipeline import Pipeline

    ours = next(iter(paths.values()))
    request = Bundle.open(ours).plan(options)
    photo = Checkpoint.open(paths[EAGER]).example().portrait
    inputs = (read_features(ours, photo, request, threads=threads), PROMPT, request)
    case = f"{name}/{request.frames}x{request.height}x{request.width}/{request.steps}-steps"
    with ExitStack() as running:
        makers = {
            variant.name: running.enter_context(VariantProcess(variant, path, threads))
            for variant, path in paths.items()
        }
        first: dict[str, TimedVideo] = {}
        for done, (label, make) in enumerate(makers.items()):
            progress(f"first video, {label}", done, len(makers))
            first[label] = make(*inputs)
        require_same_video({label: video.frames for label, video in first.items()})
        whole = Pipeline.open(ours, device="cpu", threads=threads, faces_kept=0)
        arms = [Arm(label, partial(_seconds, make, inputs)) for label, make in makers.items()]
        arms.append(Arm("ours", partial(_request_seconds, whole, photo, options)))
        rows = interleave(case, arms, rounds=rounds, warmup=warmup, progress=progress)
    rows += [
        summarise(case, label, "first_video_seconds", [video.seconds["total_seconds"]])
        for label, video in first.items()
    ]
    if tflops:
        flop, _ = in_fresh_process(partial(count_flop, paths[EAGER], threads, *inputs))
        rows.append(summarise(case, FLOOR, "total_seconds", [flop / tflops / 1e12]))
    for variant, path in paths.items() if memory else ():
        if not variant.compiled:
            progress(f"memory, {variant.name}", 0, 1)
            rows += _memory(case, variant, path, threads, inputs)
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


def _memory(case: str, variant: Variant, path: Path, threads: int, inputs: tuple[Features, str, Plan]) -> list[Row]:
    from consisid_benchmarks.suites.variant_processes import generate
    from consisid_measurement.harness import summarise
    from consisid_measurement.memory import peak_rss_bytes

    peak = peak_rss_bytes(partial(generate, variant, path, threads, *inputs))
    return [] if peak is None else [summarise(case, variant.name, "peak_rss_bytes", [peak])]
