"""Bodies over HTTP: of `infer` in both of its forms, and of the generate extension."""

from __future__ import annotations

import base64
import json
from random import Random
from typing import Any, NamedTuple

from byte_changes import NUMBERS, changed
from json_changes import encoded, text, value, with_changes
from parameter_cases import parameters
from tritonclient.grpc import service_pb2

from consisid_runtime.door.http.body import parse, parse_generate
from consisid_runtime.door.limits import Limits


class Body(NamedTuple):
    """A request's body. `head`: bytes of it that are JSON."""

    model: str
    call: str
    content: bytes
    head: int


def make(chance: Random) -> Body:
    model = chance.choice(["consisid", "consisid_stream"])
    call = chance.choice(["infer", "infer", "infer", "generate", "generate_stream"])
    if call == "infer" or chance.random() < 0.15:
        document, tail = _infer(chance, binary=chance.random() < 0.5)
    else:
        document, tail = _generate(chance), b""
    if chance.random() < 0.8:
        document = with_changes(chance, document)
    head = encoded(chance, document if chance.random() < 0.97 else value(chance))
    if chance.random() < 0.15:
        tail = changed(chance, tail)
    length = len(head)
    if chance.random() < 0.05:
        length = min(chance.choice([0, 1, length - 1, length + 1, *NUMBERS]), length + len(tail))
    return Body(model, call, head + tail, max(0, length))


def _files(chance: Random) -> dict[str, bytes]:
    """What the inputs of a request hold."""
    prompt = b"a man" if chance.random() < 0.7 else text(chance).encode(errors="surrogatepass")
    found = {"image": chance.randbytes(chance.choice([0, 1, 3, 100])), "prompt": prompt}
    if chance.random() < 0.3:
        found["checkpoint"] = chance.choice([b"", b"bad", b"3"])
    return found


def _infer(chance: Random, *, binary: bool) -> tuple[Any, bytes]:
    inputs, tail = [], b""
    for name, content in _files(chance).items():
        words = name == "prompt"
        size = 1 if words else len(content)
        entry: dict[str, Any] = {"name": name, "datatype": "BYTES" if words else "UINT8", "shape": [size]}
        raw = len(content).to_bytes(4, "little") + content if words else content
        if binary and chance.random() < 0.9:
            entry["parameters"] = {"binary_data_size": len(raw)}
            tail += raw
        else:
            entry["data"] = [content.decode(errors="replace")] if words else list(content)
        inputs.append(entry)
    document: dict[str, Any] = {"inputs": inputs}
    if chance.random() < 0.6:
        names = chance.sample(["video", "info", "frames", "event", "preview", "checkpoint"], chance.randint(1, 3))
        document["outputs"] = [{"name": name, "parameters": {"binary_data": chance.random() < 0.5}} for name in names]
    if chance.random() < 0.7:
        document["parameters"] = parameters(chance)
    if chance.random() < 0.4:
        document["id"] = text(chance)
    return document, tail


def _generate(chance: Random) -> Any:
    found: dict[str, Any] = {}
    for name, content in _files(chance).items():
        found[name] = content.decode(errors="replace") if name == "prompt" else base64.b64encode(content).decode()
    given = parameters(chance)
    if isinstance(given, dict) and chance.random() < 0.5:
        found |= given
    else:
        found["parameters"] = given
    return found


def run(case: Body) -> None:
    limits = Limits()
    if case.call == "infer":
        asked, binary = parse(case.model, bytearray(case.content), case.head, limits)
        json.dumps(binary)
    else:
        asked = parse_generate(case.model, bytearray(case.content), case.head, limits)
    asked.answer(service_pb2.ModelInferResponse())
    assert len(asked.message("a" * 32, "id").SerializeToString()) < 2 * len(case.content) + 4096
