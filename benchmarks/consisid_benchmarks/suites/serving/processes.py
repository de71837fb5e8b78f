"""`consisid serve` as a user starts it, and what its processes take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from consisid_runtime.errors import ServerError

_COMMAND = "from consisid_runtime.cli.main import main; main()"


class Served:
    """A command `consisid serve` with free ports; a context manager that ends it.

    Args:
        bundle: what it serves.
        log: file for its standard error.
        direct: Triton server's own ports, without the door.

    Attributes:
        grpc_url, http_url, metrics_url: once entered.
        began: clock at which it was ready.
    """

    def __init__(self, bundle: Path, log: Path, *, direct: bool = False) -> None:
        self._log = log
        more = ["--direct", "--metrics-port", "0"] if direct else []
        self._command = ["serve", "--bundle", str(bundle), "--grpc-port", "0", "--http-port", "0", *more, "--json"]
        self.grpc_url = self.http_url = self.metrics_url = ""
        self.began = 0.0

    def __enter__(self) -> Self:
        """Raises `ServerError` where the command ends before it serves."""
        with self._log.open("wb") as log:
            self._running = subprocess.Popen(
                [sys.executable, "-P", "-c", _COMMAND, *self._command], stdout=subprocess.PIPE, stderr=log
            )
        assert self._running.stdout is not None
        line = self._running.stdout.readline()
        self.began = time.perf_counter()
        urls = json.loads(line) if line else {}
        if "grpc" not in urls:  # an error, or nothing
            self._running.communicate()
            raise ServerError(f"`consisid serve` did not start; it said {line.decode()!r}, its log is {self._log}")
        self.grpc_url, self.http_url, self.metrics_url = urls["grpc"], urls["http"], urls["metrics"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.terminate()
        self._running.communicate()

    def cpu_seconds(self) -> float:
        """That all its processes have computed so far."""
        ticks = os.sysconf("SC_CLK_TCK")
        return sum(sum(map(int, fields[11:13])) for fields in self._family()) / ticks

    def rss_bytes(self) -> int:
        """Resident sets of all its processes; what several share counts for each."""
        return sum(int(fields[21]) for fields in self._family()) * os.sysconf("SC_PAGE_SIZE")

    def _family(self) -> list[list[str]]:
        """Of `/proc/PID/stat`, the fields behind the name, of the command and of all processes below it."""
        found: dict[int, list[str]] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                found[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
        family = {self._running.pid}
        while more := {pid for pid, fields in found.items() if int(fields[1]) in family} - family:
            family |= more
        return [found[pid] for pid in family if pid in found]


class Servers:
    """Those of a run, each started when it is first asked for; a context manager that ends them.

    Args:
        folder: of the bundle of nano, and of the servers' logs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._stack = folder, ExitStack()
        self._bundle: Path | None = None
        self._door: Served | None = None

    def bundle(self) -> Path:
        """The trained checkpoint's, exported where it is not yet."""
        import consisid_nano
        from consisid_export.bundle.export import export_bundle
        from consisid_export.checkpoint.checkpoint import Checkpoint

        if self._bundle is None:
            bundle = self._folder / "bundle"
            export_bundle(Checkpoint.open(consisid_nano.checkpoint()), bundle, engine="mixed")
            self._bundle = bundle
        return self._bundle

    def door(self) -> Served:
        """The same for the whole run."""
        if self._door is None:
            self._door = self._stack.enter_context(Served(self.bundle(), self._folder / "door.log"))
        return self._door

    def direct(self) -> Served:
        """One of Triton server's own ports, not started."""
        return Served(self.bundle(), self._folder / "direct.log", direct=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
