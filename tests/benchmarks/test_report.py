import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from consisid_benchmarks.report import BENCHMARKS, PEOPLE, README, fill, pages, update
from consisid_benchmarks.results import Results
from consisid_benchmarks.stale import unmarked
from consisid_benchmarks.tables import compared, section, spell
from consisid_measurement import environment
from consisid_measurement.record import Gate, Machine, Record, Row
from consisid_measurement.sources import Sources

MakeRecord = Callable[..., Record]
SUITE = "suite.py"
PLOT = "benchmarks/results/cpu-2core/pipeline.png"
ROWS = "".join(
    f"| <!-- headline:{name} --> <!-- /headline:{name} --> |\n" for name in ("pipeline", "export", "fidelity")
)
GPU = ("stages", "whole", "peers", "kernels")
PAGES = {
    README: f"# Title\n\n| what | ours | beside | ratio |\n|---|---:|---:|---:|\n{ROWS}\nAfter.\n",
    BENCHMARKS: "# Figures\n\n"
    + "\n".join(
        f"<!-- bench:{name} -->\nold\n<!-- /bench:{name} -->\n"
        for name in ("fidelity", "tiers", "serving", "pipeline", "export", *GPU, "predict", "proof")
    )
    + "\nAfter.\n",
    PEOPLE: "<!-- bench:fidelity --><!-- /bench:fidelity -->\n",
}


@pytest.fixture
def root(tmp_path: Path, make_record: MakeRecord) -> Path:
    """A repository with one record, which belongs to its suite's present file."""
    (tmp_path / "docs").mkdir()
    for name, text in PAGES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / SUITE).write_text("1\n")
    write(tmp_path, make_record())
    return tmp_path


def write(root: Path, record: Record) -> None:
    replace(record, sources=Sources.of(root, [SUITE])).write(root / "benchmarks" / "results")


def contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def page(root: Path, name: str = BENCHMARKS) -> str:
    return (root / name).read_text()


def row(root: Path, start: str) -> str:
    (line,) = [line for line in page(root, README).splitlines() if line.startswith(f"| <!-- headline:{start} -->")]
    return line


def test_the_pages_are_written_once_and_then_stay(root: Path) -> None:
    first = update(root)
    assert (first.outdated, first.stale, first.problems) == ([README, BENCHMARKS, PEOPLE, PLOT], [], [])
    written = contents(root)
    again = update(root)
    assert (again.outdated, again.stale, again.problems) == ([], [], [])
    assert contents(root) == written


def test_what_is_outside_of_the_markers_is_kept(root: Path) -> None:
    update(root)
    text = page(root)
    assert text.startswith("# Figures\n\n<!-- bench:fidelity -->\n")
    assert "<!-- bench:pipeline -->\n**cpu-2core**" in text
    assert text.endswith("\n<!-- /bench:proof -->\n\nAfter.\n")
    assert "old" not in text


def test_checking_finds_outdated_files_and_changes_none(root: Path, make_record: MakeRecord) -> None:
    before = contents(root)
    assert update(root, check=True).outdated == [README, BENCHMARKS, PEOPLE, PLOT]
    assert contents(root) == before
    update(root)
    assert update(root, check=True).outdated == []
    write(root, make_record(commit="fedcba987654"))
    assert update(root, check=True).outdated == [BENCHMARKS]


def test_a_changed_file_of_the_suite_makes_its_record_stale(root: Path, make_record: MakeRecord) -> None:
    update(root)
    current = {name: page(root, name) for name in PAGES}
    assert "tale" not in "".join(current.values())
    (root / SUITE).write_text("2\n")
    (stale,) = update(root, check=True).stale
    assert stale == (
        "benchmarks/results/cpu-2core/pipeline.json: measured at commit `0123456789ab`; files of the suite have "
        "changed since; measure again with `consisid bench pipeline`"
    )
    assert update(root).outdated == [README, BENCHMARKS]
    line = "**Stale:** measured at commit `0123456789ab`; files of the suite have changed since.\n\n**cpu-2core**"
    assert page(root).count(line) == 1
    assert "(**stale**) |" in row(root, "pipeline")
    assert update(root, check=True).outdated == [] and len(update(root, check=True).stale) == 1
    assert {name: unmarked(page(root, name)) for name in PAGES} == current
    write(root, make_record())
    update(root)
    assert {name: page(root, name) for name in PAGES} == current


def test_a_record_without_a_digest_is_stale(root: Path, make_record: MakeRecord) -> None:
    make_record(suite="export").write(root / "benchmarks" / "results")
    (stale,) = update(root).stale
    assert "export.json: measured at commit `0123456789ab`; the record has no digest of the suite's files" in stale
    assert stale.endswith("`consisid bench export --full FOLDER`")


def test_proofs_have_a_row_each_and_are_marked_in_the_same_way(root: Path) -> None:
    folder = root / "benchmarks" / "results" / "proof"
    folder.mkdir()
    trials = {
        "0": {"test": "test_a_kill_leaves_no_bundle", "when": "2026-11-20T14:23:36Z"},
        "1": {"test": "test_a_kill_leaves_no_bundle", "when": "2026-11-21T14:23:36Z"},
    }
    sources = Sources.of(root, [SUITE])
    known = {"sources": {"entry": [SUITE], "digest": sources.digest}, "commit": "abc", "trials": trials}
    (folder / "killed.json").write_text(json.dumps(known))
    (folder / "older.json").write_text(json.dumps({"trials": {"0": {"when": "2026-11-20T14:23:36Z"}}}))
    (stale,) = update(root).stale
    assert stale.startswith("benchmarks/results/proof/older.json: measured at commit `unknown`")
    days = "2026-11-20 to 2026-11-21"
    assert f"| killed | a kill leaves no bundle | 2 | `abc` | {days} | current |" in page(root)
    assert "| older | – | 1 | – | 2026-11-20 | **stale** |" in page(root)
    (root / SUITE).write_text("2\n")
    again = (
        "measured at commit `abc`; files of the suite have changed since; measure again with `pytest -m proof suite.py`"
    )
    assert f"benchmarks/results/proof/killed.json: {again}" in update(root).stale
    assert f"| killed | a kill leaves no bundle | 2 | `abc` | {days} | **stale** |" in page(root)
    assert f"| {days} | current |" in unmarked(page(root))


def test_readme_has_a_row_of_cells_for_each_benchmark(root: Path) -> None:
    update(root)
    assert row(root, "pipeline") == (
        "| <!-- headline:pipeline -->pipeline, seconds a video (untrained, 17; CPU, 2 cores) | 250 ms | "
        "diffusers-eager 1 s | 4.0 ×<!-- /headline:pipeline --> |"
    )
    assert row(root, "export") == (
        "| <!-- headline:export -->export | not measured yet | – | –<!-- /headline:export --> |"
    )


def test_each_case_with_a_peer_has_a_row(root: Path, make_record: MakeRecord) -> None:
    record = make_record()
    larger = tuple(
        replace(each, case="mid/17", median=3 * each.median, p20=3 * each.p20, p80=3 * each.p80) for each in record.rows
    )
    write(root, replace(record, rows=(*record.rows, *larger)))
    update(root)
    text = page(root, README)
    assert row(root, "pipeline").endswith("(untrained, 17; CPU, 2 cores) | 250 ms | diffusers-eager 1 s | 4.0 × |")
    assert "\n| pipeline, seconds a video (mid, 17; CPU, 2 cores) | 750 ms | diffusers-eager 3 s | 4.0 ×" in text


def test_a_row_names_every_peer_that_was_measured(root: Path, make_record: MakeRecord) -> None:
    record = make_record()
    strongest = Row("untrained/17", "diffusers-compiled/memory-kept", "total_seconds", 0.5, 0.5, 0.5, 3)
    write(root, replace(record, rows=(*record.rows, strongest)))
    update(root)
    assert row(root, "pipeline").endswith(
        "| diffusers-eager 1 s; diffusers-compiled/memory-kept 500 ms | 4.0 ×; 2.0 ×<!-- /headline:pipeline --> |"
    )


def test_each_machine_has_a_row_and_a_failed_gate_none(root: Path, make_record: MakeRecord) -> None:
    write(root, make_record(machine=Machine("h200", "A CPU", 16, 128, "NVIDIA H200")))
    update(root)
    assert row(root, "pipeline").endswith("4.0 × |")
    assert "\n| pipeline, seconds a video (untrained, 17; NVIDIA H200) | 250 ms |" in page(root, README)
    write(root, make_record(gate=Gate("tests/x.py", passed=False), rows=()))
    update(root)
    assert "H200" in row(root, "pipeline")


def test_the_row_of_the_people_is_similarity_beside_its_ceiling(root: Path) -> None:
    committed = environment.checkout() / "benchmarks" / "results" / "cpu-2core" / "fidelity.json"
    (root / "benchmarks" / "results" / "cpu-2core" / "fidelity.json").write_bytes(committed.read_bytes())
    figures = json.loads(committed.read_bytes())["findings"]["figures"]
    ours, ceiling = (figures[name]["facesim_arc"]["mean"] for name in ("exact", "vae-reconstruction"))
    update(root)
    _, what, mean, beside, share, _ = (cell.strip() for cell in row(root, "fidelity").split("|"))
    assert "fidelity, FaceSim-Arc (consisid-nano, 100 held-out people) (**stale**)" in what
    assert mean.startswith(f"{ours:.2f} (") and beside == f"vae-reconstruction {ceiling:.2f}"
    assert share.startswith(f"{100 * ours / ceiling:.0f} % of it")
    assert "**Stale:** measured at commit" in page(root, PEOPLE)


def test_the_table_has_each_variant_beside_ours(make_record: MakeRecord) -> None:
    lines = section(make_record()).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[0] == "| case | metric | `ours` | `diffusers-eager` | n |"
    assert table[2] == (
        "| untrained/17 | `total_seconds` | 250 ms (240 ms – 270 ms) | 1 s (900 ms – 1.1 s), **4.00 × ours** | 5 |"
    )
    assert table[3] == "| untrained/17 | `face_seconds` | 40 ms (40 ms – 50 ms) | – | 5 |"
    assert table[4].endswith("1.5 GiB (1.5 GiB – 1.5 GiB), **1.50 × ours** | 3 |")


def test_ratios_come_from_the_same_case_only(make_record: MakeRecord) -> None:
    peer = Row("other case", "diffusers-eager", "total_seconds", 1.0, 1.0, 1.0, 5)
    alone = make_record(rows=(peer,), machine=Machine("h200", "A CPU", 16, 128, "NVIDIA H200"))
    assert "× ours**" not in section(alone) + section(make_record(rows=make_record().rows[:1]))


def test_a_section_names_machine_commit_and_versions(make_record: MakeRecord) -> None:
    text = section(make_record())
    for fact in ("0123456789ab", "2026-11-20", "torch 2.13.0+cpu", "copy_gbps 9.5", "A CPU, 2 cores, 24 GiB, no GPU"):
        assert fact in text
    assert "tests/runtime/test_parity.py` passed" in text


def test_a_failed_gate_is_reported_and_not_plotted(root: Path, make_record: MakeRecord) -> None:
    write(root, make_record(gate=Gate("tests/x.py", passed=False), rows=()))
    assert PLOT not in update(root).outdated
    assert "no figures, because `tests/x.py` did not pass" in page(root)


def test_a_suite_that_was_not_measured_names_its_command(root: Path) -> None:
    update(root)
    assert "<!-- bench:kernels -->\nNot measured yet: `consisid bench kernels`" in page(root)


def test_a_damaged_record_stops_the_report(root: Path) -> None:
    (root / "benchmarks" / "results" / "cpu-2core" / "kernels.json").write_text("{")
    before = contents(root)
    result = update(root)
    assert result.outdated == []
    assert "kernels.json" in result.problems[0]
    assert contents(root) == before


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        "<!-- bench:pipeline -->",
        "<!-- /bench:pipeline --><!-- bench:pipeline -->",
        "<!-- bench:pipeline --><!-- /bench:pipeline -->" * 2,
    ],
    ids=["none", "unclosed", "reversed", "twice"],
)
def test_markers_that_cannot_be_filled_are_a_problem(text: str) -> None:
    filled, problems = fill(text, {("<!-- bench:pipeline -->", "<!-- /bench:pipeline -->"): "table"}, "page.md")
    assert filled == text
    assert len(problems) == 1
    assert "page.md needs <!-- bench:pipeline --> and <!-- /bench:pipeline -->" in problems[0]


def test_the_plot_takes_the_first_metric_that_can_be_compared(make_record: MakeRecord) -> None:
    record = make_record()
    turned = replace(record, rows=record.rows[1:])
    assert [(row.variant, row.metric) for row in compared(record)] == [
        ("ours", "total_seconds"),
        ("diffusers-eager", "total_seconds"),
    ]
    assert {row.metric for row in compared(turned)} == {"peak_rss_bytes"}
    assert compared(replace(record, rows=record.rows[:3])) == []


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (12.3456, "total_seconds", "12.3 s"),
        (4321.9, "total_seconds", "4,322 s"),
        (0.01234, "step_seconds", "12.3 ms"),
        (2.5e-5, "step_seconds", "25 µs"),
        (0.0, "step_seconds", "0 µs"),
        (3 * 2**28, "peak_rss_bytes", "768 MiB"),
        (0.5, "matmul_tflops", "500 GFLOP/s"),
        (42.0, "faces_count", "42"),
    ],
)
def test_values_are_written_in_a_unit_that_fits(value: float, metric: str, text: str) -> None:
    assert spell(value, metric) == text


def test_the_committed_pages_have_the_committed_figures() -> None:
    """Apart from the marks of stale records: those are for `make release-check`."""
    root = environment.checkout()
    texts, problems = pages(root, Results(root))
    assert problems == []
    assert [name for name, text in texts.items() if unmarked(text) != unmarked((root / name).read_text())] == []
