"""Where the settings of gateway and worker come from, what they refuse, and that no secret is printed."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from consisid_gateway.settings.settings import GatewaySettings, WorkerSettings
from consisid_gateway.settings.storage import data_folder, open_database
from consisid_runtime.errors import InvalidOption, OutputUnwritable
from consisid_runtime.settings.base import CommandSettings
from consisid_runtime.settings.resolve import resolve
from consisid_runtime.settings.text import to_toml


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("CONSISID_", "XDG_"))]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("kind", [GatewaySettings, WorkerSettings])
def test_what_is_printed_can_be_given_again(kind: type[CommandSettings], tmp_path: Path) -> None:
    given = {
        "database": "postgresql://me@host/db?sslmode=require",
        "objects": "s3://bucket/prefix",
        "log_level": "error",
    }
    first = resolve(kind, given)
    (path := tmp_path / "all.toml").write_text(to_toml(first))
    assert resolve(kind, {}, path).settings == first.settings
    assert {line.partition(" = ")[0] for line in path.read_text().splitlines() if " = " in line} == {
        *tomllib.loads(path.read_text())
    }


def test_the_command_line_before_the_environment_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path := tmp_path / "gateway.toml").write_text('port = 1\nbodies = 2\nhosts = "a.example"\n')
    monkeypatch.setenv("CONSISID_GATEWAY_CONFIG", str(path))
    monkeypatch.setenv("CONSISID_GATEWAY_BODIES", "3")
    monkeypatch.setenv("CONSISID_GATEWAY_PORT", "4")
    found = resolve(GatewaySettings, {"port": 5}).settings
    assert (found.port, found.bodies, found.hosts) == (5, 3, "a.example")


def test_what_kubernetes_tells_of_a_service_called_consisid_gateway_is_no_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CONSISID_GATEWAY_PORT", "tcp://10.0.0.1:8080")
    monkeypatch.setenv("CONSISID_GATEWAY_SERVICE_HOST", "10.0.0.1")
    assert resolve(GatewaySettings, {}).settings.port == 8080


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:horse@host/db",
        "postgresql://me@host/db?password=horse",
        "mysql://horse@host/db",
        "sqlite:///horse",
        "horse",
        "",
    ],
)
def test_a_database_with_a_password_or_of_another_kind_is_refused_and_not_shown(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(InvalidOption, match="database must be sqlite:////ABSOLUTE/PATH or postgresql") as refused:
        resolve(GatewaySettings, {"database": url})
    assert "horse" not in str(refused.value) and "PGPASSWORD" in str(refused.value)
    (path := tmp_path / "worker.toml").write_text(f'database = "{url}"')
    with pytest.raises(InvalidOption, match="database must be") as refused:
        resolve(WorkerSettings, {}, path)
    assert "horse" not in str(refused.value).replace(str(path), "")


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (GatewaySettings, {"objects": "relative"}, "objects must be a folder's absolute path, or s3://"),
        (GatewaySettings, {"database": "postgresql://me@host/db"}, r"name objects that all of them reach.*--database"),
        (GatewaySettings, {"tls_cert": Path("a")}, "both a certificate and its key"),
        (GatewaySettings, {"origins": "studio.example"}, "origins must be origins such as https"),
        (GatewaySettings, {"hosts": "https://a"}, "hosts must be host names"),
        (WorkerSettings, {"server": "127.0.0.1:8001"}, "server must be grpc://host:port"),
        (WorkerSettings, {"name": "two words"}, "name must be 1 to 128 of"),
    ],
)
def test_what_makes_no_sense_is_refused(kind: type[CommandSettings], given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        resolve(kind, given)


def test_the_data_are_where_this_users_programs_keep_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder(None) == tmp_path / ".local/share/consisid"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "here"))
    assert data_folder(None) == tmp_path / "here/consisid"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert data_folder(None) == tmp_path / ".local/share/consisid"


@pytest.mark.parametrize("name", ["with space", "%41", "ü 海", "a'b\"c", "#x", "a?b=c", "a;b"])
def test_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    settings = resolve(GatewaySettings, {"data": tmp_path / name}).settings
    database = open_database(settings)
    database.close()
    assert (tmp_path / name / "consisid.sqlite").is_file()


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputUnwritable, match="cannot be made"):
        data_folder(tmp_path / "file" / "data")
    with pytest.raises(OutputUnwritable, match="cannot be made"):
        data_folder(tmp_path / "file")
    with pytest.raises(InvalidOption, match="no text"):
        data_folder(tmp_path / os.fsdecode(b"\xff"))
