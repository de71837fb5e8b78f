"""`consisid inspect VIDEO.mp4`, and the flags that sign and ask."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from consisid_runtime.cli import serving
from consisid_runtime.cli.commands import inspect
from consisid_runtime.cli.origin import origin, origin_table
from consisid_runtime.errors import FileInaccessible, InvalidOption
from consisid_runtime.mp4 import encode_mp4
from consisid_runtime.options import Options
from consisid_runtime.plan import Geometry, plan
from consisid_runtime.provenance.credentials import Signer, sign
from consisid_runtime.provenance.marks import marks

FRAMES = np.zeros((9, 32, 48, 3), np.uint8)
MARKS = marks(plan(Options(seed=7), Geometry(9, 32, 48, 8, 4, 2, fixed_size=False)), "f" * 64, {"name": "a:b"})


@pytest.fixture
def folder(tmp_path: Path, signing_files: Path) -> Path:
    marked = encode_mp4(FRAMES, 8, MARKS)
    signer = Signer.read(signing_files / "cert.pem", signing_files / "key.pem")
    signed = sign(marked, signer)
    contents = {
        "plain": encode_mp4(FRAMES, 8),
        "marked": marked,
        "signed": signed,
        "changed": signed.replace(b"AI-generated", b"hand-painted"),
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
    return tmp_path


def test_a_video_says_what_made_it(folder: Path, signing_files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect(bundle=folder / "signed.mp4", trust=signing_files / "authority.pem", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["marks"]["options"]["seed"] == 7 and found["ai_generated_in_xmp"] is True
    assert found["credentials"]["state"] == "trusted" and found["credentials"]["signer"] == "Signer, Tests"
    inspect(bundle=folder / "signed.mp4")
    text = capsys.readouterr().out
    for part in (
        "AI-generated video (ConsisID",
        "seed              7",
        "f" * 64,
        "made by a trained model",
        "valid, signed",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("plain", ["no comment on its origin", "XMP: says nothing", "credentials: none"]),
        ("marked", ["AI-generated", "made by a trained model", "credentials: none"]),
        ("changed", ["hand-painted", "credentials: invalid", "problem: assertion.bmffHash.mismatch"]),
    ],
)
def test_what_it_does_not_prove(folder: Path, name: str, said: list[str]) -> None:
    text = origin_table(origin(folder / f"{name}.mp4"))
    assert all(part in text for part in said), text


def test_without_c2pa_credentials_are_unchecked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    assert "not looked for" in origin_table(origin(folder / "signed.mp4"))


@pytest.mark.parametrize("name", ["nowhere.mp4", "text.mp4", "folder.mp4"])
def test_what_is_no_video(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.mp4").write_text("words")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(FileInaccessible, match=name):
        origin(tmp_path / name)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"sign_cert": Path("a.pem")}, "both a certificate and its key"),
        ({"sign_key": Path("a.pem")}, "both a certificate and its key"),
        ({"consent_hook": "nowhere_at_all:ask"}, "cannot be loaded"),
        ({"consent_hook": "nowhere_at_all:ask", "direct": True}, "leave out --direct"),
        ({"sign_cert": Path("a.pem"), "direct": True}, "leave out --direct"),
    ],
)
def test_a_server_is_not_started_with_flags_that_cannot_work(
    flags: dict[str, object], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(InvalidOption, match=problem):
        serving.serve(bundle=Path("/nonexistent"), **flags)  # type: ignore[arg-type]
