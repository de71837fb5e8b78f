"""Reads, verifies and writes `DIGESTS.json`, the SHA-256 of every file of the checkpoint and of the judges.

`python -m consisid_nano.digests` writes it from the files in the package. Each folder has its own digest, so that the
judges can be shown to be unchanged since before the checkpoint was trained.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from consisid_nano import package
from consisid_nano.package import DATA, DataDamaged, DataMissing

FILE = "DIGESTS.json"
_REINSTALL = "install it again: pip install --force-reinstall consisid-nano"


def verified(name: str) -> dict[str, str]:
    """Compare every file of a folder of `DATA` with `FILE`; returns path inside the folder → hex SHA-256.

    Raises `DataMissing` if the folder does not exist, and `DataDamaged`, naming the files, if any differ.
    """
    files, expected = _files(package.folder(name)), recorded(name)["files"]
    if files != expected:
        differing = sorted(file for file in files.keys() | expected.keys() if files.get(file) != expected.get(file))
        raise DataDamaged(f"{', '.join(differing)} in {package.PACKAGE / name} differ from {FILE}; {_REINSTALL}")
    return files


def recorded(name: str) -> dict[str, Any]:
    """Return a folder's entry: "digest", over all its files, and "files". Raises `DataMissing` or `DataDamaged`."""
    path = package.PACKAGE / FILE
    try:
        content = json.loads(path.read_bytes())
        entry: dict[str, Any] = content[name]
        whole = {each: content[each]["digest"] for each in DATA if each in content}
        intact = content["digest"] == _digest(whole) and entry["digest"] == _digest(entry["files"])
    except FileNotFoundError as error:
        raise DataMissing(f"consisid-nano at {package.PACKAGE} has no {FILE}; {_REINSTALL}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataDamaged(f"{path} has no valid entry for {name} ({error!r}); {_REINSTALL}") from error
    if not intact:
        raise DataDamaged(f"{path} was changed; {_REINSTALL}")
    return entry


def write() -> Path:
    """Write `FILE` for the folders that exist. Returns its path."""
    found = {name: _files(package.PACKAGE / name) for name in DATA if (package.PACKAGE / name).is_dir()}
    entries = {name: {"digest": _digest(files), "files": files} for name, files in found.items()}
    whole = _digest({name: entry["digest"] for name, entry in entries.items()})
    path = package.PACKAGE / FILE
    path.write_text(json.dumps({"digest": whole, **entries}, indent=1) + "\n")
    return path


def _files(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _digest(content: dict[str, Any]) -> str:
    """Hex SHA-256 of canonical JSON: sorted keys, no spaces."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


if __name__ == "__main__":
    print(write())
