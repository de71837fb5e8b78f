"""What each action of a stream takes, before anything is forwarded."""

from __future__ import annotations

from typing import Any

import pytest

from consisid_runtime.door.request import Tensor, check
from consisid_runtime.errors import InvalidOption, MalformedRequest

IMAGE = Tensor("image", "UINT8", [3], b"abc")
PROMPT = Tensor("prompt", "BYTES", [1], [b"a man"])
HANDLE = "h" * 32


@pytest.mark.parametrize(
    ("tensors", "parameters", "quick"),
    [
        ([IMAGE, PROMPT], {}, False),
        ([PROMPT], {"identity": HANDLE}, False),
        ([IMAGE], {"action": "identify"}, True),
        ([], {"action": "forget", "identity": HANDLE}, True),
        ([], {"action": "estimate", "steps": 7}, True),
        ([], {"action": "trial"}, True),
    ],
)
def test_an_action_has_its_inputs(tensors: list[Tensor], parameters: dict[str, Any], quick: bool) -> None:
    asked = check("consisid_stream", tensors, parameters, [], "")
    assert (
        asked.quick == quick
        and asked.estimates == (parameters.get("action") == "estimate")
        and asked.parameters == parameters
    )
    names = {tensor.name for tensor in asked.message("ticket", "id").inputs}
    assert names == {tensor.name for tensor in tensors}


@pytest.mark.parametrize(
    ("tensors", "parameters"),
    [
        ([IMAGE], {}),
        ([PROMPT], {}),
        ([IMAGE, PROMPT], {"identity": HANDLE}),
        ([IMAGE, PROMPT], {"action": "identify"}),
        ([PROMPT], {"action": "identify"}),
        ([IMAGE], {"action": "forget", "identity": HANDLE}),
        ([IMAGE], {"action": "estimate"}),
        ([PROMPT], {"action": "estimate"}),
        ([IMAGE, PROMPT], {"action": "trial"}),
    ],
)
def test_other_inputs_are_refused(tensors: list[Tensor], parameters: dict[str, Any]) -> None:
    with pytest.raises(MalformedRequest, match="this request takes the inputs"):
        check("consisid_stream", tensors, parameters, [], "")


@pytest.mark.parametrize(
    "parameters",
    [
        {"action": "forget"},
        {"action": "identify", "identity": HANDLE},
        {"action": "estimate", "identity": HANDLE},
        {"action": "trial", "identity": HANDLE},
        {"action": "delete"},
        {"action": 1},
        {"identity": "../etc"},
        {"identity": "h" * 65},
        {"identity": 7},
    ],
)
def test_an_action_or_a_handle_that_there_is_not(parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        check("consisid_stream", [IMAGE], parameters, [], "")


@pytest.mark.parametrize("parameters", [{"identity": HANDLE}, {"action": "identify"}, {"action": "trial"}])
def test_the_plain_model_takes_photographs_alone(parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match="are for consisid_stream"):
        check("consisid", [IMAGE, PROMPT], parameters, [], "")
