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
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from consisid_runtime.errors import ConsisIDError, InvalidOption, MissingExtra, ServerError, from_wire
from consisid_runtime.serve import guard
from consisid_runtime.wire import PACKAGE_VARIABLE

CONTAINER = Path("/opt/tritonserver")

_PACKAGE = Path(__file__).resolve().parents[1]

# All that can run code, map memory or write files in the server. Open: inference, health, metadata, configuration,
# statistics.
_CLOSED = "shared-memory,model-repository,trace,logging"
_GRACE = 10.0
_TAIL_LINES, _TAIL_WIDTH = 20, 300
_LINES_KEPT = 1000


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
        root = Path(spec.submodule_search_locations[0]).resolve() / "tritonserver"
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
        folders: variables that name a folder that its models read; the models see a link to it.
        host: the address to bind; anything but loopback opens inference to that network, unencrypted.
        grpc_port, http_port, metrics_port: 0 picks a free one.
        log: the file that the server's log is appended to, or an open stream; None keeps its end for error messages.
        ready_timeout: seconds that loading the models may take.

    Attributes:
        grpc_url, http_url, metrics_url: where it listens; `transport.connect` takes the first two.
    """

    def __init__(
        self,
        repository: Path,
        *,
        environment: Mapping[str, str] | None = None,
        folders: Mapping[str, Path] | None = None,
        host: str = "127.0.0.1",
        grpc_port: int = 0,
        http_port: int = 0,
        metrics_port: int = 0,
        log: Path | IO[bytes] | None = None,
        ready_timeout: float = 300.0,
    ) -> None:
        self._environment = dict(environment or {})
        self._links = {"models": repository.resolve(), **{k: path.resolve() for k, path in (folders or {}).items()}}
        self._host = host
        self._ports = (grpc_port, http_port, metrics_port)
        self._log = log.resolve() if isinstance(log, Path) else log
        self._recent: deque[bytes] = deque(maxlen=_LINES_KEPT)
        self._reader: threading.Thread | None = None
        self._ready_timeout = ready_timeout
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start and wait until every model is loaded.

        Raises `MissingExtra`, `InvalidOption` for a port in use, the typed error of a model that could not load, or
        `ServerError` with the end of the server's log.
        """
        installation = find()
        self._ports = _free_ports(self._host, self._ports)
        folder = Path(tempfile.mkdtemp(prefix="consisid-server-"))
        try:
            # The stub decodes paths as ASCII.
            links = {name: folder / name for name in self._links}
            for name, link in links.items():
                link.symlink_to(self._links[name])
            memory = f"consisid-{secrets.token_hex(8)}"
            command = self._command(installation, links.pop("models"), _backends(installation, folder), memory)
            self._guard = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    str(_PACKAGE / "serve" / "guard.py"),
                    str(folder),
                    memory,
                    str(_GRACE),
                    *command,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=os.environ | _environment() | {name: str(link) for name, link in links.items()} | self._environment,
                cwd=_import_folder(folder),
                start_new_session=True,
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._recent.clear()
        self._reader = threading.Thread(target=self._read_log, args=(self._guard.stdout,), daemon=True)
        self._reader.start()
        try:
            self._wait_until_ready(self._guard)
            self._order(self._guard, guard.READY)
        except BaseException:
            self._end(at_once=True)
            raise
        return self

    def stop(self) -> None:
        """End the server and all that it started; requests in flight get five seconds. Nothing happens twice."""
        self._end(at_once=False)

    def wait(self) -> None:
        """Block while the server runs. Raises `ServerError` when it or one of its models' processes ends by itself."""
        if self._guard is not None:
            code = self._guard.wait()
            self._join_reader()
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
        if at_once:
            self._order(running, guard.KILL)
        running.stdin.close()
        running.wait()
        self._join_reader()

    def _order(self, running: subprocess.Popen[bytes], order: bytes) -> None:
        if running.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(running.stdin.fileno(), order)

    def _command(self, installation: Installation, models: Path, backends: Path, memory: str) -> list[str]:
        grpc, http, metrics = self._ports
        closed = f"{_CLOSED}:consisid-secret={secrets.token_urlsafe(32)}"
        return [
            str(installation.binary),
            f"--model-repository={models}",
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
                self._join_reader()
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
        for line in self._lines():
            # The server escapes the newlines of a model's message and adds where it was raised.
            error = from_wire(line.split("\\n")[0])
            if type(error) is not ServerError:
                return error
        return ServerError(f"Triton server did not start; the end of its log:\n{self._tail()}")

    def _tail(self) -> str:
        return "\n".join(line[:_TAIL_WIDTH] for line in self._lines()[-_TAIL_LINES:])

    def _lines(self) -> list[str]:
        return [line.decode(errors="replace").rstrip("\n") for line in list(self._recent)]

    def _read_log(self, source: IO[bytes]) -> None:
        """Pass the log on and keep its end; whatever happens to where it goes, the server must not wait for it."""
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(self._log.open("ab")) if isinstance(self._log, Path) else self._log
            for line in stack.enter_context(source):
                self._recent.append(line)
                if out is not None:
                    with contextlib.suppress(OSError, ValueError):
                        out.write(line)
                        out.flush()

    def _join_reader(self) -> None:
        if self._reader is not None:
            self._reader.join(timeout=5)


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


def _import_folder(folder: Path) -> Path:
    """A working directory with this package in it and nothing else.

    The stub ignores PYTHONPATH and imports from its working directory before all others: so it gets this very package,
    not another installed one, and nothing that happens to lie where the server was started.
    """
    working = folder / "imports"
    working.mkdir()
    (working / _PACKAGE.name).symlink_to(_PACKAGE)
    return working


def _environment() -> dict[str, str]:
    """What makes the stub's embedded interpreter this one: its library, its virtual environment."""

    def prepend(name: str, folder: str | Path) -> str:
        return os.pathsep.join(filter(None, [str(folder), os.environ.get(name)]))

    return {
        # An embedded interpreter finds its virtual environment through the first python3 on PATH.
        "PATH": prepend("PATH", Path(sys.executable).parent),
        "LD_LIBRARY_PATH": prepend("LD_LIBRARY_PATH", sysconfig.get_config_var("LIBDIR")),
        PACKAGE_VARIABLE: str(_PACKAGE),
    }


def _free_ports(host: str, wanted: tuple[int, int, int]) -> tuple[int, int, int]:
    """The ports, each 0 replaced by a free one. Raises `InvalidOption` for one in use, given twice or out of range."""
    for port in wanted:
        if not 0 <= port <= 65535:
            raise InvalidOption(f"a port is from 0 to 65535, got {port}")
        if port and wanted.count(port) > 1:
            raise InvalidOption(f"port {port} was given for two services; choose three different ports, or 0")
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
