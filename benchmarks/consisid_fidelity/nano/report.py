"""The record of the nano experiments → tables, and the plots beside the record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from consisid_fidelity.nano import paper
from consisid_fidelity.nano.plots import spectra_plot, steps_plot
from consisid_fidelity.nano.record import SUITE, NanoRecord
from consisid_fidelity.nano.variants import (
    ABLATIONS,
    CONTROLS,
    DAMAGES,
    EXACT,
    GUIDED,
    PROBES,
    RECONSTRUCTED,
    SOLVERS,
    STEPS,
    TRUTH,
    names,
)

_OUTCOMES = {
    "control": ("passed", "FAILED"),
    "damage": ("NOT CAUGHT", "caught"),
    "probe": ("passed", "failed"),
}
"""Of a kind of variant, when the gate lets it pass and when it does not."""
_SWAPPED = (EXACT, "other-local", "other-global")
_PATHS = ("no-global", "no-local", "neither")
_WHO = {"facesim_arc": "FaceSim-Arc", "facesim_cur": "FaceSim-Cur", "strangers": "strangers", "rank1": "rank-1"}
_FINE = ("latents",)
_SHARES = ("rank1", "prompt_accuracy", "faces_found")
_SAID = {"clip_score": "CLIPScore", "prompt_accuracy": "prompt accuracy"}
_HOW = _SAID | {"fid": "FID"}

_NOTHING = f"Not measured yet: `consisid bench {SUITE}-nano`."
_RESULTS = Path("../benchmarks/results")
"""From the documents that have all tables."""

Figures = dict[str, dict[str, Any]]


def summary(records: Iterable[NanoRecord]) -> str:
    """Markdown of what README says of every machine's record."""
    return "\n\n".join(map(_summary, records)) or _NOTHING


def block(records: Iterable[NanoRecord]) -> str:
    """Markdown of everything in every machine's record."""
    return "\n\n".join(map(_section, records)) or _NOTHING


def plots(record: NanoRecord) -> dict[str, bytes]:
    """Name of the file → PNG; they lie beside the record."""
    made = {f"{SUITE}-steps.png": steps_plot(record), f"{SUITE}-spectra.png": spectra_plot(record)}
    return {name: picture for name, picture in made.items() if picture is not None}


def _summary(record: NanoRecord) -> str:
    return "\n\n".join((*_introduction(record), *_identity(record), _outcome(record)))


def _section(record: NanoRecord) -> str:
    figures = record.findings.figures
    folder = _RESULTS / record.machine.name
    spectra, steps = (folder / f"{SUITE}-{name}.png" for name in ("spectra", "steps"))
    return "\n\n".join(
        (
            *_introduction(record),
            *_identity(record),
            "Does it show what the prompt asked for?",
            _table(("", TRUTH, RECONSTRUCTED, EXACT, "empty-prompt"), _shown(figures, "prompt.", ("empty-prompt",))),
            "Does it show the person's attributes, and which path carries them?",
            _table(("", TRUTH, RECONSTRUCTED, EXACT, *_PATHS), _shown(figures, "person.", _PATHS)),
            "With another person's signal in one path: whose attribute is shown, where the two people differ?",
            _table(("", *(f"{name}: {whose}" for name in _SWAPPED for whose in ("own", "other"))), _whose(figures)),
            f"![Spectra of the ablations]({spectra.as_posix()})",
            f"Steps, for {record.settings['sweep']} of these people:",
            _table(
                ("steps", "FaceSim-Arc", "prompt accuracy", "distance", "PSNR", "seconds", "paper"), _sweep(figures)
            ),
            f"Distance and PSNR to {max(STEPS)} steps of the same solver; `dpm` draws noise at every step, so that "
            "runs of different step counts differ by their noise too.",
            f"![Steps against quality and time]({steps.as_posix()})",
            f"Guidance, for {record.settings['sweep']} of these people:",
            _table(("guidance", "FaceSim-Arc", "change", *_SAID.values()), _guided(figures)),
            f"The gate, for {record.settings['sweep']} of these people, with limits on all of these; a control must "
            "pass, damage must fail, a probe may do either:",
            _table(("", "verdict", "failed by", "distance", "PSNR", "change of FaceSim-Arc"), _gate(record)),
        )
    )


def _introduction(record: NanoRecord) -> tuple[str, str]:
    machine, options = record.machine, record.settings["options"]
    people = record.findings.figures[EXACT]["facesim_arc"]["n"]
    return (
        f"**{machine.name}** ({machine.cpu}, {machine.cores} cores), commit `{record.commit}`, "
        f"{record.when[:10]}, bundle `{record.digests['bundle'][:12]}`",
        f"{people} held-out people, each in a held-out scene; {options['steps']} steps of {options['scheduler']}, "
        f"guidance {options['guidance']:g}. In parentheses 95 % intervals; “±” is that of the paired difference to "
        f"`{EXACT}`: same people, prompts and noise.",
    )


def _identity(record: NanoRecord) -> tuple[str, ...]:
    figures = record.findings.figures
    return (
        f"Who is it? Similarity to the portrait; rank-1 among other portraits of {record.settings['gallery']} people.",
        _table(("video", *_WHO.values(), *_HOW.values()), _who(figures)),
        _table(
            ("deprived of", "FaceSim-Arc", "change", "to the other person", "rank-1", *_HOW.values(), "paper"),
            _ablations(figures),
        ),
        order(figures),
    )


def _outcome(record: NanoRecord) -> str:
    """What the gate made of damage and controls, in one sentence."""
    verdicts = record.findings.verdicts
    damage, controls = ([name for name in names(kind) if name in verdicts] for kind in (DAMAGES, CONTROLS))
    caught = sum(not verdicts[name]["passed"] for name in damage)
    passed = sum(verdicts[name]["passed"] for name in controls)
    return (
        f"Looking at {record.settings['sweep']} of these people, the gate caught {caught} of {len(damage)} kinds of "
        f"known damage and let {passed} of {len(controls)} controls pass."
    )


def order(figures: dict[str, Figures]) -> str:
    """How the ablations rank here and in the paper, and which of them these videos cannot tell from `exact`."""
    known = {name: figures[name]["facesim_arc"]["mean"] for name in paper.ABLATIONS if name in figures}
    here = sorted(known, key=lambda name: known[name])
    there = sorted(known, key=lambda name: paper.ABLATIONS[name])
    ours, theirs = (" < ".join(f"`{name}`" for name in ranked) for ranked in (here, there))
    said = (
        f"The order by FaceSim-Arc is the paper's: {ours}."
        if here == there
        else f"The order by FaceSim-Arc is {ours}; the paper's is {theirs}. The paper retrains without a component, "
        "here a model trained with both, each dropped now and then, is deprived of one."
    )
    alike = [f"`{name}`" for name in here if _within_chance(figures[name]["facesim_arc"].get("change"))]
    return f"{said} Not to be told from `exact` by it: {', '.join(alike)}." if alike else said


def _within_chance(change: dict[str, Any] | None) -> bool:
    """Whether the interval of a paired difference to `exact` holds 0."""
    return change is not None and (change["low"] is None or change["low"] <= 0 <= change["high"])


def _who(figures: dict[str, Figures]) -> list[list[str]]:
    columns = (*_WHO, *_HOW)
    rows = [name for name in (TRUTH, RECONSTRUCTED, EXACT, "neither") if name in figures]
    return [[f"`{name}`", *(_cell(figures[name], metric) for metric in columns)] for name in rows]


def _shown(figures: dict[str, Figures], prefix: str, deprived: Sequence[str]) -> list[list[str]]:
    rows = []
    for metric in (metric for metric in figures[EXACT] if metric.startswith(prefix)):
        cells = [_cell(figures.get(name, {}), metric, share=True) for name in (TRUTH, RECONSTRUCTED, EXACT)]
        changes = [_changed(figures.get(name, {}), metric) for name in deprived]
        rows.append([metric.removeprefix(prefix).replace("_", " "), *cells, *changes])
    return rows


def _whose(figures: dict[str, Figures]) -> list[list[str]]:
    known = [metric.removeprefix("own.") for metric in figures[EXACT] if metric.startswith("own.")]
    return [
        [
            name.replace("_", " "),
            *(
                _cell(figures.get(variant, {}), f"{whose}.{name}", share=True)
                for variant in _SWAPPED
                for whose in ("own", "other")
            ),
        ]
        for name in known
    ]


def _ablations(figures: dict[str, Figures]) -> list[list[str]]:
    rows = []
    for name in (name for name in (EXACT, *names(ABLATIONS)) if name in figures):
        found, published = figures[name], paper.ABLATIONS.get(name)
        change = _change(found, "facesim_arc")
        cells = [_cell(found, metric) for metric in ("facesim_other", "rank1", *_HOW)]
        rows.append(
            [f"`{name}`", _cell(found, "facesim_arc"), change, *cells, f"{published:.2f}" if published else "–"]
        )
    return rows


def _sweep(figures: dict[str, Figures]) -> list[list[str]]:
    metrics = ("facesim_arc", "prompt_accuracy", "latents", "psnr", "denoise_seconds")
    rows = []
    for solver in SOLVERS:
        for steps in STEPS:
            found = figures.get(f"{solver}-{steps}-steps")
            if found:
                published = f"{paper.STEPS[steps]:.2f}" if steps in paper.STEPS and solver == SOLVERS[0] else "–"
                last = steps == max(STEPS)
                cells = ["–" if last and m in ("latents", "psnr") else _cell(found, m) for m in metrics]
                rows.append([f"{steps} `{solver}`", *cells, published])
    return rows


def _guided(figures: dict[str, Figures]) -> list[list[str]]:
    rows = [(name.removeprefix("guidance-"), figures[name]) for name in names(GUIDED) if name in figures]
    return [
        [scale, _cell(found, "facesim_arc"), _change(found, "facesim_arc"), *(_cell(found, m) for m in _SAID)]
        for scale, found in rows
    ]


def _gate(record: NanoRecord) -> list[list[str]]:
    rows = []
    for kind, variants in (("control", CONTROLS), ("damage", DAMAGES), ("probe", PROBES)):
        for name in (name for name in names(variants) if name in record.findings.verdicts):
            verdict, found = record.findings.verdicts[name], record.findings.figures[name]
            outcome = _OUTCOMES[kind][not verdict["passed"]]
            cells = [_cell(found, "latents"), _cell(found, "psnr"), _change(found, "facesim_arc")]
            rows.append([f"{kind}: {name.replace('-', ' ')}", outcome, ", ".join(verdict["failed"]) or "–", *cells])
    return rows


def _cell(figures: Figures, metric: str, *, share: bool = False) -> str:
    """“0.71 (0.69 to 0.73)”, shares in per cent."""
    if metric not in figures:
        return "–"
    figure = figures[metric]
    percent = share or metric in _SHARES
    scale, digits = (100, 0) if percent else (1, 4 if metric in _FINE else 2 if abs(figure["mean"]) < 10 else 1)
    mean, low, high = (
        None if figure[name] is None else _number(scale * figure[name], digits) for name in ("mean", "low", "high")
    )
    return f"{mean}{' %' if percent else ''}" + ("" if low is None else f" ({low} to {high})")


def _change(figures: Figures, metric: str) -> str:
    """“−0.036 ± 0.009”."""
    change = figures.get(metric, {}).get("change")
    return "–" if change is None else _signed(change, 1, 3)


def _changed(figures: Figures, metric: str) -> str:
    """“61 % (−30 ± 6)”: a share, and its paired difference to `exact` in points."""
    if metric not in figures:
        return "–"
    change = figures[metric].get("change")
    aside = "" if change is None else f" ({_signed(change, 100, 0)})"
    return f"{100 * figures[metric]['mean']:.0f} %{aside}"


def _signed(change: dict[str, Any], scale: float, digits: int) -> str:
    number = _number(scale * change["mean"], digits, "+")
    half = "" if change["low"] is None else f" ± {scale * (change['high'] - change['mean']):.{digits}f}"
    return number + half


def _number(value: float, digits: int, sign: str = "") -> str:
    return f"{value:{sign}.{digits}f}".replace("-", "−")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
