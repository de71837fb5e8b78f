"""GIF files: the first image and its transparency, by the blocks of the GIF89a specification."""

from __future__ import annotations

import re

from consisid_runtime.stages.face.formats.essentials import Essentials, damaged

SIGNATURES = (b"GIF87a", b"GIF89a")
_HEADER = 13
_MAX_BLOCKS = 200_000
_BLOCK = re.compile(rb"[!,;]")
_EXTENSION, _IMAGE, _CONTROL = 0x21, 0x2C, 0xF9


def essentials(data: bytes) -> Essentials:
    """Screen, first image and its graphic control extension of a GIF file.

    Raises `ImageUnreadable` for a damaged file, also one with more than 200,000 blocks before its image.
    """
    if len(data) < _HEADER:
        raise damaged("its header is incomplete")
    flags = data[10]
    start = at = _HEADER + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    control = b""
    blocks = 0
    while found := _BLOCK.search(data, at):
        at = found.start()
        if data[at] == _IMAGE:
            return Essentials(b"".join([data[:start], control, memoryview(data)[at:]]))
        if data[at] != _EXTENSION:
            break
        begin, at = at, at + 2
        while at < len(data) and data[at]:
            at += 1 + data[at]
            blocks += 1
            if blocks > _MAX_BLOCKS:
                break
        at += 1
        blocks += 1
        if blocks > _MAX_BLOCKS:
            raise damaged(f"it has more than {_MAX_BLOCKS} blocks before its image")
        if data[begin + 1 : begin + 2] == bytes([_CONTROL]):
            control = data[begin:at]
    raise damaged("it contains no image")
