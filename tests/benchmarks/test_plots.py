import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from consisid_benchmarks.plots import error_against_speed
from consisid_benchmarks.tables import alternatives, section
from consisid_measurement.record import Record, Row

METRICS = ("denoise_seconds", "latent_distance_percent", "facesim_arc_percent")


@pytest.fixture
def swept(make_record: Callable[..., Record]) -> Record:
    """Two alternatives, and a case that lacks a metric."""
    points = {"dpm-50": (4.0, 10.0, 70.0), "ddim-10": (1.0, 50.0, 80.0)}
    rows = [
        Row(case, "ours", metric, value, value, value, 1)
        for case, values in points.items()
        for metric, value in zip(METRICS, values, strict=True)
    ]
    return make_record(rows=(*rows, Row("a request", "ours", "denoise_seconds", 1.0, 1.0, 1.0, 1)))


def places(picture: bytes, colour: tuple[int, int, int], half: slice) -> tuple[float, float]:
    """Mean row and column of the pixels of a colour in one half of the picture."""
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))[:, half]
    rows, columns = np.nonzero((pixels == np.array(colour)).all(axis=2))
    return float(rows.mean()), float(columns.mean())


def test_alternatives_are_drawn_where_their_medians_are(swept: Record) -> None:
    picture = error_against_speed(swept)
    assert picture is not None and picture == error_against_speed(swept)
    (slow_row, slow_column), (fast_row, fast_column) = (
        places(picture, colour, slice(0, 520)) for colour in ((153, 112, 171), (27, 120, 55))
    )
    assert slow_column > fast_column  # more seconds, to the right
    assert slow_row > fast_row  # less error, further down


def test_only_cases_with_all_metrics_are_alternatives(swept: Record, make_record: Callable[..., Record]) -> None:
    assert list(alternatives(swept)) == ["dpm-50", "ddim-10"]
    assert "pipeline-speed.png" in section(swept)
    single = make_record(rows=swept.rows[:3])
    assert alternatives(single) == {}
    assert error_against_speed(single) is None
    assert "-speed.png" not in section(single)


def test_every_plot_of_a_page_is_a_file_of_the_repository() -> None:
    root = Path(__file__).parents[2]
    text = (root / "docs/benchmarks.md").read_text()
    linked = [part.partition(")")[0] for part in text.split("](../")[1:] if part.partition(")")[0].endswith(".png")]
    assert any("predicted/" in path for path in linked)
    assert not [path for path in linked if not (root / path).is_file()]
