"""Where each tensor lies in safetensors files, so that a graph can refer to it there; nothing is read but headers.

What must be rewritten, because a graph wants another dtype than the one stored, is streamed in pieces of `_PIECE` bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from consisid_runtime.errors import CheckpointInvalid

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
}
"""Names in a safetensors header → dtypes."""

_PIECE = 1 << 24
_HEADER_LIMIT = 100_000_000  # the format's own


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor in a safetensors file: `length` bytes from `offset`, little-endian, row-major."""

    file: Path
    offset: int
    length: int
    dtype: torch.dtype
    shape: tuple[int, ...]


def stored_tensors(file: Path) -> dict[str, Stored]:
    """Every tensor of a safetensors file by name. Raises `CheckpointInvalid` for another or a truncated file."""
    with file.open("rb") as stream:
        prefix = stream.read(8)
        size = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else _HEADER_LIMIT + 1
        if size > _HEADER_LIMIT:
            raise CheckpointInvalid(f"{file} is not a safetensors file")
        try:
            header: dict[str, Any] = json.loads(stream.read(size))
        except ValueError as error:
            raise CheckpointInvalid(f"{file} is not a safetensors file ({error})") from error
    header.pop("__metadata__", None)
    tensors = {name: _stored(file, name, entry, 8 + size) for name, entry in header.items()}
    end = max((tensor.offset + tensor.length for tensor in tensors.values()), default=8 + size)
    if file.stat().st_size < end:
        raise CheckpointInvalid(f"{file} has {file.stat().st_size} bytes, its header needs {end}; download it again")
    return tensors


def _stored(file: Path, name: str, entry: Mapping[str, Any], base: int) -> Stored:
    if entry["dtype"] not in DTYPES:
        raise CheckpointInvalid(f"{file}: {name} is {entry['dtype']}; supported are {', '.join(DTYPES)}")
    begin, end = entry["data_offsets"]
    return Stored(file, base + begin, end - begin, DTYPES[entry["dtype"]], tuple(entry["shape"]))


def link(source: Path, target: Path, *, copy: bool) -> None:
    """Make `target` the same file as `source`: a hard link, or with `copy`, or on another file system, a copy.

    ONNX Runtime refuses symbolic links.
    """
    if not copy:
        try:
            os.link(source.resolve(), target)
            return
        except OSError:
            pass
    with _appearing(target) as fresh:
        shutil.copyfile(source, fresh)


def write_converted(path: Path, sources: Mapping[str, Stored | Tensor], dtype: torch.dtype) -> None:
    """Write a safetensors file of `sources`, floats as `dtype`, one piece in memory at a time. Appears when complete."""
    names = {value: name for name, value in DTYPES.items()}
    # The widest first, so that each lies at a multiple of its own width.
    sources = dict(sorted(sources.items(), key=lambda item: -_target(item[1], dtype).itemsize))
    header: dict[str, Any] = {}
    offset = 0
    for name, source in sources.items():
        target = _target(source, dtype)
        length = torch.Size(source.shape).numel() * target.itemsize
        header[name] = {"dtype": names[target], "shape": list(source.shape), "data_offsets": [offset, offset + length]}
        offset += length
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with _appearing(path) as fresh, fresh.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for source in sources.values():
            for piece in _pieces(source):
                stream.write(piece.to(_target(source, dtype)).view(torch.uint8).numpy().data)


def _target(source: Stored | Tensor, dtype: torch.dtype) -> torch.dtype:
    return dtype if source.dtype.is_floating_point else source.dtype


def _pieces(source: Stored | Tensor) -> Iterator[Tensor]:
    """The values, flat. Files are read rather than mapped: mapped pages would count as memory of this process."""
    if isinstance(source, Tensor):
        yield from source.detach().flatten().split(_PIECE // source.itemsize)
        return
    with source.file.open("rb") as stream:
        stream.seek(source.offset)
        left = source.length
        while left:
            data = bytearray(min(left, _PIECE))
            if stream.readinto(data) != len(data):
                raise CheckpointInvalid(f"{source.file} ended early; download it again")
            left -= len(data)
            yield torch.frombuffer(data, dtype=source.dtype)


@contextlib.contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path` when the block succeeds."""
    fresh = path.with_name(f".{path.name}.part")
    try:
        yield fresh
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
