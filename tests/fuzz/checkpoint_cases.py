"""Checkpoints: true ones with other content, and with digests that are right for it."""

from __future__ import annotations

import functools
import hashlib
import json
import struct
from random import Random
from typing import Any

import numpy as np
from byte_changes import NUMBERS, changed
from json_changes import encoded, value, with_changes

from consisid_runtime.options import Options
from consisid_runtime.plan import Geometry, plan
from consisid_runtime.stages.checkpoint import Origin, read, write

_GEOMETRY = Geometry(frames=9, height=64, width=96, spatial=8, temporal=4, patch=2, fixed_size=False)
_PLAN = plan(Options(steps=5), _GEOMETRY)
_ORIGIN = Origin("f" * 64, "a device", "d" * 64)
_TYPES = ["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "F8_E4M3", "F4", "C64", "X", ""]


@functools.cache
def true() -> bytes:
    """As a request writes it."""
    draw = np.random.default_rng(0)
    latents = draw.standard_normal((1, 3, 2, 8, 12)).astype(np.float32)
    generator = draw.integers(0, 256, 5056).astype(np.uint8)
    return write(2, {"latents": latents, "x0": latents[..., ::-1], "generator": generator}, _ORIGIN)


def make(chance: Random) -> bytes:
    data = true()
    if chance.random() < 0.75:
        data = rewritten(chance, data)
    return changed(chance, data) if chance.random() < 0.4 else data


def rewritten(chance: Random, data: bytes) -> bytes:
    """Other headers, tensors and metadata; the digest is that of the tensors as they are now."""
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), bytearray(data[8 + size :])
    own: Any = json.loads(header["__metadata__"]["consisid"])
    name = chance.choice(["latents", "x0", "generator"])
    entry = header[name]
    start, end = entry["data_offsets"]
    what = chance.randrange(7)
    if what == 0:
        entry["dtype"] = chance.choice(_TYPES)
    elif what == 1:
        entry["shape"] = [chance.choice([0, 1, 2, 3, 8, 12, 2**31, 2**62, -1]) for _ in range(chance.randrange(7))]
    elif what == 2:
        entry["data_offsets"] = [chance.choice([0, start, end, *NUMBERS]), chance.choice([start, end, *NUMBERS])]
    elif what == 3:
        if name == "generator":
            body[start : start + 24] = changed(chance, bytes(body[start : start + 24]), most=2)[:24].ljust(24, b"\0")
        else:
            numbers = np.frombuffer(body[start:end], np.float32).copy()
            numbers[chance.randrange(len(numbers))] = chance.choice([np.nan, np.inf, 3e38, 0.0])
            body[start:end] = numbers.tobytes()
    elif what == 4:
        header[chance.choice(["latents", "x0", "more", ""])] = header.pop(name)
    elif what == 5:
        own = with_changes(chance, own)
    else:
        header = with_changes(chance, header)
    arrays = sorted((k, v["data_offsets"]) for k, v in header.items() if _placed(v)) if isinstance(header, dict) else []
    if isinstance(own, dict) and chance.random() < 0.8:
        found = hashlib.sha256()
        for _, (first, last) in arrays:
            found.update(body[max(0, min(first, len(body))) : max(0, min(last, len(body)))])
        own["digest"] = found.hexdigest()
    if isinstance(header, dict) and isinstance(header.get("__metadata__"), dict):
        inner = encoded(chance, own if chance.random() < 0.95 else value(chance))
        header["__metadata__"]["consisid"] = inner.decode(errors="replace")
    text = encoded(chance, header)
    length = chance.choice(NUMBERS) if chance.random() < 0.05 else len(text)
    return struct.pack("<Q", length) + text + body


def _placed(entry: Any) -> bool:
    places = entry.get("data_offsets") if isinstance(entry, dict) else None
    return isinstance(places, list) and len(places) == 2 and all(type(n) is int for n in places)


def run(case: bytes) -> None:
    step, values = read(case, _ORIGIN, _PLAN)
    assert 0 < step < _PLAN.steps
    assert np.isfinite(values["latents"]).all() and np.isfinite(values["x0"]).all()
