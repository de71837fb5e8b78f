"""The client: sends a portrait and a prompt to a server and returns the video."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Self

from consisid_runtime.client.connect import connect
from consisid_runtime.client.transport import Transport
from consisid_runtime.errors import InvalidOption
from consisid_runtime.files.image_file import image_bytes
from consisid_runtime.options import Options, check_prompt
from consisid_runtime.signatures import ENSEMBLE
from consisid_runtime.video import Video
from consisid_runtime.wire import write_parameters

_LONGEST_TIMEOUT = 1e6


class Client:
    """A connection to one server. Thread-safe; a context manager.

    Args:
        server: `grpc://host:port`, `http://host:port`, or any `Transport`.
        timeout: seconds to wait for one video, above 0 and at most 10⁶.

    Raises `InvalidOption` for an invalid URL or timeout.
    """

    def __init__(self, server: str | Transport, *, timeout: float = 600.0) -> None:
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= _LONGEST_TIMEOUT:
            raise InvalidOption(f"timeout must be seconds above 0, at most {_LONGEST_TIMEOUT:g}, got {timeout!r}")
        self._transport = connect(server) if isinstance(server, str) else server
        self._timeout = timeout

    def generate(
        self,
        image: str | Path | bytes | bytearray,
        prompt: str,
        options: Options | None = None,
        *,
        raw_frames: bool = False,
    ) -> Video:
        """Generate one video on the server.

        Args:
            image: the portrait: a path, or a file's bytes (JPEG, PNG, WebP, …), which are sent unchanged.
            prompt: what the video shows.
            options: see `Options`.
            raw_frames: also fetch the decoded frames; `video.frames` are then these instead of the MP4's.

        Raises what `Pipeline.generate` raises, and `ServerUnreachable`, `ServerTimeout` or `ServerError`.
        """
        chosen = options or Options()
        check_prompt(prompt)
        photo = image_bytes(image)
        outputs = [port.name for port in ENSEMBLE.outputs if raw_frames or port.name != "frames"]
        answer = self._transport.infer(
            ENSEMBLE.name,
            {"image": photo, "prompt": prompt},
            write_parameters(chosen, raw_frames=raw_frames),
            outputs,
            self._timeout,
        )
        return Video(
            mp4=answer["video"].tobytes(),
            frames=answer["frames"] if raw_frames else None,
            fps=chosen.fps,
            info=json.loads(answer["info"][0]),
        )

    def ready(self) -> bool:
        """Whether the server answers and has loaded all its models."""
        return self._transport.ready()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
