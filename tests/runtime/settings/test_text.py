"""Settings that are printed can be given again, tell where they came from, and hold no secret."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from consisid_runtime.errors import InvalidOption
from consisid_runtime.settings.resolve import resolve
from consisid_runtime.settings.settings import Settings
from consisid_runtime.settings.text import to_data, to_toml

CASES: list[dict[str, Any]] = [
    {},
    {"bundle": Path('/ä "q" \\ 海 \x7f\t\n\''), "memory": 24, "queue": 3, "client_share": 0.1},
    {"bundle": Path("beside"), "memory": "auto", "direct": True, "metrics_port": 0, "threads": 2},
    {"consent_hook": "a.b:c", "log_level": "error", "grace_seconds": 0.25, "max_pixels": 345600},
]


@pytest.mark.parametrize("given", CASES)
def test_what_is_printed_can_be_given_again(given: dict[str, Any], tmp_path: Path) -> None:
    first = resolve(Settings, given)
    (tmp_path / "serve.toml").write_text(to_toml(first), encoding="utf-8")
    again = resolve(Settings, {}, tmp_path / "serve.toml")
    wanted = first.settings.model_dump()
    if wanted["bundle"]:
        wanted["bundle"] = Path.cwd() / wanted["bundle"]
    assert again.settings.model_dump() == wanted
    assert {line.partition("  # ")[0] for line in to_toml(again).splitlines()} == {
        line.partition("  # ")[0] for line in to_toml(first).splitlines()
    }


def test_every_setting_has_a_line_and_says_where_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path := tmp_path / 'a "b".toml').write_text("queue = 16\n")
    monkeypatch.setenv("CONSISID_SERVE_HOST", "::1")
    text = to_toml(resolve(Settings, {"grpc_port": 5}, path))
    lines = text.splitlines()
    assert "grpc_port = 5  # --grpc-port" in lines
    assert 'host = "::1"  # CONSISID_SERVE_HOST' in lines
    assert any(line.startswith("queue = 16  # /") and line.endswith('a \\"b\\".toml') for line in lines)
    assert "http_port = 8000" in lines and "# max_steps is not set" in lines
    unset = {line[2:].partition(" is not set")[0] for line in lines if " is not set" in line}
    assert unset | tomllib.loads(text).keys() == Settings.model_fields.keys()


def test_secrets_of_other_variables_are_named_and_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSISID_TOKEN", "correct-horse-battery")
    monkeypatch.setenv("CONSISID_MEMORY", "24")
    text = to_toml(found := resolve(Settings, {}))
    assert "# token_file is not set; CONSISID_TOKEN is" in text
    assert "# memory is not set; CONSISID_MEMORY is" in text
    assert "horse" not in text + str(to_data(found))


def test_a_path_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidOption, match=r"bundle has bytes that are no text.*'/\\udcff'"):
        to_toml(resolve(Settings, {"bundle": Path("/\udcff")}))


def test_as_data() -> None:
    data = to_data(resolve(Settings, {"bundle": Path("x"), "queue": 3}))
    assert data["queue"] == {"value": 3, "from": "--queue"} and data["host"] == {"value": "127.0.0.1"}
    assert (
        data["bundle"] == {"value": os.path.abspath("x"), "from": "--bundle"}
        and data.keys() == Settings.model_fields.keys()
    )
