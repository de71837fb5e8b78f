import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from consisid_measurement import harness
from consisid_measurement.harness import Arm, Mismatch, interleave, summarise
from consisid_measurement.record import Machine, Record, Row, Series

MACHINE = Machine("cpu-2core", "A CPU", 2, 24, None)
ROW = Row("case", "ours", "total_seconds", 1.0, 1.0, 1.0, 1)
CURVE = Series("case", "rss_bytes", "elapsed_seconds", ((0.0, 1.0),))
PASSING = "def test_it():\n    assert True\n"
FAILING = "def test_it():\n    assert False\n"
SKIPPING = "import pytest\n\n@pytest.mark.skip\ndef test_it():\n    assert True\n"


def counting(calls: list[str], variant: str, first: int = 0) -> Arm:
    values: Iterator[int] = iter(range(first, first + 1000))

    def run() -> Mapping[str, float]:
        calls.append(variant)
        return {"total_seconds": float(next(values))}

    return Arm(variant, run)


def test_variants_take_turns_and_the_warm_up_is_discarded() -> None:
    calls: list[str] = []
    rows = interleave("case", [counting(calls, "a"), counting(calls, "b", 100)], rounds=3, warmup=2)
    assert calls == ["a", "b"] * 5
    assert rows == [
        Row("case", "a", "total_seconds", 3.0, 2.4, 3.6, 3),
        Row("case", "b", "total_seconds", 103.0, 102.4, 103.6, 3),
    ]


def test_progress_tells_the_next_variant_and_how_far() -> None:
    told: list[tuple[str, int, int]] = []
    interleave("c", [counting([], "a"), counting([], "b")], rounds=1, progress=lambda *now: told.append(now))
    assert told == [("a", 0, 4), ("b", 1, 4), ("a", 2, 4), ("b", 3, 4)]


def test_quantiles_are_interpolated_whatever_the_order() -> None:
    row = summarise("case", "ours", "total_seconds", [5.0, 1.0, 4.0, 2.0, 3.0, 6.0])
    assert (row.p20, row.median, row.p80, row.n) == (2.0, 3.5, 5.0, 6)


def test_one_variant_may_have_two_arms_with_metrics_of_their_own() -> None:
    stage = Arm("a", lambda: {"face_seconds": 1.0})
    rows = interleave("case", [counting([], "a"), stage], rounds=1)
    assert [(row.variant, row.metric) for row in rows] == [("a", "total_seconds"), ("a", "face_seconds")]
    with pytest.raises(ValueError, match="same metric"):
        interleave("case", [stage, stage], rounds=1)


@pytest.mark.parametrize(("arms", "rounds", "warmup"), [(0, 1, 1), (1, 0, 1), (1, 1, -1)])
def test_nothing_to_measure_is_an_error(arms: int, rounds: int, warmup: int) -> None:
    with pytest.raises(ValueError, match="need an arm"):
        interleave("case", [counting([], "a")] * arms, rounds=rounds, warmup=warmup)


def run_suite(root: Path, measure: object) -> tuple[Record, str]:
    return harness.run(
        "suite",
        "test_gate.py",
        measure,  # type: ignore[arg-type]
        root=root,
        machine=MACHINE,
        packages=["numpy", "no-such-package"],
        ceilings=lambda: {"copy_gbps": 9.5},
    )


def test_a_passing_gate_lets_the_rows_through(tmp_path: Path) -> None:
    (tmp_path / "test_gate.py").write_text(PASSING)
    record, reason = run_suite(tmp_path, lambda: [CURVE, ROW])
    assert (record.gate.passed, record.rows, record.series, reason) == (True, (ROW,), (CURVE,), "")
    assert record.ceilings == {"copy_gbps": 9.5}
    assert set(record.versions) == {"python", "numpy"}
    assert record.commit == "unknown"
    assert record.sources is not None and record.sources.entry == ("tests/measurement/test_harness.py",)


@pytest.mark.parametrize("test", [FAILING, SKIPPING, "", None], ids=["fails", "skips", "empty", "missing"])
def test_without_a_passing_gate_nothing_is_measured(tmp_path: Path, test: str | None) -> None:
    if test is not None:
        (tmp_path / "test_gate.py").write_text(textwrap.dedent(test))
    measured: list[Row] = []
    record, reason = run_suite(tmp_path, lambda: measured.append(ROW))
    assert (record.gate.passed, record.rows, measured) == (False, (), [])
    assert reason == "test_gate.py does not pass"


def test_variants_that_disagree_give_no_rows(tmp_path: Path) -> None:
    (tmp_path / "test_gate.py").write_text(PASSING)

    def measure() -> Iterator[Row]:
        yield ROW
        raise Mismatch("they differ by 3 levels")

    record, reason = run_suite(tmp_path, measure)
    assert (record.gate.passed, record.rows, reason) == (False, (), "they differ by 3 levels")
