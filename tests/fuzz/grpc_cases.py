"""Messages over gRPC: ModelInferRequests that were changed field by field, then as bytes."""

from __future__ import annotations

import math
from random import Random
from typing import Any

from byte_changes import NUMBERS, changed
from json_changes import text, value
from parameter_cases import parameters
from tritonclient.grpc import service_pb2

from consisid_runtime.door.grpc.message import identifier, parse
from consisid_runtime.door.limits import Limits

_NAMES = ["image", "prompt", "checkpoint", "video", "info", "frames", "event", "preview", "latents", ""]
_TYPES = ["UINT8", "BYTES", "FP32", "INT64", "BOOL", "", "uint8"]
_CONTENTS = ["bool_contents", "int_contents", "uint_contents", "fp32_contents", "bytes_contents"]


def make(chance: Random) -> bytes:
    request = _request(chance)
    for _ in range(chance.randint(0, 3)):
        chance.choice(_CHANGES)(chance, request)
    data: bytes = request.SerializeToString()
    return changed(chance, data, most=3) if chance.random() < 0.35 else data


def run(case: bytes) -> None:
    limits = Limits()
    identifier(case, limits)
    asked = parse(case, limits)
    assert len(asked.message("a" * 32, "id").SerializeToString()) < 2 * len(case) + 4096


def _text(chance: Random) -> str:
    return text(chance).encode(errors="replace").decode()


def _request(chance: Random) -> Any:
    request = service_pb2.ModelInferRequest(model_name=chance.choice(["consisid", "consisid_stream"]), id=_text(chance))
    files = {"image": chance.randbytes(chance.choice([0, 1, 100])), "prompt": b"a man"}
    if chance.random() < 0.3:
        files["checkpoint"] = chance.choice([b"", b"bad", b"3"])
    raw = chance.random() < 0.7
    for name, content in files.items():
        words = name == "prompt"
        size = 1 if words else len(content)
        entry = request.inputs.add(name=name, datatype="BYTES" if words else "UINT8", shape=[size])
        if raw:
            request.raw_input_contents.append(len(content).to_bytes(4, "little") + content if words else content)
        elif words:
            entry.contents.bytes_contents.append(content)
        else:
            entry.contents.uint_contents.extend(content)
    for name in chance.sample(_NAMES[3:8], chance.randrange(3)):
        request.outputs.add(name=name)
    given = parameters(chance)
    for name, one in given.items() if isinstance(given, dict) else ():
        _set(request.parameters[name.encode(errors="replace").decode()], one)
    return request


def _set(parameter: Any, one: Any) -> None:
    if isinstance(one, bool):
        parameter.bool_param = one
    elif isinstance(one, int) and abs(one) < 2**63:
        parameter.int64_param = one
    elif isinstance(one, int) and 0 <= one < 2**64:
        parameter.uint64_param = one
    elif isinstance(one, float):
        parameter.double_param = one
    elif isinstance(one, str):
        parameter.string_param = one.encode(errors="replace").decode()


def _model(chance: Random, request: Any) -> None:
    request.model_name = chance.choice(["", "face", "decode", "consisid", _text(chance)])
    request.model_version = chance.choice(["", "1", "2", "-1", _text(chance)])


def _input(chance: Random, request: Any) -> None:
    if not request.inputs:
        return
    entry = chance.choice(request.inputs)
    what = chance.randrange(6)
    if what == 0:
        entry.name = chance.choice([*_NAMES, _text(chance)])
    elif what == 1:
        entry.datatype = chance.choice([*_TYPES, _text(chance)])
    elif what == 2:
        del entry.shape[:]
        entry.shape.extend(chance.choice([-1, *NUMBERS]) % 2**63 for _ in range(chance.choice([0, 1, 1, 2, 9, 300])))
    elif what == 3:
        name = chance.choice(["binary_data_size", "shared_memory_region", "classification", _text(chance)])
        _set(entry.parameters[name], value(chance))
    elif what == 4:
        field = chance.choice(_CONTENTS)
        one: Any = b"x" if field == "bytes_contents" else (chance.choice([math.nan, 1]) if "fp" in field else 1)
        getattr(entry.contents, field).extend([one] * chance.choice([1, 3, 256]))
    else:
        request.inputs.add().CopyFrom(entry)


def _output(chance: Random, request: Any) -> None:
    entry = request.outputs.add(name=chance.choice([*_NAMES, _text(chance)]))
    if chance.random() < 0.3:
        _set(entry.parameters[chance.choice(["classification", "binary_data", _text(chance)])], value(chance))


def _raw(chance: Random, request: Any) -> None:
    raws = list(request.raw_input_contents)
    if raws and chance.random() < 0.6:
        place = chance.randrange(len(raws))
        raws[place] = changed(chance, raws[place])
    else:
        raws.insert(chance.randrange(len(raws) + 1), chance.randbytes(chance.randrange(10)))
    del request.raw_input_contents[:]
    request.raw_input_contents.extend(raws)


def _many(chance: Random, request: Any) -> None:
    """A field that is repeated many times."""
    request.MergeFromString(
        chance.choice([b"\x2a\0", b"\x32\0", b"\x3a\0", b"\x22\0"]) * chance.choice([1, 9, 300, 9000])
    )


_CHANGES = (_model, _input, _input, _input, _output, _raw, _raw, _many)
