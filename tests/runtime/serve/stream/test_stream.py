"""`consisid_stream` on Triton server, in both layouts, beside the same bundle in this process."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import InferResult, service_pb2_grpc

from consisid_runtime import Options, Pipeline, Video
from consisid_runtime.client.message import infer_request
from consisid_runtime.errors import ConsisIDError
from consisid_runtime.events import QUEUE, Event
from consisid_runtime.serve.private import CHANNEL_OPTIONS
from consisid_runtime.serve.repository import LAYOUTS
from consisid_runtime.serve.server import Server
from consisid_runtime.serve.ticket import Ticket
from consisid_runtime.signatures import ENSEMBLE, STREAM
from consisid_runtime.stages.table import STAGES
from consisid_runtime.wire import TICKET, URGENT, Extras, write_parameters

pytestmark = pytest.mark.server

PROMPT = "a man reading by the sea"
QUICK = Options(seed=3, steps=3, frames=9, guidance=2.5)
LONG = Options(seed=4, steps=40, frames=9)
ENDLESS = Options(steps=1000, frames=17)
NAMES = [stage.name for stage in STAGES]


class Served:
    """A server as its door reaches it."""

    def __init__(self, server: Server) -> None:
        self._port = server.private_port
        unbounded = (("grpc.max_receive_message_length", -1),)
        self._channel = grpc.secure_channel(self._port.target, self._port.credentials(), (*CHANNEL_OPTIONS, *unbounded))
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def ticket(self) -> Ticket:
        return Ticket(self._port.tickets)

    def call(self, image: bytes, options: Options = QUICK, prompt: str = PROMPT, **more: Any) -> Any:
        """The responses of a stream; `cancel` ends it."""
        checkpoint = more.pop("checkpoint", None)
        extras = Extras(
            **{name: more.pop(name) for name in ("raw_frames", "previews", "checkpoint_seconds") & more.keys()}
        )
        inputs = {"image": image, "prompt": prompt} | ({} if checkpoint is None else {"checkpoint": checkpoint})
        request = infer_request(STREAM.name, inputs, {**write_parameters(options, extras), **more}, ())
        return self._stub.ModelStreamInfer(iter([request]), timeout=120)

    def plain(self, image: bytes, options: Options) -> Any:
        request = infer_request(ENSEMBLE.name, {"image": image, "prompt": PROMPT}, write_parameters(options), ["video"])
        return InferResult(self._stub.ModelInfer(request, timeout=120))


def read(call: Any) -> Iterator[Event | dict[str, Any]]:
    """The events of a stream, then the tensors of the video. Raises the error that it ends with."""
    for answer in call:
        if answer.error_message:
            raise AssertionError(answer.error_message)
        found = InferResult(answer.infer_response)
        tensors = {output.name: found.as_numpy(output.name) for output in answer.infer_response.outputs}
        if "event" in tensors:
            content = {name: tensors[name].tobytes() for name in ("preview", "checkpoint") if name in tensors}
            yield Event.from_json(tensors["event"][0], **content)
        elif tensors:
            yield tensors


def finished(call: Any) -> tuple[list[Event], dict[str, Any]]:
    *events, tensors = read(call)
    assert isinstance(tensors, dict) and all(isinstance(event, Event) for event in events)
    return events, tensors  # type: ignore[return-value]


def until_step(call: Any) -> Iterator[Event | dict[str, Any]]:
    """The rest of a stream whose denoising has begun."""
    answers = read(call)
    for event in answers:
        assert isinstance(event, Event)
        if event.stage == "denoise" and event.done:
            return answers
    raise AssertionError("no step was taken")


@pytest.fixture(scope="module", params=LAYOUTS)
def served(request: pytest.FixtureRequest, untrained_bundle: Path) -> Iterator[Served]:
    with Server(untrained_bundle, layout=request.param, private=True) as server:
        yield Served(server)


@pytest.fixture(scope="module")
def pipeline(untrained_bundle: Path) -> Pipeline:
    return Pipeline.open(untrained_bundle)


@pytest.fixture(scope="module")
def quick(pipeline: Pipeline, portrait: bytes) -> Video:
    return pipeline.generate(portrait, PROMPT, QUICK)


def test_events_of_every_stage_and_step_then_the_video_of_a_plain_request(
    served: Served, quick: Video, portrait: bytes
) -> None:
    events, answer = finished(served.call(portrait, raw_frames=True))
    assert [(event.stage, event.done) for event in events] == [
        *((name, 0) for name in NAMES[:3]),
        *(("denoise", step) for step in range(4)),
        ("decode", 0),
    ]
    assert not any(event.preview or event.checkpoint for event in events)
    assert answer["video"].tobytes() == quick.mp4 == served.plain(portrait, QUICK).as_numpy("video").tobytes()
    assert np.array_equal(answer["frames"], quick.frames)
    info = json.loads(answer["info"][0])
    assert 0 <= info.pop("queued") < 5
    moment = {"seconds", "face"}
    assert {k: v for k, v in info.items() if k not in moment} == json.loads(
        json.dumps({k: v for k, v in quick.info.items() if k not in moment})
    )
    assert info["seconds"].keys() == quick.info["seconds"].keys() and info["face"].keys() == quick.info["face"].keys()


def test_a_checkpoint_goes_on_to_the_same_bytes(served: Served, quick: Video, portrait: bytes) -> None:
    events, answer = finished(served.call(portrait, previews=True, checkpoint_seconds=1e-9))
    assert all(event.preview is None for event in events if event.stage != "denoise")
    assert next(event.preview for event in events if event.preview).startswith(b"\xff\xd8")
    assert answer["video"].tobytes() == quick.mp4 and answer["frames"].size == 0
    saved = next(event for event in events if event.checkpoint)
    events, answer = finished(served.call(portrait, checkpoint=saved.checkpoint))
    assert min(event.done for event in events if event.stage == "denoise") == saved.done
    assert answer["video"].tobytes() == quick.mp4


def test_an_urgent_one_interrupts_another_and_both_have_their_bytes(
    served: Served, pipeline: Pipeline, quick: Video, portrait: bytes
) -> None:
    rest = until_step(served.call(portrait, LONG))
    _, urgent = finished(served.call(portrait, **{URGENT: True}))
    *events, paused = rest
    assert urgent["video"].tobytes() == quick.mp4
    assert paused["video"].tobytes() == pipeline.generate(portrait, PROMPT, LONG).mp4  # type: ignore[index]
    assert [event.position for event in events if event.stage == QUEUE] == [1]  # type: ignore[union-attr]
    steps = [event.done for event in events if event.stage == "denoise"]  # type: ignore[union-attr]
    assert all(after == before + 1 for before, after in pairwise(steps))
    info = json.loads(paused["info"][0])  # type: ignore[index]
    assert info["queued"] > 0


def test_one_that_is_not_urgent_waits(served: Served, portrait: bytes) -> None:
    first = until_step(served.call(portrait, LONG))
    events, _ = finished(served.call(portrait))
    assert (events[0].stage, events[0].position) == (QUEUE, 1)
    assert isinstance(list(first)[-1], dict)


def test_a_cancelled_ticket_frees_the_device(served: Served, quick: Video, portrait: bytes) -> None:
    """A thousand steps take minutes."""
    ticket = served.ticket()
    rest = until_step(served.call(portrait, ENDLESS, **{TICKET: ticket.name}))
    begin = time.monotonic()
    ticket.cancel()
    with pytest.raises(AssertionError, match="CANCELLED: "):
        list(rest)
    assert finished(served.call(portrait))[1]["video"].tobytes() == quick.mp4
    assert time.monotonic() - begin < 10


@pytest.mark.proof
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_cancelled_call_frees_the_device(layout: str, untrained_bundle: Path, quick: Video, portrait: bytes) -> None:
    """On a server of its own, which it may end: see `Upstream.stream`. The door cancels by tickets alone."""
    with Server(untrained_bundle, layout=layout, private=True) as server:
        served = Served(server)
        until_step(call := served.call(portrait, ENDLESS))
        begin = time.monotonic()
        call.cancel()
        assert finished(served.call(portrait))[1]["video"].tobytes() == quick.mp4
        assert time.monotonic() - begin < 10


@pytest.mark.parametrize(
    ("image", "prompt", "options", "more"),
    [
        (None, "", QUICK, {}),
        (b"plain text", PROMPT, QUICK, {}),
        (None, PROMPT, Options(frames=10), {}),
        (None, PROMPT, Options(face_index=5, frames=9), {}),
        (None, PROMPT, QUICK, {"checkpoint": b"no checkpoint"}),
    ],
    ids=["prompt", "image", "frames", "face", "checkpoint"],
)
def test_errors_are_those_of_the_pipeline(
    served: Served,
    pipeline: Pipeline,
    portrait: bytes,
    image: bytes | None,
    prompt: str,
    options: Options,
    more: dict[str, Any],
) -> None:
    photo = portrait if image is None else image
    with pytest.raises(ConsisIDError) as wanted:
        list(pipeline.stream(photo, prompt, options, **more))
    with pytest.raises(AssertionError) as found:
        finished(served.call(photo, options, prompt, **more))
    assert str(found.value).endswith(wanted.value.wire())
