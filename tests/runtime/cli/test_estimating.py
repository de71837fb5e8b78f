"""`consisid estimate`, and what `generate` prints of similarity."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from consisid_runtime.cli import main, output
from consisid_runtime.cli.commands import _save
from consisid_runtime.client.client import Client
from consisid_runtime.options import Options
from consisid_runtime.stages.estimate import Estimate
from consisid_runtime.video import Video

FOUND = Estimate.of({"text": 0.25, "denoise": 41.0}, 3 * 2**29, None, position=2, seconds_queued=None)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Its exit status."""
    output._as_json.set(False)
    monkeypatch.setattr(sys, "argv", ["consisid", "estimate", *arguments])
    with pytest.raises(SystemExit) as end:
        main.main()
    return int(end.value.code or 0)


def test_a_server_is_asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Options | None] = []

    def estimate(self: Client, options: Options | None = None) -> Estimate:
        asked.append(options)
        return FOUND

    monkeypatch.setattr(Client, "estimate", estimate)
    assert run(monkeypatch, "--url", "grpc://127.0.0.1:9", "--steps", "25") == 0
    assert asked == [Options(steps=25)]
    assert capsys.readouterr().out.splitlines() == [
        "queue          unknown  2 before it",
        "work           41.25 s  measured",
        "  text          0.25 s",
        "  denoise      41.00 s",
        "host          1.50 GiB  measured",
        "device         unknown",
    ]
    assert run(monkeypatch, "--url", "grpc://127.0.0.1:9", "--json") == 0
    assert json.loads(capsys.readouterr().out) == FOUND.to_json()


def test_of_a_bundle_nothing_is_made_up(
    untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--bundle", str(untrained_bundle), "--device", "cpu"]
    assert run(monkeypatch, *chosen, "--json") == 0
    assert json.loads(capsys.readouterr().out) == Estimate.of(None, None, 0).to_json()
    assert run(monkeypatch, *chosen, "--frames", "10") == 3
    assert "INVALID_OPTION: frames must be 8k + 1" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--url", "grpc://127.0.0.1:9", "--bundle", "bundle"]], ids=["none", "both"])
def test_one_of_the_two_is_named(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 3
    assert "give either --url or --bundle" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (
            {"mean": 0.6123, "minimum": 0.5, "frames": 8, "frames_without_face": 1},
            "similarity to the portrait, by the model's own recogniser: 0.612, at least 0.500, a face in 7 of 8 frames",
        ),
        (
            {"mean": None, "minimum": None, "frames": 8, "frames_without_face": 8, "later": 1},
            "similarity to the portrait: unknown, a face in 0 of 8 frames",
        ),
    ],
    ids=["faces", "none"],
)
def test_similarity_is_printed(
    found: dict[str, Any], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = {"options": {"frames": 9, "height": 1, "width": 1}, "face": {"faces": 1}, "seed": 0, "seconds": {}}
    _save(Video(mp4=b"video", fps=8, info={**info, "similarity": found}), tmp_path / "out.mp4", as_json=False)
    assert line in capsys.readouterr().out.splitlines()
