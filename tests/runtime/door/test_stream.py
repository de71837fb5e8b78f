"""ModelStreamInfer through the door: events, the video, several requests, cancellation, callers who read nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import socket
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from door_requests import call, grpc_request, head, place, video
from tritonclient.grpc import service_pb2, service_pb2_grpc

from consisid_runtime.door.door import Door
from consisid_runtime.events import Event

pytestmark = pytest.mark.server


def stream_request(prompt: str = "a man", checkpoint: bytes | None = None, **parameters: Any) -> Any:
    request = grpc_request(prompt)
    request.model_name = "consisid_stream"
    request.ClearField("outputs")
    if checkpoint is not None:
        request.inputs.add(name="checkpoint", datatype="UINT8", shape=[len(checkpoint)])
        request.raw_input_contents.append(checkpoint)
    for name, value in parameters.items():
        kind = {bool: "bool_param", int: "int64_param", float: "double_param"}[type(value)]
        setattr(request.parameters[name], kind, value)
    return request


def answers(door: Door, *requests: Any, timeout: float = 30.0) -> Iterator[Any]:
    """Of a stream with these requests."""
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(door.grpc_url.partition("//")[2], options) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        yield from stub.ModelStreamInfer(iter(requests), timeout=timeout)


def contents(answer: Any) -> dict[str, bytes]:
    found = answer.infer_response
    return dict(zip([output.name for output in found.outputs], found.raw_output_contents, strict=True))


def event(answer: Any) -> Event:
    found = contents(answer)
    return Event.from_json(found["event"][4:], found.get("preview"), found.get("checkpoint"))


def test_events_come_first_and_then_the_video(tiny_door: Door) -> None:
    request = stream_request("sleep 0.3", previews=True, checkpoint_seconds=0.01, steps=7)
    request.id = "mine"
    *events, last = answers(tiny_door, request)
    found = [event(one) for one in events]
    assert found[0] == Event("queue", 0, 1, 0, found[0].seconds_left)
    assert [(one.stage, one.done, one.total) for one in found[1:]] == [("denoise", n + 1, 6) for n in range(6)]
    assert {(one.preview, one.checkpoint) for one in found[1:]} == {(b"JPEG", b"%d" % (n + 1)) for n in range(6)}
    assert contents(last).keys() == {"video", "frames", "info"} and contents(last)["video"] == b"abc"
    assert json.loads(contents(last)["info"][4:])["second"]["steps"] == 7
    assert {one.infer_response.id for one in (*events, last)} == {"mine"}
    assert not any(one.infer_response.parameters["triton_final_response"].bool_param for one in (*events, last))


def test_the_same_bytes_as_without_a_stream(tiny_door: Door) -> None:
    *_, last = answers(tiny_door, stream_request("sleep 0.1", raw_frames=True, frames=9))
    plain = grpc_request("sleep 0.1", change=lambda r: (r.outputs.add(name="frames"), r.outputs.add(name="info")))
    for name, value in (("raw_frames", True), ("frames", 9)):
        setattr(plain.parameters[name], "bool_param" if value is True else "int64_param", value)
    answer = call(tiny_door.grpc_url, plain)
    assert [output.name for output in answer.outputs] == ["video", "frames", "info"]
    assert list(answer.raw_output_contents[:2]) == [contents(last)["video"], contents(last)["frames"]]


def test_only_the_outputs_that_were_asked_for(tiny_door: Door) -> None:
    request = stream_request("sleep 0.2", previews=True, checkpoint_seconds=0.01)
    request.outputs.add(name="info")
    request.outputs.add(name="checkpoint")
    *events, last = answers(tiny_door, request)
    assert events and all(contents(one).keys() == {"checkpoint"} for one in events)
    assert contents(last).keys() == {"info"}


def test_a_checkpoint_goes_on(tiny_door: Door) -> None:
    found = list(answers(tiny_door, stream_request("sleep 0.3", b"4")))
    assert [event(one).done for one in found[1:-1]] == [5, 6]
    (_, refused) = answers(tiny_door, stream_request("sleep 0.3", b"bad"))
    assert refused.error_message.startswith("CHECKPOINT_REFUSED: ")


def test_requests_of_a_stream_are_answered_in_order_also_behind_an_error(tiny_door: Door) -> None:
    bad = stream_request("a man", steps=0)
    requests = [stream_request("sleep 0.1"), stream_request("no face"), bad, grpc_request(), stream_request()]
    for number, request in enumerate(requests):
        request.id = f"{number}"
    ends = {}
    for one in answers(tiny_door, *requests):
        if one.error_message or "video" in contents(one):
            ends[one.infer_response.id] = one.error_message.partition(":")[0]
            assert one.infer_response.parameters["triton_final_response"].bool_param == bool(one.error_message)
    assert list(ends.items()) == [("0", ""), ("1", "NO_FACE"), ("2", "INVALID_OPTION"), ("3", ""), ("4", "")]


def test_events_are_for_their_own_model(tiny_door: Door) -> None:
    (only,) = answers(tiny_door, grpc_request("sleep 0.1"))
    assert contents(only) == {"video": b"abc"} and only.infer_response.model_name == "consisid"
    with pytest.raises(grpc.RpcError, match="call it by ModelStreamInfer"):
        call(tiny_door.grpc_url, stream_request())


@pytest.mark.parametrize(
    ("prompt", "code"), [("events 13", "SERVER_ERROR"), ("nothing", "SERVER_ERROR"), ("crash", "INTERNAL")]
)
def test_what_is_no_answer_of_the_models_is_an_error(tiny_door: Door, prompt: str, code: str) -> None:
    *_, last = answers(tiny_door, stream_request(prompt))
    assert last.error_message.startswith(f"{code}: ") and "secret" not in last.error_message


def test_the_first_event_comes_at_once_and_positions_follow(tiny_door: Door) -> None:
    heard: list[list[Any]] = [[], [], []]
    firsts = []

    def ask(number: int) -> None:
        begin = time.monotonic()
        for one in answers(tiny_door, stream_request("sleep 0.4")):
            if not heard[number]:
                firsts.append(time.monotonic() - begin)
            if "video" not in contents(one) and event(one).stage == "queue":
                heard[number].append(event(one).position)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    assert heard == [[0], [1, 0], [2, 1, 0]]
    assert max(firsts) < 0.5, "with a new channel, on a busy machine"


def test_an_urgent_one_does_not_wait_for_the_ordinary_one(tiny_door: Door) -> None:
    ends: list[str] = []

    def ask(name: str, prompt: str, priority: int) -> None:
        list(answers(tiny_door, stream_request(prompt, priority=priority)))
        ends.append(name)

    threads = [
        threading.Thread(target=ask, args=one) for one in (("ordinary", "sleep 1", 0), ("urgent", "sleep 0.2", 1))
    ]
    for thread in threads:
        thread.start()
        time.sleep(0.2)
    for thread in threads:
        thread.join()
    assert ends == ["urgent", "ordinary"]


def inputs() -> list[Any]:
    image, prompt = (
        tritonclient.grpc.InferInput("image", [3], "UINT8"),
        tritonclient.grpc.InferInput("prompt", [1], "BYTES"),
    )
    image.set_data_from_numpy(np.frombuffer(b"abc", np.uint8))
    prompt.set_data_from_numpy(np.array([b"sleep 0.2"], object))
    return [image, prompt]


def test_tritonclients_stream(tiny_door: Door) -> None:
    found: queue.Queue[Any] = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(tiny_door.grpc_url.partition("//")[2]) as client:
        client.start_stream(lambda result, error: found.put((result, error)))
        for closing in (True, False):
            client.async_stream_infer("consisid_stream", inputs(), enable_empty_final_response=closing)
            seen = []
            while True:
                result, error = found.get(timeout=20)
                assert error is None
                response = result.get_response()
                seen.append([output.name for output in response.outputs])
                if response.parameters["triton_final_response"].bool_param or (not closing and "video" in seen[-1]):
                    break
            assert seen[-1 - closing] == ["video", "frames", "info"] and seen[0] == ["event"]
            assert (seen[-1] == []) is closing
        client.stop_stream()


def test_tritonclients_stream_in_asyncio(tiny_door: Door) -> None:
    async def run() -> list[Any]:
        async def requests() -> Any:
            yield {"model_name": "consisid_stream", "inputs": inputs()}
            yield {"model_name": "consisid", "inputs": inputs()}

        async with tritonclient.grpc.aio.InferenceServerClient(tiny_door.grpc_url.partition("//")[2]) as client:
            found = [one async for one in client.stream_infer(requests())]
        assert all(error is None for _, error in found)
        return [bytes(result.as_numpy("video")) for result, _ in found if result.as_numpy("video") is not None]

    assert asyncio.run(run()) == [b"abc", b"abc"]


@pytest.mark.parametrize("how", ["tritonclient", "call", "channel", "deadline"])
@pytest.mark.parametrize("when", ["queue", "running"])
def test_who_ends_the_stream_frees_the_device(tiny_door: Door, how: str, when: str) -> None:
    address = tiny_door.grpc_url.partition("//")[2]
    blocker = threading.Thread(target=lambda: list(answers(tiny_door, stream_request("sleep 0.8"))))
    if when == "queue":
        blocker.start()
        time.sleep(0.2)
    if how == "tritonclient":
        found: queue.Queue[Any] = queue.Queue()
        client = tritonclient.grpc.InferenceServerClient(address)
        client.start_stream(lambda result, error: found.put(result))
        request = inputs()
        request[1].set_data_from_numpy(np.array([b"sleep 30"], object))
        client.async_stream_infer("consisid_stream", request)
        found.get(timeout=10)
        client.stop_stream(cancel_requests=True)
        client.close()
    else:
        channel = grpc.insecure_channel(address)
        seconds = 0.4 if how == "deadline" else 60.0
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stream = stub.ModelStreamInfer(iter([stream_request("sleep 30")]), timeout=seconds)
        next(stream)
        if how == "call":
            stream.cancel()
        elif how == "deadline":
            with contextlib.suppress(grpc.RpcError):  # in the queue it may be refused before
                list(stream)
        channel.close()
    begin = time.monotonic()
    assert video(tiny_door) == b"abc"
    assert time.monotonic() - begin < 2.5
    if when == "queue":
        blocker.join()


def test_a_stream_that_reads_nothing_holds_nobody_up_and_loses_events_alone(strict_door: Door) -> None:
    """4,000 events of which the caller takes none for a second."""
    begin = time.monotonic()
    with grpc.insecure_channel(strict_door.grpc_url.partition("//")[2]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stream = stub.ModelStreamInfer(iter([stream_request("events 4000", checkpoint_seconds=0.01)]), timeout=60)
        assert video(strict_door) == b"abc"
        *events, last = stream
        assert contents(last)["video"] == b"abc"
        assert event(events[-1]).done == 4000, "the newest is never lost"
    assert time.monotonic() - begin < 20


def test_a_stream_without_a_further_request_ends(strict_door: Door) -> None:
    more = threading.Event()

    def requests() -> Iterator[Any]:
        yield stream_request()
        more.wait(20)

    with grpc.insecure_channel(strict_door.grpc_url.partition("//")[2]) as channel:
        stream = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(requests(), timeout=30)
        with pytest.raises(grpc.RpcError, match="no request arrived in time"):
            list(stream)
        more.set()


def test_a_full_queue_refuses_in_the_stream(strict_door: Door) -> None:
    threads = [threading.Thread(target=lambda: list(answers(strict_door, stream_request("sleep 1")))) for _ in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    (refused,) = answers(strict_door, stream_request())
    assert refused.error_message.startswith("BUSY: ")
    assert refused.infer_response.parameters["retry_after"].double_param >= 1
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    "data", [b"\xff\xff", b"", b"\x0a\x0fconsisid_stream"], ids=["no message", "empty", "no inputs"]
)
def test_what_is_no_request_is_refused_in_the_stream(tiny_door: Door, data: bytes) -> None:
    with grpc.insecure_channel(tiny_door.grpc_url.partition("//")[2]) as channel:
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(
            iter([data, data]), timeout=20
        )
        found = [service_pb2.ModelStreamInferResponse.FromString(one) for one in stream]
    assert len(found) == 2
    assert {one.error_message.partition(":")[0] for one in found} <= {"MALFORMED_REQUEST", "NOT_FOUND"}


def two_checkpoints(request: Any) -> None:
    for _ in range(2):
        request.inputs.add(name="checkpoint", datatype="UINT8", shape=[1])
        request.raw_input_contents.append(b"1")


def with_checkpoint(content: bytes, **changes: Any) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        request.inputs.add(name="checkpoint", **({"datatype": "UINT8", "shape": [len(content)]} | changes))
        request.raw_input_contents.append(content)

    return change


REFUSED: dict[str, tuple[Callable[[Any], object], str]] = {
    "a checkpoint that is none": (with_checkpoint(b"bad"), "CHECKPOINT_REFUSED"),
    "a checkpoint of text": (with_checkpoint(b"\1\0\0\0a", datatype="BYTES", shape=[1]), "MALFORMED_REQUEST"),
    "a checkpoint of 2^62": (with_checkpoint(b"a", shape=[2**62]), "MALFORMED_REQUEST"),
    "two checkpoints": (two_checkpoints, "MALFORMED_REQUEST"),
    "a checkpoint of 64 MiB": (with_checkpoint(bytes(2**26)), "REQUEST_TOO_LARGE"),
    "a checkpoint for the other model": (
        lambda r: (setattr(r, "model_name", "consisid"), with_checkpoint(b"1")(r)), "MALFORMED_REQUEST",
    ),
    "an event as an input": (lambda r: setattr(r.inputs[0], "name", "event"), "MALFORMED_REQUEST"),
    "the door's own": (lambda r: setattr(r.parameters["consisid_urgent"], "bool_param", True), "INVALID_OPTION"),
    "previews of a number": (lambda r: setattr(r.parameters["previews"], "int64_param", 1), "INVALID_OPTION"),
    "seconds of text": (lambda r: setattr(r.parameters["checkpoint_seconds"], "string_param", "1"), "INVALID_OPTION"),
    "a priority of 2^63": (lambda r: setattr(r.parameters["priority"], "uint64_param", 2**63), "INVALID_OPTION"),
    "a composing model": (lambda r: setattr(r, "model_name", "second"), "NOT_FOUND"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_requests_are_refused_in_the_stream(tiny_door: Door, name: str) -> None:
    change, code = REFUSED[name]
    change(request := stream_request())
    *found, last = answers(tiny_door, request, stream_request())
    assert [one.error_message.partition(":")[0] for one in found if one.error_message] == [code]
    assert contents(last)["video"] == b"abc"


def gauges(door: Door) -> dict[str, float]:
    """From the metrics: name → value."""
    with urllib.request.urlopen(door.metrics_url, timeout=10) as answer:
        lines = [line.split() for line in answer.read().decode().splitlines() if line.startswith("consisid_")]
    return {name: float(value) for name, value in lines if "{" not in name}


def test_streams_that_end_at_any_moment_leave_nothing_behind(tiny_door: Door) -> None:
    """Triton server 2.51 may end where a stream is cancelled in the moment in which it ends: the door never does."""
    before = gauges(tiny_door)["consisid_server_starts_total"]
    body = json.dumps({"image": "YWJj", "prompt": "sleep 0.1"}).encode()
    sent = head(len(body), path="/v2/models/consisid_stream/generate_stream") + body
    with grpc.insecure_channel(tiny_door.grpc_url.partition("//")[2]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for number in range(24):
            stream = stub.ModelStreamInfer(iter([stream_request("sleep 0.1")]), timeout=30)
            with socket.create_connection(place(tiny_door.http_url), timeout=10) as connection:
                connection.sendall(sent)
                time.sleep(number * 0.012)
            stream.cancel()
    assert video(tiny_door) == b"abc"
    found = gauges(tiny_door)
    assert found["consisid_server_starts_total"] == before
    assert found["consisid_queue_waiting"] == found["consisid_running"] == found["consisid_bytes_in_flight"] == 0


def test_sixty_four_at_once_are_answered_or_refused(tiny_door: Door) -> None:
    """One address has twelve places in the queue."""

    async def ask(stub: Any) -> str:
        call = stub.ModelStreamInfer(iter([stream_request("sleep 0.05")]), timeout=60)
        *_, last = [answer async for answer in call]
        return last.error_message.partition(":")[0] or contents(last)["video"].decode()

    async def run() -> Counter[str]:
        async with grpc.aio.insecure_channel(tiny_door.grpc_url.partition("//")[2]) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            return Counter(await asyncio.gather(*(ask(stub) for _ in range(64))))

    found = asyncio.run(run())
    assert found.keys() == {"abc", "BUSY"} and found["abc"] >= 13
