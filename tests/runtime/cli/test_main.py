"""Commands and modules of a distribution that is not installed, in this process."""

import json
import sys
from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace

import pytest
import typer

from consisid_runtime.cli import main, output
from consisid_runtime.cli.distributions import DISTRIBUTIONS
from consisid_runtime.cli.output import Json

Run = Callable[..., object]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command without the sub-commands of other packages, plus `work`; returns the exit code."""

    def start(*arguments: str, work: Callable[..., None] = lambda: None) -> object:
        def register(app: typer.Typer) -> None:
            app.command("work")(work)

        monkeypatch.setattr(main, "entry_points", lambda group: [SimpleNamespace(load=lambda: register)])
        monkeypatch.setattr(sys, "argv", ["consisid", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        return ended.value.code

    return start


@pytest.mark.parametrize("command", [command for found in DISTRIBUTIONS for command in found.commands])
def test_a_command_of_a_missing_distribution_names_it(
    command: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, "--people", "2") == 7
    message = capsys.readouterr().err
    assert message.startswith(f"MISSING_EXTRA: `consisid {command}` needs consisid-nano, which is not installed")
    assert message.endswith("pip install 'consisid-nano[demo]'\n")


@pytest.mark.parametrize("module", ["consisid_nano", "consisid_nano.world"])
def test_a_module_of_a_missing_distribution_names_it(
    module: str, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "consisid_nano"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "consisid_nano", None)
    assert run("work", work=lambda: [import_module(module)].clear()) == 7
    assert "MISSING_EXTRA: this command needs consisid-nano" in capsys.readouterr().err


def test_a_command_that_does_not_exist_is_wrong_use(run: Run) -> None:
    assert run("nanoo") == 2


def test_another_missing_module_is_an_unexpected_failure(run: Run) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        run("work", work=lambda: [import_module("no_such_module")].clear())


def test_the_commands_of_a_distribution_are_those_it_registers() -> None:
    app = typer.Typer()
    for found in DISTRIBUTIONS:
        import_module(f"{found.package}.cli").register(app)
    registered = [command.callback.__name__ for command in app.registered_commands if command.callback]
    assert registered == [command for found in DISTRIBUTIONS for command in found.commands]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied", "/closed/file"), "/closed/file: Permission denied"),
        (FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"), "No usable temporary directory"),
    ],
)
def test_an_error_of_a_path_that_nothing_else_typed(
    error: OSError, message: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise error

    assert run("work", work=work) == 4
    assert capsys.readouterr().err.startswith(f"FILE_INACCESSIBLE: {message}")


def test_an_unexpected_error_is_json_too_where_that_was_asked_for(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    def work(as_json: Json = False) -> None:
        raise ZeroDivisionError("by zero")

    before = output._as_json.get()
    with pytest.raises(ZeroDivisionError):
        run("work", "--json", work=work)
    output._as_json.set(before)
    assert json.loads(capsys.readouterr().out)["error"] == {"code": "INTERNAL", "message": "ZeroDivisionError: by zero"}
