"""`consisid keys`: makes, lists and revokes, and says so in the audit log."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from consisid_gateway.access import audit, keys
from consisid_gateway.access.caller import Limits, Scope
from consisid_gateway.cli.keys import keys as command
from consisid_gateway.errors import KeyUnknown
from consisid_gateway.jobs.database import Database
from consisid_runtime.errors import InvalidOption


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """What a command answers as JSON."""
    monkeypatch.setenv("CONSISID_GATEWAY_AUDIT_FILE", str(tmp_path / "audit.jsonl"))

    def call(*words: str) -> Any:
        answer = CliRunner().invoke(command, [*words, "--data", str(tmp_path), "--json"], catch_exceptions=False)
        return json.loads(answer.stdout)

    yield call
    for handler in list(audit.log.handlers):
        audit.log.removeHandler(handler)
        handler.close()
    audit.log.propagate = True


def test_a_key_from_its_making_to_its_end(run: Callable[..., Any], tmp_path: Path) -> None:
    made = run("make", "ada", "--name", "laptop", "--scope", "videos:read", "--jobs", "3")
    database = Database(f"sqlite:///{tmp_path / 'consisid.sqlite'}")
    with database.reading() as connection:
        found = keys.find(connection, made["key"])
    assert found is not None and (found.id, found.scopes, found.limits) == (made["id"], {Scope.READ}, Limits(jobs=3))
    shown = run("list")["keys"]
    assert [key["id"] for key in shown] == [made["id"]] and made["key"] not in json.dumps(shown)
    assert run("revoke", made["id"])["revoked_at"] is not None
    with database.reading() as connection:
        assert keys.find(connection, made["key"]) is None
    database.close()
    text = (tmp_path / "audit.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["action"], line["subject"]) for line in lines] == [
        ("key.made", made["id"]),
        ("key.revoked", made["id"]),
    ]
    assert "laptop" not in text and made["key"] not in text


def test_what_there_is_not(run: Callable[..., Any]) -> None:
    with pytest.raises(InvalidOption, match="videos:read"):
        run("make", "ada", "--scope", "everything")
    with pytest.raises(KeyUnknown):
        run("revoke", "key_0")
