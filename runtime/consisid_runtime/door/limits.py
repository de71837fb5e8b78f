"""Every bound of the door, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from consisid_runtime.files.image_file import MAX_BYTES
from consisid_runtime.options import MAX_PROMPT


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes are bytes, times are seconds.

    Attributes:
        image: of a portrait, what `check_bytes` accepts; and of a portrait together with a checkpoint.
        json: a body without binary data, in which a byte of an image takes up to four characters.
        generate: a body of the generate extension, which has images and checkpoints as Base64.
        header: the JSON of a body with binary data.
        brackets: in a request's JSON: 12 MB of `[],` would become 430 MB of objects.
        plain: a gRPC message beside its raw tensors; its lists become fifty times as large.
        in_flight: of requests that are being read, wait or run; reserved before reading.
        head, fields, head_seconds: an HTTP request's line and headers.
        handshake_seconds: of TLS, over HTTP and gRPC.
        body_seconds: until a request has arrived, over HTTP and gRPC; until an answer's next part is taken.
        idle_seconds: a connection without a request.
        next_seconds: until a stream's next request has arrived, for which memory is held.
        silence: of an answer that is a stream, over HTTP; then a comment is sent.
        connections: over each of HTTP and gRPC.
        queue: requests that wait.
        urgent_row: urgent requests that an ordinary one lets pass, in a row.
        deadline: a request's, where it names none or a later one; from its admission to its answer.
        share: of connections, places in the queue and bytes in flight that one address may hold.
        grace: what runs when the door is stopped has so long to end.
        patience: waiting requests wait so long for a server that is started again.
        stubborn: models that were told that a request has ended may work on it so long, and Triton server may say
            nothing at all so long; then the server is started again.
        restart_seconds, restart_longest_seconds: before the first start of a server that died, and twice as long before
            each further one, up to the second.
        restart_settled_seconds: after which a server that died counts as one that had worked.
        restart_attempts: starts that may fail in a row.
        consents: calls of the operator's consent function at once; more wait for one to end.
        steps, frames, pixels: of a video, the last in each frame; None for what the checkpoint can do.
    """

    image: int = MAX_BYTES
    json: int = 12 * 2**20
    generate: int = 32 * 2**20
    header: int = 2**18
    brackets: int = 4096
    plain: int = 2**20
    in_flight: int = 5 * 2**26
    head: int = 2**14
    fields: int = 64
    head_seconds: float = 10.0
    handshake_seconds: float = 10.0
    body_seconds: float = 60.0
    idle_seconds: float = 30.0
    next_seconds: float = 2.0
    silence: float = 15.0
    connections: int = 128
    queue: int = 16
    urgent_row: int = 4
    deadline: float = 3600.0
    share: float = 0.75
    grace: float = 5.0
    patience: float = 600.0
    stubborn: float = 120.0
    restart_seconds: float = 0.5
    restart_longest_seconds: float = 30.0
    restart_settled_seconds: float = 60.0
    restart_attempts: int = 5
    consents: int = 16
    steps: int | None = None
    frames: int | None = None
    pixels: int | None = None

    @property
    def body(self) -> int:
        """Bytes of a whole HTTP body with binary data."""
        return self.image + self.header + MAX_PROMPT

    @property
    def message(self) -> int:
        """Bytes of a whole gRPC message."""
        return self.image + self.plain + MAX_PROMPT

    def one(self, whole: int) -> int:
        """What one address may hold of a limit."""
        return max(1, int(whole * self.share))
