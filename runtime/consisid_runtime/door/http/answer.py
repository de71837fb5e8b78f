"""Triton server's answer as KServe's JSON with binary data, and errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from consisid_runtime.door.http.body import LENGTH
from consisid_runtime.door.records import CURRENT
from consisid_runtime.errors import Busy, ConsisIDError

_NUMBERS = [b"%d," % number for number in range(256)]
_PIECE = 2**16


def failure(error: ConsisIDError) -> Response:
    """`CODE: message` with the error's status, and the id of the request for inference that it ends."""
    headers = {"Retry-After": f"{error.retry_after:.0f}"} if isinstance(error, Busy) and error.retry_after else {}
    if error.http == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if identifier := CURRENT.get():
        headers["X-Request-Id"] = identifier
    return JSONResponse({"error": error.sent()}, error.http, headers)


async def success(answer: Any, binary: Mapping[str, bool], identifier: str) -> Response:
    """Outputs as they were asked for. Numbers in JSON are written piece by piece: there may be millions."""
    tail = [raw for tensor, raw in zip(answer.outputs, answer.raw_output_contents, strict=True) if binary[tensor.name]]
    text = _text(answer, binary, identifier)
    if not tail:
        return StreamingResponse(text, media_type="application/json")
    pieces = [piece async for piece in text]
    headers = {LENGTH: str(sum(map(len, pieces)))}
    return Response(b"".join([*pieces, *tail]), headers=headers, media_type="application/octet-stream")


async def _text(answer: Any, binary: Mapping[str, bool], identifier: str) -> AsyncIterator[bytes]:
    """The JSON, in pieces between which others have their turn."""
    named = {"id": identifier} if identifier else {}
    named |= {"model_name": answer.model_name, "model_version": answer.model_version}
    yield f'{json.dumps(named)[:-1]}, "outputs": ['.encode()
    for place, (tensor, raw) in enumerate(zip(answer.outputs, answer.raw_output_contents, strict=True)):
        entry = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        separator = ", " if place else ""
        if binary[tensor.name]:
            yield (separator + json.dumps({**entry, "parameters": {"binary_data_size": len(raw)}})).encode()
        elif tensor.datatype == "BYTES":  # the one text of a video's `info`, behind its length
            yield (separator + json.dumps({**entry, "data": [raw[4:].decode()]})).encode()
        else:
            yield f'{separator}{json.dumps(entry)[:-1]}, "data": ['.encode()
            for start in range(0, len(raw), _PIECE):
                piece = b"".join([_NUMBERS[value] for value in raw[start : start + _PIECE]])
                yield piece if start + _PIECE < len(raw) else piece[:-1]
                await asyncio.sleep(0)
            yield b"]}"
    yield b"]}"
