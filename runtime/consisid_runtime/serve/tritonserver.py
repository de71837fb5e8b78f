"""Runs NVIDIA's Triton server on a model repository, bound to loopback and with its administrative APIs restricted.

Everything started here ends with `stop`, with the `with` block, or with this process, even one that is killed: see
guard.py.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from consisid_runtime.cpus import check_threads, default_threads, thread_variables
from consisid_runtime.errors import OutputUnwritable, ServerError
from consisid_runtime.files.temporary import temporary_folder
from consisid_runtime.memory.peak import peak_bytes
from consisid_runtime.plan import Plan
from consisid_runtime.serve import guard
from consisid_runtime.serve.address import Address, free_ports, in_url, reachable, resolve
from consisid_runtime.serve.edition import Edition
from consisid_runtime.serve.installation import Installation, backend_folder, environment, find, import_folder
from consisid_runtime.serve.logs.server_log import ServerLog, Writable
from consisid_runtime.serve.open_ports import OpenPorts
from consisid_runtime.serve.private import PrivatePort
from consisid_runtime.serve.repository import write_files
from consisid_runtime.wire import TOKEN_VARIABLE

_GRACE, _LATE = 10.0, 5.0
_LOADED_AT_ONCE = 4  # models, Triton server's own default


class TritonServer:
    """One running Triton server; a context manager.

    Args:
        repository: the model repository; or its files, path inside it → content, to be written for this server alone.
        environment: variables that its models need.
        folders: variables that name a folder that its models read; the models see a link to it.
        host: the address of this machine to bind, IPv4 or IPv6, or a name of one (its IPv4 address, if it has both);
            anything but loopback opens inference to that network, unencrypted.
        grpc_port, http_port, metrics_port: 0 picks a free one.
        log: the file that the server's log is appended to, or an open stream; None keeps its end for error messages. A
            new file is readable for its owner alone.
        ready_timeout: seconds that loading the models may take.
        threads: CPU threads of each computation of a model; None takes `cpus.default_threads`.
        private: listen on loopback for this process alone, as a door wants it: gRPC for who has the keys of
            `private_port`, no HTTP.

    Attributes:
        edition: what the next start serves.
        processes: ids of those that the last start made, of server and models.
        loaded_bytes: resident memory of these at its peak until the models were loaded; None where nobody measured it.
        grpc_url, http_url, metrics_url: where it listens, once started; `transport.connect` takes the first two. Where
            it listens at every address, they name loopback. A private server has none.
    """

    def __init__(
        self,
        repository: Path | Mapping[str, str],
        *,
        environment: Mapping[str, str] | None = None,
        folders: Mapping[str, Path] | None = None,
        host: str = "127.0.0.1",
        grpc_port: int = 0,
        http_port: int = 0,
        metrics_port: int = 0,
        log: Path | Writable | None = None,
        ready_timeout: float = 300.0,
        threads: int | None = None,
        private: bool = False,
    ) -> None:
        if threads is not None:
            check_threads(threads)
        self.edition = Edition(
            repository.resolve() if isinstance(repository, Path) else dict(repository),
            dict(environment or {}),
            {name: Path(os.path.realpath(path)) for name, path in (folders or {}).items()},
        )
        self._threads = threads
        self._host = host
        self._installation: Installation | None = None
        self._address: Address | None = None
        self._wanted = self._ports = (grpc_port, http_port, metrics_port)
        self._log = ServerLog(log)
        self._ready_timeout = ready_timeout
        self._private = private
        self._listens: OpenPorts | PrivatePort | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._leaves = ("", "")
        self.processes: tuple[int, ...] = ()
        self.loaded_bytes: int | None = None

    def prepare(self) -> None:
        """Find the server, the address to bind and a free port for each service, before anything is loaded.

        Raises `MissingExtra`, or `InvalidOption` for a host that this machine does not have, or a port in use.
        """
        self._installation = find()
        self._address = resolve(self._host)
        self._ports = free_ports(self._address, self._wanted)

    def read(self) -> Edition:
        """What there is to serve now. Changes nothing: the server serves it once it is its `edition` and started."""
        return self.edition

    def start(self) -> Self:
        """Prepare, start, and wait until every model is loaded.

        Raises what `prepare` raises, `OutputUnwritable` where its files cannot be written, the typed error of a model
        that could not load, or `ServerError` with the end of the server's log.
        """
        self.prepare()
        edition, repository, installation = self.edition, self._repository(), self._installation
        assert self._address is not None and installation is not None
        threads = self._threads or default_threads()
        folder = temporary_folder("consisid-server-", plain=True)
        try:
            # The Python backend starts its stub through a shell and decodes paths as ASCII: links with plain names.
            links = {name: folder / name for name in edition.folders}
            for name, link in links.items():
                link.symlink_to(edition.folders[name])
            models = folder / "models"
            if isinstance(repository, Path):
                models.symlink_to(repository)
            else:
                write_files(models, repository)
            listens: OpenPorts | PrivatePort = OpenPorts(self._address, *self._ports)
            if self._private:
                listens = PrivatePort.make(folder, self._ports[0])
            self._listens = listens
            memory = f"consisid-{secrets.token_hex(8)}"
            self._leaves = (str(folder), memory)
            backends = backend_folder(installation, folder)
            command = [*self._command(installation, models, backends, memory, threads), *listens.flags()]
            guarded = ["-I", "-S", str(Path(guard.__file__)), str(folder), memory, str(_GRACE), *command]
            # By a name of its own: `stop` may end it, from another thread, from here on.
            running = self._guard = subprocess.Popen(
                [sys.executable, *guarded],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
                | environment()
                | thread_variables(threads)
                | {name: str(link) for name, link in links.items()}
                | listens.environment()
                | edition.environment,
                cwd=import_folder(folder),
                start_new_session=True,
            )
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise OutputUnwritable(
                    f"Triton server's files cannot be written in {folder.parent}: {error}"
                ) from error
            raise
        assert running.stdout is not None
        self._log.follow(running.stdout)
        try:
            self._wait_until(listens.ready, running)
            self._order(running, guard.READY)
            self._wait_until((folder / guard.WATCHING).exists, running)
            with contextlib.suppress(OSError):
                self.processes = tuple(guard.descendants(running.pid))
                self.loaded_bytes = peak_bytes(self.processes)
        except BaseException:
            self._end(at_once=True)
            raise
        return self

    def stop(self) -> None:
        """End the server and all that it started; requests in flight get five seconds. Idempotent."""
        self._end(at_once=False)

    def kill(self) -> None:
        """End the server and all that it started at once. Idempotent."""
        self._end(at_once=True)

    def wait(self) -> None:
        """Block while the server runs. Raises `ServerError` when it or one of its models' processes ends by itself."""
        if self._guard is not None:
            code = self._guard.wait()
            self._log.finish()
            raise ServerError(f"{guard.ended(code)}; the end of its log:\n{self._log.tail()}")

    @property
    def private_port(self) -> PrivatePort:
        """How to reach a private server, once started."""
        assert isinstance(self._listens, PrivatePort)
        return self._listens

    def device_bytes(self, request: Plan) -> int | None:
        """What a request takes of the GPU, as `memory.peak.device_bytes`; None where no bundle is known."""
        return None

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
        return self._host if self._address is None else in_url(reachable(self._address))

    def _repository(self) -> Path | Mapping[str, str]:
        assert self.edition.repository is not None
        return self.edition.repository

    def _end(self, *, at_once: bool) -> None:
        running, self._guard = self._guard, None
        if running is None or running.stdin is None:
            return
        if at_once:
            self._order(running, guard.KILL)
        running.stdin.close()
        try:
            running.wait(_GRACE + _LATE)
        except subprocess.TimeoutExpired:  # it stands still; what it started ends with it
            running.kill()
            running.wait()
        self._log.finish()
        folder, memory = self._leaves
        guard.end_stragglers(memory)  # a guard that was killed did not
        guard.clean(folder, memory)

    def _order(self, running: subprocess.Popen[bytes], order: bytes) -> None:
        if running.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # it has ended, or was told to by another thread
                os.write(running.stdin.fileno(), order)

    @staticmethod
    def _command(installation: Installation, models: Path, backends: Path, memory: str, threads: int) -> list[str]:
        return [
            str(installation.binary),
            f"--model-repository={models}",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={memory}",
            # Of each model, for its responses and its calls to others, of which each takes one. The default is 32.
            "--backend-config=python,thread-pool-size=4",
            f"--model-load-thread-count={min(threads, _LOADED_AT_ONCE)}",
            "--model-control-mode=none",
            "--disable-auto-complete-config",
            "--exit-timeout-secs=5",
            "--log-info=false",
        ]

    def _wait_until(self, condition: Callable[[], bool], running: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._ready_timeout
        while not condition():
            if running.poll() is not None:
                self._log.finish()
                raise self._log.failure()
            if time.monotonic() > deadline:
                raise ServerError(
                    f"Triton server was not ready after {self._ready_timeout:g} s; the end of its log:\n"
                    f"{self._log.tail()}"
                )
            time.sleep(0.05)
