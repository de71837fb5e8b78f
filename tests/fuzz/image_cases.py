"""Image files of every format that is read, with changes of their structure and of their bytes."""

from __future__ import annotations

import functools
import io
import re
import struct
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
from byte_changes import NUMBERS, changed
from PIL import Image, ImageCms

from consisid_runtime.stages.face.image import read_photo

_WIDTH, _HEIGHT = 96, 80


def make(chance: Random) -> bytes:
    name = chance.choice(sorted(seeds()))
    data = seeds()[name]
    if chance.random() < 0.7:
        for _ in range(chance.randint(1, 3)):
            data = _STRUCTURES[name.split()[0]](chance, data)
    if chance.random() < 0.6:
        data = changed(chance, data, [chance.choice(list(seeds().values())) for _ in range(3)])
    return data


def run(case: bytes) -> None:
    photo = read_photo(case)
    height, width, channels = photo.pixels.shape
    assert photo.pixels.dtype == np.uint8 and channels == 3
    assert photo.height >= height >= photo.height // 4 and photo.width >= width >= photo.width // 4
    int(photo.pixels.sum())  # every pixel can be read


@functools.cache
def seeds() -> dict[str, bytes]:
    """Valid files by their format and variant."""
    noise = np.random.default_rng(0).integers(0, 256, (_HEIGHT, _WIDTH, 4), np.uint8)
    ramp = np.linspace(0, 255, _WIDTH).astype(np.uint8)
    noise[:40] = ramp[None, :, None]
    rgba, rgb, grey = Image.fromarray(noise), Image.fromarray(noise[..., :3]), Image.fromarray(noise[..., 0])
    wide = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    palette, bits = rgb.quantize(16), grey.convert("1")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    both: dict[str, Any] = {"icc_profile": profile, "exif": exif}
    found = {
        "JPEG plain": _file(rgb, "JPEG"),
        "JPEG progressive": _file(rgb, "JPEG", progressive=True, **both),
        "JPEG grey": _file(grey, "JPEG", quality=30),
        "JPEG cmyk": _file(rgb.convert("CMYK"), "JPEG"),
        "JPEG restarts": _file(rgb, "JPEG", restart_marker_blocks=2, subsampling=0),
        "PNG plain": _file(rgb, "PNG", **both),
        "PNG alpha": _file(rgba, "PNG"),
        "PNG palette": _file(palette, "PNG", transparency=3),
        "PNG bits": _file(bits, "PNG"),
        "PNG wide": _file(wide, "PNG"),
        "PNG animated": _file(rgb, "PNG", save_all=True, append_images=[rgb.rotate(90), rgb]),
        "WEBP lossy": _file(rgb, "WEBP", **both),
        "WEBP lossless": _file(rgba, "WEBP", lossless=True),
        "WEBP alpha": _file(rgba, "WEBP", quality=40),
        "WEBP animated": _file(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(90)]),
        "BMP plain": _file(rgb, "BMP"),
        "BMP palette": _file(palette, "BMP"),
        "BMP bits": _file(bits, "BMP"),
        "BMP runs": _runs(),
        "GIF plain": _file(palette, "GIF"),
        "GIF animated": _file(rgb, "GIF", save_all=True, append_images=[rgb.rotate(90)], disposal=2, transparency=1),
        "TIFF plain": _file(rgb, "TIFF", **both),
        "TIFF wide": _file(wide, "TIFF"),
        "TIFF pages": _file(grey, "TIFF", save_all=True, append_images=[grey]),
        "TIFF big": _file(rgb, "TIFF", big_tiff=True),
    }
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        found[f"TIFF {compression}"] = _file(rgb, "TIFF", compression=compression)
    for compression in ("group3", "group4", "tiff_ccitt"):
        found[f"TIFF {compression}"] = _file(bits, "TIFF", compression=compression)
    return found


def _file(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _runs() -> bytes:
    """A run-length encoded BMP."""
    body = (b"\x60\x80\0\0" * _HEIGHT) + b"\0\1"
    palette = b"".join(bytes([level] * 3 + [0]) for level in range(256))
    info = struct.pack("<IiiHHIIiiII", 40, _WIDTH, _HEIGHT, 1, 8, 1, len(body), 0, 0, 256, 0)
    start = 14 + len(info) + len(palette)
    return struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start) + info + palette + body


def _rearranged(chance: Random, parts: list[Any], change: Callable[[Any], Any]) -> list[Any]:
    """Parts of a file, of which one was changed, removed, repeated or moved."""
    if not parts:
        return parts
    parts, place = list(parts), chance.randrange(len(parts))
    what = chance.randrange(8)
    if what == 0:
        del parts[place]
    elif what == 1:
        parts[place:place] = [parts[place]] * chance.choice([1, 2, 50, 1000])
    elif what == 2:
        parts.insert(chance.randrange(len(parts)), parts.pop(place))
    else:
        parts[place] = change(parts[place])
    return parts


def _png(chance: Random, data: bytes) -> bytes:
    """Chunks with checksums that are right; of pixels also what is in them."""
    parts, at = [], 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        parts.append((kind, data[at + 8 : at + 8 + length]))
        at += 12 + length

    def change(part: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        kind, body = part
        if kind == b"IDAT" and chance.random() < 0.7:
            try:
                body = zlib.compress(changed(chance, zlib.decompress(body)))
            except zlib.error:
                body = changed(chance, body)
            return kind, body
        if chance.random() < 0.15:
            kind = chance.choice([b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"acTL", b"fcTL", b"fdAT", b"eXIf", b"iCCP"])
        return kind, changed(chance, body, most=2)

    parts = _rearranged(chance, parts, change)
    chunks = [struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _jpeg(chance: Random, data: bytes) -> bytes:
    """Segments with lengths that are right."""
    places = [found.start() for found in re.finditer(rb"\xff[\xc0-\xcf\xda-\xfe]", data)]
    parts = [data[start:end] for start, end in zip(places, [*places[1:], len(data)], strict=True)]

    def change(part: bytes) -> bytes:
        size = int.from_bytes(part[2:4], "big")
        head = changed(chance, part[4 : 2 + size], most=2)
        marker = chance.randint(0xC0, 0xFE) if chance.random() < 0.1 else part[1]
        return bytes([0xFF, marker]) + min(len(head) + 2, 65535).to_bytes(2, "big") + head + part[2 + size :]

    return data[:2] + b"".join(_rearranged(chance, parts, change))


def _webp(chance: Random, data: bytes) -> bytes:
    """RIFF chunks with lengths that are right."""
    parts, at = [], 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        parts.append((kind, data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    known = [b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"EXIF", b"ICCP", b"XMP "]

    def change(part: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        return chance.choice(known) if chance.random() < 0.15 else part[0], changed(chance, part[1], most=2)

    parts = _rearranged(chance, parts, change)
    body = b"".join(k + struct.pack("<I", len(b)) + b + bytes(len(b) % 2) for k, b in parts)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _tiff(chance: Random, data: bytes) -> bytes:
    """One entry of the first directory with another tag, type, count or value."""
    order, big = ("<" if data[:2] == b"II" else ">"), data[2:4] in (b"+\0", b"\0+")
    try:
        (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, place)
        size, first = (20, place + 8) if big else (12, place + 2)
        at = first + size * chance.randrange(max(1, min(count, 64)))
        form = order + ("HHQQ" if big else "HHII")
        entry = list(struct.unpack_from(form, data, at))
    except struct.error:
        return changed(chance, data)
    field = chance.randrange(4)
    most = 2**16 if field < 2 else 2 ** (64 if big else 32)
    usual = [[254, 256, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 324, 338, 339, 347, 530], range(19)]
    entry[field] = chance.choice(usual[field] if field < 2 else NUMBERS) % most
    found = bytearray(data)
    struct.pack_into(form, found, at, *entry)
    return bytes(found)


def _gif(chance: Random, data: bytes) -> bytes:
    """The screen's or the image's fields, or blocks that are repeated."""
    place = data.find(b",", 13)
    if place < 0 or chance.random() < 0.4:
        return data[:6] + changed(chance, data[6:13], most=2) + data[13:]
    if chance.random() < 0.5:
        return data[:place] + b"!\xfe\3abc\0" * chance.choice([1, 100]) + data[place:]
    return data[: place + 1] + changed(chance, data[place + 1 : place + 12], most=2) + data[place + 12 :]


def _bmp(chance: Random, data: bytes) -> bytes:
    """One field of the headers."""
    place, size = chance.choice([(10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2), (30, 4), (34, 4), (46, 4)])
    number = chance.choice([*NUMBERS, 24, 40, 108, 124, _WIDTH, _HEIGHT, 2**32 - _HEIGHT]) % 256**size
    return data[:place] + number.to_bytes(size, "little") + data[place + size :]


_STRUCTURES: dict[str, Callable[[Random, bytes], bytes]] = {
    "JPEG": _jpeg, "PNG": _png, "WEBP": _webp, "BMP": _bmp, "GIF": _gif, "TIFF": _tiff,
}  # fmt: skip
