import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from consisid_benchmarks.suites import kernel_cases, kernels, tune
from consisid_benchmarks.suites.kernel_case_types import Case, Size
from consisid_benchmarks.suites.kernel_cases import cases
from consisid_kernels import forms, launch, ops, reference
from consisid_kernels.attention import joint, joint_hopper
from consisid_kernels.layers import ffn, linear
from consisid_measurement.harness import Mismatch

SMALL = Size(
    heads=2,
    text=3,
    video=20,
    face_slots=8,
    face_heads=2,
    frames=(1, 2, 4, 4, 8),
    groups=2,
    enlarge=(2, 2),
    dtype=torch.float32,
    device="cpu",
)
BOUNDS = {"matmul_bf16_tflops": 100.0, "copy_gbps": 1000.0}


@pytest.fixture(autouse=True)
def reference_for_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the kernels by the reference: these tests cover the benchmark only."""
    for name in ops.__all__:
        monkeypatch.setattr(ops, name, getattr(reference, name, None))
    for module, name, plain in (
        (joint, "joint_attention", reference.joint_attention),
        (joint_hopper, "joint_attention", reference.joint_attention),
        (ffn, "linear_gelu", reference.linear_gelu),
        (ffn, "linear_float8", reference.linear_float8),
        (linear, "cublaslt_linear_gelu", reference.linear_gelu),
        (linear, "scaled_mm", reference.linear_float8),
    ):
        monkeypatch.setattr(module, name, plain)
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr(kernels, "captured", lambda call: call)


def test_every_kernel_is_measured_with_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "seconds", lambda call, repeats: (call(), 0.004 * repeats)[1])
    rows = kernels.measure(SMALL, BOUNDS, rounds=2, progress=lambda *_: None)
    measured = {row.case.partition("/")[0] for row in rows}
    assert measured == {
        "joint_attention",
        "shared_joint_attention",
        "qkv_epilogue",
        "quantise_rows",
        "modulated_norm",
        "gated_residual",
        "gated_residual_norm",
        "face_attention",
        "linear_gelu",
        "linear_float8",
        "spatial_norm_silu",
    }
    for case in {row.case for row in rows}:
        assert len({row.variant for row in rows if row.case == case}) >= 2
    assert {row.median for row in rows if row.metric == "kernel_seconds"} == {0.004}
    (norm,) = [r for r in rows if r.case.startswith("modulated") and r.variant == "ours" and r.metric == "gbps"]
    assert norm.median == pytest.approx(2 * 2 * 23 * 128 * 4 / 0.004 / 1e9)
    (share,) = [r for r in rows if r.case == norm.case and r.variant == "ours" and r.metric == "copy_percent"]
    assert share.median == pytest.approx(100 * norm.median / 1000)


def test_flops_of_attention_are_those_of_two_matrix_products() -> None:
    case = next(cases(replace(SMALL, branches=1)))
    assert case.flops == 2 * 2 * 2 * 23 * 23 * 64


def test_a_peer_with_another_result_stops_the_suite() -> None:
    right, wrong = torch.ones(4), torch.tensor([1.0, 1.0, 1.0, 1.1])
    with pytest.raises(Mismatch, match="x: the results of peer and ours differ by"):
        kernels.usable(Case("x", {"ours": lambda: right, "peer": lambda: wrong}))


def test_a_peer_that_raises_is_skipped_and_ours_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    def refusing() -> torch.Tensor:
        raise RuntimeError("No available kernel.\nmore")

    right = torch.ones(4)
    assert list(kernels.usable(Case("x", {"ours": lambda: right, "peer": refusing}))) == ["ours"]
    assert capsys.readouterr().out == "x: peer is skipped: No available kernel.\n"
    with pytest.raises(RuntimeError):
        kernels.usable(Case("x", {"ours": lambda: right, "ours/other": refusing}))


def test_the_fastest_tile_with_the_same_result_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A fake kernel that is faster with more rows, returns a wrong result with eight, and raises with sixteen."""

    def norm(*arguments: Any) -> torch.Tensor:
        rows = launch.tile("modulated_norm", "fp32", 90)["rows"]
        if rows == 16:
            raise ValueError("out of resources: shared memory")
        return reference.modulated_norm(*arguments) * (2 if rows == 8 else 1)

    shutil.copytree(launch.TILES, tmp_path / "tiles")
    monkeypatch.setattr(launch, "TILES", tmp_path / "tiles")
    tune.write("modulated_norm", "fp32", 90, {"rows": 2, "num_warps": 4, "num_stages": 2})
    launch.tile.cache_clear()
    monkeypatch.setattr(ops, "modulated_norm", norm)
    monkeypatch.setattr(tune, "cases", lambda size: [kernel_cases._norm(size)])
    took: Any = lambda call: (call(), 1 / launch.tile("modulated_norm", "fp32", 90)["rows"])[1]  # noqa: E731
    ((table, key, tile),) = tune.tune(SMALL, 90, took, lambda text: None)
    assert (table, key, tile["rows"]) == ("modulated_norm", "fp32", 4)
    tune.write(table, key, 90, tile)
    launch.tile.cache_clear()
    assert launch.tile("modulated_norm", "fp32", 90) == tile
    assert launch.tile("modulated_norm", "fp32", 89)["rows"] == 8
    launch.tile.cache_clear()


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A table of forms in which nothing was measured."""
    (tmp_path / "forms.json").write_text("{}")
    monkeypatch.setattr(forms, "FORMS", tmp_path / "forms.json")
    forms.form.cache_clear()
    yield
    forms.form.cache_clear()


def timed_forms(slow: str) -> list[tuple[str, dict[str, float]]]:
    """What `time_forms` yields where one variant of every case takes twice as long."""
    made = []

    def cases(size: Size) -> list[Case]:
        made[:] = [kernel_cases._feed_forward(size)]
        return made

    def took(call: Any) -> float:
        return 2.0 if call is made[0].calls[slow] else 1.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune, "cases", cases)
        return list(tune.time_forms(SMALL, 90, took, lambda text: None))


@pytest.mark.parametrize(("slow", "fast"), [("ours", "cublaslt"), ("torch-cublaslt-epilogue", "triton")])
def test_every_form_is_timed_in_one_run_and_the_fastest_is_taken(table: None, slow: str, fast: str) -> None:
    assert forms.form("linear_gelu", "fp32", 90) == forms.PREDICTED["linear_gelu"]
    ((key, seconds),) = timed_forms(slow)
    assert (key, seconds.keys()) == ("linear_gelu/fp32", {"triton", "cublaslt"})
    tune.write_forms(90, key, seconds)
    forms.form.cache_clear()
    assert forms.form("linear_gelu", "fp32", 90) == fast


def test_a_form_with_another_result_stops_tuning(table: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "cublaslt_linear_gelu", lambda *tensors: 2 * reference.linear_gelu(*tensors))
    with pytest.raises(Mismatch, match="torch-cublaslt-epilogue and ours differ"):
        timed_forms("ours")


def test_a_form_that_this_gpu_lacks_is_skipped(table: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*tensors: torch.Tensor) -> torch.Tensor:
        raise ValueError("compute capability 8.0")

    monkeypatch.setattr(ffn, "linear_gelu", refuse)
    assert timed_forms("ours") == []


@pytest.mark.parametrize(("number", "timed"), [(90, True), (100, False)])
def test_the_hopper_form_is_timed_on_hopper(monkeypatch: pytest.MonkeyPatch, number: int, timed: bool) -> None:
    monkeypatch.setattr(tune, "cases", lambda size: [kernel_cases._attention(size)])
    found = dict(tune.time_forms(SMALL, number, lambda call: 1.0, lambda text: None))
    assert found == ({"joint_attention/fp32-d64": {"plain": 1.0, "hopper": 1.0}} if timed else {})


def test_what_tuning_times_has_a_prediction() -> None:
    assert tune.FORMS.keys() == forms.PREDICTED.keys()
    assert all(forms.PREDICTED[operator] in variants for operator, (_, variants) in tune.FORMS.items())
