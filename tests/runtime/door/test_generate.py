"""The generate extension over HTTP: events as they come, the video as Base64, errors before and behind the headers."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from door_requests import exchange, head, json_request, place, post, refusal, video
from test_bounds import READY

from consisid_runtime.door.door import Door

pytestmark = pytest.mark.server

STREAM = "/v2/models/consisid_stream/generate_stream"


def body(prompt: str = "a man", image: bytes = b"abc", **more: Any) -> dict[str, Any]:
    return {"image": base64.b64encode(image).decode(), "prompt": prompt, **more}


def sent(content: Any, *fields: str, path: str = STREAM) -> bytes:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return head(len(data), "Connection: close", *fields, path=path) + data


def asked(door: Door, content: Any, path: str = STREAM, **fields: str) -> tuple[int, str, bytes]:
    """Status, type and body of the answer."""
    connection = http.client.HTTPConnection(*place(door.http_url), timeout=30)
    with contextlib.closing(connection):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        connection.request("POST", path, data, {name.replace("_", "-"): value for name, value in fields.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers["content-type"], answer.read()


def events(text: bytes) -> Iterator[dict[str, Any]]:
    for line in text.decode().split("\n\n"):
        if line and not line.startswith(":"):
            assert line.startswith("data: ")
            yield json.loads(line.removeprefix("data: "))


def test_events_come_first_and_then_the_video(tiny_door: Door) -> None:
    request = body("sleep 0.2", id="mine", steps=7, parameters={"previews": True, "checkpoint_seconds": 0.01})
    status, kind, text = asked(tiny_door, request)
    assert (status, kind) == (200, "text/event-stream")
    first, *steps, last = events(text)
    assert first["event"] | {"seconds_left": None} == {
        "stage": "queue", "done": 0, "total": 1, "position": 0, "seconds_left": None,
    }  # fmt: skip
    assert [one["event"]["done"] for one in steps] == [1, 2, 3, 4]
    assert [base64.b64decode(one["checkpoint"]) for one in steps] == [b"1", b"2", b"3", b"4"]
    assert {base64.b64decode(one["preview"]) for one in steps} == {b"JPEG"}
    assert base64.b64decode(last["video"]) == b"abc" and last["info"]["second"]["steps"] == 7
    assert {one["id"] for one in (first, *steps, last)} == {"mine"}
    resumed = [*events(asked(tiny_door, body("sleep 0.2", checkpoint=base64.b64encode(b"3").decode()))[2])]
    assert [one["event"]["done"] for one in resumed[1:-1]] == [4]


def test_a_large_video_arrives_whole(tiny_door: Door) -> None:
    image = bytes(range(256)) * 4000
    *_, last = events(asked(tiny_door, body(image=image))[2])
    assert base64.b64decode(last["video"]) == image


def test_generate_answers_once(tiny_door: Door) -> None:
    for model in ("consisid", "consisid_stream"):
        status, kind, text = asked(tiny_door, body("sleep 0.1"), f"/v2/models/{model}/generate")
        assert (status, kind) == (200, "application/json")
        assert base64.b64decode(json.loads(text)["video"]) == b"abc"
    assert refusal(exchange(tiny_door.http_url, sent(body("no face"), path="/v2/models/consisid/generate"))) == (
        400, "NO_FACE",
    )  # fmt: skip
    (only,) = events(asked(tiny_door, body("sleep 0.1"), "/v2/models/consisid/generate_stream")[2])
    assert only.keys() == {"video", "info"}


def test_binary_form(tiny_door: Door) -> None:
    request = json_request("sleep 0.1", outputs=[{"name": "event"}, {"name": "video"}])
    request["inputs"][0] = {
        "name": "image", "datatype": "UINT8", "shape": [3], "parameters": {"binary_data_size": 3},
    }  # fmt: skip
    header = json.dumps(request).encode()
    _, _, text = asked(tiny_door, header + b"abc", Inference_Header_Content_Length=str(len(header)))
    *_, last = events(text)
    assert last == {"video": base64.b64encode(b"abc").decode()}


def test_errors_are_a_status_before_and_an_event_behind_the_first_event(tiny_door: Door) -> None:
    assert refusal(exchange(tiny_door.http_url, sent(body("a man", steps=0)))) == (400, "INVALID_OPTION")
    for prompt, code in (("no face", "NO_FACE"), ("crash", "INTERNAL"), ("nothing", "SERVER_ERROR")):
        *_, last = events(asked(tiny_door, body(prompt))[2])
        assert last.keys() == {"error"} and last["error"].startswith(f"{code}: ") and "secret" not in last["error"]
    late = list(events(asked(tiny_door, body("sleep 20", timeout=300_000))[2]))
    assert late[0].keys() == {"event"} and late[-1]["error"].startswith("SERVER_TIMEOUT: ")


MALFORMED, LARGE, OPTION = (400, "MALFORMED_REQUEST"), (413, "REQUEST_TOO_LARGE"), (400, "INVALID_OPTION")
REFUSED: dict[str, tuple[Any, tuple[int, str]]] = {
    "no JSON": (b"image=abc&prompt=a", MALFORMED),
    "a list": (b"[]", MALFORMED),
    "nothing": ({}, MALFORMED),
    "no image": ({"prompt": "a man"}, MALFORMED),
    "no prompt": ({"image": "YWJj"}, MALFORMED),
    "an image of numbers": ({"image": [1, 2], "prompt": "a man"}, MALFORMED),
    "an image of null": ({"image": None, "prompt": "a man"}, MALFORMED),
    "no Base64": ({"image": "a b=", "prompt": "a man"}, MALFORMED),
    "a data URL": ({"image": "data:image/png;base64,YWJj", "prompt": "a man"}, MALFORMED),
    "Base64 with line breaks": ({"image": "YWJj\nYWJj", "prompt": "a man"}, MALFORMED),
    "a lone surrogate as image": (b'{"image": "\\ud800", "prompt": "a man"}', MALFORMED),
    "a lone surrogate as prompt": (b'{"image": "YWJj", "prompt": "\\ud800"}', OPTION),
    "a prompt of a list": (body() | {"prompt": ["a man"]}, MALFORMED),
    "a checkpoint of an object": (body(checkpoint={}), MALFORMED),
    "an unknown parameter": (body(stepz=3), OPTION),
    "a parameter twice": (body(steps=3, parameters={"steps": 4}), MALFORMED),
    "an input among the parameters": (body(parameters={"image": "YWJj"}), OPTION),
    "parameters that are none": (body(parameters=[1]), MALFORMED),
    "parameters within parameters": (body(parameters={"parameters": {}}), OPTION),
    "the door's own parameter": (body(consisid_urgent=True), OPTION),
    "the door's ticket": (body(parameters={"consisid_ticket": "a" * 32}), OPTION),
    "stream": (body(stream=True), OPTION),
    "raw frames": (body(raw_frames=True), MALFORMED),
    "an id of a number": (body(id=7), MALFORMED),
    "6,000 brackets": (body(x=[[]] * 6000), MALFORMED),
    "nested": (b'{"image": ' + b"[" * 3000 + b"]" * 3000 + b"}", MALFORMED),
    "33 MiB": (b" " * (33 * 2**20), LARGE),
    "65 parameters": (body(**{f"p{n}": 1 for n in range(65)}), MALFORMED),
    "a checkpoint for the other model": (body(checkpoint="YWJj"), OPTION),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_malformed_is_refused_with_a_status(tiny_door: Door, name: str) -> None:
    content, wanted = REFUSED[name]
    path = STREAM.replace("_stream/", "/") if "the other model" in name else STREAM
    assert refusal(exchange(tiny_door.http_url, sent(content, path=path))) == wanted


def test_thirty_megabytes_of_base64_hold_nobody_up(tiny_door: Door) -> None:
    """22 MB of image and checkpoint; a health check waits for little more than a second."""
    content = sent(body(image=bytes(11 * 2**20), checkpoint=base64.b64encode(bytes(11 * 2**20)).decode(), steps=0))
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(exchange(tiny_door.http_url, content)))
    thread.start()
    worst = 0.0
    while thread.is_alive():
        begin = time.monotonic()
        assert exchange(tiny_door.http_url, READY, 5).startswith(b"HTTP/1.1 200")
        worst = max(worst, time.monotonic() - begin)
    assert refusal(found[0]) == OPTION and worst < 1.5


def test_infer_is_for_the_model_that_answers_once(tiny_door: Door) -> None:
    path = "/v2/models/consisid_stream/infer"
    assert refusal(exchange(tiny_door.http_url, sent(json_request(), path=path))) == MALFORMED


@pytest.mark.parametrize("when", ["queue", "running"])
def test_who_closes_the_connection_frees_the_device(tiny_door: Door, when: str) -> None:
    blocker = threading.Thread(target=exchange, args=(tiny_door.http_url, post(json_request("sleep 0.8"))))
    if when == "queue":
        blocker.start()
        time.sleep(0.2)
    with socket.create_connection(place(tiny_door.http_url), timeout=10) as connection:
        connection.sendall(sent(body("sleep 30")))
        received = b""
        while b"data: " not in received:
            received += connection.recv(2**16)
    begin = time.monotonic()
    assert video(tiny_door) == b"abc"
    assert time.monotonic() - begin < 2.5
    if when == "queue":
        blocker.join()


def test_who_reads_nothing_is_dropped_in_the_middle_of_the_video(strict_door: Door) -> None:
    """Of 16 MB the kernel holds some; the rest is given up a second later."""
    received = 0
    with socket.create_connection(place(strict_door.http_url), timeout=20) as connection:
        connection.sendall(sent(body(image=bytes(12 * 2**20))))
        assert connection.recv(1) == b"H"
        assert video(strict_door) == b"abc", "nobody waits for it"
        time.sleep(1.5)
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(2**20):
                received += len(piece)
    assert 0 < received < 16 * 2**20


def test_silence_is_filled_with_comments(strict_door: Door) -> None:
    _, _, text = asked(strict_door, body("hang 1"))
    assert 2 <= text.count(b": \n\n") <= 6 and b'"video": "YWJj"' in text
    _, _, text = asked(strict_door, body("hang 1"), "/v2/models/consisid/generate")
    assert json.loads(text)["video"] == "YWJj"
