"""Runs a stage in the model of its own, from within another model: business logic scripting of the Python backend.

Errors of a stage come back in its response. None is raised to the backend, which leaks what belonged to a call then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils

from consisid_runtime.errors import ServerError, from_wire
from consisid_runtime.events import Progress
from consisid_runtime.plan import Plan
from consisid_runtime.serve.models import as_json
from consisid_runtime.signatures import Port
from consisid_runtime.stages.flow import Call
from consisid_runtime.stages.table import Info, Stage, Values
from consisid_runtime.wire import INFO, TICKET, TRIAL, Extras, array_of, of_backend, pack_parameters, write_parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray


def composed(ticket: str | None, identifier: str, *, raw_frames: bool) -> Call:
    """The stages as models of the same server.

    Args:
        ticket: of the door's request, so that a stage ends where its caller leaves.
        identifier: the request's id, for the stages' log.
        raw_frames: whether the frames are wanted beside the MP4; they are none otherwise.
    """

    def call(
        stage: Stage, values: Values, plan: Plan, reports: Mapping[str, Info], progress: Progress
    ) -> tuple[Values, Info]:
        action = TRIAL if values.get(TRIAL) else Extras().action
        parameters = write_parameters(plan.options, Extras(raw_frames=raw_frames, action=action))
        if ticket is not None:
            parameters[TICKET] = ticket
        tensors = [
            pb_utils.Tensor(port.name, array)
            for port in stage.signature.inputs
            if (array := _input(port, values, reports)) is not None
        ]
        request = pb_utils.InferenceRequest(
            model_name=stage.name,
            requested_output_names=[port.name for port in stage.signature.outputs],
            inputs=tensors,
            request_id=identifier,
            parameters=pack_parameters(parameters),
        )
        response = request.exec()
        if (error := error_of(response)) is not None:
            raise error
        # Copies: an array of the backend's would keep its shared memory.
        outputs = {tensor.name(): tensor.as_numpy().copy() for tensor in response.output_tensors()}
        return outputs, _report(stage, outputs)

    return call


def error_of(response: Any) -> Exception | None:
    """The typed error of a model that was called; Triton server's own errors are unexpected, and for the log."""
    if not response.has_error():
        return None
    text = response.error().message()
    error = from_wire(text)
    if type(error) is not ServerError:  # it may quote the caller
        return error
    return of_backend(text) or RuntimeError(text)


def _input(port: Port, values: Values, reports: Mapping[str, Info]) -> NDArray[Any] | None:
    """None for what is optional and not there."""
    if port.name.endswith(INFO):
        return as_json(reports[port.name.removesuffix(INFO)])
    if port.name not in values:
        return None
    value = values[port.name]
    if port.dtype == "BYTES":
        return np.array([value.encode()], np.object_)
    return np.asarray(value, np.int64) if port.dtype == "INT64" else array_of(value)


def _report(stage: Stage, outputs: dict[str, NDArray[Any]]) -> Info:
    """What the stage reports: its own output, or its part of the video's `info`, which is taken out."""
    own = outputs.pop(stage.name + INFO, None)
    if own is not None:
        found: Info = json.loads(own[0])
        return found
    whole: Info = json.loads(outputs.pop("info")[0])
    return dict(whole.get(stage.name, {}))
