"""Every path that a command takes, made unusable in every way: a typed error that names it, and no traceback."""

import contextlib
import ctypes
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_origin

import pytest
import typer
from typer.models import OptionInfo

import consisid_nano
from consisid_runtime.cli.main import make_app
from consisid_runtime.errors import exit_codes

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, PR_CAPBSET_DROP = 1, 2, 24

Result = tuple[int, str, str]
Session = Callable[..., list[Result]]


def as_everybody() -> None:
    """Root may read and write everything; a program that it starts after this may not."""
    libc = ctypes.CDLL(None)
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


@dataclass(frozen=True)
class Parameter:
    """A path that a command takes.

    Attributes:
        command: names of command and sub-command.
        flag: None for an argument.
    """

    command: tuple[str, ...]
    name: str
    flag: str | None
    required: bool

    def given(self, path: Path) -> list[str]:
        return [self.flag, str(path)] if self.flag else [str(path)]


def path_parameters(app: typer.Typer, names: tuple[str, ...] = ()) -> Iterator[Parameter]:
    """Every path that a command of `app` takes."""
    for group in app.registered_groups:
        assert group.typer_instance is not None and group.name
        yield from path_parameters(group.typer_instance, (*names, group.name))
    for command in app.registered_commands:
        assert command.callback is not None
        for found in inspect.signature(command.callback, eval_str=True).parameters.values():
            if get_origin(found.annotation) is Annotated and "Path" in str(found.annotation.__origin__):
                (info,) = found.annotation.__metadata__
                name = command.name or command.callback.__name__
                flag = f"--{found.name.replace('_', '-')}" if isinstance(info, OptionInfo) else None
                yield Parameter((*names, name), found.name, flag, found.default is inspect.Parameter.empty)


PARAMETERS = {" ".join((*found.command, found.name)): found for found in path_parameters(make_app())}
WRITTEN = {
    *("generate out", "request out", "export out", "repository out", "nano folder", "demo folder", "demo out"),
    *(
        "bench export out",
        "bench pipeline out",
        "bench kernels out",
        "bench predict out",
        "bench fidelity out",
        "bench fidelity-nano out",
        "bench serving out",
        "bench tiers out",
    ),
    *(
        "bench fidelity-videos out",
        "bench fidelity-nano work",
        "bench gate work",
        "bench tiers work",
        "bench export full",
    ),
    *("up data", "gateway data", "worker data", "keys make data", "keys list data", "keys revoke data"),
}
"""What is written to; the other paths are read."""

BAD = ("closed", "unreadable", "loop", "long", "below a file", "missing", "a pipe")
FEWER = {
    **{name: BAD[:2] for name in ("bench fidelity-nano", "bench gate", "up")},
    "export": ("closed", "unreadable", "long", "a pipe"),
}
"""Commands that read a whole checkpoint before, or start three processes."""
WITHOUT_JSON = ("demo",)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Runs commands as a user to whom permissions apply."""

    def run(*commands: list[str], **environment: str) -> list[Result]:
        script = [sys.executable, str(Path(__file__).with_name("commands_session.py"))]
        done = subprocess.run(
            script,
            input=json.dumps(commands),
            capture_output=True,
            text=True,
            env=os.environ | environment,
            preexec_fn=as_everybody,
            timeout=300,  # a command that serves instead of refusing would never end
            cwd=tmp_path_factory.mktemp("cwd"),
        )
        assert done.returncode == 0, done.stderr
        return [(status, printed, complained) for status, printed, complained in json.loads(done.stdout)]

    return run


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Way in which a path is unusable → such a path."""
    root = tmp_path_factory.mktemp("places")
    closed, unreadable = root / "closed", root / "unreadable"
    for folder in (closed, unreadable):
        folder.mkdir()
    (root / "file").write_text("mine")
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "pipe")
    for folder in (closed, unreadable):
        folder.chmod(0)
    yield {
        "closed": closed / "x",
        "unreadable": unreadable,
        "loop": root / "loop",
        "long": root / ("x" * 300),
        "below a file": root / "file" / "x",
        "missing": root / "missing",
        "a pipe": root / "pipe",
    }
    for folder in (closed, unreadable):
        folder.chmod(0o700)


@pytest.fixture(scope="module")
def usable(
    torch_bundle_of: Callable[..., Path], portrait: bytes, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Name of a parameter → a path that can be used, for those that a command cannot do without."""
    root = tmp_path_factory.mktemp("usable")
    (root / "portrait.png").write_bytes(portrait)
    (root / "requests.csv").write_text("portrait,prompt\nportrait.png,a person\n")
    (root / "videos.csv").write_text("video,portrait,prompt\nrequests.csv,portrait.png,a person\n")
    bundle, nano = torch_bundle_of(), consisid_nano.checkpoint()
    return {
        "bundle": bundle,
        "candidate": bundle,
        "image": root / "portrait.png",
        "out": root / "out",
        "video": root / "out.mp4",
        "folder": root / "folder",
        "checkpoint": nano,
        "judges": consisid_nano.judges(),
        "videos": root,
        "requests": root / "requests.csv",
    }


def arguments(name: str, path: Path, usable: dict[str, Path]) -> list[str]:
    """A command with `path` for the parameter called `name`, and good values for what else it needs."""
    wanted = PARAMETERS[name]
    names = wanted.command
    given = list(names)
    for other in PARAMETERS.values():
        if other.command == names and (other is wanted or other.required):
            good = usable.get(
                "video" if other.name == "out" and names[0] in ("generate", "request") else other.name, path
            )
            given += other.given(path if other is wanted else good)
    if names[0] in ("serve", "up") and wanted.name != "bundle":
        given += ["--bundle", str(usable["bundle"])]
    if names == ("gateway",) and wanted.name.startswith("tls_"):
        given += ["--tls-key" if wanted.name == "tls_cert" else "--tls-cert", str(path)]
    given += {
        "health": ["http://127.0.0.1:9"],
        "generate": ["--prompt", "a"],
        "request": ["--prompt", "a", "--url", "grpc://127.0.0.1:9"],
        "keys": ["a"] if names[-1] in ("make", "revoke") else [],
    }.get(names[0], [])
    if name == "estimate ca":
        given += ["--url", "grpc://127.0.0.1:9"]
    if "calibration" in name:
        given += ["--engine", "onnx", "--precision", "fp8"]
    return given if names[0] in WITHOUT_JSON else [*given, "--json"]


def test_every_path_of_every_command_is_typed(session: Session, places: dict[str, Path], usable: Any) -> None:
    assert PARAMETERS.keys() > WRITTEN and len(PARAMETERS) >= 31
    cases = [
        (name, way)
        for name in PARAMETERS
        for way in FEWER.get(" ".join(PARAMETERS[name].command), BAD)
        if not (way == "missing" and name in WRITTEN)  # is made
    ]
    found = session(*(arguments(name, places[way], usable) for name, way in cases))
    wrong = []
    for (name, way), (status, printed, complained) in zip(cases, found, strict=True):
        text = complained if name.split()[0] in WITHOUT_JSON else printed
        code = None
        with contextlib.suppress(ValueError, KeyError):
            code = text.split(":")[0] if text is complained else json.loads(printed)["error"]["code"]
        typed = status in exit_codes() and status not in (0, 1, 2) and "Traceback" not in complained
        named = str(places[way]) in text.replace("\\\\", "\\") or code == "MISSING_EXTRA"
        if not (typed and code and named):
            wrong.append(f"{name}, {way}: {status} {printed[-300:]} {complained[-600:]}")
    assert not wrong, "\n".join(wrong)
