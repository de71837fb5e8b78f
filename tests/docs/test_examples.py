"""The commands and the Python of the pages run on the untrained checkpoint; each video is one that was made before."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from consisid_runtime import AsyncClient, Client, Options, Pipeline, Video
from consisid_runtime.cli.main import make_app
from consisid_runtime.client.stream import AsyncStream, Put
from consisid_runtime.errors import ConsentRefused
from consisid_runtime.events import Event
from consisid_runtime.provenance.hooks import check_consent

SERVED = ("serve", "up")
"""Run until they are stopped; tests/runtime/serve and tests/gateway run them."""
SENT = ("docs/requests.md", "docs/gateway.md")
"""tests/runtime/serve and tests/gateway/api send what they have."""
WITH_PYTHON = ("README.md", "docs/provenance.md", "docs/python-api.md", "nano/README.md")


@pytest.fixture
def example_folder(
    untrained: Path, untrained_bundle: Path, portrait: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A working directory with the files that the pages name."""
    (tmp_path / "ConsisID-preview").symlink_to(untrained)
    (tmp_path / "bundle").symlink_to(untrained_bundle)
    (tmp_path / "portrait.jpg").write_bytes(portrait)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def video(untrained_bundle: Path, portrait: bytes) -> Video:
    return Pipeline.open(untrained_bundle, device="cpu").generate(portrait, "a man", Options(steps=1))


@pytest.fixture(autouse=True)
def calls(video: Video, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the calls that were made of pipelines and clients; each `generate` is answered with `video`.

    A call whose arguments do not fit the real method fails.
    """
    made: list[str] = []

    async def streamed(put: Put) -> None:
        put(Event("denoise", 1, 50))
        put(video)

    def stand_in(kind: type, name: str, answer: Any) -> None:
        real = inspect.signature(getattr(kind, name))

        def call(*arguments: Any, **named: Any) -> Any:
            real.bind(*arguments, **named)
            made.append(f"{kind.__name__}.{name}")
            return answer

        monkeypatch.setattr(kind, name, call)

    stand_in(Client, "generate", video)
    stand_in(Client, "ready", True)
    stand_in(Client, "trial", {"seconds": {"face": 0.1}})
    stand_in(AsyncClient, "stream", AsyncStream(streamed))
    stand_in(Pipeline, "generate", video)
    stand_in(Pipeline, "open", Pipeline.__new__(Pipeline))
    stand_in(Pipeline, "__init__", None)
    return made


def test_the_commands_of_the_readme_run(example_folder: Path, pages: dict[str, str], calls: list[str]) -> None:
    (block,) = (each for each in _blocks(pages["README.md"], "console") if "consisid export" in each)
    ran = []
    for line in block.splitlines():
        _, name, *arguments = shlex.split(line, comments=True)
        if name in SERVED:
            continue
        result = CliRunner().invoke(make_app(), [name, *arguments])
        assert result.exit_code == 0, (line, result.output, result.exception)
        ran.append(name)
    assert ran == ["export", "inspect", "generate", "request", "health", "repository"]
    assert (example_folder / "out.mp4").is_file() and (example_folder / "models" / "README.md").is_file()
    assert calls == ["Pipeline.__init__", "Pipeline.generate", "Client.generate", "Client.ready", "Client.trial"]


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_the_python_of_a_page_runs(page: str, example_folder: Path, pages: dict[str, str]) -> None:
    for block in _blocks(pages[page], "python"):
        if signature(block):
            continue
        exec(compile(block, page, "exec"), {})
    if "out.mp4" in "".join(_blocks(pages[page], "python")):
        assert (example_folder / "out.mp4").is_file()


def test_the_hooks_of_the_page_do_what_it_says(pages: dict[str, str]) -> None:
    hooks: dict[str, Any] = {}
    for block in _blocks(pages["docs/provenance.md"], "python"):
        exec(compile(block, "docs/provenance.md", "exec"), hooks)
    check_consent(hooks["ask"], b"", "approved: a man", Options(), "127.0.0.1")
    with pytest.raises(ConsentRefused, match="was not approved"):
        check_consent(hooks["ask"], b"", "a man", Options(), "127.0.0.1")
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    marked = hooks["mark"](frames)
    assert marked.shape == frames.shape and marked.dtype == np.uint8 and marked.any() and hooks["__version__"]


def test_no_other_page_has_python(pages: dict[str, str]) -> None:
    assert {name for name, text in pages.items() if _blocks(text, "python")} == {*WITH_PYTHON, *SENT}


def signature(block: str) -> bool:
    """Whether a block is a signature of the generated reference."""
    return len(block.splitlines()) == 1


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
