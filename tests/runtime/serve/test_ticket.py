"""What a door says of a request in its parameters, and who may say it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from consisid_runtime.errors import InvalidOption
from consisid_runtime.serve.ticket import Ticket, take_look, take_urgent
from consisid_runtime.wire import (
    PACKED,
    TICKET,
    TICKETS_VARIABLE,
    URGENT,
    pack_parameters,
    parse_parameters,
    read_options,
)


def test_without_a_door_nobody_is_urgent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TICKETS_VARIABLE, raising=False)
    parameters: dict[str, Any] = {URGENT: True}
    assert not take_urgent(parameters)
    with pytest.raises(InvalidOption, match="unknown option 'consisid_urgent'"):
        read_options(parameters)


@pytest.mark.parametrize("said", [True, False])
def test_a_door_says_who_is_urgent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: bool) -> None:
    monkeypatch.setenv(TICKETS_VARIABLE, str(tmp_path))
    parameters: dict[str, Any] = {URGENT: said, "steps": 2}
    assert take_urgent(parameters) is said and parameters == {"steps": 2}
    parameters = {URGENT: "yes"}
    assert not take_urgent(parameters) and URGENT in parameters


def test_a_model_hands_the_ticket_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(TICKETS_VARIABLE, str(tmp_path))
    ticket = Ticket(tmp_path)
    assert take_look({TICKET: ticket.name}).ticket == ticket.name
    assert take_look({}).ticket is None


def test_parameters_between_models_keep_their_fractions() -> None:
    values = {"guidance": 2.5, "seed": 2**63 - 1, "negative_prompt": "é", TICKET: "0" * 32}
    packed = pack_parameters(values)
    assert all(isinstance(value, str) for value in packed.values())
    assert parse_parameters(json.dumps(packed)) == values


@pytest.mark.parametrize("content", ["{", "[1]", 5, '{"stepz": 2}', '{"consisid_packed": "{}"}'])
def test_what_is_packed_is_checked_like_the_rest(content: Any) -> None:
    with pytest.raises(InvalidOption):
        read_options(parse_parameters(json.dumps({PACKED: content})))
