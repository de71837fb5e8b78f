"""The work folder of a resumable export: finished parts stay there until the bundle is complete.

    .NAME.partial/lock        held by the one process that exports
                  identity    what every part was made from: the checkpoint and the options
                  bundle/     becomes the content of NAME
                  records/    PART.json for every finished part: its record in the manifest, and its files' digests
                  scratch/    of the module being written
                  placing/    bundle/ once it is complete, while its files are moved to NAME

It lies beside NAME, or in NAME as `.consisid-partial` where NAME is a mount point or the folder around it is closed.
What has no record, differs from it, or was shaped by other source files is removed when the next export begins.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from consisid_export.checkpoint.tensor_files import link
from consisid_export.resuming.place import IDENTITY, PLACING, discard, identity_text, locked, place, usable_root
from consisid_runtime.errors import ConsisIDError, ExportCancelled, OutputBusy, OutputUnwritable
from consisid_runtime.files.atomic import write_file
from consisid_runtime.files.folders import disk_reason
from consisid_runtime.files.json_file import read_json
from consisid_runtime.files.ownership import manifest_digest, require_ours

Digest = Callable[[Path], str]


class WorkFolder:
    """An export's work folder, held by this process.

    Attributes:
        folder: what becomes the bundle.
        finished: part → its "entry" in the manifest and its "files" with sizes and digests, also of an earlier process.
    """

    def __init__(self, root: Path, digest: Digest, sources: Mapping[str, str]) -> None:
        self.folder = root / "bundle"
        self._records, self._scratch, self._digest = root / "records", root / "scratch", digest
        self._sources = sources
        for folder in (self.folder, self._records):
            folder.mkdir(exist_ok=True)
        self.finished = self._valid_records()
        kept = {self.folder / name for record in self.finished.values() for name in record["files"]}
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.is_dir():
                shutil.rmtree(path)
            elif path not in kept:
                path.unlink()

    def finish(self, part: str, entry: dict[str, Any]) -> None:
        """Record a part whose files, `entry["files"]`, are complete in `folder`."""
        files = {name: file_record(self.folder / name, self._digest) for name in entry["files"]}
        self._record(part, entry | {"sources": self._sources[part]}, files)

    def take_over(self, bundle: Path, parts: Mapping[str, dict[str, Any]], files: Mapping[str, dict[str, Any]]) -> None:
        """Finish the parts of a bundle that are not finished here and were shaped by the same source files.

        Args:
            bundle: made from the same checkpoint with the same options; it is not changed.
            parts: part → its record in that bundle's manifest.
            files: that manifest's.
        """
        there = {name: found for record in self.finished.values() for name, found in record["files"].items()}
        for part, entry in parts.items():
            needed = {name: files[name] for name in entry["files"]}
            fits = all(there.get(name, expected) == expected for name, expected in needed.items())
            if part not in self.finished and entry["sources"] == self._sources.get(part) and fits:
                for name in needed.keys() - there.keys():
                    link(bundle / name, self.folder / name, copy=False)
                there |= needed
                self._record(part, entry, needed)

    def _record(self, part: str, entry: dict[str, Any], files: Mapping[str, dict[str, Any]]) -> None:
        record: dict[str, Any] = {"entry": entry, "files": files}
        record["digest"] = manifest_digest(record)
        write_file(self._records / f"{part}.json", json.dumps(record).encode())
        self.finished[part] = record

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder on the target's file system, removed at the end."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        try:
            yield self._scratch
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _valid_records(self) -> dict[str, dict[str, Any]]:
        found = {}
        for path in sorted(self._records.glob("*.json")):
            record = _read_record(path)
            if record and self._current(path.stem, record):
                found[path.stem] = record
            else:
                path.unlink()
        return found

    def _current(self, part: str, record: dict[str, Any]) -> bool:
        unchanged = record["entry"].get("sources") == self._sources.get(part)
        return unchanged and all(self._intact(name, expected) for name, expected in record["files"].items())

    def _intact(self, name: str, expected: dict[str, Any]) -> bool:
        path = self.folder / name
        return (
            path.is_file() and path.stat().st_size == expected["bytes"] and file_record(path, self._digest) == expected
        )


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = read_json(path)
        return record if record["digest"] == manifest_digest(record) else None
    except (ValueError, KeyError, TypeError):
        return None


def file_record(path: Path, digest: Digest) -> dict[str, Any]:
    """A manifest's entry for one file."""
    return {"bytes": path.stat().st_size, "sha256": digest(path)}


@contextlib.contextmanager
def resuming(out: Path, marker: str, identity: str, digest: Digest, sources: Mapping[str, str]) -> Iterator[WorkFolder]:
    """The work folder for `out`, whose content takes the place of that of `out` when the block succeeds.

    When the block fails, finished parts stay for the next export of the same `identity` and `sources`; an export of
    others removes them.

    Args:
        out: absolute.
        marker: the file by which a bundle is recognised; any other folder with content is left alone.
        identity: of the checkpoint and the options.
        sources: part → digest of what else shapes it.

    Raises `OutputBusy` while another process exports to `out`, `OutputUnwritable` where the operating system refuses
    to write, `ExportCancelled` on Ctrl-C.
    """
    require_ours(out, marker)
    root = usable_root(out)
    work = None
    try:
        with locked(root, out):
            try:
                _prepare(root, identity)
                work = WorkFolder(root, digest, sources)
                yield work
                (root / "bundle").rename(root / PLACING)
                place(root, out, marker)
            except BaseException:
                _tidy(root, work)
                raise
            discard(root)
    except OutputBusy:
        raise
    except (OutputUnwritable, ExportCancelled) as error:
        raise type(error)(f"{error}; {_kept(root)}") from error
    except ConsisIDError:
        raise
    except KeyboardInterrupt:
        raise ExportCancelled(f"the export to {out} was cancelled; {_kept(root)}") from None
    except Exception as error:
        reason = disk_reason(error)
        if reason is None:
            raise
        raise OutputUnwritable(f"{out} cannot be written: {reason}; {_kept(root)}") from error


def _prepare(root: Path, identity: str) -> None:
    mark, text = root / IDENTITY, identity_text(identity)
    if not mark.is_file() or mark.read_text() != text:
        for folder in ("bundle", "records"):
            shutil.rmtree(root / folder, ignore_errors=True)
        write_file(mark, text.encode())
    shutil.rmtree(root / "scratch", ignore_errors=True)


def _tidy(root: Path, work: WorkFolder | None) -> None:
    """Remove a work folder in which nothing is finished."""
    if work is not None and not work.finished and not (root / PLACING).exists():
        discard(root)


def _kept(root: Path) -> str:
    parts = len(list((root / "records").glob("*.json")))
    if not parts:
        return "nothing was left behind"
    return (
        f"{parts} finished parts are kept in {root}: the same command goes on from there, and removing the folder "
        "frees the space"
    )
