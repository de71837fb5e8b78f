import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consisid_benchmarks.fake_gpu import budgets
from consisid_benchmarks.fake_gpu.count import Count, Work
from consisid_benchmarks.predict import goals, page, record
from consisid_benchmarks.predict.ceilings import DEVICES, LAUNCH_SECONDS, SHARES, WAIT_SECONDS
from consisid_benchmarks.predict.seconds import RUN, STEPS, TIMES, predict, resident_bytes, stage_seconds
from consisid_measurement import environment
from consisid_measurement.record import Record, Row

H200 = DEVICES["h200"]
RESULTS = environment.checkout() / "benchmarks" / "results"


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return predict(budgets.read()["full"], H200)


@pytest.mark.parametrize("device", DEVICES)
def test_the_committed_predictions_are_those_of_the_present_budgets(device: str) -> None:
    again = json.loads(json.dumps(predict(budgets.read()["full"], DEVICES[device])))
    assert record.read_all(RESULTS)[device] == again, "consisid bench predict && consisid bench report"


def test_a_kernel_takes_the_longer_of_its_arithmetic_and_its_traffic() -> None:
    heavy = Count(kernels={"triton.joint": Work(1, 10**6, 10**15)})
    wide = Count(kernels={"add.Tensor": Work(1, 10**12, 0)})
    share = SHARES["triton.joint"]
    assert stage_seconds("decode", heavy, H200).likely == pytest.approx(1e3 / (share.likely * H200.tflops_bf16))
    assert stage_seconds("decode", wide, H200).best == pytest.approx(1e3 / (SHARES["bytes"].best * H200.gbps))


def test_launches_bound_small_work_and_waits_add_to_it() -> None:
    small = Count(kernels={"add.Tensor": Work(1000, 1000, 0)}, waits={"a line": 3})
    expected = 1000 * LAUNCH_SECONDS.worst + 3 * WAIT_SECONDS.worst
    assert stage_seconds("text", small, H200).worst == pytest.approx(expected)


def test_ranges_are_ordered_and_the_steps_are_those_of_a_request(found: dict[str, Any]) -> None:
    for each in (*found["stages"].values(), found["request"]):
        assert each["seconds"]["best"] <= each["seconds"]["likely"] <= each["seconds"]["worst"]
    assert TIMES["denoise/first-step"] + TIMES["denoise/step"] == STEPS
    total = sum(stage["times"] * stage["seconds"]["likely"] for stage in found["stages"].values())
    assert found["request"]["seconds"]["likely"] == pytest.approx(total)


def test_one_process_holds_all_weights_and_the_largest_need_beside_them() -> None:
    counts = {name: Count(start_bytes=100, peak_bytes=150) for name in RUN}
    counts["decode"] = Count(start_bytes=10, peak_bytes=900)
    assert resident_bytes(counts) == 4 * 100 + 10 + 890


def test_verdicts(found: dict[str, Any]) -> None:
    goal = replace(goals.GOALS[0], limit=1e9)
    assert goals.verdict(goal, found) == "reached"
    seconds = found["request"]["seconds"]
    assert goals.verdict(replace(goal, limit=seconds["likely"]), found) == "likely reached"
    assert goals.verdict(replace(goal, limit=seconds["best"]), found).startswith("**reached at best only**; would: ")
    assert goals.verdict(replace(goal, limit=0), found).startswith("**not reached**; would: ")


def measured(make_record: Callable[..., Record], machine: str, factor: float, found: dict[str, Any]) -> Record:
    seconds = factor * found["stages"]["decode"]["seconds"]["likely"]
    rows = (Row("decode", "ours", "stage_seconds", seconds, seconds, seconds, 3),)
    return make_record(suite="stages", machine=replace(make_record().machine, name=machine), rows=rows)


def test_the_page_calls_it_predicted_and_tells_where_a_gpu_differs(
    make_record: Callable[..., Record], found: dict[str, Any]
) -> None:
    def text(machine: str, factor: float) -> str:
        return page.block({"h200": found}, [measured(make_record, machine, factor, found)])

    assert "**Predicted, not measured: h200**" in text("h200", 1.0)
    assert "more than 15 %" not in text("h200", 1.14)
    assert "- decode, `stage_seconds`: measured" in text("h200", 1.2)
    assert "- decode, `stage_seconds`: measured" in text("h200", 0.8)
    assert "more than 15 %" not in text("h100", 2.0)
    assert "Not predicted yet" in page.block({}, [])


def test_what_is_no_prediction_is_refused(tmp_path: Path) -> None:
    path = record.write(tmp_path, "h200", {"kind": "measured"})
    with pytest.raises(ValueError, match=f"{path}: not a prediction"):
        record.read_all(tmp_path)
