"""The client: sends a portrait and a prompt to a server and returns the video."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from consisid_runtime.client.answer import check_answer, read_info
from consisid_runtime.client.connect import READY_TIMEOUT, connect
from consisid_runtime.client.transport import Transport
from consisid_runtime.errors import InvalidOption
from consisid_runtime.files.image_file import image_bytes
from consisid_runtime.options import Options, check_prompt
from consisid_runtime.signatures import ENSEMBLE
from consisid_runtime.video import Video
from consisid_runtime.wire import Extras, write_parameters

_LONGEST_TIMEOUT = 1e6


class Client:
    """A client of one server. Thread-safe; a context manager. Every call opens a connection of its own.

    While nothing answers at the address, a call tries to connect for up to ten seconds of its timeout. Over HTTP a
    client also works in forked processes; over gRPC it works in one process, the first that calls a server.

    Args:
        server: `grpc://host:port`, `http://host:port` (an IPv6 address in brackets), or any `Transport`.
        timeout: seconds for one whole call, from resolving the server's name to the last byte of the video, above 0 and
            at most 10⁶.

    Raises `InvalidOption` for an invalid URL, timeout, or proxy in the environment.
    """

    def __init__(self, server: str | Transport, *, timeout: float = 600.0) -> None:
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= _LONGEST_TIMEOUT:
            raise InvalidOption(f"timeout must be seconds above 0, at most {_LONGEST_TIMEOUT:g}, got {timeout!r}")
        ready = min(timeout, READY_TIMEOUT)
        self._transport = connect(server, ready_timeout=ready) if isinstance(server, str) else server
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

        Raises what `Pipeline.generate` raises, and `ServerUnreachable`, `ServerTimeout`, `ServerError`, `ClientClosed`
        or `ForkedProcess`.
        """
        chosen = options or Options()
        check_prompt(prompt)
        photo = image_bytes(image)
        outputs = [port for port in ENSEMBLE.outputs if raw_frames or port.name != "frames"]
        answer = self._transport.infer(
            ENSEMBLE.name,
            {"image": photo, "prompt": prompt},
            write_parameters(chosen, Extras(raw_frames=raw_frames)),
            [port.name for port in outputs],
            self._timeout,
        )
        check_answer(outputs, answer)
        return Video(
            mp4=answer["video"].tobytes(),
            frames=answer["frames"] if raw_frames else None,
            fps=chosen.fps,
            info=read_info(answer["info"][0]),
        )

    def ready(self) -> bool:
        """Whether the server answers, within the timeout and ten seconds, and has loaded all its models.

        Raises `ClientClosed` or `ForkedProcess`.
        """
        return self._transport.ready()

    def close(self) -> None:
        """End the calls in flight with `ClientClosed`, and refuse further ones. Idempotent, from any thread."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
