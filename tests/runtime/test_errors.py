"""Codes are stable, unique, and survive a server's own words around them."""

import pytest

from consisid_runtime import errors


def kinds(base: type[errors.ConsisIDError]) -> list[type[errors.ConsisIDError]]:
    return [kind for child in base.__subclasses__() for kind in (child, *kinds(child))]


CONCRETE = [kind for kind in kinds(errors.ConsisIDError) if kind.code != "INTERNAL"]


@pytest.mark.parametrize("kind", CONCRETE, ids=lambda kind: kind.code)
def test_an_error_survives_the_wire(kind: type[errors.ConsisIDError]) -> None:
    wrapped = f"in ensemble 'consisid', {kind('width must be 720: got 719').wire()}"
    received = errors.from_wire(wrapped)
    assert type(received) is kind
    assert str(received) == "width must be 720: got 719"


def test_a_message_without_a_code_is_a_server_error_with_all_of_it() -> None:
    received = errors.from_wire("unexpected shape for input 'image'")
    assert type(received) is errors.ServerError
    assert "unexpected shape" in str(received)


def test_codes_are_unique_and_drawn_in_the_tree() -> None:
    codes = [kind.code for kind in CONCRETE]
    assert len(codes) == len(set(codes))
    for kind in CONCRETE:
        assert f"{kind.__name__} " in (errors.__doc__ or "")
        assert f" {kind.code}\n" in (errors.__doc__ or "")
