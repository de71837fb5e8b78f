"""`consisid bench fidelity-nano`: the experiments on the nano model, and its gate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consisid_measurement.commands import Json, MachineName, Out
from consisid_runtime.cli.output import emit
from consisid_runtime.errors import MissingExtra

if TYPE_CHECKING:
    from typing import Any

    from consisid_fidelity.nano.record import Findings, NanoRecord
    from consisid_fidelity.nano.run import Rows
    from consisid_fidelity.nano.worker import Subject
    from consisid_runtime.events import Progress

COMMAND, GATE_COMMAND = "fidelity-nano", "gate"
LEAST = 4
"""People that the gate needs, `verdict.LEAST`."""
GATE = "tests/fidelity/nano/test_known_damage.py"
PACKAGES = ("consisid-runtime", "consisid-nano", "torch", "onnxruntime", "diffusers", "transformers", "numpy")

CheckpointFolder = Annotated[
    Path | None, typer.Option("--checkpoint", help="What the bundle was made from; default: consisid-nano's.")
]
JudgeFolder = Annotated[
    Path | None, typer.Option("--judges", help="Folder of judges, person.onnx too; default: consisid-nano's.")
]
Steps = Annotated[int, typer.Option("--steps", min=2, max=1000, help="Denoising steps.")]
Guidance = Annotated[float, typer.Option("--guidance", min=0.0, max=100.0, help="Guidance scale.")]
Processes = Annotated[int, typer.Option("--processes", min=1, help="Side by side, one thread each.")]
Work = Annotated[
    Path | None, typer.Option("--work", help="Folder of what is measured already; default: build/fidelity.")
]


def command(
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", help="A bundle of the checkpoint, any engine; default: made of it, ONNX, fp32."),
    ] = None,
    checkpoint: CheckpointFolder = None,
    judges: JudgeFolder = None,
    people: Annotated[
        int, typer.Option("--people", min=LEAST, max=100, help="Held-out people of the ablations.")
    ] = 100,
    sweep: Annotated[
        int, typer.Option("--sweep", min=LEAST, max=100, help="Of these, how many for steps, guidance and the gate.")
    ] = 24,
    steps: Steps = 25,
    guidance: Guidance = 2.0,
    processes: Processes = 2,
    work: Work = None,
    small: Annotated[
        bool, typer.Option("--small", help="Only the gate, on few people with few steps; writes no record.")
    ] = False,
    machine: MachineName = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Experiments on the nano model: identity, prompt, ablations, steps, spectra, and the gate against known damage."""
    source, panel = checkpoint or _shipped("checkpoint"), judges or _shipped("judges")
    from consisid_fidelity.nano import experiments
    from consisid_fidelity.nano.worker import Subject
    from consisid_measurement import environment, harness
    from consisid_runtime.cli.progress import Display
    from consisid_runtime.options import Options

    folder = work or environment.checkout() / "build" / "fidelity"
    if not small and not harness.passes(GATE, environment.checkout()):
        typer.secho(f"{COMMAND}: no numbers: {GATE} does not pass", fg="red", err=True)
        raise typer.Exit(1)
    with Display(f"bench {COMMAND}") as display:
        subject = Subject(
            bundle or _exported(source, folder, display.update), source, panel, Options(steps=steps, guidance=guidance)
        )
        if small:
            subject = experiments.small_subject(subject)
        wanted = experiments.small() if small else experiments.large(people, sweep)
        rows, digests = _measure(subject, folder, wanted, processes, display.update)
    findings = experiments.find(rows)
    lines = verdict_lines(findings)
    report: dict[str, Any] = {"verdicts": findings.verdicts}
    if not small:
        settings = {"people": people, "sweep": min(sweep, people), "processes": processes}
        record = _record(findings, subject, settings, digests, machine)
        lines.append(f"wrote {record.write(out or environment.checkout() / 'benchmarks' / 'results')}")
        report = record.to_json()
    emit(as_json, report, "\n".join(lines))
    if experiments.surprises(findings):
        raise typer.Exit(1)


def gate_command(
    candidate: Annotated[Path, typer.Argument(help="A bundle of the checkpoint, any engine and precision.")],
    against: Annotated[
        Path | None, typer.Option("--against", help="The bundle to be as good as; default: ONNX, fp32, made here.")
    ] = None,
    checkpoint: CheckpointFolder = None,
    judges: JudgeFolder = None,
    people: Annotated[int, typer.Option("--people", min=LEAST, max=100, help="Held-out people.")] = 24,
    steps: Steps = 25,
    guidance: Guidance = 2.0,
    processes: Processes = 2,
    work: Work = None,
    as_json: Json = False,
) -> None:
    """Is a bundle as good as the exact one? Same people, prompts and noise; exits with 1 if it is not."""
    source, panel = checkpoint or _shipped("checkpoint"), judges or _shipped("judges")
    from consisid_fidelity.nano.compare import compare
    from consisid_fidelity.nano.run import Workbench
    from consisid_fidelity.nano.worker import Subject
    from consisid_measurement import environment
    from consisid_runtime.cli.progress import Display
    from consisid_runtime.options import Options

    folder = work or environment.checkout() / "build" / "fidelity"
    options = Options(steps=steps, guidance=guidance)
    with Display(f"bench {GATE_COMMAND}") as display:
        exact = against or _exported(source, folder, display.update)
        found, wanted = (Workbench(Subject(bundle, source, panel, options), folder) for bundle in (candidate, exact))
        verdict = compare(found, wanted, people, processes, display.update)
    emit(as_json, verdict.to_json(), str(verdict))
    if not verdict.passed:
        raise typer.Exit(1)


def verdict_lines(findings: Findings) -> list[str]:
    """One line a control or damage: whether it passed the gate, and by which criteria it failed."""
    return [
        f"{'passed' if verdict['passed'] else 'failed'}  {name}" + "".join(f", {each}" for each in verdict["failed"])
        for name, verdict in findings.verdicts.items()
    ]


def _measure(
    subject: Subject, folder: Path, wanted: Mapping[str, int], processes: int, progress: Progress
) -> tuple[Rows, dict[str, Any]]:
    from consisid_fidelity.nano.run import Workbench

    bench = Workbench(subject, folder)
    return bench.run(wanted, processes, progress), bench.digests


def _record(
    findings: Findings, subject: Subject, settings: dict[str, Any], digests: dict[str, Any], machine: str | None
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
        settings={**settings, "gallery": subject.gallery, "options": asdict(subject.options)},
        digests=digests,
        findings=findings,
        sources=Sources.of(environment.checkout(), ENTRY),
    )


def _exported(checkpoint: Path, folder: Path, progress: Progress) -> Path:
    from consisid_export.bundle.export import export_bundle
    from consisid_export.checkpoint.checkpoint import Checkpoint

    export_bundle(Checkpoint.open(checkpoint), folder / "bundle", progress=progress)
    return folder / "bundle"


def _shipped(name: str) -> Path:
    try:
        import consisid_nano
    except ImportError as missing:
        raise MissingExtra(f"the trained nano model is not here ({missing}): pip install consisid-nano") from missing
    try:
        return consisid_nano.checkpoint() if name == "checkpoint" else consisid_nano.judges()
    except consisid_nano.DataMissing as missing:
        raise MissingExtra(str(missing)) from missing
