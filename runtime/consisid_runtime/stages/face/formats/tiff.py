"""TIFF files: the first image, by the directories of TIFF 6.0 and BigTIFF."""

from __future__ import annotations

import struct
from typing import NamedTuple

from consisid_runtime.stages.face.formats.essentials import MAX_VISITS, Essentials, damaged, too_costly, unsupported
from consisid_runtime.stages.face.formats.orientation import UPRIGHT, orientation

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES = 256, 257, 258, 259, 277
_STRIPS, _ROWS, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _TILES = 273, 278, 284, 322, 323, 324
_XMP, _PROFILE, _ORIENTATION = 700, 34675, 274
_KEPT = frozenset(
    [
        *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, 262, 266, _STRIPS, _SAMPLES, _ROWS, 279, _PLANAR, 292, 293, 317, 320),
        *(_TILE_WIDTH, _TILE_HEIGHT, _TILES, 325, 338, 339, 347, 529, 530, 531, 532),
    ]
)
"""Sizes, layout, compression and colours: what libtiff needs to decode the image."""
_COMPRESSIONS = (1, 2, 3, 4, 5, 7, 8, 32773, 32946)
"""None, CCITT's three, LZW, JPEG, deflate, PackBits, deflate's older number."""
_NONE, _JPEG = 1, 7
_JPEG_SCANS = 100
"""libtiff decodes no more scans of one strip."""
_SEPARATE = 2
_MAX_ENTRIES, _MAX_VALUES = 4096, 2**17
_SMALL = 10**6
"""Pixels: tiles may be far larger than an image below this."""
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of each type's values."""
_WHOLE = {1: "B", 3: "H", 4: "I", 16: "Q"}


class _Form(NamedTuple):
    """How a directory is written, in the letters of `struct`.

    Attributes:
        order: of the bytes.
        total: the number of entries.
        entry: tag, type, count of values, and their place or themselves.
        inline: bytes of values that an entry holds itself; also where the header has the directory's place.
    """

    order: str
    total: str
    entry: str
    inline: int

    @property
    def offset(self) -> str:
        return self.entry[-1]


class _Entry(NamedTuple):
    """An entry as it is in the file, its type, how many values it has, and where they are."""

    raw: bytes
    kind: int
    values: int
    at: int


def essentials(data: bytes) -> Essentials:
    """The first image of a TIFF file, without metadata and further images.

    Raises `ImageUnreadable` for a damaged file or an unusual compression, `ImageTooLarge` where strips or tiles hold
    far more than the image, or JPEG in them may visit more than 1.6·10⁹ samples.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    form = _Form(order, "Q", "HHQQ", 8) if big else _Form(order, "H", "HHII", 4)
    try:
        (first,) = struct.unpack_from(order + form.offset, data, form.inline)
        entries = _directory(data, first, form)
    except struct.error:
        raise damaged("its directory is incomplete") from None
    numbers = {tag: _number(data, entry, order) for tag, entry in entries.items()}
    kept = {tag: entry for tag, entry in entries.items() if tag in _KEPT}
    if any(e.values > _MAX_VALUES for e in kept.values()) or sum(map(_bytes, kept.values())) > len(data):
        raise damaged("a tag has more values than an image needs")
    jpeg_scans = min(_JPEG_SCANS, data.count(b"\xff\xda")) if numbers.get(_COMPRESSION) == _JPEG else 1
    held = _check_layout(numbers, kept, jpeg_scans)
    profile, xmp = (_content(data, entries.get(tag)) for tag in (_PROFILE, _XMP))
    turned = numbers[_ORIENTATION] if _ORIENTATION in numbers else orientation(None, xmp)
    return Essentials(
        _with_directory(data, [kept[tag].raw for tag in sorted(kept)], form),
        turned if 1 <= turned <= 8 else UPRIGHT,
        profile,
        held,
    )


def _directory(data: bytes, offset: int, form: _Form) -> dict[int, _Entry]:
    """The entries of the directory at `offset` by their tags; of equal tags the first."""
    (count,) = struct.unpack_from(form.order + form.total, data, offset)
    if count > _MAX_ENTRIES:
        raise damaged(f"its directory has {count} entries")
    size = struct.calcsize(form.order + form.entry)
    begin = offset + struct.calcsize(form.order + form.total)
    entries: dict[int, _Entry] = {}
    for at in range(begin, begin + count * size, size):
        tag, kind, values, where = struct.unpack_from(form.order + form.entry, data, at)
        found = _Entry(data[at : at + size], kind, values, where)
        if _bytes(found) <= form.inline:
            found = found._replace(at=at + size - form.inline)
        entries.setdefault(tag, found)
    return entries


def _bytes(entry: _Entry) -> int:
    return entry.values * _SIZES.get(entry.kind, 1)


def _number(data: bytes, entry: _Entry, order: str) -> int:
    """An entry's first value; 0 where it is no whole number."""
    form = _WHOLE.get(entry.kind)
    try:
        return int(struct.unpack_from(order + form, data, entry.at)[0]) if form and entry.values else 0
    except struct.error:  # beyond the end of the file
        return 0


def _content(data: bytes, entry: _Entry | None) -> bytes | None:
    """An entry's values, where they are bytes."""
    if entry is None or _SIZES.get(entry.kind) != 1:
        return None
    return data[entry.at : entry.at + entry.values]


def _check_layout(numbers: dict[int, int], entries: dict[int, _Entry], scans: int) -> int:
    """Bytes that the decoder needs beside its result. Raises what `essentials` raises.

    Args:
        numbers: the first value of each tag.
        scans: of each strip or tile.
    """
    compression = numbers.get(_COMPRESSION, _NONE)
    if compression not in _COMPRESSIONS:
        raise unsupported(f"TIFF with compression {compression}")
    width, height = max(1, numbers.get(_WIDTH, 0)), max(1, numbers.get(_HEIGHT, 0))
    samples = max(1, numbers.get(_SAMPLES, 1))
    if _STRIPS in entries:
        listed, across, down = entries[_STRIPS].values, width, min(numbers.get(_ROWS) or height, height)
    elif _TILES in entries:
        listed, across, down = entries[_TILES].values, numbers.get(_TILE_WIDTH, 0), numbers.get(_TILE_HEIGHT, 0)
    else:
        raise damaged("it lists neither strips nor tiles")
    if not across or not down:
        raise damaged("its tiles have no size")
    parts = -(-width // across) * -(-height // down)
    if listed > parts * (samples if numbers.get(_PLANAR) == _SEPARATE else 1):
        raise damaged(f"it lists {listed} strips or tiles, its size needs {parts}")
    area = parts * across * down
    if area > 4 * max(width * height, _SMALL) or area * samples * scans > MAX_VISITS:
        raise too_costly(f"the TIFF file's strips or tiles hold {area * scans / 10**6:.0f} million pixels")
    return 0 if compression == _NONE else across * down * samples * max(8, numbers.get(_BITS, 8)) // 8


def _with_directory(data: bytes, entries: list[bytes], form: _Form) -> bytes:
    """The file with a directory of these entries, which is its only one."""
    padding = b"\0" * (len(data) % 2)
    place = struct.pack(form.order + form.offset, len(data) + len(padding))
    count = struct.pack(form.order + form.total, len(entries))
    none = struct.pack(form.order + form.offset, 0)
    rest = memoryview(data)[form.inline + len(place) :]
    return b"".join([data[: form.inline], place, rest, padding, count, *entries, none])
