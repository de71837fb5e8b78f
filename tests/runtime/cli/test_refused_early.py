"""What needs no network to be refused is refused by `consisid generate` before one is loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from consisid_runtime.cli import main, output
from consisid_runtime.pipeline import Pipeline


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"--prompt": " "}, "EMPTY_PROMPT"),
        ({"--image": "/nonexistent.png"}, "IMAGE_UNREADABLE"),
        ({"--image": __file__}, "IMAGE_UNREADABLE"),
        ({"--frames": "10"}, "INVALID_OPTION"),
    ],
    ids=["prompt", "no file", "no image", "frames"],
)
def test_before_the_networks_are_loaded(
    changed: dict[str, str],
    code: str,
    untrained_bundle: Path,
    portrait: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def load(self: Pipeline, *_: object) -> None:
        raise AssertionError("loaded")

    (tmp_path / "portrait.png").write_bytes(portrait)
    given = {"--bundle": str(untrained_bundle), "--device": "cpu", "--image": str(tmp_path / "portrait.png")}
    given |= {"--prompt": "a man", "--out": str(tmp_path / "out.mp4")} | changed
    monkeypatch.setattr(Pipeline, "__init__", load)
    monkeypatch.setattr(sys, "argv", ["consisid", "generate", *(part for pair in given.items() for part in pair)])
    output._as_json.set(False)
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 3
    assert capsys.readouterr().err.startswith(f"{code}: ")
