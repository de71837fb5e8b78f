"""Opens a bundle: the folder of engines that `consisid export` writes, with a manifest of what each file must be.

Opening checks the manifest against its own digest and every file's size; a file's SHA-256 is checked when it is first
used, or for all files at once by `verify`, and a process hands on to those it starts what it checked. The manifest
names files below its folder only; each may be a link, as in the cache of the Hugging Face hub: its content is what the
digest says, wherever it lies.
"""

from __future__ import annotations

import errno
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from consisid_runtime.cpus import check_threads, limit_torch
from consisid_runtime.engines import Engine, check_device
from consisid_runtime.engines.table import engine_kind
from consisid_runtime.errors import BundleCorrupt, BundleMissing, BundleVersion
from consisid_runtime.files.identity import identity, is_settled
from consisid_runtime.files.json_file import read_json
from consisid_runtime.files.ownership import is_inside, manifest_digest, sha256
from consisid_runtime.memory.decide import Setting, check_memory, decide, require_covered
from consisid_runtime.memory.plan import MemoryPlan
from consisid_runtime.models.configs.checkpoint import CheckpointConfig
from consisid_runtime.models.configs.scheduler import SchedulerConfig
from consisid_runtime.options import Options
from consisid_runtime.plan import Plan, plan
from consisid_runtime.signatures import Signature
from consisid_runtime.tiers import TierSet

if TYPE_CHECKING:
    from consisid_runtime.engines.torch import TorchEngine
    from consisid_runtime.memory.residency import Residency

FORMAT = 5
"""Version of the manifest's format, which `manifest.schema.json` describes."""

MANIFEST = "manifest.json"

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)


class Modules(Protocol):
    """What the stages need: a `Bundle`, or the exporter's view of one that is still being made."""

    device: str
    config: CheckpointConfig
    world: str | None

    def file(self, name: str) -> Path: ...

    def signature(self, module: str) -> Signature: ...

    def module(self, name: str) -> Engine: ...


class Bundle:
    """An opened bundle. Modules are loaded on first use and kept.

    Attributes:
        path: the folder.
        manifest: its manifest, as parsed.
        fingerprint: SHA-256 of the manifest's content, hence of every file it names.
        config: the checkpoint's configuration.
        world: the drawn world that it was trained on; None for photographs of people.
        device: where its modules run: one of `engines.DEVICES`.
        threads: CPU threads of each ONNX Runtime engine; None for `cpus.default_threads`.
        memory: where its weights lie; None where all are on the device once they are loaded.
        loaded: name → engine of the modules that were used so far.
    """

    def __init__(
        self,
        path: Path,
        manifest: dict[str, Any],
        *,
        device: str,
        threads: int | None,
        memory: Setting | None = None,
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.fingerprint: str = manifest["digest"]
        self.config = CheckpointConfig(manifest["config"].__getitem__)
        self.world: str | None = manifest.get("world")
        self.device = device
        self.threads = threads
        self.memory = None if memory is None else decide(memory, self.config, manifest["modules"], device)
        self._verified: dict[str, list[int]] = {}
        self._accepted: dict[str, list[int]] = {}
        self._carried_out: Residency | None = None
        self.loaded: dict[str, Engine] = {}

    @classmethod
    def open(
        cls, path: str | Path, *, device: str = "auto", threads: int | None = None, memory: Setting | None = None
    ) -> Bundle:
        """Open the bundle at `path`.

        Args:
            device: "cpu", "cuda", "cuda:N" for GPU number N, or "auto" for CUDA where the engine finds it.
            threads: CPU threads of each ONNX Runtime engine; None takes `cpus.default_threads`. PyTorch's are the
                process's own, lowered to the CPUs that it may use.
            memory: GiB of the GPU that a bundle of the torch engine may take, 12, 16, 24, 48 or 80, or "auto" for what
                is free there: weights that do not fit wait in the host's memory. None leaves all on the device. Results
                are the same.

        Raises `BundleMissing`, `BundleVersion`, `BundleCorrupt`; `InvalidOption` for another device, a number of
        threads that is not possible, or `memory` where there is no such plan; `MemoryTooSmall`.
        """
        check_device(device)
        if memory is not None:
            check_memory(memory)
        if threads is not None:
            check_threads(threads)
        folder = Path(path)
        manifest = _read_manifest(folder)
        for name, record in manifest["files"].items():
            _check_file(folder, name, record["bytes"])
        return cls(folder, manifest, device=device, threads=threads, memory=memory)

    @cached_property
    def tiers(self) -> TierSet:
        """The tiers that it can run."""
        return TierSet.from_manifest(self.manifest, SchedulerConfig.from_dict(self.config.scheduler).timesteps)

    def plan(self, options: Options) -> Plan:
        """Options resolved against this bundle. Raises `InvalidOption`, `TierUnavailable` or `MemoryTooSmall`."""
        request = plan(options, self.config.geometry, self.tiers)
        if self.memory is not None:
            require_covered(self.memory, self.config, request)
        return request

    def verify(self) -> None:
        """Check the SHA-256 of every file now. Raises `BundleCorrupt` naming each file that differs."""
        self._verified.clear()
        self._accepted.clear()
        changed = [name for name in self.manifest["files"] if not self._intact(name)]
        if changed:
            raise _corrupt(self.path, changed)

    def handover(self) -> str:
        """Which files this process has verified, for `accept` in a process that trusts it."""
        settled = {name: seen for name, seen in self._verified.items() if is_settled(seen)}
        return json.dumps({"bundle": self.fingerprint, "files": settled})

    def accept(self, handover: str) -> None:
        """Do not hash what another process verified and nobody has touched since. Text of another bundle has no effect.

        The text decides which files are believed: it must come from the process that started this one.
        """
        found = json.loads(handover)
        if found["bundle"] == self.fingerprint:
            self._accepted = found["files"]

    def file(self, name: str) -> Path:
        """The path of one file, its digest checked. Raises `BundleCorrupt` if it changed since the export."""
        if name not in self.manifest["files"]:
            raise BundleCorrupt(f"{self.path / MANIFEST} names no file {name!r}; export the checkpoint again")
        if not self._intact(name):
            raise _corrupt(self.path, [name])
        return self.path / name

    def signature(self, module: str) -> Signature:
        """The signature a module was exported with: the checkpoint's sizes as numbers, dynamic ones as symbols."""
        return Signature.from_json(module, self.manifest["modules"][module]["signature"])

    def module(self, name: str) -> Engine:
        """The engine that runs one module, loaded on first use.

        Raises `BundleVersion` for an engine that this version does not know, and what loading the engine raises.
        """
        if name not in self.loaded:
            self.loaded[name] = self._load(name)
        return self.loaded[name]

    def _load(self, name: str) -> Engine:
        record = self.manifest["modules"][name]
        for file in record["files"]:
            self.file(file)  # its digest
        engine = engine_kind(record["engine"]).load(self, name)
        limit_torch()
        if self.memory is not None:
            self._residency(self.memory).adopt(name, cast("TorchEngine", engine))
        return engine

    def _residency(self, found: MemoryPlan) -> Residency:
        """What carries out the memory plan."""
        if self._carried_out is None:
            from consisid_runtime.engines.torch import torch_device
            from consisid_runtime.memory.residency import Residency

            self._carried_out = Residency(found, torch_device(self.device))
        return self._carried_out

    def _intact(self, name: str) -> bool:
        if name not in self._verified:
            path = self.path / name
            try:
                seen = identity(path)  # before its content: what changes meanwhile has another one
                found = None if self._accepted.get(name) == seen else sha256(path)
            except OSError as error:
                raise _unreadable(path, error) from error
            if found not in (None, self.manifest["files"][name]["sha256"]):
                return False
            self._verified[name] = seen
        return True


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = read_json(path)
        found = manifest["format"]
    except OSError as error:
        if error.errno not in _ABSENT:
            raise _unreadable(path, error) from error
        raise BundleMissing(
            f"no bundle at {folder}: {MANIFEST} is not there; make one with `consisid export`"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise BundleCorrupt(f"{path} is not a manifest ({error}); export the checkpoint again") from error
    if found != FORMAT:
        raise BundleVersion(f"{path} has format {found}, this version reads {FORMAT}; export the checkpoint again")
    if manifest_digest(manifest) != manifest.get("digest"):
        raise BundleCorrupt(f"{path} was changed after the export; export the checkpoint again")
    if not all(isinstance(manifest.get(entry), dict) for entry in ("files", "modules", "config")):
        raise BundleCorrupt(f"{path} is not a manifest (files, modules or config is missing); export again")
    return manifest


def _check_file(folder: Path, name: str, expected: int) -> None:
    path = folder / name
    if not is_inside(name):
        raise BundleCorrupt(f"{folder / MANIFEST} names {name}, outside its folder; export the checkpoint again")
    try:
        found = path.stat().st_size if path.is_file() else None
    except OSError as error:
        raise _unreadable(path, error) from error
    if found is None:
        raise BundleCorrupt(f"{path} is missing from the bundle; export the checkpoint again")
    if found != expected:
        raise BundleCorrupt(f"{path} has {found} bytes, its manifest says {expected}; export the checkpoint again")


def _unreadable(path: Path, error: OSError) -> BundleCorrupt:
    return BundleCorrupt(f"{path} cannot be read: {error.strerror}; let this user read every file of the bundle")


def _corrupt(folder: Path, names: list[str]) -> BundleCorrupt:
    return BundleCorrupt(
        f"{', '.join(names)} in {folder} changed after the export (SHA-256 differs); export the checkpoint again"
    )
