"""Benchmark records → tables in the pages and plots. Text between these markers comes from the records alone:

docs/benchmarks.md    <!-- bench:pipeline --> … <!-- /bench:pipeline -->                   every table of a suite
README.md             | <!-- headline:pipeline --> … <!-- /headline:pipeline --> |         a row of a table

The markers of a row are inside of it: a comment on a line of its own would end the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from consisid_benchmarks import headline, proofs, stale, tables
from consisid_benchmarks.curves import curve_plots
from consisid_benchmarks.plots import error_against_speed
from consisid_benchmarks.predict import page as predictions
from consisid_benchmarks.predict.plots import plot as predicted_plot
from consisid_benchmarks.results import Results
from consisid_benchmarks.stale import CELL
from consisid_benchmarks.tables import RESULTS, compared, plot_path, speed_plot_path
from consisid_fidelity.nano import record as nano_record
from consisid_fidelity.nano import report
from consisid_fidelity.nano.record import NanoRecord
from consisid_measurement import proof
from consisid_measurement.plots import plot
from consisid_measurement.record import Record

README = "README.md"
BENCHMARKS = "docs/benchmarks.md"
PEOPLE = "docs/fidelity.md"
"""Has every table of the experiments with people; `BENCHMARKS` has the first of them."""
SUITES = ("pipeline", "tiers", "serving", "export", "stages", "whole", "peers", "kernels")
"""Suites that `BENCHMARKS` has a place for, measured or not."""


@dataclass(frozen=True, slots=True)
class Result:
    """What `update` found.

    Attributes:
        outdated: files that were, or when only checking would be, rewritten, relative to the root.
        stale: records that no longer belong to the source files, a sentence each.
        problems: what cannot be reported.
    """

    outdated: list[str]
    stale: list[str]
    problems: list[str]


def update(root: Path, *, check: bool = False) -> Result:
    """Rewrites the pages and plots below `root` that differ from its records; with `check` changes no file.

    A file among the results that is no record is a problem, and then nothing is written.
    """
    try:
        results = Results(root)
    except ValueError as error:
        return Result([], [], [str(error)])
    outdated = []
    texts, problems = pages(root, results)
    for name, text in texts.items():
        if text != _text(root / name):
            outdated.append(name)
            if not check:
                (root / name).write_text(text)
    for path, picture in _plots(results).items():
        known = (root / path).read_bytes() if (root / path).exists() else None
        # Another version of matplotlib draws other bytes, so that a check only requires that there is a plot.
        if picture is not None and (known is None if check else known != picture):
            outdated.append(str(path))
            if not check:
                (root / path).write_bytes(picture)
    return Result(outdated, [str(each) for each in results.stale], problems)


def pages(root: Path, results: Results) -> tuple[dict[str, str], list[str]]:
    """Page → its text with the records' figures; a sentence for each that has no place."""
    texts: dict[str, str] = {}
    problems: list[str] = []
    for name, blocks in _blocks(results).items():
        texts[name], missing = fill(_text(root / name), blocks, name)
        problems += missing
    return texts, problems


def fill(text: str, blocks: Mapping[tuple[str, str], str], name: str) -> tuple[str, list[str]]:
    """The page `name` with each of `blocks`, (opening, closing marker) → content, between its markers.

    Returns the text, and a sentence for each block without markers.
    """
    problems = []
    for (opening, closing), content in blocks.items():
        if text.count(opening) != 1 or text.count(closing) != 1 or text.index(opening) > text.index(closing):
            problems.append(f"{name} needs {opening} and {closing} once each, in this order")
            continue
        before, _, rest = text.partition(opening)
        text = f"{before}{opening}{content}{closing}{rest.partition(closing)[2]}"
    return text, problems


def block(suite: str, results: Results) -> str:
    """Markdown of one suite: a section for each machine it ran on, and a line above those that are stale."""
    parts = [_marked(results, each, tables.section(each)) for each in results.records if each.suite == suite]
    return "\n\n".join(parts) or f"Not measured yet: `{stale.command(suite)}`, then `consisid bench report`."


def _blocks(results: Results) -> dict[str, dict[tuple[str, str], str]]:
    suites = dict.fromkeys((*SUITES, *(record.suite for record in results.records)))
    contents = {suite: block(suite, results) for suite in suites}
    summaries, whole = (
        "\n\n".join(_marked(results, each, write([each])) for each in results.people) or write([])
        for write in (report.summary, report.block)
    )
    names = {each.path.stem for each in results.proofs if results.stale_of(each)}
    contents |= {nano_record.SUITE: summaries, proof.FOLDER: proofs.table(results.proofs, names)}
    contents[predictions.SUITE] = predictions.block(results.predictions, results.records)
    return {
        README: {_row_markers(suite): _rows(suite, results) for suite in headline.SUITES},
        BENCHMARKS: {_markers(suite): f"\n{content}\n" for suite, content in contents.items()},
        PEOPLE: {_markers(nano_record.SUITE): f"\n{whole}\n"},
    }


def _rows(suite: str, results: Results) -> str:
    """The cells of README's rows, for each machine and case; the outermost bars belong to the markers."""
    rows = [
        _marked_row(results, each, row)
        for each in results.records
        if each.suite == suite
        for row in headline.rows(each)
    ]
    if suite == nano_record.SUITE:
        rows = [_marked_row(results, each, headline.people_row(each)) for each in results.people]
    return " |\n| ".join(rows) or f"{suite} | not measured yet | – | –"


def _marked_row(results: Results, record: Record | NanoRecord, row: str) -> str:
    if not results.stale_of(record):
        return row
    what, _, cells = row.partition(" | ")
    return f"{what} ({CELL}) | {cells}"


def _marked(results: Results, record: Record | NanoRecord, text: str) -> str:
    found = results.stale_of(record)
    return f"{found.line}\n\n{text}" if found else text


def _plots(results: Results) -> dict[Path, bytes | None]:
    pictures = {plot_path(record): plot(compared(record)) for record in results.records}
    pictures |= {speed_plot_path(record): error_against_speed(record) for record in results.records}
    for record in results.records:
        pictures |= curve_plots(record)
    pictures |= {
        predictions.plot_path(name): predicted_plot(found, name, results.records)
        for name, found in results.predictions.items()
    }
    for each in results.people:
        pictures |= {RESULTS / each.machine.name / name: drawn for name, drawn in report.plots(each).items()}
    return pictures


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _markers(suite: str) -> tuple[str, str]:
    return f"<!-- bench:{suite} -->", f"<!-- /bench:{suite} -->"


def _row_markers(suite: str) -> tuple[str, str]:
    return f"| <!-- headline:{suite} -->", f"<!-- /headline:{suite} --> |"
