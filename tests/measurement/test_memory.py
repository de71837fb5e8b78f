import sys
from functools import partial

import pytest

from consisid_measurement.memory import peak_rss_bytes

MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_only_the_work_itself_is_counted() -> None:
    # The parent holds more than the child may show.
    held = bytes(bytearray(b"x") * (256 * MIB))
    idle, busy = peak_rss_bytes(int), peak_rss_bytes(partial(bytearray, 128 * MIB))
    assert idle is not None
    assert busy is not None
    assert 100 * MIB < busy - idle < 160 * MIB
    assert idle < len(held)
