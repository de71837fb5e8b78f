"""The requests of the suite against a stand-in for the door, and the command that is measured."""

import asyncio
import io
import struct
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc

from consisid_benchmarks.suites.serving import suite
from consisid_benchmarks.suites.serving.arrivals import Arrival, Kind
from consisid_benchmarks.suites.serving.load import open_loop
from consisid_benchmarks.suites.serving.processes import Served
from consisid_benchmarks.suites.serving.requests import STEPS, Photographs, sender
from consisid_measurement.sources import source_files
from consisid_runtime.errors import ServerError
from consisid_runtime.events import Event

ROOT = Path(__file__).parents[4]


class StandIn(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Tells of every step and answers with a video; refuses urgent requests."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def ServerLive(self, request: Any, context: Any) -> service_pb2.ServerLiveResponse:
        return service_pb2.ServerLiveResponse(live=True)

    def ModelStreamInfer(self, requests: Any, context: Any) -> Iterator[service_pb2.ModelStreamInferResponse]:
        request = next(requests)
        self.requests.append(request)
        if request.parameters["priority"].int64_param == 1:
            yield service_pb2.ModelStreamInferResponse(error_message="BUSY: full")
            return
        for done in range(STEPS + 1):
            yield _response(event=Event("denoise", done, STEPS).to_json().encode())
        yield _response(video=b"mp4", info=b"{}")


def _response(**outputs: bytes) -> service_pb2.ModelStreamInferResponse:
    response = service_pb2.ModelInferResponse()
    for name, data in outputs.items():
        text = name != "video"
        response.outputs.add(name=name, datatype="BYTES" if text else "UINT8", shape=[1] if text else [len(data)])
        response.raw_output_contents.append((struct.pack("<I", len(data)) if text else b"") + data)
    return service_pb2.ModelStreamInferResponse(infer_response=response)


@contextmanager
def standing_in() -> Iterator[tuple[StandIn, str]]:
    door, served = StandIn(), grpc.server(futures.ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(door, served)
    port = served.add_insecure_port("127.0.0.1:0")
    served.start()
    try:
        yield door, f"grpc://127.0.0.1:{port}"
    finally:
        served.stop(None).wait()


def test_requests_reach_a_door_and_their_answers_are_counted() -> None:
    arrivals = [Arrival(0.0, Kind(17), 0), Arrival(0.02, Kind(49), 1), Arrival(0.04, Kind(17, urgent=True), 2)]
    with standing_in() as (door, url):
        samples = asyncio.run(open_loop(arrivals, sender(url)))
    assert [sample.code for sample in samples] == ["OK", "OK", "BUSY"]
    assert [(sample.steps, sample.steps_wanted) for sample in samples] == [(STEPS, STEPS), (STEPS, STEPS), (0, STEPS)]
    for sample in samples[:2]:
        assert sample.first is not None and sample.planned < sample.first <= sample.ended
    assert samples[2].first is None
    requests = sorted(door.requests, key=lambda request: request.parameters["frames"].int64_param)
    assert [request.parameters["frames"].int64_param for request in requests] == [17, 17, 49]
    images = {raw for request in requests for raw in request.raw_input_contents if raw.startswith(b"\x89PNG")}
    assert len(images) == 3, "no request is answered from the cache of faces"


def test_photographs_are_other_files_of_the_same_pixels() -> None:
    photographs = Photographs()
    first, second = photographs.next(), photographs.next()
    assert first != second
    with Image.open(io.BytesIO(first)) as one, Image.open(io.BytesIO(second)) as other:
        assert np.array_equal(np.asarray(one), np.asarray(other))
        assert {one.text["Comment"], other.text["Comment"]} == {"0", "1"}  # type: ignore[attr-defined]


def test_a_command_that_does_not_serve_says_where_its_log_is(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match=r"did not start; it said .*BUNDLE_MISSING.*, its log is .*door\.log"),
        Served(tmp_path, tmp_path / "door.log"),
    ):
        pass


def test_the_record_names_every_file_of_the_suite() -> None:
    folder = Path(suite.__file__).parent
    assert set(folder.glob("*.py")) <= {*source_files(ROOT, [suite.__file__]), folder / "__init__.py"}
