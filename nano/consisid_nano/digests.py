"""`DIGESTS.json`: what every file of the checkpoint and of the judges must be.

    python -m consisid_nano.digests     writes it, from the files that are there

Each folder has a digest of its own, so that what the judges were before the checkpoint was trained can be told.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from consisid_nano import package
from consisid_nano.package import DATA, DataDamaged, DataMissing

FILE = "DIGESTS.json"
_AGAIN = "install it again: pip install --force-reinstall consisid-nano"


def verified(name: str) -> dict[str, str]:
    """The files of a folder of `DATA`, path inside it → hex SHA-256, after comparing every one.

    Raises `DataMissing` where there is no such folder, `DataDamaged` naming each file that is not as it was built.
    """
    files, wanted = _files(package.folder(name)), recorded(name)["files"]
    if files != wanted:
        differing = sorted(file for file in files.keys() | wanted.keys() if files.get(file) != wanted.get(file))
        raise DataDamaged(f"{', '.join(differing)} in {package.PACKAGE / name}: not what {FILE} says; {_AGAIN}")
    return files


def recorded(name: str) -> dict[str, Any]:
    """The entry of a folder: "digest", over all its files, and "files". Raises `DataMissing` or `DataDamaged`."""
    path = package.PACKAGE / FILE
    try:
        content = json.loads(path.read_bytes())
        entry: dict[str, Any] = content[name]
        whole = {each: content[each]["digest"] for each in DATA if each in content}
        intact = content["digest"] == _digest(whole) and entry["digest"] == _digest(entry["files"])
    except FileNotFoundError as error:
        raise DataMissing(f"consisid-nano at {package.PACKAGE} has no {FILE}; {_AGAIN}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataDamaged(f"{path} says nothing of {name} ({error!r}); {_AGAIN}") from error
    if not intact:
        raise DataDamaged(f"{path} was changed; {_AGAIN}")
    return entry


def write() -> Path:
    """Write `FILE` for the folders that are there. Returns its path."""
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
