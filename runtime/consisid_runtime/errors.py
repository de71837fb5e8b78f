"""Every error a user can meet, each with a code that survives the trip through a server.

    ConsisIDError
    ├── InvalidRequest
    │   ├── InvalidOption        INVALID_OPTION
    │   ├── EmptyPrompt          EMPTY_PROMPT
    │   ├── ImageUnreadable      IMAGE_UNREADABLE
    │   ├── ImageTooLarge        IMAGE_TOO_LARGE
    │   ├── ImageTooSmall        IMAGE_TOO_SMALL
    │   ├── NoFace               NO_FACE
    │   ├── MultipleFaces        MULTIPLE_FACES
    │   └── FaceIndexOutOfRange  FACE_INDEX_OUT_OF_RANGE
    ├── BundleError
    │   ├── BundleMissing        BUNDLE_MISSING
    │   ├── BundleCorrupt        BUNDLE_CORRUPT
    │   └── BundleVersion        BUNDLE_VERSION
    ├── CheckpointInvalid        CHECKPOINT_INVALID
    ├── CollectionInvalid        COLLECTION_INVALID
    │   └── VideoUnreadable      VIDEO_UNREADABLE
    ├── ExportRefused            EXPORT_REFUSED
    ├── ExportCancelled          EXPORT_CANCELLED
    ├── NotFinite                NOT_FINITE
    ├── OutputUnwritable         OUTPUT_UNWRITABLE
    │   └── OutputBusy           OUTPUT_BUSY
    ├── MissingExtra             MISSING_EXTRA
    └── ServerError              SERVER_ERROR
        ├── ServerUnreachable    SERVER_UNREACHABLE
        └── ServerTimeout        SERVER_TIMEOUT

On the wire an error is the text `CODE: message`.
"""

from __future__ import annotations

import re
from typing import ClassVar


class ConsisIDError(Exception):
    """Base of all errors raised on purpose; `code` is stable across releases, the message is not."""

    code: ClassVar[str] = "INTERNAL"

    def wire(self) -> str:
        """The form an error takes between server and client."""
        return f"{self.code}: {self}"


class InvalidRequest(ConsisIDError):
    """What was asked for cannot be done; nothing was generated."""


class InvalidOption(InvalidRequest):
    code = "INVALID_OPTION"


class EmptyPrompt(InvalidRequest):
    code = "EMPTY_PROMPT"


class ImageUnreadable(InvalidRequest):
    code = "IMAGE_UNREADABLE"


class ImageTooLarge(InvalidRequest):
    code = "IMAGE_TOO_LARGE"


class ImageTooSmall(InvalidRequest):
    code = "IMAGE_TOO_SMALL"


class NoFace(InvalidRequest):
    code = "NO_FACE"


class MultipleFaces(InvalidRequest):
    code = "MULTIPLE_FACES"


class FaceIndexOutOfRange(InvalidRequest):
    code = "FACE_INDEX_OUT_OF_RANGE"


class BundleError(ConsisIDError):
    """The bundle cannot be used as it is."""


class BundleMissing(BundleError):
    code = "BUNDLE_MISSING"


class BundleCorrupt(BundleError):
    code = "BUNDLE_CORRUPT"


class BundleVersion(BundleError):
    code = "BUNDLE_VERSION"


class CheckpointInvalid(ConsisIDError):
    code = "CHECKPOINT_INVALID"


class CollectionInvalid(ConsisIDError):
    """A folder of videos to be judged, or its table."""

    code = "COLLECTION_INVALID"


class VideoUnreadable(CollectionInvalid):
    code = "VIDEO_UNREADABLE"


class ExportRefused(ConsisIDError):
    code = "EXPORT_REFUSED"


class ExportCancelled(ConsisIDError):
    code = "EXPORT_CANCELLED"


class NotFinite(ConsisIDError):
    """The networks returned infinities or NaN."""

    code = "NOT_FINITE"


class OutputUnwritable(ConsisIDError):
    code = "OUTPUT_UNWRITABLE"


class OutputBusy(OutputUnwritable):
    """Another process is writing there now."""

    code = "OUTPUT_BUSY"


class MissingExtra(ConsisIDError):
    code = "MISSING_EXTRA"


class ServerError(ConsisIDError):
    """The server failed in a way that is not the request's fault."""

    code = "SERVER_ERROR"


class ServerUnreachable(ServerError):
    code = "SERVER_UNREACHABLE"


class ServerTimeout(ServerError):
    code = "SERVER_TIMEOUT"


def _codes(base: type[ConsisIDError]) -> dict[str, type[ConsisIDError]]:
    found = {base.code: base}
    for child in base.__subclasses__():
        found |= {code: kind for code, kind in _codes(child).items() if code != ConsisIDError.code}
    return found


CODES = _codes(ConsisIDError)
_WIRE = re.compile(rf"\b({'|'.join(sorted(CODES, key=len, reverse=True))}): (.*)", re.DOTALL)


def from_wire(text: str) -> ConsisIDError:
    """The typed error in a server's message; servers put words of their own before the code.

    A message without a known code becomes a `ServerError` carrying the whole text.
    """
    match = _WIRE.search(text)
    return CODES[match[1]](match[2].strip()) if match else ServerError(text)
