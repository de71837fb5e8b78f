"""The gRPC transport, on NVIDIA's tritonclient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from consisid_runtime.client.transport import Parameters
from consisid_runtime.errors import ConsisIDError, ServerTimeout, ServerUnreachable, from_wire

if TYPE_CHECKING:
    from numpy.typing import NDArray

_READY_TIMEOUT = 10.0
"""Seconds."""


class GrpcTransport:
    """A `Transport` over one gRPC channel. tritonclient and Triton server both raise gRPC's 4 MiB limit to 2 GiB."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._client = triton.InferenceServerClient(address)

    def infer(
        self,
        model: str,
        inputs: Mapping[str, bytes | str],
        parameters: Parameters,
        outputs: Sequence[str],
        timeout: float,
    ) -> dict[str, NDArray[Any]]:
        try:
            result = self._client.infer(
                model,
                [_tensor(name, value) for name, value in inputs.items()],
                outputs=[triton.InferRequestedOutput(name) for name in outputs],
                parameters=dict(parameters),
                client_timeout=timeout,
            )
        except InferenceServerException as error:
            raise self._typed(error, timeout) from error
        return {name: result.as_numpy(name) for name in outputs}

    def ready(self) -> bool:
        try:
            return bool(self._client.is_server_ready(client_timeout=_READY_TIMEOUT))
        except InferenceServerException:
            return False

    def close(self) -> None:
        self._client.close()

    def _typed(self, error: InferenceServerException, timeout: float) -> ConsisIDError:
        if error.status() == "StatusCode.DEADLINE_EXCEEDED":
            return ServerTimeout(f"grpc://{self._address} did not answer within {timeout:g} s")
        # A full queue has this status too, but then the server has answered.
        if error.status() == "StatusCode.UNAVAILABLE" and "queue size" not in error.message():
            return ServerUnreachable(f"grpc://{self._address}: {error.message()}; is the server running?")
        return from_wire(error.message())


def _tensor(name: str, value: bytes | str) -> triton.InferInput:
    if isinstance(value, str):
        array, dtype = np.array([value.encode()], np.object_), "BYTES"
    else:
        array, dtype = np.frombuffer(value, np.uint8), "UINT8"
    tensor = triton.InferInput(name, array.shape, dtype)
    tensor.set_data_from_numpy(array)
    return tensor
