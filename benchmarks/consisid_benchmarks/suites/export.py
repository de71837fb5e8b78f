"""Suite `export`: time, memory and disk of exporting the step to ONNX, with our exporter and `torch.onnx.export`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consisid_measurement.commands import Json, MachineName, Out, Rounds, results_folder, run_suite
from consisid_runtime.cli.progress import Display
from consisid_runtime.cli.threads import Threads

if TYPE_CHECKING:
    from consisid_measurement.record import Row
    from consisid_runtime.events import Progress

SUITE = "export"
GATE = "tests/export/onnx/test_external.py"
PACKAGES = ("consisid-runtime", "torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime")
LAYERS = 4
DIT = ("dit_prepare", "dit_modulate", "dit_step")


def command(
    full: Annotated[
        Path | None,
        typer.Option("--full", help="Also export every module of this checkpoint; written first (23 GB) if missing."),
    ] = None,
    rounds: Rounds = 3,
    threads: Threads = None,
    machine: MachineName = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Time our export and torch.onnx.export on four layers of ConsisID-preview's width."""
    from consisid_export.checkpoint.checkpoint import Checkpoint
    from consisid_measurement import environment
    from consisid_runtime.cpus import default_threads
    from consisid_runtime.files.atomic import require_folder

    results = results_folder(out)
    if full is not None:
        try:
            full.lstat()
        except FileNotFoundError:
            require_folder(full.parent)
        else:
            Checkpoint.open(full)

    def rows() -> list[Row]:
        from consisid_benchmarks.suites import full_checkpoint as sizes

        with Display("bench export") as display, tempfile.TemporaryDirectory() as folder:
            display.update("checkpoint", 0, 1)
            checkpoint = Path(folder, "checkpoint")
            sizes.write_full_checkpoint(checkpoint, only="transformer", layers=LAYERS)
            width = sizes.TRANSFORMER["num_attention_heads"] * sizes.TRANSFORMER["attention_head_dim"]
            require_same_network(Path(folder), display.update)
            # First, since an incomplete checkpoint makes it fail early.
            whole = measure_all(_written(full), display.update) if full else []
            return measure(f"width-{width}-{LAYERS}-layers", checkpoint, rounds=rounds, progress=display.update) + whole

    run_suite(
        SUITE,
        GATE,
        rows,
        packages=PACKAGES,
        machine=machine,
        results=results,
        as_json=as_json,
        ceilings=partial(environment.cpu_ceilings, default_threads()),
    )


def require_same_network(folder: Path, progress: Progress) -> None:
    """Export the untrained checkpoint's step with every variant, below `folder`. Raises `Mismatch` if they differ."""
    from consisid_benchmarks.suites import export_variants as variants
    from consisid_export.checkpoint.checkpoint import Checkpoint
    from consisid_nano.untrained.write import write_untrained

    checkpoint = folder / "untrained"
    write_untrained(checkpoint)
    graphs: dict[str, Path] = {}
    for number, variant in enumerate(variants.VARIANTS):
        progress(f"untrained, {variant}", number, len(variants.VARIANTS))
        written = folder / f"graph-{number}"
        written.mkdir()
        variants.write_step(variant, checkpoint, "fp32", written)
        graphs[variant] = written / f"{variants.MODULE}.onnx"
    variants.require_same_network(graphs, variants.step_signature(Checkpoint(checkpoint)))


def measure(
    name: str,
    checkpoint: Path,
    *,
    rounds: int,
    progress: Progress,
    chosen: Iterable[str] | None = None,
    precision: str = "bf16",
    warmup: int = 1,
) -> list[Row]:
    """One row per variant and metric; each sample comes from a fresh process that writes beside the checkpoint.

    "export_seconds" excludes the imports of Python; "peak_rss_bytes" is that of the whole process and includes pages of
    mapped files; "written_bytes" is disk space.
    """
    from consisid_benchmarks.suites.export_variants import MODULE, VARIANTS, write_step
    from consisid_measurement.harness import Arm, interleave

    def run(variant: str) -> Mapping[str, float]:
        with tempfile.TemporaryDirectory(dir=checkpoint.parent) as folder:
            return in_fresh_process(partial(write_step, variant, checkpoint, precision), Path(folder))

    arms = [Arm(variant, partial(run, variant)) for variant in chosen or VARIANTS]
    return interleave(f"{name}/{MODULE}", arms, rounds=rounds, warmup=warmup, progress=progress)


def measure_all(
    checkpoint: Path, progress: Progress, *, groups: Mapping[str, Sequence[str]] | None = None
) -> list[Row]:
    """Export a checkpoint once with our exporter, in its stored dtypes, in fresh processes, beside the checkpoint.

    "compared_bytes" is the size of the exported weights, all of which were found equal to the checkpoint's.

    Args:
        groups: name → modules exported in one process; default: every module, and the transformer's three together.

    Raises `ExportRefused` when a weight differs from the checkpoint's, `CheckpointInvalid` for an incomplete one.
    """
    from consisid_benchmarks.suites.export_variants import write_stored
    from consisid_export.checkpoint.checkpoint import Checkpoint
    from consisid_export.onnx.structure import compare_weights
    from consisid_measurement.harness import summarise
    from consisid_runtime.models import networks

    opened = Checkpoint.open(checkpoint)
    size = sum(path.stat().st_size for path in opened.files())
    rows = [summarise("full", "ours", "checkpoint_bytes", [size])]
    groups = groups or {name: (name,) for name in networks.COMPONENTS} | {"dit": DIT}
    for number, (name, modules) in enumerate(groups.items()):
        progress(f"full, {name}", number, len(groups))
        with tempfile.TemporaryDirectory(dir=checkpoint.resolve().parent) as folder:
            found = in_fresh_process(partial(write_stored, checkpoint, modules), Path(folder))
            compared = sum(compare_weights(Path(folder, f"{module}.onnx"), opened, module) for module in modules)
        found |= {"compared_bytes": compared}
        rows += [summarise(f"full/{name}", "ours", metric, [value]) for metric, value in found.items()]
    return rows


def in_fresh_process(work: Callable[[Path], None], folder: Path) -> dict[str, float]:
    """Run `work` on `folder` in a fresh process; metric → value. Peak memory is measured on Linux only."""
    from consisid_benchmarks.suites.export_variants import timed
    from consisid_measurement import memory

    found, peak = memory.in_fresh_process(partial(timed, work, folder))
    return found if peak is None else found | {"peak_rss_bytes": float(peak)}


def _written(folder: Path) -> Path:
    """`folder`; if missing, a checkpoint with random weights is written there, resuming an interrupted write."""
    from consisid_benchmarks.suites.full_checkpoint import write_full_checkpoint

    if not folder.exists():
        fresh = folder.with_name(f".{folder.name}.part")
        write_full_checkpoint(fresh)
        fresh.rename(folder)
    return folder
