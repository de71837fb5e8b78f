"""The commands as a person types them."""

from __future__ import annotations

import builtins
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from consisid_gateway.cli import register
from consisid_gateway.errors import KeyUnknown, StorageUnavailable
from consisid_runtime.errors import ConsisIDError, InvalidOption, MissingExtra

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on a folder of its own; returns its JSON, or raises its error."""
    for name in [name for name in os.environ if name.startswith("CONSISID_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CONSISID_GATEWAY_DATA", str(tmp_path / "data"))
    app = typer.Typer()
    register(app)

    def command(*arguments: str) -> dict[str, Any]:
        old = os.umask(0)
        try:
            done = CliRunner().invoke(app, [*arguments, "--json"])
        finally:
            os.umask(old)
        if isinstance(done.exception, ConsisIDError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return dict(json.loads(done.stdout))

    return command


def test_a_key_is_made_shown_once_listed_and_revoked(run: Run, tmp_path: Path) -> None:
    made = run("keys", "make", "studio", "--name", "page", "--scope", "videos:read", "--jobs", "3")
    assert made["key"].startswith("csid_") and (made["tenant"], made["limits"]) == ("studio", {"jobs": 3})
    other = run("keys", "make", "press")
    assert other["scopes"] == ["characters", "videos:read", "videos:write"] and other["limits"] == {}
    listed = run("keys", "list")
    assert [key["id"] for key in listed["keys"]] == [made["id"], other["id"]]
    assert made["key"] not in str(listed)
    assert made["key"].encode() not in b"".join(path.read_bytes() for path in (tmp_path / "data").iterdir())
    assert run("keys", "revoke", made["id"])["revoked_at"] is not None
    assert [key["revoked_at"] is None for key in run("keys", "list", "--tenant", "studio")["keys"]] == [False]
    for path in (tmp_path / "data", *(tmp_path / "data").iterdir()):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_what_is_wrong_with_a_key_is_told(run: Run) -> None:
    with pytest.raises(InvalidOption, match="a scope is one of videos:read"):
        run("keys", "make", "studio", "--scope", "all")
    with pytest.raises(InvalidOption, match="a tenant is"):
        run("keys", "make", "a/b")
    with pytest.raises(KeyUnknown):
        run("keys", "revoke", "key_none")


@pytest.mark.parametrize("words", [("make", "studio"), ("list",), ("revoke", "key_none")], ids=lambda words: words[0])
def test_keys_of_postgresql_need_no_objects(run: Run, words: tuple[str, ...]) -> None:
    with pytest.raises(StorageUnavailable, match=r'server at "127\.0\.0\.1", port 1 failed: Connection refused'):
        run("keys", *words, "--database", "postgresql://consisid@127.0.0.1:1/consisid")


@pytest.mark.parametrize("command", ["gateway", "worker"])
def test_settings_are_printed_and_nothing_is_started(run: Run, command: str, tmp_path: Path) -> None:
    found = run(command, "--print-config", "--data", str(tmp_path / "another"))
    assert found["data"] == {"value": str(tmp_path / "another"), "from": "--data"}
    assert not (tmp_path / "another").exists()


@pytest.mark.parametrize(
    "arguments", [("gateway",), ("worker",), ("up", "--bundle", "b"), ("keys", "list")], ids=lambda words: words[0]
)
def test_without_the_extra_it_is_named(run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("consisid_gateway.s") or name.startswith("consisid_gateway.up"):
            raise ModuleNotFoundError("No module named 'dbos'", name="dbos")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtra, match=r"needs dbos: pip install 'consisid-runtime\[") as refused:
        run(*arguments)
    assert "gateway]'" in str(refused.value)
