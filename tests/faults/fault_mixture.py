"""A seeded stream of good and bad requests over every way, some urgent, some whose callers leave."""

from __future__ import annotations

import hashlib
import io
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import grpc
from fault_requests import VIDEO, WAYS, Answer, Known, message, stub, wrong
from fault_server import FaultServer
from fault_threads import Later, wait_for
from PIL import Image

CALLERS = 6
"""At once; the queue has room for all of them."""
LEFT = "left"

Change = Callable[[Known], Known]


def _blank() -> bytes:
    Image.new("RGB", (256, 256), "white").save(out := io.BytesIO(), "PNG")
    return out.getvalue()


BAD: dict[str, tuple[Change, frozenset[str]]] = {
    name: (change, frozenset(ends))
    for name, change, *ends in (
        ("no face", lambda known: replace(known, image=_blank()), "NO_FACE"),
        ("no image", lambda known: replace(known, image=b"text"), "IMAGE_UNREADABLE"),
        ("half an image", lambda known: replace(known, image=known.image[: len(known.image) // 2]), "IMAGE_UNREADABLE"),
        ("nothing", lambda known: replace(known, image=b""), "IMAGE_UNREADABLE"),
        ("no prompt", lambda known: replace(known, prompt=" "), "EMPTY_PROMPT"),
        ("a long prompt", lambda known: replace(known, prompt="a" * 2**18), "INVALID_OPTION"),
        ("an unknown option", lambda known: known.with_(stepz=3), "INVALID_OPTION"),
        ("too many steps", lambda known: known.with_(steps=10**6), "INVALID_OPTION"),
        ("frames that are none", lambda known: known.with_(frames="many"), "INVALID_OPTION"),
        ("a size that is none", lambda known: known.with_(height=17), "INVALID_OPTION"),
        ("the door's own parameter", lambda known: known.with_(consisid_ticket="a" * 32), "INVALID_OPTION"),
        ("an unknown tier", lambda known: known.with_(tier="fastest"), "INVALID_OPTION"),
        ("a millisecond", lambda known: known.with_(timeout=1000), "SERVER_TIMEOUT", "BUSY"),
        ("half a second for minutes", lambda known: known.with_(steps=900, timeout=500_000), "SERVER_TIMEOUT", "BUSY"),
    )
}
"""Name → what makes a known request bad, and how it may end."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One request of the stream.

    Attributes:
        way: of `WAYS`, or `LEFT` for a caller who leaves after `patience` seconds.
        allowed: the codes with which it may end; none for one that is to be a video.
    """

    kind: str
    way: str
    asked: Known
    allowed: frozenset[str]
    patience: float = 0.0


def draw(number: int, known: Sequence[Known]) -> Drawn:
    """The request of a number, which does not depend on others."""
    chance = Random(f"mixture {number}")
    asked, way = chance.choice(known), chance.choice(list(WAYS))
    if chance.random() < 0.15:
        asked = asked.urgent()
    kind = chance.random()
    if kind < 0.5:
        return Drawn("good", way, asked, frozenset())
    if kind < 0.6:
        return Drawn(LEFT, LEFT, asked, frozenset({LEFT}), chance.uniform(0.0, 0.5))
    name = chance.choice(list(BAD))
    change, ends = BAD[name]
    return Drawn(name, way, change(asked), ends)


class Mixture:
    """Sends requests, and keeps what should not be.

    Args:
        name: begins the identifiers of its requests.

    Attributes:
        ends: how they ended → requests.
        findings: number → what should not be.
    """

    def __init__(self, server: FaultServer, known: Sequence[Known], name: str) -> None:
        self._server, self._known, self._name = server, known, name
        self._lock = threading.Lock()
        self._ended: dict[str, str] = {}
        self.findings: dict[int, str] = {}

    @property
    def ends(self) -> Counter[str]:
        return Counter(self._ended.values())

    def run(self, numbers: Iterable[int], seconds: float = math.inf) -> None:
        """Several at once; none begins later."""
        left, until = iter(numbers), time.monotonic() + seconds

        def work() -> None:
            while time.monotonic() < until:
                with self._lock:
                    number = next(left, None)
                if number is None:
                    return
                self._one(number)

        for caller in [Later(work) for _ in range(CALLERS)]:
            caller.result(math.inf)

    def compare_with_log(self) -> None:
        """The door has a line for each request that it read, and it says how that one ended for its caller."""

        def said() -> dict[str, list[str]]:
            found: dict[str, list[str]] = {}
            for line in self._server.lines():
                found.setdefault(line["request"], []).append(line["outcome"])
            return {name: found.get(name, []) for name, end in self._ended.items() if end == VIDEO or name in found}

        wait_for(lambda: all(said().values()), 10, "the door has written every line")
        for name, outcomes in said().items():
            end = self._ended[name]
            assert outcomes == ["OK" if end == VIDEO else end] or (end == LEFT and len(outcomes) == 1), (name, outcomes)

    def _one(self, number: int) -> None:
        drawn, identifier = draw(number, self._known), f"{self._name}-{number}"
        if drawn.way == LEFT:
            answer = _leave(self._server, drawn, identifier)
        else:
            answer = WAYS[drawn.way](self._server, drawn.asked, identifier)
        found = wrong(drawn.asked, answer, self._known, drawn.allowed)
        if found is None and drawn.allowed and drawn.way != LEFT and answer.end == VIDEO:
            found = "a video"
        with self._lock:
            self._ended[identifier] = answer.end
            if found is not None:
                self.findings[number] = f"{drawn.kind} over {drawn.way}: {found}"


def _leave(server: FaultServer, drawn: Drawn, identifier: str) -> Answer:
    """Cancel after a while; a video that came before is an answer as any."""
    begin = time.monotonic()
    with stub(server) as service:
        call = service.ModelInfer.future(
            message("consisid", drawn.asked), timeout=60, metadata=[("x-request-id", identifier)]
        )
        time.sleep(drawn.patience)
        if not call.done():
            call.cancel()
            return Answer((LEFT,), "", time.monotonic() - begin)
        try:
            digest = hashlib.sha256(call.result().raw_output_contents[0]).hexdigest()
            return Answer((VIDEO,), digest, time.monotonic() - begin)
        except grpc.RpcError as error:
            return Answer(((error.details() or "").partition(":")[0],), "", time.monotonic() - begin)


def send(server: FaultServer, numbers: Sequence[int], known: Sequence[Known], name: str) -> dict[str, Any]:
    """All of them; the server is then as it was."""
    processes, files = server.look(), server.descriptors()
    mixture = Mixture(server, known, name)
    mixture.run(numbers)
    assert mixture.findings == {}
    assert mixture.ends.total() == len(numbers)
    mixture.compare_with_log()
    wait_for(lambda: server.files() == [], 10, "no ticket is left")
    assert server.look() == processes, "no process has ended, none was started"

    def as_before() -> bool:
        return all(count <= files[name] + 4 for name, count in server.descriptors().items())

    wait_for(as_before, 30, "no file or connection is left open")
    return {"requests": len(numbers), "ends": dict(sorted(mixture.ends.items()))}
