"""Files that are small or healthy and would cost, or used to cost, far more than they are worth."""

import io
import re
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageCms

EDGE = 8000
"""64 megapixels, the most that is read."""


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def photograph(edge: int, mode: str = "RGB") -> Image.Image:
    """Smooth colours, which compress quickly."""
    across = np.linspace(0, 255, edge).astype(np.uint8)
    pixels = np.empty((edge, edge, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = across, across[::-1], across[:, None]
    return Image.fromarray(pixels).convert(mode)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, edge: int = 80) -> bytes:
    """A grey PNG with these chunks behind its header."""
    header = struct.pack(">IIBBBBB", edge, edge, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x80" * edge) * edge)
    return b"".join([b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *chunks, chunk(b"IDAT", rows), chunk(b"IEND", b"")])


def clear_png(edge: int) -> bytes:
    """A PNG in which every pixel is transparent."""
    header = struct.pack(">IIBBBBB", edge, edge, 8, 6, 0, 0, 0)
    rows = zlib.compress(bytes(edge * (1 + 4 * edge)), 1)
    return png()[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg(*segments: bytes, edge: int = 96, **options: Any) -> bytes:
    """A JPEG with these segments behind its first marker."""
    whole = encode(photograph(edge), "JPEG", **options)
    return whole[:2] + b"".join(segments) + whole[2:]


def scan_bomb(edge: int, scans: int) -> bytes:
    """A progressive JPEG in which one scan is repeated."""
    whole = encode(Image.new("L", (edge, edge), 128), "JPEG", progressive=True)
    begins = [found.start() for found in re.finditer(b"\xff\xda", whole)]
    return whole[: begins[2]] + whole[begins[1] : begins[2]] * scans + whole[begins[2] :]


def directory(*entries: tuple[int, int, int, int], order: str = "<", after: bytes = b"") -> bytes:
    """A TIFF structure of one directory: tag, type, count of values, and their place or value."""
    begin = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, len(entries))
    return begin + b"".join(struct.pack(order + "HHII", *entry) for entry in entries) + struct.pack("I", 0) + after


def bmp_rle(edge: int, body: bytes) -> bytes:
    """A run-length encoded BMP of 8 bits."""
    palette = b"".join(bytes([level] * 3 + [0]) for level in range(256))
    info = struct.pack("<IiiHHIIiiII", 40, edge, edge, 1, 8, 1, len(body), 0, 0, 256, 0)
    start = 14 + len(info) + len(palette)
    return struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start) + info + palette + body


def tiled_tiff(edge: int, tile: int) -> bytes:
    """A small image of one large tile, deflated."""
    data = zlib.compress(bytes(tile * tile), 9)
    entries = [(256, 4, 1, edge), (257, 4, 1, edge), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    entries += [(322, 4, 1, tile), (323, 4, 1, tile), (324, 4, 1, 0), (325, 4, 1, len(data))]
    place = len(directory(*entries))
    entries[8] = (324, 4, 1, place)
    return directory(*entries, after=data)


def repeated_strips(edge: int, strips: int) -> bytes:
    """An uncompressed TIFF whose list of strips goes around the image many times, all of them the same bytes."""
    rows = edge // 2
    entries = [(256, 4, 1, edge), (257, 4, 1, edge), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    entries += [(273, 4, strips, 0), (278, 4, 1, rows), (279, 4, strips, 0)]
    place = len(directory(*entries))
    pixels = place + 8 * strips
    entries[6], entries[8] = (273, 4, strips, place), (279, 4, strips, place + 4 * strips)
    lists = struct.pack(f"<{strips}I", *[pixels] * strips) + struct.pack(f"<{strips}I", *[rows * edge] * strips)
    return directory(*entries, after=lists + bytes(rows * edge))


def long_profile(elements: int) -> bytes:
    """sRGB's profile with a floating-point transform of so many elements, all of them the same three curves."""
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    (count,) = struct.unpack_from(">I", plain, 128)
    table, rest = plain[132 : 132 + 12 * count], plain[132 + 12 * count :]
    segment = struct.pack(">4s4xHH4f", b"parf", 0, 0, 1.01, 1, 0, 0)
    curve = struct.pack(">4s4xHH", b"curf", 1, 0) + segment
    curves = struct.pack(">4s4xHH", b"cvst", 3, 3) + struct.pack(">II", 36, len(curve)) * 3 + curve
    head = struct.pack(">4s4xHHI", b"mpet", 3, 3, elements)
    places = struct.pack(">II", len(head) + 8 * elements, len(curves)) * elements
    body = head + places + curves
    rest += bytes(-len(rest) % 4)
    moved = b"".join(struct.pack(">4sII", name, at + 12, size) for name, at, size in struct.iter_unpack(">4sII", table))
    moved += struct.pack(">4sII", b"D2B0", 144 + 12 * count + len(rest), len(body))
    whole = struct.pack(">I", count + 1) + moved + rest + body
    return struct.pack(">I", 128 + len(whole)) + plain[4:8] + b"\4\x30\0\0" + plain[12:128] + whole
