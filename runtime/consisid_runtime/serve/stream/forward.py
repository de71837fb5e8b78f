"""The model `consisid` where one process has the whole pipeline: passes its requests on to `consisid_stream`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

from consisid_runtime.serve.models import failure
from consisid_runtime.serve.stream.composed import error_of
from consisid_runtime.signatures import ENSEMBLE, STREAM
from consisid_runtime.wire import pack_parameters, parse_parameters


class ForwardModel:
    """Answers one request at a time with the last response of its stream."""

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Called by the server; one response a request, in order."""
        return [_answer(request) for request in requests]


def _answer(request: Any) -> Any:
    names = [port.name for port in ENSEMBLE.outputs]
    try:
        call = pb_utils.InferenceRequest(
            model_name=STREAM.name,
            requested_output_names=names,
            inputs=request.inputs(),
            request_id=request.request_id(),
            parameters=pack_parameters(parse_parameters(request.parameters())),
        )
        tensors: dict[str, Any] = {}
        error: Exception | None = None
        for response in call.exec(decoupled=True):  # to its end, or what belongs to the call stays
            error = error or error_of(response)
            if error is None:
                tensors |= {tensor.name(): tensor for tensor in response.output_tensors()}
        if error is not None:
            raise error
        return pb_utils.InferenceResponse([tensors[name] for name in names])
    except Exception as error:
        return failure(error, ENSEMBLE.name, request.request_id())
