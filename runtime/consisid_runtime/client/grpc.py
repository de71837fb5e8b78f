"""gRPC, through NVIDIA's tritonclient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from consisid_runtime.client.connect import Parameters, count
from consisid_runtime.errors import ServerTimeout, ServerUnreachable, from_wire

if TYPE_CHECKING:
    from numpy.typing import NDArray

_QUICK = 10.0


class GrpcTransport:
    """A `Transport` over one gRPC channel. tritonclient lifts gRPC's 4 MiB limit to 2 GiB, Triton server does too."""

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
        with self._errors(timeout):
            result = self._client.infer(
                model,
                [_tensor(name, value) for name, value in inputs.items()],
                outputs=[triton.InferRequestedOutput(name) for name in outputs],
                parameters=dict(parameters),
                client_timeout=timeout,
            )
        return {name: result.as_numpy(name) for name in outputs}

    def ready(self) -> bool:
        try:
            return bool(self._client.is_server_ready(client_timeout=_QUICK))
        except InferenceServerException:
            return False

    def finished(self) -> dict[str, int]:
        with self._errors(_QUICK):
            return count(self._client.get_inference_statistics(as_json=True, client_timeout=_QUICK))

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _errors(self, timeout: float) -> Iterator[None]:
        try:
            yield
        except InferenceServerException as error:
            status = error.status()
            if status == "StatusCode.DEADLINE_EXCEEDED":
                raise ServerTimeout(f"grpc://{self._address} did not answer within {timeout:g} s") from error
            if status == "StatusCode.UNAVAILABLE" and "queue size" not in error.message():
                raise ServerUnreachable(f"grpc://{self._address}: {error.message()}; is the server running?") from error
            raise from_wire(error.message()) from error


def _tensor(name: str, value: bytes | str) -> triton.InferInput:
    if isinstance(value, str):
        array, dtype = np.array([value.encode()], np.object_), "BYTES"
    else:
        array, dtype = np.frombuffer(value, np.uint8), "UINT8"
    tensor = triton.InferInput(name, array.shape, dtype)
    tensor.set_data_from_numpy(array)
    return tensor
