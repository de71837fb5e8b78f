"""The model `consisid_stream` of the Python backend: decoupled, with a response for each event of a request.

`execute` only reads requests. One thread computes, in the order of `Turns`.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import triton_python_backend_utils as pb_utils

from consisid_runtime.bundle import Bundle
from consisid_runtime.errors import InvalidOption, RequestCancelled
from consisid_runtime.events import Event, Progress
from consisid_runtime.options import Options
from consisid_runtime.plan import Plan
from consisid_runtime.serve.models import Asked, Base, as_json, failure, open_bundle
from consisid_runtime.serve.readiness.warm_up import warm_up
from consisid_runtime.serve.stream.composed import composed
from consisid_runtime.serve.stream.held import HeldBytes
from consisid_runtime.serve.stream.job import Flow, StreamJob
from consisid_runtime.serve.stream.turns import Turns
from consisid_runtime.serve.ticket import Look
from consisid_runtime.signatures import STREAM
from consisid_runtime.stages import table
from consisid_runtime.stages.face.faces import KEPT, SECONDS, Faces
from consisid_runtime.stages.flow import Call, in_process
from consisid_runtime.stages.table import Values
from consisid_runtime.stages.work import Work
from consisid_runtime.wire import (
    BUNDLE_VARIABLE,
    FACES_KEPT_VARIABLE,
    FACES_SECONDS_VARIABLE,
    MEMORY_VARIABLE,
    TRIAL,
    array_of,
    describe,
    required_inputs,
    value_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_IMAGE, _PROMPT, _CHECKPOINT = STREAM.inputs
_MOST = 17
"""Requests at once: one that computes and 16 that wait, as for a stage's model."""


class StreamModel(Base):
    """The stages are models of their own: this one opens no more than the bundle's manifest."""

    signature = STREAM
    processes: ClassVar[bool] = True
    """Whether each stage is a process of its own."""

    def load(self) -> Callable[[Options], Plan]:
        self.bundle = self.open()
        self._work = Work(self.bundle, _faces(), processes=self.processes)
        self._turns = Turns(_MOST)
        self._held = HeldBytes()
        threading.Thread(target=self._compute, daemon=True).start()
        return self.bundle.plan

    def open(self) -> Bundle:
        return Bundle.open(os.environ[BUNDLE_VARIABLE], device=self.device)

    def call(self, asked: Asked) -> Call:
        """What runs the stages of one request."""
        return composed(
            asked.look.ticket, asked.identifier, raw_frames=asked.extras.raw_frames or asked.extras.similarity
        )

    def execute(self, requests: Sequence[Any]) -> None:
        """Called by the server; the responses come from the thread that computes."""
        for request in requests:
            answers = _Answers(request.get_response_sender(), request.request_id())
            try:
                asked = self.read(request)
                values = _values(asked)
                if asked.extras.action == "estimate":
                    position, seconds = self._turns.ahead()
                    found = self._work.estimate(asked.plan)
                    answers.video({}, replace(found, position=position, seconds_queued=seconds).to_json())
                    continue
                look = answers.looking(asked.look)
                left = self._work.rates.left(asked.plan, [stage.name for stage in table.STAGES])
                flow = self._flow(asked, values, look)
                self._turns.add(StreamJob(flow, answers, look, urgent=asked.urgent, left=left))
            except Exception as error:
                answers.failure(error)

    def finalize(self) -> None:
        self._turns.close()
        super().finalize()

    def _compute(self) -> None:
        try:
            self._turns.run()
        except BaseException:
            # Without this thread no request would ever be answered: end, so that the server is started again.
            pb_utils.Logger.log_error(f"the thread that computes ended\n{traceback.format_exc()}")
            os._exit(1)

    def _flow(self, asked: Asked, values: Values, look: Progress) -> Flow:
        try:
            return (yield from self._answer(asked, values, look))
        finally:
            self._held.set(self._work.faces.size)

    def _answer(self, asked: Asked, values: Values, look: Progress) -> Flow:
        if asked.extras.action != "generate":
            return {}, (yield from self._act(asked, values, look))
        plan, extras, given = asked.plan, asked.extras, asked.inputs.get(_CHECKPOINT.name)
        checkpoint = None if given is None else given.tobytes()
        reports = yield from self._work.start(
            self.call(asked), values, plan, extras=extras, checkpoint=checkpoint, look=look
        )
        tensors = {name: array_of(values[name]) for name in ("video", "frames")}
        if not extras.raw_frames:
            tensors["frames"] = tensors["frames"][:0]
        memory = {} if self.bundle.memory is None else {"memory": self.bundle.memory.to_json()}
        return tensors, describe(plan, self.bundle.fingerprint, reports) | memory

    def _act(self, asked: Asked, values: Values, look: Progress) -> Generator[Event, None, dict[str, Any]]:
        """Read a face, forget one, or run a trial; returns the answer's `info`."""
        if asked.extras.action == "forget":
            self._work.faces.forget(asked.extras.identity)
            return {}
        if asked.extras.action == TRIAL:
            reports = yield from self._work.trial(self.call(asked), look)
            seconds = {name: round(report["seconds"], 4) for name, report in reports.items()}
            return {"bundle": self.bundle.fingerprint, "seconds": seconds}
        yield Event("face", 0, 1)
        identity = self._work.identify(self.call(asked), values["image"], asked.plan, look)
        return {"identity": identity.handle, "face": dict(identity.info)}


def _faces() -> Faces:
    """As the variables say. Raises `InvalidOption`."""
    kept, seconds = os.environ.get(FACES_KEPT_VARIABLE, KEPT), os.environ.get(FACES_SECONDS_VARIABLE, SECONDS)
    try:
        return Faces(int(kept), float(seconds))
    except ValueError:
        raise InvalidOption(
            f"{FACES_KEPT_VARIABLE} and {FACES_SECONDS_VARIABLE} must be numbers, got {kept!r} and {seconds!r}"
        ) from None


def _values(asked: Asked) -> Values:
    """The inputs of a request's first stage. Raises `InvalidOption` where one is missing, or is too much."""
    wanted, given = required_inputs(asked.extras), asked.inputs.keys() - {_CHECKPOINT.name}
    if given != wanted:
        shown = [", ".join(sorted(names)) or "none" for names in (wanted, given)]
        raise InvalidOption(f"this request takes the inputs {shown[0]}; got {shown[1]}")
    # The prompt first, as in `Pipeline.generate`.
    ports = [port for port in (_PROMPT, _IMAGE) if port.name in given]
    values: Values = {port.name: value_of(port, asked.inputs[port.name]) for port in ports}
    return values | ({"identity": asked.extras.identity} if asked.extras.identity else {})


class WholeModel(StreamModel):
    """All stages are in this process."""

    processes = False

    def open(self) -> Bundle:
        bundle = open_bundle(self.device, os.environ.get(MEMORY_VARIABLE))
        self._stages = table.load(bundle)
        warm_up(bundle)
        return bundle

    def call(self, asked: Asked) -> Call:
        return in_process(self._stages)


class _Answers:
    """The responses to one request, each with the tensors that it has."""

    def __init__(self, sender: Any, request: str) -> None:
        self._sender, self._request = sender, request

    def looking(self, look: Look) -> Progress:
        """A look that also raises where the caller ended the call."""

        def both(label: str, done: int, total: int) -> None:
            look(label, done, total)
            if self._sender.is_cancelled():
                raise RequestCancelled("the caller ended the call before the video was done")

        return both

    def event(self, event: Event) -> None:
        tensors = {"event": np.array([event.to_json().encode()], np.object_)}
        for name in ("preview", "checkpoint"):
            if (content := getattr(event, name)) is not None:
                tensors[name] = array_of(content)
        self._send(tensors)

    def video(self, tensors: Mapping[str, NDArray[Any]], info: Mapping[str, Any]) -> None:
        self._send({**tensors, "info": as_json(info)})
        self._end()

    def failure(self, error: Exception) -> None:
        self._sender.send(failure(error, STREAM.name, self._request))
        self._end()

    def _send(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        response = pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in tensors.items()])
        self._sender.send(response)

    def _end(self) -> None:
        self._sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
