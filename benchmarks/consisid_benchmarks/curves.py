"""The plots of a record's curves: one for each metric, with a line for each case."""

from __future__ import annotations

from pathlib import Path

from consisid_benchmarks.tables import curve_path
from consisid_measurement.plots import empty_figure, png
from consisid_measurement.record import Record, Series, unit

_GIBIBYTE = 2**30


def curve_plots(record: Record) -> dict[Path, bytes]:
    """Path of each plot, relative to the root → its PNG; equal curves give equal bytes."""
    by_metric: dict[str, list[Series]] = {}
    for each in record.series:
        by_metric.setdefault(each.metric, []).append(each)
    return {curve_path(record, metric): _plot(found) for metric, found in by_metric.items()}


def _plot(curves: list[Series]) -> bytes:
    from matplotlib import colormaps

    metric, over = curves[0].metric, curves[0].over
    large, share = unit(metric) == "bytes", unit(metric) == "percent"
    figure = empty_figure(8.0, 4.2)
    axes = figure.subplots()
    colours = colormaps["tab10"].colors  # type: ignore[attr-defined]
    for number, curve in enumerate(curves):
        x, y = zip(*curve.points, strict=True)
        heights = [value / _GIBIBYTE if large else value for value in y]
        if share:  # it jumps at each value that was measured, from nothing at the first
            x, heights = (x[0], *x), [0.0, *heights]
        style = "steps-post" if share else "default"
        colour = colours[number % len(colours)]
        dashes = "-" if number < len(colours) else "--"
        axes.plot(x, heights, dashes, color=colour, label=curve.case, drawstyle=style, linewidth=1.4)
    if share:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_ylim(0, 101)
        axes.grid(alpha=0.3, which="both")
    else:
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        axes.grid(alpha=0.3)
    axes.set_xlabel(over, fontsize=8)
    axes.set_ylabel(f"{metric.removesuffix('_bytes')}, GiB" if large else metric, fontsize=8)
    axes.tick_params(labelsize=8, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", fontsize=7, frameon=False)
    return png(figure)
