"""What only the gateway raises. The tree and its rules: `consisid_runtime.errors`."""

from __future__ import annotations

from consisid_runtime.errors import ConsisIDError, InvalidRequest, ServerError


class VideoNotFound(InvalidRequest):
    """There is no such video, or character, of this caller."""

    code = "VIDEO_NOT_FOUND"
    http = 404
    grpc = "NOT_FOUND"
    remedy = "Correct the id; videos are deleted when they expire, and other callers' are not shown."


class VideoNotReady(InvalidRequest):
    """The video is not done, or its job failed: there is nothing to download."""

    code = "VIDEO_NOT_READY"
    http = 409
    grpc = "FAILED_PRECONDITION"
    remedy = "Retrieve the video until its status is completed; of a failed one read `error`."


class VideoExpired(InvalidRequest):
    """The video's bytes were deleted, as `expires_at` said."""

    code = "VIDEO_EXPIRED"
    http = 410
    grpc = "NOT_FOUND"
    remedy = "Create it again: the same portrait, prompt, options and seed give the same video."


class BodyUnreadable(InvalidRequest):
    """The body is neither a JSON object nor a form of multipart/form-data, or is damaged."""

    code = "BODY_UNREADABLE"
    remedy = "Send JSON, or a form with the portrait as a file; the message says what could not be read."


class RangeRefused(InvalidRequest):
    """The range of bytes that is asked for begins behind the last one.

    Attributes:
        size: bytes that there are.
    """

    code = "RANGE_REFUSED"
    http = 416
    grpc = "OUT_OF_RANGE"
    remedy = "Ask for bytes below the number in the message."

    def __init__(self, message: str, size: int = 0) -> None:
        super().__init__(message)
        self.size = size


class CharacterNotReady(InvalidRequest):
    """The character cannot be used: its face was refused."""

    code = "CHARACTER_NOT_READY"
    http = 409
    grpc = "FAILED_PRECONDITION"
    remedy = "Create a character from another portrait; retrieve this one to see why it was refused."


class IdempotencyConflict(InvalidRequest):
    """The idempotency key was used before, for a request that was another one."""

    code = "IDEMPOTENCY_CONFLICT"
    http = 409
    grpc = "ALREADY_EXISTS"
    remedy = "Use a new key for a new request; repeat a request with its own key."


class ScopeMissing(InvalidRequest):
    """The API key may not do this."""

    code = "SCOPE_MISSING"
    http = 403
    grpc = "PERMISSION_DENIED"
    remedy = "Use a key that has the scope which the message names."


class KeyUnknown(InvalidRequest):
    """There is no API key of this id."""

    code = "KEY_UNKNOWN"
    http = 404
    grpc = "NOT_FOUND"
    remedy = "Correct the id; `consisid keys list` shows those that there are."


class CrossSite(InvalidRequest):
    """The request was sent by another site's page, names a host that is not this gateway's, or came through a proxy.

    The first two would reach a gateway through the browser of somebody who may use it.
    """

    code = "CROSS_SITE"
    http = 403
    grpc = "PERMISSION_DENIED"
    remedy = "Open the gateway by its own address; the operator can allow hosts and origins, or make API keys."


class LimitReached(InvalidRequest):
    """The API key has as many jobs, requests or stored bytes as it may.

    Attributes:
        retry_after: seconds after which the same request may pass; None where time alone does not help.
    """

    code = "LIMIT_REACHED"
    http = 429
    grpc = "RESOURCE_EXHAUSTED"
    remedy = "Wait as long as the message says, or delete videos; the operator sets the limits of a key."

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AddressRefused(InvalidRequest):
    """The address of a webhook is none that the gateway calls."""

    code = "ADDRESS_REFUSED"
    remedy = "Use an https URL of a public host; the operator can allow others."


class StorageUnavailable(ServerError):
    """The database or the object store does not answer, or is full; nothing was accepted.

    Attributes:
        unsure: whether what a transaction wrote may be stored all the same: its end was not answered.
    """

    code = "STORAGE_UNAVAILABLE"
    http = 503
    grpc = "UNAVAILABLE"
    remedy = "Send the request again later; jobs that were accepted before wait and are not lost."

    def __init__(self, message: str, *, unsure: bool = False) -> None:
        super().__init__(message)
        self.unsure = unsure


class SchemaNewer(ConsisIDError):
    """The database was written by a later version."""

    code = "SCHEMA_NEWER"
    exit = 4
    remedy = "Install the version that wrote it, or a later one."
