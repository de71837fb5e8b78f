"""Finds NVIDIA's `tritonserver` and runs it on a model repository, closed to everybody but this machine's inference.

It comes with the wheel `nvidia-pytriton`, or with NVIDIA's container, or is on PATH. Everything started here ends with
`stop`, with the `with` block, or with this process, even one that is killed: see guard.py.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from consisid_runtime import guard
from consisid_runtime.errors import ConsisIDError, InvalidOption, MissingExtra, ServerError, from_wire

CONTAINER = Path("/opt/tritonserver")

# All that can run code, map memory or write files in the server. Open: inference, health, metadata, configuration,
# statistics.
_CLOSED = "shared-memory,model-repository,trace,logging"
_GRACE = 10.0
_TAIL_LINES, _TAIL_WIDTH = 20, 300


@dataclass(frozen=True, slots=True)
class Installation:
    """Where a Triton server is.

    Attributes:
        binary: the executable.
        backends: the folder that holds `python/libtriton_python.so`.
        stub: the Python backend's helper for this Python where it lies elsewhere (in the wheel), else None.
    """

    binary: Path
    backends: Path
    stub: Path | None = None


def find() -> Installation:
    """The wheel's server, else one on PATH, else the container's. Raises `MissingExtra`."""
    # find_spec of a top-level package locates it without importing it.
    spec = importlib.util.find_spec("pytriton")
    if spec is not None and spec.submodule_search_locations:
        root = Path(spec.submodule_search_locations[0]) / "tritonserver"
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = root / "python_backend_stubs" / version / "triton_python_backend_stub"
        if not stub.is_file():
            raise MissingExtra(f"nvidia-pytriton has no Python backend for Python {version}; use 3.11 or 3.12")
        return Installation(root / "bin" / "tritonserver", root / "backends", stub)
    on_path = shutil.which("tritonserver", path=os.pathsep.join([os.environ.get("PATH", ""), f"{CONTAINER}/bin"]))
    if on_path is None:
        raise MissingExtra(
            "no Triton server on this machine: pip install 'consisid-runtime[server]', or work in NVIDIA's container "
            "nvcr.io/nvidia/tritonserver (25.07 or later)"
        )
    binary = Path(on_path).resolve()
    backends = binary.parent.parent / "backends"
    return Installation(binary, backends if backends.is_dir() else CONTAINER / "backends")


class TritonServer:
    """One running Triton server; a context manager.

    Args:
        repository: the model repository.
        environment: variables that its models need.
        host: the address to bind; anything but loopback opens inference to that network, unencrypted.
        grpc_port, http_port, metrics_port: 0 picks a free one.
        log: the file that the server's log is appended to; None keeps it for error messages only.
        ready_timeout: seconds that loading the models may take.

    Attributes:
        grpc_url, http_url, metrics_url: where it listens; `transport.connect` takes the first two.
    """

    def __init__(
        self,
        repository: Path,
        *,
        environment: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        grpc_port: int = 0,
        http_port: int = 0,
        metrics_port: int = 0,
        log: Path | None = None,
        ready_timeout: float = 300.0,
    ) -> None:
        self._repository = repository
        self._environment = dict(environment or {})
        self._host = host
        self._ports = (grpc_port, http_port, metrics_port)
        self._log_path = log
        self._log: IO[bytes] | None = None
        self._log_start = 0
        self._ready_timeout = ready_timeout
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start and wait until every model is loaded.

        Raises `MissingExtra`, `InvalidOption` for a port in use, the typed error of a model that could not load, or
        `ServerError` with the end of the server's log.
        """
        installation = find()
        self._ports = _free_ports(self._host, self._ports)
        # Open until `stop`: a log without a path is gone from disk at once, and errors still quote it.
        self._log = open(self._log_path, "a+b") if self._log_path else tempfile.TemporaryFile("a+b")  # noqa: SIM115
        self._log_start = self._log.seek(0, os.SEEK_END)
        folder = Path(tempfile.mkdtemp(prefix="consisid-server-"))
        try:
            memory = f"consisid-{secrets.token_hex(8)}"
            command = self._command(installation, _backends(installation, folder), memory)
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, str(folder), memory, str(_GRACE), *command],
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=self._log,
                env=os.environ | _environment(self._environment),
                start_new_session=True,
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        try:
            self._wait_until_ready(self._guard)
        except BaseException:
            self._end(at_once=True)
            raise
        return self

    def stop(self) -> None:
        """End the server and all that it started; requests in flight get five seconds. Nothing happens twice."""
        self._end(at_once=False)

    def wait(self) -> None:
        """Block while the server runs. Raises `ServerError` when it ends by itself."""
        if self._guard is not None:
            code = self._guard.wait()
            raise ServerError(f"Triton server ended with exit status {code}; the end of its log:\n{self._tail()}")

    @property
    def grpc_url(self) -> str:
        return f"grpc://{self._reachable}:{self._ports[0]}"

    @property
    def http_url(self) -> str:
        return f"http://{self._reachable}:{self._ports[1]}"

    @property
    def metrics_url(self) -> str:
        return f"http://{self._reachable}:{self._ports[2]}/metrics"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _reachable(self) -> str:
        return "127.0.0.1" if self._host == "0.0.0.0" else self._host

    def _end(self, *, at_once: bool) -> None:
        running, self._guard = self._guard, None
        if running is None or running.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError), running.stdin:
            running.stdin.write(b"x" if at_once else b"")
        running.wait()
        if self._log is not None:
            self._log.close()

    def _command(self, installation: Installation, backends: Path, memory: str) -> list[str]:
        grpc, http, metrics = self._ports
        closed = f"{_CLOSED}:consisid-secret={secrets.token_urlsafe(32)}"
        return [
            str(installation.binary),
            f"--model-repository={self._repository}",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={memory}",
            "--model-control-mode=none",
            "--disable-auto-complete-config",
            f"--grpc-address={self._host}",
            f"--grpc-port={grpc}",
            f"--grpc-restricted-protocol={closed}",
            f"--http-address={self._host}",
            f"--http-port={http}",
            f"--http-restricted-api={closed}",
            f"--metrics-address={self._host}",
            f"--metrics-port={metrics}",
            "--exit-timeout-secs=5",
            "--log-info=false",
        ]

    def _wait_until_ready(self, running: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._ready_timeout
        while not self._ready():
            if running.poll() is not None:
                raise self._failure()
            if time.monotonic() > deadline:
                raise ServerError(
                    f"Triton server was not ready after {self._ready_timeout:g} s; the end of its log:\n{self._tail()}"
                )
            time.sleep(0.05)

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection(self._reachable, self._ports[1], timeout=5)
        try:
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _failure(self) -> ConsisIDError:
        """Why the server did not start: the typed error of a model, else the end of the log."""
        log = self._read_log()
        for line in log.splitlines():
            # The server escapes the newlines of a model's message and adds where it was raised.
            error = from_wire(line.split("\\n")[0])
            if type(error) is not ServerError:
                return error
        return ServerError(f"Triton server did not start; the end of its log:\n{self._tail()}")

    def _tail(self) -> str:
        return "\n".join(line[:_TAIL_WIDTH] for line in self._read_log().splitlines()[-_TAIL_LINES:])

    def _read_log(self) -> str:
        if self._log is None or self._log.closed:
            return ""
        self._log.seek(self._log_start)
        return self._log.read().decode(errors="replace")


def _backends(installation: Installation, folder: Path) -> Path:
    """A backend directory with the stub beside its library, as the server wants it; the wheel has them apart."""
    if installation.stub is None:
        return installation.backends
    python = folder / "backends" / "python"
    python.mkdir(parents=True)
    for file in ("libtriton_python.so", "triton_python_backend_utils.py"):
        (python / file).symlink_to(installation.backends / "python" / file)
    (python / installation.stub.name).symlink_to(installation.stub)
    return python.parent


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """What makes the stub's embedded interpreter this one: its library, its virtual environment, this package."""

    def prepend(name: str, folder: str | Path) -> str:
        return os.pathsep.join(filter(None, [str(folder), os.environ.get(name)]))

    return {
        # An embedded interpreter finds its virtual environment through the first python3 on PATH.
        "PATH": prepend("PATH", Path(sys.executable).parent),
        "LD_LIBRARY_PATH": prepend("LD_LIBRARY_PATH", sysconfig.get_config_var("LIBDIR")),
        "PYTHONPATH": prepend("PYTHONPATH", Path(__file__).parents[1]),
        **extra,
    }


def _free_ports(host: str, wanted: tuple[int, int, int]) -> tuple[int, int, int]:
    """The ports, each 0 replaced by a free one. Raises `InvalidOption` for one in use."""
    with contextlib.ExitStack() as stack:
        found = []
        for name, port in zip(("gRPC", "HTTP", "metrics"), wanted, strict=True):
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
            except OSError as error:
                raise InvalidOption(
                    f"cannot listen on {host}:{port} for {name} ({error.strerror}); choose another port, or 0 for a "
                    "free one"
                ) from error
            found.append(listener.getsockname()[1])
    return found[0], found[1], found[2]
