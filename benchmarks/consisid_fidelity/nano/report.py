"""Renders records of the nano experiments as Markdown tables, with the plots that lie beside each record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from consisid_fidelity.nano.plots import spectra_plot, steps_plot
from consisid_fidelity.nano.record import SUITE, NanoRecord
from consisid_fidelity.nano.variants import (
    ABLATIONS,
    CONTROLS,
    DAMAGES,
    EXACT,
    GUIDANCE_SWEEP,
    PROBES,
    RECONSTRUCTED,
    SOLVERS,
    STEPS,
    TRUTH,
    names,
)

PAPER_ABLATIONS = {EXACT: 0.73, "no-local": 0.66, "no-global": 0.05}
"""FaceSim-Arc in ConsisID's paper (arXiv 2411.17440), table 3, plans c, b and a; the last two also in table 2."""
PAPER_STEPS = {25: 0.50, 50: 0.52, 100: 0.46, 200: 0.33}
"""Steps → FaceSim-Arc in table 4."""

_GATE_OUTCOMES = {
    "control": ("passed", "FAILED"),
    "damage": ("NOT CAUGHT", "caught"),
    "probe": ("passed", "failed"),
}
"""Kind of variant → cell for one that passes the gate, cell for one that fails."""
_SWAPPED_VARIANTS = (EXACT, "other-local", "other-global")
_PATH_ABLATIONS = ("no-global", "no-local", "neither")
_IDENTITY_COLUMNS = {
    "facesim_arc": "FaceSim-Arc",
    "facesim_cur": "FaceSim-Cur",
    "strangers": "strangers",
    "rank1": "rank-1",
}
_FOUR_DIGITS = ("latents",)
_PERCENTAGES = ("rank1", "prompt_accuracy", "faces_found")
_PROMPT_COLUMNS = {"clip_score": "CLIPScore", "prompt_accuracy": "prompt accuracy"}
_QUALITY_COLUMNS = _PROMPT_COLUMNS | {"fid": "FID"}

_NOT_MEASURED = f"Not measured yet: `consisid bench {SUITE}-nano`."
_RESULTS = Path("../benchmarks/results")
"""Path of the records, relative to the folder of the documents."""

Figures = dict[str, dict[str, Any]]


def summary(records: Iterable[NanoRecord]) -> str:
    """Markdown of the summary of every machine's record, for README."""
    return "\n\n".join(map(_summary, records)) or _NOT_MEASURED


def block(records: Iterable[NanoRecord]) -> str:
    """Markdown of every table of every machine's record."""
    return "\n\n".join(map(_section, records)) or _NOT_MEASURED


def plots(record: NanoRecord) -> dict[str, bytes]:
    """Name of a file beside the record → PNG."""
    rendered = {f"{SUITE}-steps.png": steps_plot(record), f"{SUITE}-spectra.png": spectra_plot(record)}
    return {name: picture for name, picture in rendered.items() if picture is not None}


def _summary(record: NanoRecord) -> str:
    return "\n\n".join((*_introduction(record), *_identity_tables(record), _gate_sentence(record)))


def _section(record: NanoRecord) -> str:
    figures = record.findings.figures
    folder = _RESULTS / record.machine.name
    spectra, steps = (folder / f"{SUITE}-{name}.png" for name in ("spectra", "steps"))
    return "\n\n".join(
        (
            *_introduction(record),
            *_identity_tables(record),
            "Does it show what the prompt asked for?",
            _table(
                ("", TRUTH, RECONSTRUCTED, EXACT, "empty-prompt"),
                _attribute_rows(figures, "prompt.", ("empty-prompt",)),
            ),
            "Does it show the person's attributes, and which path carries them?",
            _table(
                ("", TRUTH, RECONSTRUCTED, EXACT, *_PATH_ABLATIONS),
                _attribute_rows(figures, "person.", _PATH_ABLATIONS),
            ),
            "With another person's signal in one path: whose attribute is shown, where the two people differ?",
            _table(
                ("", *(f"{name}: {whose}" for name in _SWAPPED_VARIANTS for whose in ("own", "other"))),
                _swapped_rows(figures),
            ),
            f"![Spectra of the ablations]({spectra.as_posix()})",
            f"Steps, for {record.settings['sweep']} of these people:",
            _table(
                ("steps", "FaceSim-Arc", "prompt accuracy", "distance", "PSNR", "seconds", "paper"), _step_rows(figures)
            ),
            f"Distance and PSNR to {max(STEPS)} steps of the same solver; `dpm` draws noise at every step, so that "
            "runs of different step counts differ by their noise too.",
            f"![Steps against quality and time]({steps.as_posix()})",
            f"Guidance, for {record.settings['sweep']} of these people:",
            _table(("guidance", "FaceSim-Arc", "change", *_PROMPT_COLUMNS.values()), _guidance_rows(figures)),
            f"The gate, for {record.settings['sweep']} of these people, with limits on all of these; a control must "
            "pass, damage must fail, a probe may do either:",
            _table(("", "verdict", "failed by", "distance", "PSNR", "change of FaceSim-Arc"), _gate_rows(record)),
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


def _identity_tables(record: NanoRecord) -> tuple[str, ...]:
    figures = record.findings.figures
    return (
        f"Who is it? Similarity to the portrait; rank-1 among other portraits of {record.settings['gallery']} people.",
        _table(("video", *_IDENTITY_COLUMNS.values(), *_QUALITY_COLUMNS.values()), _identity_rows(figures)),
        _table(
            (
                "deprived of",
                "FaceSim-Arc",
                "change",
                "to the other person",
                "rank-1",
                *_QUALITY_COLUMNS.values(),
                "paper",
            ),
            _ablation_rows(figures),
        ),
        order(figures),
    )


def _gate_sentence(record: NanoRecord) -> str:
    """One sentence on how much damage the gate caught and how many controls passed."""
    verdicts = record.findings.verdicts
    damage, controls = ([name for name in names(kind) if name in verdicts] for kind in (DAMAGES, CONTROLS))
    caught = sum(not verdicts[name]["passed"] for name in damage)
    passed = sum(verdicts[name]["passed"] for name in controls)
    return (
        f"Looking at {record.settings['sweep']} of these people, the gate caught {caught} of {len(damage)} kinds of "
        f"known damage and let {passed} of {len(controls)} controls pass."
    )


def order(figures: dict[str, Figures]) -> str:
    """How the ablations rank here and in the paper, and which do not differ significantly from `exact`."""
    known = {name: figures[name]["facesim_arc"]["mean"] for name in PAPER_ABLATIONS if name in figures}
    here = sorted(known, key=lambda name: known[name])
    there = sorted(known, key=lambda name: PAPER_ABLATIONS[name])
    ours, theirs = (" < ".join(f"`{name}`" for name in ranked) for ranked in (here, there))
    ranking = (
        f"The order by FaceSim-Arc is the paper's: {ours}."
        if here == there
        else f"The order by FaceSim-Arc is {ours}; the paper's is {theirs}. The paper retrains without a component, "
        "here a model trained with both, each dropped now and then, is deprived of one."
    )
    alike = [f"`{name}`" for name in here if _within_chance(figures[name]["facesim_arc"].get("change"))]
    return f"{ranking} Not distinguishable from `exact` by it: {', '.join(alike)}." if alike else ranking


def _within_chance(change: dict[str, Any] | None) -> bool:
    """Whether the interval of a paired difference to `exact` contains 0."""
    return change is not None and (change["low"] is None or change["low"] <= 0 <= change["high"])


def _identity_rows(figures: dict[str, Figures]) -> list[list[str]]:
    columns = (*_IDENTITY_COLUMNS, *_QUALITY_COLUMNS)
    rows = [name for name in (TRUTH, RECONSTRUCTED, EXACT, "neither") if name in figures]
    return [[f"`{name}`", *(_cell(figures[name], metric) for metric in columns)] for name in rows]


def _attribute_rows(figures: dict[str, Figures], prefix: str, ablations: Sequence[str]) -> list[list[str]]:
    rows = []
    for metric in (metric for metric in figures[EXACT] if metric.startswith(prefix)):
        cells = [_cell(figures.get(name, {}), metric, share=True) for name in (TRUTH, RECONSTRUCTED, EXACT)]
        changes = [_percent_and_change(figures.get(name, {}), metric) for name in ablations]
        rows.append([metric.removeprefix(prefix).replace("_", " "), *cells, *changes])
    return rows


def _swapped_rows(figures: dict[str, Figures]) -> list[list[str]]:
    known = [metric.removeprefix("own.") for metric in figures[EXACT] if metric.startswith("own.")]
    return [
        [
            name.replace("_", " "),
            *(
                _cell(figures.get(variant, {}), f"{whose}.{name}", share=True)
                for variant in _SWAPPED_VARIANTS
                for whose in ("own", "other")
            ),
        ]
        for name in known
    ]


def _ablation_rows(figures: dict[str, Figures]) -> list[list[str]]:
    rows = []
    for name in (name for name in (EXACT, *names(ABLATIONS)) if name in figures):
        found, published = figures[name], PAPER_ABLATIONS.get(name)
        change = _change(found, "facesim_arc")
        cells = [_cell(found, metric) for metric in ("facesim_other", "rank1", *_QUALITY_COLUMNS)]
        rows.append(
            [f"`{name}`", _cell(found, "facesim_arc"), change, *cells, f"{published:.2f}" if published else "–"]
        )
    return rows


def _step_rows(figures: dict[str, Figures]) -> list[list[str]]:
    metrics = ("facesim_arc", "prompt_accuracy", "latents", "psnr", "denoise_seconds")
    rows = []
    for solver in SOLVERS:
        for steps in STEPS:
            found = figures.get(f"{solver}-{steps}-steps")
            if found:
                published = f"{PAPER_STEPS[steps]:.2f}" if steps in PAPER_STEPS and solver == SOLVERS[0] else "–"
                is_reference = steps == max(STEPS)
                cells = ["–" if is_reference and m in ("latents", "psnr") else _cell(found, m) for m in metrics]
                rows.append([f"{steps} `{solver}`", *cells, published])
    return rows


def _guidance_rows(figures: dict[str, Figures]) -> list[list[str]]:
    rows = [(name.removeprefix("guidance-"), figures[name]) for name in names(GUIDANCE_SWEEP) if name in figures]
    return [
        [scale, _cell(found, "facesim_arc"), _change(found, "facesim_arc"), *(_cell(found, m) for m in _PROMPT_COLUMNS)]
        for scale, found in rows
    ]


def _gate_rows(record: NanoRecord) -> list[list[str]]:
    rows = []
    for kind, variants in (("control", CONTROLS), ("damage", DAMAGES), ("probe", PROBES)):
        for name in (name for name in names(variants) if name in record.findings.verdicts):
            verdict, found = record.findings.verdicts[name], record.findings.figures[name]
            outcome = _GATE_OUTCOMES[kind][not verdict["passed"]]
            cells = [_cell(found, "latents"), _cell(found, "psnr"), _change(found, "facesim_arc")]
            rows.append([f"{kind}: {name.replace('-', ' ')}", outcome, ", ".join(verdict["failed"]) or "–", *cells])
    return rows


def _cell(figures: Figures, metric: str, *, share: bool = False) -> str:
    """A mean and its interval, such as “0.71 (0.69 to 0.73)”; shares in per cent."""
    if metric not in figures:
        return "–"
    figure = figures[metric]
    percent = share or metric in _PERCENTAGES
    scale, digits = (100, 0) if percent else (1, 4 if metric in _FOUR_DIGITS else 2 if abs(figure["mean"]) < 10 else 1)
    mean, low, high = (
        None if figure[name] is None else _number(scale * figure[name], digits) for name in ("mean", "low", "high")
    )
    return f"{mean}{' %' if percent else ''}" + ("" if low is None else f" ({low} to {high})")


def _change(figures: Figures, metric: str) -> str:
    """The paired difference to `exact`, such as “−0.036 ± 0.009”."""
    change = figures.get(metric, {}).get("change")
    return "–" if change is None else _signed(change, 1, 3)


def _percent_and_change(figures: Figures, metric: str) -> str:
    """A share and its paired difference to `exact` in percentage points, such as “61 % (−30 ± 6)”."""
    if metric not in figures:
        return "–"
    change = figures[metric].get("change")
    difference = "" if change is None else f" ({_signed(change, 100, 0)})"
    return f"{100 * figures[metric]['mean']:.0f} %{difference}"


def _signed(change: dict[str, Any], scale: float, digits: int) -> str:
    number = _number(scale * change["mean"], digits, "+")
    half = "" if change["low"] is None else f" ± {scale * (change['high'] - change['mean']):.{digits}f}"
    return number + half


def _number(value: float, digits: int, sign: str = "") -> str:
    return f"{value:{sign}.{digits}f}".replace("-", "−")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
