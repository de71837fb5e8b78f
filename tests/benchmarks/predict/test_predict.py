import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consisid_benchmarks.fake_gpu import budgets
from consisid_benchmarks.fake_gpu.count import Count, Work
from consisid_benchmarks.predict import command, goals, graph, page, record
from consisid_benchmarks.predict.ceilings import DEVICES, GRAPH_GAP_SECONDS, LAUNCH_SECONDS, SHARES, WAIT_SECONDS
from consisid_benchmarks.predict.seconds import RUN, STEPS, TIMES, resident_bytes, stage_seconds
from consisid_measurement import environment
from consisid_measurement.record import Record, Row

H200 = DEVICES["h200"]
RESULTS = environment.checkout() / "benchmarks" / "results"


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return record.make(budgets.read(), H200)


@pytest.mark.parametrize("device", DEVICES)
def test_the_committed_predictions_are_those_of_the_present_budgets(device: str) -> None:
    again = json.loads(json.dumps(record.make(budgets.read(), DEVICES[device])))
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


def test_in_fp8_denoising_differs_and_nothing_else(found: dict[str, Any]) -> None:
    stages, fp8 = found["stages"], found["fp8"]["stages"]
    assert [*fp8] == [f"fp8/{name}" for name in stages if name.startswith("denoise/")]
    saved = sum(
        stage["times"] * (stages[name.removeprefix("fp8/")]["seconds"]["likely"] - stage["seconds"]["likely"])
        for name, stage in fp8.items()
    )
    request, in_fp8 = (each["request"]["seconds"]["likely"] for each in (found, found["fp8"]))
    assert request - in_fp8 == pytest.approx(saved) and saved > 0
    assert found["fp8"]["request"]["resident_bytes"] < found["request"]["resident_bytes"]


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


def test_ceilings_of_a_record_make_a_second_prediction(
    make_record: Callable[..., Record], found: dict[str, Any]
) -> None:
    ceilings = {"matmul_bf16_tflops": 0.5 * SHARES["product"].best * H200.tflops_bf16, "copy_gbps": 0.45 * H200.gbps}
    on_h200 = measured(make_record, "h200", 1.6, found)
    slow = replace(on_h200, ceilings=ceilings)
    assert record.from_measured(budgets.read(), [on_h200, make_record()]) == {}
    (name, second), *none = record.from_measured(budgets.read(), [slow, make_record()]).items()
    assert (name, none) == ("h200-measured", [])
    assert second["device"]["tflops_bf16"] == pytest.approx(H200.tflops_bf16 / 2, rel=1e-3)
    assert second["device"]["gbps"] == pytest.approx(H200.gbps / 2, rel=1e-3)
    doubled = (
        second["stages"]["denoise/step"]["seconds"]["likely"] / found["stages"]["denoise/step"]["seconds"]["likely"]
    )
    assert doubled == pytest.approx(2, rel=1e-2)
    first, *_ = record.deviations(found, "h200", [slow])
    assert first.startswith("decode, `stage_seconds`: measured") and first.endswith("1.60 × predicted")
    (against_its_own,) = record.deviations(second, "h200-measured", [slow])
    assert against_its_own.endswith(" 0.80 × predicted")
    assert list(record.deviations(second, "h100-measured", [slow])) == []
    assert "**Predicted, not measured: h200-measured** (h200: " in page.block({name: second}, [slow])


def test_a_whole_request_is_compared_too(make_record: Callable[..., Record], found: dict[str, Any]) -> None:
    seconds, held = found["request"]["seconds"]["likely"], found["request"]["resident_bytes"]
    rows = (
        Row("request/50-steps", "ours", "total_seconds", 1.3 * seconds, 1.3 * seconds, 1.3 * seconds, 1),
        Row("request/50-steps", "ours", "peak_bytes", 1.1 * held, 1.1 * held, 1.1 * held, 1),
    )
    whole = make_record(suite="whole", machine=replace(make_record().machine, name="h200"), rows=rows)
    (only,) = record.deviations(found, "h200", [whole])
    assert only.startswith("request/50-steps, `total_seconds`: ") and only.endswith("1.30 × predicted")


def test_the_command_reads_the_records_beside_which_it_writes(
    make_record: Callable[..., Record], found: dict[str, Any], tmp_path: Path
) -> None:
    ceilings = {"matmul_bf16_tflops": 700.0, "copy_gbps": 4000.0}
    replace(measured(make_record, "h200", 1.0, found), ceilings=ceilings).write(tmp_path)
    command.command(out=tmp_path)
    assert set(record.read_all(tmp_path)) == {*DEVICES, "h200-measured"}


def budget_of_steps(launches: int, flops: int) -> dict[str, Any]:
    count = Count(kernels={"mm.default": Work(launches, 0, flops)})
    stages = {"denoise/step": count.to_json(), "denoise/steps": count.to_json()}
    return {case: {"stages": stages} for case in budgets.CASES}


def test_a_graph_saves_the_hosts_time_that_the_device_does_not_hide_and_the_gaps() -> None:
    hidden, bare = (graph.graphs(budget_of_steps(100, flops), H200)["full"] for flops in (10**16, 0))
    assert hidden["saved"]["likely"] == pytest.approx(100 * GRAPH_GAP_SECONDS.likely)
    assert bare["saved"]["likely"] == pytest.approx(100 * (GRAPH_GAP_SECONDS.likely + LAUNCH_SECONDS.likely))
    assert graph.sentence("full", hidden).endswith("and does not pay.")
    assert graph.sentence("full", bare).endswith("and pays.")
    steps = budgets.NANO_STEPS - 1
    assert graph.graphs(budget_of_steps(100, 0), H200)["nano"]["launches"] == 100 / steps


def test_no_graph_is_captured_since_it_pays_at_no_size_that_a_gpu_is_for(found: dict[str, Any]) -> None:
    assert "ConsisID-preview's size" in page.block({"h200": found}, [])
    assert graph.sentence("full", found["graphs"]["full"]).endswith("does not pay.")


def test_what_is_no_prediction_is_refused(tmp_path: Path) -> None:
    path = record.write(tmp_path, "h200", {"kind": "measured"})
    with pytest.raises(ValueError, match=f"{path}: not a prediction"):
        record.read_all(tmp_path)
