from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from consisid_benchmarks.suites.serving import unloaded
from consisid_benchmarks.suites.serving.arrivals import Kind
from consisid_benchmarks.suites.serving.figures import latency_curve, load_rows, percentile
from consisid_benchmarks.suites.serving.load import Sample
from consisid_benchmarks.suites.serving.memory import MemoryWatch
from consisid_benchmarks.suites.serving.parts import Parts
from consisid_benchmarks.suites.serving.processes import Served
from consisid_benchmarks.tables import section
from consisid_measurement.record import Record, Row, Series
from consisid_runtime.errors import ServerError

SAMPLE = Sample(Kind(17), planned=1.0, first=1.25, ended=2.0, code="OK", steps=6, steps_wanted=6)
REFUSED = replace(SAMPLE, first=None, ended=1.01, code="BUSY", steps=0)


def figures(rows: list[Row]) -> dict[str, float]:
    return {row.metric: row.median for row in rows}


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (0, 50, 90, 99, 100)] == [1, 50, 90, 99, 100]
    assert percentile([1.0, 2.0, 3.0], 50) == 2
    assert percentile([1.0, 2.0, 3.0], 99) == 3
    assert percentile([4.0], 1) == 4
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_a_load_has_latencies_of_videos_and_counts_every_error() -> None:
    slow = replace(SAMPLE, ended=5.0, steps=3)
    found = figures(load_rows("load", [SAMPLE, slow, REFUSED, replace(REFUSED, code="NO_FACE")]))
    assert found == {
        "requests_count": 4,
        "busy_count": 1,
        "no_face_count": 1,
        "latency_p50_seconds": 1,
        "latency_p90_seconds": 4,
        "latency_p99_seconds": 4,
        "videos_per_second": pytest.approx(2 / 5),
        "steps_told_percent": pytest.approx(75),
        "first_event_p50_seconds": 0.25,
        "first_event_p99_seconds": 0.25,
    }


def test_a_load_without_a_video_has_counts_alone() -> None:
    assert figures(load_rows("load", [REFUSED])) == {"requests_count": 1, "busy_count": 1}


def test_the_curve_of_a_load_ends_at_the_share_that_had_a_video() -> None:
    curve = latency_curve("load", [replace(SAMPLE, ended=5.0), SAMPLE, REFUSED, REFUSED])
    assert curve.points == ((1.0, 25.0), (4.0, 50.0))


def test_figures_of_a_load_become_a_table_and_two_plots(make_record: Callable[..., Record]) -> None:
    memory = Series("load", "server_rss_bytes", "elapsed_seconds", ((0.0, 2.0**30), (0.5, 2.0**31)))
    curve = latency_curve("load", [SAMPLE])
    idle = [Row("idle", "ours", "core_percent", 0.25, 0.25, 0.25, 1)]
    record = make_record(suite="serving", rows=(*load_rows("load", [SAMPLE]), *idle), series=(curve, memory))
    text = section(record)
    assert "| case | variant | `requests_count` | `busy_count` | `latency_p50_seconds` |" in text
    assert "| load | `ours` | 1 | 0 | 1 s | 1 s | 1 s | 0.5 /s | 100 % | 250 ms | 250 ms | 1 |" in text
    assert "| idle | `ours` | 0.25 % | 1 |" in text
    assert "(../benchmarks/results/cpu-2core/serving-requests.png)" in text
    assert "(../benchmarks/results/cpu-2core/serving-server-rss.png)" in text


def test_a_run_that_was_interrupted_goes_on_behind_its_last_part(tmp_path: Path) -> None:
    measured: list[str] = []
    figures: list[Row | Series] = [
        Row("case", "ours", "a_seconds", 1.0, 0.5, 2.0, 3),
        Series("case", "a_percent", "b_seconds", ((1.0, 2.0), (3.0, 4.0))),
    ]

    def work() -> list[Row | Series]:
        measured.append("once")
        return figures

    folder = tmp_path / "parts"
    assert Parts(folder, "abc").run("load", work) == figures
    assert Parts(folder, "abc").run("load", work) == figures
    assert len(measured) == 1
    assert Parts(folder, "abc").run("other", work) == figures
    assert Parts(folder, "def").run("load", work) == figures
    assert len(measured) == 3, "in another setting"
    Parts(folder, "def").forget()
    assert Parts(folder, "def").run("load", work) == figures
    assert len(measured) == 4


def test_memory_is_watched_for_as_long_as_the_load_lasts() -> None:
    sizes = iter([1.0, 3.0, 2.0])
    served = cast(Served, SimpleNamespace(began=0.0, rss_bytes=lambda: next(sizes, 2.0)))
    with MemoryWatch(served) as watch:
        pass
    most, curve = watch.figures("load")
    assert isinstance(most, Row) and isinstance(curve, Series)
    assert (most.metric, most.median) == ("peak_rss_bytes", 1.0)
    assert [size for _, size in curve.points] == [1.0]


def test_releases_are_read_from_the_doors_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "metrics"
    page.write_text(
        'consisid_release_seconds_bucket{le="0.1"} 1.0\n'
        "consisid_release_seconds_count 3.0\nconsisid_release_seconds_sum 0.75\n"
    )
    assert unloaded._next_release(page.as_uri(), (2.0, 0.5)) == (3.0, 0.75)
    monkeypatch.setattr(unloaded, "_LONGEST", 0.2)
    with pytest.raises(ServerError, match=r"did not end within 0\.2 s"):
        unloaded._next_release(page.as_uri(), (3.0, 0.75))


def test_an_idle_server_takes_its_share_of_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([10.0, 10.05])
    door: Any = SimpleNamespace(cpu_seconds=lambda: next(seconds), rss_bytes=lambda: 5)
    monkeypatch.setattr(unloaded, "_SETTLE", 0.0)
    share, memory = unloaded.idle(door, 0.1)
    assert share.metric == "core_percent" and share.median == pytest.approx(50, abs=10)
    assert (memory.metric, memory.median) == ("rss_bytes", 5)
