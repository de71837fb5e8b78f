from collections.abc import Callable
from typing import Any

import pytest

from consisid_measurement.record import Gate, Machine, Record, Row


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """Builds a record of two variants; keyword arguments replace its fields."""

    def make(**fields: Any) -> Record:
        rows = (
            Row("nano/17", "ours", "total_seconds", 0.25, 0.24, 0.27, 5),
            Row("nano/17", "ours", "face_seconds", 0.04, 0.04, 0.05, 5),
            Row("nano/17", "ours", "peak_rss_bytes", 2.0**30, 2.0**30, 2.0**30, 3),
            Row("nano/17", "diffusers-eager", "total_seconds", 1.0, 0.9, 1.1, 5),
            Row("nano/17", "diffusers-eager", "peak_rss_bytes", 3 * 2.0**29, 3 * 2.0**29, 3 * 2.0**29, 3),
        )
        whole: dict[str, Any] = {
            "suite": "pipeline",
            "gate": Gate("tests/runtime/test_parity.py", passed=True),
            "machine": Machine("cpu-2core", "A CPU", 2, 24, None),
            "versions": {"python": "3.11.9", "torch": "2.13.0+cpu"},
            "commit": "0123456789ab",
            "when": "2026-11-20T12:00:00Z",
            "ceilings": {"matmul_bf16_tflops": None, "copy_gbps": 9.5},
            "rows": rows,
        }
        return Record(**whole | fields)

    return make
