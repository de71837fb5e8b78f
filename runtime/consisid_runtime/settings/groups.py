"""Every setting of `consisid serve`: its type, bounds, default and meaning.

The docstring of a group is its heading. A name that ends in `_bytes` or `_seconds` says its unit; others are counts.
What has no default is not set.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from consisid_runtime.cpus import MAX_THREADS
from consisid_runtime.door.limits import Limits
from consisid_runtime.files.image_file import MAX_BYTES
from consisid_runtime.settings.base import Group
from consisid_runtime.settings.kinds import (
    Addresses,
    Collector,
    Device,
    File,
    Hook,
    Host,
    Layout,
    Level,
    Memory,
    Port,
    number,
)
from consisid_runtime.stages.face.faces import KEPT, SECONDS

_OWN = Limits()
_DAY = 86400.0
_MANY = 2**31 - 1


class ServeGroup(Group):
    """Settings that belong together.

    Attributes:
        of_door: with `direct` there is no door, and nobody reads them.
    """

    of_door: ClassVar[bool] = True


class Served(ServeGroup):
    """What is served, and where"""

    of_door: ClassVar[bool] = False
    bundle: File | None = Field(default=None, description="Folder written by `consisid export`.")
    host: Host = Field(
        default="127.0.0.1", description="Address or name of this machine to bind; other hosts reach all but loopback."
    )
    grpc_port: Port = Field(default=8001, description="0 chooses a free port.")
    http_port: Port = Field(default=8000, description="Also of `/metrics`, but for `direct`. 0 chooses a free port.")
    direct: bool = Field(default=False, description="Open Triton server's own ports instead of the door's.")
    metrics_port: Port | None = Field(default=None, description="With `direct`: 8002 where it is not set.")


class Models(ServeGroup):
    """The models"""

    of_door: ClassVar[bool] = False
    device: Device = Field(default="auto", description="Where they compute.")
    layout: Layout = Field(
        default="auto",
        description="`ensemble`: a process for each stage. `single`: one for all. `auto`: `ensemble` where it fits on "
        "the GPU.",
    )
    memory: Memory | None = Field(
        default=None,
        description="GiB of the GPU that a bundle of the torch engine may take. Not set: `CONSISID_MEMORY`, or all.",
    )
    threads: int | None = number(
        None,
        1,
        MAX_THREADS,
        "CPU threads of each computation. Not set: `OMP_NUM_THREADS`, else the CPUs that affinity and cgroup allow.",
    )
    ready_seconds: float = number(300.0, 1, _DAY, "That loading the models may take, and then the trial, each.")
    faces_kept: int = number(
        KEPT, 0, 100_000, "Photographs whose faces are remembered, and as many handles; a megabyte each."
    )
    faces_seconds: float = number(SECONDS, 1, 30 * _DAY, "For which they are.")
    watermark_hook: Hook | None = Field(
        default=None,
        description="Function that marks the frames of every video. Not set: `CONSISID_WATERMARK`, or none.",
    )


class Callers(ServeGroup):
    """Who may call, and what is asked and signed"""

    token_file: File | None = Field(
        default=None,
        description="File with the bearer token, which is no setting itself. Not set: `CONSISID_TOKEN`, or none.",
    )
    tls_cert: File | None = Field(
        default=None, description="PEM certificate, with its chain: HTTPS, and gRPC over TLS."
    )
    tls_key: File | None = Field(default=None, description="Its PEM key, unencrypted.")
    trusted_proxy: Addresses | None = Field(
        default=None,
        description="Of reverse proxies whose X-Forwarded-For says who calls. Not set: none is believed.",
    )
    sign_cert: File | None = Field(
        default=None, description="PEM certificate, with its chain: content credentials (C2PA) in the video."
    )
    sign_key: File | None = Field(default=None, description="Its PEM key, unencrypted, readable for its owner alone.")
    consent_hook: Hook | None = Field(default=None, description="Function that may refuse a request before it waits.")
    consent_calls: int = number(_OWN.consents, 1, 1024, "Calls of it at once; more wait for one to end.")


class Requests(ServeGroup):
    """What requests may ask for, and how they wait"""

    max_steps: int | None = number(None, 1, _MANY, "Denoising steps of a request. Not set: what the checkpoint can do.")
    max_frames: int | None = number(None, 1, _MANY, "Frames, likewise.")
    max_pixels: int | None = number(None, 1, _MANY, "Pixels of a frame, height times width, likewise.")
    queue: int = number(_OWN.queue, 1, 4096, "Requests that wait.")
    urgent_row: int = number(_OWN.urgent_row, 1, 4096, "Urgent requests that an ordinary one lets pass, in a row.")
    client_share: float = number(
        _OWN.share, 0.001, 1, "Of places in the queue, bytes in flight and connections, what one address may hold."
    )
    deadline_seconds: float = number(
        _OWN.deadline, 1, 7 * _DAY, "From admission to answer, where a request names no time or a longer one."
    )
    patience_seconds: float = number(
        _OWN.patience, 0, _DAY, "For which waiting requests wait for a server that is started again."
    )
    stubborn_seconds: float = number(
        _OWN.stubborn,
        3,
        _DAY,
        "For which models may work on what has ended, and Triton server may answer nothing; then it is started again.",
    )
    grace_seconds: float = number(_OWN.grace, 0, _DAY, "That what runs has to end when the door is stopped.")


class Sizes(ServeGroup):
    """Sizes of requests"""

    image_bytes: int = number(_OWN.image, 1024, MAX_BYTES, "A portrait, also together with a checkpoint.")
    json_bytes: int = number(_OWN.json, 1024, 2**28, "An HTTP body without binary data.")
    generate_bytes: int = number(_OWN.generate, 1024, 2**28, "A body of the generate extension, with images as Base64.")
    binary_json_bytes: int = number(_OWN.header, 1024, 2**24, "The JSON of an HTTP body with binary data.")
    json_brackets: int = number(_OWN.brackets, 64, 2**17, "Opening brackets in the JSON of a request.")
    grpc_plain_bytes: int = number(_OWN.plain, 1024, 2**22, "A gRPC message beside its raw tensors.")
    head_bytes: int = number(_OWN.head, 1024, 2**16, "The head of an HTTP request; the metadata of a gRPC call.")
    head_fields: int = number(
        _OWN.fields, 8, 1024, "Header fields of an HTTP request; calls at once on a gRPC connection."
    )
    in_flight_bytes: int = number(
        _OWN.in_flight, 2**20, 2**40, "Memory of all requests that are read, wait or run, reserved before reading."
    )


class Connections(ServeGroup):
    """Connections"""

    connections: int = number(_OWN.connections, 4, 65536, "Over each of HTTP and gRPC.")
    handshake_seconds: float = number(_OWN.handshake_seconds, 1, 600, "For the handshake of TLS.")
    head_seconds: float = number(_OWN.head_seconds, 1, 600, "Until the head of an HTTP request has arrived.")
    body_seconds: float = number(
        _OWN.body_seconds, 1, 3600, "Until a request has arrived; until an answer's next part is taken."
    )
    next_seconds: float = number(_OWN.next_seconds, 1, 600, "Until the next request of a gRPC stream has arrived.")
    idle_seconds: float = number(_OWN.idle_seconds, 1, _DAY, "Of a connection without a request.")
    silence_seconds: float = number(
        _OWN.silence, 1, 600, "Of an answer that is a stream, over HTTP; then a comment is sent."
    )


class Upkeep(ServeGroup):
    """Restarts, the log, and traces"""

    trace: Collector | None = Field(
        default=None, description="Collector of OpenTelemetry, OTLP over HTTP: spans of every request. Not set: none."
    )
    restart_seconds: float = number(_OWN.restart_seconds, 0.1, 3600, "Before a server that died is started again.")
    restart_longest_seconds: float = number(
        _OWN.restart_longest_seconds, 0.1, 3600, "Each further time the pause is twice as long, at most this."
    )
    restart_settled_seconds: float = number(
        _OWN.restart_settled_seconds, 1, _DAY, "After which a server that died had worked: the pause is short again."
    )
    restart_attempts: int = number(
        _OWN.restart_attempts, 1, 10_000, "Starts that may fail in a row before the command ends."
    )
    log_level: Level = Field(
        default="info", description="From which on the door writes lines; `info` has one for each request."
    )


GROUPS: tuple[type[ServeGroup], ...] = (Served, Models, Callers, Requests, Sizes, Connections, Upkeep)
