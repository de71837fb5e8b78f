"""What each part is told, what is kept from it, and what `consisid up` leaves nobody to choose."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from consisid_gateway.serving.worker import webhook_secret
from consisid_gateway.up.folder import held
from consisid_gateway.up.parts import Chosen, parts
from consisid_runtime.errors import InvalidOption, OutputBusy


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CONSISID_")]:
        monkeypatch.delenv(name)


def chosen(folder: Path, **gateway: object) -> Chosen:
    return Chosen.read({"bundle": Path("bundle")}, {"data": folder, "port": 0, **gateway})


def test_they_end_in_the_order_in_which_they_need_each_other(tmp_path: Path) -> None:
    assert [part.name for part in parts(chosen(tmp_path))] == ["gateway", "worker", "door"]


def test_no_secret_is_on_a_command_line_and_each_knows_its_own_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSISID_TOKEN", "of-another-server-of-mine")
    monkeypatch.setenv("CONSISID_GATEWAY_AUDIT_FILE", "/audit")
    monkeypatch.setenv("CONSISID_WORKER_KEPT_SECONDS", "60")
    monkeypatch.setenv("CONSISID_SERVE_QUEUE", "3")
    gateway, worker, door = parts(chosen(tmp_path))
    token = door.environment["CONSISID_TOKEN"]
    assert token == worker.environment["CONSISID_TOKEN"] != "of-another-server-of-mine"
    assert "CONSISID_TOKEN" not in gateway.environment
    secrets = (token, (tmp_path / "webhook.secret").read_text().strip(), (tmp_path / "door.key").read_text())
    for part in (gateway, worker, door):
        assert not any(secret in argument for secret in secrets for argument in part.arguments)
    names = ("CONSISID_GATEWAY_AUDIT_FILE", "CONSISID_WORKER_KEPT_SECONDS", "CONSISID_SERVE_QUEUE")
    for part, own in zip((gateway, worker, door), names, strict=True):
        assert [name for name in names if name in part.environment] == [own]


def test_what_is_written_is_for_this_user_alone(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        parts(chosen(tmp_path / "data"))
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    for path in (tmp_path / "data").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_the_secret_of_webhooks_stays_and_can_be_read(tmp_path: Path) -> None:
    parts(chosen(tmp_path))
    secret = webhook_secret(tmp_path / "webhook.secret")
    parts(chosen(tmp_path))
    assert webhook_secret(tmp_path / "webhook.secret") == secret and len(secret) == 32


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_abc", "correct-horse-battery-staple-correct-horse", "whsec_" + "?" * 40]
)
def test_what_is_no_secret_of_webhooks_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "secret").write_text(text)
    with pytest.raises(InvalidOption, match="whsec_ and 24 to 64 bytes") as refused:
        webhook_secret(tmp_path / "secret")
    assert "horse" not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CONSISID_SERVE_HOST", "0.0.0.0"),
        ("CONSISID_SERVE_GRPC_PORT", "8001"),
        ("CONSISID_SERVE_TOKEN_FILE", "token"),
        ("CONSISID_SERVE_DIRECT", "true"),
        ("CONSISID_GATEWAY_DATABASE", "postgresql://me@host/db"),
        ("CONSISID_GATEWAY_OBJECTS", "/objects"),
        ("CONSISID_WORKER_SERVER", "grpc://host:1"),
        ("CONSISID_WORKER_DATA", "/data"),
    ],
)
def test_what_it_chooses_itself_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    if variable == "CONSISID_GATEWAY_DATABASE":  # which needs objects
        monkeypatch.setenv("CONSISID_GATEWAY_OBJECTS", "/objects")
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidOption, match="is chosen by `consisid up`"):
        chosen(tmp_path)


def test_without_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="no bundle"):
        Chosen.read({}, {"data": tmp_path})


def test_a_port_in_use_is_found_before_anything_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidOption, match=f"127.0.0.1:{port} for the gateway"):
            parts(chosen(tmp_path, port=port))


def test_one_has_the_folder_at_a_time(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(OutputBusy, match=f"process {os.getpid()}"), held(tmp_path):
        pass
    with held(tmp_path):
        pass


def test_a_gateway_that_is_started_again_keeps_its_port(tmp_path: Path) -> None:
    gateway = parts(chosen(tmp_path, port=0))[0].arguments
    assert int(gateway[gateway.index("--port") + 1]) > 0
