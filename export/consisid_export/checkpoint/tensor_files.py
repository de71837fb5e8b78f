"""Locates tensors in safetensors files by their headers, so that a graph can refer to them there.

Tensors that are needed in another dtype than the stored one are converted as a stream.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.files.atomic import replacing_file
from consisid_runtime.files.json_file import parse_json

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
}
"""Names in a safetensors header → dtypes."""

PIECE = 1 << 22
"""Elements that are in memory at a time."""

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
            header: dict[str, Any] = parse_json(stream.read(size), most=size)
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
    with replacing_file(target) as fresh:
        shutil.copyfile(source, fresh)


def write_converted(path: Path, sources: Mapping[str, Stored | Tensor], dtype: torch.dtype) -> None:
    """Write a safetensors file of `sources`, floats as `dtype`; no tensor is ever whole in memory."""

    def target(name: str) -> torch.dtype:
        return dtype if sources[name].dtype.is_floating_point else sources[name].dtype

    layout = {name: (target(name), tuple(source.shape)) for name, source in sources.items()}
    write_tensors(path, layout, lambda name: (piece.to(target(name)) for piece in pieces(sources[name])))


def write_tensors(
    path: Path,
    layout: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    values: Callable[[str], Iterable[Tensor]],
) -> None:
    """Write a safetensors file piece by piece. It appears when it is complete.

    Args:
        layout: dtype and shape of every tensor.
        values: called for one name after another; gives the tensor's values in order, flat, in pieces of any size.
    """
    names = {value: name for name, value in DTYPES.items()}
    # The widest first, so that each lies at a multiple of its own width.
    order = sorted(layout, key=lambda name: -layout[name][0].itemsize)
    header: dict[str, Any] = {}
    offset = 0
    for name in order:
        dtype, shape = layout[name]
        end = offset + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": names[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing_file(path) as fresh, fresh.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            for piece in values(name):
                stream.write(piece.view(torch.uint8).numpy().data)


def pieces(source: Stored | Tensor) -> Iterator[Tensor]:
    """A tensor's values, flat, in pieces of `PIECE` elements.

    Files are read rather than mapped: mapped pages would count as memory of this process.
    """
    if isinstance(source, Tensor):
        flat = source.detach().flatten()
        yield from (flat[start : start + PIECE] for start in range(0, len(flat), PIECE))
        return
    with source.file.open("rb") as stream:
        stream.seek(source.offset)
        left = source.length
        while left:
            data = bytearray(min(left, PIECE * source.dtype.itemsize))
            if stream.readinto(data) != len(data):
                raise CheckpointInvalid(f"{source.file} ended early; download it again")
            left -= len(data)
            yield torch.frombuffer(data, dtype=source.dtype)
