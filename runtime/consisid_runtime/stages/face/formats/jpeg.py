"""JPEG files: tables, frame and scans, by the markers of ITU-T T.81, annex B."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from consisid_runtime.stages.face.formats.essentials import MAX_VISITS, Essentials, damaged, too_costly, unsupported
from consisid_runtime.stages.face.formats.orientation import orientation

_MAX_SEGMENTS = 10_000
# In entropy-coded data FF is followed by 00 (stuffing), FF (fill) or D0–D7 (restart); 01–BF never begin a segment.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
_END, _SCAN = 0xD9, 0xDA
_FRAMES = (0xC0, 0xC1, 0xC2)
"""Baseline, extended and progressive, Huffman-coded: what browsers read too."""
_TABLES = (0xC4, 0xDB, 0xDD)
"""Huffman, quantisation, and the restart interval."""
_OTHER_FRAMES = range(0xC0, 0xD0)
_JFIF, _APP1, _APP2, _ADOBE = 0xE0, 0xE1, 0xE2, 0xEE
_EXIF_NAME, _XMP_NAME, _PROFILE_NAME = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_COEFFICIENT = 2
"""Bytes. Of a file with several scans the decoder holds all of them."""


class _Segment(NamedTuple):
    """A marker, what its segment holds, and where that and the entropy-coded data behind it lie in the file."""

    marker: int
    body: bytes
    start: int
    end: int


def essentials(data: bytes) -> Essentials:
    """Tables, frame and scans of the first image in a JPEG file: no comments, thumbnails or further images.

    Raises `ImageUnreadable` for a damaged file or a kind of JPEG that browsers do not read either; `ImageTooLarge`
    where its scans visit more than 1.6·10⁹ samples.
    """
    kept = [memoryview(data)[:2]]
    exif: list[bytes] = []
    profile: list[bytes] = []
    xmp: bytes | None = None
    samples: dict[int, int] = {}
    visits = scans = 0
    for marker, body, start, end in _segments(data):
        if marker in (*_FRAMES, *_TABLES, _SCAN, _END) or _decides_colours(marker, body):
            kept.append(memoryview(data)[start:end])
        if marker in _FRAMES:
            samples = _samples(body)
        elif marker == _SCAN:
            scans += 1
            visits += sum(samples.get(component, 0) for component in body[1 : 1 + 2 * body[0] : 2]) if body else 0
        elif marker in _OTHER_FRAMES and marker not in _TABLES:
            raise unsupported(f"lossless, hierarchical or arithmetic-coded JPEG (marker FF{marker:02X})")
        elif marker == _APP1 and body.startswith(_EXIF_NAME):
            exif.append(body[len(_EXIF_NAME) :])
        elif marker == _APP1 and body.startswith(_XMP_NAME):
            xmp = body[len(_XMP_NAME) :]
        elif marker == _APP2 and body.startswith(_PROFILE_NAME):
            profile.append(body[len(_PROFILE_NAME) :])
    if scans > 1 and visits > MAX_VISITS:
        raise too_costly(
            f"the JPEG file has {scans} scans that visit {visits // 10**6} million samples, at most "
            f"{MAX_VISITS // 10**6} million are decoded"
        )
    held = _COEFFICIENT * sum(samples.values()) if scans > 1 else 0
    return Essentials(b"".join(kept), orientation(b"".join(exif), xmp), _profile(profile), held)


def _segments(data: bytes) -> Iterator[_Segment]:
    """Every segment up to the end of the image, as libjpeg finds them."""
    found = _MARKER.search(data, 2)
    for _ in range(_MAX_SEGMENTS):
        if found is None:
            return
        start, marker = found.start(), data[found.start() + 1]
        if marker == _END:
            yield _Segment(marker, b"", start, start + 2)
            return
        if marker == 0xD8:
            raise damaged("a second image begins inside of the first")
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        if length < 2:
            raise damaged(f"the segment FF{marker:02X} has no length")
        end = start + 2 + length
        found = _MARKER.search(data, end)
        after = len(data) if found is None else found.start()
        yield _Segment(marker, data[start + 4 : end], start, after if marker == _SCAN else min(end, len(data)))
    raise damaged(f"it has more than {_MAX_SEGMENTS} segments")


def _decides_colours(marker: int, body: bytes) -> bool:
    """Whether a segment tells libjpeg, which asks for these lengths too, what the components are."""
    jfif = marker == _JFIF and body.startswith(b"JFIF\0") and len(body) >= 14
    return jfif or (marker == _ADOBE and body.startswith(b"Adobe") and len(body) >= 12)


def _samples(frame: bytes) -> dict[int, int]:
    """The samples of each component, by its number, from a frame header."""
    try:
        _, height, width, count = struct.unpack_from(">BHHB", frame)
        components = [struct.unpack_from(">BB", frame, 6 + 3 * index) for index in range(count)]
    except struct.error:
        raise damaged("its frame header is incomplete") from None
    across = max((factors >> 4 for _, factors in components), default=1)
    down = max((factors & 15 for _, factors in components), default=1)
    samples: dict[int, int] = {}
    for number, factors in components:
        share = (factors >> 4) * (factors & 15) / max(1, across * down)
        samples[number] = samples.get(number, 0) + int(height * width * share)
    return samples


def _profile(parts: list[bytes]) -> bytes | None:
    """A profile from its numbered parts, each with its number and their count first; None where parts are missing."""
    parts = sorted(parts)
    if not parts or len(parts[0]) < 2 or parts[0][1] != len(parts):
        return None
    return b"".join(part[2:] for part in parts)
