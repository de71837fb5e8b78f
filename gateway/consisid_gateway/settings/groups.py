"""Every setting: its type, bounds, default and meaning. The docstring of a group is its heading."""

from __future__ import annotations

from pydantic import Field

from consisid_gateway.settings.kinds import DatabaseUrl, Hosts, Name, ObjectsUrl, Origins, ServerUrl
from consisid_runtime.files.image_file import MAX_BYTES
from consisid_runtime.settings.base import Group
from consisid_runtime.settings.kinds import Addresses, Collector, File, Hook, Host, Level, Port, number

_DAY = 86400.0


class Storage(Group):
    """What is stored, and where"""

    data: File | None = Field(
        default=None,
        description="Folder of the database and the objects. Not set: `$XDG_DATA_HOME/consisid`, or "
        "`~/.local/share/consisid`.",
    )
    database: DatabaseUrl | None = Field(default=None, description="Not set: SQLite, in the folder `data`.")
    objects: ObjectsUrl | None = Field(
        default=None,
        description="Of portraits, checkpoints and videos: a folder that all machines share, or S3, whose credentials "
        "are in the environment (`AWS_…`). Not set: in the folder `data`.",
    )


class Listening(Group):
    """Where the gateway listens"""

    host: Host = Field(
        default="127.0.0.1", description="Address or name of this machine to bind; all but loopback needs an API key."
    )
    port: Port = Field(default=8080, description="0 chooses a free port.")
    tls_cert: File | None = Field(default=None, description="PEM certificate, with its chain: HTTPS.")
    tls_key: File | None = Field(default=None, description="Its PEM key, unencrypted.")
    hosts: Hosts | None = Field(
        default=None,
        description="Names by which the gateway is called, as a proxy passes them on. Not set: on loopback those of "
        "loopback, else any.",
    )
    origins: Origins | None = Field(
        default=None, description="Of other sites whose pages may call (CORS). Not set: none may."
    )
    trusted_proxy: Addresses | None = Field(
        default=None,
        description="Of reverse proxies whose X-Forwarded-For says who calls. Not set: none is believed.",
    )
    connections: int = number(1024, 4, 65536, "At once; more are answered with 503.")
    grace_seconds: float = number(5.0, 0, _DAY, "That requests have to end when the gateway is stopped.")


class Accepting(Group):
    """What is accepted"""

    upload_bytes: int = number(20 * 2**20, 1024, MAX_BYTES, "A portrait.")
    upload_seconds: float = number(60.0, 1, 3600, "Until a request has arrived.")
    bodies: int = number(16, 1, 1024, "Requests that are read at once; others wait for their turn.")
    character_seconds: float = number(
        10.0, 0, 600, "For which a new character's answer waits until a worker has read the face."
    )
    characters_kept_seconds: float = number(
        30 * _DAY, 60, 3650 * _DAY, "After which a character that no video is made of is deleted, with its portrait."
    )
    keep_alive_seconds: float = number(15.0, 1, 600, "Between comments of a stream that has nothing to tell.")
    consent_hook: Hook | None = Field(
        default=None, description="Function that may refuse a video before it is accepted."
    )


class Webhooks(Group):
    """Webhooks"""

    private_webhooks: bool = Field(
        default=False,
        description="They may be at private addresses, and without TLS; gateways and workers agree on it.",
    )


class GatewayUpkeep(Group):
    """The logs and traces of the gateway"""

    trace: Collector | None = Field(
        default=None, description="Collector of OpenTelemetry, OTLP over HTTP: spans of every request. Not set: none."
    )

    audit_file: File | None = Field(
        default=None, description="Who did what, without faces, prompts and names. Not set: standard error."
    )
    log_level: Level = Field(default="info", description="From which on lines are written to standard error.")


class Serving(Group):
    """The worker and its server"""

    server: ServerUrl = Field(default="grpc://127.0.0.1:8001", description="`consisid serve`, beside the worker.")
    token_file: File | None = Field(
        default=None, description="File with the server's bearer token. Not set: `CONSISID_TOKEN`, or none."
    )
    ca: File | None = Field(
        default=None, description="PEM of the authorities whose servers are trusted. Not set: those of the system."
    )
    name: Name | None = Field(default=None, description="Of the worker, for people. Not set: the machine's.")


class Making(Group):
    """How videos are made and kept"""

    checkpoint_seconds: float = number(
        0.5, 0.5, _DAY, "Between two checkpoints of a video: what is computed again when a worker is lost."
    )
    kept_seconds: float = number(
        7 * _DAY, 60, 3650 * _DAY, "After which a finished video and its portrait are deleted."
    )
    unready_seconds: float = number(
        15.0, 1, _DAY, "After which a server that is not ready loses its videos to other workers."
    )
    polling_seconds: float = number(
        0.3, 0.05, 60, "Between two looks of a free worker at the queue; all have that of the one that started last."
    )


class Signing(Webhooks):
    """Webhooks"""

    webhook_secret_file: File | None = Field(
        default=None, description="File with the secret with which they are signed. Not set: none is called."
    )


class WorkerUpkeep(Group):
    """The log of the worker"""

    log_level: Level = Field(default="info", description="From which on lines are written to standard error.")
