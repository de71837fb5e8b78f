"""`consisid serve --print-config` and `--config`, without a server; tests/runtime/serve/test_server.py starts one."""

from __future__ import annotations

import io
import json
import logging
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from consisid_runtime.cli.serving import serve
from consisid_runtime.door.records import writing
from consisid_runtime.errors import InvalidOption, MissingExtra


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("it was started")

    for name in ("serve.server.Server", "door.door.Door", "door.access.Access.read"):
        monkeypatch.setattr(f"consisid_runtime.{name}", started)
    monkeypatch.setattr("signal.signal", started)
    monkeypatch.delenv("CONSISID_SERVE_CONFIG", raising=False)


def test_the_settings_are_printed_and_nothing_is_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "serve.toml").write_text("queue = 3\n")
    serve(config=tmp_path / "serve.toml", bundle=Path("nowhere"), token_file=Path("nothing"), print_config=True)
    printed = capsys.readouterr().out
    found = tomllib.loads(printed)
    assert (found["queue"], found["bundle"]) == (3, str(Path.cwd() / "nowhere"))
    assert f"queue = 3  # {tmp_path / 'serve.toml'}\n" in printed
    serve(config=tmp_path / "serve.toml", print_config=True, as_json=True)
    assert json.loads(capsys.readouterr().out)["queue"]["value"] == 3


def test_settings_that_contradict_each_other_are_not_printed() -> None:
    with pytest.raises(InvalidOption, match="belongs to --direct"):
        serve(metrics_port=1, print_config=True)


def test_a_bundle_has_to_be_named() -> None:
    with pytest.raises(InvalidOption, match="no bundle to serve; name its folder: --bundle"):
        serve()


def test_without_pydantic_settings_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("consisid_runtime.settings")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pydantic_settings", None)
    with pytest.raises(MissingExtra, match=r"pydantic_settings: pip install 'consisid-runtime\[door\]'"):
        serve(print_config=True)


def test_the_log_begins_at_its_level() -> None:
    log = logging.getLogger("consisid_runtime.door.anything")
    with writing(logging.StreamHandler(text := io.StringIO()), logging.WARNING):
        log.info("first")
        log.warning("second")
    assert [json.loads(line)["message"] for line in text.getvalue().splitlines()] == ["second"]
