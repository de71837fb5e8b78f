"""The two plots of the nano experiments: quality against steps, and spectra of the ablations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consisid_fidelity.nano.variants import SOLVERS, SPECTRA, STEPS
from consisid_measurement.plots import empty_figure, png

if TYPE_CHECKING:
    from consisid_fidelity.nano.record import NanoRecord

_COLOURS = ("#1b7837", "#9970ab")
_PANELS = (
    ("facesim_arc", "FaceSim-Arc"),
    ("prompt_accuracy", "prompt accuracy"),
    ("latents", f"distance to {max(STEPS)} steps"),
    ("denoise_seconds", "seconds of denoising"),
)
_LINES = {
    "ground-truth": ("#252525", "-"),
    "vae-reconstruction": ("#969696", "-"),
    "exact": ("#1b7837", "-"),
    "no-global": ("#9970ab", "--"),
    "no-local": ("#d95f02", "--"),
    "neither": ("#3182bd", ":"),
}


def steps_plot(record: NanoRecord) -> bytes | None:
    """A PNG of similarity, prompt accuracy, distance and seconds over steps, with 95 % intervals; None without data."""
    figures = record.findings.figures
    series = {
        solver: [(steps, figures[name]) for steps in STEPS if (name := f"{solver}-{steps}-steps") in figures]
        for solver in SOLVERS
    }
    if not any(series.values()):
        return None
    figure = empty_figure(7.0, 5.2)
    for axes, (metric, label) in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
        for (solver, points), colour in zip(series.items(), _COLOURS, strict=True):
            known = [(steps, found[metric]) for steps, found in points if metric in found]
            if known:
                axes.errorbar(
                    [steps for steps, _ in known],
                    [each["mean"] for _, each in known],
                    yerr=tuple(zip(*(_error(each) for _, each in known), strict=True)),
                    color=colour, marker="o", markersize=3, linewidth=1, capsize=2, label=solver,
                )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks(STEPS, [str(steps) for steps in STEPS], fontsize=8)
        axes.minorticks_off()
        axes.set_ylabel(label, fontsize=8)
        axes.tick_params(axis="y", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.containers:
            axes.legend(fontsize=8, frameon=False)
    return png(figure)


def spectra_plot(record: NanoRecord) -> bytes | None:
    """A PNG of relative log amplitude over frequency, absolute and relative to the ground truth; None without data."""
    spectra = record.findings.spectra
    if not spectra:
        return None
    base = spectra.get(SPECTRA[0])
    figure = empty_figure(7.0, 3.2)
    absolute, relative = figure.subplots(1, 2)
    for name, levels in spectra.items():
        colour, line = _LINES[name]
        frequency = [(place + 1) / len(levels) for place in range(len(levels))]
        absolute.plot(frequency, levels, color=colour, linestyle=line, linewidth=1, label=name)
        if base is not None:
            change = [level - true for level, true in zip(levels, base, strict=True)]
            relative.plot(frequency, change, color=colour, linestyle=line, linewidth=1)
    for axes, label in ((absolute, "relative log amplitude"), (relative, f"difference to {SPECTRA[0]}")):
        axes.set_xlabel("frequency, share of Nyquist's", fontsize=8)
        axes.set_ylabel(label, fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    absolute.legend(fontsize=8, frameon=False)
    return png(figure)


def _error(figure: dict[str, Any]) -> tuple[float, float]:
    if figure["low"] is None:
        return 0.0, 0.0
    return figure["mean"] - figure["low"], figure["high"] - figure["mean"]
