"""Every bound of the door, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from consisid_runtime.files.image_file import MAX_BYTES
from consisid_runtime.options import MAX_PROMPT


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes are bytes, times are seconds.

    Attributes:
        image: of a portrait; what `check_bytes` accepts.
        json: a body without binary data, in which a byte of an image takes up to four characters.
        header: the JSON of a body with binary data.
        brackets: in a request's JSON: 12 MB of `[],` would become 430 MB of objects.
        plain: a gRPC message beside its raw tensors; its lists become fifty times as large.
        in_flight: of requests that are being read, wait or run; reserved before reading.
        head, fields, head_seconds: an HTTP request's line and headers.
        body_seconds: until a request has arrived, over HTTP and gRPC; until an answer's next part is taken.
        idle_seconds: a connection without a request.
        connections: over each of HTTP and gRPC.
        queue: requests that wait for the one that runs.
        deadline: a request's, where it names none or a later one; from its admission to its answer.
        share: of connections, places in the queue and bytes in flight that one address may hold.
        grace: what runs when the door is stopped has so long to end.
        patience: waiting requests wait so long for a server that is started again.
    """

    image: int = MAX_BYTES
    json: int = 12 * 2**20
    header: int = 2**18
    brackets: int = 4096
    plain: int = 2**20
    in_flight: int = 5 * 2**26
    head: int = 2**14
    fields: int = 64
    head_seconds: float = 10.0
    body_seconds: float = 60.0
    idle_seconds: float = 30.0
    connections: int = 128
    queue: int = 16
    deadline: float = 3600.0
    share: float = 0.75
    grace: float = 5.0
    patience: float = 600.0

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
