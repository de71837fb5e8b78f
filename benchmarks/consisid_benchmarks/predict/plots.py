"""The plot of a request on a GPU: its stages one after the other, and each stage below the device's roofline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consisid_benchmarks.predict.record import MEASURED, SUFFIX
from consisid_benchmarks.tables import spell
from consisid_measurement.plots import empty_figure, png
from consisid_measurement.record import OURS, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PREDICTED, _MEASURED = "#9970ab", "#1b7837"
_SAME = "denoise/first-step"
"""Its point has no name of its own: it lies on that of the other steps."""


@dataclass(frozen=True, slots=True)
class Span:
    """What a stage takes in a whole request.

    Attributes:
        low, seconds, high: of all its runs, predicted as best, likely and worst, measured as quantiles and median.
        tflops: a second; of its runs, by the counted FLOP.
        intensity: counted FLOP for each byte moved.
    """

    name: str
    low: float
    seconds: float
    high: float
    tflops: float
    intensity: float


def plot(found: Mapping[str, Any], name: str, records: Iterable[Record]) -> bytes:
    """A PNG of the prediction `found` under `name` and, where its machine has a record of the stages, of that."""
    device = found["device"]
    figure = empty_figure(9.0, 4.2)
    waterfall, roofline = figure.subplots(1, 2)
    series = {f"predicted, {name}": (_predicted(found), _PREDICTED)}
    for record in records:
        if record.suite == MEASURED and record.machine.name == name.removesuffix(SUFFIX):
            series[f"measured, {record.machine.name}"] = (_measured(found, record), _MEASURED)
    for number, (label, (spans, colour)) in enumerate(series.items()):
        _draw_waterfall(waterfall, spans, label, colour, shift=number, of=len(series))
        roofline.scatter([each.intensity for each in spans], [each.tflops for each in spans], s=14, color=colour)
    for each in series[f"predicted, {name}"][0]:
        if each.name != _SAME:
            place = (each.intensity, each.tflops)
            roofline.annotate(each.name, place, xytext=(-4, 4), textcoords="offset points", ha="right", fontsize=7)
    _draw_roof(roofline, device["tflops_bf16"], device["gbps"])
    waterfall.invert_yaxis()
    waterfall.set_xlabel("seconds since the request began", fontsize=8)
    waterfall.legend(fontsize=7, frameon=False, loc="lower left")
    for axes in (waterfall, roofline):
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    return png(figure)


def _predicted(found: Mapping[str, Any]) -> list[Span]:
    stages: Mapping[str, Any] = found["stages"]
    return [
        _span(name, stage, *(stage["seconds"][end] for end in ("best", "likely", "worst")))
        for name, stage in stages.items()
    ]


def _measured(found: Mapping[str, Any], record: Record) -> list[Span]:
    rows = {row.case: row for row in record.rows if row.variant == OURS and row.metric == "stage_seconds"}
    stages: Mapping[str, Any] = found["stages"]
    return [
        _span(name, stage, rows[name].p20, rows[name].median, rows[name].p80)
        for name, stage in stages.items()
        if name in rows
    ]


def _span(name: str, stage: Mapping[str, Any], low: float, seconds: float, high: float) -> Span:
    """From the seconds of one run, and what the prediction of the stage counts in it."""
    times, flops = stage["times"], stage["flops"]
    return Span(name, times * low, times * seconds, times * high, flops / seconds / 1e12, flops / stage["bytes"])


def _draw_waterfall(axes: Axes, spans: Sequence[Span], label: str, colour: str, *, shift: int, of: int) -> None:
    height, begin, total = 0.8 / of, 0.0, sum(each.seconds for each in spans)
    for number, each in enumerate(spans):
        place = number + (shift - (of - 1) / 2) * height
        error = ([each.seconds - each.low], [each.high - each.seconds])
        axes.barh(
            place, each.seconds, height, left=begin, xerr=error, capsize=2, error_kw={"linewidth": 0.7},
            color=colour, label=None if number else label,
        )  # fmt: skip
        text, end = f"{spell(each.seconds, 'seconds')}, {each.seconds / total:.1%}", (begin + each.high, place)
        axes.annotate(text, end, xytext=(4, 0), textcoords="offset points", va="center", fontsize=7)
        begin += each.seconds
    axes.set_yticks(range(len(spans)), [each.name for each in spans], fontsize=7)
    axes.set_xlim(0, 1.35 * max(begin, axes.get_xlim()[1] / 1.35))


def _draw_roof(axes: Axes, tflops: float, gbps: float) -> None:
    ridge = tflops * 1e3 / gbps
    axes.plot([1, ridge, 10 * ridge], [gbps / 1e3, tflops, tflops], color="#252525", linewidth=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("FLOP for each byte moved", fontsize=8)
    axes.set_ylabel(f"TFLOP/s; at most {tflops:g} at {gbps:,g} GB/s", fontsize=8)
