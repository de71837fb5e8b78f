"""The selection of an operator's form: measured where it was measured, else predicted."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from consisid_kernels import forms

MEASURED = {
    "90": {"linear_gelu/bf16": {"triton": 0.002, "cublaslt": 0.003}},
    "100": {"linear_gelu/bf16": {"triton": 0.004, "cublaslt": 0.003}, "linear_gelu/fp16": {"triton": 0.001}},
    "103": {"linear_gelu/bf16": {"triton": 0.001, "cublaslt": 0.003}},
}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "forms.json").write_text(json.dumps(MEASURED))
    monkeypatch.setattr(forms, "FORMS", tmp_path / "forms.json")
    forms.form.cache_clear()
    yield
    forms.form.cache_clear()


@pytest.mark.parametrize(
    ("case", "architecture", "form"),
    [
        ("bf16", 90, "triton"),
        ("bf16", 100, "cublaslt"),
        ("bf16", 103, "triton"),
        ("fp16", 103, "triton"),
        ("fp16", 90, "cublaslt"),
        ("bf16", 80, "cublaslt"),
        ("bf16", 75, "cublaslt"),
    ],
)
@pytest.mark.usefixtures("table")
def test_a_form_is_the_fastest_that_was_measured_on_the_closest_gpu(case: str, architecture: int, form: str) -> None:
    assert forms.form("linear_gelu", case, architecture) == form


def test_an_unknown_operator_has_no_form() -> None:
    with pytest.raises(KeyError, match="linear_gleu"):
        forms.form("linear_gleu", "bf16", 90)


def test_the_committed_table_names_operators_with_a_prediction() -> None:
    table = json.loads(forms.FORMS.read_text())
    assert {key.partition("/")[0] for cases in table.values() for key in cases} <= forms.PREDICTED.keys()
    assert all(seconds > 0 for cases in table.values() for of in cases.values() for seconds in of.values())
