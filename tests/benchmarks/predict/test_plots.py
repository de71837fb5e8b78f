import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from consisid_benchmarks.predict.plots import plot
from consisid_measurement.record import Machine, Record, Row

PREDICTED, MEASURED = (153, 112, 171), (27, 120, 55)


@pytest.fixture
def found() -> dict[str, Any]:
    """A prediction in which a stage runs once for 1 s, and another twice for 2 s each."""

    def stage(times: int, seconds: float) -> dict[str, Any]:
        return {
            "times": times,
            "seconds": {"best": seconds, "likely": seconds, "worst": seconds},
            "flops": 1e14,
            "bytes": 1e12,
        }

    return {
        "device": {"tflops_bf16": 1000.0, "gbps": 4000.0},
        "stages": {"text": stage(1, 1.0), "decode": stage(2, 2.0)},
    }


def widths(picture: bytes, colour: tuple[int, int, int]) -> list[int]:
    """Of the bars of a colour, from above: the widest runs of its pixels in the left half, without single points."""
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))[:, :540]
    found = (pixels == np.array(colour)).all(axis=2).sum(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], found > 40, [0]]).astype(int)))
    return [int(found[begin:end].max()) for begin, end in edges.reshape(-1, 2) if end - begin > 20]


def test_a_bar_is_as_long_as_all_runs_of_its_stage(found: dict[str, Any]) -> None:
    picture = plot(found, "h200", [])
    assert picture == plot(found, "h200", [])
    text, decode = widths(picture, PREDICTED)
    assert 3.8 < decode / text < 4.2
    assert not widths(picture, MEASURED)


def test_the_machine_s_own_record_is_drawn_beside_it(found: dict[str, Any], make_record: Callable[..., Record]) -> None:
    rows = tuple(Row(name, "ours", "stage_seconds", 2.0, 2.0, 2.0, 3) for name in ("text", "decode", "decode/load"))
    record = make_record(suite="stages", machine=Machine("h200", "A CPU", 2, 24, "An H200"), rows=rows)
    text, decode = widths(plot(found, "h200", [record]), MEASURED)
    assert 1.9 < decode / text < 2.1
    assert widths(plot(found, "h200-measured", [record]), MEASURED)
    assert not widths(plot(found, "h100", [record]), MEASURED)
