"""A private server: nobody but its owner can call it, whatever ports they find."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from consisid_runtime.serve.private import CHANNEL_OPTIONS, PrivatePort, make_certificate
from consisid_runtime.serve.tritonserver import TritonServer


@pytest.fixture(scope="module")
def private(tiny_repository: Path) -> Iterator[TritonServer]:
    with TritonServer(tiny_repository, private=True, ready_timeout=60) as server:
        yield server


def ready(channel: grpc.Channel) -> bool:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    return bool(stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=5).ready)


@pytest.mark.server
def test_only_the_owner_of_the_key_is_served(private: TritonServer) -> None:
    port = private.private_port
    with grpc.secure_channel(port.target, port.credentials(), CHANNEL_OPTIONS) as channel:
        assert ready(channel)
    strangers = {
        "plain": grpc.insecure_channel(port.target),
        "without a certificate": grpc.secure_channel(
            port.target, grpc.ssl_channel_credentials(port._server), CHANNEL_OPTIONS
        ),
        "with one of its own": grpc.secure_channel(
            port.target, grpc.ssl_channel_credentials(port._server, *make_certificate("consisid")), CHANNEL_OPTIONS
        ),
    }
    for channel in strangers.values():
        with channel, pytest.raises(grpc.RpcError) as refused:
            ready(channel)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.server
def test_it_listens_at_one_port_and_its_command_line_holds_no_key(private: TritonServer) -> None:
    lines = [read(path).split("\0") for path in Path("/proc").glob("[0-9]*/cmdline")]
    (line,) = (words for words in lines if "tritonserver" in words[0] and private._leaves[1] in " ".join(words))
    assert "--allow-http=false" in line and not any("secret" in word or "restricted" in word for word in line)
    ports = {word.partition("=")[2] for word in line if "port=" in word}
    assert len(ports) == 1
    folder = private.private_port.tickets.parent
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(not mode & 0o077 for name, mode in modes.items() if name != "metrics"), modes
    assert os.path.realpath(folder).startswith(os.path.realpath(private._leaves[0]))


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def test_a_socket_whose_path_would_be_too_long_is_left_out(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    port = PrivatePort.make(deep, 1234)
    assert port.metrics is None and "--allow-metrics=false" in port.flags()
    assert "--grpc-port=1234" in port.flags()
