"""What a body costs is known before it is parsed, and what was checked of it is what is sent on."""

from __future__ import annotations

import json

import pytest
from door_requests import json_request

from consisid_runtime.door.http.body import parse
from consisid_runtime.door.limits import Limits
from consisid_runtime.errors import InvalidOption, MalformedRequest
from consisid_runtime.options import Options

BOMBS = {
    "arrays": b"[" + b"[]," * 100_000 + b"1]",
    "objects": b"[" + b"{}," * 100_000 + b"1]",
    "nested": b'{"a":' * 5000,
    "in a text": b'["' + b"[" * 5000 + b'"]',
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_brackets_are_counted_first(bomb: bytes) -> None:
    with pytest.raises(MalformedRequest, match="more than 4096 brackets"):
        parse("consisid", bytearray(bomb), len(bomb), Limits())


def test_brackets_of_binary_data_do_not_count() -> None:
    with pytest.raises(MalformedRequest, match="bytes are left behind the last tensor"):
        parse("consisid", bytearray(b'{"inputs": []}' + b"[" * 5000), 14, Limits())


TWICE = {
    "an option": '"parameters": {"steps": 1, "steps": 50}',
    "parameters": '"parameters": {"steps": 1}, "parameters": {"steps": 50}',
    "an option with an escape": '"parameters": {"steps": 1, "\\u0073teps": 50}',
    "the order": '"parameters": {"steps": 50, "timeout": 5, "timeout": 7000000, "priority": 1, "priority": 0}',
}


@pytest.mark.parametrize("words", TWICE.values(), ids=TWICE)
def test_what_was_checked_is_what_is_sent_on(words: str) -> None:
    """A reader that took the first of two would check one value and send on another."""
    inputs = json.dumps(json_request()["inputs"])
    text = f'{{"inputs": [], "inputs": {inputs}, {words}}}'.encode()
    asked, _ = parse("consisid", bytearray(text), len(text), Limits())
    sent = asked.message("ticket", "id")
    found = {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in sent.parameters.items()}
    assert found.pop("consisid_ticket") == "ticket" and found.pop("consisid_urgent") is asked.urgent is False
    assert found == {"steps": 50} and asked.options == Options(steps=50)
    assert asked.seconds in (None, 7.0)


@pytest.mark.parametrize(
    "name", ["Steps", "ѕteps", "steps ", "steps\u200b", "st\u0435ps", "ｓteps", "consisid_urgent", ""]
)
def test_a_name_that_looks_like_an_option_is_none(name: str) -> None:
    text = json.dumps(json_request(parameters={name: 50})).encode()
    with pytest.raises(InvalidOption, match="unknown option"):
        parse("consisid", bytearray(text), len(text), Limits())
