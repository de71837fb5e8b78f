"""What the application works on."""

from __future__ import annotations

from dataclasses import dataclass, field

from anyio import CapacityLimiter

from consisid_gateway.access.listeners import Listeners
from consisid_gateway.jobs.database import Database
from consisid_gateway.jobs.queue import Queue
from consisid_gateway.objects.store import Store
from consisid_runtime.provenance.hooks import ConsentHook


@dataclass(frozen=True, slots=True)
class Parts:
    """Of one replica. Any replica on the same database and store answers for any job.

    Attributes:
        model: the name that requests may give and answers have.
        upload_bytes: of a portrait, at most.
        upload_seconds: in which a body has to arrive.
        bodies: of the largest size that are in memory at once, or more small ones; others wait for their turn.
        consents: calls of the consent function at once.
        consent_seconds: in which it has to answer.
        private_webhooks: whether webhooks may be called at addresses that are not public, and without TLS.
        consent: the operator's function; asked before a job is accepted.
        character_seconds: for which an answer waits until a worker has read the face of a new character.
        characters_kept_seconds: after which a character expires that is not used.
        keep_alive_seconds: between comments of a stream that has nothing to tell.
        listeners: the streams that are open.
    """

    database: Database
    queue: Queue
    store: Store
    model: str = "consisid"
    upload_bytes: int = 20 * 2**20
    upload_seconds: float = 60.0
    bodies: int = 16
    private_webhooks: bool = False
    consent: ConsentHook | None = None
    consents: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(8))
    consent_seconds: float = 30.0
    character_seconds: float = 10.0
    characters_kept_seconds: float = 30 * 86400.0
    keep_alive_seconds: float = 15.0
    listeners: Listeners = field(default_factory=Listeners)
