"""Every setting reaches one place, with its value, and somebody reads it there."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import logging
import re
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import typer

from consisid_runtime import door
from consisid_runtime.cli import serving
from consisid_runtime.cli.main import make_app
from consisid_runtime.door.limits import Limits
from consisid_runtime.serve.logs.unblocked import Unblocked
from consisid_runtime.serve.server import Server
from consisid_runtime.settings.groups import GROUPS
from consisid_runtime.settings.kinds import accepts
from consisid_runtime.settings.settings import DOORS, Settings
from consisid_runtime.wire import FACES_KEPT_VARIABLE, FACES_SECONDS_VARIABLE

SPECIAL = {
    "host": "::1",
    "device": "cpu",
    "layout": "single",
    "memory": 24,
    "trusted_proxy": "10.0.0.0/8",
    "trace": "http://collector:4318",
    "consent_hook": "a:b",
    "watermark_hook": "c:d",
    "log_level": "error",
    "direct": True,
    "head_bytes": 2**15,
}
DIRECT: dict[str, Any] = {"direct": True}
"""What `metrics_port` needs."""

Places = dict[str, Any]


class Shown(contextlib.AbstractContextManager[Any]):
    """In place of a door or a server."""

    grpc_url = http_url = metrics_url = ""

    def wait(self) -> None:
        """It has ended."""

    def reload(self) -> None:
        """Nobody asks for it."""

    def __exit__(self, *_: object) -> None:
        pass


def another(name: str) -> Any:
    """A value that no other setting has."""
    field, number = Settings.model_fields[name], list(Settings.model_fields).index(name)
    if accepts(field) == "a path":
        return Path(f"/another/{name}")
    if name in SPECIAL:
        return SPECIAL[name]
    return 0.5 + number / 1000 if name == "client_share" else 2**20 + number if name.endswith("_bytes") else 70 + number


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Places]:
    """Serves with settings, without a server; returns what its parts were made with: place → value."""

    def run(**settings: Any) -> Places:
        seen: Places = {}

        def stand_in(kind: type | Callable[..., Any], name: str, answer: Any = None) -> Callable[..., Any]:
            def made(*arguments: Any, **named: Any) -> Any:
                for key, value in inspect.signature(kind).bind(*arguments, **named).arguments.items():
                    flat = value if key == "settings" else asdict(value) if isinstance(value, Limits) else {key: value}
                    seen.update({f"{name}.{each}": one for each, one in flat.items()})
                return answer

            return made

        shown = Shown()
        for place, name, answer in (
            ("serve.server.Server", "Server", shown),
            ("door.door.Door", "Door", shown),
            ("door.access.Access.read", "Access", None),
            ("provenance.credentials.Signer.read", "Signer", None),
            ("provenance.hooks.load_hook", "hook", None),
            ("door.records.writing", "log", contextlib.nullcontext()),
            ("cli.serving.use_threads", "use", None),
        ):
            found: Any = resolve_name(f"consisid_runtime.{place}")
            monkeypatch.setattr(f"consisid_runtime.{place}", stand_in(found, name, answer))
        monkeypatch.setattr("signal.signal", lambda *_: None)
        given: dict[str, Any] = {"bundle": Path("/bundle"), **settings}
        serving._serve(Settings(**given), Unblocked(io.BytesIO()), as_json=True)
        monkeypatch.undo()
        ignored = ("Server.server", "Door.server", "Server.log", "log.handler")
        return {place: value for place, value in seen.items() if place not in ignored}

    return run


def test_every_setting_reaches_one_place_of_its_own(served: Callable[..., Places]) -> None:
    reached: dict[str, str] = {}
    for name in Settings.model_fields:
        beside: Places = DIRECT if name == "metrics_port" else {}
        pair = {"sign_cert": "sign_key", "sign_key": "sign_cert"}.get(name)
        if pair:
            beside = {pair: Path("/pair")}
        value = another(name)
        own = served(**DIRECT) if beside == DIRECT else served()
        changed = {
            place: found for place, found in served(**beside, **{name: value}).items() if own.get(place) != found
        }
        if name == "direct":
            assert own["Server.private"] is True and "Server.private" not in served(direct=True)
            continue
        if name == "log_level":
            value = logging.ERROR
        changed = {place: found for place, found in changed.items() if found != Path("/pair")}
        assert list(changed.values()) == [value], f"{name}: {changed}"
        reached[name] = next(iter(changed))
    assert len(set(reached.values())) == len(reached) == len(Settings.model_fields) - 1
    limits = {place.removeprefix("Door.") for name, place in reached.items() if name in DOORS}
    assert {field.name for field in fields(Limits)} <= limits


def test_somebody_reads_every_limit_of_the_door() -> None:
    read: set[str] = set()
    for path in Path(door.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                holder = ast.unparse(node.value)
                own = path.name == "limits.py" and holder == "self"
                read |= {node.attr} if own or re.fullmatch(r"(.*\b)?_?limits", holder) else set()
    assert {field.name for field in fields(Limits)} <= read


def test_what_models_are_told(tmp_path: Path) -> None:
    told = Server(tmp_path, faces_kept=3, faces_seconds=2.5).edition.environment
    assert (told[FACES_KEPT_VARIABLE], told[FACES_SECONDS_VARIABLE]) == ("3", "2.5")


def test_the_help_tells_the_defaults_and_every_flag_is_a_setting() -> None:
    command: Any = typer.main.get_command(make_app())
    flags = {parameter.name: parameter for parameter in command.commands["serve"].params}
    assert flags.keys() - Settings.model_fields.keys() == {"config", "print_config", "as_json"}
    for name in flags.keys() & Settings.model_fields.keys():
        assert flags[name].opts == [f"--{name.replace('_', '-')}"]
        default = Settings.model_fields[name].default
        if default is not None and default is not False:
            assert flags[name].help.endswith(f" Default: {default}."), name


def test_every_setting_says_what_it_means_and_has_bounds() -> None:
    assert [name for group in GROUPS for name in group.model_fields] == [
        name for group in GROUPS for name in inspect.get_annotations(group) if name != "of_door"
    ]
    for name, field in Settings.model_fields.items():
        assert field.description and field.description.endswith("."), name
        assert accepts(field), name
