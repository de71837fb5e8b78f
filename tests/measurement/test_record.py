import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from consisid_measurement.record import Gate, Machine, Record, Row, Series, read, unit
from consisid_measurement.sources import Sources

MakeRecord = Callable[..., Record]


def test_what_is_written_is_read_back(make_record: MakeRecord, tmp_path: Path) -> None:
    record = make_record(sources=Sources(("suite.py",), "0" * 64))
    path = record.write(tmp_path)
    assert path == tmp_path / "cpu-2core" / "pipeline.json"
    assert read(path) == record
    assert os.listdir(path.parent) == ["pipeline.json"]


def test_the_file_has_the_documented_form(make_record: MakeRecord, tmp_path: Path) -> None:
    data = json.loads(make_record().write(tmp_path).read_bytes())
    fields = ["suite", "gate", "machine", "versions", "commit", "when", "ceilings", "sources", "rows", "series"]
    assert list(data) == fields
    assert data["gate"] == {"test": "tests/runtime/test_parity.py", "passed": True}
    assert data["machine"] == {"name": "cpu-2core", "cpu": "A CPU", "cores": 2, "memory_gib": 24, "gpu": None}
    assert list(data["rows"][0]) == ["case", "variant", "metric", "median", "p20", "p80", "n"]


def test_curves_are_read_back(make_record: MakeRecord, tmp_path: Path) -> None:
    curve = Series("case", "server_rss_bytes", "elapsed_seconds", ((0.0, 1.5), (2.0, 3.0)))
    record = make_record(series=(curve,))
    assert record.to_json() == json.loads(json.dumps(record.to_json()))
    assert read(record.write(tmp_path)).series == (curve,)


@pytest.mark.parametrize("points", [(), ((0.0, float("nan")),), ((1.0,),)], ids=["none", "nan", "one number"])
def test_what_is_no_curve_is_refused(points: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match="a curve needs points of two finite numbers"):
        Series("case", "a_bytes", "b_seconds", points)
    with pytest.raises(ValueError, match="must end in its unit"):
        Series("case", "a_bytes", "time", ((0.0, 1.0),))


def test_a_record_from_before_digests_and_curves_is_read(make_record: MakeRecord, tmp_path: Path) -> None:
    path = make_record().write(tmp_path)
    data = json.loads(path.read_bytes())
    del data["sources"], data["series"]
    path.write_text(json.dumps(data))
    assert (read(path).sources, read(path).series) == (None, ())


def test_a_failed_write_leaves_the_old_record(make_record: MakeRecord, tmp_path: Path) -> None:
    old = make_record()
    path = old.write(tmp_path)
    with pytest.raises(TypeError):
        replace(old, ceilings={"copy_gbps": object()}).write(tmp_path)  # type: ignore[dict-item]
    assert read(path) == old
    assert os.listdir(path.parent) == ["pipeline.json"]


def test_a_failed_gate_allows_no_rows(make_record: MakeRecord) -> None:
    failed = Gate("tests/x.py", passed=False)
    with pytest.raises(ValueError, match=r"tests/x\.py failed"):
        make_record(gate=failed)
    assert make_record(gate=failed, rows=()).rows == ()


@pytest.mark.parametrize("metric", ["total", "seconds_total", "speed", "megaseconds"])
def test_a_metric_must_end_in_its_unit(metric: str) -> None:
    with pytest.raises(ValueError, match="must end in its unit"):
        Row("case", "ours", metric, 1.0, 1.0, 1.0, 1)


def test_units_are_found_at_the_end() -> None:
    found = [unit(metric) for metric in ("seconds", "peak_rss_bytes", "frames_per_second")]
    assert found == ["seconds", "bytes", "per_second"]


@pytest.mark.parametrize(
    ("p20", "median", "p80", "n"), [(2.0, 1.0, 3.0, 5), (1.0, 1.0, float("nan"), 5), (1.0, 1.0, 1.0, 0)]
)
def test_an_impossible_row_is_refused(p20: float, median: float, p80: float, n: int) -> None:
    with pytest.raises(ValueError, match="seconds"):
        Row("case", "ours", "total_seconds", median, p20, p80, n)


@pytest.mark.parametrize("name", ["", "../up", "Host.Example", "a/b", ".hidden"])
def test_a_machine_name_is_a_plain_folder(name: str) -> None:
    with pytest.raises(ValueError, match="machine must be"):
        Machine(name, "A CPU", 2, 24, None)


def test_a_file_that_is_no_record_is_named(make_record: MakeRecord, tmp_path: Path) -> None:
    path = make_record().write(tmp_path)
    data = json.loads(path.read_bytes())
    for damaged in ({**data, "surplus": 1}, {key: data[key] for key in data if key != "gate"}, {**data, "rows": [{}]}):
        path.write_text(json.dumps(damaged))
        with pytest.raises(ValueError, match=r"pipeline\.json: not a benchmark record"):
            read(path)


def test_a_record_must_lie_in_its_own_place(make_record: MakeRecord, tmp_path: Path) -> None:
    path = make_record().write(tmp_path)
    moved = path.rename(path.with_name("kernels.json"))
    with pytest.raises(ValueError, match=r"kernels\.json holds suite 'pipeline'"):
        read(moved)
