"""Writes predictions as Markdown. Every table says that nothing of it was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from consisid_benchmarks.predict.goals import GOALS, NOT_PREDICTED, verdict
from consisid_benchmarks.predict.graph import sentence
from consisid_benchmarks.predict.record import FOLDER, deviations
from consisid_benchmarks.tables import RESULTS, markdown, spell
from consisid_measurement.record import Record

SUITE = "predict"
GOALS_OF = "h200"
"""The GPU that the goals are for."""


def plot_path(device: str) -> Path:
    """Path of a prediction's plot, relative to the root: beside the prediction."""
    return RESULTS / FOLDER / f"{device}.png"


def block(predictions: Mapping[str, Mapping[str, Any]], records: Iterable[Record]) -> str:
    """A section for each device."""
    records = list(records)
    parts = [_section(device, found, records) for device, found in predictions.items()]
    return "\n\n".join(parts) or f"Not predicted yet: `consisid bench {SUITE}`, then `consisid bench report`."


def _section(device: str, found: Mapping[str, Any], records: list[Record]) -> str:
    lines = [["stage", "runs", "seconds a run", "kernels", "moved", "TFLOP", "peak of tensors", "waits"]]
    lines.append(["---", *["---:"] * 7])
    for name, stage in (found["stages"] | found["fp8"]["stages"]).items():
        moved, work = f"{stage['bytes'] / 1e9:,.1f} GB", f"{stage['flops'] / 1e12:,.2f}"
        memory = spell(stage["peak_bytes"], "peak_bytes")
        counts = [f"{stage['launches']:,}", moved, work, memory, str(stage["waits"])]
        lines.append([name, str(stage["times"]), _range(stage["seconds"]), *counts])
    request, fp8 = found["request"], found["fp8"]["request"]
    whole = (
        f"A request of 50 steps, warm: {_range(request['seconds'])}, without insightface's networks and the MP4, which "
        "run on the CPU, the MP4 beside decoding; "
        f"{spell(request['resident_bytes'], 'peak_bytes')} of tensors in one process. In tier `fp8`: "
        f"{_range(fp8['seconds'])}, {spell(fp8['resident_bytes'], 'peak_bytes')}."
    )
    peaks = found["device"]
    head = (
        f"**Predicted, not measured: {device}** ({peaks['name']}: {peaks['tflops_bf16']:g} TFLOP/s in bf16, "
        f"{peaks['gbps']:,g} GB/s; {peaks['source']}). Likely, and from best to worst."
    )
    differing = list(deviations(found, device, records))
    measured = ["Measured otherwise by more than 15 %:\n\n" + "\n".join(f"- {text}" for text in differing)]
    graphs = " ".join(sentence(case, graph) for case, graph in found["graphs"].items())
    graphs += " The engine captures none: nano is for CPUs."
    goals = [_goals(found), NOT_PREDICTED, graphs] if device == GOALS_OF else []
    picture = f"![A request on {device}, stage by stage](../{plot_path(device).as_posix()})"
    return "\n\n".join([head, markdown(lines), whole, picture, *(measured if differing else []), *goals])


def _goals(found: Mapping[str, Any]) -> str:
    lines = [["goal", "at most", "predicted", ""], ["---", "---:", "---:", "---"]]
    for goal in GOALS:
        ends = {end: goal.predicted(found, end) for end in ("best", "likely", "worst")}
        same = ends["best"] == ends["worst"]
        predicted = (
            f"{ends['likely']:.3g}" if same else f"{ends['likely']:.3g} ({ends['best']:.3g} – {ends['worst']:.3g})"
        )
        lines.append([goal.what, f"{goal.limit:g} {goal.unit}", f"{predicted} {goal.unit}", verdict(goal, found)])
    return markdown(lines)


def _range(seconds: Mapping[str, float]) -> str:
    likely, best, worst = (spell(seconds[end], "seconds") for end in ("likely", "best", "worst"))
    return f"{likely} ({best} – {worst})"
