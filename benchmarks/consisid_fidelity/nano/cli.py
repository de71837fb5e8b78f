"""Commands `fidelity-nano` and `gate`: the experiments with the nano model, and its quality gate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consisid_measurement.commands import Json, MachineName, Out, results_folder
from consisid_runtime.cli.output import emit
from consisid_runtime.errors import MissingExtra

if TYPE_CHECKING:
    from typing import Any

    from consisid_fidelity.nano.record import Findings, NanoRecord
    from consisid_fidelity.nano.run import Results
    from consisid_fidelity.nano.setup import ExperimentSetup
    from consisid_runtime.events import Progress

COMMAND, GATE_COMMAND = "fidelity-nano", "gate"
MIN_PEOPLE = 4
"""Equals `verdict.MIN_VIDEOS`, repeated here so that the command's help loads without numpy."""
GATE = "tests/fidelity/nano/test_known_damage.py"
PACKAGES = ("consisid-runtime", "consisid-nano", "torch", "onnxruntime", "diffusers", "transformers", "numpy")

CheckpointOption = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="Checkpoint of the bundle; default: consisid-nano's."),
]
JudgesOption = Annotated[
    Path | None, typer.Option("--judges", help="Folder of judges, including person.onnx; default: consisid-nano's.")
]
StepsOption = Annotated[int, typer.Option("--steps", min=2, max=1000, help="Denoising steps.")]
GuidanceOption = Annotated[float, typer.Option("--guidance", min=0.0, max=100.0, help="Guidance scale.")]
ProcessesOption = Annotated[int, typer.Option("--processes", min=1, help="Worker processes, one thread each.")]
WorkOption = Annotated[
    Path | None, typer.Option("--work", help="Folder that stores measurements for reuse; default: build/fidelity.")
]


def command(
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", help="A bundle of the checkpoint, any engine; default: exported now, ONNX, fp32."),
    ] = None,
    checkpoint: CheckpointOption = None,
    judges: JudgesOption = None,
    people: Annotated[
        int, typer.Option("--people", min=MIN_PEOPLE, max=100, help="Held-out people in the ablations.")
    ] = 100,
    sweep: Annotated[
        int, typer.Option("--sweep", min=MIN_PEOPLE, max=100, help="Of these, the people in the sweeps and the gate.")
    ] = 24,
    steps: StepsOption = 25,
    guidance: GuidanceOption = 2.0,
    processes: ProcessesOption = 2,
    work: WorkOption = None,
    small: Annotated[
        bool, typer.Option("--small", help="Run only the gate, with few people and steps; writes no record.")
    ] = False,
    machine: MachineName = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Experiments with the nano model: identity, prompt, ablations, steps, spectra, and the gate on known damage."""
    checkpoint_folder, judge_folder = checkpoint or _packaged("checkpoint"), judges or _packaged("judges")
    from consisid_fidelity.nano import experiments
    from consisid_fidelity.nano.setup import ExperimentSetup
    from consisid_measurement import environment, harness
    from consisid_runtime.cli.progress import Display
    from consisid_runtime.options import Options

    folder = work or environment.checkout() / "build" / "fidelity"
    results_at = results_folder(out)
    _require_usable(folder, checkpoint_folder, judge_folder, bundle)
    if not small and not harness.passes(GATE, environment.checkout()):
        typer.secho(f"{COMMAND}: not measured, because {GATE} does not pass", fg="red", err=True)
        raise typer.Exit(1)
    with Display(f"bench {COMMAND}") as display:
        measured = bundle or _exported(checkpoint_folder, folder, display.update)
        setup = ExperimentSetup(measured, checkpoint_folder, judge_folder, Options(steps=steps, guidance=guidance))
        if small:
            setup = experiments.small_setup(setup)
        wanted = experiments.small_case_counts() if small else experiments.full_case_counts(people, sweep)
        results, digests = _measure(setup, folder, wanted, processes, display.update)
    findings = experiments.summarise(results)
    lines = verdict_lines(findings)
    report: dict[str, Any] = {"verdicts": findings.verdicts}
    if not small:
        settings = {"people": people, "sweep": min(sweep, people), "processes": processes}
        record = _record(findings, setup, settings, digests, machine)
        lines.append(f"wrote {record.write(results_at)}")
        report = record.to_json()
    emit(as_json, report, "\n".join(lines))
    if experiments.unexpected_verdicts(findings):
        raise typer.Exit(1)


def gate_command(
    candidate: Annotated[Path, typer.Argument(help="A bundle of the checkpoint, any engine and precision.")],
    against: Annotated[
        Path | None, typer.Option("--against", help="Bundle to compare with; default: exported now, ONNX, fp32.")
    ] = None,
    checkpoint: CheckpointOption = None,
    judges: JudgesOption = None,
    people: Annotated[int, typer.Option("--people", min=MIN_PEOPLE, max=100, help="Held-out people.")] = 24,
    steps: StepsOption = 25,
    guidance: GuidanceOption = 2.0,
    processes: ProcessesOption = 2,
    work: WorkOption = None,
    as_json: Json = False,
) -> None:
    """Compare a bundle with the exact one on the same people, prompts and noise; exits with 1 if it is worse."""
    checkpoint_folder, judge_folder = checkpoint or _packaged("checkpoint"), judges or _packaged("judges")
    from consisid_fidelity.nano.gate import compare_bundles
    from consisid_fidelity.nano.run import ExperimentRun
    from consisid_fidelity.nano.setup import ExperimentSetup
    from consisid_measurement import environment
    from consisid_runtime.cli.progress import Display
    from consisid_runtime.options import Options

    folder = work or environment.checkout() / "build" / "fidelity"
    _require_usable(folder, checkpoint_folder, judge_folder, candidate, against)
    options = Options(steps=steps, guidance=guidance)
    with Display(f"bench {GATE_COMMAND}") as display:
        exact = against or _exported(checkpoint_folder, folder, display.update)
        found, wanted = (
            ExperimentRun(ExperimentSetup(bundle, checkpoint_folder, judge_folder, options), folder)
            for bundle in (candidate, exact)
        )
        verdict = compare_bundles(found, wanted, people, processes, display.update)
    emit(as_json, verdict.to_json(), str(verdict))
    if not verdict.passed:
        raise typer.Exit(1)


def verdict_lines(findings: Findings) -> list[str]:
    """One line per control or damage: whether it passed the gate, and the criteria that failed."""
    return [
        f"{'passed' if verdict['passed'] else 'failed'}  {name}" + "".join(f", {each}" for each in verdict["failed"])
        for name, verdict in findings.verdicts.items()
    ]


def _require_usable(work: Path, checkpoint: Path, judges: Path, *bundles: Path | None) -> None:
    """Raise for a folder that cannot be used, before hours of work."""
    from consisid_export.checkpoint.checkpoint import Checkpoint
    from consisid_fidelity.judges.judges import Judges
    from consisid_runtime.bundle import Bundle
    from consisid_runtime.files.atomic import require_folder

    require_folder(work)
    Judges.open(judges, "cpu")
    for bundle in bundles:
        if bundle is not None:
            Bundle.open(bundle, device="cpu")
    Checkpoint.open(checkpoint)


def _measure(
    setup: ExperimentSetup, folder: Path, wanted: Mapping[str, int], processes: int, progress: Progress
) -> tuple[Results, dict[str, Any]]:
    from consisid_fidelity.nano.run import ExperimentRun

    run = ExperimentRun(setup, folder)
    return run.measure(wanted, processes, progress), run.digests


def _record(
    findings: Findings, setup: ExperimentSetup, settings: dict[str, Any], digests: dict[str, Any], machine: str | None
) -> NanoRecord:
    from dataclasses import asdict

    from consisid_fidelity.nano.record import ENTRY, NanoRecord
    from consisid_measurement import environment
    from consisid_measurement.record import Gate
    from consisid_measurement.sources import Sources

    return NanoRecord(
        gate=Gate(GATE, passed=True),
        machine=environment.machine(machine),
        versions=environment.versions(PACKAGES),
        commit=environment.commit(environment.checkout()),
        when=environment.now(),
        settings={**settings, "gallery": setup.gallery, "options": asdict(setup.options)},
        digests=digests,
        findings=findings,
        sources=Sources.of(environment.checkout(), ENTRY),
    )


def _exported(checkpoint: Path, folder: Path, progress: Progress) -> Path:
    from consisid_export.bundle.export import export_bundle
    from consisid_export.checkpoint.checkpoint import Checkpoint

    export_bundle(Checkpoint.open(checkpoint), folder / "bundle", progress=progress)
    return folder / "bundle"


def _packaged(name: str) -> Path:
    try:
        import consisid_nano
    except ImportError as missing:
        raise MissingExtra(
            f"the trained nano model is not installed ({missing}): pip install consisid-nano"
        ) from missing
    try:
        return consisid_nano.checkpoint() if name == "checkpoint" else consisid_nano.judges()
    except consisid_nano.DataMissing as missing:
        raise MissingExtra(str(missing)) from missing
