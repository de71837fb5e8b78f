"""Every error that a user can meet: its code, its HTTP, gRPC and exit status, and what the user should do.

The classes below are the tree; `all_errors` lists it and the command's help and the docs derive from it. Packages above
define subclasses for what only they raise. On the wire an error is the text `CODE: message`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

_LONGEST = 2000
"""Bytes. gRPC sends an error's text as a header, one byte outside of ASCII as three, and peers refuse above 8 KiB."""


class ConsisIDError(Exception):
    """An unexpected failure.

    Base of all errors that are raised on purpose. A subclass inherits every attribute that it does not set. The first
    line of its docstring is the meaning of its code. A subclass that sets no code of its own is never raised.

    Attributes:
        code: stable across releases; the message is not.
        http: the HTTP status of a server's response.
        grpc: the name of the gRPC status of a server's response.
        exit: the exit code of the command `consisid`.
        remedy: one sentence, what the user should do.
    """

    code: ClassVar[str] = "INTERNAL"
    http: ClassVar[int] = 500
    grpc: ClassVar[str] = "INTERNAL"
    exit: ClassVar[int] = 1
    remedy: ClassVar[str] = "Find the error id of the message in the server's log, and report the failure."

    def wire(self) -> str:
        """The form an error takes between server and client."""
        return f"{self.code}: {self}"

    def sent(self) -> str:
        """`wire`, cut to what every header of gRPC and every encoding can carry."""
        return self.wire().encode(errors="replace")[:_LONGEST].decode(errors="ignore")


class InvalidRequest(ConsisIDError):
    """The request cannot be carried out; nothing was generated."""

    http = 400
    grpc = "INVALID_ARGUMENT"
    exit = 3


class InvalidOption(InvalidRequest):
    """An option or an argument has a value that is not possible."""

    code = "INVALID_OPTION"
    remedy = "Correct the value; the message names the values that are possible."


class MalformedRequest(InvalidRequest):
    """The request is not one of KServe's protocol, or not one for the server's models."""

    code = "MALFORMED_REQUEST"
    remedy = "Send the inputs, outputs and parameters that docs/requests.md lists; the message names what differs."


class RequestTooLarge(InvalidRequest):
    """The request has more bytes than a server reads."""

    code = "REQUEST_TOO_LARGE"
    http = 413
    grpc = "RESOURCE_EXHAUSTED"
    remedy = "Send a smaller image, as binary data."


class NotFound(InvalidRequest):
    """The server has no such model, path or method."""

    code = "NOT_FOUND"
    http = 404
    grpc = "NOT_FOUND"
    remedy = "Correct the model, path or method as the message says."


class IdentityExpired(InvalidRequest):
    """The server, or the pipeline, does not know the identity, or no longer."""

    code = "IDENTITY_EXPIRED"
    http = 410
    grpc = "NOT_FOUND"
    remedy = "Send the photograph again, or identify it again."


class Unauthenticated(InvalidRequest):
    """The server wants a token, and the request has none, or another one."""

    code = "UNAUTHENTICATED"
    http = 401
    grpc = "UNAUTHENTICATED"
    remedy = "Send the server's token, or the gateway's API key, as `Authorization: Bearer TOKEN`."


class ConsentRefused(InvalidRequest):
    """The operator's check of consent refused the request."""

    code = "CONSENT_REFUSED"
    http = 403
    grpc = "PERMISSION_DENIED"
    remedy = "Read the message, which is the operator's; ask the operator."


class RequestCancelled(InvalidRequest):
    """The caller left, or cancelled the request, before it was answered."""

    code = "CANCELLED"
    http = 499
    grpc = "CANCELLED"
    remedy = "Send the request again if its video is still wanted."


class CheckpointRefused(InvalidRequest):
    """The checkpoint of a request cannot be continued here, or is none."""

    code = "CHECKPOINT_REFUSED"
    remedy = "Send the request without the checkpoint: it then starts over."


class TierUnavailable(InvalidRequest):
    """The bundle cannot run the tier."""

    code = "TIER_UNAVAILABLE"
    remedy = "Choose a tier that the message names, or leave it out; `consisid inspect` lists a bundle's tiers."


class MemoryTooSmall(InvalidRequest):
    """The memory that a bundle may take on the GPU, or that is free there, is too little for it or for the video."""

    code = "MEMORY_TOO_SMALL"
    remedy = "Choose the setting that the message names, a smaller video, or a GPU with more free memory."


class EmptyPrompt(InvalidRequest):
    """The prompt contains no text, or none that the checkpoint's vocabulary knows."""

    code = "EMPTY_PROMPT"
    remedy = "Describe in the prompt what the video shows, in English for ConsisID's vocabulary."


class ImageUnreadable(InvalidRequest):
    """The portrait cannot be read, or is not an image of a supported format."""

    code = "IMAGE_UNREADABLE"
    remedy = "Send a complete image file of a format that the message names, such as JPEG or PNG."


class ImageTooLarge(InvalidRequest):
    """The portrait has too many bytes or pixels."""

    code = "IMAGE_TOO_LARGE"
    remedy = "Scale the image down below the limit in the message."


class ImageTooSmall(InvalidRequest):
    """The portrait has too few pixels, or one edge is many times longer than the other."""

    code = "IMAGE_TOO_SMALL"
    remedy = "Send a larger image, or crop it to the person."


class NoFace(InvalidRequest):
    """No face was found in the portrait."""

    code = "NO_FACE"
    remedy = "Send a portrait in which one face is clearly visible, with space around the head."


class MultipleFaces(InvalidRequest):
    """Several faces were found, and `face_index` is "only"."""

    code = "MULTIPLE_FACES"
    remedy = "Crop the image to one face, or choose a face by its number with `face_index`."


class FaceIndexOutOfRange(InvalidRequest):
    """Fewer faces were found than `face_index` asks for."""

    code = "FACE_INDEX_OUT_OF_RANGE"
    remedy = "Choose a `face_index` below the number of faces in the message; 0 is the largest face."


class ClientClosed(InvalidRequest):
    """The client was closed, before the call or while it waited."""

    code = "CLIENT_CLOSED"
    remedy = "Make a new `Client`; close one when no thread needs it any more."


class ForkedProcess(InvalidRequest):
    """A pipeline, or a client over gRPC, does not work in a process that was forked after its use."""

    code = "FORKED_PROCESS"
    remedy = "Open the pipeline, and make the first gRPC call, in the child process; or start processes by `spawn`."


class Unusable(ConsisIDError):
    """A bundle, a checkpoint or another input of files cannot be used."""

    exit = 4


class BundleError(Unusable):
    """The bundle cannot be used."""


class BundleMissing(BundleError):
    """The folder contains no bundle."""

    code = "BUNDLE_MISSING"
    remedy = "Give the folder that `consisid export` wrote."


class BundleCorrupt(BundleError):
    """A file of the bundle is missing, damaged, not what the manifest describes, or closed to this user."""

    code = "BUNDLE_CORRUPT"
    remedy = "Export the checkpoint again, or copy the whole bundle again, with files that this user can read."


class BundleVersion(BundleError):
    """The bundle is of another format, or its engines are of another GPU or TensorRT version."""

    code = "BUNDLE_VERSION"
    remedy = "Export the checkpoint again with the installed version, for the GPU that runs it."


class CheckpointInvalid(Unusable):
    """A checkpoint or a folder of judges is incomplete, damaged or of another architecture."""

    code = "CHECKPOINT_INVALID"
    remedy = "Replace the files that the message names: download them again; after `git clone`, run `git lfs pull`."


class FileInaccessible(Unusable):
    """A file or folder cannot be used as the command needs it: it is closed, missing or of another kind."""

    code = "FILE_INACCESSIBLE"
    remedy = "Correct the path that the message names, or let this user read it, or write to it."


class ExportRefused(Unusable):
    """The checkpoint cannot be exported with these options, or the result differs too much from the original."""

    code = "EXPORT_REFUSED"
    remedy = "Choose another engine, precision or machine, as the message suggests."


class ExportCancelled(ConsisIDError):
    """The export was cancelled; the finished parts are kept."""

    code = "EXPORT_CANCELLED"
    exit = 130
    remedy = "Run the same command again; it continues with the finished parts."


class NotFinite(ConsisIDError):
    """The networks returned NaN or infinity; nothing was written."""

    code = "NOT_FINITE"
    exit = 8
    remedy = "Lower the guidance, or use a bundle that was exported with a higher precision."


class Undelivered(ConsisIDError):
    """What the operator added, a signature or a function, failed; no video was delivered."""

    exit = 9


class SigningFailed(Undelivered):
    """The video was made and could not be signed; it was not delivered."""

    code = "SIGNING_FAILED"
    remedy = "Check the signing certificate, its chain and its dates; the message or the server's log has the reason."


class HookFailed(Undelivered):
    """A function of the operator, for consent or the watermark, failed; nothing was delivered."""

    code = "HOOK_FAILED"
    remedy = "Correct the function that the message or the server's log names."


class OutputUnwritable(ConsisIDError):
    """The output cannot be written."""

    code = "OUTPUT_UNWRITABLE"
    exit = 5
    remedy = "Choose a place that exists, is writable and has enough free space."


class OutputBusy(OutputUnwritable):
    """Another process is writing to the same place."""

    code = "OUTPUT_BUSY"
    remedy = "Wait until the other process has ended, or choose another folder."


class MissingExtra(ConsisIDError):
    """A package, a library or a GPU that this needs is missing."""

    code = "MISSING_EXTRA"
    exit = 7
    remedy = "Install what the message names; `consisid doctor` lists what is missing."


class ServerError(ConsisIDError):
    """The server failed for a reason other than the request."""

    code = "SERVER_ERROR"
    exit = 6
    remedy = "Read the server's log; if the message names a full queue, send the request again later."


class ServerUnreachable(ServerError):
    """No server answers at the URL.

    Attributes:
        begun: whether the server may have begun with the request: the connection was lost after it was sent.
    """

    code = "SERVER_UNREACHABLE"
    http = 503
    grpc = "UNAVAILABLE"
    remedy = "Start the server, or correct the URL."

    def __init__(self, message: str, *, begun: bool = False) -> None:
        super().__init__(message)
        self.begun = begun


class CertificateRefused(ServerUnreachable):
    """The server's certificate is not that of its host name, or of no authority that the client trusts."""

    code = "CERTIFICATE_REFUSED"
    remedy = "Use a host name that the certificate has, and name the PEM file of its authority as `ca`."


class Busy(ServerError):
    """The server works on as many requests as it takes; this one was not begun.

    Attributes:
        retry_after: seconds after which the server expects room; None where it did not say.
    """

    code = "BUSY"
    http = 503
    grpc = "UNAVAILABLE"
    remedy = "Send the request again after the seconds that the message names; nothing was computed."

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ServerDied(ServerError):
    """The server ended while it worked on the request."""

    code = "SERVER_DIED"
    http = 502
    grpc = "ABORTED"
    remedy = "Send it again once: the same seed gives the same bytes. If it ends the server again, read its log."


class ServerTimeout(ServerError):
    """The server did not answer in time."""

    code = "SERVER_TIMEOUT"
    http = 504
    grpc = "DEADLINE_EXCEEDED"
    remedy = "Allow a longer timeout, or ask for fewer steps or frames."


class SharedMemoryFull(ServerError):
    """The server has no room left in shared memory for the request's tensors."""

    code = "SHARED_MEMORY_FULL"
    http = 507
    grpc = "RESOURCE_EXHAUSTED"
    remedy = "Send it again later, or a smaller one; the server needs more room in /dev/shm (containers: --shm-size)."


def all_errors() -> list[type[ConsisIDError]]:
    """Every class that has a code of its own, parents before children, siblings in the order of definition.

    Contains the classes of another package once they are imported.
    """
    return [kind for kind in _tree(ConsisIDError) if "code" in vars(kind)]


def exit_codes() -> dict[int, str]:
    """The meaning of each exit code that an error has: the meaning of the first class with this code."""
    meanings: dict[int, str] = {}
    for kind in _tree(ConsisIDError):
        meanings.setdefault(kind.exit, (kind.__doc__ or "").partition("\n")[0])
    return meanings


def _tree(base: type[ConsisIDError]) -> Iterator[type[ConsisIDError]]:
    yield base
    for child in base.__subclasses__():
        yield from _tree(child)


def from_wire(text: str) -> ConsisIDError:
    """The typed error in a server's message, which may start with words of the server before the code.

    A message without a known code becomes a `ServerError` with the whole text.
    """
    kinds = {kind.code: kind for kind in all_errors()}
    match = re.search(rf"\b({'|'.join(sorted(kinds, key=len, reverse=True))}): (.*)", text, re.DOTALL)
    return kinds[match[1]](match[2].strip()) if match else ServerError(text)
