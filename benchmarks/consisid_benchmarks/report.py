"""Benchmark records → the documents' tables and the plots. What stands between a suite's markers comes from here alone:

<!-- bench:pipeline -->
…
<!-- /bench:pipeline -->
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from consisid_fidelity.nano import record as nano_record
from consisid_fidelity.nano import report
from consisid_measurement.plots import plot
from consisid_measurement.record import OURS, Record, Row, read, relative, unit

RESULTS = Path("benchmarks/results")
README = "README.md"
PEOPLE = "docs/fidelity.md"
"""Has every table of the experiments with people, of which README has the first."""
PROOFS = "proof"
"""Folder of records of another kind, which `make proof` writes."""
_OPENING = re.compile(r"<!-- bench:([a-z0-9._-]+) -->")
_SCALES = {
    "seconds": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "bytes": ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")),
    "gbps": ((1.0, "GB/s"),),
    "tflops": ((1.0, "TFLOP/s"), (1e-3, "GFLOP/s")),
    "per_second": ((1.0, "/s"),),
    "percent": ((1.0, "%"),),
    "ratio": ((1.0, "×"),),
    "db": ((1.0, "dB"),),
    "count": ((1.0, ""),),
}


@dataclass(frozen=True, slots=True)
class Result:
    """Files that were (when only checking: would be) rewritten, relative to the root; and what cannot be reported."""

    stale: list[str]
    problems: list[str]


def update(root: Path, *, check: bool = False) -> Result:
    """Bring `root`'s documents and plots up to date with its records; with `check` only say what is not.

    Nothing is touched when a file among the results is not a record: that is then the problem.
    """
    try:
        paths = sorted(path for path in (root / RESULTS).glob("*/*.json") if path.parent.name != PROOFS)
        # Means over people with intervals: a record of its own kind.
        people = [nano_record.read(path) for path in paths if path.stem == nano_record.SUITE]
        records = [read(path) for path in paths if path.stem != nano_record.SUITE]
    except ValueError as error:
        return Result([], [str(error)])
    text = (root / README).read_text()
    blocks = {README: {suite: block(suite, records) for suite in _suites(text, records)}, PEOPLE: {}}
    if people or nano_record.SUITE in blocks[README]:
        blocks[README][nano_record.SUITE] = report.summary(people)
        blocks[PEOPLE][nano_record.SUITE] = report.block(people)
    stale: list[str] = []
    problems: list[str] = []
    for name, contents in blocks.items():
        path = root / name
        before = path.read_text() if path.exists() else ""
        after, missing = fill(before, contents, name)
        problems += missing
        if after != before:
            stale.append(name)
            if not check:
                path.write_text(after)
    pictures = {plot_path(record): plot(compared(record)) for record in records}
    for each in people:
        pictures |= {RESULTS / each.machine.name / name: drawn for name, drawn in report.plots(each).items()}
    for path, picture in pictures.items():
        known = (root / path).read_bytes() if (root / path).exists() else None
        # Another matplotlib draws other bytes: checking asks for the plot, writing makes it.
        if picture is not None and (known is None if check else known != picture):
            stale.append(str(path))
            if not check:
                (root / path).write_bytes(picture)
    return Result(stale, problems)


def fill(text: str, blocks: Mapping[str, str], name: str = README) -> tuple[str, list[str]]:
    """A document's `text` with each suite's block between its markers; a sentence for each that found no place."""
    problems = []
    for suite, content in blocks.items():
        opening, closing = f"<!-- bench:{suite} -->", f"<!-- /bench:{suite} -->"
        if text.count(opening) != 1 or text.count(closing) != 1 or text.index(opening) > text.index(closing):
            problems.append(f"{name} needs the lines {opening} and {closing} once each, in this order")
            continue
        before, _, rest = text.partition(opening)
        text = f"{before}{opening}\n{content}\n{closing}{rest.partition(closing)[2]}"
    return text, problems


def block(suite: str, records: Iterable[Record]) -> str:
    """Markdown of one suite: a table for each machine it ran on."""
    parts = [_section(record) for record in records if record.suite == suite]
    return "\n\n".join(parts) or f"Not measured yet: `consisid bench {suite}`, then `consisid bench report`."


def plot_path(record: Record) -> Path:
    """Where a record's plot lies, relative to the root: beside the record."""
    return RESULTS / record.machine.name / f"{record.suite}.png"


def compared(record: Record) -> list[Row]:
    """The rows worth a plot: in the record's first metric that several variants of a case have, the cases that do."""
    variants: dict[tuple[str, str], set[str]] = {}
    for row in record.rows:
        variants.setdefault((row.metric, row.case), set()).add(row.variant)
    several = {key for key, found in variants.items() if len(found) > 1}
    metric = next((row.metric for row in record.rows if (row.metric, row.case) in several), None)
    return [row for row in record.rows if row.metric == metric and (metric, row.case) in several]


def spell(value: float, metric: str) -> str:
    """A value with three significant digits, in the scale of its unit that suits it."""
    scales = _SCALES[unit(metric)]
    factor, symbol = next((scale for scale in scales if abs(value) >= scale[0]), scales[-1])
    number = f"{value / factor:.3g}" if abs(value / factor) < 1000 else f"{value / factor:,.0f}"
    return f"{number} {symbol}".rstrip()


def _suites(text: str, records: Iterable[Record]) -> list[str]:
    return sorted({*_OPENING.findall(text), *(record.suite for record in records)})


def _section(record: Record) -> str:
    machine = record.machine
    hardware = f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib} GiB, {machine.gpu or 'no GPU'}"
    head = f"**{machine.name}** ({hardware}), commit `{record.commit}`, {record.when[:10]}"
    if not record.gate.passed:
        return f"{head}: no numbers, because `{record.gate.test}` did not pass."
    ceilings = [f"{name} {value:g}" for name, value in record.ceilings.items() if value is not None]
    notes = [
        f"Median and 20–80 % quantiles of n interleaved runs, after `{record.gate.test}` passed.",
        f"“× {OURS}” is a variant's median divided by that of `{OURS}`.",
        *([f"This machine reaches {', '.join(ceilings)}."] if ceilings else []),
        f"{', '.join(f'{package} {version}' for package, version in record.versions.items())}.",
    ]
    picture = [f"![{record.suite} on {machine.name}]({plot_path(record).as_posix()})"] if compared(record) else []
    return "\n\n".join([head, *_tables(record.rows), *picture, " ".join(notes)])


def _tables(rows: Sequence[Row]) -> list[str]:
    """A table of the cases that several variants ran, and one of the others, a line each."""
    variants: dict[str, set[str]] = {}
    for row in rows:
        variants.setdefault(row.case, set()).add(row.variant)
    side_by_side = [row for row in rows if len(variants[row.case]) > 1]
    alone = [row for row in rows if len(variants[row.case]) == 1]
    return [table(part) for part, table in ((side_by_side, _side_by_side), (alone, _alone)) if part]


def _side_by_side(rows: Sequence[Row]) -> str:
    cells = {(row.case, row.metric, row.variant): row for row in rows}
    variants = list(dict.fromkeys(variant for _, _, variant in cells))
    lines = [["case", "metric", *(f"`{variant}`" for variant in variants), "n"]]
    lines.append(["---", "---", *("---:" for _ in variants), "---:"])
    for case, metric in dict.fromkeys((case, metric) for case, metric, _ in cells):
        found = [cells.get((case, metric, variant)) for variant in variants]
        counts = sorted({row.n for row in found if row})
        lines.append([case, f"`{metric}`", *(_cell(row, rows) for row in found), "/".join(map(str, counts))])
    return _markdown(lines)


def _alone(rows: Sequence[Row]) -> str:
    cells = {(row.case, row.variant, row.metric): row for row in rows}
    metrics = list(dict.fromkeys(row.metric for row in rows))
    lines = [["case", "variant", *(f"`{metric}`" for metric in metrics), "n"]]
    lines.append(["---", "---", *("---:" for _ in metrics), "---:"])
    for case, variant in dict.fromkeys((row.case, row.variant) for row in rows):
        found = [cells.get((case, variant, metric)) for metric in metrics]
        counts = sorted({row.n for row in found if row})
        lines.append([case, f"`{variant}`", *(_cell(row, rows) for row in found), "/".join(map(str, counts))])
    return _markdown(lines)


def _markdown(lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(row: Row | None, rows: Sequence[Row]) -> str:
    if row is None:
        return "–"
    text = spell(row.median, row.metric)
    if row.n > 1:
        text += f" ({spell(row.p20, row.metric)} – {spell(row.p80, row.metric)})"
    ratio = relative(row, rows)
    return text if ratio is None else f"{text}, **{ratio:.2f} × {OURS}**"
