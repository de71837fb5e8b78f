"""Commands of ours as processes of their own, and videos asked for by OpenAI's SDK."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import openai
import psutil
from postgresql import wait_until

_CONSISID = "from consisid_runtime.cli.main import main; main()"
GATEWAY = """
import json, sys
from consisid_gateway.serving.gateway import serve
from consisid_gateway.settings.settings import GatewaySettings
from consisid_runtime.cli.signals import end_when_told
end_when_told()
serve(GatewaySettings(**json.loads(sys.argv[1])), lambda url: print(url, flush=True))
"""
"""A gateway with the settings of its argument, as JSON; prints its URL when it answers."""
_END = 60.0
PROMPT = "a man reading by the sea"


class Command:
    """`consisid …`, in a session of its own; a context manager that kills what is left.

    Args:
        log: a file, for what it writes to standard error.
        environment: variables, beside those of this process.
    """

    def __init__(self, log: Path, *arguments: str, **environment: str) -> None:
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _CONSISID, *arguments, "--json"],
                stdout=subprocess.PIPE,
                stderr=stream,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
                text=True,
                start_new_session=True,
            )
        self._seen: set[psutil.Process] = set()

    @cached_property
    def told(self) -> dict[str, Any]:
        """What it prints when it is ready, or why it cannot be; waits for it."""
        assert self.process.stdout is not None
        told: dict[str, Any] = json.loads(self.process.stdout.readline() or "{}")
        assert told and "error" not in told, told
        return told

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.left():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def stop(self) -> int:
        """As an operator does; returns the exit status."""
        self._started()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_END)

    def kill(self) -> None:
        self._started()
        self.process.kill()
        self.process.wait()

    def left(self) -> list[psutil.Process]:
        """Processes that it started and that still run."""
        left = []
        for process in self._started():
            with suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE:
                    left.append(process)
        return left

    def _started(self) -> set[psutil.Process]:
        if self.process.poll() is None:
            self._seen |= set(psutil.Process(self.process.pid).children(recursive=True))
        return self._seen


class Caller:
    """Of one gateway."""

    def __init__(self, url: str, key: str = "none") -> None:
        self.sdk = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=2)

    def ask(self, portrait: bytes, **options: Any) -> str:
        """The id of a new video."""
        video = self.sdk.videos.create(prompt=PROMPT, input_reference=("p.png", portrait), extra_body=options)
        return video.id

    def wait_for_progress(self, id: str) -> None:
        wait_until(lambda: self.sdk.videos.retrieve(id).progress > 0, 60.0)

    def video(self, id: str) -> bytes:
        """The bytes, when they are there."""
        wait_until(lambda: self.sdk.videos.retrieve(id).status in ("completed", "failed"), 120.0)
        return self.sdk.videos.download_content(id).read()
