"""Events as they happen: soon, in order, once, and after an interruption where they were left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from consisid_runtime.events import Event


@pytest.fixture
def listen(http: Any, events_of: Any) -> Any:
    @contextmanager
    def open_(video: str, last: str | None = None) -> Iterator[Iterator[Any]]:
        headers = {} if last is None else {"Last-Event-ID": last}
        with http.stream("GET", f"/v1/videos/{video}/events", headers=headers) as answer:
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
            yield events_of(answer.iter_lines())

    return open_


def test_from_the_queue_to_the_end(gateway: Any, http: Any, listen: Any) -> None:
    video = gateway.create(http)["id"]
    with listen(video) as events:
        name, number, data = next(events)
        assert (name, number, data["status"]) == ("state", None, "queued") and data["position"] >= 0
        owner = gateway.claim(video)
        name, number, data = next(events)
        assert (name, data["status"], data["position"]) == ("state", "in_progress", None)
        gateway.steps(owner, 1, 4)
        told = [next(events) for _ in range(4)]
        assert [(name, number) for name, number, _ in told] == [("progress", str(n)) for n in (1, 2, 3, 4)]
        assert [data["done"] for _, _, data in told] == [1, 2, 3, 4]
        assert told[1][2]["preview"].startswith("data:image/jpeg;base64,/9j/") and told[0][2]["preview"] is None
        assert (told[1][2]["progress"], told[1][2]["seconds_left"]) == (50, 2.0)
        gateway.complete(owner)
        name, number, data = next(events)
        assert (name, number, data["status"], data["progress"]) == ("completed", "end", "completed", 100)
        assert list(events) == []


def test_the_first_event_and_each_step_are_told_soon(gateway: Any, http: Any, listen: Any) -> None:
    """The quickest of three: the machine may be busy with other tests."""
    first, step = [], []
    for _ in range(3):
        video = gateway.create(http)["id"]
        began = time.monotonic()
        with listen(video) as events:
            next(events)
            first.append(time.monotonic() - began)
            owner = gateway.claim(video)
            assert next(events)[2]["status"] == "in_progress"
            began = time.monotonic()
            gateway.steps(owner, 1, 1)
            assert next(events)[0] == "progress"
            step.append(time.monotonic() - began)
            gateway.complete(owner)
    assert min(first) < 0.3 and min(step) < 0.3


def test_after_an_interruption(gateway: Any, http: Any, listen: Any) -> None:
    video = gateway.create(http)["id"]
    owner = gateway.claim(video)
    gateway.steps(owner, 1, 2)
    with listen(video) as events:
        assert [next(events)[1] for _ in range(3)] == [None, "1", "2"]
    gateway.steps(owner, 3, 4)
    gateway.complete(owner)
    with listen(video, last="2") as events:
        assert [(name, number) for name, number, _ in events] == [
            ("state", None),
            ("progress", "3"),
            ("progress", "4"),
            ("completed", "end"),
        ]
    assert http.get(f"/v1/videos/{video}/events", headers={"Last-Event-ID": "end"}).status_code == 204


def test_many_listeners_of_several_jobs(gateway: Any, http: Any, listen: Any) -> None:
    from contextlib import ExitStack

    owners = [gateway.claim(gateway.create(http)["id"]) for _ in range(3)]
    with ExitStack() as stack:
        streams = [stack.enter_context(listen(owner.job)) for owner in owners for _ in range(2)]
        for owner in owners:
            gateway.steps(owner, 1, 4)
            gateway.complete(owner)
        for events in streams:
            told = [(name, number) for name, number, _ in events]
            assert told[-5:] == [*(("progress", str(n)) for n in (1, 2, 3, 4)), ("completed", "end")]


def test_who_comes_later_repeats_nothing_for_others(gateway: Any, http: Any, listen: Any) -> None:
    video = gateway.create(http)["id"]
    owner = gateway.claim(video)
    gateway.steps(owner, 1, 2)
    with listen(video) as early:
        assert [next(early)[1] for _ in range(3)] == [None, "1", "2"]
        with listen(video) as late:
            assert [next(late)[1] for _ in range(3)] == [None, "1", "2"]
            gateway.steps(owner, 3, 3)
            assert next(early)[1] == next(late)[1] == "3"


def test_more_than_is_kept_for_a_slow_reader(gateway: Any, http: Any, listen: Any) -> None:
    video = gateway.create(http)["id"]
    owner = gateway.claim(video)
    gateway.tell(owner, *(Event("denoise", step, 1000, preview=gateway.portrait) for step in range(1, 1001)))
    gateway.complete(owner)
    with listen(video) as events:
        numbers = [number for _, number, _ in events]
    assert numbers == [None, *map(str, range(1, 1001)), "end"]


@pytest.mark.parametrize("how", ["failed", "cancelled", "deleted"])
def test_other_ends(gateway: Any, http: Any, listen: Any, how: str) -> None:
    video = gateway.create(http)["id"]
    owner = gateway.claim(video)
    with listen(video) as events:
        next(events)
        if how == "failed":
            gateway.fail(owner)
        elif how == "cancelled":
            http.post(f"/v1/videos/{video}/cancel")
        else:
            http.delete(f"/v1/videos/{video}")
        rest = list(events)
    name, number, data = rest[-1]
    assert number == "end" and len(rest) == 1
    if how == "deleted":
        assert (name, data) == ("deleted", {"id": video, "object": "video.deleted", "deleted": True})
    else:
        assert (name, data["error"]["code"]) == ("failed", {"failed": "NO_FACE", "cancelled": "CANCELLED"}[how])


def test_the_position_in_the_queue(gateway: Any, http: Any, listen: Any) -> None:
    first, second = gateway.create(http)["id"], gateway.create(http)["id"]
    with listen(second) as events:
        before = next(events)[2]["position"]
        assert before >= 1
        http.delete(f"/v1/videos/{first}")
        name, _, data = next(events)
        assert (name, data["position"]) == ("state", before - 1)


def test_who_leaves_is_forgotten(serving: Any) -> None:
    with serving(keep_alive_seconds=0.05) as gateway, gateway.client() as http:
        video = gateway.create(http)["id"]
        with http.stream("GET", f"/v1/videos/{video}/events") as answer:
            lines = answer.iter_lines()
            assert gateway.parts.listeners.size == 1
            while not next(lines).startswith(":"):
                pass
        end = time.monotonic() + 5
        while gateway.parts.listeners.size:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_as_many_as_a_key_may_have(serving: Any) -> None:
    from consisid_gateway.access.listeners import Listeners

    with serving(listeners=Listeners(each=1)) as gateway, gateway.client() as http:
        path = f"/v1/videos/{gateway.create(http)['id']}/events"
        with http.stream("GET", path) as answer:
            lines = answer.iter_lines()
            next(lines)
            refused = http.get(path)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "LIMIT_REACHED")


def test_a_database_that_is_away_for_a_while(serving: Any, events_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from consisid_gateway.api.live import listening
    from consisid_gateway.errors import StorageUnavailable
    from consisid_gateway.jobs import events as told

    since, failures = told.since, []

    def away(*given: Any) -> Any:
        if len(failures) < 2:
            failures.append(1)
            raise StorageUnavailable("the database does not answer")
        return since(*given)

    monkeypatch.setattr(listening, "_AWAY_INTERVAL", 0.05)
    monkeypatch.setattr(told, "since", away)
    with serving() as gateway, gateway.client() as http:
        video = gateway.create(http)["id"]
        with http.stream("GET", f"/v1/videos/{video}/events") as answer:
            events = events_of(answer.iter_lines())
            next(events)
            gateway.finish(video)
            assert next(name for name, _, _ in events if name != "state") == "completed"
    assert len(failures) == 2
