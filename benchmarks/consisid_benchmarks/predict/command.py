"""Command `bench predict`: seconds and memory of every stage on a GPU, from the fake GPU's budgets."""

from __future__ import annotations

from consisid_benchmarks.predict.ceilings import DEVICES
from consisid_measurement.commands import Json, Out, results_folder
from consisid_runtime.cli.output import emit

SUITE = "predict"


def command(out: Out = None, as_json: Json = False) -> None:
    """Predict every stage's seconds and memory on an H200 and an H100 from counted work. Nothing is measured.

    Where the results have a record of suite `stages`, a second prediction takes the ceilings measured with it.
    """
    from consisid_benchmarks.fake_gpu import budgets
    from consisid_benchmarks.predict import record
    from consisid_measurement.record import read

    results, budget = results_folder(out), budgets.read()
    found = {name: record.make(budget, device) for name, device in DEVICES.items()}
    records = [read(path) for path in sorted(results.glob(f"*/{record.MEASURED}.json"))]
    found |= record.from_measured(budget, records)
    lines = []
    for name, prediction in found.items():
        path = record.write(results, name, prediction)
        likely = prediction["request"]["seconds"]
        lines.append(
            f"predicted, not measured: {name}  {likely['likely']:.1f} s ({likely['best']:.1f} to {likely['worst']:.1f})"
        )
        lines.append(f"wrote {path}")
    emit(as_json, found, "\n".join(lines))
