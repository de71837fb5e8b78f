"""The models that Triton server's Python backend runs: a class for each stage, made from `stages.table`.

Every model checks all options before it works, so that a bad one fails at once and not after the denoising.
The server sets `wire.BUNDLE_VARIABLE`; each model is a process of its own and opens the bundle once.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import triton_python_backend_utils as pb_utils

from consisid_runtime.allocator import keep_freed_memory
from consisid_runtime.bundle import Bundle
from consisid_runtime.errors import ConsisIDError, InvalidOption, ServerError
from consisid_runtime.events import Progress
from consisid_runtime.memory.decide import read_setting
from consisid_runtime.options import Options
from consisid_runtime.plan import Plan
from consisid_runtime.serve.readiness.warm_up import warm_up
from consisid_runtime.serve.tensor_checks import check_finite, check_tensors, checkpoint_dims, read_report, request_dims
from consisid_runtime.serve.ticket import Look, take_look, take_urgent
from consisid_runtime.signatures import STREAM, Signature
from consisid_runtime.stages.table import STAGES, Info, Stage, Values
from consisid_runtime.wire import (
    BUNDLE_VARIABLE,
    DEVICE_VARIABLE,
    INFO,
    PACKAGE_VARIABLE,
    REQUEST_ID,
    TRIAL,
    VERIFIED_VARIABLE,
    Extras,
    array_of,
    describe,
    of_backend,
    parse_parameters,
    read_options,
    value_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

_TRITON_NAMES = {"INVALID_ARGUMENT": "INVALID_ARG"}
"""The gRPC statuses that Triton server calls by another name; statuses that it lacks become INTERNAL."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, checked.

    Attributes:
        inputs: by port name.
        look: raises once nobody waits for the answer any more.
        urgent: a door says that it goes before those that are not.
        identifier: KServe's `id`; through a door that of the line in its log.
    """

    inputs: Arrays
    plan: Plan
    extras: Extras
    look: Look
    urgent: bool
    identifier: str


class Base:
    """A model of the Python backend, which reads options and tensors. A subclass has a signature and loads itself."""

    signature: ClassVar[Signature]
    device: str
    """Where it computes, one of `engines.DEVICES`; set before `load`."""
    dims: Mapping[str, int] = MappingProxyType({})
    """The checkpoint's sizes by their symbols, as far as the inputs have them."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Called by the server once, before the first request."""
        try:
            _require_package(os.environ.get(PACKAGE_VARIABLE))
            self.device = _device(args)
            self.plan = self.load()
        except ConsisIDError as error:
            raise pb_utils.TritonModelException(error.wire()) from error

    def finalize(self) -> None:
        """Called by the server once, after the last request: the process then ends without taking apart its libraries.

        That took seconds of CPU time, and longer than the server waits.
        """
        atexit.register(os._exit, 0)

    def load(self) -> Callable[[Options], Plan]:
        """Open what the stage needs; returns what resolves a request's options."""
        raise NotImplementedError

    def read(self, request: Any) -> Asked:
        """What a request asks for, checked. Raises typed errors, `RequestCancelled` where nobody waits any more."""
        parameters = parse_parameters(request.parameters())
        look = take_look(parameters)
        look()
        urgent = take_urgent(parameters)
        options, extras = read_options(parameters)
        resolved = self.plan(options)
        inputs = _inputs(self.signature, request)
        check_tensors(self.signature.bind(self.dims).bind(request_dims(resolved)), inputs)
        return Asked(inputs, resolved, extras, look, urgent, request.request_id())


class Model(Base):
    """Answers each request with tensors, or an error with its code; a subclass answers one in `run`."""

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Called by the server; one response a request, in order."""
        return [self._answer(request) for request in requests]

    def run(self, inputs: Arrays, plan: Plan, progress: Progress, extras: Extras) -> Mapping[str, NDArray[Any]]:
        """Answer one request. Inputs and outputs by port name; UINT8, FP32, or object arrays of bytes.

        `progress` raises once nobody waits for the answer any more.
        """
        raise NotImplementedError

    def _answer(self, request: Any) -> Any:
        try:
            asked = self.read(request)
            if asked.extras.similarity:
                raise InvalidOption(f"similarity is measured behind the door or by {STREAM.name}, not by this model")
            outputs = self.run(asked.inputs, asked.plan, asked.look, asked.extras)
            ports = [port for port in self.signature.outputs if port.name in outputs]
            tensors = [pb_utils.Tensor(port.name, outputs[port.name]) for port in ports]
            return pb_utils.InferenceResponse(output_tensors=tensors)
        except Exception as error:
            return failure(error, self.signature.name, request.request_id())


class StageModel(Model):
    """A stage of the bundle that the server was started on; `served` makes its subclasses."""

    stage: ClassVar[Stage]

    def load(self) -> Callable[[Options], Plan]:
        self.bundle = open_bundle(self.device)
        self.dims = checkpoint_dims(self.bundle)
        self.loaded = self.stage.load(self.bundle)
        warm_up(self.bundle)
        return self.bundle.plan

    def run(self, inputs: Arrays, plan: Plan, progress: Progress, extras: Extras) -> Mapping[str, NDArray[Any]]:
        values: Values = {TRIAL: extras.action == TRIAL}
        reports: dict[str, Info] = {}
        # The prompt first, as in `Pipeline.generate`.
        for port in sorted(self.signature.inputs, key=lambda port: port.name != "prompt"):
            if port.name not in inputs:
                continue
            stage = port.name.removesuffix(INFO)
            if stage == port.name:
                values[port.name] = value_of(port, inputs[port.name])
            else:
                reports[stage] = read_report(stage, inputs[port.name][0])
        begin = time.perf_counter()
        outputs, info = self.stage.call(self.loaded, values, plan, progress)
        arrays = {name: array_of(value) for name, value in outputs.items()}
        check_finite(self.signature, arrays)
        reports[self.stage.name] = {**info, "seconds": time.perf_counter() - begin}
        if "frames" in arrays and not extras.raw_frames:
            arrays["frames"] = arrays["frames"][:0]
        arrays[self.stage.name + INFO] = as_json(reports[self.stage.name])
        if self.stage is STAGES[-1]:
            arrays["info"] = as_json(describe(plan, self.bundle.fingerprint, reports))
        return arrays


def served(name: str) -> type[StageModel]:
    """The model of one stage of `stages.table`, as Triton server's Python backend wants it."""
    stage = next(stage for stage in STAGES if stage.name == name)
    return type(f"{name.capitalize()}Model", (StageModel,), {"stage": stage, "signature": stage.signature})


def open_bundle(device: str, memory: str | None = None) -> Bundle:
    """The bundle that the server was started on, for who loads networks of it. `memory`: as `read_setting`."""
    keep_freed_memory()
    settings: dict[str, Any] = {} if memory is None else {"memory": read_setting(memory)}
    bundle = Bundle.open(os.environ[BUNDLE_VARIABLE], device=device, **settings)
    if verified := os.environ.get(VERIFIED_VARIABLE):
        bundle.accept(verified)
    return bundle


def _inputs(signature: Signature, request: Any) -> dict[str, NDArray[Any]]:
    """By name; an optional input that was left out is missing."""
    found = {p.name: pb_utils.get_input_tensor_by_name(request, p.name) for p in signature.inputs}
    return {name: tensor.as_numpy() for name, tensor in found.items() if tensor is not None}


def _require_package(launcher: str | None) -> None:
    """Raises `ServerError` where the launcher, which names its package, runs other code than this process."""
    here = Path(__file__).resolve().parents[1]
    if launcher is not None and Path(launcher) != here:
        raise ServerError(f"the server was launched from {launcher}, its models import {here}; keep one of the two")


def _device(instance: Mapping[str, str]) -> str:
    """That of the launcher; the GPU of the instance where a repository has instances of kind KIND_GPU."""
    if instance.get("model_instance_kind") == "GPU":
        return f"cuda:{instance['model_instance_device_id']}"
    return os.environ.get(DEVICE_VARIABLE, "auto")


def as_json(content: Mapping[str, object]) -> NDArray[np.object_]:
    """As a BYTES tensor of one element."""
    return np.array([json.dumps(content).encode()], dtype=np.object_)


def failure(error: Exception, name: str, request: str) -> Any:
    """A response with an error of its gRPC status; Triton server derives the HTTP status from it.

    What an unexpected error of the model `name` says may name paths or memory of the server: it goes to the log only,
    with the id of the request where that is a short word: without a door, callers write anything there.
    """
    if isinstance(error, (pb_utils.TritonModelException, RuntimeError)):  # what others say may quote the caller
        error = of_backend(str(error)) or error
    if not isinstance(error, ConsisIDError):
        reference = secrets.token_hex(4)
        trace = "".join(traceback.format_exception(error))
        shown = request if REQUEST_ID.fullmatch(request) else "without an id"
        pb_utils.Logger.log_error(f"{name} failed, error {reference}, request {shown}\n{trace}")
        error = ConsisIDError(f"{name} failed; the server's log has it as error {reference}")
    kinds = pb_utils.TritonError
    status = getattr(kinds, _TRITON_NAMES.get(error.grpc, error.grpc), kinds.INTERNAL)
    return pb_utils.InferenceResponse(output_tensors=[], error=kinds(error.sent(), status))
