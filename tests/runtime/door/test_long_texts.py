"""A megabyte of text is refused in under 50 ms of CPU time, wherever it stands; more costs no more than its share."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from door_requests import grpc_request, json_request

from consisid_runtime.door.grpc.message import parse as parse_message
from consisid_runtime.door.http.body import parse, parse_generate
from consisid_runtime.door.limits import Limits
from consisid_runtime.errors import InvalidOption
from consisid_runtime.options import Options, check_prompt

SECONDS = 0.05
MIB = 2**20
TEXTS = {
    "letters": "a",
    "words": "a ",
    "nothing visible": "\u200b",
    "marks": "a\u0301",
    "ideographs": "日",
    "quotes": '"',
    "NUL": "\0",
}


def infer(text: bytes) -> None:
    parse("consisid", bytearray(text), len(text), Limits())


def generate(text: bytes) -> None:
    parse_generate("consisid_stream", bytearray(text), len(text), Limits())


def message(data: bytes) -> None:
    parse_message(data, Limits())


def negative(text: str) -> Any:
    request = grpc_request()
    request.parameters["negative_prompt"].string_param = text
    return request


WAYS: dict[str, tuple[Callable[[str], Any], Callable[[Any], object]]] = {
    "infer": (lambda text: json.dumps(json_request(text)).encode(), infer),
    "generate": (lambda text: json.dumps({"image": "YWJj", "prompt": text}).encode(), generate),
    "gRPC": (lambda text: grpc_request(text).SerializeToString(), message),
    "a negative prompt over HTTP": (
        lambda text: json.dumps(json_request(parameters={"negative_prompt": text})).encode(), infer,
    ),
    "a negative prompt over gRPC": (
        lambda text: negative(text[: len(text) * 9 // 10]).SerializeToString(), message,  # a message's bound is 1 MiB
    ),
    "in Python": (lambda text: text, check_prompt),
    "a negative prompt in Python": (lambda text: text, lambda text: Options(negative_prompt=text)),
}  # fmt: skip


def seconds(work: Callable[[Any], object], given: Any) -> float:
    """CPU time of the quickest of three refusals."""
    took = []
    for _ in range(3):
        begin = time.thread_time()
        with pytest.raises(InvalidOption, match="at most 65536 bytes"):
            work(given)
        took.append(time.thread_time() - begin)
    return min(took)


def text_of(unit: str, size: int) -> str:
    """So many bytes in JSON."""
    return unit * (size // (len(json.dumps(unit)) - 2))


@pytest.mark.parametrize("unit", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize(("make", "work"), WAYS.values(), ids=WAYS)
def test_a_megabyte_is_refused_at_once(make: Callable[[str], Any], work: Callable[[Any], object], unit: str) -> None:
    assert seconds(work, make(text_of(unit, MIB))) < SECONDS


@pytest.mark.parametrize("way", ["infer", "generate", "gRPC", "in Python"])
def test_eight_megabytes_take_no_more_than_their_share(way: str) -> None:
    """A cost that grew with the square would be eight times that."""
    make, work = WAYS[way]
    one, eight = (seconds(work, make(text_of("a ", size))) for size in (MIB, 8 * MIB))
    assert eight < 24 * one + 0.01
