"""Reports that no stage of ours would send."""

from __future__ import annotations

import pytest

from consisid_runtime.errors import InvalidOption
from consisid_runtime.serve.tensor_checks import read_report
from consisid_runtime.wire import read_parameters

REPORTS = {
    "401 digits": b'{"seconds": 1' + b"0" * 400 + b"}",
    "many digits elsewhere": b'{"seconds": 1, "faces": 1' + b"0" * 400 + b"}",
    "nested": b"[" * 100_000 + b"]" * 100_000,
    "nested inside": b'{"seconds": 1, "faces": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "NaN": b'{"seconds": NaN}',
    "NaN elsewhere": b'{"seconds": 1, "faces": NaN}',
    "infinite": b'{"seconds": 1e999}',
    "infinite elsewhere": b'{"seconds": 1, "faces": 1e999}',
    "negative": b'{"seconds": -1}',
    "true": b'{"seconds": true}',
    "text": b'{"seconds": "1"}',
    "none": b'{"seconds": null}',
    "no seconds": b"{}",
    "a list": b"[1]",
    "a number": b"1",
    "nothing": b"",
    "not UTF-8": b"\xff",
    "zeros": bytes(10),
    "large": b'{"seconds": 1, "faces": "' + b"a" * 2**20 + b'"}',
    "an age": b'{"seconds": 1e300}',
}


@pytest.mark.parametrize("text", REPORTS.values(), ids=REPORTS)
def test_a_report_that_is_none(text: bytes) -> None:
    with pytest.raises(InvalidOption, match=r"^face_info must be the JSON that the model face answers with") as caught:
        read_report("face", text)
    assert len(str(caught.value)) < 600


def test_a_report() -> None:
    assert read_report("face", b'{"seconds": 0.5, "faces": 2}') == {"seconds": 0.5, "faces": 2}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"guidance": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"guidance": 1' + "0" * 400 + "}",
        '{"seed": 1' + "0" * 4400 + "}",
        "[1]",
        '"steps"',
        "null",
    ],
    ids=["nested", "nested inside", "401 digits", "4401 digits", "a list", "text", "null"],
)
def test_parameters_that_are_none(text: str) -> None:
    with pytest.raises(InvalidOption):
        read_parameters(text)
