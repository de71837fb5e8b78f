"""JSON that was made to harm its reader."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from consisid_runtime.files.json_file import MAX_DEPTH, parse_json, read_json

HARMFUL = {
    "nested": ("[" * 100_000 + "]" * 100_000, "nested deeper than 64"),
    "nested objects": ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested deeper than 64"),
    "nested a little too deep": ("[" * 66 + "]" * 66, "nested deeper than 64"),
    "401 digits": ("1" + "0" * 400, "a number has 401 digits"),
    "5000 digits": ("9" * 5000, "5000 digits"),
    "too large": ("1e999", "1e999 is not a finite number"),
    "NaN": ('{"a": NaN}', "NaN is not a finite number"),
    "infinity": ("-Infinity", "-Infinity is not a finite number"),
    "not UTF-8": (b'"\xff"', "can't decode"),
    "nothing": ("", "Expecting value"),
    "cut": ('{"a": [1', "Expecting"),
}


@pytest.mark.parametrize(("text", "problem"), HARMFUL.values(), ids=HARMFUL)
def test_harmful_text_is_a_value_error(text: str | bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_json(text)


def test_what_is_allowed() -> None:
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(parse_json(deepest)) == deepest
    assert parse_json('{"a": [1, -2.5e3, true, null, "é"]}') == {"a": [1, -2500.0, True, None, "é"]}
    assert parse_json("1" * 40) == int("1" * 40)
    assert parse_json("[1e999, 1" + "0" * 400 + "]", finite=False) == [float("inf"), 10**400]


def test_a_bound_of_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1, 2]")
    assert read_json(tmp_path / "a.json", most=6) == [1, 2]
    with pytest.raises(ValueError, match="more than 5 bytes"):
        read_json(tmp_path / "a.json", most=5)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match="folder, device or pipe"):
            read_json(path)
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(OSError):
            read_json(path)
