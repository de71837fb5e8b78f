"""Where settings come from, which source wins, and what each error says."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consisid_runtime.door.limits import Limits
from consisid_runtime.errors import FileInaccessible, InvalidOption
from consisid_runtime.settings.resolve import resolve
from consisid_runtime.settings.settings import Settings

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CONSISID_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str) -> Path:
        path = tmp_path / "serve.toml"
        path.write_text(text)
        return path

    return written


def test_without_sources_everything_is_as_the_door_and_the_command_have_it() -> None:
    found = resolve(Settings, {})
    assert found.origins == {}
    assert found.settings.limits() == Limits()
    assert (found.settings.host, found.settings.grpc_port, found.settings.http_port) == ("127.0.0.1", 8001, 8000)


@pytest.mark.parametrize(
    ("flag", "variable", "line", "value", "origin"),
    [
        (1, "2", "max_steps = 3", 1, "--max-steps"),
        (None, "2", "max_steps = 3", 2, "CONSISID_SERVE_MAX_STEPS"),
        (None, "", "max_steps = 3", 3, "serve.toml"),
        (None, None, "max_steps = 3", 3, "serve.toml"),
        (None, None, "", None, None),
    ],
)
def test_the_command_line_before_the_environment_before_the_file(
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    flag: int | None,
    variable: str | None,
    line: str,
    value: int | None,
    origin: str | None,
) -> None:
    if variable is not None:
        monkeypatch.setenv("CONSISID_SERVE_MAX_STEPS", variable)
    found = resolve(Settings, {} if flag is None else {"max_steps": flag}, write(line))
    assert found.settings.max_steps == value
    shown = found.origins["max_steps"].text if "max_steps" in found.origins else None
    assert (shown or "").rpartition("/")[2] == (origin or "")


def test_a_variable_names_the_file_and_the_flag_another_one(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CONSISID_SERVE_CONFIG", str(write("queue = 3")))
    assert resolve(Settings, {}).settings.queue == 3
    (other := tmp_path / "other.toml").write_text("queue = 4")
    assert resolve(Settings, {}, other).settings.queue == 4


def test_paths_of_a_file_are_beside_it_and_those_of_a_variable_where_the_command_is(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write('bundle = "b"\ntls_cert = "/etc/cert.pem"\nhost = "b"')
    monkeypatch.setenv("CONSISID_SERVE_TLS_KEY", "key.pem")
    found = resolve(Settings, {}, path).settings
    assert (found.bundle, found.tls_cert, found.tls_key) == (tmp_path / "b", Path("/etc/cert.pem"), Path("key.pem"))
    assert found.host == "b"


@pytest.mark.parametrize(("given", "memory"), [("memory = 24", 24), ('memory = "24"', 24), ('memory = "auto"', "auto")])
def test_memory_is_a_number_or_a_word(write: Write, given: str, memory: int | str) -> None:
    assert resolve(Settings, {}, write(given)).settings.memory == memory
    assert resolve(Settings, {"memory": str(memory)}).settings.memory == memory


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("queu = 3", r"key 'queu' of \S*/serve\.toml is no setting; the nearest one is queue"),
        ("[limits]\nqueue = 3", r"key 'limits' of \S*/serve\.toml is no setting"),
        ('config = "x"', r"key 'config' of \S* is no setting"),
        ("xyz = 3", r"is no setting; docs/settings\.md lists them"),
        ("queue = 0", r"queue must be a whole number from 1 to 4096, got 0 \(key queue of \S*/serve\.toml\)"),
        ("queue = 5000", r"from 1 to 4096, got 5000 \("),
        ("queue = true", r"queue must be a whole number from 1 to 4096, got True"),
        ('queue = "16"', r"queue must be a whole number from 1 to 4096, got '16'"),
        ("queue = 16.0", r"queue must be a whole number from 1 to 4096, got 16\.0"),
        ("queue = [1]", r"queue must be a whole number from 1 to 4096, got \[1\]"),
        ("queue = 2026-01-01", r"queue must be a whole number from 1 to 4096, got datetime\.date"),
        ("grace_seconds = inf", r"grace_seconds must be a number from 0 to 86400, got inf"),
        ("grace_seconds = nan", r"grace_seconds must be a number from 0 to 86400, got nan"),
        ("grace_seconds = '1'", r"grace_seconds must be a number from 0 to 86400, got '1'"),
        ("direct = 1", r"direct must be true or false, got 1"),
        ("bundle = 1", r"bundle must be a path, got 1"),
        ('bundle = "\\u0000"', r"bundle must be a path, got "),
        ("host = ''", r"host must be an address or a name of this machine, got ''"),
        ("device = 'gpu'", r"device must be cpu, cuda, cuda:N, auto, got 'gpu'"),
        ("layout = 'both'", r"layout must be auto, ensemble, single, got 'both'"),
        ("memory = 13", r"memory must be 12, 16, 24, 48, 80, auto, got 13"),
        ("log_level = 'loud'", r"log_level must be info, warning, error, got 'loud'"),
        ("consent_hook = 'ask'", r"consent_hook must be module:function, got 'ask'"),
        ("queue 3", r"serve\.toml is no TOML: .*line 1"),
        ("queue = 3\nqueue = 4", r"serve\.toml is no TOML"),
        (f"queue = {'[' * 100_000}", r"serve\.toml is no TOML"),
        (f"host = '{'x' * 300}'\nqueu = 1", r"nearest one is queue"),
    ],
)
def test_what_is_wrong_in_a_file(write: Write, line: str, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        resolve(Settings, {}, write(line))


def test_the_file_of_the_page_can_be_given(write: Write, tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "settings.md").read_text(encoding="utf-8")
    found = resolve(Settings, {}, write(page.partition("```toml\n")[2].partition("```")[0]))
    assert (found.settings.bundle, found.settings.queue) == (tmp_path / "bundle", 32)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"host = '\xff'")
    with pytest.raises(InvalidOption, match="is no TOML"):
        resolve(Settings, {}, tmp_path / "x.toml")
    with pytest.raises(FileInaccessible, match="nowhere"):
        resolve(Settings, {}, tmp_path / "nowhere.toml")


@pytest.mark.parametrize("value", ["'many'", "0"])
def test_a_wrong_value_of_a_file_is_told_also_where_a_variable_wins(
    write: Write, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("CONSISID_SERVE_QUEUE", "3")
    with pytest.raises(InvalidOption, match="key queue of"):
        resolve(Settings, {}, write(f"queue = {value}"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("QUEU", "3", "the variable CONSISID_SERVE_QUEU is no setting; the nearest one is CONSISID_SERVE_QUEUE"),
        ("GRPC_PROT", "3", "CONSISID_SERVE_GRPC_PROT is no setting; the nearest one is CONSISID_SERVE_GRPC_PORT"),
        ("HTP_PORT", "8000", "CONSISID_SERVE_HTP_PORT is no setting; the nearest one is CONSISID_SERVE_HTTP_PORT"),
        ("queue", "3", "CONSISID_SERVE_queue is no setting; the nearest one is CONSISID_SERVE_QUEUE"),
        ("QUEUE", "many", r"queue must be a whole number from 1 to 4096, got 'many' \(CONSISID_SERVE_QUEUE\)"),
        ("QUEUE", "-1", r"queue must be .*, got '-1'"),
        ("DIRECT", "perhaps", "direct must be true or false, got 'perhaps'"),
        ("CLIENT_SHARE", "nan", "client_share must be a number from 0.001 to 1, got 'nan'"),
    ],
)
def test_what_is_wrong_in_a_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    monkeypatch.setenv(f"CONSISID_SERVE_{name}", value)
    with pytest.raises(InvalidOption, match=message):
        resolve(Settings, {})


def test_a_flag_is_named_as_it_is_written() -> None:
    with pytest.raises(InvalidOption, match=r"grpc_port must be .* 0 to 65535, got 70000 \(--grpc-port\)"):
        resolve(Settings, {"grpc_port": 70000})


def test_a_token_that_is_given_as_a_setting_is_not_shown(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    with pytest.raises(InvalidOption, match="nearest one is token_file") as refused:
        resolve(Settings, {}, write('token = "correct-horse-battery"'))
    assert "horse" not in str(refused.value)
    monkeypatch.setenv("CONSISID_SERVE_TOKEN", "correct-horse-battery")
    with pytest.raises(InvalidOption, match="nearest one is CONSISID_SERVE_TOKEN_FILE") as refused:
        resolve(Settings, {})
    assert "horse" not in str(refused.value)


def test_what_kubernetes_tells_of_a_service_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "8000",
        "SERVICE_PORT_GRPC": "8001",
        "PORT": "tcp://10.0.0.1:8000",
        "PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "PORT_8000_TCP_ADDR": "10.0.0.1",
        "GPU_SERVICE_HOST": "10.0.0.1",
        "GPU_PORT": "udp://10.0.0.1:8000",
        "HTTP_PORT": "tcp://10.0.0.1:8000",
    }.items():
        monkeypatch.setenv(f"CONSISID_SERVE_{name}", value)
    assert resolve(Settings, {}).settings == Settings()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"in_flight_bytes": 2**20},
            r"in_flight_bytes must be at least \d{8}, .* got 1048576 \(in_flight_bytes: --in-fl",
        ),
        ({"json_bytes": 2**28, "generate_bytes": 2**28, "in_flight_bytes": 2**27}, "must be at least 268435456"),
        ({"restart_seconds": 40.0}, "restart_longest_seconds must be at least restart_seconds, 40, got 30"),
        ({"metrics_port": 1}, "metrics_port belongs to --direct"),
        ({"direct": True, "queue": 3}, r"queue is the door's \(queue: --queue, direct: --direct\)"),
    ],
)
def test_settings_that_contradict_each_other(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        resolve(Settings, given)


def test_without_a_door_its_settings_may_be_named_as_they_are_by_default() -> None:
    assert resolve(Settings, {"direct": True, "queue": 16, "device": "cpu"}).settings.direct
