"""What looks for faults finds planted ones."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import fault_mixture
import pytest
from fault_requests import VIDEO, WAYS, Answer, Known, wrong
from fault_server import FaultServer
from fault_soak import growth, slope
from fault_threads import Later, wait_for

MINE, OTHER = (Known(name, b"", "a man", {}, name * 8) for name in ("mine", "other"))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer((VIDEO,), MINE.digest, 0.0), None),
        (Answer(("BUSY",), "", 0.0), None),
        (Answer((VIDEO,), OTHER.digest, 0.0), "mine: a video that is not its own, but that of other"),
        (Answer((VIDEO,), "0", 0.0), "mine: a video that is not its own, but that of nobody"),
        (Answer((VIDEO, VIDEO), MINE.digest, 0.0), "mine: answered 2 times: ('video', 'video')"),
        (Answer(("no answer",), "", 0.0), "mine: answered 1 times: ('no answer',)"),
        (Answer(("SERVER_DIED",), "", 0.0, text="it ended"), "mine: SERVER_DIED, it ended"),
        (Answer(("gRPC UNAVAILABLE",), "", 0.0, text="reset"), "mine: gRPC UNAVAILABLE, reset"),
    ],
)
def test_a_wrong_answer_is_found(answer: Answer, said: str | None) -> None:
    assert wrong(MINE, answer, [MINE, OTHER], ("BUSY",)) == said


def test_what_a_server_leaves_is_found(tmp_path: Path) -> None:
    leaving = 'sleep 300 & echo "{}"; touch "$TMPDIR/file"; exit 3'
    server = FaultServer(tmp_path, tmp_path, command=["sh", "-c", leaving]).start()
    assert server.process is not None and server.process.wait(10) == server.stop() == 3
    (process, file) = server.left(0.2)
    assert file == str(server.temporary / "file")
    os.kill(int(process.split()[-1]), signal.SIGKILL)
    Path(file).unlink()
    assert server.left() == []


def test_what_hangs_is_found() -> None:
    with pytest.raises(AssertionError, match=r"not done after 0\.1 s"):
        Later(lambda: time.sleep(1)).result(0.1)
    with pytest.raises(AssertionError, match=r"after 0\.1 s still waiting until it rains"):
        wait_for(lambda: False, 0.1, "it rains")


def test_growing_memory_is_found() -> None:
    parts = [{"mebibytes_per_hour": {"steady": value, "leaking": value + 20}} for value in (-1.0, 2.0, 0.5, -0.7)]
    found = growth(parts)
    assert found["steady"].low < 0 < found["steady"].high and found["leaking"].low > 5
    assert slope([0, 1, 2], [1, 3, 5]) == 2


def test_a_number_is_always_the_same_request_and_every_kind_is_drawn() -> None:
    drawn = [fault_mixture.draw(number, [MINE, OTHER]) for number in range(1000)]
    assert fault_mixture.draw(7, [MINE, OTHER]).way == drawn[7].way
    assert {one.kind for one in drawn} == {"good", fault_mixture.LEFT, *fault_mixture.BAD}
    assert {one.way for one in drawn} == {*WAYS, fault_mixture.LEFT}
