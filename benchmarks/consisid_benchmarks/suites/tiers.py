"""Suite `tiers`: time and quality of each tier of the trained nano model, and of what the tiers might be instead.

The tiers' figures exist only where each stays within its limits (`consisid_fidelity.nano.gate.TIER_LIMITS`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consisid_measurement.commands import Json, MachineName, Out, Rounds, results_folder, run_suite
from consisid_runtime.cli.progress import Display

if TYPE_CHECKING:
    from consisid_fidelity.nano.run import Results
    from consisid_measurement.record import Row
    from consisid_runtime.events import Progress

SUITE = "tiers"
GATE = "tests/fidelity/nano/test_tier_distances.py"
PACKAGES = ("consisid-runtime", "consisid-nano", "torch", "onnxruntime", "numpy")
TIERS = ("fast", "draft")
"""Compared with `exact`."""


def command(
    people: Annotated[int, typer.Option("--people", min=4, max=100, help="Held-out people for the tiers.")] = 100,
    sweep: Annotated[
        int, typer.Option("--sweep", min=4, max=100, help="Of these, the people for solver × steps × threshold.")
    ] = 8,
    rounds: Rounds = 5,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Worker processes, one thread each.")] = 1,
    work: Annotated[
        Path | None, typer.Option("--work", help="Folder that stores measurements for reuse; default: build/fidelity.")
    ] = None,
    machine: MachineName = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Measure the tiers of the nano model, and the solvers, steps and thresholds that they were chosen from."""
    from consisid_measurement import environment
    from consisid_runtime.files.atomic import require_folder

    results, folder = results_folder(out), work or environment.checkout() / "build" / "fidelity"
    require_folder(folder)

    def rows() -> list[Row]:
        with Display(f"bench {SUITE}") as display:
            return measure(folder, people, min(sweep, people), rounds, processes, display.update)

    run_suite(SUITE, GATE, rows, packages=PACKAGES, machine=machine, results=results, as_json=as_json)


def measure(
    folder: Path, people: int, sweep: int, rounds: int, processes: int, progress: Progress | None = None
) -> list[Row]:
    """Every row. Raises `Mismatch` for a tier that is not within its limits, and what generating and judging raise."""
    import consisid_nano
    from consisid_export.bundle.export import export_bundle
    from consisid_export.checkpoint.checkpoint import Checkpoint
    from consisid_fidelity.nano.run import ExperimentRun
    from consisid_fidelity.nano.setup import ExperimentSetup
    from consisid_fidelity.nano.variants import EXACT, TIER_SWEEP, names

    bundle, checkpoint = folder / "bundle", consisid_nano.checkpoint()
    export_bundle(Checkpoint.open(checkpoint), bundle)
    run = ExperimentRun(ExperimentSetup(bundle, checkpoint, consisid_nano.judges()), folder)
    wanted = dict.fromkeys((EXACT, *TIERS), people) | dict.fromkeys(names(TIER_SWEEP), sweep)
    found = run.measure(wanted, processes, progress)
    require_limits(found, people)
    return [*times(bundle, rounds, progress), *tier_rows(found, people), *sweep_rows(found, sweep)]


def require_limits(found: Results, people: int) -> None:
    """Raises `Mismatch`, naming the criteria, for a tier that is worse than its limits allow."""
    from consisid_fidelity.nano.gate import TIER_LIMITS, variant_verdict
    from consisid_measurement.harness import Mismatch

    for tier in TIERS:
        verdict = variant_verdict(found, tier, people, TIER_LIMITS[tier])
        if not verdict.passed:
            raise Mismatch(f"tier {tier} is not within its limits:\n{verdict}")


def times(bundle: Path, rounds: int, progress: Progress | None = None) -> list[Row]:
    """Seconds of a whole request in each tier, on one thread, in turn."""
    from consisid_fidelity.nano.variants import EXACT
    from consisid_measurement.harness import Arm, interleave
    from consisid_runtime.pipeline import Pipeline

    pipeline = Pipeline.open(bundle, device="cpu", threads=1, faces_kept=0)
    arms = [Arm(_variant(tier), partial(_request, pipeline, tier)) for tier in (EXACT, *TIERS)]
    return interleave(_case(people=1), arms, rounds=rounds, progress=progress)


def tier_rows(found: Results, people: int) -> Iterator[Row]:
    """What the judges say of each tier, and of the differences to the exact video of the same person."""
    from consisid_fidelity.nano.variants import EXACT
    from consisid_measurement.harness import summarise

    for tier in (EXACT, *TIERS):
        case, variant = _case(people), _variant(tier)
        own, exact = ([found[name, number] for number in range(people)] for name in (tier, EXACT))
        for metric in ("facesim_arc", "prompt_accuracy"):
            yield summarise(case, variant, f"{metric}_percent", [100 * each[metric] for each in own])
        if tier != EXACT:
            changes = [100 * (new["facesim_arc"] - old["facesim_arc"]) for new, old in zip(own, exact, strict=True)]
            yield summarise(case, variant, "facesim_arc_change_percent", changes)
            yield summarise(case, variant, "latent_distance_percent", [100 * each["latents"] for each in own])
            yield summarise(case, variant, "psnr_db", [each["psnr"] for each in own])


def sweep_rows(found: Results, people: int) -> Iterator[Row]:
    """The alternatives, one case each."""
    from consisid_fidelity.nano.variants import TIER_SWEEP
    from consisid_measurement.harness import summarise

    for name in (variant.name for variant in TIER_SWEEP):
        own = [found[name, number] for number in range(people)]
        yield summarise(name, "ours", "denoise_seconds", [each["denoise_seconds"] for each in own])
        for metric in ("facesim_arc", "prompt_accuracy"):
            yield summarise(name, "ours", f"{metric}_percent", [100 * each[metric] for each in own])
        yield summarise(name, "ours", "latent_distance_percent", [100 * each["latents"] for each in own])


def _request(pipeline: object, tier: str) -> dict[str, float]:
    import time

    from consisid_fidelity.nano.evaluation_set import case, png
    from consisid_runtime.options import Options

    one = case(0)
    portrait = png(one.portrait())
    begin = time.perf_counter()
    video = pipeline.generate(portrait, one.prompt, Options(tier=tier, seed=one.seed))  # type: ignore[attr-defined]
    seconds = time.perf_counter() - begin
    return {"total_seconds": seconds, "computed_steps_count": video.info["denoise"]["computed_steps"]}


def _variant(tier: str) -> str:
    from consisid_fidelity.nano.variants import EXACT

    return "ours" if tier == EXACT else f"ours/{tier}"


def _case(people: int) -> str:
    return f"nano, {people} people" if people > 1 else "nano, a request"
