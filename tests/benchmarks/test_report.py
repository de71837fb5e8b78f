from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from consisid_benchmarks.report import block, compared, fill, spell, update
from consisid_measurement import environment
from consisid_measurement.record import Gate, Machine, Record, Row

MakeRecord = Callable[..., Record]
README = "# Title\n\n<!-- bench:pipeline -->\nold\n<!-- /bench:pipeline -->\n\nAfter.\n"


@pytest.fixture
def root(tmp_path: Path, make_record: MakeRecord) -> Path:
    (tmp_path / "README.md").write_text(README)
    make_record().write(tmp_path / "benchmarks" / "results")
    return tmp_path


def contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_report_is_written_once_and_then_stays(root: Path) -> None:
    first = update(root)
    assert first.stale == ["README.md", "benchmarks/results/cpu-2core/pipeline.png"]
    written = contents(root)
    again = update(root)
    assert (again.stale, again.problems) == ([], [])
    assert contents(root) == written


def test_what_is_outside_of_the_markers_is_kept(root: Path) -> None:
    update(root)
    text = (root / "README.md").read_text()
    assert text.startswith("# Title\n\n<!-- bench:pipeline -->\n**cpu-2core**")
    assert text.endswith("\n<!-- /bench:pipeline -->\n\nAfter.\n")
    assert "old" not in text


def test_checking_finds_what_is_out_of_date_and_changes_nothing(root: Path, make_record: MakeRecord) -> None:
    before = contents(root)
    assert update(root, check=True).stale == ["README.md", "benchmarks/results/cpu-2core/pipeline.png"]
    assert contents(root) == before
    update(root)
    assert update(root, check=True).stale == []
    make_record(commit="fedcba987654").write(root / "benchmarks" / "results")
    assert update(root, check=True).stale == ["README.md"]


def test_the_table_has_each_variant_beside_ours(make_record: MakeRecord) -> None:
    lines = block("pipeline", [make_record()]).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[0] == "| case | metric | `ours` | `diffusers-eager` | n |"
    assert table[2] == (
        "| nano/17 | `total_seconds` | 250 ms (240 ms – 270 ms) | 1 s (900 ms – 1.1 s), **4.00 × ours** | 5 |"
    )
    assert table[3] == "| nano/17 | `face_seconds` | 40 ms (40 ms – 50 ms) | – | 5 |"
    assert table[4].endswith("1.5 GiB (1.5 GiB – 1.5 GiB), **1.50 × ours** | 3 |")


def test_ratios_come_from_the_same_machine_and_case_only(make_record: MakeRecord) -> None:
    peer = Row("other case", "diffusers-eager", "total_seconds", 1.0, 1.0, 1.0, 5)
    alone = make_record(rows=(peer,), machine=Machine("h200", "A CPU", 16, 128, "NVIDIA H200"))
    text = block("pipeline", [make_record(rows=make_record().rows[:1]), alone])
    assert "× ours**" not in text
    assert text.index("**cpu-2core**") < text.index("**h200**")


def test_a_suite_says_where_it_comes_from(make_record: MakeRecord) -> None:
    text = block("pipeline", [make_record()])
    for fact in ("0123456789ab", "2026-11-20", "torch 2.13.0+cpu", "copy_gbps 9.5", "A CPU, 2 cores, 24 GiB, no GPU"):
        assert fact in text
    assert "tests/runtime/test_parity.py` passed" in text


def test_a_failed_gate_is_said_and_not_plotted(root: Path, make_record: MakeRecord) -> None:
    failed = make_record(gate=Gate("tests/x.py", passed=False), rows=())
    failed.write(root / "benchmarks" / "results")
    assert update(root).stale == ["README.md"]
    text = (root / "README.md").read_text()
    assert "no numbers, because `tests/x.py` did not pass" in text
    assert "|" not in text


def test_a_suite_that_was_not_measured_says_how_to(make_record: MakeRecord) -> None:
    assert block("kernels", [make_record()]).startswith("Not measured yet: `consisid bench kernels`")


def test_a_damaged_record_stops_the_report(root: Path) -> None:
    (root / "benchmarks" / "results" / "cpu-2core" / "kernels.json").write_text("{")
    before = contents(root)
    result = update(root)
    assert result.stale == []
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
    filled, problems = fill(text, {"pipeline": "table"})
    assert filled == text
    assert len(problems) == 1
    assert "<!-- bench:pipeline --> and <!-- /bench:pipeline -->" in problems[0]


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
def test_values_are_spelled_in_a_scale_that_suits(value: float, metric: str, text: str) -> None:
    assert spell(value, metric) == text


def test_the_committed_report_is_up_to_date() -> None:
    result = update(environment.checkout(), check=True)
    assert (result.stale, result.problems) == ([], [])
