"""PNG files: header, palette, transparency and pixels, by the chunks of the PNG specification (W3C, third edition)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from consisid_runtime.stages.face.formats.essentials import Essentials, damaged
from consisid_runtime.stages.face.formats.orientation import orientation
from consisid_runtime.stages.face.formats.profile import MAX_BYTES

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS = 20_000
"""Writers put 8 KiB into a chunk of pixels, or more: a file of 64 MiB has 8,192 of them."""
_MAX_TEXT = 2**20
_XMP = b"XML:com.adobe.xmp"
_RAW_EXIF = b"Raw profile type exif"
"""The keyword of EXIF data in a text chunk, which ImageMagick wrote before PNG had `eXIf`."""


def essentials(data: bytes) -> Essentials:
    """Header, palette, transparency and pixels of a PNG file: the default image of an animated one.

    Raises `ImageUnreadable` for more than 20,000 chunks.
    """
    kept: dict[bytes, memoryview] = {}
    pixels: list[memoryview] = []
    # The last of each name; inflated behind the loop, for a file has room for thousands.
    metadata: dict[bytes, memoryview] = {}
    texts: dict[bytes, tuple[bytes, memoryview]] = {}
    for kind, start, end in _chunks(data):
        body = memoryview(data)[start:end]
        if kind == b"IDAT":
            pixels.append(body)
        elif kind in (b"IHDR", b"PLTE", b"tRNS"):
            kept.setdefault(kind, memoryview(data)[start - 8 : end + 4])
        elif kind in (b"iCCP", b"eXIf"):
            metadata[kind] = body
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            keyword = bytes(body[:80]).partition(b"\0")[0]
            if keyword in (_XMP, _RAW_EXIF):
                texts[keyword] = kind, body[len(keyword) + 1 :]
    exif = bytes(metadata.get(b"eXIf", b"")) or _raw_profile(_text(texts.get(_RAW_EXIF)))
    profile = bytes(metadata.get(b"iCCP", b"")).partition(b"\0")[2][1:]
    return Essentials(
        b"".join([SIGNATURE, *kept.values(), *_chunk(b"IDAT", b"".join(pixels)), *_chunk(b"IEND", b"")]),
        orientation(exif, _text(texts.get(_XMP))),
        _inflated(profile, MAX_BYTES),
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the content of every chunk, the last one possibly incomplete."""
    at = len(SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, at + 8, min(at + 8 + length, len(data))
        if kind == b"IEND":
            return
        at += 12 + length
    raise damaged(f"it has more than {_MAX_CHUNKS} chunks")


def _chunk(kind: bytes, body: bytes) -> tuple[bytes, ...]:
    return struct.pack(">I", len(body)), kind, body, struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def _inflated(data: bytes, limit: int) -> bytes | None:
    """zlib's data decompressed; None where that is damaged or longer than `limit` bytes."""
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(data, limit + 1)
    except zlib.error:
        return None
    return text if len(text) <= limit and stream.eof else None


def _text(chunk: tuple[bytes, memoryview] | None) -> bytes | None:
    """The text of a chunk, given its kind and what follows its keyword; None where it is damaged or above 1 MiB."""
    if chunk is None:
        return None
    kind, content = chunk[0], bytes(chunk[1])
    if kind == b"iTXt":
        compressed, content = content[:1] == b"\1", content[2:].partition(b"\0")[2].partition(b"\0")[2]
    else:
        compressed = kind == b"zTXt"
        content = content[1:] if compressed else content
    return _inflated(content, _MAX_TEXT) if compressed else content[:_MAX_TEXT]


def _raw_profile(text: bytes | None) -> bytes | None:
    """The bytes of ImageMagick's hexadecimal form: a line break, a name, a length, then the digits in lines."""
    try:
        return bytes.fromhex(b"".join((text or b"").split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return None
