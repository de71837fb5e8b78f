"""Sends a server that has loaded its models a tiny request, so that one that is ready has answered once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consisid_runtime.errors import ConsisIDError, ServerDied, ServerError, from_wire
from consisid_runtime.signatures import STREAM
from consisid_runtime.wire import TRIAL, Extras, write_parameters

if TYPE_CHECKING:
    import grpc


def try_out(channel: grpc.Channel, seconds: float) -> None:
    """Run a trial to its end, see `stages.trial`.

    Args:
        seconds: that it may take.

    Raises the typed error of the stage that failed; `ServerDied` where the server ended; `ServerError`.
    """
    import grpc
    from tritonclient.grpc import service_pb2_grpc

    from consisid_runtime.client.message import infer_request
    from consisid_runtime.options import Options

    parameters = write_parameters(Options(), Extras(action=TRIAL))
    request = infer_request(STREAM.name, {}, parameters, ("event", "info"))
    problem, done = "", False
    try:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        # To its end, as in `door.server.upstream`.
        for answer in stub.ModelStreamInfer(iter([request]), timeout=seconds):
            problem = problem or answer.error_message
            done = done or any(tensor.name == "info" for tensor in answer.infer_response.outputs)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            raise ServerDied("Triton server ended during the trial request") from error
        problem = f"{error.code().name}: {error.details()}"
    if problem or not done:
        raise _failure(problem or "it was answered with nothing", seconds)


def _failure(problem: str, seconds: float) -> ConsisIDError:
    """A typed error as it came; what says no more than where to look becomes one of the server."""
    sent = from_wire(problem)
    if type(sent) not in (ServerError, ConsisIDError):
        return sent
    return ServerError(f"the trial request, which may take {seconds:g} s, failed: {problem}")
