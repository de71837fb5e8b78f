import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from consisid_benchmarks.tables import compared
from consisid_measurement.plots import plot
from consisid_measurement.record import Record


def test_the_same_rows_draw_the_same_bytes(make_record: Callable[..., Record]) -> None:
    rows = compared(make_record())
    assert plot(rows) == plot(rows)
    assert plot(rows[:1]) != plot(rows)
    assert plot([]) is None


def test_bars_are_as_long_as_the_medians(make_record: Callable[..., Record]) -> None:
    picture = plot(compared(make_record()))
    assert picture is not None
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    ours, peer = (
        int((pixels == np.array(colour)).all(axis=2).sum(axis=1).max()) for colour in ((27, 120, 55), (153, 112, 171))
    )
    # The peer of the fixture takes four times as long; a whisker covers a few pixels of a bar.
    assert 3.8 < peer / ours < 4.2
