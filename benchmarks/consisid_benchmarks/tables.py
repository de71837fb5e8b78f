"""Writes a suite's records as Markdown: a section for each machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from consisid_measurement.record import OURS, Record, Row, relative, unit

RESULTS = Path("benchmarks/results")
SPEED, ERROR, QUALITY = "denoise_seconds", "latent_distance_percent", "facesim_arc_percent"
"""The metrics of `alternatives`."""
_SCALES = {
    "seconds": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "bytes": ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")),
    "gbps": ((1.0, "GB/s"),),
    "tflops": ((1.0, "TFLOP/s"), (1e-3, "GFLOP/s")),
    "per_second": ((1.0, "/s"),),
    "percent": ((1.0, "%"),),
    "ratio": ((1.0, "×"),),
    "db": ((1.0, "dB"),),
    "joules": ((1e3, "kJ"), (1.0, "J")),
    "count": ((1.0, ""),),
}


def section(record: Record) -> str:
    """Markdown of one record, for a page in docs/."""
    machine = record.machine
    hardware = f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib} GiB, {machine.gpu or 'no GPU'}"
    head = f"**{machine.name}** ({hardware}), commit `{record.commit}`, {record.when[:10]}"
    if not record.gate.passed:
        return f"{head}: no figures, because `{record.gate.test}` did not pass."
    ceilings = [f"{name} {value:g}" for name, value in record.ceilings.items() if value is not None]
    notes = [
        f"Median and 20–80 % quantiles of n interleaved runs, after `{record.gate.test}` passed.",
        f"“× {OURS}” is a variant's median divided by that of `{OURS}`.",
        *([f"This machine reaches {', '.join(ceilings)}."] if ceilings else []),
        f"{', '.join(f'{package} {version}' for package, version in record.versions.items())}.",
    ]
    link = f"![{record.suite} on {machine.name}](../{plot_path(record).as_posix()})"
    picture = [link] if compared(record) else []
    if alternatives(record):
        numbered = "points are numbered as the cases that have all three metrics"
        picture.append(
            f"![{record.suite} on {machine.name}, error and similarity against speed; {numbered}]"
            f"(../{speed_plot_path(record).as_posix()})\n\n"
            f"`{ERROR}` and `{QUALITY}` against `{SPEED}`; {numbered}."
        )
    curves = dict.fromkeys((each.metric, each.over) for each in record.series)
    picture += [
        f"![{record.suite} on {machine.name}, {metric} over {over}](../{curve_path(record, metric).as_posix()})"
        for metric, over in curves
    ]
    return "\n\n".join([head, *_tables(record.rows), *picture, " ".join(notes)])


def plot_path(record: Record) -> Path:
    """Path of a record's plot, relative to the root: beside the record."""
    return RESULTS / record.machine.name / f"{record.suite}.png"


def speed_plot_path(record: Record) -> Path:
    """Path of the plot of a record's alternatives, relative to the root."""
    return RESULTS / record.machine.name / f"{record.suite}-speed.png"


def curve_path(record: Record, metric: str) -> Path:
    """Path of the plot of a record's curves of one metric, relative to the root."""
    name = metric.removesuffix(f"_{unit(metric)}").replace("_", "-")
    return RESULTS / record.machine.name / f"{record.suite}-{name}.png"


def compared(record: Record) -> list[Row]:
    """The rows of the plot: the first metric that several variants of a case have, in all cases where several do."""
    variants: dict[tuple[str, str], set[str]] = {}
    for row in record.rows:
        variants.setdefault((row.metric, row.case), set()).add(row.variant)
    several = {key for key, found in variants.items() if len(found) > 1}
    metric = next((row.metric for row in record.rows if (row.metric, row.case) in several), None)
    return [row for row in record.rows if row.metric == metric and (metric, row.case) in several]


def alternatives(record: Record) -> dict[str, dict[str, float]]:
    """Case → metric → median, of the cases that have `SPEED`, `ERROR` and `QUALITY`; empty unless several have."""
    found: dict[str, dict[str, float]] = {}
    for row in record.rows:
        found.setdefault(row.case, {})[row.metric] = row.median
    chosen = {case: each for case, each in found.items() if {SPEED, ERROR, QUALITY} <= each.keys()}
    return chosen if len(chosen) > 1 else {}


def spell(value: float, metric: str) -> str:
    """A value with three significant digits, in the largest unit that leaves at least 1."""
    scales = _SCALES[unit(metric)]
    factor, symbol = next((scale for scale in scales if abs(value) >= scale[0]), scales[-1])
    number = f"{value / factor:.3g}" if abs(value / factor) < 1000 else f"{value / factor:,.0f}"
    return f"{number} {symbol}".rstrip()


def markdown(lines: Iterable[Sequence[str]]) -> str:
    """A table of these cells; the second line is the one of dashes."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _tables(rows: Sequence[Row]) -> list[str]:
    """One table of the cases with several variants, a column each, and one of the others, a line each.

    Of the others, cases that share no metric with those before them begin a further table.
    """
    variants: dict[str, set[str]] = {}
    for row in rows:
        variants.setdefault(row.case, set()).add(row.variant)
    side_by_side = [row for row in rows if len(variants[row.case]) > 1]
    alone = [row for row in rows if len(variants[row.case]) == 1]
    first = [_side_by_side(side_by_side)] if side_by_side else []
    return [*first, *(_alone(part) for part in _parted(alone))]


def _parted(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in runs of cases that share metrics."""
    metrics: dict[str, set[str]] = {}
    for row in rows:
        metrics.setdefault(row.case, set()).add(row.metric)
    parts: list[list[Row]] = []
    known: set[str] = set()
    for case, own in metrics.items():
        if not known & own:
            parts.append([])
            known = set()
        known |= own
        parts[-1] += [row for row in rows if row.case == case]
    return parts


def _side_by_side(rows: Sequence[Row]) -> str:
    cells = {(row.case, row.metric, row.variant): row for row in rows}
    variants = list(dict.fromkeys(variant for _, _, variant in cells))
    lines = [["case", "metric", *(f"`{variant}`" for variant in variants), "n"]]
    lines.append(["---", "---", *("---:" for _ in variants), "---:"])
    for case, metric in dict.fromkeys((case, metric) for case, metric, _ in cells):
        found = [cells.get((case, metric, variant)) for variant in variants]
        counts = sorted({row.n for row in found if row})
        lines.append([case, f"`{metric}`", *(_cell(row, rows) for row in found), "/".join(map(str, counts))])
    return markdown(lines)


def _alone(rows: Sequence[Row]) -> str:
    cells = {(row.case, row.variant, row.metric): row for row in rows}
    metrics = list(dict.fromkeys(row.metric for row in rows))
    lines = [["case", "variant", *(f"`{metric}`" for metric in metrics), "n"]]
    lines.append(["---", "---", *("---:" for _ in metrics), "---:"])
    for case, variant in dict.fromkeys((row.case, row.variant) for row in rows):
        found = [cells.get((case, variant, metric)) for metric in metrics]
        counts = sorted({row.n for row in found if row})
        lines.append([case, f"`{variant}`", *(_cell(row, rows) for row in found), "/".join(map(str, counts))])
    return markdown(lines)


def _cell(row: Row | None, rows: Sequence[Row]) -> str:
    if row is None:
        return "–"
    text = spell(row.median, row.metric)
    if row.n > 1:
        text += f" ({spell(row.p20, row.metric)} – {spell(row.p80, row.metric)})"
    ratio = relative(row, rows)
    return text if ratio is None else f"{text}, **{ratio:.2f} × {OURS}**"
