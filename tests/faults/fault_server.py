"""A server as an operator starts it, a command of its own, and all that belongs to it on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

MODELS = {
    "ensemble": ("face", "text", "encode", "denoise", "decode", "consisid_stream"),
    "single": ("consisid", "consisid_stream"),
}
"""Layout → the models that are a process each."""
_CONSISID = "from consisid_runtime.cli.main import main; main()"
_MARK = "FAULT_SERVER"
_START, _END = 120.0, 40.0
_MODEL = re.compile(r"/models/(\w+)/")
_REGIONS = re.compile(r"shm-region-prefix-name=([\w-]+)")
_FOLDERS = re.compile(r"--model-repository=(.+)/models")


class FaultServer:
    """`consisid serve` on free ports, with a folder for temporary files of its own; a context manager.

    Args:
        folder: an empty one, for `temporary` and `log`.
        settings: of docs/settings.md, by their names.
        command: what starts it, such as `unshare` with its arguments.
        temporary, log: instead of those in `folder`.

    Attributes:
        process: the launcher, in which the door is.
        grpc_url, http_url, metrics_url: where it listens.
        regions: prefixes of its shared memory's names under /dev/shm, also of servers that ended, as far as seen.
        folders: those of Triton server, likewise; they are elsewhere where `temporary` is full.
    """

    def __init__(
        self,
        bundle: Path,
        folder: Path,
        *,
        layout: str = "ensemble",
        settings: Mapping[str, float] | None = None,
        command: Sequence[str] = (),
        temporary: Path | None = None,
        log: Path | None = None,
    ) -> None:
        self.layout, self.temporary, self.log = layout, temporary or folder / "temporary", log or folder / "log"
        self.regions: set[str] = set()
        self.folders: set[Path] = set()
        self._mark = secrets.token_hex(8)
        self._command = [
            *command,
            sys.executable,
            "-c",
            _CONSISID,
            "serve",
            *("--bundle", str(bundle), "--layout", layout, "--grpc-port", "0", "--http-port", "0", "--json"),
        ]
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            **{f"CONSISID_SERVE_{name.upper()}": str(value) for name, value in (settings or {}).items()},
            "TMPDIR": str(self.temporary),
            _MARK: self._mark,
        }
        self.process: subprocess.Popen[str] | None = None
        self.printed: dict[str, Any] = {}
        self.grpc_url = self.http_url = self.metrics_url = ""

    def start(self) -> Self:
        """Wait until it serves, or has ended: `printed` says what it said."""
        self.temporary.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=log, env=self._environment, text=True
            )
        assert self.process.stdout is not None
        self.printed = json.loads(self.process.stdout.readline() or "{}")
        self.grpc_url, self.http_url = self.printed.get("grpc", ""), self.printed.get("http", "")
        self.metrics_url = self.printed.get("metrics", "")
        self.look()
        return self

    def __enter__(self) -> Self:
        started = self.start()
        assert self.grpc_url, f"it did not start: {self.printed}"
        return started

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> int:
        """End it as an operator does, or by force where it does not end. Returns its exit status."""
        assert self.process is not None and self.process.stdout is not None
        self.look()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process.stdout.close()

    def look(self) -> dict[str, list[int]]:
        """What runs: "launcher", "guard", "tritonserver" or the name of a model → process ids."""
        found: dict[str, list[int]] = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if f"{_MARK}={self._mark}\0".encode() in (path / "environ").read_bytes():
                    found.setdefault(self._name(path), []).append(int(path.name))
            except OSError:
                continue
        return found

    def pid(self, name: str) -> int:
        (found,) = self.look()[name]
        return found

    def complete(self) -> bool:
        """Whether each process that it should have is there, once."""
        counts = {name: len(pids) for name, pids in self.look().items()}
        return counts == dict.fromkeys(("launcher", "guard", "tritonserver", *MODELS[self.layout]), 1)

    def ready(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.http_url}/v2/health/ready", timeout=10):
            return True
        return False

    def outcomes(self) -> Counter[str]:
        """Outcome → requests, as the door counted them."""
        with urllib.request.urlopen(self.metrics_url, timeout=30) as answer:
            lines = re.findall(
                r'^consisid_requests_total{.*outcome="(\w+)".*} (\S+)$', answer.read().decode(), re.MULTILINE
            )
        found: Counter[str] = Counter()
        for outcome, count in lines:
            found[outcome] += int(float(count))
        return found

    def lines(self) -> list[dict[str, Any]]:
        """The door's lines for requests for inference."""
        found = [json.loads(line) for line in self.log.read_text(errors="replace").splitlines() if line[:1] == "{"]
        return [line for line in found if line["message"] == "request"]

    def memory(self) -> dict[str, int]:
        """Name of a process → its resident bytes."""
        page = os.sysconf("SC_PAGE_SIZE")
        return {
            name: sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * page
            for name, pids in self.look().items()
        }

    def descriptors(self) -> dict[str, int]:
        """Name of a process → its open files."""
        return {name: sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids) for name, pids in self.look().items()}

    def files(self) -> list[str]:
        """What requests left in its folder: tickets have names of 32 digits."""
        found = self.temporary.glob("consisid-server-*/private/tickets/*")
        return sorted(path.name for path in found if len(path.name) == 32)

    def left(self, seconds: float = _END) -> list[str]:
        """What is still there of it, so many seconds after its end at the latest."""
        deadline = time.monotonic() + seconds
        while (found := self._left()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def _left(self) -> list[str]:
        running = [f"process {name} {pid}" for name, pids in self.look().items() for pid in pids]
        memory = [str(path) for prefix in self.regions for path in Path("/dev/shm").glob(f"{prefix}*")]
        files = {*self.temporary.glob("*"), *(folder for folder in self.folders if folder.exists())}
        return running + memory + sorted(map(str, files))

    def _name(self, process: Path) -> str:
        """Of one of its processes, by its command line."""
        words = (process / "cmdline").read_text(errors="replace").split("\0")
        self.regions.update(_REGIONS.findall("\n".join(words)))
        self.folders.update(map(Path, _FOLDERS.findall("\n".join(words))))
        program = Path(words[0]).name
        if program == "triton_python_backend_stub":
            return next(match[1] for word in words if (match := _MODEL.search(word)))
        if program == "tritonserver":
            return program
        if any(word == _CONSISID for word in words):
            return "launcher"
        return "guard" if any(word.endswith("guard.py") for word in words) else program
