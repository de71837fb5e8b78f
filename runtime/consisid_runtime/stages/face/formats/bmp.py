"""BMP files: only those that are run-length encoded cost more than their size, for Pillow decodes them in Python."""

from __future__ import annotations

import struct

from consisid_runtime.stages.face.formats.essentials import Essentials, too_costly

_RUN_LENGTH = (1, 2)
_MAX_BYTES, _MAX_PIXELS = 4 * 2**20, 4 * 10**6


def essentials(data: bytes) -> Essentials:
    """The file as it is. Raises `ImageTooLarge` for a run-length encoded one above 4 MiB or 4 megapixels."""
    if len(data) >= 34:
        width, height, compression = struct.unpack_from("<ii4xI", data, 18)
        if compression in _RUN_LENGTH and (len(data) > _MAX_BYTES or abs(width * height) > _MAX_PIXELS):
            raise too_costly("a run-length encoded BMP file may have at most 4 MiB and 4 megapixels")
    return Essentials(data)
