"""Tokens, certificates, and whom an address belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest

from consisid_runtime.door.access import Access, owner
from consisid_runtime.errors import FileInaccessible, InvalidOption, Unauthenticated
from consisid_runtime.wire import TOKEN_VARIABLE

TOKEN = "correct-horse-battery"


@pytest.mark.parametrize("given", [f"Bearer {TOKEN}", f"bearer  {TOKEN} ", f"Bearer {TOKEN}".encode()])
def test_the_token_opens(given: str | bytes) -> None:
    Access(TOKEN).check(given)


@pytest.mark.parametrize(
    "given", [None, "", TOKEN, "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \udcff", b"\xff" * 99]
)
def test_anything_else_does_not(given: str | bytes | None) -> None:
    with pytest.raises(Unauthenticated, match="bearer token") as refused:
        Access(TOKEN).check(given)
    assert TOKEN not in str(refused.value)
    Access().check(given)


def test_a_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert Access.read().token is None
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert Access.read().token == TOKEN and TOKEN not in repr(Access.read())
    (tmp_path / "token").write_text("another-horse-battery\n")
    assert Access.read(tmp_path / "token").token == "another-horse-battery"
    with pytest.raises(FileInaccessible, match="nowhere"):
        Access.read(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "short", "with a space in the middle", "ümlaut-ümlaut-ümlaut"])
def test_a_token_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(InvalidOption, match="16 to 4096 visible"):
        Access.read(tmp_path / "token")


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("nothing")
    with pytest.raises(InvalidOption, match="both a certificate and its key"):
        Access.read(certificate=tmp_path / "a.pem")
    with pytest.raises(InvalidOption, match="no PEM certificate"):
        Access.read(certificate=tmp_path / "a.pem", key=tmp_path / "a.pem")


@pytest.mark.parametrize(
    ("host", "whose"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
        (None, ""),
    ],
)
def test_an_ipv6_network_is_one_owners(host: str | None, whose: str) -> None:
    assert owner(host) == whose
