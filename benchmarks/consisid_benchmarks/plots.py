"""The plot of what is lost against what it takes, for suites that measured alternatives."""

from __future__ import annotations

from consisid_benchmarks.tables import ERROR, QUALITY, SPEED, alternatives
from consisid_measurement.plots import empty_figure, png
from consisid_measurement.record import Record

_COLOURS = ("#9970ab", "#1b7837", "#d95f02", "#3182bd")


def error_against_speed(record: Record) -> bytes | None:
    """A PNG of the latents' distance and of the similarity over the seconds of denoising; None without `alternatives`.

    Points are numbered in the order of their cases; the colour is the first word of a case's name, up to "-".
    """
    points = alternatives(record)
    if not points:
        return None
    kinds = dict.fromkeys(case.partition("-")[0] for case in points)
    colours = dict(zip(kinds, _COLOURS, strict=False))
    figure = empty_figure(9.0, 4.6)
    for axes, metric in zip(figure.subplots(1, 2), (ERROR, QUALITY), strict=True):
        for kind in kinds:
            own = [found for case, found in points.items() if case.partition("-")[0] == kind]
            x, y = [each[SPEED] for each in own], [each[metric] for each in own]
            axes.scatter(x, y, s=14, color=colours[kind], label=kind)
        for number, found in enumerate(points.values(), start=1):
            place = (found[SPEED], found[metric])
            axes.annotate(str(number), place, xytext=(3, 2), textcoords="offset points", fontsize=7)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.set_xlabel(SPEED, fontsize=8)
        axes.set_ylabel(metric, fontsize=8)
        axes.tick_params(labelsize=7, which="both")
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)
    return png(figure)
