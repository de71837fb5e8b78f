"""The digest of source code covers exactly the files that a measurement may depend on."""

import subprocess
import sys
from pathlib import Path

import pytest

import consisid_fidelity
from consisid_fidelity.nano import setup

FOLDER = Path(consisid_fidelity.__file__).parent


def test_unrelated_files_exist() -> None:
    missing = [name for name in setup.UNRELATED if not (FOLDER.parent / name).is_file()]
    assert not missing


def test_measuring_imports_no_unrelated_file() -> None:
    probe = "import sys; from consisid_fidelity.nano import worker; from consisid_fidelity.judges import clip_score; "
    probe += "print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()
    assert "consisid_fidelity.nano.measure" in loaded
    unrelated = {name.removesuffix(".py").replace("/", ".") for name in setup.UNRELATED}
    assert not unrelated & set(loaded)


def test_only_a_related_file_changes_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    edited: set[Path] = set()
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + (b"# edited" if path in edited else b""))
    before = setup._code_digest()
    edited.add(FOLDER / "nano" / "report.py")
    assert setup._code_digest() == before
    edited.add(FOLDER / "judges" / "faces.py")
    assert setup._code_digest() != before
